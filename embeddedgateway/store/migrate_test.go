package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

func options(path string) store.Options { return store.Options{Path: path, Now: time.Now} }

// states is what migrations are applied, such as "0001 0002 (0003)".
func states(list []store.Migration) string {
	var all []string
	for _, m := range list {
		form := "(%04d)"
		if m.Applied {
			form = "%04d"
		}
		all = append(all, fmt.Sprintf(form, m.Version))
	}
	return strings.Join(all, " ")
}

func TestMigrationsAreListedAndApplied(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			o := place(t, kind)
			known, err := store.Migrations(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range known {
				if m.Version != int64(i+1) || m.Name == "" || m.Applied {
					t.Errorf("migration %d of a database that is not there: got %+v", i+1, m)
				}
			}
			if _, err := os.Stat(o.Path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("listing them made the database: %v", err)
			}
			if err := store.MigrateTo(t.Context(), o, 2); err != nil {
				t.Fatal(err)
			}
			if list, err := store.Migrations(t.Context(), o); err != nil || !strings.HasPrefix(states(list), "0001 0002 (0003)") {
				t.Errorf("an old database: got %s, %v", states(list), err)
			}
			applied, err := store.Migrate(t.Context(), o)
			if err != nil || len(applied) != len(known)-2 || !strings.HasPrefix(states(applied), "0003") {
				t.Errorf("applied: got %s, %v", states(applied), err)
			}
			if applied, err = store.Migrate(t.Context(), o); err != nil || len(applied) > 0 {
				t.Errorf("applied again: got %s, %v", states(applied), err)
			}
			if list, err := store.Migrations(t.Context(), o); err != nil || strings.Contains(states(list), "(") {
				t.Errorf("afterwards: got %s, %v", states(list), err)
			}
		})
	}
}

func TestMigrateRefusesANewerDatabaseOfPostgreSQL(t *testing.T) {
	o := place(t, "postgres")
	if _, err := store.Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, o.URL, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	for what, f := range map[string]func() error{
		"Open":       func() error { _, err := store.Open(t.Context(), o); return err },
		"Migrate":    func() error { _, err := store.Migrate(t.Context(), o); return err },
		"Migrations": func() error { _, err := store.Migrations(t.Context(), o); return err },
	} {
		err := f()
		if err == nil || !strings.Contains(err.Error(), "newer version of Enlist") || strings.Contains(err.Error(), pgtest.Password()) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
}

func TestMigrateRefuses(t *testing.T) {
	dir := t.TempDir()
	newer, foreign := filepath.Join(dir, "newer.db"), filepath.Join(dir, "foreign.db")
	if _, err := store.Migrate(t.Context(), options(newer)); err != nil {
		t.Fatal(err)
	}
	statement(t, newer, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	statement(t, foreign, "CREATE TABLE places (url TEXT)")
	for path, want := range map[string]string{
		newer:   "newer version of Enlist (its tables are at version 9999",
		foreign: "no database of a gateway",
		dir:     "",
	} {
		for what, f := range map[string]func(context.Context, store.Options) ([]store.Migration, error){
			"Migrate": store.Migrate, "Migrations": store.Migrations,
		} {
			if _, err := f(t.Context(), options(path)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: got error %v, want %q and the path", what, path, err, want)
			}
		}
	}
}

// statement runs a statement on a database, without the store.
func statement(t *testing.T, path, q string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
		t.Fatal(err)
	}
}

// number runs a statement that returns one.
func number(t *testing.T, path, q string, args ...any) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), q, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestProcessesStartOnADatabaseAtOnce: each comes up, and each migration is
// applied once.
func TestProcessesStartOnADatabaseAtOnce(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		for name, version := range map[string]int64{"a new one": 0, "an old one": 1} {
			t.Run(kind+", "+name, func(t *testing.T) {
				o := place(t, kind)
				if version > 0 {
					if err := store.MigrateTo(t.Context(), o, version); err != nil {
						t.Fatal(err)
					}
				}
				startAtOnce(t, o, 5)
				list, err := store.Migrations(t.Context(), o)
				if err != nil || strings.Contains(states(list), "(") {
					t.Errorf("migrations: got %s, %v", states(list), err)
				}
				var applied int
				err = bare(t, o).QueryRowContext(t.Context(), "SELECT count(*) FROM goose_db_version WHERE version_id > 0").Scan(&applied)
				if err != nil || applied != len(list) {
					t.Errorf("applied: got %d, %v, want each of %d once", applied, err, len(list))
				}
			})
		}
	}
}

// bare opens a database without the store.
func bare(t *testing.T, o store.Options) *sql.DB {
	t.Helper()
	driver, in := "sqlite", "file:"+o.Path+"?_txlock=immediate&_pragma=busy_timeout(20000)&_pragma=foreign_keys(1)"
	if o.URL != "" {
		driver, in = "pgx", o.URL
	}
	db, err := sql.Open(driver, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	return db
}

// startAtOnce has processes open a database at the same time, and waits for
// their end.
func startAtOnce(t *testing.T, o store.Options, n int) {
	t.Helper()
	var cmds []*exec.Cmd
	var outs []io.Reader
	var begins []func()
	for range n {
		cmd, out, begin := start(t, "open", o.Path+o.URL)
		cmds, outs, begins = append(cmds, cmd), append(outs, out), append(begins, begin)
	}
	for _, begin := range begins {
		begin()
	}
	for i, cmd := range cmds {
		text, _ := io.ReadAll(outs[i])
		if err := cmd.Wait(); err != nil || len(text) > 0 {
			t.Errorf("process %d: got %v: %s", i, err, text)
		}
	}
}

// released returns the statements of the version of Enlist whose last migration
// is 0003, by their names.
func released(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "released", "0003.sql"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	_, rest, _ := strings.Cut(string(text), "\n\n")
	for part := range strings.SplitSeq(rest, "\n\n") {
		name, q, ok := strings.Cut(strings.TrimPrefix(part, "-- "), "\n")
		if !ok {
			t.Fatalf("no name before %q", part)
		}
		all[name] = q
	}
	return all
}

// writeReleased does what a gateway of that version does when an agent
// registers, uses its key and rotates it.
func writeReleased(ctx context.Context, db interface {
	ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}, say map[string]string, i int,
) error {
	name, now := fmt.Sprintf("old-%d", i), int64(1_700_000_000_000_000)
	hash := digest(name)
	var id, key, seq int64
	var ignored any
	row := db.QueryRowContext(ctx, say["ensureAgent"], "test", name, "Old", "", now)
	if err := row.Scan(&id, &ignored, &ignored, &ignored, &ignored, &ignored, &ignored, &seq); err != nil {
		return fmt.Errorf("ensureAgent: %w", err)
	}
	row = db.QueryRowContext(ctx, say["insertKey"], id, "test", name, "token", "key", hash[:], "", now, int64(0), int64(5), "")
	if err := row.Scan(&key); err != nil {
		return fmt.Errorf("insertKey: %w", err)
	}
	for _, q := range []struct {
		name string
		args []any
	}{
		{"touchKey", []any{now + 1, key}},
		{"insertTicket", []any{"test", "invite", hash[:], name, "", int64(0), now, int64(0)}},
		{"strikeTickets", []any{"test", "invite", name}},
		{"redeemTicket", []any{now, "test", "invite", hash[:], name}},
		{"lockCounter", []any{name, []byte("12345678"), now}},
		{"updateCounter", []any{[]byte("1234567812345678"), now, name}},
		{"insertEvent", []any{now, "test", "registered", name, "key", "192.0.2.1", ""}},
		{"insertRefusal", []any{now, "test", "refused", name, "key", "192.0.2.1", "", now / 60_000_000}},
		{"insertSealed", []any{"mail", name, []byte("data"), now, now, int64(0)}},
		{"takeSealed", []any{now + 1, now, "mail"}},
		{"revokeKeys", []any{now, id, "other"}},
	} {
		if _, err := db.ExecContext(ctx, say[q.name], q.args...); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	return nil
}

// TestReleasedVersionServesOnWhileANewerOneMigrates: its statements mean the
// same before, during and after.
func TestReleasedVersionServesOnWhileANewerOneMigrates(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { serveReleased(t, place(t, kind)) })
	}
}

func serveReleased(t *testing.T, o store.Options) {
	if err := store.MigrateTo(t.Context(), o, 3); err != nil {
		t.Fatal(err)
	}
	old, say := bare(t, o), released(t)
	write := func(i int) error {
		tx, err := old.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		return errors.Join(writeReleased(t.Context(), tx, say, i), tx.Commit())
	}
	const before, after = 30, 30
	warm, migrated, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	total := 0
	go func() {
		var err error
		left := after
		for i := 0; err == nil && left > 0; i++ {
			err = write(i)
			total = i + 1
			if total == before || err != nil && total < before {
				close(warm)
			}
			select {
			case <-migrated:
				left--
			default:
			}
		}
		result <- err
	}()
	<-warm
	if _, err := store.Migrate(t.Context(), o); err != nil {
		t.Errorf("migrate: %v", err)
	}
	close(migrated)
	if err := <-result; err != nil {
		t.Fatalf("the old version: %v", err)
	}
	for name, q := range say { // those too that were not run
		stmt, err := old.PrepareContext(t.Context(), q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		stmt.Close()
	}
	s := opened(t, o)
	defer shut(t, s)
	for i := range total {
		key := digest(fmt.Sprintf("old-%d", i))
		c, err := s.Authenticate(t.Context(), "test", key)
		if err != nil {
			t.Errorf("agent %d of the old version: %v", i, err)
			continue
		}
		if i%2 == 0 {
			continue
		}
		// What the new one has read before, the old one may end.
		if _, err := old.ExecContext(t.Context(), say["revokeKey"], time.Now().UnixMicro(), c.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Authenticate(t.Context(), "test", key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("agent %d of the old version, which has ended it: %v", i, err)
		}
	}
}
