package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

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

// Copy copies the database of a gateway, given as Config.Database is, into that of
// cfg, which is empty, if it is one of a gateway with the same server key. each
// may be nil. See [store.Copy].
func Copy(ctx context.Context, cfg Config, from string, each func(table string, rows int64)) (store.Copied, error) {
	a, err := Config{Database: from, Now: cfg.Now, Logger: cfg.Logger}.Place()
	if err != nil {
		return store.Copied{}, err
	}
	b, err := cfg.place()
	if err != nil {
		return store.Copied{}, err
	}
	b.Now, b.Logger = cfg.Now, cfg.Logger
	return store.Copy(ctx, store.Copying{From: a, To: b, Mark: vaultKind, Each: each, Verify: func(mark []byte) error {
		if _, err := os.Stat(b.Path + ".key"); mark != nil && len(cfg.ServerKey) == 0 && errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("a copy opens with the server key of its source only: put that into %s.key (chmod 600), "+
				"or set ENLIST_SERVER_KEY_FILE or ENLIST_SERVER_KEY to it", b.Path)
		}
		return checkMark(cfg, b.Path, mark)
	}})
}

// Place says where the database of a configuration is, for what needs no server
// key.
func (c Config) Place() (store.Options, error) {
	c.ServerKey = make([]byte, serverKeyBytes)
	o, err := c.place()
	o.Now, o.Logger = c.Now, c.Logger
	return o, err
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
