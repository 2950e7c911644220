package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/gofrs/flock"
)

// ErrInUse means that somebody has the database open whose end must be waited for.
var ErrInUse = errors.New("it is in use: end the gateways and the commands that have it open, and try again")

// use is the sign that a SQLite database is open: a lock of the kernel on a
// file beside it, gone with its process. Everybody who has the database open
// shares it; whoever puts another file in its place has it alone. It cannot be
// a lock on the database itself, which the restored one replaces.
type use struct{ lock *flock.Flock }

// usePath is the file that is locked as long as a database is open.
func usePath(path string) string { return path + ".inuse" }

// share says that the database is open. It waits for whoever restores it or
// copies from it.
func share(ctx context.Context, path string) (use, error) {
	lock := flock.New(usePath(path))
	wait, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if _, err := lock.TryRLockContext(wait, lockPoll); err != nil {
		if ctx.Err() == nil && wait.Err() != nil {
			return use{}, fmt.Errorf("it is being restored or copied (%s is locked): try again when that is done", lock.Path())
		}
		return use{}, fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	return use{lock}, nil
}

// exclude keeps everybody else from opening the database. It is [ErrInUse] if
// somebody has.
func exclude(path string) (use, error) {
	lock := flock.New(usePath(path))
	got, err := lock.TryLock()
	switch {
	case err != nil:
		return use{}, fmt.Errorf("lock %s: %w", lock.Path(), err)
	case !got:
		return use{}, ErrInUse
	}
	return use{lock}, nil
}

// end says that the database is not open any more.
func (u use) end() error {
	if u.lock == nil {
		return nil
	}
	return u.lock.Unlock()
}
