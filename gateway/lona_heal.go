package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// errHealed: somebody else was faster.
var errHealed = errors.New("what was unfinished has been finished")

// Heal implements [Healer]. A token that was stored before the process ended is
// all there is to it. Without one the service is asked whether it accepts the
// token that is held; where it does not, or none is, the agent is registered
// again: that ends the token that nobody got. Of what has been forgotten since,
// nothing is finished: that something was begun is noted in the store first.
func (l *Lona) Heal(ctx context.Context, u Unfinished) error {
	before, err := l.stored(ctx, u.Key)
	if err != nil {
		return err
	}
	works := u.Phase == PhaseReceived || before.Key != u.Key
	if !works && before.UsableAt(l.now()) {
		if works, err = l.accepted(ctx, before); err != nil {
			return err
		}
	}
	if works {
		return l.healed(ctx, u.Key, before)
	}
	_, err = l.replace(ctx, lonaChange{
		act: u.Action, key: u.Key, with: again(before), before: before, held: true,
		may: func(ctx context.Context, _ credstore.Credential) error {
			open, err := l.steward.journal.unfinished(ctx, u.Key)
			if err == nil && len(open) == 0 {
				return errHealed
			}
			return err
		},
	})
	switch {
	case errors.Is(err, credstore.ErrNotFound):
		return l.healed(ctx, u.Key, credstore.Credential{})
	case errors.Is(err, errHealed):
		return nil
	}
	return err
}

// healed takes out of the journal what there is nothing left to do of, if what
// is stored is still what that was decided by.
func (l *Lona) healed(ctx context.Context, k credstore.Key, by credstore.Credential) error {
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := l.stored(ctx, k)
	if err != nil || now.Key != by.Key || !same(by, now) {
		return err // somebody else was faster
	}
	return l.steward.journal.settle(ctx, k)
}

// accepted reports whether the service accepts a token.
func (l *Lona) accepted(ctx context.Context, c credstore.Credential) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Origin+wire.LonaStrategiesPath, nil)
	if err != nil {
		return false, err
	}
	if err := l.present(c, req); err != nil {
		return false, err
	}
	op := call{protocol: wire.LonaName, origin: c.Origin, op: "see whether the token works"}
	_, err = l.http.exchange(ctx, op, message{method: req.Method, url: req.URL, header: req.Header}, nil, true)
	if unauthorized(err) {
		return false, nil
	}
	return err == nil, err
}
