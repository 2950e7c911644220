package tools

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// anotherAgent is the way out where a service wants a token that nobody has as
// the proof of who an agent is.
const anotherAgent = "register with another agent_id, or ask the person to set LONA_AGENT_REGISTRATION_SECRET in Enlist's environment. " +
	"Do not ask for the secret itself."

// lona is what the shared tools know of Lona.
func lona() protocol {
	const register = "lona_register_agent"
	return protocol{
		tools:    []func(Deps) server.ServerTool{lonaListStrategies, lonaRegisterAgent},
		register: register,
		names:    "agent_id",
		setting:  "LONA_GATEWAY_URL",
		asks:     "An agent_id and an agent_name of your choice. The tool gets the invite that the service also asks for.",
		routes: []string{
			"GET /api/v1/strategies lists the agent's strategies; lona_list_strategies does the same.",
		},
		advice: map[string]string{
			wire.LonaInvalidRequest: "Call " + register + " again with what service_said says put right.",
			wire.LonaInvalidInvite:  "Call " + register + " again: it gets a new invite.",
			wire.LonaInvalidRegistrationSecret: "Ask the person to correct or unset LONA_AGENT_REGISTRATION_SECRET in Enlist's environment and to restart Enlist, then call " + register + " again. " +
				"Do not ask for the secret itself.",
			wire.LonaInvitesDisabled: "Ask the person to set LONA_AGENT_REGISTRATION_SECRET in Enlist's environment and to restart Enlist, then call " + register + " again: " +
				"the service gives out no invites now. Do not ask for the secret itself.",
			wire.LonaAgentExists: "Call " + register + " with another agent_id, or ask the person to set LONA_AGENT_REGISTRATION_SECRET in Enlist's environment. Do not ask for the secret itself. " +
				"This one is taken, and no token that would prove it yours is stored here: it is somebody else's, or its token was ended or lost, and the service gives no other for it.",
			wire.LonaKeyReused: "{Again} with the same arguments. If it fails again, call forget_credential for this agent_id, then call " + register + ".",
			wire.LonaRateLimited: "Wait an hour, then call " + register + " again: an address gets three invites an hour. " +
				"A person can set LONA_AGENT_REGISTRATION_SECRET in Enlist's environment, which has no such limit.",
			wire.LonaUnauthorized: "Call rotate_credential, then {again}. If it fails again, call " + register + " with another agent_id.",
		},
	}
}

// LonaRegisterInput is the arguments of lona_register_agent.
type LonaRegisterInput struct {
	AgentID       string `json:"agent_id" jsonschema:"2 to 64 ASCII letters, digits or ._-; choose one and keep to it"`
	AgentName     string `json:"agent_name" jsonschema:"for people; up to 100 characters"`
	ExpiresInDays *int   `json:"expires_in_days,omitzero" jsonschema:"lifetime of the token; the service has a maximum"`
	Source        string `json:"source,omitzero" jsonschema:"where the agent comes from"`
	UserID        string `json:"user_id,omitzero" jsonschema:"only if it differs from agent_id"`
}

// LonaRegistered is the result of lona_register_agent.
type LonaRegistered struct {
	Credential
	StoredIn string `json:"stored_in,omitzero"`
	Reused   bool   `json:"reused"`
	NextStep string `json:"next_step"`
}

func lonaRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  "lona_register_agent",
		title: "Register at Lona",
		description: "Registers an agent at Lona and stores its token, which you never see. " +
			"Call it once, before the other Lona tools; it needs no invite or key. Returns the credential's handle. " +
			"The same agent_id again gets a new token and ends the old one. If the agent_id is taken, choose another.",
		readOnly: false,
		// The former token of the agent_id ends, also for other programs that
		// use it.
		destructive: true,
		// Each call issues another token.
		idempotent: false,
		openWorld:  true,
		kept:       "Nothing new. A token that was stored for this agent before is still stored.",
		lost:       "No new token; where there was none, the credential is listed as pending. The service may have issued a token that never arrived, and ended the one that is stored, if any.",
		lostStep: "Wait a minute, then {again} with the same arguments, within a day: it ends the token that was lost. " +
			"A service that refuses that with agent_exists wants the token that never arrived: " + anotherAgent,
	}
	return tool(d, s, func(ctx context.Context, in LonaRegisterInput) (LonaRegistered, error) {
		done, err := d.Client.Lona.Register(ctx, gateway.LonaRegistration{
			AgentID: in.AgentID, AgentName: in.AgentName, ExpiresInDays: in.ExpiresInDays, Source: in.Source, UserID: in.UserID,
		})
		if err != nil {
			return LonaRegistered{}, err
		}
		out := LonaRegistered{Credential: d.describe(done.Info), StoredIn: d.storedIn(ctx), Reused: done.Reused}
		out.NextStep = "Call lona_list_strategies with credential " + out.Handle + ". Then follow Lona's agent workflow, from a strategy to its backtest: " +
			"send_request makes every other request with this credential."
		return out, nil
	})
}

// LonaStrategies is the result of lona_list_strategies.
type LonaStrategies struct {
	Credential string `json:"credential"`
	Strategies any    `json:"strategies"`
}

func lonaListStrategies(d Deps) server.ServerTool {
	s := spec{
		name:  "lona_list_strategies",
		title: "List Lona's strategies",
		description: "Lists the agent's strategies at Lona. Call it after lona_register_agent, or to see whether a credential works. " +
			"If it is refused, call rotate_credential.",
		readOnly:    true,
		destructive: false,
		idempotent:  true,
		openWorld:   true,
		kept:        unchanged,
		lost:        unchanged,
	}
	if d.ReadOnly { // there is no such tool
		s.description = strings.Replace(s.description, "call rotate_credential", "tell the person", 1)
	}
	return tool(d, s, func(ctx context.Context, in CredentialInput) (LonaStrategies, error) {
		info, err := d.Client.Lifecycle.ResolveOf(ctx, wire.LonaName, in.Credential)
		if err != nil {
			return LonaStrategies{}, err
		}
		began := d.Now()
		list, err := d.Client.Lona.Strategies(ctx, info.Key)
		if err != nil {
			return LonaStrategies{}, d.whileUsing(ctx, info, began, err)
		}
		return LonaStrategies{Credential: d.Client.Lifecycle.Handle(info.Key), Strategies: json.RawMessage(list)}, nil
	})
}
