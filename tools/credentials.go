package tools

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// unchanged is what is stored after a call that stores nothing.
const unchanged = "Nothing changed: the credential is stored as it was."

// asItWas is what is stored after a call whose answer was lost.
const asItWas = "The credential is stored as it was."

// Credential is what may be said of a stored credential.
type Credential struct {
	Handle      string   `json:"handle"`
	Protocol    string   `json:"protocol"`
	Origin      string   `json:"origin"`
	Agent       string   `json:"agent"`
	State       string   `json:"state"`
	ExpiresAt   string   `json:"expires_at,omitzero"`
	Permissions []string `json:"permissions,omitzero"`
}

// describe says what may be said of a stored credential.
func (d Deps) describe(i credstore.Info) Credential {
	c := Credential{
		Handle: d.Client.Lifecycle.Handle(i.Key), Protocol: i.Protocol, Origin: i.Origin, Agent: i.Agent,
		State: string(i.StateAt(d.Now())),
	}
	if !i.ExpiresAt.IsZero() {
		c.ExpiresAt = i.ExpiresAt.UTC().Format(time.RFC3339)
	}
	c.Permissions = gateway.Permissions(i)
	return c
}

// standing says what may be said of a stored credential as it stands now.
func (d Deps) standing(s gateway.Standing) Listed {
	c := Listed{Credential: d.describe(s.Info), Reason: strings.TrimSpace(s.Reason + " " + s.Remedy)}
	c.State = string(s.Now)
	return c
}

// storedIn names where secrets are kept, if that can be told.
func (d Deps) storedIn(ctx context.Context) string {
	if d.StoredIn == nil {
		return ""
	}
	where, err := d.StoredIn(ctx)
	if err != nil {
		return ""
	}
	return where
}

// CredentialInput is the arguments of a tool that uses a credential.
type CredentialInput struct {
	Credential string `json:"credential,omitzero" jsonschema:"a handle; left out: the only usable one"`
}

// named returns the stored credentials that have a handle, of the services whose
// tools are offered: a key pair or a recovery key behind one has none.
func (d Deps) named(ctx context.Context) ([]gateway.Standing, error) {
	all, err := d.Client.Lifecycle.Standings(ctx)
	if err != nil {
		return nil, err
	}
	kinds := make(map[string]credstore.Kind)
	for _, p := range d.Client.All() {
		kinds[p.Wire().Name] = p.Kind()
	}
	return slices.DeleteFunc(all, func(i gateway.Standing) bool {
		kind, ok := kinds[i.Protocol]
		return ok && kind != i.Kind || !d.speaks(i.Protocol)
	}), nil
}

// Nothing is the arguments of a tool that takes none.
type Nothing struct{}

// Listed is a credential with the reason for its state and what to do about it.
type Listed struct {
	Credential
	Reason string `json:"reason,omitzero"`
}

// CredentialList is the result of list_credentials.
type CredentialList struct {
	Credentials []Listed `json:"credentials"`
	StoredIn    string   `json:"stored_in,omitzero"`
	NextStep    string   `json:"next_step"`
}

func listCredentials(d Deps) server.ServerTool {
	s := spec{
		name:  "list_credentials",
		title: "List stored credentials",
		description: "Lists the stored credentials: handle, service, agent, state, expiry; never a key. Active and expiring ones are usable. " +
			"Call it first, to see whether you are registered, and when one fails: its reason says what to do.",
		readOnly:    true,
		destructive: false,
		idempotent:  true,
		openWorld:   false, // it reads this machine only
		kept:        "Nothing changed.",
		lost:        "Nothing changed.",
	}
	return tool(d, s, func(ctx context.Context, _ Nothing) (CredentialList, error) {
		all, err := d.named(ctx)
		if err != nil {
			return CredentialList{}, err
		}
		out := CredentialList{Credentials: []Listed{}, StoredIn: d.storedIn(ctx)}
		var usable []string
		for _, i := range all {
			out.Credentials = append(out.Credentials, d.standing(i))
			if i.UsableNow() {
				usable = append(usable, d.Client.Lifecycle.Handle(i.Key))
			}
		}
		switch {
		case len(all) == 0:
			out.NextStep = sentence(d.toRegister())
		case len(usable) == 0:
			out.NextStep = d.wayOut(all[0])
		case len(usable) == 1:
			out.NextStep = "Call send_request with credential " + usable[0] + ", or a tool of its service."
		default:
			out.NextStep = "Call send_request, or a tool of the service, with one of these as credential: " + strings.Join(usable, ", ") + "."
		}
		out.NextStep += d.withheld(out.NextStep)
		return out, nil
	})
}

// renewedError is why a call failed that had renewed the credential before.
type renewedError struct{ error }

// Unwrap returns what the call failed by.
func (e *renewedError) Unwrap() error { return e.error }

// whileUsing returns why a call with a credential failed: a *[renewedError] if
// that, or a token behind it, is another one than when the call began.
func (d Deps) whileUsing(ctx context.Context, was credstore.Info, began time.Time, err error) error {
	if err == nil {
		return nil
	}
	all, listErr := d.Client.Lifecycle.List(context.WithoutCancel(ctx))
	if listErr != nil {
		return err
	}
	for _, is := range all {
		behind := is.Key
		behind.Kind = was.Kind
		another := is.Key == was.Key && (is.KeyID != was.KeyID || !is.CreatedAt.Equal(was.CreatedAt))
		if another || behind == was.Key && is.CreatedAt.After(began) {
			return &renewedError{err}
		}
	}
	return err
}

// wayOut says what to do about a credential that is not usable.
func (d Deps) wayOut(s gateway.Standing) string {
	handle := d.Client.Lifecycle.Handle(s.Key)
	use := "call send_request with credential " + handle
	p := protocols()[s.Protocol]
	if p.register == "" {
		return "Ask the person to update Enlist: this version does not know what " + handle + " is for."
	}
	var set string
	if !p.takesURL && !d.usedNow(s.Protocol, s.Origin) {
		set = "Ask the person to set " + p.setting + "=" + s.Origin + " in Enlist's environment and to restart Enlist. Then "
	}
	switch s.Way {
	case gateway.WayUse:
		return sentence(use) + " What it lacks is seen to first."
	case gateway.WayWait:
		return "Wait a minute, then call list_credentials again."
	case gateway.WayRotate:
		return "Call rotate_credential with credential " + handle + ", then " + use + "."
	case gateway.WayRegister:
		return sentence(set + p.same(s.Key))
	}
	return sentence(set + p.anew(d))
}

func rotateCredential(d Deps) server.ServerTool {
	s := spec{
		name:  "rotate_credential",
		title: "Rotate a credential",
		description: "Gets a new key for a credential, stores it and ends the old one; the handle stays. " +
			"Call it when the service refuses the credential, its key may have leaked, or list_credentials says so. " +
			"If it fails, keep the old key: it may be needed.",
		readOnly:    false,
		destructive: true,  // the old key ends, also for other programs that use it
		idempotent:  false, // each call issues another key
		openWorld:   true,
		kept:        unchanged,
		lost:        "The credential is stored as it was, but the service may have replaced it already.",
		lostStep: "Wait a minute, then {again}, within a day: it ends the key that was lost. " +
			"If the service refuses that with agent_exists, it wants the key that never arrived: " + anotherAgent,
	}
	return tool(d, s, func(ctx context.Context, in CredentialInput) (Credential, error) {
		info, err := d.resolve(ctx, in.Credential)
		if err != nil {
			return Credential{}, err
		}
		done, err := d.Client.Lifecycle.Rotate(ctx, info.Key)
		if err != nil {
			return Credential{}, err
		}
		return d.describe(done), nil
	})
}

// Ended is the result of revoke_credential and forget_credential.
type Ended struct {
	Credential   string `json:"credential"`
	WhatHappened string `json:"what_happened"`
	MayStillWork bool   `json:"may_still_work"`
}

func revokeCredential(d Deps) server.ServerTool {
	s := spec{
		name:  "revoke_credential",
		title: "Revoke a credential",
		description: "Ends a credential at the service for good. Call it only when the person wants that; returns whether the key may still work. " +
			"If the service has no such call, nothing is done.",
		readOnly:    false,
		destructive: true,
		idempotent:  true, // what has ended stays ended
		openWorld:   true,
		kept:        unchanged,
		lost:        "The credential is stored as it was, but the service may have ended it already.",
		lostStep:    "Wait a minute, then {again}: that is safe.",
	}
	return tool(d, s, func(ctx context.Context, in CredentialInput) (Ended, error) {
		info, err := d.resolve(ctx, in.Credential)
		if err != nil {
			return Ended{}, err
		}
		if err := d.Client.Lifecycle.Revoke(ctx, info.Key); err != nil {
			return Ended{}, err
		}
		return Ended{
			Credential:   d.Client.Lifecycle.Handle(info.Key),
			WhatHappened: info.Origin + " accepts the key no more.",
		}, nil
	})
}

func forgetCredential(d Deps) server.ServerTool {
	s := spec{
		name:  "forget_credential",
		title: "Forget a credential",
		description: "Deletes a credential from this machine for good. Call it only when the person wants that: " +
			"the service is not told, and may want that key to register the agent again. If it fails, nothing is deleted.",
		readOnly:    false,
		destructive: true,  // the key cannot be had again
		idempotent:  true,  // what is deleted stays deleted
		openWorld:   false, // it changes this machine only
		kept:        unchanged,
		lost:        unchanged,
	}
	return tool(d, s, func(ctx context.Context, in CredentialInput) (Ended, error) {
		info, err := d.resolve(ctx, in.Credential)
		if err != nil {
			return Ended{}, err
		}
		handle := d.Client.Lifecycle.Handle(info.Key)
		alive, err := d.Client.Lifecycle.Forget(ctx, info.Key)
		if err != nil {
			return Ended{}, err
		}
		out := Ended{Credential: handle, WhatHappened: "It is deleted from this machine.", MayStillWork: alive}
		if alive {
			until := "for ever"
			if !info.ExpiresAt.IsZero() {
				until = "until " + info.ExpiresAt.UTC().Format(time.RFC3339)
			}
			out.WhatHappened += fmt.Sprintf(" %s was not told and may accept the key %s.", info.Origin, until)
		}
		if more := Forgets(info.Protocol); more != "" {
			out.WhatHappened += " " + more
			return out, nil
		}
		out.WhatHappened += " Without its last key, the service may refuse to register " + value(info.Agent) + " again."
		return out, nil
	})
}
