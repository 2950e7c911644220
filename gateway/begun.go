package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// begun is a registration that a store knows of before the service does: what a
// service issues once must have a place to go, and the fact that it was asked
// for must outlive this process.
type begun struct {
	store credstore.Store
	scrub *Scrubber
	now   func() time.Time
	log   *slog.Logger
}

// begin shows that the store can be written, before anything is requested that
// issues or ends a secret: what is held under k is written once more, and where
// nothing is, a pending credential without a secret. needed are the attributes
// that stay where there is no room for all.
func (b begun) begin(ctx context.Context, k credstore.Key, held credstore.Credential, attrs map[string]string, needed ...string) error {
	_, err := b.write(ctx, k, held, attrs, credstore.Secret{}, needed)
	return err
}

// seeded is begin for what is asked for with an idempotency key: a pending
// credential has a seed for its secret, which that key is made from. It returns
// what is held now.
func (b begun) seeded(ctx context.Context, k credstore.Key, held credstore.Credential, attrs map[string]string, needed ...string) (credstore.Credential, error) {
	return b.write(ctx, k, held, attrs, newSeed(), needed)
}

func (b begun) write(ctx context.Context, k credstore.Key, held credstore.Credential, attrs map[string]string, seed credstore.Secret, needed []string) (credstore.Credential, error) {
	if held.Key != k {
		if _, err := b.store.Get(ctx, k); errors.Is(err, credstore.ErrDamaged) {
			return held, nil // it may be mended yet: only a new secret takes its place
		}
		held = credstore.Credential{Info: credstore.Info{
			Key: k, State: credstore.StatePending, Attrs: attrs,
			CreatedAt: b.now().UTC().Truncate(time.Millisecond),
		}}
	}
	if held.State == credstore.StatePending && held.Secret.IsZero() {
		held.Secret = seed
	}
	return keep(ctx, b.store, held, needed...)
}

// withdraw removes what begin wrote where nothing was held, if the service
// cannot have issued anything. Otherwise it stays: pending says just that.
func (b begun) withdraw(ctx context.Context, k credstore.Key, held credstore.Credential, why error) {
	var failed *Error
	if held.Key == k || errors.As(why, &failed) && failed.Sent {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	c, err := b.store.Get(ctx, k)
	if err != nil || c.State != credstore.StatePending || !c.Secret.IsZero() && !isSeed(c.Secret) {
		return // it is not what begin wrote
	}
	if err := b.store.Delete(ctx, k); err != nil {
		b.log.WarnContext(ctx, "a pending credential could not be removed",
			"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "error", b.scrub.Own(err.Error()))
	}
}
