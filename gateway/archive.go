package gateway

import (
	"context"
	"io"

	"github.com/enlist-mcp/enlist/credstore"
)

// Export writes credentials into one file that the passphrase encrypts, so that
// a person can take them to another machine, and returns how many. Without of it
// is everything that is stored and has a secret: what stands behind a handle, and
// wallets, too. It is a way out for people, and no tool may call it. Each of them
// is in the audit trail.
func (l *Lifecycle) Export(ctx context.Context, w io.Writer, passphrase credstore.Secret, of ...credstore.Key) (int, error) {
	keys := of
	if len(of) == 0 {
		infos, err := l.List(ctx)
		if err != nil {
			return 0, err
		}
		for _, i := range infos {
			if i.State != credstore.StateLost {
				keys = append(keys, i.Key)
			}
		}
	}
	if len(keys) == 0 {
		return 0, &RefusedError{Why: "There is nothing to export: no credential is stored."}
	}
	return doesAll(ctx, l.steward, ActExport, keys, func(ctx context.Context) (int, error) {
		return credstore.WriteArchive(ctx, l.store, w, passphrase, keys)
	})
}

// doesAll is does for one act that is about several credentials: each must be
// allowed before anything is done.
func doesAll[T any](ctx context.Context, s *steward, a Action, keys []credstore.Key, f func(context.Context) (T, error)) (T, error) {
	if len(keys) == 0 {
		return f(ctx)
	}
	return does(ctx, s, Act{Action: a, Key: keys[0]}, func(ctx context.Context) (T, error) {
		return doesAll(ctx, s, a, keys[1:], f)
	})
}

// Import takes the credentials of a file that [Lifecycle.Export] wrote into the
// store, and says what came of each. One that is there and differs stays, unless
// replace says otherwise. What was done is returned beside an error, too; importing
// again does the rest.
func (l *Lifecycle) Import(ctx context.Context, r io.Reader, passphrase credstore.Secret, replace bool) ([]credstore.Imported, error) {
	return credstore.ReadArchive(ctx, importing{l.store, l.steward}, r, passphrase, replace)
}

// importing is a store into which credentials are imported.
type importing struct {
	credstore.Store
	steward *steward
}

// Put implements [credstore.Store]. What was unfinished of a credential that was
// there before must not be done to the one in its place, whose lock is held.
func (i importing) Put(ctx context.Context, c credstore.Credential) error {
	_, err := does(ctx, i.steward, Act{Action: ActImport, Key: c.Key}, func(ctx context.Context) (struct{}, error) {
		if err := i.Store.Put(ctx, c); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, i.steward.journal.settle(ctx, c.Key)
	})
	return err
}
