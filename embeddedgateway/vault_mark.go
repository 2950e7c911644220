package embeddedgateway

import (
	"context"
	"errors"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// errOtherKey is what to say of data that a server key does not open.
var errOtherKey = errors.New("the server key is not the one that it was made with: " +
	"set ENLIST_SERVER_KEY or ENLIST_SERVER_KEY_FILE to that one")

// Restore puts a backup in the place of the SQLite database at path, if it is
// one of a gateway with the server key of cfg, or else with the one beside the
// database. See [store.Restore].
func Restore(ctx context.Context, cfg Config, from, path string, asItWas bool) (store.Restored, error) {
	return store.Restore(ctx, store.Restoring{
		From: from, Path: path, Mark: vaultKind, AsItWas: asItWas, Now: cfg.Now,
		Verify: func(mark []byte) error { return checkMark(cfg, path, mark) },
	})
}

// checkMark reports why the server key of a configuration, or else the one
// beside a database, is not that of the mark of another database. One that has
// no mark was never served, and takes any.
func checkMark(cfg Config, database string, mark []byte) error {
	if mark == nil {
		return nil
	}
	key, err := serverKey(cfg, database, false)
	if err != nil {
		return err
	}
	var v vault
	if err := v.derive(key); err != nil {
		return err
	}
	if _, err := v.open(vaultKind, vaultName, mark); err != nil {
		return errOtherKey
	}
	return nil
}
