package credstore_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
)

// SQLite says at times at once that another process is in the way. That is tried
// again, and nothing else is.
func TestWhatIsInTheWayForAMomentIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "some.db")
	open := func() *sql.DB {
		db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(path)+"?_txlock=immediate&_pragma=busy_timeout(0)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	holder, other := open(), open()
	held, err := holder.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	err = credstore.Patiently(t.Context(), func() error {
		tries++
		if tries == 3 {
			if err := held.Rollback(); err != nil {
				t.Error(err)
			}
		}
		tx, err := other.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		return tx.Rollback()
	})
	if err != nil || tries != 3 {
		t.Errorf("got %v after %d tries, want it done by the third", err, tries)
	}

	tries = 0
	broken := errors.New("disk I/O error")
	err = credstore.Patiently(t.Context(), func() error { tries++; return broken })
	if !errors.Is(err, broken) || tries != 1 {
		t.Errorf("got %v after %d tries, want one", err, tries)
	}
}
