package gateway_test

import (
	"database/sql"
	"os"
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
