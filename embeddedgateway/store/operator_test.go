package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// TestNoPageReadsAWholeTable: however many agents there are, a page goes by an
// index.
func TestNoPageReadsAWholeTable(t *testing.T) {
	s := fresh(t)
	fillAgents(t, s, 0, 500)
	for q, index := range store.OperatorQueries() {
		args := []any{}
		for strings.Contains(q, fmt.Sprintf("$%d", len(args)+1)) {
			args = append(args, int64(0))
		}
		rows, err := s.Reader().QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+q, args...)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, step)
		}
		rows.Close()
		text := strings.Join(plan, "\n")
		if !strings.Contains(text, index) {
			t.Errorf("%s\ngoes by\n%s\nwant %s", q, text, index)
		}
		for _, step := range plan {
			switch {
			case step == "SCAN agents USING INDEX agents_unfound": // all that is in it is to do
			case step == "SCAN part": // no longer than it may be
			case strings.HasPrefix(step, "SCAN"):
				t.Errorf("%s\nreads a whole table:\n%s", q, text)
			case step == "USE TEMP B-TREE FOR ORDER BY" && !strings.Contains(q, "FROM credentials"): // an agent has few
				t.Errorf("%s\nsorts:\n%s", q, text)
			}
		}
	}
}

// fillAgents stores agents of two protocols.
func fillAgents(t testing.TB, s *store.Store, from, to int) {
	t.Helper()
	const part = 1000
	for ; from < to; from += part {
		err := s.Tx(t.Context(), func(tx *store.Tx) error {
			for n := from; n < min(from+part, to); n++ {
				// Names as people give them: many begin alike.
				protocol, name := "lona", fmt.Sprintf("agent-%07d", n)
				if n%10 == 0 {
					protocol = "lumina"
				}
				a := store.Agent{Protocol: protocol, Name: name, DisplayName: fmt.Sprintf("Weather Bot %d", n*7919%1_000_003)}
				stored, _, err := tx.EnsureAgent(a)
				if err != nil {
					return err
				}
				_, err = tx.Issue(store.Credential{AgentID: stored.ID, Kind: "key", KeyID: "k", Hash: numbered(int64(n))}, 0)
				if err != nil {
					return err
				}
				if n%10_000 == 7 {
					if _, err := tx.Suspend(stored.ID); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestAgentsOfTheVersionBefore: agents that a version without search stores are
// made up for, while it goes on serving.
func TestAgentsOfTheVersionBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	s, err := store.Open(t.Context(), store.Options{
		Path: path, Now: time.Now, Terms: func(a store.Agent) []string { return []string{a.Attrs["owner"]} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := func(q string, args ...any) {
		t.Helper()
		err := s.Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q, args...); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	insert := func(name string) {
		before(`INSERT INTO agents (protocol, name, display_name, attrs, seq, created_at, disabled_at)
			VALUES ('lona', $1, $2, '{"owner":"Ops"}', 0, 1, 0)
			ON CONFLICT (protocol, name) DO UPDATE SET display_name = excluded.display_name, seq = agents.seq + 1`, name, "Old "+name)
	}
	found := func(prefix string) (names []string) {
		page, err := s.Agents(t.Context(), store.AgentQuery{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Agents {
			names = append(names, a.Name)
		}
		slices.Sort(names)
		return names
	}
	for i := range 5 {
		insert(fmt.Sprintf("a%d", i))
	}
	if got := found("ops"); len(got) > 0 {
		t.Fatalf("found %q: the test does not store agents as the version before did", got)
	}
	for _, want := range []int{2, 2, 1, 0} { // resumed as often as it takes
		if n, err := s.MakeUpTerms(t.Context(), 2); n != want || err != nil {
			t.Fatalf("made up for %d, %v, want %d", n, err, want)
		}
	}
	insert("later")
	if n, err := s.MakeUpTerms(t.Context(), 100); n != 1 || err != nil {
		t.Fatalf("made up for %d, %v, want the one that came later", n, err)
	}
	want := []string{"a0", "a1", "a2", "a3", "a4", "later"}
	for _, prefix := range []string{"OPS", "old "} {
		if got := found(prefix); !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", prefix, got, want)
		}
	}
	// That version deletes an agent and leaves its terms, and the next agent
	// may get its id: it is not found by them.
	before("DELETE FROM agents WHERE name = 'later'")
	err = s.Tx(t.Context(), func(tx *store.Tx) error {
		_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "heir"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := found("later"); len(got) > 0 {
		t.Errorf("found %q by what a deleted agent was called", got)
	}
	if got := found("heir"); !slices.Equal(got, []string{"heir"}) {
		t.Errorf("found %q, want the heir", got)
	}
}
