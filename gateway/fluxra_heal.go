package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Heal implements [Healer]. It goes on where the operation stopped: with a
// recovery key there is always another API key, with an API key another access
// token, and API keys that were asked for and never arrived are known by their
// names. What has no recovery key yet stays pending: the account, if there is
// one, is asked for again by registering.
func (f *Fluxra) Heal(ctx context.Context, u Unfinished) error {
	return f.steward.resumed(ctx, f.store, u.Key, func(ctx context.Context, u Unfinished) error {
		if u.Action == ActRevoke {
			err := f.revoke(ctx, u.Key)
			if errors.Is(err, credstore.ErrNotFound) {
				return nil
			}
			return err
		}
		return f.goOn(ctx, u)
	})
}

// goOn is Heal for whoever holds the lock, of what is no revocation.
func (f *Fluxra) goOn(ctx context.Context, u Unfinished) error {
	if _, err := f.settle(ctx, u.Key); err != nil {
		return err
	}
	held, recovery, err := f.account(ctx, u.Key)
	if err != nil {
		return err
	}
	if u.Action == ActRecover && u.Phase == PhaseIntent && !recovery.Secret.IsZero() {
		if recovery, err = f.findOut(ctx, recovery); err != nil {
			return err
		}
	}
	usable := held.UsableAt(f.now()) && !held.Secret.IsZero()
	switch {
	case held.State == credstore.StateRevoked && u.Action == ActRenew:
		return nil // it has been ended since
	case !usable && (recovery.Secret.IsZero() || recovery.State == credstore.StateRevoked):
		return nil // only a person can go on
	}
	if u.Action == ActRenew && u.Phase == PhaseIntent && usable {
		// The access token may have been refreshed, and then it is dead.
		token, err := f.token(ctx, held)
		if err == nil && !token.Secret.IsZero() {
			_, err = f.session(ctx, held, token, bearer(token.Secret))
		}
		if err != nil {
			return err
		}
	}
	_, err = f.complete(ctx, u.Key)
	return err
}

// noFluxraKey is no id of an API key.
const noFluxraKey = "none"

// findOut finds out whether the service still takes a recovery key, by having it
// delete an API key that there is not. One that it refuses was replaced in an
// answer that never came, and is marked as ended.
func (f *Fluxra) findOut(ctx context.Context, recovery credstore.Credential) (credstore.Credential, error) {
	op := call{protocol: wire.FluxraName, origin: recovery.Origin, op: "see whether the recovery key works"}
	agent := recovery.Attrs[fluxraAgentID]
	if !presentable(recovery.Secret.Reveal(), minSecret) || !f.clean(agent) {
		return recovery, nil
	}
	_, err := f.send(ctx, op, http.MethodDelete, wire.FluxraKeyPath(agent, noFluxraKey), basic(agent, recovery.Secret), nil, true)
	var e *Error
	switch {
	case err == nil, errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && !unauthorized(err):
		return recovery, nil
	case !unauthorized(err):
		return recovery, err
	}
	recovery.State = credstore.StateRevoked
	return keep(ctx, f.store, recovery, fluxraNeeded()...)
}

// explain implements explainer: what cannot be seen of a credential is that its
// recovery key is gone.
func (f *Fluxra) explain(s *Standing, all []credstore.Info) {
	if s.Kind != credstore.KindAPIKey || s.Now != credstore.StateActive && s.Now != credstore.StateExpiring || s.Reason != "" && s.Now == credstore.StateActive {
		return
	}
	for _, i := range all {
		if i.Key == ofKind(s.Key, credstore.KindRecovery) && i.State == credstore.StateRevoked {
			s.Reason = "It works, but the recovery key of its account was replaced by one that was lost on its way."
			s.Remedy = "Have a person recover the account by its email once more, before the key ends."
		}
	}
}
