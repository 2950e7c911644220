package main

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// speedUsed is how many of a database's agents make requests, spread evenly over
// all of them.
const speedUsed = 16_384

// speedDatabase is a database with agents in it.
type speedDatabase struct {
	url    string // as [embeddedgateway.Config] takes it
	agents []speedAgent
}

// sqliteWith makes a SQLite database with so many agents.
func sqliteWith(b testing.TB, agents int) speedDatabase {
	b.Helper()
	path := filepath.Join(b.TempDir(), "gateway.db")
	migrated(b, store.Options{Path: path})
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=cache_size(-262144)")
	if err != nil {
		b.Fatal(err)
	}
	used := fill(b, db, agents, false)
	// What the system still has to write of it, it would write during the benchmark.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		b.Fatal(err)
	}
	return speedDatabase{"sqlite:" + path, used}
}

// postgresWith makes a PostgreSQL database with so many agents, on a server that
// ends with the benchmark. The benchmark is skipped where there is none.
func postgresWith(b testing.TB, agents int) speedDatabase {
	b.Helper()
	url := pgtest.Start(b, "-c", "shared_buffers=1GB").URL(b)
	migrated(b, store.Options{URL: url})
	db, err := sql.Open("pgx", url)
	if err != nil {
		b.Fatal(err)
	}
	used := fill(b, db, agents, true)
	// What the server does behind a fill, it would do during the benchmark. And rows
	// that are made in it come after those that have their number.
	if db, err = sql.Open("pgx", url); err != nil {
		b.Fatal(err)
	}
	for _, q := range []string{
		"SELECT setval(pg_get_serial_sequence('agents', 'id'), max(id)) FROM agents",
		"SELECT setval(pg_get_serial_sequence('credentials', 'id'), max(id)) FROM credentials",
		"VACUUM (ANALYZE)", "CHECKPOINT",
	} {
		if _, err := db.Exec(q); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return speedDatabase{url, used}
}

// migrated makes the tables of a database.
func migrated(b testing.TB, o store.Options) {
	b.Helper()
	o.Now = time.Now
	s, err := store.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// fill puts agents of Lona into a database, a token of each, as if they had
// registered, with what an operator finds it by, and returns some of them. It is for an empty database, and closes it.
func fill(b testing.TB, db *sql.DB, n int, numbered bool) (used []speedAgent) {
	b.Helper()
	const part = 100
	db.SetMaxOpenConns(1)
	now, expires := time.Now().UnixMicro(), time.Now().AddDate(0, 0, 30).UnixMicro()
	begun := time.Now()
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	agents, keys, terms := []any{}, []any{}, []any{}
	prepared := map[string]*sql.Stmt{}
	for id := 1; id <= n; id++ {
		a, keyID := madeAgent(id)
		hash := sha256.Sum256([]byte(a.token))
		agents = append(agents, id, wire.LonaName, a.id, a.id, `{"source":"bench"}`, 1, now, 0, `["`+a.id+`"]`)
		terms = append(terms, id, wire.LonaName, a.id)
		keys = append(keys, id, id, wire.LonaName, a.id, "token", keyID, hash[:], `["*"]`, now, expires, 0, 0)
		if id%max(1, n/speedUsed) == 0 && len(used) < speedUsed {
			used = append(used, a)
		}
		if id%part != 0 && id != n {
			continue
		}
		for _, insert := range []struct {
			into string
			args []any
		}{
			{"agents (id, protocol, name, display_name, attrs, seq, created_at, disabled_at, found_by)", agents},
			{"agent_terms (agent_id, protocol, term)", terms},
			{`credentials (id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
				created_at, expires_at, revoked_at, last_used_at)`, keys},
		} {
			q := "INSERT INTO " + insert.into + " VALUES " + rows(insert.into, len(insert.args), numbered)
			if prepared[q] == nil {
				if prepared[q], err = tx.Prepare(q); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := prepared[q].Exec(insert.args...); err != nil {
				b.Fatal(err)
			}
		}
		agents, keys, terms = agents[:0], keys[:0], terms[:0]
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d agents were put into the database in %.1fs", n, time.Since(begun).Seconds())
	return used
}

// rows is (?, …), (…), … for so many arguments in the columns of an INSERT.
func rows(into string, args int, numbered bool) string {
	columns := strings.Count(into, ",") + 1
	var b strings.Builder
	for i := range args {
		switch {
		case i%columns != 0:
			b.WriteString(", ")
		case i > 0:
			b.WriteString("), (")
		default:
			b.WriteString("(")
		}
		if numbered {
			fmt.Fprintf(&b, "$%d", i+1)
		} else {
			b.WriteString("?")
		}
	}
	b.WriteString(")")
	return b.String()
}

// madeAgent is the agent of a number, the same in every run.
func madeAgent(id int) (a speedAgent, keyID string) {
	a.id = fmt.Sprintf("agent-%07d", id)
	sum := sha256.Sum256([]byte(a.id))
	text := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding).EncodeToString(sum[:])
	keyID = text[:12]
	a.token = wire.FormatLonaToken(a.id, keyID, text)
	return a, keyID
}
