package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// keptOnServer is two stores on one server that have read an agent and its
// credential, and keep them.
type keptOnServer struct {
	t          *testing.T
	url        string
	one, other *store.Store
	agent      store.Agent
	key        store.Credential
}

func newKeptOnServer(t *testing.T) *keptOnServer {
	t.Helper()
	at := pgtest.Ready(t)
	k := &keptOnServer{t: t, url: at, one: openURL(t, at, hasty()), other: openURL(t, at, hasty())}
	err := k.one.Tx(t.Context(), func(tx *store.Tx) (err error) {
		if k.agent, _, err = tx.EnsureAgent(store.Agent{Protocol: "p", Name: "a", DisplayName: "A"}); err != nil {
			return err
		}
		k.key, err = tx.Issue(store.Credential{AgentID: k.agent.ID, Kind: "key", Hash: digestOf(1), Scopes: []string{"*"}}, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	k.keep()
	return k
}

// hasty is a clock by which a second goes by between any two looks at it, so that
// whether the triggers are there is asked each time.
func hasty() func() time.Time {
	var looks atomic.Int64
	return func() time.Time { return time.Unix(1_800_000_000+looks.Add(1), 0) }
}

// keep reads both rows with both stores, and looks whether they are kept.
func (k *keptOnServer) keep() {
	k.t.Helper()
	for _, s := range []*store.Store{k.one, k.other} {
		if got := k.state(s); got != "active [*], A" {
			k.t.Fatalf("before: %s", got)
		}
		if keys, agents := s.KeptOfServer(); keys != 1 || agents != 1 {
			k.t.Fatalf("%d keys and %d agents are kept, want one of each", keys, agents)
		}
	}
}

// state is what a store says of the two.
func (k *keptOnServer) state(s *store.Store) string {
	k.t.Helper()
	c, err := s.Credential(k.t.Context(), "p", k.key.Hash)
	state := "active"
	switch {
	case errors.Is(err, store.ErrNotFound):
		state = "gone"
	case err != nil:
		k.t.Fatal(err)
	case !c.RevokedAt.IsZero():
		state = "ended"
	}
	a, err := s.Agent(k.t.Context(), "p", "a")
	switch {
	case errors.Is(err, store.ErrNotFound):
		a.DisplayName = "gone"
	case err != nil:
		k.t.Fatal(err)
	case !a.DisabledAt.IsZero():
		a.DisplayName = "suspended"
	}
	return fmt.Sprintf("%s %v, %s", state, c.Scopes, a.DisplayName)
}

// tx does something with a store.
func (k *keptOnServer) tx(s *store.Store, do func(tx *store.Tx) error) {
	k.t.Helper()
	if err := s.Tx(k.t.Context(), do); err != nil {
		k.t.Fatal(err)
	}
}

// TestWhatIsKeptOfAServerIsNeverOld changes rows that stores keep, in every way and
// by everybody who could, and asks at once.
func TestWhatIsKeptOfAServerIsNeverOld(t *testing.T) {
	t.Parallel()
	by := func(do func(*keptOnServer, *store.Tx) error) func(*keptOnServer) {
		return func(k *keptOnServer) { k.tx(k.one, func(tx *store.Tx) error { return do(k, tx) }) }
	}
	shell := func(q string) func(*keptOnServer) {
		return func(k *keptOnServer) { pgtest.Exec(k.t, k.url, q) }
	}
	for name, c := range map[string]struct {
		change func(*keptOnServer)
		want   string
	}{
		"revoked":        {by(func(k *keptOnServer, tx *store.Tx) error { _, err := tx.Revoke(k.key.ID); return err }), "ended [*], A"},
		"all revoked":    {by(func(k *keptOnServer, tx *store.Tx) error { _, err := tx.RevokeAll(k.agent.ID, "key"); return err }), "ended [*], A"},
		"suspended":      {by(func(k *keptOnServer, tx *store.Tx) error { _, err := tx.Suspend(k.agent.ID); return err }), "ended [*], suspended"},
		"deleted":        {by(func(k *keptOnServer, tx *store.Tx) error { return tx.DeleteAgent(k.agent.ID) }), "gone [], gone"},
		"called another": {by(renamed), "active [*], B"},
		"one statement":  {shell(`UPDATE credentials SET revoked_at = 1`), "ended [*], A"},
		"several":        {shell(`BEGIN; UPDATE credentials SET scopes = '["none"]'; UPDATE agents SET disabled_at = 1; COMMIT`), "active [none], suspended"},
		"one savepoint":  {shell(`BEGIN; SAVEPOINT s; DELETE FROM credentials; RELEASE s; COMMIT`), "gone [], A"},
		"truncated":      {shell(`TRUNCATE agents, credentials CASCADE`), "gone [], gone"},
		"keys truncated": {shell(`TRUNCATE credentials`), "gone [], A"},
		"agents deleted": {shell(`BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM agents; COMMIT`), "active [*], gone"},
		"by another trigger": {shell(`CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.revoked_at = 1; RETURN NEW; END $$;
			CREATE TRIGGER meddles BEFORE UPDATE ON credentials FOR EACH ROW EXECUTE FUNCTION meddle();
			UPDATE credentials SET last_used_at = 5`), "ended [*], A"},
		"count is taken away": {shell(`BEGIN; UPDATE credentials SET revoked_at = 1; DELETE FROM row_changes; COMMIT`), "ended [*], A"},
		"counted, then lost":  {shell(`UPDATE credentials SET revoked_at = 1; TRUNCATE row_changes`), "ended [*], A"},
		"replicated":          {shell(`BEGIN; SET LOCAL session_replication_role = replica; UPDATE credentials SET revoked_at = 1; DELETE FROM agents; COMMIT`), "ended [*], gone"},
		"uncounted": {shell(`ALTER TABLE credentials DISABLE TRIGGER count_changed_1;
			UPDATE credentials SET revoked_at = 1`), "ended [*], A"},
		"counted again": {shell(`ALTER TABLE credentials DISABLE TRIGGER count_changed_1;
			UPDATE credentials SET revoked_at = 1;
			ALTER TABLE credentials ENABLE ALWAYS TRIGGER count_changed_1`), "ended [*], A"},
		"uncounted since then": {func(k *keptOnServer) {
			shell(`ALTER TABLE credentials DISABLE TRIGGER count_changed_1`)(k)
			k.state(k.one)
			k.state(k.other)
			shell(`UPDATE credentials SET revoked_at = 1`)(k)
		}, "ended [*], A"},
		"no trigger":     {shell(`DROP FUNCTION count_row_change() CASCADE; UPDATE credentials SET revoked_at = 1`), "ended [*], A"},
		"count is lost":  {shell(`TRUNCATE row_changes; UPDATE credentials SET revoked_at = 1`), "ended [*], A"},
		"other table":    {shell(`ALTER TABLE credentials RENAME TO before; CREATE TABLE credentials (LIKE before INCLUDING ALL)`), "gone [], A"},
		"nothing":        {shell(`UPDATE credentials SET last_used_at = 5; UPDATE agents SET seq = seq + 1`), "active [*], A"},
		"something else": {by(func(_ *keptOnServer, tx *store.Tx) error { return note(tx, "something else") }), "active [*], A"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeptOnServer(t)
			c.change(k)
			for i, s := range []*store.Store{k.one, k.other, k.one, k.other} {
				if got := k.state(s); got != c.want {
					t.Errorf("look %d: %s, want %s", i+1, got, c.want)
				}
			}
		})
	}
}

func renamed(_ *keptOnServer, tx *store.Tx) error {
	_, _, err := tx.EnsureAgent(store.Agent{Protocol: "p", Name: "a", DisplayName: "B"})
	return err
}

// TestWhatASubscriptionAppliesIsCounted revokes a credential in another database, of
// which a gateway's is a subscriber.
func TestWhatASubscriptionAppliesIsCounted(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, "-c", "wal_level=logical")
	from, to := server.URL(t), server.URL(t)
	source, s := openURL(t, from, time.Now), openURL(t, to, time.Now)
	publisher, subscriber := sqlOf(t, from), sqlOf(t, to)
	run := func(db *sql.DB, q string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	// Both are on one server, where the subscriber cannot make the slot itself.
	run(publisher, `CREATE PUBLICATION p FOR TABLE agents, credentials`)
	run(publisher, `SELECT pg_create_logical_replication_slot('s', 'pgoutput')`)
	run(subscriber, `CREATE SUBSCRIPTION s CONNECTION '`+from+`' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)`)
	defer run(subscriber, `ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s`)
	applied := func(q string) {
		t.Helper()
		for n := 0; n == 0; {
			if err := subscriber.QueryRowContext(t.Context(), q).Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
	}
	var id int64
	err := source.Tx(t.Context(), func(tx *store.Tx) error {
		a, _, err := tx.EnsureAgent(store.Agent{Protocol: "p", Name: "a"})
		if err != nil {
			return err
		}
		c, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "key", Hash: digestOf(1)}, 0)
		id = c.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	applied(`SELECT count(*) FROM credentials`)
	if _, err := s.Authenticate(t.Context(), "p", digestOf(1)); err != nil {
		t.Fatal(err)
	}
	if keys, _ := s.KeptOfServer(); keys != 1 {
		t.Fatalf("%d keys are kept, want 1", keys)
	}
	if err := source.Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.Revoke(id); return err }); err != nil {
		t.Fatal(err)
	}
	applied(`SELECT count(*) FROM credentials WHERE revoked_at > 0`)
	if _, err := s.Authenticate(t.Context(), "p", digestOf(1)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got error %v for a credential whose revocation was applied", err)
	}
}

func sqlOf(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestWhatAServerKeepsStays: what changes nothing that decides about a request lets
// stores keep what they have.
func TestWhatAServerKeepsStays(t *testing.T) {
	t.Parallel()
	k := newKeptOnServer(t)
	used := time.UnixMicro(1_900_000_000_123_456).UTC()
	k.tx(k.one, func(tx *store.Tx) error { return tx.Touch(k.key.ID, used) })
	k.tx(k.other, func(tx *store.Tx) error {
		b, _, err := tx.EnsureAgent(store.Agent{Protocol: "p", Name: "b"})
		if err == nil {
			_, err = tx.Issue(store.Credential{AgentID: b.ID, Kind: "key", Hash: digestOf(2)}, 1)
		}
		if err == nil { // and again, nothing new
			_, _, err = tx.EnsureAgent(store.Agent{Protocol: "p", Name: "b"})
		}
		return err
	})
	undone := errors.New("undone")
	if err := k.one.Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.Revoke(k.key.ID); return errors.Join(err, undone) }); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	before := rowReads(k)
	k.keep()
	if n := rowReads(k) - before; n != 0 {
		t.Errorf("%d rows were read again", n)
	}
	pgtest.Exec(t, k.url, `UPDATE agents SET disabled_at = 1 WHERE name = 'b'`) // they cannot know whose it was
	k.keep()
	k.keep()
	if n := rowReads(k) - before; n != 4 {
		t.Errorf("after a change of another agent %d rows were read again, want each once by each", n)
	}
	if c, err := k.one.Credential(t.Context(), "p", k.key.Hash); err != nil || !c.LastUsedAt.Equal(used) {
		t.Errorf("the credential was used last at %v (%v), want %v", c.LastUsedAt, err, used)
	}
}

func rowReads(k *keptOnServer) uint64 { return k.one.RowReads() + k.other.RowReads() }

// TestAServerThatDoesNotCount: without the triggers each row is read each time, and a
// store that is opened makes them again.
func TestAServerThatDoesNotCount(t *testing.T) {
	t.Parallel()
	k := newKeptOnServer(t)
	pgtest.Exec(t, k.url, `DROP FUNCTION count_row_change() CASCADE; DROP TABLE row_changes`)
	for range 2 {
		if got := k.state(k.one); got != "active [*], A" {
			t.Fatal(got)
		}
		if keys, agents := k.one.KeptOfServer(); keys != 0 || agents != 0 {
			t.Errorf("%d keys and %d agents are kept, want none", keys, agents)
		}
	}
	pgtest.Exec(t, k.url, `UPDATE credentials SET revoked_at = 1`)
	if got := k.state(k.one); got != "ended [*], A" {
		t.Error(got)
	}
	pgtest.Exec(t, k.url, `UPDATE credentials SET revoked_at = 0`)
	again := openURL(t, k.url, hasty())
	k.one, k.other = again, again
	k.keep()
	pgtest.Exec(t, k.url, `UPDATE credentials SET revoked_at = 1`)
	if got := k.state(again); got != "ended [*], A" {
		t.Error(got)
	}
}

// TestKeptRowsUnderRevocations has many ask one store for credentials, again and
// again, so that it keeps them, while another revokes them: who asks after a
// revocation was acknowledged does not find it.
func TestKeptRowsUnderRevocations(t *testing.T) {
	t.Parallel()
	k := newKeptOnServer(t)
	const keys = 100
	ids := make([]int64, keys)
	k.tx(k.one, func(tx *store.Tx) error {
		for i := range ids {
			c, err := tx.Issue(store.Credential{AgentID: k.agent.ID, Kind: "many", Hash: digestOf(100 + i)}, 0)
			if err != nil {
				return err
			}
			ids[i] = c.ID
		}
		return nil
	})
	var ended atomic.Int64 // those below are
	var readers, writers sync.WaitGroup
	done := make(chan struct{})
	for r := range 16 {
		readers.Go(func() {
			for i := r; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				// Those that are next, so that they are kept when they end.
				at := ended.Load()
				key := int((at + int64(i%8) - 4 + keys) % keys)
				gone := int64(key) < at
				_, err := k.other.Authenticate(t.Context(), "p", digestOf(100+key))
				if gone && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("key %d was revoked before: got error %v", key, err)
					return
				}
			}
		})
	}
	writers.Go(func() { // what has nothing to do with them
		for {
			select {
			case <-done:
				return
			default:
				if err := k.other.TxEach(t.Context(), func(tx *store.Tx) error { return tx.Touch(k.key.ID, time.Now()) }); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i, id := range ids {
		k.tx(k.one, func(tx *store.Tx) error { _, err := tx.Revoke(id); return err })
		ended.Store(int64(i + 1))
	}
	close(done)
	readers.Wait()
	writers.Wait()
}
