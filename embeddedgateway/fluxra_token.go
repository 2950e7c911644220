package embeddedgateway

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// fluxraClaims is what a JWT of Fluxra says beyond what every one does.
type fluxraClaims struct {
	Scope string `json:"scope"`
	KeyID string `json:"key_id"`
}

// session is a JWT that may be used: whose it is, and the API key behind it.
type session struct {
	agent   store.Agent
	key     store.Credential
	jti     string
	expires time.Time
}

// session returns the JWT of a call. It is good for as long as its API key is,
// and not longer than its agent.
func (f *fluxra) session(ctx context.Context, c *call) (session, error) {
	var extra fluxraClaims
	claims, err := f.signer.verify(ctx, wire.FluxraName, c.bearer(), &extra)
	if errors.Is(err, errBadToken) {
		return session{}, noSession()
	}
	if err != nil {
		return session{}, err
	}
	s := session{jti: claims.ID, expires: claims.Expiry.Time()}
	_, err = c.store.Ticket(ctx, wire.FluxraName, fluxraEnded, digest(s.jti))
	if err == nil {
		return session{}, noSession()
	}
	if !errors.Is(err, store.ErrNotFound) {
		return session{}, err
	}
	s.agent, err = c.store.Agent(ctx, wire.FluxraName, claims.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return session{}, noSession()
	}
	if err != nil {
		return session{}, err
	}
	c.agent, c.keyID = s.agent.Name, extra.KeyID
	if !s.agent.DisabledAt.IsZero() {
		return session{}, fluxraSuspended()
	}
	s.key, err = c.store.CredentialByID(ctx, s.agent.ID, fluxraKey, extra.KeyID)
	if errors.Is(err, store.ErrNotFound) || err == nil && !s.key.ActiveAt(f.Now()) {
		return session{}, noSession()
	}
	return s, err
}

func noSession() *problem {
	return challenged(wire.FluxraUnauthorized, fluxraBearerChallenge,
		"Authorization must be Bearer with an access_token that has not expired and was not refreshed or revoked, and whose API key is good")
}

// token exchanges an API key for a JWT. It is counted when the agent is known:
// if it were before, a stranger could use up an agent's share.
func (f *fluxra) token(ctx context.Context, c *call) (wire.FluxraToken, error) {
	key, err := f.owner(ctx, c, fluxraKey)
	if err != nil {
		return wire.FluxraToken{}, err
	}
	if err := f.rate.hit(ctx, key.AgentID); err != nil {
		return wire.FluxraToken{}, err
	}
	out, err := f.sign(ctx, key)
	if err != nil {
		return wire.FluxraToken{}, err
	}
	f.uses.note(key.ID, f.Now())
	out.KeyID = key.KeyID
	return out, c.store.TxEach(ctx, func(tx *store.Tx) error { return tx.Audit(c.event("token_issued")) })
}

// sign makes a JWT for an API key.
func (f *fluxra) sign(ctx context.Context, key store.Credential) (wire.FluxraToken, error) {
	scope := strings.Join(key.Scopes, " ")
	token, _, err := f.signer.sign(ctx, wire.FluxraName, key.AgentName, fluxraClaims{Scope: scope, KeyID: key.KeyID})
	return wire.FluxraToken{
		AccessToken: token, TokenType: wire.FluxraBearer, ExpiresIn: wire.FluxraTokenSeconds, Scope: scope,
	}, err
}

// refresh gives a JWT for one that ends with it. Of several that bring the same
// one, one wins.
func (f *fluxra) refresh(ctx context.Context, c *call) (wire.FluxraToken, error) {
	s, err := f.session(ctx, c)
	if err != nil {
		return wire.FluxraToken{}, err
	}
	if err := f.rate.hit(ctx, s.agent.ID); err != nil {
		return wire.FluxraToken{}, err
	}
	out, err := f.sign(ctx, s.key)
	if err != nil {
		return wire.FluxraToken{}, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		key, err := tx.CredentialByID(s.agent.ID, fluxraKey, s.key.KeyID)
		if errors.Is(err, store.ErrNotFound) || err == nil && !key.ActiveAt(tx.Now()) {
			return noSession()
		}
		if err != nil {
			return err
		}
		return s.end(tx, c, "token_refreshed")
	})
	if err != nil {
		return wire.FluxraToken{}, err
	}
	return out, nil
}

// end puts the JWT on the list of those that are over. It stays there for
// longer than the JWT would have lived.
func (s session) end(tx *store.Tx, c *call, event string) error {
	err := tx.OpenTicket(store.Ticket{
		Protocol: wire.FluxraName, Kind: fluxraEnded, Hash: digest(s.jti), Subject: s.agent.Name, ExpiresAt: s.expires,
	}, false)
	if errors.Is(err, store.ErrExists) {
		return noSession()
	}
	if err != nil {
		return err
	}
	return tx.Audit(c.event(event))
}

// logout ends a JWT.
func (f *fluxra) logout(ctx context.Context, c *call) (wire.FluxraLoggedOut, error) {
	s, err := f.session(ctx, c)
	if err != nil {
		return wire.FluxraLoggedOut{}, err
	}
	var at time.Time
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		at = tx.Now()
		return s.end(tx, c, "token_revoked")
	})
	if err != nil {
		return wire.FluxraLoggedOut{}, err
	}
	return wire.FluxraLoggedOut{Message: wire.FluxraRevoked, RevokedAt: wire.SecondTime(at)}, nil
}
