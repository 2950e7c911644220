package embeddedgateway

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// sweepEvery is how often what has outlived its time is deleted.
	sweepEvery = 10 * time.Minute
	// sweepPause is how long others may write between two parts of it.
	sweepPause = 50 * time.Millisecond
	// sweepLease is for how long one process is the only one to do it. It is
	// renewed at every part.
	sweepLease = 2 * time.Minute

	sweepName = "retention"
)

// errLease is what ends a sweep whose lease was lost.
var errLease = errors.New("another process has taken over")

// Retention says how long is kept what nobody needs any more. Zero is the
// default; a negative time keeps it for ever.
type Retention struct {
	Audit   time.Duration // events of the audit trail; the default is for ever
	Tickets time.Duration // what has expired, to say that it has; the default is an hour
}

// retain deletes now and then what has outlived its time, until ctx ends.
func (g *Gateway) retain(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if _, err := g.sweepOnce(ctx, sweepPause); err != nil && ctx.Err() == nil {
			g.cfg.Logger.WarnContext(ctx, "deleting what has outlived its time failed; it is tried again", "error", err)
		}
		g.makeUp(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepOnce deletes what has outlived its time, unless another process over the
// same database does, and returns how much.
func (g *Gateway) sweepOnce(ctx context.Context, pause time.Duration) (n int, err error) {
	tickets := g.cfg.Retention.Tickets
	if tickets < 0 {
		tickets = math.MaxInt64 // before the first of them
	}
	todo := store.Pruning{
		Now: g.cfg.Now(), Tickets: tickets, Events: max(g.cfg.Retention.Audit, 0),
		Pruned:  func(table string, rows int) { g.metrics.pruned.WithLabelValues(table).Add(float64(rows)) },
		Between: func(ctx context.Context) error { return g.betweenParts(ctx, pause) },
	}
	if some, err := g.store.Outlived(ctx, todo); err != nil || !some {
		return 0, err
	}
	held, err := g.holdSweep(ctx)
	if err != nil || !held {
		return 0, err
	}
	defer func() {
		// One that is not given up is over soon.
		forever := context.WithoutCancel(ctx)
		_ = g.store.Tx(forever, func(tx *store.Tx) error { return tx.EndLease(sweepName, g.id) })
	}()
	return g.store.PruneAs(ctx, todo)
}

// betweenParts renews the lease, and lets others write.
func (g *Gateway) betweenParts(ctx context.Context, pause time.Duration) error {
	if held, err := g.holdSweep(ctx); err != nil || !held {
		return errors.Join(err, errLease)
	}
	if pause <= 0 {
		return nil
	}
	over := time.NewTimer(pause)
	defer over.Stop()
	select {
	case <-over.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// holdSweep makes this process the one that sweeps, or reports that another is.
func (g *Gateway) holdSweep(ctx context.Context) (held bool, err error) {
	err = g.store.Tx(ctx, func(tx *store.Tx) (err error) {
		held, err = tx.Lease(sweepName, g.id, tx.Now().Add(sweepLease))
		return err
	})
	return held, err
}
