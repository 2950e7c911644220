//go:build unix

package store_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// kept is a store, another one on the same file, as another process has it, and a
// connection such as a shell's. Each has the agent "a" with the credential "k" in
// mind.
type kept struct {
	t            *testing.T
	store, other *store.Store
	shell        *sql.DB
	agent        store.Agent
	key          store.Credential
}

func newKept(t *testing.T) *kept {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.db")
	k := &kept{t: t, store: open(t, path, time.Now)}
	var err error
	if k.shell, err = sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.shell.Close(); err != nil {
			t.Error(err)
		}
	})
	k.other = open(t, path, time.Now)
	k.agent, k.key = enrolled(t, k.store, "a")
	k.look(k.store)
	k.look(k.other)
	return k
}

// enrolled stores an agent with a credential of the same name.
func enrolled(t *testing.T, s *store.Store, name string) (a store.Agent, c store.Credential) {
	t.Helper()
	err := s.Tx(t.Context(), func(tx *store.Tx) (err error) {
		a, _, err = tx.EnsureAgent(store.Agent{Protocol: "p", Name: name, Attrs: map[string]string{"n": "1"}})
		if err != nil {
			return err
		}
		c, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: name, Hash: sha256.Sum256([]byte(name)), Scopes: []string{"read"}}, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

// state is what a store says of the agent and the credential, in the three ways of
// asking.
func (k *kept) state(s *store.Store) string {
	k.t.Helper()
	say := func(revoked time.Time, err error) string {
		switch {
		case errors.Is(err, store.ErrNotFound):
			return "gone"
		case err != nil:
			k.t.Fatal(err)
		case !revoked.IsZero():
			return "ended"
		}
		return "active"
	}
	ctx := context.Background()
	byHash, err := s.Credential(ctx, "p", k.key.Hash)
	hash := say(byHash.RevokedAt, err)
	byID, err := s.CredentialByID(ctx, k.agent.ID, "token", k.key.KeyID)
	id := say(byID.RevokedAt, err)
	agent, err := s.Agent(ctx, "p", "a")
	return fmt.Sprintf("hash %s, id %s, agent %s %s %d", hash, id, say(agent.DisabledAt, err), agent.Attrs["n"], agent.TokensEnded)
}

// look makes a store keep the rows.
func (k *kept) look(s *store.Store) {
	k.t.Helper()
	k.state(s)
	if a, b, c := s.Kept(); a != 1 || b != 1 || c != 1 {
		k.t.Fatalf("after a look %d, %d and %d rows are kept, want one of each", a, b, c)
	}
}

const (
	stateActive  = "hash active, id active, agent active 1 0"
	stateRevoked = "hash ended, id ended, agent active 1 0"
)

// TestWhatIsKeptIsWhatIsThere: whoever changes a row, by whatever statement, the
// next look at any store sees it.
func TestWhatIsKeptIsWhatIsThere(t *testing.T) {
	changes := map[string]struct {
		do   func(k *kept, tx *store.Tx) error
		sql  string
		want string
	}{
		"revoke": {
			func(k *kept, tx *store.Tx) error { _, err := tx.Revoke(k.key.ID); return err },
			`UPDATE credentials SET revoked_at = 1`, stateRevoked,
		},
		"revoke all": {
			func(k *kept, tx *store.Tx) error { _, err := tx.RevokeAll(k.agent.ID, "token"); return err },
			`UPDATE credentials SET revoked_at = 1 WHERE agent_id > 0`, stateRevoked,
		},
		"suspend": {
			func(k *kept, tx *store.Tx) error { _, err := tx.Suspend(k.agent.ID); return err },
			`UPDATE agents SET disabled_at = 1; UPDATE credentials SET revoked_at = 1`, "hash ended, id ended, agent ended 1 0",
		},
		"delete": {
			func(k *kept, tx *store.Tx) error { return tx.DeleteAgent(k.agent.ID) },
			`DELETE FROM credentials; DELETE FROM agents`, "hash gone, id gone, agent gone  0",
		},
		"end tokens": {
			func(k *kept, tx *store.Tx) error { return tx.EndTokens(k.agent.ID) },
			`UPDATE agents SET tokens_ended = 1`, "hash active, id active, agent active 1 1",
		},
		"change": {
			func(_ *kept, tx *store.Tx) error {
				_, _, err := tx.EnsureAgent(store.Agent{Protocol: "p", Name: "a", Attrs: map[string]string{"n": "2"}})
				return err
			},
			`UPDATE agents SET attrs = '{"n":"2"}'`, "hash active, id active, agent active 2 0",
		},
	}
	for name, c := range changes {
		for who, change := range map[string]func(*kept) error{
			"itself": func(k *kept) error { return k.store.Tx(t.Context(), func(tx *store.Tx) error { return c.do(k, tx) }) },
			"each": func(k *kept) error {
				return k.store.TxEach(t.Context(), func(tx *store.Tx) error { return c.do(k, tx) })
			},
			"other":    func(k *kept) error { return k.other.Tx(t.Context(), func(tx *store.Tx) error { return c.do(k, tx) }) },
			"somebody": func(k *kept) error { _, err := k.shell.Exec(c.sql); return err },
			"and a note": func(k *kept) error {
				return errors.Join(k.store.Tx(t.Context(), func(tx *store.Tx) error { return c.do(k, tx) }), k.note())
			},
		} {
			if name != "revoke" && (who == "each" || who == "and a note") {
				continue // these differ in the writer only
			}
			t.Run(name+" by "+who, func(t *testing.T) {
				k := newKept(t)
				if err := change(k); err != nil {
					t.Fatal(err)
				}
				for i, s := range []*store.Store{k.store, k.other, k.store, k.other} {
					if got := k.state(s); got != c.want {
						t.Errorf("look %d: %s, want %s", i+1, got, c.want)
					}
				}
			})
		}
	}
}

// note writes something that has nothing to do with what is kept.
func (k *kept) note() error {
	return k.store.Tx(context.Background(), func(tx *store.Tx) error { return note(tx, "something else") })
}

// TestWhatIsKeptStays: rows stay when our own writer writes others, and when it
// undoes what it did to them; and go when somebody else writes.
func TestWhatIsKeptStays(t *testing.T) {
	k := newKept(t)
	undone := errors.New("undone")
	used := time.UnixMicro(1_800_000_000_123_456).UTC()
	touch := func(s *store.Store, at time.Time, end error) {
		t.Helper()
		err := s.Tx(t.Context(), func(tx *store.Tx) error { return errors.Join(tx.Touch(k.key.ID, at), end) })
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	touch(k.store, used, nil)
	if c, err := k.store.Credential(t.Context(), "p", k.key.Hash); err != nil || !c.LastUsedAt.Equal(used) {
		t.Errorf("the credential was used last at %v (%v), want %v", c.LastUsedAt, err, used)
	}
	if err := k.note(); err != nil {
		t.Fatal(err)
	}
	enrolled(t, k.store, "b")
	if a, b, c := k.store.Kept(); a != 1 || b != 1 || c != 1 {
		t.Errorf("after writes to other rows %d, %d and %d are kept, want one of each", a, b, c)
	}
	err := k.store.Tx(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Revoke(k.key.ID); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	if got := k.state(k.store); got != stateActive {
		t.Errorf("after a revocation that was undone: %s, want %s", got, stateActive)
	}
	touch(k.store, used.Add(time.Hour), undone)
	touch(k.store, used.Add(-time.Hour), nil)
	for range 2 {
		if c, err := k.store.Credential(t.Context(), "p", k.key.Hash); err != nil || !c.LastUsedAt.Equal(used) {
			t.Errorf("after uses that were undone, or earlier, the credential was used last at %v (%v), want %v", c.LastUsedAt, err, used)
		}
	}
	if err := k.other.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "of another process") }); err != nil {
		t.Fatal(err)
	}
	if _, err := k.store.Agent(t.Context(), "p", "a"); err != nil {
		t.Fatal(err)
	}
	if a, b, c := k.store.Kept(); a != 0 || b != 0 || c != 1 {
		t.Errorf("after somebody else has written, and a look at the agent, %d, %d and %d rows are kept, want the agent's only", a, b, c)
	}
}

// TestWhatIsKeptIsNobodysToChange: what one caller does with a row, the next one
// does not see.
func TestWhatIsKeptIsNobodysToChange(t *testing.T) {
	k := newKept(t)
	c, err := k.store.Credential(t.Context(), "p", k.key.Hash)
	if err != nil {
		t.Fatal(err)
	}
	c.Scopes[0] = "write"
	a, err := k.store.Agent(t.Context(), "p", "a")
	if err != nil {
		t.Fatal(err)
	}
	a.Attrs["n"] = "9"
	if c, err = k.store.Credential(t.Context(), "p", k.key.Hash); err != nil || c.Scopes[0] != "read" {
		t.Errorf("the next caller gets the scopes %q (%v), want read", c.Scopes, err)
	}
	if a, err = k.store.Agent(t.Context(), "p", "a"); err != nil || a.Attrs["n"] != "1" {
		t.Errorf("the next caller gets the attributes %v (%v), want those that were stored", a.Attrs, err)
	}
}

// TestNothingIsKeptWhenClosed: whoever is about to look at what is kept, while the
// store is closed, is told so. What they would have looked at is not there any more.
func TestNothingIsKeptWhenClosed(t *testing.T) {
	k := newKept(t)
	for _, s := range []*store.Store{k.store, k.other} { // the second is the last that has the file open
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.AskedBefore("p", k.key.Hash); !errors.Is(err, store.ErrClosed) {
			t.Errorf("a store that was closed: %v, want ErrClosed", err)
		}
	}
}

// TestWhatIsKeptIsBounded: more rows than may be kept are read, and no more kept.
func TestWhatIsKeptIsBounded(t *testing.T) {
	s := fresh(t)
	const limit, n = 100, 1000
	s.KeepAtMost(limit)
	hash := func(i int) [32]byte { return sha256.Sum256(fmt.Append(nil, i)) }
	a, _ := enrolled(t, s, "a")
	err := s.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if _, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "many", Hash: hash(i)}, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := s.Authenticate(t.Context(), "p", hash(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, _ := s.Kept(); got > limit || got < limit/2 {
		t.Errorf("%d rows are kept, want at most %d and at least half of them", got, limit)
	}
	if _, err := s.Authenticate(t.Context(), "p", hash(0)); err != nil {
		t.Error(err)
	}
}

// TestRevokedIsNeverKept: while readers keep asking two stores for credentials,
// these end one by one, in either store or by somebody else. When the end of one
// was acknowledged nobody finds it any more.
func TestRevokedIsNeverKept(t *testing.T) {
	const keys, readers = 120, 2
	k := newKept(t)
	var all []store.Credential
	err := k.store.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range keys {
			c, err := tx.Issue(store.Credential{AgentID: k.agent.ID, Kind: "many", Hash: sha256.Sum256(fmt.Append(nil, i))}, 0)
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stores := []*store.Store{k.store, k.other}
	var ended atomic.Int64 // of all, those before it are
	var asked sync.WaitGroup
	for n := range readers {
		asked.Go(func() {
			for i := n; ; i++ {
				before := ended.Load()
				if before == keys {
					return
				}
				// Those that are about to end most of all, and those that just have.
				at := min(keys-1, max(0, int(before)-2+i%5))
				_, err := stores[i%2].Authenticate(context.Background(), "p", all[at].Hash)
				switch {
				case int64(at) < before && !errors.Is(err, store.ErrNotFound):
					t.Errorf("credential %d is found (%v) after its end was acknowledged", at, err)
					return
				case err != nil && !errors.Is(err, store.ErrNotFound):
					t.Error(err)
					return
				}
			}
		})
	}
	for i, c := range all {
		var err error
		switch i % 3 {
		case 0, 1:
			err = stores[i%3].Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.Revoke(c.ID); return err })
		case 2:
			_, err = k.shell.Exec(`UPDATE credentials SET revoked_at = 1 WHERE id = ?`, c.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		ended.Store(int64(i) + 1)
		for _, s := range stores {
			if _, err := s.Authenticate(t.Context(), "p", c.Hash); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("credential %d is found (%v) after its end", i, err)
			}
		}
	}
	ended.Store(keys)
	asked.Wait()
}

// A writer that is busy pauses for other ones once one of them has written, not for
// itself.
func TestAWriterPausesForOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	s, other := open(t, path, time.Now), open(t, path, time.Now)
	pauses := func(name string) (n int) {
		t.Helper()
		err := s.Tx(t.Context(), func(tx *store.Tx) error {
			n = tx.Pauses()
			return registerAgent(tx, name)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for n := range 5 {
		if n := pauses(fmt.Sprint("alone-", n)); n != 0 {
			t.Fatalf("%d pauses for nobody", n)
		}
	}
	if err := other.Tx(t.Context(), func(tx *store.Tx) error { return registerAgent(tx, "other") }); err != nil {
		t.Fatal(err)
	}
	if pauses("beside") == 0 {
		t.Error("no pause for who has written")
	}
}
