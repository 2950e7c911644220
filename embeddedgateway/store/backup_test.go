package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// aMark is what tells a database from others in these tests.
const aMark = "mark"

// restore restores a backup whose mark is good.
func restore(t *testing.T, from, path string, asItWas bool) (store.Restored, error) {
	t.Helper()
	return store.Restore(t.Context(), store.Restoring{
		From: from, Path: path, Mark: aMark, AsItWas: asItWas, Now: time.Now,
		Verify: func([]byte) error { return nil },
	})
}

// marked makes a database with a mark and agents in it.
func marked(t *testing.T, path string, agents ...string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, func(tx *store.Tx) error {
		return tx.Seal(store.Sealed{Kind: aMark, Name: "x", Data: []byte(path)})
	})
	for _, name := range agents {
		write(t, s, func(tx *store.Tx) error { return registerAgent(tx, name) })
	}
	return s
}

func write(t *testing.T, s *store.Store, fn func(*store.Tx) error) {
	t.Helper()
	if err := s.Tx(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func shut(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// works reports whether the key of an agent authenticates.
func works(t *testing.T, path, name string) bool {
	t.Helper()
	s, err := store.Open(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	_, err = s.Authenticate(t.Context(), "test", digest(name))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// within lists the files of a folder.
func within(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return strings.Join(names, " ")
}

// TestBackupIsAConsistentCut: while eight goroutines register, each in one
// transaction an agent, its key and an event, a backup has all three or none,
// and everything that was acknowledged before it began.
func TestBackupIsAConsistentCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.db")
	s := open(t, path, time.Now)
	var acknowledged, writers sync.WaitGroup
	var stop atomic.Bool
	var first [8]atomic.Int64 // how many of each writer's agents are acknowledged
	for w := range first {
		acknowledged.Add(1)
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				err := s.Tx(context.Background(), func(tx *store.Tx) error { return registerAgent(tx, fmt.Sprintf("agent-%d-%d", w, i)) })
				if err != nil {
					t.Errorf("register: %v", err)
				}
				first[w].Add(1)
				if i == 20 || err != nil && i < 20 {
					acknowledged.Done()
				}
			}
		})
	}
	acknowledged.Wait()
	for round := range 3 {
		var before [len(first)]int64
		for w := range first {
			before[w] = first[w].Load()
		}
		to := filepath.Join(dir, fmt.Sprintf("backup-%d.db", round))
		has, err := store.Backup(t.Context(), path, to, false)
		if err != nil {
			t.Fatal(err)
		}
		if events := number(t, to, "SELECT count(*) FROM events"); has.Agents != has.Credentials || has.Agents != events {
			t.Errorf("got %d agents, %d credentials and %d events, want as many of each", has.Agents, has.Credentials, events)
		}
		for w, n := range before {
			for i := range n {
				q := "SELECT count(*) FROM agents WHERE name = $1"
				if i%7 == 0 && number(t, to, q, fmt.Sprintf("agent-%d-%d", w, i)) != 1 {
					t.Errorf("agent-%d-%d was acknowledged before, and is missing", w, i)
				}
			}
		}
	}
	stop.Store(true)
	writers.Wait()
	if got := within(t, dir); strings.Contains(got, ".backup") || strings.Contains(got, "backup-0.db-") {
		t.Errorf("files are left over: %s", got)
	}
}

func TestBackupIsPrivateAndReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "gateway.db"), filepath.Join(dir, "backup.db")
	s := marked(t, path, "one")
	defer shut(t, s)
	if err := os.WriteFile(to, []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Backup(t.Context(), path, to, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got error %v, want %v", err, fs.ErrExist)
	}
	has, err := store.Backup(t.Context(), path, to, true)
	if err != nil || has.Agents != 1 || has.Credentials != 1 || has.Version == 0 {
		t.Errorf("got %+v, %v", has, err)
	}
	info, err := os.Stat(to)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != 0o600 {
		t.Errorf("got mode %v", got)
	}
}

func TestBackupRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.db")
	shut(t, marked(t, path, "one"))
	empty, foreign := filepath.Join(dir, "empty.db"), filepath.Join(dir, "foreign.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	statement(t, foreign, "CREATE TABLE places (url TEXT)")
	ended, end := context.WithCancel(t.Context())
	end()
	for name, c := range map[string]struct {
		ctx      context.Context
		from, to string
		want     string
	}{
		"no database":        {t.Context(), filepath.Join(dir, "none.db"), "b.db", "no such file"},
		"an empty one":       {t.Context(), empty, "b.db", "no database of a gateway"},
		"another program's":  {t.Context(), foreign, "b.db", "no database of a gateway"},
		"itself":             {t.Context(), path, "gateway.db", "the database itself"},
		"no folder":          {t.Context(), path, "no/b.db", "the folder of the backup, " + filepath.Join(dir, "no") + ", cannot be written"},
		"nobody waits for":   {ended, path, "b.db", "canceled"},
		"a folder as a file": {t.Context(), path, ".", "is a folder: name a file in it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.Backup(c.ctx, c.from, filepath.Join(dir, c.to), true)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
			if got := within(t, dir); strings.Contains(got, "b.db") || strings.Contains(got, " .") || strings.HasPrefix(got, ".") {
				t.Errorf("files are left over: %s", got)
			}
		})
	}
	if !works(t, path, "one") {
		t.Error("the database is not as it was")
	}
}

// later changes a database after its backup: everything that a restore must
// not bring back, and something that it loses.
func later(t *testing.T, s *store.Store) {
	t.Helper()
	write(t, s, func(tx *store.Tx) error {
		for _, name := range []string{"revoked", "suspended"} {
			a, err := tx.Agent("test", name)
			if err != nil {
				return err
			}
			if name == "suspended" {
				_, err = tx.Exec("UPDATE agents SET disabled_at = 5 WHERE id = $1", a.ID)
			} else {
				_, err = tx.Exec("UPDATE credentials SET revoked_at = 5 WHERE agent_id = $1", a.ID)
			}
			if err != nil {
				return err
			}
		}
		if _, err := tx.Redeem("test", "invite", digest("used"), ""); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE tickets SET tries = 4 WHERE hash = $1", hashed("open")); err != nil {
			return err
		}
		if err := tx.DropTicket("test", "invite", digest("replaced")); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM credentials WHERE agent_name = 'deleted'"); err != nil {
			return err
		}
		return registerAgent(tx, "issued")
	})
}

func hashed(name string) []byte {
	sum := digest(name)
	return sum[:]
}

// backedUp makes a database, backs it up, and changes it.
func backedUp(t *testing.T) (path, backup string) {
	t.Helper()
	dir := t.TempDir()
	path, backup = filepath.Join(dir, "gateway.db"), filepath.Join(dir, "backup.db")
	s := marked(t, path, "kept", "revoked", "suspended", "deleted")
	write(t, s, func(tx *store.Tx) error {
		var err error
		for _, name := range []string{"used", "open", "replaced"} {
			err = errors.Join(err, tx.OpenTicket(store.Ticket{Protocol: "test", Kind: "invite", Hash: digest(name)}, false))
		}
		return err
	})
	if _, err := store.Backup(t.Context(), path, backup, false); err != nil {
		t.Fatal(err)
	}
	later(t, s)
	shut(t, s)
	return path, backup
}

// TestRestoreKeepsTokensEnded: those that were ended since by counting on.
func TestRestoreKeepsTokensEnded(t *testing.T) {
	path, backup := backedUp(t)
	statement(t, path, "UPDATE agents SET tokens_ended = 9 WHERE name = 'kept'")
	statement(t, backup, "UPDATE agents SET tokens_ended = 5 WHERE name IN ('kept', 'revoked')")
	if _, err := restore(t, backup, path, false); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"kept": 9, "revoked": 5, "suspended": 0} {
		if got := number(t, path, "SELECT tokens_ended FROM agents WHERE name = $1", name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

// redeemable returns the tickets that can still be redeemed, after a look at
// how many guesses count.
func redeemable(t *testing.T, path string) string {
	t.Helper()
	s, err := store.Open(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	var can []string
	for _, name := range []string{"used", "open", "replaced"} {
		k, err := s.Ticket(t.Context(), "test", "invite", digest(name))
		if err == nil && k.UsedAt.IsZero() {
			can = append(can, fmt.Sprintf("%s:%d", name, k.Tries))
		}
	}
	return strings.Join(can, " ")
}

func TestRestoreKeepsEndedWhatWasEnded(t *testing.T) {
	for name, c := range map[string]struct {
		asItWas bool
		revoked bool // the revoked key works again
		tickets string
	}{
		"by itself": {false, false, "open:4"},
		"as it was": {true, true, "used:0 open:0 replaced:0"},
	} {
		t.Run(name, func(t *testing.T) {
			path, backup := backedUp(t)
			before, err := os.ReadFile(backup)
			if err != nil {
				t.Fatal(err)
			}
			done, err := restore(t, backup, path, c.asItWas)
			if err != nil {
				t.Fatal(err)
			}
			want := store.Restored{
				Contents: done.Contents, Aside: done.Aside, Compared: true,
				KeysRevoked: 1, AgentsSuspended: 1, TicketsUsed: 2, KeysLost: 1, KeysBack: 1,
			}
			if done != want || done.Agents != 4 || done.Credentials != 4 {
				t.Errorf("got %+v, want %+v", done, want)
			}
			for name, want := range map[string]bool{"kept": true, "revoked": c.revoked, "deleted": true, "issued": false} {
				if got := works(t, path, name); got != want {
					t.Errorf("the key of %s works: got %t, want %t", name, got, want)
				}
			}
			if got := redeemable(t, path); got != c.tickets {
				t.Errorf("tickets: got %q, want %q", got, c.tickets)
			}
			suspended := number(t, path, "SELECT count(*) FROM agents WHERE disabled_at <> 0")
			if (suspended == 1) == c.asItWas {
				t.Errorf("suspended: got %d", suspended)
			}
			// The backup is as it was, and so is what was there before.
			if after, err := os.ReadFile(backup); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the backup was changed: %v", err)
			}
			if !works(t, done.Aside, "issued") || works(t, done.Aside, "revoked") {
				t.Error("the previous database is not as it was")
			}
			if got := within(t, filepath.Dir(path)); strings.Contains(got, ".restore-") {
				t.Errorf("files are left over: %s", got)
			}
		})
	}
}

// TestRestoreClearsUpAfterOneThatWasKilled leaves what belongs to others.
func TestRestoreClearsUpAfterOneThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	path, from := filepath.Join(dir, "gateway.db"), filepath.Join(dir, "backup.db")
	shut(t, marked(t, path, "one"))
	if _, err := store.Backup(t.Context(), path, from, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".gateway.db.restore-1", ".gateway.db.restore-1-wal", ".other.db.restore-2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := restore(t, from, path, false); err != nil {
		t.Fatal(err)
	}
	if got := within(t, dir); strings.Contains(got, ".gateway.db.restore-") || !strings.Contains(got, ".other.db.restore-2") {
		t.Errorf("there is %s", got)
	}
}

func TestRestoreWithoutAPreviousStateToCompareWith(t *testing.T) {
	spoil := func(t *testing.T, path string) {
		if err := os.WriteFile(path, bytes.Repeat([]byte("damaged\n"), 4000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(t *testing.T, path string){
		"none": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": spoil,
		"damaged, with a log": func(t *testing.T, path string) {
			spoil(t, path)
			spoil(t, path+"-wal")
			spoil(t, path+"-shm")
		},
		"another gateway's": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			s := marked(t, path, "kept")
			write(t, s, func(tx *store.Tx) error {
				_, err := tx.Exec("UPDATE credentials SET revoked_at = 5")
				if err == nil {
					_, err = tx.Exec("UPDATE sealed SET data = $1", []byte("another"))
				}
				return err
			})
			shut(t, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, backup := backedUp(t)
			prepare(t, path)
			was, _ := os.ReadFile(path)
			done, err := restore(t, backup, path, false)
			if err != nil || done.Compared || (done.Aside == "") != (name == "none") {
				t.Fatalf("got %+v, %v", done, err)
			}
			if !works(t, path, "kept") || !works(t, path, "revoked") {
				t.Error("the backup was not restored as it was")
			}
			if done.Aside == "" {
				return
			}
			if aside, err := os.ReadFile(done.Aside); err != nil || strings.HasPrefix(name, "damaged") && !bytes.Equal(aside, was) {
				t.Errorf("the previous database is not as it was: %v", err)
			}
		})
	}
}

func TestRestoreRefuses(t *testing.T) {
	refuse := errors.New("not this one")
	for name, c := range map[string]struct {
		prepare func(t *testing.T, path, backup string)
		want    string
	}{
		"while a store is open": {func(t *testing.T, path, _ string) { open(t, path, time.Now) }, store.ErrInUse.Error()},
		"while a version that does not know of the lock has it open": {func(t *testing.T, path, _ string) {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			for _, q := range []string{"PRAGMA journal_mode = WAL", "UPDATE agents SET seq = seq"} {
				if _, err := db.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
		}, store.ErrInUse.Error()},
		"a backup with another mark": {func(t *testing.T, _, backup string) {
			statement(t, backup, "UPDATE sealed SET data = $1", []byte("another"))
		}, refuse.Error()},
		"a newer one": {func(t *testing.T, _, backup string) {
			statement(t, backup, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
		}, "newer version of Enlist"},
		"another program's": {func(t *testing.T, _, backup string) {
			statement(t, backup, "PRAGMA application_id = 5")
		}, "no database of a gateway"},
		"one cut short": {func(t *testing.T, _, backup string) {
			if err := os.Truncate(backup, 40_000); err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
		"one with a page of nonsense": {func(t *testing.T, _, backup string) {
			f, err := os.OpenFile(backup, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, 4096), 2*4096); err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
		"one that is open": {func(t *testing.T, _, backup string) {
			s := open(t, backup, time.Now)
			write(t, s, func(tx *store.Tx) error { return registerAgent(tx, "more") })
		}, "no backup"},
		"none": {func(t *testing.T, _, backup string) { _ = os.Remove(backup) }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path, backup := backedUp(t)
			c.prepare(t, path, backup)
			_, err := store.Restore(t.Context(), store.Restoring{
				From: backup, Path: path, Mark: aMark, Now: time.Now,
				Verify: func(mark []byte) error {
					if string(mark) != path {
						return refuse
					}
					return nil
				},
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
			if got := within(t, filepath.Dir(path)); strings.Contains(got, "restore-") {
				t.Errorf("files are left over: %s", got)
			}
			if number(t, path, "SELECT count(*) FROM agents WHERE name = 'issued'") != 1 {
				t.Error("the database is not as it was")
			}
		})
	}
	path, _ := backedUp(t)
	if _, err := restore(t, path, path, false); err == nil || !strings.Contains(err.Error(), "the database itself") {
		t.Errorf("itself: got error %v", err)
	}
}

// TestOpenWaitsForARestore: what is put in the place of a database is never
// opened half there.
func TestOpenWaitsForARestore(t *testing.T) {
	path, backup := backedUp(t)
	opened := make(chan error, 1)
	_, err := store.Restore(t.Context(), store.Restoring{
		From: backup, Path: path, Mark: aMark, Now: time.Now,
		Verify: func([]byte) error {
			go func() {
				s, err := store.Open(context.Background(), options(path))
				if err == nil {
					_, err = s.Authenticate(context.Background(), "test", digest("issued"))
					if errors.Is(err, store.ErrNotFound) {
						err = nil
					} else {
						err = fmt.Errorf("the previous database was opened: %w", err)
					}
					err = errors.Join(err, s.Close())
				}
				opened <- err
			}()
			return nil
		},
	})
	if err := errors.Join(err, <-opened); err != nil {
		t.Error(err)
	}
}
