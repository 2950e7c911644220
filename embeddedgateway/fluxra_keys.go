package embeddedgateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	fluxraMaxDays  = 365 // of an API key (Enlist's choice)
	fluxraPageSize = 50  // keys in an answer, unless it is asked for less or more
	fluxraMaxPage  = 100

	fluxraBasicChallenge  = `Basic realm="fluxra", charset="UTF-8"`
	fluxraBearerChallenge = "Bearer"
)

// fluxraKeyID is a key_id as it stands in a path or is used as a cursor.
var fluxraKeyID = wire.NewPattern(`^aky_[a-z0-9]{1,64}$`)

// owner returns the credential of a kind that a call brings by Basic, with the
// agent_id that it belongs to. Whatever else is wrong with it is one refusal.
func (f *fluxra) owner(ctx context.Context, c *call, kind string) (store.Credential, error) {
	agentID, secret, ok := c.basic()
	cred, err := authenticate(ctx, c.store, wire.FluxraName, secret)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return cred, err
	case ok && err == nil && cred.Kind == kind && cred.AgentName == agentID:
		c.agent, c.keyID = cred.AgentName, cred.KeyID
		return cred, nil
	}
	if ok && wire.CheckFluxraAgentID(agentID) {
		if err := f.suspended(ctx, c, agentID, kind, digest(secret)); err != nil {
			return cred, err
		}
	}
	return cred, challenged(wire.FluxraUnauthorized, fluxraBasicChallenge,
		"Authorization must be Basic with the agent_id and a "+map[string]string{
			fluxraRecovery: "recovery_key of that agent", fluxraKey: "api_key of that agent that was not revoked and has not expired",
		}[kind])
}

// suspended tells the holder of a credential that ended with the suspension of
// its agent so, and nobody else.
func (*fluxra) suspended(ctx context.Context, c *call, agentID, kind string, hash [32]byte) error {
	agent, err := c.store.Agent(ctx, wire.FluxraName, agentID)
	if errors.Is(err, store.ErrNotFound) || err == nil && agent.DisabledAt.IsZero() {
		return nil
	}
	if err != nil {
		return err
	}
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		cred, err := tx.Credential(wire.FluxraName, hash)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil && cred.AgentID == agent.ID && cred.Kind == kind && !cred.RevokedAt.Before(agent.DisabledAt) {
			c.agent = agentID
			return fluxraSuspended()
		}
		return err
	})
}

func fluxraSuspended() *problem {
	return forbidden(wire.FluxraForbidden, "the agent is suspended")
}

// pathAgent returns the agent_id of the path.
func pathAgent(c *call) (string, error) {
	id := c.PathValue("agent_id")
	if !wire.CheckFluxraAgentID(id) {
		return "", coded(wire.FluxraInvalidAgentID, "an agent_id is agt_ and 32 hex digits")
	}
	return id, nil
}

// recoverer returns the recovery key that a call on the agent of its path
// brings. One of another agent is as good as none.
func (f *fluxra) recoverer(ctx context.Context, c *call) (store.Credential, error) {
	id, err := pathAgent(c)
	if err != nil {
		return store.Credential{}, err
	}
	if user, _, ok := c.basic(); !ok || user != id {
		return store.Credential{}, challenged(wire.FluxraUnauthorized, fluxraBasicChallenge,
			"Authorization must be Basic with the agent_id of the path and its recovery_key")
	}
	return f.owner(ctx, c, fluxraRecovery)
}

// fluxraKeyBody is what is sent to make an API key.
type fluxraKeyBody struct{ wire.FluxraKeyRequest }

func (b fluxraKeyBody) check() error {
	switch {
	case !wire.CheckFluxraKeyName(b.Name):
		return coded(wire.FluxraInvalidKeyName, "name must be 1 to 100 characters without control characters")
	case wire.Mask(b.Name) != b.Name:
		return coded(wire.FluxraInvalidKeyName, "name is public, and this one looks like a key")
	case b.Scopes != nil && len(b.Scopes) == 0:
		return invalid("scopes is empty: leave it out for all of them")
	case b.ExpiresInDays != nil && (*b.ExpiresInDays < 1 || *b.ExpiresInDays > fluxraMaxDays):
		return invalid("expires_in_days must be 1 to %d; left out: the key does not expire", fluxraMaxDays)
	}
	for i, scope := range b.Scopes {
		if !slices.Contains(wire.FluxraScopes(), scope) || slices.Contains(b.Scopes[:i], scope) {
			return invalid("scopes must be some of %v, each once", wire.FluxraScopes())
		}
	}
	return nil
}

// issueKey makes an API key.
func (f *fluxra) issueKey(ctx context.Context, c *call, in fluxraKeyBody) (wire.FluxraIssuedKey, error) {
	var none wire.FluxraIssuedKey
	by, err := f.recoverer(ctx, c)
	if err != nil {
		return none, err
	}
	if err := f.made.hit(ctx, by.AgentID); err != nil {
		return none, err
	}
	key, cred, err := f.newSecret(fluxraKey, wire.FormatFluxraKey)
	if err != nil {
		return none, err
	}
	cred.AgentID, cred.Label, cred.Scopes = by.AgentID, in.Name, in.Scopes
	if cred.Scopes == nil {
		cred.Scopes = wire.FluxraScopes()
	}
	if in.ExpiresInDays != nil {
		cred.ExpiresAt = f.Now().AddDate(0, 0, *in.ExpiresInDays)
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		issued, err := issueWhile(tx, by, cred)
		if err != nil {
			return err
		}
		cred = issued
		event := c.event("key_issued")
		event.KeyID = cred.KeyID
		return tx.Audit(event)
	})
	if err != nil {
		return none, err
	}
	return wire.FluxraIssuedKey{
		KeyID: cred.KeyID, Name: cred.Label, APIKey: key, Scopes: cred.Scopes,
		ExpiresAt: secondTime(cred.ExpiresAt), CreatedAt: wire.SecondTime(cred.CreatedAt),
	}, nil
}

// issueWhile stores a credential, if the one that it was asked for with has not
// ended since: a recovery that has gone through leaves no way in.
func issueWhile(tx *store.Tx, by, cred store.Credential) (store.Credential, error) {
	issued, err := tx.Issue(cred, 0) // this locks the agent
	if errors.Is(err, store.ErrNotFound) {
		return issued, ended()
	}
	if err != nil {
		return issued, err
	}
	return issued, lives(tx, by)
}

// lives refuses a credential that was looked up before the transaction and has
// ended since.
func lives(tx *store.Tx, by store.Credential) error {
	now, err := tx.Credential(wire.FluxraName, by.Hash)
	if errors.Is(err, store.ErrNotFound) || err == nil && !now.ActiveAt(tx.Now()) {
		return ended()
	}
	return err
}

func ended() *problem {
	return challenged(wire.FluxraUnauthorized, fluxraBasicChallenge, "the recovery_key has just ended")
}

// listKeys answers the API keys of an agent, those that have ended too, the
// oldest first.
func (f *fluxra) listKeys(ctx context.Context, c *call) (wire.FluxraKeys, error) {
	var none wire.FluxraKeys
	id, err := pathAgent(c)
	if err != nil {
		return none, err
	}
	s, err := f.session(ctx, c)
	if err != nil {
		return none, err
	}
	if s.agent.Name != id {
		return none, forbidden(wire.FluxraForbidden, "the token is another agent's")
	}
	limit, after, err := f.pageOf(ctx, c, s.agent.ID)
	if err != nil {
		return none, err
	}
	// One more than asked for tells whether there are more.
	list, err := c.store.Issued(ctx, s.agent.ID, fluxraKey, after, limit+1)
	if err != nil {
		return none, err
	}
	out := wire.FluxraKeys{Keys: []wire.FluxraKey{}, HasMore: len(list) > limit}
	for _, k := range list[:min(limit, len(list))] {
		out.Keys = append(out.Keys, wire.FluxraKey{
			KeyID: k.KeyID, Name: k.Label, Scopes: k.Scopes, CreatedAt: wire.SecondTime(k.CreatedAt),
			ExpiresAt: secondTime(k.ExpiresAt), LastUsedAt: secondTime(f.uses.of(k)), RevokedAt: secondTime(k.RevokedAt),
		})
	}
	if out.HasMore {
		out.NextCursor = &out.Keys[limit-1].KeyID
	}
	return out, nil
}

// pageOf reads limit and cursor. The cursor is the key_id of the last key that
// was seen: the number of its row would say how many keys there are in all.
func (f *fluxra) pageOf(ctx context.Context, c *call, agentID int64) (limit int, after int64, err error) {
	q := c.URL.Query()
	limit = fluxraPageSize
	if text := q.Get("limit"); q.Has("limit") {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > fluxraMaxPage {
			return 0, 0, invalid("limit must be 1 to %d", fluxraMaxPage)
		}
	}
	cursor := q.Get("cursor")
	if cursor == "" {
		return limit, 0, nil
	}
	wrong := invalid("the cursor is none that this agent was given")
	if !fluxraKeyID.MatchString(cursor) {
		return 0, 0, wrong
	}
	cred, err := c.store.CredentialByID(ctx, agentID, fluxraKey, cursor)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, wrong
	}
	return limit, cred.ID, err
}

// revokeKey ends an API key, and with it the JWTs that it was exchanged for.
// To end it again is no mistake: who lost the answer may ask once more.
func (f *fluxra) revokeKey(ctx context.Context, c *call) (answered, error) {
	by, err := f.recoverer(ctx, c)
	if err != nil {
		return answered{}, err
	}
	unknown := notFound()
	unknown.message = "the agent has no such key"
	id := c.PathValue("key_id")
	if !fluxraKeyID.MatchString(id) {
		return answered{}, unknown
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		if err := lives(tx, by); err != nil {
			return err
		}
		key, err := tx.CredentialByID(by.AgentID, fluxraKey, id)
		if errors.Is(err, store.ErrNotFound) {
			return unknown
		}
		if err != nil {
			return err
		}
		if ended, err := tx.Revoke(key.ID); err != nil || !ended {
			return err
		}
		event := c.event("key_revoked")
		event.KeyID = id
		return tx.Audit(event)
	})
	return answered{status: http.StatusNoContent}, err
}

// secondTime is a time as it goes over the wire; never is null.
func secondTime(t time.Time) *wire.SecondTime {
	if t.IsZero() {
		return nil
	}
	return new(wire.SecondTime(t))
}
