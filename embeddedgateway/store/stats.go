package store

import (
	"context"
	"database/sql"
	"os"
	"sync"
	"sync/atomic"
)

// Stats is what a store has done since it was opened, and what it is doing.
type Stats struct {
	Committed, Undone uint64 // transactions
	Retries           uint64 // transactions that the database asked to run again
	Authentications   map[string]AuthenticationStats
	Pool              sql.DBStats  // of the connections that read
	Writer            *WriterStats // nil: the database has many
}

// AuthenticationStats counts credentials of one protocol that were looked up by
// their hash: those that may be used, and those that may not or are unknown.
type AuthenticationStats struct{ Good, Refused uint64 }

// WriterStats is about the one writer that SQLite has.
type WriterStats struct {
	Waiting    int      // transactions that wait for their turn
	LogBytes   int64    // the size of the write-ahead log
	Batches    []uint64 // how many commits had at most as many transactions as BatchSizes says
	Count, Sum uint64   // commits, and transactions in them
}

// BatchSizes are the sizes that Batches counts by.
func (*WriterStats) BatchSizes() []int { return []int{1, 2, 4, 8, maxParts} }

// stats is what a store counts.
type stats struct {
	committed, undone atomic.Uint64
	authentications   sync.Map // a protocol's name → *authentications
}

type authentications struct{ good, refused atomic.Uint64 }

// looked counts a credential that was looked up.
func (s *stats) looked(protocol string, good bool) {
	n, ok := s.authentications.Load(protocol)
	if !ok {
		n, _ = s.authentications.LoadOrStore(protocol, new(authentications))
	}
	counts, _ := n.(*authentications)
	if good {
		counts.good.Add(1)
	} else {
		counts.refused.Add(1)
	}
}

// ended counts a transaction.
func (s *stats) ended(err error) {
	if err == nil {
		s.committed.Add(1)
	} else {
		s.undone.Add(1)
	}
}

// Stats returns what the store has done.
func (s *Store) Stats() Stats {
	all := Stats{
		Committed: s.stats.committed.Load(), Undone: s.stats.undone.Load(),
		Authentications: map[string]AuthenticationStats{}, Pool: s.db.reader().Stats(),
	}
	s.stats.authentications.Range(func(protocol, n any) bool {
		name, _ := protocol.(string)
		counts, _ := n.(*authentications)
		all.Authentications[name] = AuthenticationStats{Good: counts.good.Load(), Refused: counts.refused.Load()}
		return true
	})
	if db, ok := s.db.(interface{ stats(*Stats) }); ok {
		db.stats(&all)
	}
	return all
}

// batchStats counts the commits of a writer by their size.
type batchStats struct {
	counts [5]atomic.Uint64 // as BatchSizes has them, not added up
	sum    atomic.Uint64
}

func (b *batchStats) add(parts int) {
	if parts == 0 {
		return
	}
	for i, most := range (*WriterStats)(nil).BatchSizes() {
		if parts <= most {
			b.counts[i].Add(1)
			break
		}
	}
	b.sum.Add(uint64(parts)) //nolint:gosec // it is not negative
}

func (db *sqliteDB) stats(all *Stats) {
	w := &WriterStats{Waiting: len(db.writer.queue), Sum: db.writer.batches.sum.Load()}
	for i := range db.writer.batches.counts {
		w.Count += db.writer.batches.counts[i].Load()
		w.Batches = append(w.Batches, w.Count)
	}
	if info, err := os.Stat(db.path + "-wal"); err == nil {
		w.LogBytes = info.Size()
	}
	all.Writer = w
}

func (db *postgresDB) stats(all *Stats) { all.Retries = db.retries.Load() }

// Ping returns an error unless the database answers before ctx ends.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.readable(ctx, nil); err != nil {
		return err
	}
	var n int
	return s.readError(s.db.reader().QueryRowContext(ctx, "SELECT count(*) FROM (SELECT id FROM sealed LIMIT 1) AS one").Scan(&n))
}
