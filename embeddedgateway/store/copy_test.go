package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// place is an empty database of a kind.
func place(t *testing.T, kind string) store.Options {
	t.Helper()
	if kind == "postgres" {
		return store.Options{URL: pgtest.URL(t), Now: time.Now}
	}
	return options(filepath.Join(t.TempDir(), "gateway.db"))
}

func opened(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill puts some of everything into a database.
func fill(t *testing.T, o store.Options, agents int) {
	t.Helper()
	s := opened(t, o)
	defer shut(t, s)
	write(t, s, func(tx *store.Tx) error {
		return tx.Seal(store.Sealed{Kind: aMark, Name: "x", Data: []byte("mark"), DueAt: time.Unix(1, 5000)})
	})
	write(t, s, func(tx *store.Tx) error {
		for i := range agents {
			if err := registerAgent(tx, fmt.Sprintf("agent-%d é", i)); err != nil {
				return err
			}
		}
		a, _, err := tx.EnsureAgent(store.Agent{
			Protocol: "test", Name: "last", DisplayName: "Zoë\n\"'$1", Attrs: map[string]string{"k": "v\u2028"},
		})
		if err != nil {
			return err
		}
		revoked := digest("revoked")
		if _, err := tx.Issue(store.Credential{AgentID: a.ID, Hash: revoked, Scopes: []string{"a", "b"}, Label: "x"}, 2); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE credentials SET revoked_at = 7 WHERE hash = $1", revoked[:]); err != nil {
			return err
		}
		for _, name := range []string{"open", "used"} {
			if err := tx.OpenTicket(store.Ticket{Protocol: "test", Kind: "invite", Hash: digest(name)}, false); err != nil {
				return err
			}
		}
		if _, err := tx.Redeem("test", "invite", digest("used"), ""); err != nil {
			return err
		}
		_, err = tx.Hit("limited", 1, time.Hour)
		return err
	})
}

func copying(from, to store.Options) store.Copying {
	return store.Copying{From: from, To: to, Mark: aMark, Verify: func(mark []byte) error {
		if string(mark) != "mark" {
			return errors.New("another mark")
		}
		return nil
	}}
}

// checkCopied looks whether a copy does what its source did.
func checkCopied(t *testing.T, o store.Options, agents int) {
	t.Helper()
	s := opened(t, o)
	defer shut(t, s)
	for i := range agents {
		name := fmt.Sprintf("agent-%d é", i)
		if c, err := s.Authenticate(t.Context(), "test", digest(name)); err != nil || c.AgentName != name {
			t.Fatalf("the key of %s: got %+v, %v", name, c, err)
		}
	}
	if _, err := s.Authenticate(t.Context(), "test", digest("revoked")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a revoked key: got error %v", err)
	}
	a, err := s.Agent(t.Context(), "test", "last")
	if err != nil || a.DisplayName != "Zoë\n\"'$1" || a.Attrs["k"] != "v\u2028" {
		t.Errorf("got %+v, %v", a, err)
	}
	redeem := func(name string) error {
		return s.Tx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Redeem("test", "invite", digest(name), "")
			return err
		})
	}
	if err := errors.Join(redeem("open")); err != nil {
		t.Errorf("an open invite: got error %v", err)
	}
	for _, name := range []string{"open", "used"} {
		if err := redeem(name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the invite %s again: got error %v", name, err)
		}
	}
	write(t, s, func(tx *store.Tx) error {
		wait, err := tx.Hit("limited", 1, time.Hour)
		if err == nil && wait == 0 {
			err = errors.New("a limit begins anew")
		}
		return errors.Join(err, registerAgent(tx, "one more")) // with an id of its own
	})
}

func TestCopy(t *testing.T) {
	for _, way := range []string{"sqlite sqlite", "sqlite postgres", "postgres sqlite", "postgres postgres"} {
		t.Run(way, func(t *testing.T) {
			a, b, _ := strings.Cut(way, " ")
			from, to := place(t, a), place(t, b)
			const agents = 501 // more than a batch
			fill(t, from, agents)
			done, err := store.Copy(t.Context(), copying(from, to))
			if err != nil {
				t.Fatal(err)
			}
			rows := make(map[string]int64)
			for _, table := range done.Tables {
				rows[table.Name] = table.Rows
				if len(table.Checksum) != 64 {
					t.Errorf("%s: got checksum %q", table.Name, table.Checksum)
				}
			}
			if rows["agents"] != agents+1 || rows["credentials"] != agents+1 || rows["tickets"] != 2 || rows["counters"] != 1 ||
				rows["sealed"] != 1 || rows["events"] != agents || done.Resumed {
				t.Errorf("got %+v", done)
			}
			checkCopied(t, to, agents)
			if _, err := store.Copy(t.Context(), copying(from, to)); err == nil || !strings.Contains(err.Error(), "has data already, in agents") {
				t.Errorf("once more: got error %v", err)
			}
			// Back again it is the same, but for what was written there.
			back := place(t, a)
			if _, err := store.Copy(t.Context(), copying(to, back)); err != nil {
				t.Errorf("back: %v", err)
			}
		})
	}
}

// TestCopyIsResumed: one that is broken off goes on, and until then nobody opens
// what is half there.
func TestCopyIsResumed(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			from, to := place(t, "sqlite"), place(t, kind)
			const agents = 510
			fill(t, from, agents)
			tries := 0
			for ; ; tries++ {
				ctx, stop := context.WithCancel(t.Context())
				c, batches := copying(from, to), 0
				c.Each = func(string, int64) {
					if batches++; batches == 2 {
						stop()
					}
				}
				done, err := store.Copy(ctx, c)
				stop()
				if done.Resumed != (tries > 0) {
					t.Errorf("try %d: got %+v", tries, done)
				}
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if _, err := store.Open(t.Context(), to); !errors.Is(err, store.ErrUnfinished) {
					t.Fatalf("opened meanwhile: got error %v, want %v", err, store.ErrUnfinished)
				}
				if _, err := store.Copy(t.Context(), copying(to, place(t, "sqlite"))); !errors.Is(err, store.ErrUnfinished) {
					t.Fatalf("copied meanwhile: got error %v, want %v", err, store.ErrUnfinished)
				}
			}
			if tries < 3 {
				t.Errorf("it was broken off %d times only", tries)
			}
			checkCopied(t, to, agents)
		})
	}
}

// TestKilledCopyIsFinished: wherever it was when it was killed.
func TestKilledCopyIsFinished(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			from, to := place(t, "sqlite"), place(t, kind)
			const agents = 2600 // several batches of each table
			fill(t, from, agents)
			for range 3 {
				cmd, out, next := start(t, "copy", from.Path, to.Path+to.URL)
				next()
				lines := bufio.NewScanner(out)
				for range 3 {
					if !lines.Scan() || !strings.HasPrefix(lines.Text(), "copied ") {
						t.Fatalf("the copy says: %s", lines.Text())
					}
					next()
				}
				if err := cmd.Process.Kill(); err != nil { // while it is at the next
					t.Fatal(err)
				}
				_ = cmd.Wait()
			}
			done, err := store.Copy(t.Context(), copying(from, to))
			if err != nil || !done.Resumed {
				t.Fatalf("got %+v, %v", done, err)
			}
			checkCopied(t, to, agents)
		})
	}
}

// copyChild copies, prints each batch, and goes on when it is told to.
func copyChild(from, to string) {
	c := copying(options(from), options(to))
	if strings.HasPrefix(to, "postgres:") {
		c.To = store.Options{URL: to, Now: time.Now}
	}
	in := bufio.NewReader(os.Stdin)
	c.Each = func(table string, rows int64) {
		fmt.Println("copied", table, rows)
		_, _ = in.ReadString('\n')
	}
	if _, err := store.Copy(context.Background(), c); err != nil {
		fmt.Println("copy:", err)
	}
}

func TestCopyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, c *store.Copying)
		want    string
	}{
		"a source that is open": {func(t *testing.T, c *store.Copying) { s := opened(t, c.From); t.Cleanup(func() { shut(t, s) }) }, store.ErrInUse.Error()},
		"a target that is open": {func(t *testing.T, c *store.Copying) { s := opened(t, c.To); t.Cleanup(func() { shut(t, s) }) }, store.ErrInUse.Error()},
		"a target on PostgreSQL that is open": {func(t *testing.T, c *store.Copying) {
			c.To = place(t, "postgres")
			s := opened(t, c.To)
			t.Cleanup(func() { shut(t, s) })
		}, store.ErrInUse.Error()},
		"no source": {func(t *testing.T, c *store.Copying) { c.From.Path += "x" }, "no such file"},
		"an old source": {func(t *testing.T, c *store.Copying) {
			c.From = place(t, "sqlite")
			if err := store.MigrateTo(t.Context(), c.From, 1); err != nil {
				t.Fatal(err)
			}
		}, "enlist gateway migrate"},
		"a target with data": {func(t *testing.T, c *store.Copying) { fill(t, c.To, 1) }, "has data already"},
		"another mark": {func(t *testing.T, c *store.Copying) {
			s := opened(t, c.From)
			write(t, s, func(tx *store.Tx) error { _, err := tx.Exec("UPDATE sealed SET data = name"); return err })
			shut(t, s)
		}, "another mark"},
		"a table of somebody's": {func(t *testing.T, c *store.Copying) {
			statement(t, c.From.Path, "CREATE TABLE places (id BIGINT)")
		}, "not Enlist's: places"},
		"the same": {func(_ *testing.T, c *store.Copying) { c.To = c.From }, "both the source and the target"},
		"text that is no text": {func(t *testing.T, c *store.Copying) {
			statement(t, c.From.Path, "UPDATE agents SET display_name = CAST(x'ff' AS TEXT)")
		}, store.ErrText.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := copying(place(t, "sqlite"), place(t, "sqlite"))
			fill(t, c2.From, 3)
			c.prepare(t, &c2)
			_, err := store.Copy(t.Context(), c2)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), pgtest.Password()) {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

// TestCopyFindsWhatDiffers: a source that was written to between two tries is
// not said to be copied.
func TestCopyFindsWhatDiffers(t *testing.T) {
	from, to := place(t, "sqlite"), place(t, "sqlite")
	fill(t, from, 600)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	c := copying(from, to)
	c.Each = func(string, int64) { stop() }
	if _, err := store.Copy(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	statement(t, from.Path, "UPDATE agents SET display_name = 'another' WHERE id = 3")
	if _, err := store.Copy(t.Context(), copying(from, to)); err == nil || !strings.Contains(err.Error(), "agents (601 rows there, 601 here)") {
		t.Errorf("got error %v", err)
	}
	if _, err := store.Open(t.Context(), to); !errors.Is(err, store.ErrUnfinished) {
		t.Errorf("afterwards: got error %v, want %v", err, store.ErrUnfinished)
	}
	// Nor is a copy of another database finished with this one.
	other := place(t, "sqlite")
	fill(t, other, 1)
	statement(t, other.Path, "UPDATE sealed SET data = x'00'")
	c = copying(other, to)
	c.Verify = func([]byte) error { return nil }
	if _, err := store.Copy(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another database") {
		t.Errorf("of another: got error %v", err)
	}
}

// TestCopyKnowsEveryTable holds the list in copy.go to the migrations.
func TestCopyKnowsEveryTable(t *testing.T) {
	o := place(t, "sqlite")
	if _, err := store.Migrate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	to := place(t, "sqlite")
	c := copying(o, to)
	c.Verify = func([]byte) error { return nil }
	done, err := store.Copy(t.Context(), c)
	if err != nil {
		t.Fatalf("name the table in copiedTables: %v", err)
	}
	if n := number(t, o.Path, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name <> 'goose_db_version' AND name NOT LIKE 'sqlite%'"); n != len(done.Tables) {
		t.Errorf("got %d tables copied of %d", len(done.Tables), n)
	}
}

func TestGatewaysWaitForACopy(t *testing.T) {
	from, to := place(t, "postgres"), place(t, "sqlite")
	fill(t, from, 1)
	c := copying(from, to)
	verify := c.Verify
	c.Verify = func(mark []byte) error {
		if _, err := store.Open(t.Context(), from); err == nil || !strings.Contains(err.Error(), "being copied") {
			t.Errorf("opened meanwhile: got error %v", err)
		}
		return verify(mark)
	}
	if _, err := store.Copy(t.Context(), c); err != nil {
		t.Error(err)
	}
}
