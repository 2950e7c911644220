package gateway

import (
	"context"
	"net/http"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Heal implements [Healer]. A token that was stored before the process ended is
// all there is to it. Without one the service is asked whether it accepts the
// token that is held; where it does not, or none is, the agent is registered
// again: that ends the token that nobody got.
func (l *Lona) Heal(ctx context.Context, u Unfinished) error {
	before, err := l.stored(ctx, u.Key)
	if err != nil {
		return err
	}
	works := u.Phase == PhaseReceived
	if !works && before.UsableAt(l.now()) {
		if works, err = l.accepted(ctx, before); err != nil {
			return err
		}
	}
	if !works {
		r := again(before)
		r.AgentID = u.Key.Agent
		r.AgentName = r.AgentID
		if name := before.Attrs[lonaAgentName]; name != "" {
			r.AgentName = name
		}
		_, err := l.register(ctx, u.Action, u.Key, r, false)
		return err
	}
	unlock, err := l.store.Lock(ctx, u.Key)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := l.stored(ctx, u.Key)
	if err != nil || !same(before, now) {
		return err // somebody else was faster
	}
	return l.steward.journal.settle(ctx, u.Key)
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
