package embeddedgateway

import (
	"context"
	"errors"
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// callerOf is the caller who has a credential of the store.
func callerOf(cred store.Credential) Caller {
	return Caller{
		Protocol: cred.Protocol, Agent: cred.AgentName, Scopes: cred.Scopes, KeyID: cred.KeyID,
		AgentID: cred.AgentID, CredentialID: cred.ID,
	}
}

// bearer reports whether the credential came as a bearer token.
func (p presented) bearer() bool { return p.header == authorizationHeader && !p.basic }

func (*lona) entrance() string { return wire.LonaInvitePath }

func (*lona) issues(p presented) bool {
	return p.header == wire.LonaKeyHeader && wire.IsLonaToken(p.secret)
}

// identify implements identifier. What an agent may do is in its permissions.
func (l *lona) identify(ctx context.Context, c *call, _ presented) (Caller, error) {
	cred, err := l.holder(ctx, c)
	return callerOf(cred), err
}

func (*lithtrix) entrance() string { return wire.LithtrixRegisterPath }

func (*lithtrix) issues(p presented) bool { return p.bearer() && wire.IsLithtrixKey(p.secret) }

// identify implements identifier. The protocol knows no scopes.
func (l *lithtrix) identify(ctx context.Context, c *call, _ presented) (Caller, error) {
	cred, err := l.holder(ctx, c, nil)
	return callerOf(cred), err
}

func (*agentDoor) entrance() string { return wire.AgentDoorDiscoveryPath }

func (*agentDoor) issues(p presented) bool {
	return p.bearer() && (p.audience == wire.AgentDoorName || wire.IsAgentDoorKey(p.secret))
}

// identify implements identifier. The scopes of a key are those that its agent
// was granted.
func (a *agentDoor) identify(ctx context.Context, c *call, p presented) (Caller, error) {
	if p.audience == "" {
		cred, err := a.holder(ctx, c, p.secret)
		return callerOf(cred), err
	}
	agent, err := a.byToken(ctx, c, p.secret)
	return Caller{
		Protocol: wire.AgentDoorName, Agent: agent.Name, Scopes: strings.Fields(agent.Attrs[agentDoorScopes]),
		KeyID: c.keyID, AgentID: agent.ID,
	}, err
}

func (*fluxra) entrance() string { return wire.FluxraRegisterPath }

// issues implements identifier. A recovery key opens nothing: it is for what the
// account itself needs.
func (*fluxra) issues(p presented) bool {
	return p.header == authorizationHeader && (p.audience == wire.FluxraName && !p.basic || wire.IsFluxraKey(p.secret))
}

// identify implements identifier. An API key comes as the protocol has it, in
// Basic with the agent_id, or as a bearer token, because its prefix says enough.
func (f *fluxra) identify(ctx context.Context, c *call, p presented) (Caller, error) {
	if p.audience == "" {
		cred, err := f.keyHolder(ctx, c, p)
		return callerOf(cred), err
	}
	s, err := f.session(ctx, c)
	return callerOf(s.key), err
}

// keyHolder returns an API key that may be used.
func (f *fluxra) keyHolder(ctx context.Context, c *call, p presented) (store.Credential, error) {
	wrong := challenged(wire.FluxraUnauthorized, fluxraBearerChallenge,
		"the api_key is unknown, was revoked or has expired, or is another agent's than the agent_id in Basic says")
	cred, err := recognise(ctx, c.store, wire.FluxraName, p.secret)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return cred, wrong
	case err != nil:
		return cred, err
	case cred.Kind != fluxraKey || p.basic && p.user != cred.AgentName:
		return cred, wrong
	}
	c.agent, c.keyID = cred.AgentName, cred.KeyID
	if cred.ActiveAt(f.Now()) {
		return cred, nil
	}
	if err := f.suspended(ctx, c, cred.AgentName, fluxraKey, cred.Hash); err != nil {
		return cred, err
	}
	return cred, wrong
}

func (*lumina) entrance() string { return wire.LuminaOnboardPath }

func (*lumina) issues(p presented) bool {
	return p.header == wire.LuminaKeyHeader && wire.IsLuminaKey(p.secret)
}

// identify implements identifier. The protocol knows no scopes.
func (l *lumina) identify(ctx context.Context, c *call, _ presented) (Caller, error) {
	cred, err := l.holder(ctx, c)
	return callerOf(cred), err
}
