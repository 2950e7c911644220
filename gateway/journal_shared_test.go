package gateway_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway"
)

// Many processes may make the journal at one time.
func TestManyMakeOneJournal(t *testing.T) {
	s := newService(t)
	for range 2 {
		home := t.TempDir()
		var ready, done sync.WaitGroup
		begin := make(chan struct{})
		for range 20 {
			f := journaled(t, s, home)
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-begin
				_, err := f.Lona.Register(t.Context(), named("my-agent"))
				if err != nil {
					t.Error(err)
				}
			})
		}
		ready.Wait()
		close(begin)
		done.Wait()
		events, err := journaled(t, s, home).Lifecycle.Audit(t.Context(), time.Time{}, 100)
		if err != nil || len(events) != 20 {
			t.Errorf("got %d events (%v), want 20", len(events), err)
		}
	}
}

// A person may move the journal away at any time: what is begun from then on is
// in the new one, where another process finds it.
func TestAJournalThatIsMovedAwayIsMadeAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows moves no file that is open")
	}
	for name, suffixes := range map[string][]string{
		"all of it":     {"", "-wal", "-shm"},
		"but for a log": {""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			home := t.TempDir()
			f, bystander := journaled(t, s, home), journaled(t, s, home)
			f.register(t, "my-agent")
			if _, err := bystander.Lifecycle.Audit(t.Context(), time.Time{}, 1); err != nil {
				t.Fatal(err)
			}
			for _, suffix := range suffixes {
				if err := os.Rename(journalOf(home)+suffix, journalOf(home)+".old"+suffix); err != nil {
					t.Fatal(err)
				}
			}
			s.on(registerPath, reply(503, ""))
			if _, err := f.Lona.Register(t.Context(), named("other")); err == nil {
				t.Fatal("want a registration whose outcome is not known")
			}

			for _, other := range []*fixture{bystander, journaled(t, s, home)} {
				open, err := other.Unfinished(t.Context())
				if err != nil || len(open) != 1 || open[0].Key.Agent != "other" || open[0].Action != gateway.ActRegister {
					t.Errorf("another process finds %v (%v), want the registration", open, err)
				}
				events, err := other.Lifecycle.Audit(t.Context(), time.Time{}, 10)
				if err != nil || len(events) != 1 {
					t.Errorf("another process finds the events %v (%v), want one", events, err)
				}
			}
		})
	}
}

// Somebody may hold the journal for long, such as a program that was stopped in
// the middle. Then requests do not wait for each other, one after the other.
func TestRequestsDoNotQueueForTheAuditTrail(t *testing.T) {
	t.Parallel()
	s := newService(t)
	home := t.TempDir()
	f := journaled(t, s, home)
	k := f.register(t, "my-agent").Key
	db, err := sql.Open("sqlite", journalOf(home))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var done sync.WaitGroup
	for range 6 {
		done.Go(func() {
			if got, err := f.Lifecycle.Do(t.Context(), k, get(strategiesPath)); err != nil || got.Status != 200 {
				t.Errorf("got %d, %v", got.Status, err)
			}
		})
	}
	done.Wait()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if !strings.Contains(f.log.String(), "the audit trail could not be written") {
		t.Error("the log does not say that nothing was noted")
	}
}

// Whoever finds others at the journal for longer than SQLite itself would wait, as on
// a machine that has too much to do, gets there all the same.
func TestAJournalThatIsInUseForLongIsWaitedFor(t *testing.T) {
	t.Parallel()
	s, home := newService(t), t.TempDir()
	f := journaled(t, s, home)
	f.register(t, "my-agent")
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(journalOf(home))+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	held, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(7*time.Second, func() { _ = held.Rollback() })

	f.register(t, "other")

	if log := f.log.String(); strings.Contains(log, "could not be written") {
		t.Errorf("got the log %s", log)
	}
}

// Many that open the journal, use it and close it again, as short commands do, are
// not in each other's way: the last to close it has it for itself for a moment.
func TestManyOpenAndCloseOneJournal(t *testing.T) {
	s, home := newService(t), t.TempDir()
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for m := range 25 {
				f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: home})
				if _, err := f.Lona.Register(t.Context(), named(fmt.Sprintf("agent-%d-%d", n, m))); err != nil {
					t.Errorf("register: %v", err)
				}
				if _, err := f.Unfinished(t.Context()); err != nil {
					t.Errorf("read: %v", err)
				}
				if err := f.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				if log := f.log.String(); strings.Contains(log, "could not be written") {
					t.Errorf("got the log %s", log)
				}
			}
		})
	}
	wg.Wait()
}
