package embeddedgateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The variables of the environment that Lona's gateway reads (seed; the last
// one is Enlist's).
const (
	lonaSecretVar      = "AGENT_REGISTRATION_SECRET" //nolint:gosec // the name of a variable, not a secret
	lonaInvitesVar     = "AGENT_INVITE_ENABLED"
	lonaTTLVar         = "AGENT_TOKEN_TTL_DAYS"
	lonaMaxTTLVar      = "AGENT_TOKEN_MAX_TTL_DAYS"
	lonaPermissionsVar = "AGENT_DEFAULT_PERMISSIONS"
	lonaRebindVar      = "AGENT_INVITE_REBIND"
)

const (
	lonaInvite     = "invite" // the kind of ticket
	lonaToken      = "token"  // the kind of credential
	lonaInviteLife = time.Hour
	lonaTTLDays    = 30
	lonaMostDays   = 36_500

	lonaProof = "proof" // an invite does not replace somebody's token without that token
	lonaOpen  = "open"  // it does, as published
)

// lona is the server half of Lona's protocol.
type lona struct {
	mint        minter
	vault       *vault
	strategies  []wire.LonaStrategy
	secrets     secretSet // of trusted partners; empty: that way is closed
	invites     bool
	days, most  int // of a token's life
	permissions []string
	rebind      string
}

func newLona(d deps) protocol {
	rebind := lonaOpen
	if d.Standalone {
		rebind = lonaProof
	}
	l := &lona{
		mint:        d.mint,
		vault:       d.vault,
		strategies:  d.LonaStrategies,
		secrets:     newSecretSet(d.env.list(lonaSecretVar)),
		invites:     d.env.boolean(lonaInvitesVar, true),
		days:        d.env.number(lonaTTLVar, lonaTTLDays, lonaMostDays),
		most:        d.env.number(lonaMaxTTLVar, lonaTTLDays, lonaMostDays),
		permissions: d.env.list(lonaPermissionsVar, "*"),
		rebind:      d.env.oneOf(lonaRebindVar, rebind, lonaProof, lonaOpen),
	}
	return l
}

func (*lona) name() string { return wire.LonaName }

func (l *lona) routes() []route {
	return []route{
		post(wire.LonaInvitePath, http.StatusCreated, l.invite, limit{"invite", 3, time.Hour}).first(l.inviting),
		post(wire.LonaRegisterPath, http.StatusCreated, l.register).registering(),
		get(wire.LonaStrategiesPath, l.list),
		rest("/api/v1/agents"),
		rest(wire.LonaStrategiesPath),
	}
}

// refuse implements protocol.
func (*lona) refuse(p *problem) (int, any) {
	code := p.code
	if code == "" {
		code = lonaCodes()[p.kind]
	}
	return p.kind.status(), wire.LonaError{Error: wire.LonaErrorDetail{Code: code, Message: p.message}}
}

// lonaCodes says which code a kind of problem has that brings none.
func lonaCodes() map[kind]string {
	return map[kind]string{
		kindInvalid:     wire.LonaInvalidRequest,
		kindTooLarge:    wire.LonaInvalidRequest,
		kindMediaType:   wire.LonaInvalidRequest,
		kindMethod:      wire.LonaInvalidRequest,
		kindNotFound:    wire.LonaNotFound,
		kindLimited:     wire.LonaRateLimited,
		kindUnavailable: wire.LonaInternal,
		kindInternal:    wire.LonaInternal,
	}
}

// lonaInviteBody is what is sent to ask for an invite.
type lonaInviteBody struct{ wire.LonaInviteRequest }

func (b lonaInviteBody) check() error { return checkLona(b.AgentID, b.AgentName, b.Source) }

// lonaRegisterBody is what is sent to register.
type lonaRegisterBody struct{ wire.LonaRegisterRequest }

func (b lonaRegisterBody) check() error {
	if err := checkLona(b.AgentID, b.AgentName, b.Source); err != nil {
		return err
	}
	if b.ExpiresInDays != nil && *b.ExpiresInDays < 1 {
		return invalid("expires_in_days must be 1 or more")
	}
	return nil
}

func checkLona(agentID, agentName, source string) error {
	switch {
	case !wire.CheckLonaAgentID(agentID):
		return invalid("agent_id must be 2 to 64 letters, digits, dots, underscores and dashes, the first a letter or digit")
	case !wire.CheckLonaAgentName(agentName):
		return invalid("agent_name must be 1 to 100 characters without control characters")
	case !wire.CheckLonaSource(source):
		return invalid("source must be at most 64 characters without control characters")
	case wire.Mask(agentID) != agentID || wire.Mask(agentName) != agentName || wire.Mask(source) != source:
		// It would be stored and shown. Somebody has pasted into the wrong field.
		return invalid("agent_id, agent_name and source are public: one of them looks like a token or an invite code")
	}
	return nil
}

// inviting is the kill switch.
func (l *lona) inviting(context.Context, *call) error {
	if l.invites {
		return nil
	}
	return forbidden(wire.LonaInvitesDisabled, "invites are switched off here; register with a registration secret")
}

// invite hands out a code that registers one agent_id, once, within the hour.
// Older codes stay good: else whoever asks could void another's.
func (l *lona) invite(ctx context.Context, c *call, in lonaInviteBody) (wire.LonaData[wire.LonaInvite], error) {
	var none wire.LonaData[wire.LonaInvite]
	c.agent = in.AgentID
	secret, err := l.mint.secret()
	if err != nil {
		return none, err
	}
	code := wire.FormatLonaInvite(secret)
	ticket := store.Ticket{Protocol: wire.LonaName, Kind: lonaInvite, Hash: digest(code), Subject: in.AgentID}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		ticket.ExpiresAt = tx.Now().Truncate(time.Millisecond).Add(lonaInviteLife)
		if err := tx.OpenTicket(ticket, false); err != nil {
			return err
		}
		return tx.Audit(c.event("invite_issued"))
	})
	if err != nil {
		return none, err
	}
	return wire.LonaData[wire.LonaInvite]{Data: wire.LonaInvite{
		InviteCode: code,
		ExpiresAt:  wire.MilliTime(ticket.ExpiresAt),
	}}, nil
}

// register issues a token in the place of the one that the agent has.
func (l *lona) register(ctx context.Context, c *call, in lonaRegisterBody) (wire.LonaData[wire.LonaRegistered], error) {
	var none wire.LonaData[wire.LonaRegistered]
	c.agent = in.AgentID
	try, err := attemptOf(c, l.vault, "register")
	if err != nil {
		return none, err
	}
	invited, err := l.admit(ctx, c, in)
	if err != nil {
		return none, err
	}
	token, cred, err := l.newToken(in)
	if err != nil {
		return none, err
	}
	invite, key := digest(in.InviteCode), c.sent(wire.LonaKeyHeader)
	proof := digest(key)
	var issued store.Credential
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		agent, isNew, err := l.enter(tx, in, invited, invite)
		if err != nil {
			return err
		}
		_, repeated, err := try.repeats(tx, agent, lonaToken, wire.LonaKeyReused)
		if err != nil {
			return err
		}
		if invited && l.rebind == lonaProof && !repeated {
			if err := mayRebind(tx, agent, proof); err != nil {
				return err
			}
		}
		cred.AgentID = agent.ID
		issued, err = l.replace(tx, cred, isNew, in.ExpiresInDays, lonaEvent(c, invited, repeated))
		if err != nil {
			return err
		}
		return try.remember(tx, agent.Name, map[string]string{attemptIssued: issued.KeyID})
	})
	if err != nil {
		return none, err
	}
	return wire.LonaData[wire.LonaRegistered]{Data: wire.LonaRegistered{
		Token:       token,
		PartnerID:   in.AgentID,
		PartnerName: in.AgentName,
		Permissions: issued.Scopes,
		ExpiresAt:   wire.MilliTime(issued.ExpiresAt),
	}}, nil
}

// admit decides which of the two ways a registration goes and judges what can
// be judged without a transaction. A registration secret, where one is sent,
// decides alone: a wrong one is refused even beside a good invite, which stays
// unspent, so that a trusted partner learns that its secret is stale instead of
// slipping onto the way with the limits.
func (l *lona) admit(ctx context.Context, c *call, in lonaRegisterBody) (invited bool, err error) {
	sent := c.Header.Values(wire.LonaSecretHeader)
	switch {
	case len(sent) > 0 && (in.InviteCode == "" || c.Header.Get(wire.LonaSecretHeader) != ""):
		if l.secrets.has(c.sent(wire.LonaSecretHeader)) {
			return false, nil
		}
		if err := c.spend(ctx, limit{"wrong_secret", 10, time.Hour}); err != nil {
			return false, err
		}
		return false, unauthorized(wire.LonaInvalidRegistrationSecret, "the registration secret is not accepted here")
	case in.InviteCode == "":
		return false, invalid("send an invite_code, or a registration secret in the header X-Agent-Registration-Secret")
	}
	return true, l.inviting(ctx, c)
}

// newToken makes a token and what is stored of it.
func (l *lona) newToken(in lonaRegisterBody) (token string, c store.Credential, err error) {
	secret, err := l.mint.secret()
	if err != nil {
		return "", c, err
	}
	keyID, err := l.mint.keyID()
	if err != nil {
		return "", c, err
	}
	token = wire.FormatLonaToken(in.AgentID, keyID, secret)
	return token, store.Credential{
		Protocol:  wire.LonaName,
		AgentName: in.AgentID,
		Kind:      lonaToken,
		KeyID:     keyID,
		Hash:      digest(token),
		Scopes:    l.permissions,
	}, nil
}

// enter spends the invite, where there is one, and locks the agent's row.
func (l *lona) enter(tx *store.Tx, in lonaRegisterBody, invited bool, invite [32]byte) (agent store.Agent, isNew bool, err error) {
	if invited {
		_, err := tx.Redeem(wire.LonaName, lonaInvite, invite, in.AgentID)
		if errors.Is(err, store.ErrNotFound) {
			return agent, false, unauthorized(wire.LonaInvalidInvite,
				"the invite_code is not good for this agent_id: unknown, expired or used; request a new one")
		}
		if err != nil {
			return agent, false, err
		}
	}
	agent, isNew, err = tx.EnsureAgent(store.Agent{
		Protocol:    wire.LonaName,
		Name:        in.AgentID,
		DisplayName: in.AgentName,
		Attrs:       map[string]string{"source": in.Source},
	})
	if err != nil {
		return agent, false, err
	}
	return agent, isNew, suspended(agent)
}

// mayRebind refuses an invite for an agent that ever had a token, unless the
// client also has the last one: anybody can get an invite for any agent_id. (Who
// repeats the attempt that was answered with the last one need not have it.) The
// refusal undoes the transaction, so the invite stays good.
func mayRebind(tx *store.Tx, agent store.Agent, proof [32]byte) error {
	had, err := tx.HasCredential(agent.ID, lonaToken)
	if err != nil || !had {
		return err
	}
	last, err := tx.Credential(wire.LonaName, proof)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	case last.AgentID == agent.ID && last.Kind == lonaToken && last.RevokedAt.IsZero():
		return nil
	}
	return conflict(wire.LonaAgentExists,
		"this agent_id is registered: send its last token in X-API-Key too, register with a registration secret, or choose another agent_id")
}

// lonaEvent is what the audit trail says of a registration.
func lonaEvent(c *call, invited, repeated bool) store.Event {
	event := c.event("token_issued")
	event.Detail = "by registration secret"
	if invited {
		event.Detail = "by invite"
	}
	if repeated {
		event.Detail += "; " + attemptRepeated
	}
	return event
}

// replace ends the agent's token, which one that is new has not, and issues cred.
func (l *lona) replace(tx *store.Tx, cred store.Credential, isNew bool, days *int, event store.Event) (issued store.Credential, err error) {
	life := l.days
	if days != nil {
		life = *days
	}
	cred.ExpiresAt = tx.Now().Truncate(time.Millisecond).AddDate(0, 0, min(life, l.most))
	ended := 0
	if isNew {
		issued, err = tx.Issue(cred, 0)
	} else {
		issued, ended, err = rotate(tx, cred)
	}
	if err != nil {
		return issued, err
	}
	if ended > 0 {
		event.Name = "token_rotated"
	}
	event.KeyID = issued.KeyID
	return issued, tx.Audit(event)
}

// list answers with the strategies, to whoever has a token.
func (l *lona) list(ctx context.Context, c *call) (wire.LonaData[[]wire.LonaStrategy], error) {
	if _, err := l.holder(ctx, c); err != nil {
		return wire.LonaData[[]wire.LonaStrategy]{}, err
	}
	return wire.LonaData[[]wire.LonaStrategy]{Data: l.strategies}, nil
}

// holder returns the token that a call comes with.
func (*lona) holder(ctx context.Context, c *call) (store.Credential, error) {
	token := c.sent(wire.LonaKeyHeader)
	cred, err := authenticate(ctx, c.store, wire.LonaName, token)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return cred, err
	}
	if err != nil || cred.Kind != lonaToken || c.sent(wire.LonaUserHeader) != cred.AgentName {
		// What the token says of itself, for the audit trail.
		c.agent, c.keyID, _ = wire.ParseLonaToken(token)
		return cred, unauthorized(wire.LonaUnauthorized,
			"X-API-Key must hold a token that is neither expired nor revoked, and X-User-Id the agent_id that it was issued to; register again for a new token")
	}
	c.agent, c.keyID = cred.AgentName, cred.KeyID
	return cred, nil
}
