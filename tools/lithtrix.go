package tools

import (
	"context"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lithtrix is what the shared tools know of Lithtrix.
func lithtrix() protocol {
	const register = "lithtrix_register_agent"
	return protocol{
		tools:    []func(Deps) server.ServerTool{lithtrixRegisterAgent},
		register: register,
		names:    "agent_name",
		setting:  "LITHTRIX_API_URL",
		asks:     "An agent_name of your choice, and who the owner is, which the person says. Some services also ask whether the person agrees to their terms.",
		routes: []string{
			"GET /v1/me says who the key is for: agent_id, agent_name, owner_identifier, tier.",
			"GET /v1/capabilities lists the service's endpoints and rate limits.",
			"GET /v1/billing says how many calls were made of those that are free.",
		},
		advice: map[string]string{
			wire.LithtrixAgentExists: "Call " + register + " with another agent_name: this one and owner_identifier are registered, and no usable key of theirs is stored here. " +
				"Or, if the person has a backup of the lost key, they restore it into Enlist's credential store and you call rotate_credential.",
			wire.LithtrixKeyReused: "{Again}. If it fails again, call " + register + " with another agent_name.",
			wire.LithtrixInvalidKey: "Call " + register + " with another agent_name: the stored key is not good any more, and rotating would need one that is. " +
				"Or, if the person has a backup of the present key, they restore it into Enlist's credential store.",
			wire.LithtrixInvalid: "Call " + register + " again with what service_said says put right. " +
				"If it is the terms: ask the person whether they agree to them, and send agree_to_terms true only if they do.",
			wire.LithtrixRateLimited: "Wait a minute, then {again}. If it fails again, wait an hour, then {again}.",
			gateway.CodeKeyLost:      "Tell the person. Then call " + register + " with another agent_name: the service does not give this agent another key.",
		},
	}
}

// LithtrixRegisterInput is the arguments of lithtrix_register_agent.
type LithtrixRegisterInput struct {
	AgentName       string `json:"agent_name" jsonschema:"1 to 100 ASCII letters, digits or _-"`
	OwnerIdentifier string `json:"owner_identifier" jsonschema:"who owns the agent: an email address, a URL or an id"`
	AgreeToTerms    *bool  `json:"agree_to_terms,omitzero" jsonschema:"only what the person decided; ask them"`
	Label           string `json:"label,omitzero" jsonschema:"a handle of its own, if the agent_name's is taken"`
}

// LithtrixRegistered is the result of lithtrix_register_agent.
type LithtrixRegistered struct {
	Credential
	StoredIn string `json:"stored_in,omitzero"`
	Reused   bool   `json:"reused"`
	NextStep string `json:"next_step"`
}

func lithtrixRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  "lithtrix_register_agent",
		title: "Register at Lithtrix",
		description: "Registers an agent at Lithtrix and stores its key, which you never see. " +
			"Each agent_name and owner_identifier register once; again, they get what is stored (reused). Returns the credential's handle.",
		readOnly:    false,
		destructive: false, // it ends no key
		idempotent:  true,  // a pair has one key, whoever asks how often
		openWorld:   true,
		kept:        "Nothing new. A key that was stored before is still stored.",
		lost: "Nothing new. The service may have issued a key that never arrived. The same call within a day gets another in its place " +
			"where the service knows that it is the same; else this agent_name and owner_identifier are registered, and their key is lost.",
	}
	return tool(d, s, func(ctx context.Context, in LithtrixRegisterInput) (LithtrixRegistered, error) {
		done, err := d.Client.Lithtrix.Register(ctx, gateway.LithtrixRegistration{
			AgentName: in.AgentName, OwnerIdentifier: in.OwnerIdentifier, AgreeToTerms: in.AgreeToTerms, Label: in.Label,
		})
		if err != nil {
			return LithtrixRegistered{}, err
		}
		out := LithtrixRegistered{Credential: d.describe(done.Info), StoredIn: d.storedIn(ctx), Reused: done.Reused}
		out.NextStep = "Call send_request with credential " + out.Handle + ", method GET and path " + wire.LithtrixMePath + ": it says whether the key works. GET " + wire.LithtrixCapabilitiesPath + " says what else there is."
		return out, nil
	})
}
