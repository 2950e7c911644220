package embeddedgateway

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// flushEvery is how long the use of a credential may be in memory only.
const flushEvery = time.Second

// lastUse is when credentials were used last. It is written down once a second
// for all that were used in it: a durable write for each request is not wanted,
// and what a crash takes of it is a second.
type lastUse struct {
	mu sync.Mutex
	at map[int64]time.Time // by the credential's id; what is not written down yet
}

func newLastUse() *lastUse { return &lastUse{at: map[int64]time.Time{}} }

// note remembers that a credential was used.
func (u *lastUse) note(id int64, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.at[id] = at
}

// of returns when a credential was used last, the zero time for never.
func (u *lastUse) of(c store.Credential) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if at, ok := u.at[c.ID]; ok && at.After(c.LastUsedAt) {
		return at
	}
	return c.LastUsedAt
}

// flush writes down what is not written down yet. Until it is, it stays here
// too, so that of never answers with less than it knows.
func (u *lastUse) flush(ctx context.Context, s *store.Store) error {
	u.mu.Lock()
	todo := maps.Clone(u.at)
	u.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	// In one order: of two gateways that write down the same keys, none waits for
	// the other while that waits for it.
	ids := slices.Sorted(maps.Keys(todo))
	err := s.TxEach(ctx, func(tx *store.Tx) error {
		for _, id := range ids {
			if err := tx.Touch(id, todo[id]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.at, func(id int64, at time.Time) bool { return at.Equal(todo[id]) })
	return nil
}

// keep flushes until ctx ends.
func (u *lastUse) keep(ctx context.Context, s *store.Store, log *slog.Logger) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := u.flush(ctx, s); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "writing down when keys were used last failed; it is tried again", "error", err)
			}
		}
	}
}
