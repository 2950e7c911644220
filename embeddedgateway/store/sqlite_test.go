package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/storetest"
)

// openOn opens a store and closes it with the test.
func openOn(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s := opened(t, o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// open opens a store on a file.
func open(t testing.TB, path string, now func() time.Time) *store.Store {
	t.Helper()
	return openOn(t, store.Options{Path: path, Now: now})
}

func fresh(t testing.TB) *store.Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "gateway.db"), time.Now)
}

func TestSQLite(t *testing.T) {
	// A copy of an empty database is opened faster than one is made.
	path := filepath.Join(t.TempDir(), "empty.db")
	s, err := store.Open(t.Context(), store.Options{Path: path, Now: time.Now})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	empty, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, func(t *testing.T, now func() time.Time) *store.Store {
		path := filepath.Join(t.TempDir(), "gateway.db")
		if err := os.WriteFile(path, empty, 0o600); err != nil {
			t.Fatal(err)
		}
		return open(t, path, now)
	})
}

func note(tx *store.Tx, name string) error {
	return tx.Audit(store.Event{Protocol: "test", Name: name})
}

// names returns the names of all events, the oldest first.
func names(t testing.TB, s *store.Store) string {
	t.Helper()
	events, err := s.Events(context.Background(), store.EventQuery{Limit: 1 << 20})
	if err != nil {
		t.Fatalf("Events: %v", err)
	}
	var all []string
	for _, e := range events {
		all = append([]string{e.Name}, all...)
	}
	return strings.Join(all, " ")
}

// held is a Tx that has its turn and keeps it until it is released.
type held struct {
	release func()
	result  <-chan error
}

// hold begins a Tx on s, on which there is none, and returns when it has its turn.
func hold(t *testing.T, s *store.Store, fn func(*store.Tx) error) held {
	t.Helper()
	s.Patient(time.Minute) // who is queued meanwhile is to be in the same batch
	began, let, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		result <- s.Tx(context.Background(), func(tx *store.Tx) error {
			close(began)
			<-let
			return fn(tx)
		})
	}()
	<-began
	release := sync.OnceFunc(func() { close(let) })
	t.Cleanup(release)
	return held{release, result}
}

// queue begins a Tx on s, which is held, and returns when it waits.
func queue(ctx context.Context, s *store.Store, fn func(*store.Tx) error) <-chan error {
	before, result := s.Waiting(), make(chan error, 1)
	go func() { result <- s.Tx(ctx, fn) }()
	for s.Waiting() == before {
		runtime.Gosched()
	}
	return result
}

func TestBatchIsAcknowledgedAfterItsCommit(t *testing.T) {
	s := fresh(t)
	first := hold(t, s, func(tx *store.Tx) error { return note(tx, "first") })
	second := queue(t.Context(), s, func(tx *store.Tx) error {
		// The first has had its turn, and is part of the same transaction.
		if got := names(t, s); got != "" {
			t.Errorf("seen before the commit: %q", got)
		}
		select {
		case err := <-first.result:
			t.Errorf("acknowledged before the commit: %v", err)
		default:
		}
		return note(tx, "second")
	})
	first.release()
	if err := errors.Join(<-first.result, <-second); err != nil {
		t.Errorf("got error %v", err)
	}
	if got, want := names(t, s), "first second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWaitingTxWithdrawsWhenItsContextEnds(t *testing.T) {
	s := fresh(t)
	first := hold(t, s, func(tx *store.Tx) error { return note(tx, "first") })
	ctx, cancel := context.WithCancel(t.Context())
	second := queue(ctx, s, func(tx *store.Tx) error { return note(tx, "second") })
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) { // while the first is held
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	first.release()
	if err := <-first.result; err != nil {
		t.Errorf("first: got error %v", err)
	}
	if got, want := names(t, s), "first"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailedStatementUndoesItsPartOnly(t *testing.T) {
	s := fresh(t)
	first := hold(t, s, func(tx *store.Tx) error { return note(tx, "first") })
	second := queue(t.Context(), s, func(tx *store.Tx) error {
		if err := note(tx, "second"); err != nil {
			return err
		}
		_, _ = tx.Exec("INSERT INTO events (id) VALUES (NULL)") // NOT NULL constraint failed
		_ = note(tx, "second")
		return nil
	})
	third := queue(t.Context(), s, func(tx *store.Tx) error { return note(tx, "third") })
	first.release()
	if err := errors.Join(<-first.result, <-third); err != nil {
		t.Errorf("others: got error %v", err)
	}
	if err := <-second; err == nil || !strings.Contains(err.Error(), "NOT NULL") {
		t.Errorf("failed one: got error %v", err)
	}
	if got, want := names(t, s), "first third"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCloseCommitsWhatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := open(t, path, time.Now)
	first := hold(t, s, func(tx *store.Tx) error { return note(tx, "first") })
	second := queue(t.Context(), s, func(tx *store.Tx) error { return note(tx, "second") })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	first.release()
	if err := errors.Join(<-first.result, <-second, <-closed); err != nil {
		t.Errorf("got error %v", err)
	}
	if got, want := names(t, open(t, path, time.Now)), "first second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// limitPages makes the disk full, as far as SQLite can tell, when the database
// has so many pages more.
func limitPages(t *testing.T, s *store.Store, more int) {
	t.Helper()
	var pages int
	if err := s.Writer().QueryRowContext(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if err := s.Writer().QueryRowContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count(%d)", pages+more)).Scan(&pages); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskLosesTheBatchAndNoOther(t *testing.T) {
	s := fresh(t)
	limitPages(t, s, 16)
	large := strings.Repeat("x", 1<<20)
	first := hold(t, s, func(tx *store.Tx) error { return note(tx, "first") })
	second := queue(t.Context(), s, func(tx *store.Tx) error {
		_ = tx.OpenTicket(store.Ticket{Data: map[string]string{"large": large}}, false)
		_ = tx.OpenTicket(store.Ticket{Kind: "second"}, false) // must not be written outside of any transaction
		return note(tx, "second")
	})
	third := queue(t.Context(), s, func(tx *store.Tx) error { return note(tx, "third") })
	first.release()
	for name, result := range map[string]<-chan error{"first": first.result, "second": second} {
		err := <-result
		if err == nil || !strings.Contains(err.Error(), "the disk is full; free some space") {
			t.Errorf("%s: got error %v, want that the disk is full", name, err)
		}
		if strings.Contains(fmt.Sprint(err), "xxx") {
			t.Errorf("%s: the error has the arguments", name)
		}
	}
	if err := <-third; err != nil {
		t.Errorf("third, of the next batch: got error %v", err)
	}
	if got, want := names(t, s), "third"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := s.Ticket(t.Context(), "", "second", [32]byte{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what came behind the failure: got error %v, want that there is none", err)
	}
	limitPages(t, s, 1<<20)
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "later") }); err != nil {
		t.Errorf("with space again: got error %v", err)
	}
}

func TestFullDiskAcknowledgesNothingThatIsLost(t *testing.T) {
	s := fresh(t)
	limitPages(t, s, 64)
	const n = 64
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			errs[i] = s.Tx(t.Context(), func(tx *store.Tx) error {
				return note(tx, fmt.Sprintf("<%d>%s", i, strings.Repeat("x", 1<<14)))
			})
		})
	}
	wg.Wait()
	all, full := names(t, s), 0
	for i, err := range errs {
		if there := strings.Contains(all, fmt.Sprintf("<%d>", i)); there != (err == nil) {
			t.Errorf("%d: there: %v, error: %v", i, there, err)
		}
		if err != nil {
			full++
		}
	}
	if full == 0 {
		t.Error("the disk never was full")
	}
}

func TestBusyDatabaseIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := open(t, path, time.Now)
	s.Hurry(2 * time.Millisecond)
	other := open(t, path, time.Now)
	keeps := hold(t, other, func(tx *store.Tx) error { return note(tx, "other") })
	err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "busy") })
	if err == nil || !strings.Contains(err.Error(), "another process kept the database busy") {
		t.Errorf("got error %v, want that it is busy", err)
	}
	keeps.release()
	if err := <-keeps.result; err != nil {
		t.Errorf("the other: got error %v", err)
	}
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "later") }); err != nil {
		t.Errorf("later: got error %v", err)
	}
	if got, want := names(t, s), "other later"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogIsMovedIntoTheDatabaseAndBeginsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := open(t, path, time.Now)
	write := func(name string) {
		if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, name) }); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		write(strings.Repeat("x", 2<<20))
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// It takes a moment; if it does not happen, the test does not end.
	for pages := 2000; pages >= 1000; {
		write("x")
		var busy, moved int
		if err := db.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &pages, &moved); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() < 3<<20 { // the rest is in the new log
		t.Errorf("database: got %d bytes, %v, want most of the 6 MiB that were written", info.Size(), err)
	}
}

func TestSettings(t *testing.T) {
	s := fresh(t)
	sync := "2" // FULL
	if s.Sync(func(sync func() error) error { return sync() }) {
		sync = "1" // NORMAL: see TestNobodyIsToldBeforeTheDiskHasIt
	}
	type querier interface {
		QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
	}
	for _, c := range []struct {
		name string
		db   querier
		want map[string]string
	}{
		{"writer", s.Writer(), map[string]string{
			"journal_mode":       "wal",
			"synchronous":        sync,
			"fullfsync":          "1",
			"foreign_keys":       "1",
			"wal_autocheckpoint": "0",
			"cache_size":         "-8192",
		}},
		{"reader", s.Reader(), map[string]string{"query_only": "1", "mmap_size": "268435456"}},
	} {
		for name, want := range c.want {
			var got string
			if err := c.db.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&got); err != nil || got != want {
				t.Errorf("%s: %s: got %q, %v, want %q", c.name, name, got, err, want)
			}
		}
		var got string
		if err := c.db.QueryRowContext(t.Context(), `SELECT "not a column"`).Scan(&got); err == nil {
			t.Errorf("%s: a misspelt column was taken for a text", c.name)
		}
	}
}

func TestOpenMigratesAndIsSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space ?&#%41.db")
	var log bytes.Buffer
	for _, want := range []string{`msg="database migrated" from=0 to=` + newestMigration(t), ""} {
		log.Reset()
		o := store.Options{Path: path, Now: time.Now, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if got := strings.TrimSpace(log.String()); !strings.HasSuffix(got, want) || strings.Count(got, "\n") > 0 {
			t.Errorf("log: got %q, want %q", got, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("files: got %q, %v, want the database and its locks", left, err)
	}
}

// newestMigration is the number of the last one, as the folder has it.
func newestMigration(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v", files, err)
	}
	number, _, _ := strings.Cut(filepath.Base(slices.Max(files)), "_")
	return strings.TrimLeft(number, "0")
}

func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes; the folder's permissions are inherited")
	}
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "gateway.db"), time.Now)
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "x") }); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got&0o077 != 0 {
			t.Errorf("%s: got mode %v", f.Name(), got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	// raw opens a file without the store and runs statements.
	raw := func(t *testing.T, path string, stmts ...string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, q := range stmts {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"a newer database": {
			func(t *testing.T, path string) {
				s, err := store.Open(t.Context(), store.Options{Path: path, Now: time.Now})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				raw(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
			},
			"newer version of Enlist (its tables are at version 99, this one knows " + newestMigration(t) + ")",
		},
		"another program's database": {
			func(t *testing.T, path string) { raw(t, path, "CREATE TABLE places (url TEXT)") },
			"belongs to another program",
		},
		"a file that is no database": {
			func(t *testing.T, path string) {
				if err := os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 1000), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			"damaged or is no database",
		},
		"a folder": {
			func(t *testing.T, path string) {
				if err := os.Mkdir(path, 0o700); err != nil {
					t.Fatal(err)
				}
			},
			"is a directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "gateway.db")
			c.prepare(t, path)
			before, _ := os.ReadFile(path)
			_, err := store.Open(t.Context(), store.Options{Path: path, Now: time.Now})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got error %v, want %q and the path", err, c.want)
			}
			if after, _ := os.ReadFile(path); name != "another program's database" && !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("a folder that is not there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "no", "gateway.db")
		if _, err := store.Open(t.Context(), store.Options{Path: path, Now: time.Now}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got error %v, want %v", err, os.ErrNotExist)
		}
	})
	t.Run("no path, no clock", func(t *testing.T) {
		if _, err := store.Open(t.Context(), store.Options{Now: time.Now}); err == nil {
			t.Error("no path was accepted")
		}
		if _, err := store.Open(t.Context(), store.Options{Path: "x"}); err == nil {
			t.Error("no clock was accepted")
		}
	})
	t.Run("settings that SQLite does not take", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "gateway.db")
		if err := store.OpenPool(t.Context(), path, "jurnal_mode", "WAL", "wal"); err == nil {
			t.Error("a misspelt one was accepted")
		}
		if err := store.OpenPool(t.Context(), path, "journal_mode", "WALL", "wal"); err == nil {
			t.Error("a misspelt value was accepted")
		}
	})
}
