package tools

import (
	"context"
	"strings"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const agentDoorRegister = "agentdoor_register_agent"

// agentDoor is what the shared tools know of AgentDoor.
func agentDoor() protocol {
	const clock = "Ask the person to set this machine's clock right, then {again}."
	const doorScopes = "Ask the person for scopes, those that this needs, then call " + agentDoorRegister + " with another agent_name and scopes: " +
		"this agent was not granted them, and registers once. One with a price costs money per request, which Enlist does not pay."
	again := "Wait a minute, then call " + agentDoorRegister + " again with the same arguments: the key pair is stored, so nothing is lost."
	signature := "Tell the person: the service does not take the agent's signature. Call " + agentDoorRegister + " again with another agent_name."
	return protocol{
		tools:    []func(Deps) server.ServerTool{agentdoorRegisterAgent},
		register: agentDoorRegister,
		names:    "agent_name",
		takesURL: true,
		asks:     "Its URL and an agent_name of your choice; scopes, if not all that cost nothing. The tool makes the key pair that the service asks for.",
		setting:  "AGENTDOOR_URL",
		forgets:  "Its key pair is gone, too: this registration can never be had again.",
		routes: []string{
			"GET /.well-known/agentdoor.json says what the service is and which scopes it has; discover_service reads it, too.",
			"The service's own routes are in its documentation; what the scopes of the credential allow, it answers.",
		},
		advice: map[string]string{
			wire.AgentDoorInvalidRequest: "Call " + agentDoorRegister + " again with what service_said says put right: some services want an x402_wallet, or other metadata.",
			wire.AgentDoorInvalidScopes:  "Call " + agentDoorRegister + " again without scopes, or with those of service_said.",
			wire.AgentDoorAlreadyRegistered: "Tell the person, then call " + agentDoorRegister + " with another agent_name: " +
				"the service has this agent's key pair and does not say under which agent_id.",
			wire.AgentDoorDuplicateAgent:   again,
			wire.AgentDoorRateLimited:      "Wait an hour, then call " + agentDoorRegister + " again.",
			wire.AgentDoorInvalidSignature: signature,
			wire.AgentDoorNotFound:         again,
			wire.AgentDoorChallengeExpired: again,
			wire.AgentDoorTimestampInvalid: clock,
			wire.AgentDoorAgentNotFound:    "Call " + agentDoorRegister + " with another agent_name: the service does not know this agent any more.",
			wire.AgentDoorAgentInactive: "Ask the person whether to register another agent, then call " + agentDoorRegister + " with another agent_name: the service has suspended or deleted this one. " +
				"Only whoever runs the service can change that.",
			wire.AgentDoorUnauthorized: "Tell the person: the service does not accept this agent, though its token was renewed.",
			wire.AgentDoorForbidden:    doorScopes,
			gateway.CodeNoScope: "Call " + agentDoorRegister + " again without scopes: it asks for all that cost nothing. If it fails again, ask the person for scopes among those of what_happened, " +
				"then call " + agentDoorRegister + " again with scopes: one with a price costs money per request, which Enlist does not pay.",
			gateway.CodeChallenge: "Tell the person. Unless this machine's clock is wrong, do not try this service again: it may want to use the agent's signature elsewhere.",
		},
		lost: map[string]string{"prove the key": again},
	}
}

// AgentDoorRegisterInput is the arguments of agentdoor_register_agent.
type AgentDoorRegisterInput struct {
	ServiceURL string         `json:"service_url,omitzero" jsonschema:"origin, as in https://api.example.com; left out: AGENTDOOR_URL"`
	AgentName  string         `json:"agent_name" jsonschema:"names the agent, here and there"`
	Scopes     []string       `json:"scopes,omitzero" jsonschema:"left out: all that cost nothing"`
	Metadata   map[string]any `json:"metadata,omitzero" jsonschema:"what the service may know of the agent"`
	X402Wallet string         `json:"x402_wallet,omitzero" jsonschema:"an address the person gave; Enlist pays nothing"`
	Label      string         `json:"label,omitzero" jsonschema:"another handle, if the agent_name's is taken"`
}

// AgentDoorRegistered is the result of agentdoor_register_agent.
type AgentDoorRegistered struct {
	Credential
	ScopesGranted    []string       `json:"scopes_granted,omitzero"`
	ScopesNotGranted []string       `json:"scopes_not_granted,omitzero"`
	RateLimit        string         `json:"rate_limit,omitzero"`
	X402             *AgentDoorX402 `json:"x402,omitzero"`
	StoredIn         string         `json:"stored_in,omitzero"`
	Reused           bool           `json:"reused"`
	NextStep         string         `json:"next_step"`
}

// AgentDoorX402 says how a service wants to be paid.
type AgentDoorX402 struct {
	PaymentAddress string `json:"payment_address,omitzero"`
	Network        string `json:"network,omitzero"`
	Currency       string `json:"currency,omitzero"`
}

func agentdoorRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  agentDoorRegister,
		title: "Register at a service that speaks AgentDoor",
		description: "Registers an agent at a service that speaks AgentDoor and stores its keys, which you never see. " +
			"Call it once for each service and agent_name; again, it returns what is stored (reused). Returns the credential's handle. " +
			"If it breaks off, the same call goes on: the key pair is kept.",
		readOnly:    false,
		destructive: false, // it ends no key
		idempotent:  true,  // an agent has one key pair at a service
		openWorld:   true,
		kept:        "No registration that can be used; what was stored before is still stored. A key pair that was made for it is kept for the next try.",
		lost:        "The agent's key pair. The service may have registered it; the next call finds out and goes on with it.",
	}
	return tool(d, s, func(ctx context.Context, in AgentDoorRegisterInput) (AgentDoorRegistered, error) {
		if in.ServiceURL == "" && d.Client.AgentDoor.Origin() == "" {
			return AgentDoorRegistered{}, link("service_url", "The agent wants to register at a service that speaks AgentDoor, and did not say at which. What is its address?")
		}
		done, err := d.Client.AgentDoor.Register(ctx, gateway.AgentDoorRegistration{
			ServiceURL: in.ServiceURL, AgentName: in.AgentName, Scopes: in.Scopes,
			Metadata: in.Metadata, X402Wallet: in.X402Wallet, Label: in.Label,
		})
		if err != nil {
			return AgentDoorRegistered{}, err
		}
		out := AgentDoorRegistered{
			Credential: d.describe(done.Info), ScopesNotGranted: done.NotGranted, RateLimit: done.RateLimit,
			StoredIn: d.storedIn(ctx), Reused: done.Reused,
		}
		out.ScopesGranted, out.Permissions = out.Permissions, nil
		steps := []string{"Call send_request with credential " + out.Handle + "; its token is renewed by itself."}
		if len(done.NotGranted) > 0 {
			steps = append(steps, "Not every scope was granted: do not call what needs the others.")
		}
		if done.X402 != (wire.AgentDoorX402{}) {
			x402 := AgentDoorX402(done.X402)
			out.X402 = &x402
			steps = append(steps, "The service takes payments by x402, which Enlist does not make: if it answers 402, tell the person.")
		}
		out.NextStep = strings.Join(steps, " ")
		return out, nil
	})
}
