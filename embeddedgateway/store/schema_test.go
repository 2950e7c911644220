package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// TestAChangeOfTheTablesFailsNothing changes the type of a column of every table
// while a store has its statements prepared, as somebody may do by hand, or a
// pooler that is moved to another server: what the server refuses for that alone
// is done again.
func TestAChangeOfTheTablesFailsNothing(t *testing.T) {
	t.Parallel()
	at := pgtest.Ready(t)
	s := openURL(t, at, time.Now)
	use := func() error {
		errs := make([]error, 8)
		var all sync.WaitGroup
		for i := range errs { // over several connections
			all.Go(func() {
				errs[i] = s.Tx(t.Context(), func(tx *store.Tx) error {
					a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a"})
					if err == nil {
						_, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "key", Hash: digestOf(int(time.Now().UnixNano())), Scopes: []string{"*"}}, 0)
					}
					if err == nil {
						err = note(tx, "used")
					}
					return err
				})
				if errs[i] == nil {
					_, errs[i] = s.Agent(t.Context(), "lona", "a")
				}
				if errs[i] == nil {
					_, errs[i] = s.Events(t.Context(), store.EventQuery{})
				}
				if _, err := s.Authenticate(t.Context(), "lona", digestOf(i)); !errors.Is(err, store.ErrNotFound) {
					errs[i] = errors.Join(errs[i], err)
				}
				if _, err := s.Ticket(t.Context(), "lona", "invite", digestOf(i)); !errors.Is(err, store.ErrNotFound) {
					errs[i] = errors.Join(errs[i], err)
				}
				if _, err := s.Sealed(t.Context(), "mail", 10); err != nil {
					errs[i] = errors.Join(errs[i], err)
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
	for range 3 {
		if err := use(); err != nil {
			t.Fatal(err)
		}
	}
	// A column that a trigger looks at cannot be changed.
	pgtest.Exec(t, at, "DROP FUNCTION count_row_change() CASCADE")
	for _, to := range []string{"VARCHAR(500)", "TEXT"} {
		for _, column := range []string{"agents ALTER name", "credentials ALTER kind", "tickets ALTER subject", "events ALTER name", "sealed ALTER name"} {
			pgtest.Exec(t, at, "ALTER TABLE "+column+" TYPE "+to)
		}
		for range 3 {
			if err := use(); err != nil {
				t.Fatalf("after a change to %s: %v", to, err)
			}
		}
	}
}

// TestNothingIsPreparedForGood asks over the connection that the start has used, on
// which nothing may be prepared that the driver does not prepare anew.
func TestNothingIsPreparedForGood(t *testing.T) {
	t.Parallel()
	at := pgtest.Ready(t)
	s := openURL(t, at, time.Now)
	pgtest.Exec(t, at, "DROP FUNCTION count_row_change() CASCADE")
	for _, column := range []string{"credentials ALTER kind", "sealed ALTER name", "tickets ALTER subject", "agents ALTER name"} {
		pgtest.Exec(t, at, "ALTER TABLE "+column+" TYPE VARCHAR(500)")
	}
	if _, err := s.Sealed(t.Context(), "mail", 10); err != nil {
		t.Error(err)
	}
	if _, err := s.CredentialByID(t.Context(), 1, "key", "k"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Ticket(t.Context(), "lona", "invite", digestOf(1)); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
