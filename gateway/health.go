package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// What a person looks at when something does not work: nothing here sends a
// credential.

// Unfinished returns the operations that have not come to an end. Some may be
// under way; [Lifecycle.Heal] finishes the others.
func (l *Lifecycle) Unfinished(ctx context.Context) ([]Unfinished, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	return l.steward.journal.unfinished(ctx)
}

// Reached is what a service answered that was asked for nothing.
type Reached struct {
	Status int
	// Took is how long the answer took.
	Took time.Duration
	// Told is whether the service said what time it is, and Skew how far its
	// clock is ahead of this machine's, to the second.
	Told bool
	Skew time.Duration
}

// Reach makes one GET request to a service, without a credential, and says what
// came of it. An error says why there was no answer.
func (l *Lifecycle) Reach(ctx context.Context, origin string) (Reached, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	op := call{origin: origin, op: "reach the service"}
	u, err := url.Parse(origin + "/")
	if err != nil {
		return Reached{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	began := l.now()
	a, err := l.http.send(ctx, op, message{method: http.MethodGet, url: u}, maxReached)
	if err != nil {
		return Reached{}, err
	}
	r := Reached{Status: a.status, Took: l.now().Sub(began)}
	if at, err := http.ParseTime(a.header.Get("Date")); err == nil {
		r.Told, r.Skew = true, skew(at, began, began.Add(r.Took))
	}
	return r, nil
}

// maxReached is how much of such an answer is read.
const maxReached = 4 << 10

// skew is how far a clock that said at, in whole seconds, is outside of the time
// between the question and the answer.
func skew(at, asked, answered time.Time) time.Duration {
	if early := asked.Truncate(time.Second).Sub(at); early > 0 {
		return -early
	}
	if late := at.Sub(answered); late > 0 {
		return late.Truncate(time.Second)
	}
	return 0
}

// JournalDamaged reports whether an error of the journal means that its file is
// no database any more. Everything else may pass.
func JournalDamaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff // without what extends it
	return code == sqlite3.SQLITE_NOTADB || code == sqlite3.SQLITE_CORRUPT
}

// SetJournalAside moves a damaged journal away, so that the next use makes another
// one, and returns where it is now. The audit trail goes with it, and what was
// unfinished is not known any more.
func (c *Client) SetJournalAside() (string, error) {
	j := c.journal
	if err := j.Close(); err != nil {
		return "", err
	}
	aside := fmt.Sprintf("%s.damaged-%s", j.path, j.now().UTC().Format("20060102-150405"))
	if _, err := os.Lstat(aside); err == nil {
		return "", fmt.Errorf("move the journal away: %w: %s", fs.ErrExist, aside)
	}
	if err := os.Rename(j.path, aside); err != nil {
		return "", err
	}
	for _, beside := range []string{"-wal", "-shm"} {
		if err := os.Rename(j.path+beside, aside+beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return aside, err
		}
	}
	return aside, nil
}
