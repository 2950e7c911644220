package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// TestACommitWhoseAnswerIsLostIsNotRunAgain ends the connection exactly at a
// COMMIT: once so that the server never gets it, once when it has done it and
// its answer is on the way. Either way the caller is told that nobody knows, and
// the transaction is run once: were it run again, it might be done twice.
func TestACommitWhoseAnswerIsLostIsNotRunAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cut  func(*pgtest.Cutter, int)
		want string
	}{
		"before the server has it": {(*pgtest.Cutter).Before, ""},
		"before its answer":        {(*pgtest.Cutter).After, "once"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := pgtest.Ready(t)
			way := pgtest.Cut(t, at)
			s := openURL(t, way.URL, time.Now)
			for _, each := range []bool{false, true} {
				do := s.Tx
				if each {
					do = s.TxEach
				}
				runs, before := 0, way.Cuts()
				tt.cut(way, 0)
				err := do(t.Context(), func(tx *store.Tx) error {
					runs++
					return note(tx, "once")
				})
				if !errors.Is(err, store.ErrUnavailable) || runs != 1 || way.Cuts() != before+1 {
					t.Errorf("got error %v after %d runs and %d cuts, want that it is unavailable after one of each",
						err, runs, way.Cuts()-before)
				}
				// The connection is replaced, and what is acknowledged is there.
				if err := do(t.Context(), func(tx *store.Tx) error { return note(tx, "after") }); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
			want := "after after"
			if tt.want != "" {
				want = "once after once after"
			}
			if got := names(t, openURL(t, at, time.Now)); got != want {
				t.Errorf("events: got %q, want %q", got, want)
			}
		})
	}
}
