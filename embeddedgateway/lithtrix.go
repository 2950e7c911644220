package embeddedgateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lithtrixTermsVar switches on what newer services demand: that whoever
// registers agrees to the terms.
const lithtrixTermsVar = "LITHTRIX_REQUIRE_TERMS"

const (
	lithtrixKey = "key" // the kind of credential

	// What an agent keeps beside its name, which is agent_name/owner_identifier:
	// there is no slash in an agent_name.
	lithtrixAgentID = "agent_id"
)

// lithtrix is the server half of Lithtrix's protocol.
type lithtrix struct {
	mint  minter
	vault *vault
	terms bool // agree_to_terms must be true
	rate  *keyLimit
	turns *keyLimit // of rotations, by agent: each makes a key with a count of its own
}

func newLithtrix(d deps) protocol {
	return &lithtrix{
		mint:  d.mint,
		vault: d.vault,
		terms: d.env.boolean(lithtrixTermsVar, false),
		rate:  d.usage.limit("lithtrix/requests", 60, time.Minute, d.Now),
		turns: d.usage.limit("lithtrix/rotations", 60, time.Minute, d.Now),
	}
}

func (*lithtrix) name() string { return wire.LithtrixName }

func (l *lithtrix) routes() []route {
	return []route{
		post(wire.LithtrixRegisterPath, http.StatusCreated, l.register).registering(),
		act(wire.LithtrixRotatePath, http.StatusOK, l.rotate),
		get(wire.LithtrixMePath, l.me),
		get(wire.LithtrixCapabilitiesPath, l.capabilities),
		get(wire.LithtrixBillingPath, l.billing),
		rest("/v1"),
	}
}

// refuse implements protocol.
func (*lithtrix) refuse(p *problem) (int, any) {
	code := p.code
	if code == "" {
		code = lithtrixCodes()[p.kind]
	}
	return p.kind.status(), wire.LithtrixError{Status: "error", ErrorCode: code, Message: p.message}
}

// lithtrixCodes says which code a kind of problem has that brings none.
func lithtrixCodes() map[kind]string {
	return map[kind]string{
		kindInvalid:     wire.LithtrixInvalid,
		kindTooLarge:    wire.LithtrixInvalid,
		kindMediaType:   wire.LithtrixInvalid,
		kindMethod:      wire.LithtrixInvalid,
		kindNotFound:    wire.LithtrixNotFound,
		kindLimited:     wire.LithtrixRateLimited,
		kindUnavailable: wire.LithtrixInternal,
		kindInternal:    wire.LithtrixInternal,
	}
}

// lithtrixBody is what is sent to register. What newer services take beside it
// (referral_agent, passport_public_key, recovery_public_key,
// registration_source) is not known here, so it is ignored.
type lithtrixBody struct{ wire.LithtrixRegisterRequest }

func (b lithtrixBody) check() error {
	switch {
	case !wire.CheckLithtrixAgentName(b.AgentName):
		return invalid("agent_name must be 1 to 100 letters, digits, dashes and underscores")
	case !wire.CheckLithtrixOwner(b.OwnerIdentifier):
		return invalid("owner_identifier must be 1 to 255 characters without control characters")
	case wire.Mask(b.AgentName) != b.AgentName || wire.Mask(b.OwnerIdentifier) != b.OwnerIdentifier:
		// It would be stored and shown. Somebody has pasted into the wrong field.
		return invalid("agent_name and owner_identifier are public: one of them looks like a key")
	}
	return nil
}

// register issues the first key of an agent. A pair of agent_name and
// owner_identifier registers once, whoever asks: there is no proof that the
// second one is the first one again, but its key, and that rotates; or the
// Idempotency-Key of the registration, if nothing was issued since.
func (l *lithtrix) register(ctx context.Context, c *call, in lithtrixBody) (wire.LithtrixKey, error) {
	var none wire.LithtrixKey
	c.agent = in.AgentName + "/" + in.OwnerIdentifier
	if l.terms && (in.AgreeToTerms == nil || !*in.AgreeToTerms) {
		return none, invalid("agree_to_terms must be true: read the terms of the service, and send it if you agree")
	}
	try, err := attemptOf(c, l.vault, "register")
	if err != nil {
		return none, err
	}
	if err := c.spend(ctx, limit{"register", 10, time.Hour}); err != nil {
		return none, err
	}
	agentID, err := l.mint.uuid()
	if err != nil {
		return none, err
	}
	key, cred, err := l.newKey()
	if err != nil {
		return none, err
	}
	var agent store.Agent
	err = c.store.Tx(ctx, func(tx *store.Tx) (err error) {
		var repeated bool
		agent, repeated, err = enrolLithtrix(tx, try, store.Agent{
			Protocol:    wire.LithtrixName,
			Name:        c.agent,
			DisplayName: in.AgentName,
			Attrs:       map[string]string{lithtrixAgentID: agentID},
		})
		if err != nil {
			return err
		}
		event := c.event("key_issued")
		if repeated {
			event.Detail = attemptRepeated
		}
		return l.issue(tx, agent, cred, event, try, "")
	})
	if err != nil {
		return none, err
	}
	return wire.LithtrixKey{APIKey: key, AgentID: agent.Attrs[lithtrixAgentID], Message: wire.LithtrixKeepKey}, nil
}

// enrolLithtrix stores a new agent, or finds the one whose registration is
// repeated. Any other that is known is refused, which undoes the transaction: it
// keeps what was stored of it.
func enrolLithtrix(tx *store.Tx, try attempt, a store.Agent) (agent store.Agent, repeated bool, err error) {
	switch known, err := tx.Agent(a.Protocol, a.Name); {
	case err == nil:
		a.Attrs = known.Attrs
	case !errors.Is(err, store.ErrNotFound):
		return agent, false, err
	}
	agent, created, err := tx.EnsureAgent(a)
	if err != nil {
		return agent, false, err
	}
	_, repeated, err = try.repeats(tx, agent, lithtrixKey, wire.LithtrixKeyReused)
	if err == nil && !created && !repeated {
		err = conflict(wire.LithtrixAgentExists, "an agent with this agent_name and owner_identifier is registered: "+
			"get a new key with POST /v1/keys/rotate and the present one, or choose another agent_name")
	}
	return agent, repeated, err
}

// newKey makes a key and what is stored of it.
func (l *lithtrix) newKey() (string, store.Credential, error) {
	secret, err := l.mint.secret()
	if err != nil {
		return "", store.Credential{}, err
	}
	keyID, err := l.mint.keyID()
	if err != nil {
		return "", store.Credential{}, err
	}
	key := wire.FormatLithtrixKey(secret)
	return key, store.Credential{Protocol: wire.LithtrixName, Kind: lithtrixKey, KeyID: keyID, Hash: digest(key)}, nil
}

// issue stores a key of an agent in the place of all that it has, and remembers
// the attempt that it is the answer to. replaced is the key_id of the key that
// was presented, if one was.
func (l *lithtrix) issue(tx *store.Tx, agent store.Agent, cred store.Credential, event store.Event, try attempt, replaced string) error {
	cred.AgentID = agent.ID
	issued, _, err := rotate(tx, cred)
	if err != nil {
		return err
	}
	event.KeyID = issued.KeyID
	if err := tx.Audit(event); err != nil {
		return err
	}
	return try.remember(tx, agent.Name, map[string]string{attemptIssued: issued.KeyID, attemptReplaced: replaced})
}

// rotate issues a key in the place of the one that is presented, which is dead
// when the answer goes out. Of several that present the same one, one wins; but
// the same attempt again gets a key in the place of the one that it was answered
// with.
func (l *lithtrix) rotate(ctx context.Context, c *call) (wire.LithtrixKey, error) {
	try, err := attemptOf(c, l.vault, "rotate")
	if err != nil {
		return wire.LithtrixKey{}, err
	}
	old, agent, err := l.who(ctx, c, func(old store.Credential) (bool, error) { return l.replaced(ctx, c, try, old) })
	if err != nil {
		return wire.LithtrixKey{}, err
	}
	if err := l.turns.hit(ctx, agent.ID); err != nil {
		return wire.LithtrixKey{}, err
	}
	key, cred, err := l.newKey()
	if err != nil {
		return wire.LithtrixKey{}, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		agent, _, err := tx.EnsureAgent(agent) // this locks it
		if err != nil {
			return err
		}
		lives, err := tx.Revoke(old.ID)
		if err != nil {
			return err
		}
		before, repeated, err := try.repeats(tx, agent, lithtrixKey, wire.LithtrixKeyReused)
		if err != nil {
			return err
		}
		event := c.event("key_rotated")
		switch {
		case lives:
		case repeated && before.Data[attemptReplaced] == old.KeyID:
			event.Detail = attemptRepeated
		default:
			return lithtrixRefused()
		}
		return l.issue(tx, agent, cred, event, try, old.KeyID)
	})
	if err != nil {
		return wire.LithtrixKey{}, err
	}
	return wire.LithtrixKey{APIKey: key, AgentID: agent.Attrs[lithtrixAgentID], Message: wire.LithtrixKeepKey}, nil
}

// replaced reports whether a key that has ended did so by the same attempt to
// rotate it. It is looked up first, so that nobody uses up an agent's turns with
// an old key; the transaction judges.
func (*lithtrix) replaced(ctx context.Context, c *call, try attempt, old store.Credential) (bool, error) {
	if !try.named {
		return false, nil
	}
	t, err := c.store.Ticket(ctx, try.protocol, try.kind, try.hash)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return t.Subject == old.AgentName && t.Data[attemptReplaced] == old.KeyID, err
}

// who returns the key that a request presents and the agent that has it, and
// counts the request against the key's limit. ended, where it is given, may let
// a key pass that has ended.
func (l *lithtrix) who(ctx context.Context, c *call, ended func(store.Credential) (bool, error)) (store.Credential, store.Agent, error) {
	cred, err := l.holder(ctx, c, ended)
	if err != nil {
		return cred, store.Agent{}, err
	}
	if err := l.rate.hit(ctx, cred.ID); err != nil {
		return cred, store.Agent{}, err
	}
	agent, err := c.store.Agent(ctx, wire.LithtrixName, cred.AgentName)
	return cred, agent, err
}

// holder is who without the agent and the limit.
func (*lithtrix) holder(ctx context.Context, c *call, ended func(store.Credential) (bool, error)) (store.Credential, error) {
	cred, err := recognise(ctx, c.store, wire.LithtrixName, c.bearer())
	if errors.Is(err, store.ErrNotFound) || err == nil && cred.Kind != lithtrixKey {
		return cred, lithtrixRefused()
	}
	if err != nil {
		return cred, err
	}
	if !cred.RevokedAt.IsZero() {
		pass := false
		if ended != nil {
			if pass, err = ended(cred); err != nil {
				return cred, err
			}
		}
		if !pass {
			return cred, lithtrixRefused()
		}
	}
	c.agent, c.keyID = cred.AgentName, cred.KeyID
	return cred, nil
}

func lithtrixRefused() *problem {
	return unauthorized(wire.LithtrixInvalidKey, "Authorization must be Bearer and a key that was not rotated since")
}

// me answers who the key belongs to.
func (l *lithtrix) me(ctx context.Context, c *call) (wire.LithtrixMe, error) {
	_, agent, err := l.who(ctx, c, nil)
	if err != nil {
		return wire.LithtrixMe{}, err
	}
	name, owner, _ := strings.Cut(agent.Name, "/")
	return wire.LithtrixMe{
		AgentID: agent.Attrs[lithtrixAgentID], AgentName: name, OwnerIdentifier: owner, Tier: wire.LithtrixFreeTier,
	}, nil
}

// capabilities answers, to anybody, what there is.
func (*lithtrix) capabilities(context.Context, *call) (wire.LithtrixCapabilities, error) {
	return wire.LithtrixCapabilities{
		Service: wire.LithtrixName, Version: "1",
		Endpoints: map[string]string{
			"register":     "POST " + wire.LithtrixRegisterPath,
			"rotate_key":   "POST " + wire.LithtrixRotatePath,
			"me":           "GET " + wire.LithtrixMePath,
			"capabilities": "GET " + wire.LithtrixCapabilitiesPath,
			"billing":      "GET " + wire.LithtrixBillingPath,
		},
		RateLimits: wire.LithtrixRateLimits{FreeTier: wire.LithtrixFreeRate},
	}, nil
}

// billing answers what the account has used: nothing, because what the service
// charges for is not served here.
func (l *lithtrix) billing(ctx context.Context, c *call) (wire.LithtrixBilling, error) {
	if _, _, err := l.who(ctx, c, nil); err != nil {
		return wire.LithtrixBilling{}, err
	}
	return wire.LithtrixBilling{Tier: wire.LithtrixFreeTier, CallLimit: wire.LithtrixFreeCalls}, nil
}

// limitsOf implements limiter.
func (l *lithtrix) limitsOf(a store.Agent, keys []store.Credential) []LimitInfo {
	list := perKey(keys, func(store.Credential) *keyLimit { return l.rate })
	return append(list, l.turns.info("rotations of the agent", a.ID))
}
