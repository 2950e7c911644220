package embeddedgateway

import (
	"context"
	"errors"
	"sync"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// transaction is a method of a store that runs one.
type transaction func(context.Context, func(*store.Tx) error) error

// within runs fn in a transaction that first counts the call against a limit as
// [call.spend] does: one commit, where there would be two. A call that fails is
// counted too, though whatever else was done in its transaction is undone.
func (c *call) within(ctx context.Context, l limit, run transaction, fn func(*store.Tx) error) error {
	over := false
	err := run(ctx, func(tx *store.Tx) error {
		over = false
		if err := c.count(tx, l); err != nil {
			over = true
			return err
		}
		return fn(tx)
	})
	if err == nil || over {
		return err
	}
	// Also when the client has left: it could else try as often as it likes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	if over := c.spend(ctx, l); over != nil {
		return over
	}
	return err
}

// proven is within for a call that has to prove something by much work of this
// process, which is done before the transaction. Where the limit was used up when
// somebody came from there last, it is not before the call is counted.
func (c *call) proven(ctx context.Context, l limit, late *latecomers, prove func() error, fn func(*store.Tx) error) error {
	from := network(c.ip)
	if late.has(from) {
		err := c.spend(ctx, l)
		late.note(from, err)
		if err == nil {
			err = prove()
		}
		if err != nil {
			return err
		}
		return c.store.Tx(ctx, fn)
	}
	err := prove()
	if err == nil {
		err = c.within(ctx, l, c.store.Tx, fn)
	} else if over := c.spend(ctx, l); over != nil {
		err = over
	}
	late.note(from, err)
	return err
}

// latecomers are the networks whose last call came too late for a limit.
type latecomers struct {
	mu    sync.Mutex
	known map[string]bool
}

// maxLatecomers is how many are known at once: to know of none costs work, no more.
const maxLatecomers = 4096

func (l *latecomers) has(network string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[network]
}

// note takes what came of a call.
func (l *latecomers) note(network string, err error) {
	p, ok := errors.AsType[*problem](err)
	limited := ok && p.kind == kindLimited
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !limited:
		delete(l.known, network)
	case l.known == nil || len(l.known) >= maxLatecomers:
		l.known = map[string]bool{network: true}
	default:
		l.known[network] = true
	}
}

// count counts the call against a limit that goes by the client's address.
func (c *call) count(tx *store.Tx, l limit) error {
	wait, err := tx.Hit(c.protocol+"/"+l.name+"/"+network(c.ip), l.n, l.per)
	if err == nil && wait > 0 {
		err = limited(l, wait)
	}
	return err
}
