package store_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// BenchmarkOperator is what an operator asks for, of a thousand and of a million
// agents: what a page costs must not grow with them.
func BenchmarkOperator(b *testing.B) {
	for _, agents := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(agents), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "gateway.db")
			fillFile(b, path, agents)
			s := open(b, path, time.Now)
			deep, err := s.Agents(b.Context(), store.AgentQuery{Prefix: "weather bot", Limit: 400})
			if err != nil {
				b.Fatal(err)
			}
			for _, q := range []struct {
				name string
				store.AgentQuery
			}{
				{"newest", store.AgentQuery{}},
				{"of a protocol", store.AgentQuery{Protocol: "lumina"}},
				{"suspended", store.AgentQuery{Suspension: store.Suspended}},
				{"suspended of a protocol", store.AgentQuery{Suspension: store.Suspended, Protocol: "lona"}},
				{"search, one", store.AgentQuery{Prefix: "AGENT-0000777"}},
				{"search, none", store.AgentQuery{Prefix: "zzz"}},
				{"search, all", store.AgentQuery{Prefix: "w"}},
				{"search, all, active", store.AgentQuery{Prefix: "w", Suspension: store.Active}},
				{"search, all, deep", store.AgentQuery{Prefix: "w", After: deep.Next}},
			} {
				b.Run(q.name, func(b *testing.B) {
					q.Limit = 50
					for b.Loop() {
						if _, err := s.Agents(b.Context(), q.AgentQuery); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			// A second or two of a million, so once is enough of them, however often the rest is asked.
			b.Run("count all", func(b *testing.B) {
				rounds, begun := min(b.N, 1+10_000/agents), time.Now()
				for range rounds {
					if _, err := s.CountAgents(b.Context()); err != nil {
						b.Fatal(err)
					}
					if _, err := s.CountKeys(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(time.Since(begun).Nanoseconds())/float64(rounds), "ns/op")
			})
		})
	}
}

// fillFile makes a database with the agents of [fillAgents], which a few statements
// put there: by registering one after the other a million would take minutes. Hashes come in order, which no
// operator's question is about, and costs least.
func fillFile(t testing.TB, path string, agents int) {
	t.Helper()
	if err := open(t, path, time.Now).Close(); err != nil { // the tables
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(path)+"?_pragma=synchronous(OFF)&_pragma=cache_size(-262144)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	now := time.Now().UnixMicro()
	for _, q := range []string{
		`CREATE TEMP TABLE made AS
			WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < $1)
			SELECT n + 1 AS id, CASE n % 10 WHEN 0 THEN 'lumina' ELSE 'lona' END AS protocol, printf('agent-%07d', n) AS name,
				'Weather Bot ' || (n * 7919 % 1000003) AS display, CASE n % 10000 WHEN 7 THEN $2 ELSE 0 END AS disabled
			FROM numbers`,
		`INSERT INTO agents (id, protocol, name, display_name, attrs, seq, created_at, disabled_at, found_by)
			SELECT id, protocol, name, display, '', disabled > 0, $2, disabled, json_array(name, lower(display)) FROM made WHERE id <= $1`,
		`INSERT INTO agent_terms (agent_id, protocol, term)
			SELECT id, protocol, name FROM made WHERE id <= $1 AND $2 > 0 UNION ALL SELECT id, protocol, lower(display) FROM made ORDER BY 2, 3`,
		`INSERT INTO credentials (id, agent_id, protocol, agent_name, kind, key_id, hash, scopes, created_at, expires_at, revoked_at, last_used_at)
			SELECT id, id, protocol, name, 'key', 'k', CAST(printf('%032d', id) AS BLOB), '', $2, 0, disabled, 0 FROM made WHERE id <= $1`,
	} {
		if _, err := tx.ExecContext(t.Context(), q, agents, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFilledIsAsRegistered: what the benchmark asks of is what registering stores.
func TestFilledIsAsRegistered(t *testing.T) {
	t.Parallel()
	const agents = 20
	registered, filled := filepath.Join(t.TempDir(), "gateway.db"), filepath.Join(t.TempDir(), "gateway.db")
	fillAgents(t, open(t, registered, time.Now), 0, agents)
	fillFile(t, filled, agents)
	for _, q := range []string{
		`SELECT id, protocol, name, display_name, attrs, seq, created_at > 0, disabled_at > 0, found_by, tokens_ended FROM agents ORDER BY id`,
		`SELECT agent_id, protocol, term FROM agent_terms ORDER BY agent_id, term`,
		`SELECT id, agent_id, protocol, agent_name, kind, key_id, typeof(hash), length(hash), scopes, label, created_at > 0, expires_at, revoked_at > 0, last_used_at
			FROM credentials ORDER BY id`,
	} {
		if want, got := said(t, registered, q), said(t, filled, q); want == "" || got != want {
			t.Errorf("registering stores\n%s\nand the fill\n%s", want, got)
		}
	}
}

// said is what a database answers, a line a row.
func said(t *testing.T, path, query string) (lines string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.ToSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		lines += fmt.Sprintln(values...)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}
