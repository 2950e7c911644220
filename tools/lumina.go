package tools

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const luminaRegister = "lumina_register_agent"

// lumina is what the shared tools know of Lumina.
func lumina() protocol {
	limit := "Wait an hour, then call " + luminaRegister + " again: an address gets ten tries an hour."
	const signature = "Wait a minute, then {again}. If it fails again, tell the person that the service does not take the wallet's signature."
	return protocol{
		tools:    []func(Deps) server.ServerTool{luminaRegisterAgent},
		register: luminaRegister,
		names:    "label",
		forgets:  "The wallet stays stored; a key that was not revoked keeps one of its places at the service.",
		setting:  "LUMINA_API_URL",
		asks: "The signature of an Ethereum wallet, which is stored here or made. " +
			"What the service calls its sandbox and its faucet is no registration, and Enlist does not use it.",
		routes: []string{
			"GET /api/v1/agent/keys lists the wallet's active keys, never the keys themselves.",
		},
		advice: map[string]string{
			wire.LuminaStaleTimestamp:    "Ask the person to set this machine's clock right, then call " + luminaRegister + " again.",
			wire.LuminaInvalidSignature:  signature,
			wire.LuminaSignatureMismatch: signature,
			wire.LuminaRateLimit:         limit,
			wire.LuminaRateLimited:       limit,
			wire.LuminaInvalidAPIKey:     "Call rotate_credential, then {again}. If it fails again, call " + luminaRegister + " with another label.",
		},
		lost: map[string]string{
			"onboard": "Wait a minute, then {again} with the same arguments. If a key was issued that never arrived, it takes one of the wallet's three places; when they are full, the error names it.",
		},
	}
}

// LuminaRegisterInput is the arguments of lumina_register_agent.
type LuminaRegisterInput struct {
	Label       string `json:"label,omitzero" jsonschema:"names this bot's key, e.g. spot-arb-1; up to 50 characters"`
	Wallet      string `json:"wallet,omitzero" jsonschema:"name of a stored wallet; only if there are several"`
	RevokeKeyID int64  `json:"revoke_key_id,omitzero" jsonschema:"a key that the person chose to end first"`
}

// LuminaRegistered is the result of lumina_register_agent.
type LuminaRegistered struct {
	Credential
	StoredIn string `json:"stored_in,omitzero"`
	Reused   bool   `json:"reused"`
	NextStep string `json:"next_step"`
}

func luminaRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  luminaRegister,
		title: "Register at Lumina",
		description: "Registers at Lumina by a wallet's signature and stores the key, which you never see. " +
			"The wallet is stored here, or made. Call it once for each bot, with a label of its own. Returns the credential's handle. " +
			"A wallet has at most three keys: if they are full, the person says which one ends.",
		readOnly: false,
		// Only with revoke_key_id: then a key ends for good.
		destructive: true,
		// The same label again is the same key.
		idempotent: true,
		openWorld:  true,
		kept:       "No new key. What was stored before is still stored.",
		lost:       "No new key. The service may have issued one that never arrived.",
	}
	return tool(d, s, func(ctx context.Context, in LuminaRegisterInput) (LuminaRegistered, error) {
		r := gateway.LuminaRegistration{Label: in.Label, Wallet: in.Wallet}
		if in.RevokeKeyID != 0 {
			r.RevokeKeyID, r.RevokeChosen = strconv.FormatInt(in.RevokeKeyID, 10), saidByPerson(ctx, "revoke_key_id")
		}
		done, err := d.Client.Lumina.Register(ctx, r)
		if err != nil {
			return LuminaRegistered{}, err
		}
		out := LuminaRegistered{Credential: d.describe(done.Info), StoredIn: d.storedIn(ctx), Reused: done.Reused}
		out.NextStep = "Call send_request with credential " + out.Handle + ", method GET and path " + wire.LuminaKeysPath + ": it lists the wallet's keys."
		return out, nil
	})
}

// explainFull is about a wallet that has as many keys as it may have. It names
// the keys; which of them may end is for a person to say.
func (d Deps) explainFull(ctx context.Context, s spec, e *gateway.KeysFullError) Failure {
	f := d.explainService(ctx, s, e.Err)
	f.WhatHappened = "The wallet has as many active keys as the service allows. None was revoked."
	if len(e.Keys) == 0 {
		f.NextStep = "Ask the person to revoke one of its keys where it is stored, or to import another wallet with 'enlist wallet import', then " + s.again() + ". " +
			"No key of the wallet that works is stored here, so they cannot be listed."
		return f
	}
	var keys, labels []string
	for _, k := range e.Keys {
		text := k.KeyID
		if !k.CreatedAt.IsZero() {
			text += " of " + k.CreatedAt.UTC().Format(time.DateOnly)
		}
		if k.Stored != nil {
			text += ", stored as " + d.Client.Lifecycle.Handle(*k.Stored)
		}
		keys = append(keys, text)
		labels = append(labels, fmt.Sprintf("%s is labelled %q", k.KeyID, k.Label))
	}
	f.WhatHappened += " Its keys: " + strings.Join(keys, "; ") + "."
	f.ServiceSaid = d.Client.Scrubber.Said(ctx, strings.TrimSpace(f.ServiceSaid+" "+strings.Join(labels, "; ")))
	again := " again"
	if s.name != luminaRegister {
		again = ""
	}
	f.NextStep = "Ask the person for revoke_key_id, the number of the key that may end for good, then call " + luminaRegister + again + " with revoke_key_id. Never choose one yourself."
	if again == "" {
		f.NextStep += " Give it the label of the credential that you are rotating: if it is that one's own key, the new key takes its place; if it is another, call " + s.name + " again."
	}
	return f
}
