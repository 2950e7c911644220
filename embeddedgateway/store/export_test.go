package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// Writer is the connection that writes, for faults that only it can have. No
// Tx may run meanwhile.
func (s *Store) Writer() *sql.Conn { return s.db.(*sqliteDB).writer.conn }

// Reader is the pool that reads.
func (s *Store) Reader() *sql.DB { return s.db.reader() }

// Hurry makes s wait for other processes no longer than that. No Tx may run
// meanwhile.
func (s *Store) Hurry(d time.Duration) { s.db.(*sqliteDB).writer.patient = d }

// Patient keeps a batch open for so long, however slow the machine is: for tests in
// which several are to be in one. No Tx may run meanwhile.
func (s *Store) Patient(d time.Duration) { s.db.(*sqliteDB).writer.longest = d }

// Waiting returns how many parts have asked for a turn and have had none.
func (s *Store) Waiting() int { return len(s.db.(*sqliteDB).writer.queue) }

// Exec runs any statement.
func (t *Tx) Exec(q string, args ...any) (int64, error) { return t.exec(q, args...) }

// OpenPool opens a connection with one setting.
func OpenPool(ctx context.Context, path, name, value, reads string) error {
	db, err := openPool(ctx, path, 1, []pragma{{name, value, reads}})
	if err != nil {
		return err
	}
	return db.Close()
}

// Kept returns how many rows are kept: credentials by their hash and by their
// public part, and agents.
func (s *Store) Kept() (byHash, byKeyID, agents int) {
	r := s.recent
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byHash.newer.of) + len(r.byHash.older.of),
		len(r.byKeyID.newer.of) + len(r.byKeyID.older.of),
		len(r.byName.newer.of) + len(r.byName.older.of)
}

// AskedBefore is Credential for somebody who asked while the store was open.
func (s *Store) AskedBefore(protocol string, hash [32]byte) (Credential, error) {
	return remembered(s.recent, &s.recent.byHash, keyHash{protocol, hash}, credentialID, func() (c Credential, err error) {
		return c, s.rows.get(context.Background(), selectKey, []any{protocol, hash[:]}, c.dest())
	})
}

// KeptOfServer returns how many rows of a server are kept: credentials and agents.
func (s *Store) KeptOfServer() (keys, agents int) {
	k := &s.shared.kept
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.byHash.newer.of) + len(k.byHash.older.of), len(k.byName.newer.of) + len(k.byName.older.of)
}

// RowReads returns how often a server was asked for rows, not only whether they are
// what is kept.
func (s *Store) RowReads() uint64 { return s.shared.rowReads.Load() }

// KeepAtMost is how many rows of a kind are kept. Nobody may ask meanwhile.
func (s *Store) KeepAtMost(n int) { s.recent.max = n }

// AdmitPostgres reports why a gateway may not open a database of PostgreSQL.
func AdmitPostgres(ctx context.Context, url string) (err error) {
	cfg, _, err := parsePostgres(url)
	if err != nil {
		return err
	}
	pool := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, pool.Close()) }()
	return admitPostgres(ctx, pool)
}

// Sync has the write-ahead log synced by sync, which may do so by how it was done
// before. It reports whether the log is synced behind the writer here. No Tx may run
// meanwhile.
func (s *Store) Sync(by func(sync func() error) error) bool {
	log := s.db.(*sqliteDB).writer.log
	if log == nil {
		return false
	}
	before := log.sync
	log.sync = func(f *os.File) error { return by(func() error { return before(f) }) }
	return true
}

// KeptSealed returns how many lists of what is sealed are kept.
func (s *Store) KeptSealed() int {
	r := s.recent
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sealed.newer.of) + len(r.sealed.older.of)
}

// Pauses is how many pauses the writer of SQLite is still to make for others.
func (t *Tx) Pauses() int { return t.q.(*writer).polite }

// SyncDatabase has the database synced by sync when pages of the log were moved into
// it, and not only by SQLite. No Tx may run meanwhile.
func (s *Store) SyncDatabase(sync func() error) { s.db.(*sqliteDB).writer.checkpoints.sync = sync }
