package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// fluxraMaxPages is how many pages of a list of API keys are read. Those that
// have ended are in it too, and the newest are the last.
const fluxraMaxPages = 40

// finish gets what a registration still lacks: an API key, where one is
// needed, and an access token. It reports whether it asked for anything.
func (f *Fluxra) finish(ctx context.Context, k credstore.Key, needsKey bool) (asked bool, err error) {
	held, _, err := f.account(ctx, k)
	if err != nil {
		return false, err
	}
	if needsKey {
		if held, err = f.another(ctx, k, held); err != nil {
			return false, err
		}
	}
	token, err := f.token(ctx, held)
	if err != nil || !token.Secret.IsZero() {
		return needsKey, err
	}
	if token, err = f.session(ctx, held, token, ""); err != nil {
		return needsKey, err
	}
	if needsKey {
		f.trySweep(ctx, held, token)
	}
	return true, nil
}

// Rotate implements [Rotator]: a new API key, stored, an access token of it,
// and then the old key ends. What of that fails after the new key is stored is
// a *[HalfRotatedError], and the next call does it.
func (f *Fluxra) Rotate(ctx context.Context, k credstore.Key) (_ credstore.Info, err error) {
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	before, err := f.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	unlock, err := f.store.Lock(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	defer unlock()
	settled, err := f.settle(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	held, err := f.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	if !settled && held.UsableAt(f.now()) && !same(before, held) {
		return held.Info, nil
	}
	old, err := f.token(ctx, held)
	if err != nil {
		return credstore.Info{}, err
	}
	ctx, begun, err := f.steward.begin(ctx, ActRotate, k)
	if err != nil {
		return credstore.Info{}, err
	}
	defer func() { begun.end(ctx, err) }()
	if !settled {
		if held, err = f.another(ctx, k, held); err != nil {
			return credstore.Info{}, err
		}
	}
	token, err := f.exchange(ctx, held)
	if err == nil {
		held, err = f.sweep(ctx, f.prove(ctx, held), token)
	}
	if err != nil {
		return credstore.Info{}, &HalfRotatedError{Info: held.Info, Old: held.Attrs[fluxraReplaces], Cause: err}
	}
	if !settled {
		f.logout(ctx, old)
	}
	return held.Info, nil
}

// Revoke implements [Revoker].
func (f *Fluxra) Revoke(ctx context.Context, k credstore.Key) error {
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	unlock, err := f.store.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	return f.revoke(ctx, k)
}

// revoke is Revoke for whoever holds the lock.
func (f *Fluxra) revoke(ctx context.Context, k credstore.Key) (err error) {
	if _, err := f.settle(ctx, k); err != nil {
		return err
	}
	held, err := f.store.Get(ctx, k)
	if err != nil {
		return err
	}
	if held.State == credstore.StateRevoked && held.Attrs[fluxraReplaces] == "" && held.Attrs[fluxraAsked] == "" {
		return nil
	}
	token, err := f.token(ctx, held)
	if err != nil {
		return err
	}
	if held.Attrs[fluxraAsked] != "" && !f.fresh(token, "") && held.State == credstore.StateActive {
		if fresh, err := f.exchange(ctx, held); err == nil {
			token = fresh // the keys are listed with it
		}
	}
	ctx, begun, err := f.steward.begin(ctx, ActRevoke, k)
	if err != nil {
		return err
	}
	defer func() { begun.end(ctx, err) }()
	if held.Attrs = maps.Clone(held.Attrs); held.Attrs == nil {
		held.Attrs = make(map[string]string)
	}
	if held.State == credstore.StateActive {
		id := f.keyID(ctx, held)
		if id == "" {
			op := call{protocol: wire.FluxraName, origin: k.Origin, op: "delete an API key"}
			return op.fail(CodeInvalidInput, errors.New("the service gave the key no id that it could be deleted by"))
		}
		held.Attrs[fluxraReplaces] = join(held.Attrs[fluxraReplaces], id)
		held.State = credstore.StateRevoked
	}
	if _, err := f.sweep(ctx, held, token); err != nil {
		return err
	}
	f.logout(ctx, token)
	f.unstored.drop(ofKind(k, credstore.KindAccess))
	if err := f.store.Delete(ctx, ofKind(k, credstore.KindAccess)); err != nil && !errors.Is(err, credstore.ErrNotFound) {
		f.log.WarnContext(ctx, "a revoked access token could not be removed", "agent", k.Agent, "error", f.http.scrub.Own(err.Error()))
	}
	return nil
}

// trySweep is sweep where it is not what was asked for. What fails is done by
// the next rotation or revocation.
func (f *Fluxra) trySweep(ctx context.Context, held, token credstore.Credential) {
	if _, err := f.sweep(ctx, held, token); err != nil {
		f.log.WarnContext(ctx, "former API keys could not be deleted yet", "origin", held.Origin, "agent", held.Agent, "error", f.http.scrub.Own(err.Error()))
	}
}

// sweep deletes the API keys that a stored one replaces, and those that were
// made and never arrived, and stores the credential without a note of them.
// token is to list the keys with: it was had with the stored key.
func (f *Fluxra) sweep(ctx context.Context, held, token credstore.Credential) (credstore.Credential, error) {
	ids := split(held.Attrs[fluxraReplaces])
	names := split(held.Attrs[fluxraAsked])
	if len(ids) == 0 && len(names) == 0 {
		if held.State != credstore.StateRevoked {
			return held, nil
		}
		return keep(ctx, f.store, held, fluxraNeeded()...)
	}
	op := call{protocol: wire.FluxraName, origin: held.Origin, op: "delete an API key", acts: true}
	for _, id := range ids {
		if err := f.delete(ctx, op, held.Key, id); err != nil {
			return held, err
		}
	}
	held.Attrs = maps.Clone(held.Attrs)
	delete(held.Attrs, fluxraReplaces)
	delete(held.Attrs, fluxraUnproven)
	if err := f.sweepStrays(ctx, op, held, token, names); err != nil {
		if kept, storeErr := keep(ctx, f.store, held, fluxraNeeded()...); storeErr == nil {
			held = kept
		}
		return held, err
	}
	delete(held.Attrs, fluxraAsked)
	return keep(ctx, f.store, held, fluxraNeeded()...)
}

// sweepStrays deletes the API keys that were made and never arrived. A service
// that lists no keys cannot be asked for them.
func (f *Fluxra) sweepStrays(ctx context.Context, op call, held, token credstore.Credential, names []string) error {
	if len(names) == 0 || token.Secret.IsZero() {
		return nil
	}
	strays, err := f.strays(ctx, held, token, names)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		f.log.WarnContext(ctx, "an API key may live that never arrived: the service does not list its keys", "origin", held.Origin, "agent", held.Agent)
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range strays {
		if err := f.delete(ctx, op, held.Key, id); err != nil {
			return err
		}
	}
	return nil
}

// strays returns the ids of the agent's keys that have one of the names and are
// not the one that is held.
func (f *Fluxra) strays(ctx context.Context, held, token credstore.Credential, names []string) ([]string, error) {
	op := call{protocol: wire.FluxraName, origin: held.Origin, op: "list the API keys"}
	var ids []string
	path := wire.FluxraAgentPath(held.Attrs[fluxraAgentID])
	query := ""
	for range fluxraMaxPages {
		a, err := f.send(ctx, op, http.MethodGet, path+query, bearer(token.Secret), nil, true)
		if err != nil {
			return nil, err
		}
		var list struct {
			Keys []struct {
				KeyID     string  `json:"key_id"`
				Name      string  `json:"name"`
				RevokedAt *string `json:"revoked_at"`
			} `json:"keys"`
			NextCursor *string `json:"next_cursor"`
		}
		if err := f.http.decode(op, a, &list); err != nil {
			return nil, err
		}
		for _, key := range list.Keys {
			if slices.Contains(names, key.Name) && key.KeyID != held.KeyID && key.RevokedAt == nil && f.clean(key.KeyID) {
				ids = append(ids, key.KeyID)
			}
		}
		if list.NextCursor == nil || *list.NextCursor == "" {
			break
		}
		query = "?cursor=" + url.QueryEscape(*list.NextCursor)
	}
	return ids, nil
}

// delete ends an API key at the service. One that the service does not know
// has ended; but only its own words say that, and not a page about a path that
// it does not serve.
func (f *Fluxra) delete(ctx context.Context, op call, k credstore.Key, id string) error {
	recovery, err := f.recovery(ctx, op, k)
	if err != nil {
		return err
	}
	agent := recovery.Attrs[fluxraAgentID]
	_, err = f.send(ctx, op, http.MethodDelete, wire.FluxraKeyPath(agent, id), basic(agent, recovery.Secret), nil, true)
	var e *Error
	if err == nil || errors.As(err, &e) && e.Status == http.StatusNotFound && e.Theirs {
		acted(ctx)
		return nil
	}
	return personNeeded(op, err)
}

// logout ends an access token at the service, if that can be done: it ends by
// itself within the hour.
func (f *Fluxra) logout(ctx context.Context, token credstore.Credential) {
	if !f.alive(token, "") {
		return
	}
	op := call{protocol: wire.FluxraName, origin: token.Origin, op: "log out"}
	if _, err := f.send(ctx, op, http.MethodPost, wire.FluxraLogoutPath, bearer(token.Secret), nil, false); err != nil && !unauthorized(err) {
		f.log.WarnContext(ctx, "an access token could not be ended", "origin", token.Origin, "agent", token.Agent, "error", f.http.scrub.Own(err.Error()))
	}
}

// Try implements [Trier]: it asks for an access token with the API key, and
// drops it. That one of before is refused would not tell: it is logged out.
func (f *Fluxra) Try(ctx context.Context, c credstore.Credential) error {
	op := call{protocol: wire.FluxraName, origin: c.Origin, op: "try an API key"}
	a, fields, err := f.post(ctx, op, wire.FluxraTokenPath, basic(c.Attrs[fluxraAgentID], c.Secret),
		wire.FluxraTokenRequest{GrantType: wire.FluxraGrant}, true)
	if err != nil {
		return err
	}
	_, err = f.secret(op, a, fields, "access_token") // it is masked from now on
	return err
}
