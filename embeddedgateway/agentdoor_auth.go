package embeddedgateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agentDoorClaims is what a JWT says beyond the claims that every one has.
type agentDoorClaims struct {
	AgentID   string   `json:"agent_id"`
	Scopes    []string `json:"scopes"`
	PublicKey string   `json:"public_key"`
	// Ended is [store.Agent.TokensEnded] when it was signed.
	Ended int64 `json:"ended,omitempty"`
}

// agentDoorJWT is a JWT that is ready to go out.
type agentDoorJWT struct {
	text    string
	id      string // its jti
	expires wire.MilliTime
}

// token makes a JWT of an agent.
func (a *agentDoor) token(ctx context.Context, agentID, publicKey string, scopes []string, ended int64) (agentDoorJWT, error) {
	text, claims, err := a.signer.sign(ctx, wire.AgentDoorName, agentID, agentDoorClaims{agentID, scopes, publicKey, ended})
	if err != nil {
		return agentDoorJWT{}, err
	}
	return agentDoorJWT{text, claims.ID, wire.MilliTime(claims.Expiry.Time())}, nil
}

// audit says that the JWT goes out.
func (t agentDoorJWT) audit(tx *store.Tx, c *call, why string) error {
	event := c.event("token_issued")
	event.KeyID, event.Detail = t.id, why
	return tx.Audit(event)
}

// agentDoorAuthBody is what is sent to get a JWT. That the timestamp is one is
// said in the words that there are for a wrong one.
type agentDoorAuthBody struct{ wire.AgentDoorAuthRequest }

func (b agentDoorAuthBody) check() error {
	if b.Timestamp == "" {
		return invalid("timestamp must be the time of now in ISO 8601, spelled as it was signed")
	}
	return checkSigned(b.AgentID, b.Signature)
}

// auth issues a JWT to an agent that signs the time.
func (a *agentDoor) auth(ctx context.Context, c *call, in agentDoorAuthBody) (wire.AgentDoorToken, error) {
	var none wire.AgentDoorToken
	c.agent = in.AgentID
	seen, err := a.timely(in)
	if err != nil {
		return none, err
	}
	agent, err := c.store.Agent(ctx, wire.AgentDoorName, in.AgentID)
	if errors.Is(err, store.ErrNotFound) {
		p := notFound()
		p.code, p.message = wire.AgentDoorAgentNotFound, "there is no agent with this agent_id: register at "+wire.AgentDoorRegisterPath
		return none, p
	}
	if err != nil {
		return none, err
	}
	publicKey := agent.Attrs[agentDoorPublicKey]
	ok, err := signed(publicKey, wire.AgentDoorAuthMessage(in.AgentID, in.Timestamp), in.Signature)
	if err != nil {
		return none, err
	}
	if !ok {
		return none, unauthorized(wire.AgentDoorInvalidSignature,
			"the signature is not one of agentdoor:auth:{agent_id}:{timestamp}, byte for byte, by the agent's key")
	}
	if err := active(agent); err != nil {
		return none, err
	}
	// Before it is counted: who replays a signature uses up nothing of the agent's.
	switch _, err := c.store.Ticket(ctx, seen.Protocol, seen.Kind, seen.Hash); {
	case err == nil:
		return none, replayed()
	case !errors.Is(err, store.ErrNotFound):
		return none, err
	}
	if err := a.auths.hit(ctx, agent.ID); err != nil {
		return none, err
	}
	token, err := a.token(ctx, agent.Name, publicKey, strings.Fields(agent.Attrs[agentDoorScopes]), agent.TokensEnded)
	if err != nil {
		return none, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		err := tx.OpenTicket(seen, false)
		if errors.Is(err, store.ErrExists) {
			return replayed()
		}
		if err != nil {
			return err
		}
		return token.audit(tx, c, "by signature")
	})
	if err != nil {
		return none, err
	}
	return wire.AgentDoorToken{Token: token.text, ExpiresAt: token.expires}, nil
}

func replayed() *problem {
	return agentDoorInvalid(wire.AgentDoorTimestampInvalid, "this signature was accepted before: sign again with a later timestamp")
}

// timely judges the time of a signature, and returns the ticket that makes it
// good for one JWT. The ticket goes by the bytes of the signature, not by how
// they are spelled.
func (a *agentDoor) timely(in agentDoorAuthBody) (store.Ticket, error) {
	const window = wire.AgentDoorWindowSeconds * time.Second
	at, err := time.Parse(time.RFC3339, in.Timestamp)
	if err != nil {
		return store.Ticket{}, agentDoorInvalid(wire.AgentDoorTimestampInvalid,
			"timestamp must be ISO 8601 with a time zone, as in 2026-02-06T14:00:00.000Z")
	}
	now := a.now()
	if off := now.Sub(at); off > window || off < -window {
		return store.Ticket{}, agentDoorInvalid(wire.AgentDoorTimestampInvalid,
			"timestamp is more than %d seconds off; here it is %s", wire.AgentDoorWindowSeconds, wire.MilliTime(now))
	}
	raw, _ := wire.DecodeAgentDoorSignature(in.Signature) // check has judged it
	return store.Ticket{
		Protocol: wire.AgentDoorName, Kind: agentDoorSeen, Hash: digest(string(raw)), Subject: in.AgentID,
		ExpiresAt: at.Add(window + time.Second),
	}, nil
}

// active refuses an agent that is suspended. It is never a 401: the protocol's
// own SDK meets one with a new JWT and tries again, without end.
func active(agent store.Agent) error {
	if agent.DisabledAt.IsZero() {
		return nil
	}
	return agentInactive()
}

func agentInactive() *problem {
	return forbidden(wire.AgentDoorAgentInactive, "the agent is suspended or was deleted by the operator of this service")
}

func agentDoorUnauthorized() *problem {
	p := unauthorized(wire.AgentDoorUnauthorized,
		"Authorization must be Bearer and a JWT that has not expired or an API key; get a JWT at "+wire.AgentDoorAuthPath)
	p.header = http.Header{"WWW-Authenticate": {"Bearer"}}
	return p
}

// agentDoorCaller is who makes a request, and what they may do.
type agentDoorCaller struct {
	agent  store.Agent
	scopes []string
}

// requires refuses a caller without a scope: with a 403, see [active].
func (w agentDoorCaller) requires(scope string) error {
	if slices.Contains(w.scopes, scope) {
		return nil
	}
	return forbidden(wire.AgentDoorForbidden, "the agent was not granted the scope that this needs: "+scope)
}

// who says who makes a request, by its JWT or its API key, and counts it
// against the agent's limit. The agent is looked up each time: with it, both end
// at once.
func (a *agentDoor) who(ctx context.Context, c *call) (agentDoorCaller, error) {
	presented := c.bearer()
	by := a.byKey
	if strings.HasPrefix(presented, "eyJ") {
		by = a.byToken
	}
	agent, err := by(ctx, c, presented)
	if err != nil {
		return agentDoorCaller{}, err
	}
	if err := a.rate.hit(ctx, agent.ID); err != nil {
		return agentDoorCaller{}, err
	}
	return agentDoorCaller{agent, strings.Fields(agent.Attrs[agentDoorScopes])}, nil
}

// byToken returns the active agent of a JWT.
func (a *agentDoor) byToken(ctx context.Context, c *call, token string) (store.Agent, error) {
	var said agentDoorClaims
	claims, err := a.signer.verify(ctx, wire.AgentDoorName, token, &said)
	if errors.Is(err, errBadToken) {
		return store.Agent{}, agentDoorUnauthorized()
	}
	if err != nil {
		return store.Agent{}, err
	}
	c.agent, c.keyID = claims.Subject, claims.ID
	agent, err := activeAgent(ctx, c)
	if err == nil && agent.TokensEnded != said.Ended { // the operator has ended it
		err = agentDoorUnauthorized()
	}
	return agent, err
}

// byKey returns the active agent of an API key.
func (a *agentDoor) byKey(ctx context.Context, c *call, key string) (store.Agent, error) {
	cred, err := a.holder(ctx, c, key)
	if err != nil {
		return store.Agent{}, err
	}
	agent, err := activeAgent(ctx, c)
	if err != nil {
		return store.Agent{}, err
	}
	a.uses.note(cred.ID, a.now())
	return agent, nil
}

// holder returns an API key that may be used. Its agent is active: to suspend or
// to delete an agent ends its keys. So only of a key that may not be used the
// agent is looked up, for what to say.
func (a *agentDoor) holder(ctx context.Context, c *call, key string) (store.Credential, error) {
	cred, err := recognise(ctx, c.store, wire.AgentDoorName, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return cred, unknownKey(ctx, c, key)
	case err != nil:
		return cred, err
	case cred.Kind != agentDoorKey:
		return cred, agentDoorUnauthorized()
	}
	c.agent, c.keyID = cred.AgentName, cred.KeyID
	if cred.ActiveAt(a.now()) {
		return cred, nil
	}
	if _, err := activeAgent(ctx, c); err != nil {
		return cred, err
	}
	return cred, agentDoorUnauthorized()
}

// unknownKey refuses a key that no agent has: for one that was issued here, see
// [active].
func unknownKey(ctx context.Context, c *call, key string) error {
	_, err := c.store.Ticket(ctx, wire.AgentDoorName, agentDoorIssued, digest(key))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return agentDoorUnauthorized()
	case err != nil:
		return err
	}
	return agentInactive()
}

// activeAgent returns the agent of a call, which has shown that it is.
func activeAgent(ctx context.Context, c *call) (store.Agent, error) {
	agent, err := c.store.Agent(ctx, wire.AgentDoorName, c.agent)
	if errors.Is(err, store.ErrNotFound) {
		return agent, agentInactive()
	}
	if err != nil {
		return agent, err
	}
	return agent, active(agent)
}

// whoAmI answers whom a JWT or an API key belongs to.
func (a *agentDoor) whoAmI(ctx context.Context, c *call) (wire.AgentDoorWhoAmI, error) {
	caller, err := a.who(ctx, c)
	if err != nil {
		return wire.AgentDoorWhoAmI{}, err
	}
	return wire.AgentDoorWhoAmI{AgentID: caller.agent.Name, Scopes: caller.scopes}, nil
}
