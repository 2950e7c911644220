package credstore

import (
	"context"
	"errors"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite has no queue for processes that want to write: each looks again and again
// whether the database is free, and SQLite itself soon looks ten times a second
// only. Where many come and go, or the machine is slow, one of them can find others
// there for as long as it is ready to wait, and its turn never comes. So SQLite
// waits for a moment only, and what is in the way is looked for often, until
// whoever asked has no time left or this is over.
const (
	// patience is for how long is tried again what another process is in the way of,
	// where nobody else says: longer than many take one after another, and not for
	// ever, for a process may have been stopped in the middle.
	patience = 20 * time.Second
	// retryPause is the pause between two tries.
	retryPause = 5 * time.Millisecond
)

// BusyMillis is the busy_timeout of a database that is used with [Patiently].
const BusyMillis = 25

// Patiently does something with a SQLite database that several processes use, and
// does it again while another one is in the way, so that nothing was done. It
// returns the last error when ctx is over, or after a time that only a process that
// stands still takes.
func Patiently(ctx context.Context, try func() error) error { return patiently(ctx, pause, try) }

func patiently(ctx context.Context, pause func(context.Context) error, try func() error) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil || !busy(err) || pause(within) != nil {
			return err
		}
	}
}

// busy reports whether another process was in the way, so that nothing was done:
// one that writes, or one that closes the database as the last or opens it as the
// first.
func busy(err error) bool {
	var failed *sqlite.Error
	return errors.As(err, &failed) && failed.Code()&0xff == sqlite3.SQLITE_BUSY
}

func pause(ctx context.Context) error {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
