package gateway_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway"
)

// A journal of the time before tokens had names is taken on, and a program of
// that time goes on with it.
func TestAJournalWithoutNamesOfTokensIsTakenOn(t *testing.T) {
	home := t.TempDir()
	s := newService(t)
	first := journaled(t, s, home)
	first.register(t, "before")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", journalOf(home))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	old := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	old("ALTER TABLE events DROP COLUMN token_name")

	f := journaled(t, s, home)
	ctx := gateway.WithCaller(t.Context(), gateway.Caller{Kind: gateway.CallerPerson, Name: "claude", TokenName: "work\n"})
	if _, err := f.Lona.Register(ctx, named("after")); err != nil {
		t.Fatal(err)
	}
	// As a program of that time does, whose connection is older than the column.
	old(`INSERT INTO events (at, client, version, action, protocol, origin, agent, kind, label, method, path, status, outcome, code)
		VALUES (1, 'old', '', 'read', '', '', '', '', '', '', '', 0, 'done', '')`)
	var version int
	if err := db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil || version != 1 {
		t.Errorf("got version %d (%v), want the one that older programs know", version, err)
	}

	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10)
	if err != nil || len(events) != 3 {
		t.Fatalf("got %+v (%v), want three events", events, err)
	}
	for i, want := range []string{"", "work", ""} {
		if events[i].TokenName != want {
			t.Errorf("event %d: got the token %q, want %q", i, events[i].TokenName, want)
		}
	}
}

// TestNoClientIsSomebodyElseInTheAuditTrail: what a client calls itself is its own
// business, but is not taken for a person's command, for Enlist or for a token.
func TestNoClientIsSomebodyElseInTheAuditTrail(t *testing.T) {
	for name, tt := range map[string]struct {
		caller gateway.Caller
		want   string
	}{
		"a client":           {gateway.Caller{Name: "claude"}, "claude"},
		"a person's command": {gateway.Caller{Name: "enlist revoke"}, `"enlist revoke"`},
		"Enlist":             {gateway.Caller{Name: " Enlist\n"}, `"Enlist"`},
		"a token":            {gateway.Caller{Name: "laptop: claude", TokenName: "ci"}, `"laptop: claude"`},
		"a person":           {gateway.Caller{Kind: gateway.CallerPerson, Name: "enlist revoke"}, "enlist revoke"},
	} {
		s := newService(t)
		f := journaled(t, s, t.TempDir())
		if _, err := f.Lona.Register(gateway.WithCaller(t.Context(), tt.caller), named("agent")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10)
		if err != nil || len(events) != 1 || events[0].Client != tt.want || events[0].TokenName != tt.caller.TokenName {
			t.Errorf("%s: got %+v (%v), want the client %s", name, events, err, tt.want)
		}
	}
}
