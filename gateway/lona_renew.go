package gateway

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// lonaRefusedPause is for how long a token is not replaced again because the
// service refused it. Two machines that share an agent_id end each other's
// tokens: they must not do so with every request.
const lonaRefusedPause = time.Hour

// errLonaAccepted: the token's own route takes it, whatever refused it elsewhere.
var errLonaAccepted = errors.New("the service accepts the token")

// Due implements [Renewer]. At Lona renewing is registering again, which rotates:
// a token is due only while the policy lets Enlist do both without asking. One that
// came expired says that the clocks differ, and nothing of when it ends.
func (l *Lona) Due(ctx context.Context, i credstore.Info, _ []credstore.Info) time.Time {
	if i.State != credstore.StateActive || !i.ExpiresAt.After(i.CreatedAt) || l.permitted(ctx, i.Key) != nil {
		return time.Time{}
	}
	return l.spread.due(i)
}

func (l *Lona) isDue(ctx context.Context, i credstore.Info) bool {
	due := l.Due(ctx, i, nil)
	return !due.IsZero() && !l.now().Before(due)
}

// permitted returns why a token must not be replaced without anybody asking.
func (l *Lona) permitted(ctx context.Context, k credstore.Key) error {
	ctx = bySelf(ctx)
	for _, action := range []Action{ActRegister, ActRotate} {
		if _, err := l.steward.policy.permit(ctx, Act{Action: action, Key: k}); err != nil {
			return err
		}
	}
	return nil
}

func bySelf(ctx context.Context) context.Context {
	return WithCaller(ctx, Caller{Kind: CallerSelf, Name: "enlist"})
}

// Renew implements [Renewer]. It replaces a token that is due. One that was
// refused is replaced if the route that every token has refuses it too, for
// another route may want more than was granted.
func (l *Lona) Renew(ctx context.Context, k credstore.Key) error {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	held, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	p, _ := ctx.Value(presentedKey{}).(*presented)
	refused := p != nil && !p.secret.IsZero()
	switch {
	case held.State != credstore.StateActive:
		return &RefusedError{Why: "The token of " + k.Agent + " is not one that is renewed by itself.", Tool: lonaRegisterTool}
	case l.isDue(ctx, held.Info) && (!refused || l.now().After(l.rests.until(k))):
		return l.renew(ctx, held, nil)
	case !refused || !same(held, credstore.Credential{Secret: p.secret}):
		return nil
	case held.Attrs[lonaAdopted] == lonaMark(held.Secret):
		// It may be anybody's: only what was registered here is registered again.
		return &RefusedError{Why: "The service refuses the token of " + k.Agent + ", which was taken over from LONA_API_KEY.", Tool: lonaRegisterTool}
	}
	err = l.renew(ctx, held, l.mayReplaceRefused)
	if errors.Is(err, errLonaAccepted) {
		return nil
	}
	return err
}

// mayReplaceRefused returns why a token that was refused is not replaced. The
// caller holds its lock.
func (l *Lona) mayReplaceRefused(ctx context.Context, held credstore.Credential) error {
	l.mu.Lock()
	last := l.refused[held.Key]
	l.mu.Unlock()
	stored, _ := time.Parse(time.RFC3339, held.Attrs[lonaRefused]) // by any process
	now := l.now()
	recent := func(at time.Time) bool { return !at.IsZero() && now.Sub(at).Abs() < lonaRefusedPause }
	if recent(last) || recent(stored) {
		return &RefusedError{
			Why:  "The service refuses the token of " + held.Agent + ", which was replaced for that less than an hour ago: somebody else may be registering the same agent_id.",
			Tool: "rotate_credential",
		}
	}
	ok, err := l.accepted(ctx, held)
	if err != nil {
		return err
	}
	if ok {
		return errLonaAccepted
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[held.Key] = now
	return nil
}

// renew registers an agent again in the place of a token, as it was registered
// before. Of many callers one does so; the others find what that stored.
func (l *Lona) renew(ctx context.Context, held credstore.Credential, may func(context.Context, credstore.Credential) error) error {
	ctx = bySelf(ctx)
	if err := l.permitted(ctx, held.Key); err != nil {
		return err
	}
	r := again(held)
	if days := int(math.Round(held.ExpiresAt.Sub(held.CreatedAt).Hours() / 24)); !held.ExpiresAt.IsZero() && days > 0 {
		r.ExpiresInDays = &days // no longer than was asked for
	}
	done, err := l.replace(ctx, lonaChange{act: ActRenew, key: held.Key, with: r, before: held, held: true, may: may, refused: may != nil})
	var local *RefusedError
	if errors.Is(err, errLonaAccepted) || errors.As(err, &local) {
		return err
	}
	if err == nil {
		l.rests.done(held.Key)
	}
	if err != nil || !done.Reused {
		l.steward.note(ctx, Act{Action: ActRenew, Key: held.Key}, 0, err)
	}
	return err
}

// current returns the token to send: another one where the one that is held is
// due. One that could not be renewed is sent for as long as it is good.
func (l *Lona) current(ctx context.Context, held credstore.Credential) (credstore.Credential, error) {
	now := l.now()
	alive := held.UsableAt(now)
	if !l.isDue(ctx, held.Info) || alive && now.Before(l.rests.until(held.Key)) {
		return held, nil
	}
	err := l.renew(ctx, held, nil)
	if err == nil {
		return l.store.Get(ctx, held.Key)
	}
	var (
		failed *Error
		lost   *NotStoredError // the service has ended what is held
	)
	if errors.As(err, &failed) {
		failed.Sent = false // whatever was asked for here: the caller's request was not made
	}
	if !alive || ctx.Err() != nil || errors.As(err, &lost) || errors.Is(err, credstore.ErrNotFound) {
		return held, err
	}
	l.rests.failed(held.Key, now, err)
	l.log.WarnContext(ctx, "a token could not be renewed; sending what there is",
		"protocol", held.Protocol, "origin", held.Origin, "agent", held.Agent, "error", l.http.scrub.Own(err.Error()))
	return held, nil
}
