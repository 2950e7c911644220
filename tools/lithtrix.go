package tools

import (
	"context"
	"errors"
	"strings"

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
	OwnerIdentifier string `json:"owner_identifier,omitzero" jsonschema:"what the person says of who owns the agent: email, URL or id"`
	AgreeToTerms    *bool  `json:"agree_to_terms,omitzero" jsonschema:"only what the person decided"`
	Label           string `json:"label,omitzero" jsonschema:"another handle, if the agent_name's is taken"`
}

// LithtrixRegistered is the result of lithtrix_register_agent.
type LithtrixRegistered struct {
	Credential
	StoredIn string `json:"stored_in,omitzero"`
	Reused   bool   `json:"reused"`
	NextStep string `json:"next_step"`
}

// termsOf returns the error of a service that wants the person to agree to its
// terms as the question whether they do, unless they have said so.
func termsOf(err error, at string, said *bool) error {
	var e *gateway.Error
	if said != nil || !errors.As(err, &e) || e.Code != wire.LithtrixInvalid || !strings.Contains(e.Message, "agree_to_terms") {
		return err
	}
	return &missing{instead: err, form: form{
		message: "Whoever registers at " + at + " must agree to the terms of that service. They are to be read there; do you agree to them?",
		fields:  []field{{name: "agree_to_terms", title: "I agree to the terms of " + at, wanted: "whether they agree to the service's terms", kind: aYes}},
		done:    "The service did not register the agent.",
	}}
}

func lithtrixRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  "lithtrix_register_agent",
		title: "Register at Lithtrix",
		description: "Registers an agent at Lithtrix and stores its key, which you never see. " +
			"Call it once for each agent_name and owner_identifier; again, it returns what is stored (reused). Returns the credential's handle. " +
			"If the agent exists, only another agent_name helps.",
		readOnly:    false,
		destructive: false, // it ends no key
		idempotent:  true,  // a pair has one key, whoever asks how often
		openWorld:   true,
		kept:        "Nothing new. A key that was stored before is still stored.",
		lost: "Nothing new. The service may have issued a key that never arrived. The same call within a day gets another in its place " +
			"where the service knows that it is the same; else this agent_name and owner_identifier are registered, and their key is lost.",
	}
	return tool(d, s, func(ctx context.Context, in LithtrixRegisterInput) (LithtrixRegistered, error) {
		at := d.Client.Lithtrix.Origin()
		if in.OwnerIdentifier == "" && wire.CheckLithtrixAgentName(in.AgentName) {
			return LithtrixRegistered{}, &missing{form: form{
				message: "An agent that registers at " + at + " must say whose it is. Who owns it?",
				fields: []field{{
					name: "owner_identifier", title: "Owner of the agent", kind: aText,
					wanted: "who owns the agent: an email address, a URL or an id",
				}},
			}}
		}
		done, err := d.Client.Lithtrix.Register(ctx, gateway.LithtrixRegistration{
			AgentName: in.AgentName, OwnerIdentifier: in.OwnerIdentifier, AgreeToTerms: in.AgreeToTerms, Label: in.Label,
		})
		if err != nil {
			return LithtrixRegistered{}, termsOf(err, at, in.AgreeToTerms)
		}
		out := LithtrixRegistered{Credential: d.describe(done.Info), StoredIn: d.storedIn(ctx), Reused: done.Reused}
		out.NextStep = "Call send_request with credential " + out.Handle + ", method GET and path " + wire.LithtrixMePath + ": it says whether the key works. GET " + wire.LithtrixCapabilitiesPath + " says what else there is."
		return out, nil
	})
}
