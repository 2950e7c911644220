package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestZZ(t *testing.T) {
	ctx := context.Background()
	db := postgresWith(t, speedAgents(t))
	c, err := pgx.Connect(ctx, db.url)
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(ctx, "SET plan_cache_mode = force_generic_plan")
	const cols = `id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
		created_at, expires_at, revoked_at, last_used_at, label`
	hashes := make([][]byte, len(db.agents))
	for i, a := range db.agents {
		h := sha256.Sum256([]byte(a.token))
		hashes[i] = h[:]
	}
	qs := []string{
		`SELECT ` + cols + ` FROM credentials WHERE protocol = $1 AND hash = ANY($2)`,
		`SELECT id, revoked_at FROM credentials WHERE protocol = $1 AND hash = ANY($2)`,
		`SELECT ` + cols + ` FROM credentials WHERE hash = ANY($2) AND protocol = $1`,
	}
	if os.Getenv("ZZQ") != "" {
		qs = append(qs, strings.Split(os.Getenv("ZZQ"), ";")...)
	}
	for _, q := range qs {
		rows, err := c.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS) "+q, "lona", hashes[:8])
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var s string
			rows.Scan(&s)
			t.Log(s)
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		for _, k := range []int{1, 4, 8, 16, 32} {
			n := 64000 / (k + 8)
			at := 0
			for _, set := range []string{"on", "off"} {
				c.Exec(ctx, "SET enable_bitmapscan = "+set)
				p0, a0, t0 := postgresTime(t), cpuTime(t), time.Now()
				for i := range n {
					at = (i*k*7 + k) % (len(hashes) - k)
					rows, err := c.Query(ctx, q, "lona", hashes[at:at+k])
					if err != nil {
						t.Fatal(err)
					}
					for rows.Next() {
						rows.RawValues()
					}
					if rows.Err() != nil {
						t.Fatal(rows.Err())
					}
				}
				p1, a1 := postgresTime(t)-p0, cpuTime(t)-a0
				f := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/float64(n)) }
				t.Logf("bitmap %s k=%d wall %s pg %s own %s", set, k, f(time.Since(t0)), f(p1), f(a1-p1))
			}
		}
	}
}
