package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/storetest"
)

// openURL opens a store on PostgreSQL.
func openURL(t testing.TB, url string, now func() time.Time) *store.Store {
	t.Helper()
	return openOn(t, store.Options{URL: url, Now: now})
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, now func() time.Time) *store.Store {
		return openURL(t, pgtest.Ready(t), now)
	})
}

func TestATxIsRunAgainWhereItWouldDisturbAnother(t *testing.T) {
	t.Parallel()
	s := openURL(t, pgtest.Ready(t), time.Now)
	// Each of the two looks whether the other has done it, and does it if not.
	// Were both committed on what they saw first, it would be done twice.
	var runs atomic.Int32
	var read sync.WaitGroup
	read.Add(2)
	var once [2]sync.Once
	do := func(i int) error {
		return s.Tx(t.Context(), func(tx *store.Tx) error {
			runs.Add(1)
			_, err := tx.Agent("lona", fmt.Sprint("agent ", 1-i))
			once[i].Do(func() { // the first time, both have looked before one writes
				read.Done()
				read.Wait()
			})
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
			_, _, err = tx.EnsureAgent(store.Agent{Protocol: "lona", Name: fmt.Sprint("agent ", i)})
			return err
		})
	}
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i := range 2 {
		both.Go(func() { errs[i] = do(i) })
	}
	both.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	there := 0
	for i := range 2 {
		if _, err := s.Agent(t.Context(), "lona", fmt.Sprint("agent ", i)); err == nil {
			there++
		}
	}
	if there != 1 || runs.Load() != 3 {
		t.Errorf("got %d agents by %d runs, want 1 by 3", there, runs.Load())
	}
}

func TestATxSurvivesALostConnection(t *testing.T) {
	t.Parallel()
	at := pgtest.Ready(t)
	s := openURL(t, at, time.Now)
	runs := 0
	err := s.Tx(t.Context(), func(tx *store.Tx) error {
		runs++
		if err := note(tx, "first"); err != nil {
			return err
		}
		if runs == 1 {
			pgtest.Exec(t, at, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		}
		return note(tx, "second")
	})
	if err != nil || runs != 2 {
		t.Errorf("got error %v after %d runs, want none after 2", err, runs)
	}
	if got, want := names(t, s), "first second"; got != want {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

func TestAReadSurvivesALostConnection(t *testing.T) {
	t.Parallel()
	at := pgtest.Ready(t)
	s := openURL(t, at, time.Now)
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		pgtest.Exec(t, at, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		if _, err := s.Agent(t.Context(), "lona", "a"); err != nil {
			t.Errorf("Agent: %v", err)
		}
		if _, err := s.Events(t.Context(), store.EventQuery{}); err != nil {
			t.Errorf("Events: %v", err)
		}
	}
}

func TestAServerThatIsAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	s := openURL(t, server.URL(t), time.Now)
	server.Stop(t)
	err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "lost") })
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "cannot be reached") || strings.Contains(err.Error(), pgtest.Password()) {
		t.Errorf("Tx: got error %v", err)
	}
	if _, err := s.Agent(t.Context(), "lona", "a"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Agent: got error %v", err)
	}
	// A caller who leaves is not kept.
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- s.Tx(ctx, func(tx *store.Tx) error { return note(tx, "lost") }) }()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("Tx of who left: got error %v", err)
	}
	server.Start(t)
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "back") }); err != nil {
		t.Errorf("Tx: %v", err)
	}
	if got := names(t, s); got != "back" {
		t.Errorf("events: got %q", got)
	}
}

func TestACommitWaitsForTheDiskWhateverTheServerIsSetTo(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{"off": "on", "local": "local", "remote_apply": "remote_apply"} {
		at := pgtest.URL(t)
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Exec(t, at, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET synchronous_commit = "+set)
		s := openURL(t, at, time.Now)
		var got string
		if err := s.Reader().QueryRowContext(t.Context(), "SHOW synchronous_commit").Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", set, got, err, want)
		}
	}
}

func TestManyMayOpenAnEmptyDatabaseAtOnce(t *testing.T) {
	t.Parallel()
	at := pgtest.URL(t)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			s, err := store.Open(t.Context(), store.Options{URL: at, Now: time.Now})
			if err == nil {
				err = errors.Join(s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "a") }), s.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, want := names(t, openURL(t, at, time.Now)), "a a a a a"; got != want {
		t.Errorf("events: got %q, want %q", got, want)
	}
}

func TestWhatCannotBeOpenedSaysWhy(t *testing.T) {
	t.Parallel()
	newer := pgtest.Ready(t)
	pgtest.Exec(t, newer, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	edit := func(change func(*url.URL)) string {
		u, err := url.Parse(pgtest.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return u.String()
	}
	weak := edit(func(*url.URL) {})
	pgtest.Exec(t, weak, "CREATE ROLE weak LOGIN PASSWORD 'weak-password'")
	u, err := url.Parse(weak)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("weak", "weak-password")
	for name, tt := range map[string]struct{ url, want string }{
		"a newer version":   {newer, "newer version of Enlist"},
		"no right":          {u.String(), "GRANT CREATE"},
		"a wrong password":  {edit(func(u *url.URL) { u.User = url.UserPassword("enlist", "wrong-password") }), "does not let this user in"},
		"no such database":  {edit(func(u *url.URL) { u.Path = "/nowhere" }), "no such database"},
		"not a URL":         {"postgres://enlist:wrong-password@host:port/x", "cannot be read"},
		"a pool of nothing": {edit(func(u *url.URL) { u.RawQuery += "&pool_max_conns=1" }), "pool_max_conns"},
	} {
		_, err := store.Open(t.Context(), store.Options{URL: tt.url, Now: time.Now})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one that says %q", name, err, tt.want)
			continue
		}
		for _, secret := range []string{pgtest.Password(), "wrong-password", "weak-password"} {
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), url.QueryEscape(secret)) {
				t.Errorf("%s: a password is in %v", name, err)
			}
		}
	}
}

// TestReadsThatAreSharedAreNotOld has many ask for credentials that are revoked
// meanwhile: who asks after a revocation was acknowledged does not find it.
func TestReadsThatAreSharedAreNotOld(t *testing.T) {
	t.Parallel()
	at := pgtest.Ready(t)
	one, other := openURL(t, at, time.Now), openURL(t, at, time.Now)
	const keys = 200
	ids := make([]int64, keys)
	err := one.Tx(t.Context(), func(tx *store.Tx) error {
		a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a"})
		for i := range keys {
			if err != nil {
				return err
			}
			var c store.Credential
			c, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "key", Hash: digestOf(i), Scopes: []string{"*"}}, 0)
			ids[i] = c.ID
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var revoked atomic.Int64 // keys below are
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 32 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				key := i % keys
				gone := int64(key) < revoked.Load()
				_, err := other.Authenticate(t.Context(), "lona", digestOf(key))
				if gone && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("key %d was revoked before: got error %v", key, err)
					return
				}
			}
		})
	}
	for i, id := range ids {
		if err := one.Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.Revoke(id); return err }); err != nil {
			t.Error(err)
		}
		revoked.Store(int64(i + 1))
	}
	close(done)
	readers.Wait()
}

// TestPruningLeavesACountThatGoesOn: a count that was over when pruning began, and
// that somebody begins again meanwhile, is not deleted: what was counted would be
// forgotten.
func TestPruningLeavesACountThatGoesOn(t *testing.T) {
	t.Parallel()
	var at atomic.Int64
	at.Store(1_800_000_000)
	s := openURL(t, pgtest.Ready(t), func() time.Time { return time.Unix(at.Load(), 0) })
	hit := func(meanwhile func()) (wait time.Duration) {
		t.Helper()
		err := s.TxEach(t.Context(), func(tx *store.Tx) (err error) {
			wait, err = tx.Hit("key", 1, time.Minute)
			meanwhile()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
	hit(func() {})
	at.Add(120)
	pruned := make(chan error, 1)
	prune := sync.OnceFunc(func() {
		go func() { _, err := s.Prune(t.Context(), time.Unix(at.Load(), 0)); pruned <- err }()
		for waiting := 0; waiting == 0; {
			err := s.Reader().QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'DELETE FROM counters%'`).Scan(&waiting)
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	if wait := hit(prune); wait != 0 {
		t.Fatalf("a count that is over lets nobody in for %v", wait)
	}
	if err := <-pruned; err != nil {
		t.Fatal(err)
	}
	if wait := hit(func() {}); wait != time.Minute {
		t.Errorf("one more than the limit may come in %v, want in a minute", wait)
	}
}

func digestOf(i int) (h [32]byte) {
	copy(h[:], fmt.Sprint("key ", i))
	return h
}
