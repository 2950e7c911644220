package gateway_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// journaled returns a client with a home for its journal.
func journaled(t *testing.T, s *service, home string) *fixture {
	t.Helper()
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: home})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func journalOf(home string) string { return filepath.Join(home, "journal.db") }

func TestReadingMakesNoJournal(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	f := journaled(t, newService(t), home)
	if _, err := f.Lifecycle.Standings(t.Context()); err != nil {
		t.Error(err)
	}
	if events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10); err != nil || len(events) != 0 {
		t.Errorf("got %v, %v", events, err)
	}
	if _, err := os.Stat(home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home was made: %v", err)
	}
}

func TestTheJournalIsForTheUserAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	home := filepath.Join(t.TempDir(), "home")
	f := journaled(t, newService(t), home)
	f.register(t, "my-agent")
	for _, name := range []string{"", "journal.db", "journal.db-wal", "journal.db-shm"} {
		stat, err := os.Stat(filepath.Join(home, name))
		if err != nil || stat.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: got %v (%v), want it closed to others", name, stat.Mode(), err)
		}
	}
}

// The audit trail says who did what, and neither it nor the rest of the journal
// holds what a service issued, or was sent.
func TestTheAuditTrail(t *testing.T) {
	gw := gatewaytest.New(t)
	home := t.TempDir()
	f := against(t, gw, setup{home: home})
	ctx := gateway.WithCaller(t.Context(), gateway.Caller{Kind: gateway.CallerPerson, Name: "bash\x1b[31m\n" + strings.Repeat("x", 300), Version: "5"})
	r, err := f.Lona.Register(ctx, named("my-agent"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lifecycle.Do(ctx, r.Key, get("/api/v1/"+f.secret(t, r.Key))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	if err := f.Lifecycle.Revoke(ctx, r.Key); err == nil {
		t.Error("Lona has no call to revoke")
	}
	if _, err := f.Lifecycle.Do(ctx, r.Key, get("/api/v1/agents/register")); err == nil {
		t.Error("an issuing route was not refused")
	}

	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		if e.Protocol != "lona" || e.Origin != gw.URL || e.Agent != "my-agent" || !e.Time.Equal(gw.Clock.Now().Truncate(time.Millisecond)) {
			t.Errorf("got %+v", e)
		}
		if len(e.Client) > 200 || strings.ContainsAny(e.Client, "\x1b\n") {
			t.Errorf("got the client %q", e.Client)
		}
		got = append(got, fmt.Sprintf("%.4s %s %s %d %s", e.Client, e.Action, e.Method, e.Status, e.Outcome))
	}
	want := []string{
		"bash register  0 done", "bash read GET 404 failed", "enli rotate  0 done", "bash revoke  0 refused", "bash read GET 0 refused",
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(gw.Secrets()) < 3 {
		t.Fatalf("the gateway issued %d secrets", len(gw.Secrets()))
	}
	files, err := filepath.Glob(filepath.Join(home, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range gw.Secrets() {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds a secret", filepath.Base(file))
			}
		}
	}
}

func TestTheAuditTrailIsBounded(t *testing.T) {
	f := journaled(t, newService(t), t.TempDir())
	f.KeepEvents(200)
	r := f.register(t, "my-agent")
	for range 305 {
		if _, err := f.Lifecycle.Do(t.Context(), r.Key, get("/api/v1/agents/register")); err == nil {
			t.Fatal("not refused")
		}
	}
	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 1000)
	if err != nil || len(events) < 200 || len(events) > 202 {
		t.Errorf("got %d events (%v), want about 200", len(events), err)
	}
	latest, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 3)
	if err != nil || len(latest) != 3 || latest[2] != events[len(events)-1] {
		t.Errorf("got %+v (%v), want the last three", latest, err)
	}
}

// What cannot be written down is not begun.
func TestNothingIsSentThatTheJournalDoesNotKnow(t *testing.T) {
	s := newService(t)
	f := journaled(t, s, t.TempDir())
	broken := errors.New("no space left on device")
	f.OnJournal(func(step string) error {
		if step == "intent" {
			return broken
		}
		return nil
	})
	_, err := f.Lona.Register(t.Context(), named("my-agent"))
	if !errors.Is(err, credstore.ErrUnavailable) || !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if n := len(s.seen(registerPath)) + len(s.seen(invitePath)); n != 0 {
		t.Errorf("%d requests were made", n)
	}
	if list, err := f.Lifecycle.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v: something is left", list, err)
	}
	f.OnJournal(nil)
	f.register(t, "my-agent")
}

// A secret that has arrived is kept whatever becomes of the journal.
func TestASecretIsKeptWithoutTheJournal(t *testing.T) {
	f := journaled(t, newService(t), t.TempDir())
	f.OnJournal(func(step string) error {
		if step == "count" || step == "intent" {
			return nil
		}
		return errors.New("disk I/O error")
	})
	r := f.register(t, "my-agent")
	f.OnJournal(nil)
	standings, err := f.Lifecycle.Standings(t.Context())
	if err != nil || len(standings) != 1 || standings[0].Now != credstore.StatePending || standings[0].Reason == "" || standings[0].Remedy == "" {
		t.Errorf("got %+v (%v), want it pending, with the reason", standings, err)
	}
	if got, err := f.Lifecycle.Do(t.Context(), r.Key, get(strategiesPath)); err != nil || got.Status != http.StatusOK {
		t.Errorf("got %d, %v", got.Status, err)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v (%v), want it finished by its use", open, err)
	}
}

// What a program finishes when it starts is finished before it uses the credential.
func TestAUseWaitsForWhatIsBeingFinished(t *testing.T) {
	s := newService(t)
	f := journaled(t, s, t.TempDir())
	r := f.register(t, "my-agent")
	s.on(registerPath, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
		t.Fatal("a rotation without an answer succeeded")
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	var first sync.Once
	s.on(strategiesPath, func(w http.ResponseWriter, r *http.Request) {
		first.Do(func() {
			close(asked)
			<-answer
		})
		s.lona(w, r)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Lifecycle.Heal(t.Context()); err != nil {
			t.Error(err)
		}
	})
	<-asked // whether the token works
	before := len(s.seen(strategiesPath))
	hasty, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := f.Lifecycle.Do(hasty, r.Key, get(strategiesPath)); err == nil || len(s.seen(strategiesPath)) != before {
		t.Errorf("it was used before that was finished: %v", err)
	}
	close(answer)
	if got, err := f.Lifecycle.Do(t.Context(), r.Key, get(strategiesPath)); err != nil || got.Status != http.StatusOK {
		t.Errorf("got %d, %v", got.Status, err)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v (%v), want nothing unfinished", open, err)
	}
	wg.Wait()
}

func TestALaterJournalIsLeftAlone(t *testing.T) {
	home := t.TempDir()
	db, err := sql.Open("sqlite", journalOf(home))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE operations (something TEXT); PRAGMA user_version = 2"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := newService(t)
	f := journaled(t, s, home)
	_, err = f.Lona.Register(t.Context(), named("my-agent"))
	if err == nil || !strings.Contains(err.Error(), "update Enlist") || len(s.seen(invitePath)) != 0 {
		t.Errorf("got %v after %d requests", err, len(s.seen(invitePath)))
	}
	if _, err := f.Lifecycle.Standings(t.Context()); err != nil {
		t.Errorf("listing: %v", err)
	}
}

// A journal that was cut off anywhere either works or is refused with a remedy,
// before anything is sent; what is stored stays usable.
func TestAJournalThatWasCutOff(t *testing.T) {
	s := newService(t)
	home := t.TempDir()
	f := journaled(t, s, home)
	f.register(t, "my-agent")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(journalOf(home))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 509 {
		cut := t.TempDir()
		if err := os.WriteFile(journalOf(cut), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		g := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: cut, store: f.store})
		before := len(s.seen(registerPath))
		_, err := g.Lifecycle.Rotate(t.Context(), lonaKey(s.URL, "my-agent"))
		var known *credstore.Error
		if err != nil && (!errors.As(err, &known) || known.Remedy == "" || len(s.seen(registerPath)) != before) {
			t.Errorf("cut at %d: got %v after %d requests", n, err, len(s.seen(registerPath))-before)
		}
		if r, err := g.Lifecycle.Do(t.Context(), lonaKey(s.URL, "my-agent"), get(strategiesPath)); err != nil || r.Status != http.StatusOK {
			t.Errorf("cut at %d: the credential got %d, %v", n, r.Status, err)
		}
		if err := g.Close(); err != nil {
			t.Errorf("cut at %d: close: %v", n, err)
		}
	}
}

// Processes that share a home share its journal.
func TestClientsShareAJournal(t *testing.T) {
	s := newService(t)
	home := t.TempDir()
	var wg sync.WaitGroup
	for n := range 8 {
		f := journaled(t, s, home)
		wg.Go(func() {
			for m := range 5 {
				if _, err := f.Lona.Register(t.Context(), named(fmt.Sprintf("agent-%d-%d", n, m))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f := journaled(t, s, home)
	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 1000)
	if err != nil || len(events) != 40 {
		t.Errorf("got %d events (%v), want 40", len(events), err)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v (%v), want nothing unfinished", open, err)
	}
}
