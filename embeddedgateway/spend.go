package embeddedgateway

import (
	"context"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// within runs fn in a transaction that first counts the call against a limit as
// [call.spend] does: one commit, where there would be two. A call that fails is
// counted too, though whatever else was done in its transaction is undone.
func (c *call) within(ctx context.Context, l limit, fn func(*store.Tx) error) error {
	over := false
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
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

// count counts the call against a limit that goes by the client's address.
func (c *call) count(tx *store.Tx, l limit) error {
	wait, err := tx.Hit(c.protocol+"/"+l.name+"/"+network(c.ip), l.n, l.per)
	if err == nil && wait > 0 {
		err = limited(l, wait)
	}
	return err
}
