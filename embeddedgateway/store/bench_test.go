package store_test

import (
	"database/sql"
	"encoding/binary"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// clients is how many goroutines each benchmark keeps busy. Compare what they
// report with BenchmarkInsert of the same run: it is the least that one durable
// row can cost, and says what disk and machine it was.
const clients = 32

// numbered is a hash that no other number has, in no order.
func numbered(n int64) (h [32]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return digest(b)
}

// load runs fn b.N times on all clients and reports the times of its calls.
func load(b *testing.B, fn func(n int64) error) {
	b.Helper()
	b.SetParallelism(max(1, clients/runtime.GOMAXPROCS(0)))
	var mu sync.Mutex
	var all []time.Duration
	var n atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var took []time.Duration
		for pb.Next() {
			begun := time.Now()
			if err := fn(n.Add(1)); err != nil {
				b.Error(err)
				return
			}
			took = append(took, time.Since(begun))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, took...)
	})
	b.StopTimer()
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
}

// BenchmarkInsert is the baseline: one row a caller, committed together with
// those who wait, and nothing else.
func BenchmarkInsert(b *testing.B) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "bare.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	exec := func(q string) {
		if _, err := conn.ExecContext(b.Context(), q); err != nil {
			b.Error(err)
		}
	}
	exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, at BIGINT NOT NULL)")
	insert, err := conn.PrepareContext(b.Context(), "INSERT INTO rows (hash, at) VALUES ($1, $2)")
	if err != nil {
		b.Fatal(err)
	}
	defer insert.Close()
	type row struct {
		n    int64
		done chan struct{}
	}
	queue, ended := make(chan row, 2*clients), make(chan struct{})
	go func() {
		defer close(ended)
		for r := range queue {
			var batch []row
			exec("BEGIN IMMEDIATE")
			for more := true; more; {
				h := numbered(r.n)
				if _, err := insert.ExecContext(b.Context(), h[:], r.n); err != nil {
					b.Error(err)
				}
				batch = append(batch, r)
				select {
				case r, more = <-queue:
				default:
					more = false
				}
			}
			exec("COMMIT")
			for _, r := range batch {
				close(r.done)
			}
		}
	}()
	load(b, func(n int64) error {
		r := row{n, make(chan struct{})}
		queue <- r
		<-r.done
		return nil
	})
	close(queue)
	<-ended
}

// BenchmarkIssue is a registration: agent, credential, audit event.
func BenchmarkIssue(b *testing.B) {
	s := fresh(b)
	load(b, func(n int64) error {
		hash := numbered(n)
		name := "agent-" + time.Unix(n, 0).UTC().Format("20060102150405")
		return s.Tx(b.Context(), func(tx *store.Tx) error {
			a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: name, DisplayName: name})
			if err != nil {
				return err
			}
			_, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "k", Hash: hash, Scopes: []string{"*"}}, 1)
			if err != nil {
				return err
			}
			return tx.Audit(store.Event{Protocol: "lona", Name: "token_issued", Agent: name, IP: "192.0.2.1"})
		})
	})
}

// BenchmarkRedeem uses up tickets that were opened before.
func BenchmarkRedeem(b *testing.B) {
	s := fresh(b)
	for from := 0; from < b.N; from += 1000 {
		err := s.Tx(b.Context(), func(tx *store.Tx) error {
			for n := from + 1; n <= min(from+1000, b.N); n++ {
				err := tx.OpenTicket(store.Ticket{
					Protocol: "lona", Kind: "invite", Hash: numbered(int64(n)), Subject: "scout",
					ExpiresAt: tx.Now().Add(time.Hour),
				}, false)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	load(b, func(n int64) error {
		hash := numbered(n)
		return s.Tx(b.Context(), func(tx *store.Tx) error {
			_, err := tx.Redeem("lona", "invite", hash, "scout")
			return err
		})
	})
}

// BenchmarkHit counts for a thousand addresses.
func BenchmarkHit(b *testing.B) {
	s := fresh(b)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "lona invite 192.0.2." + time.Unix(int64(i), 0).UTC().Format("0405")
	}
	load(b, func(n int64) error {
		return s.Tx(b.Context(), func(tx *store.Tx) error {
			_, err := tx.Hit(keys[n%1000], 3, time.Hour)
			return err
		})
	})
}

// BenchmarkAuthenticate reads one of ten thousand credentials.
func BenchmarkAuthenticate(b *testing.B) {
	s := fresh(b)
	const keys = 10_000
	err := s.Tx(b.Context(), func(tx *store.Tx) error {
		a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "scout"})
		if err != nil {
			return err
		}
		for n := range int64(keys) {
			_, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: numbered(n), Scopes: []string{"*"}}, 0)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	load(b, func(n int64) error {
		_, err := s.Authenticate(b.Context(), "lona", numbered(n%keys))
		return err
	})
}
