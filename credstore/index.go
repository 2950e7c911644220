package credstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite" // registers the driver, too
	sqlite3 "modernc.org/sqlite/lib"
)

// phase is how far a row of the index is from what the vault holds.
type phase string

const (
	settled  phase = "settled"  // the vault holds what the row says
	adding   phase = "adding"   // a first Put is under way, or was when its process ended
	changing phase = "changing" // a Put over a former credential is
	deleting phase = "deleting" // a Delete is
)

// row is a row of the index.
type row struct {
	Info
	phase phase
}

// index is the list of what is in the vault, because a keyring cannot be
// listed. Nothing in it is secret. It is a SQLite database that several
// processes share, and one that a person may move away at any time.
type index struct {
	on      files
	path    string
	pragmas string                      // more of them, from tests
	pause   func(context.Context) error // before what was in the way is tried again

	mu     sync.Mutex
	db     *sql.DB     // nil: not open
	opened fs.FileInfo // the file that db has open

	rows    []row // what all read last; nil: to be read again
	by      any   // the connection that read it
	version int64 // as of which change of others, as that counts them
}

const (
	indexVersion = 1
	indexListed  = 1 // the application id of an index whose vault has a list
	indexTable   = `CREATE TABLE credentials (
	protocol TEXT NOT NULL,
	origin TEXT NOT NULL,
	agent TEXT NOT NULL,
	kind TEXT NOT NULL,
	label TEXT NOT NULL,
	phase TEXT NOT NULL,
	state TEXT NOT NULL,
	key_id TEXT NOT NULL,
	created_at INTEGER,
	expires_at INTEGER,
	attrs TEXT NOT NULL,
	sum BLOB NOT NULL,
	PRIMARY KEY (protocol, origin, agent, kind, label)
) STRICT, WITHOUT ROWID`
	indexColumns = `protocol, origin, agent, kind, label, phase, state, key_id, created_at, expires_at, attrs, sum`
	indexUpsert  = `INSERT OR REPLACE INTO credentials (` + indexColumns + `)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
	indexWhere = ` WHERE protocol = $1 AND origin = $2 AND agent = $3 AND kind = $4 AND label = $5`
)

// exists reports whether there is an index.
func (x *index) exists() bool {
	_, err := os.Stat(x.path)
	return !errors.Is(err, fs.ErrNotExist)
}

// create makes the index with some rows, unless there is one. It appears
// complete or not at all. The caller holds the write lock.
func (x *index) create(ctx context.Context, infos []Info) error {
	if x.exists() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	temp := x.path + ".new"
	err := errors.Join(x.clear(x.path), x.clear(temp))
	if err == nil {
		err = x.build(ctx, temp, infos)
	}
	if err == nil {
		err = x.on.Rename(temp, x.path)
	}
	if err == nil {
		err = x.on.SyncDir(filepath.Dir(x.path))
	}
	if err != nil {
		_ = x.clear(temp)
		return x.problem("write", err)
	}
	return nil
}

// setAside moves the index and what lies beside it away, for who wants to look
// at it, and returns where it is now. The caller holds the write lock.
func (x *index) setAside(now time.Time) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_ = x.drop()
	to := x.path + ".damaged-" + stampOf(now)
	for n := 2; ; n++ {
		if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.damaged-%s-%d", x.path, stampOf(now), n)
	}
	// The index first: what it leaves behind create clears.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := x.on.Rename(x.path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", &Error{
				Op: "repair", Place: x.path, Kind: ErrUnavailable, Cause: err,
				Remedy: "end every other enlist process and try again, or move it away yourself",
			}
		}
	}
	return to, nil
}

// clear removes a database and what lies beside it: SQLite would take that for
// a part of the next one.
func (x *index) clear(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := x.on.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (x *index) build(ctx context.Context, path string, infos []Info) (err error) {
	f, err := x.on.Create(path) // SQLite takes over its mode, for the files beside it too
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", x.dsn(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, indexTable); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", indexVersion)); err != nil {
		return err
	}
	for _, info := range infos {
		if err := upsert(ctx, tx, row{info, settled}); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// list returns the rows of a protocol, or all for "", sorted.
func (x *index) list(ctx context.Context, protocol string) (rows []row, err error) {
	err = x.with(ctx, "list", func(db *sql.DB) error {
		all, err := x.all(ctx, db)
		for _, r := range all {
			if protocol == "" || r.Protocol == protocol {
				r.Attrs = maps.Clone(r.Attrs)
				rows = append(rows, r)
			}
		}
		return err
	})
	return rows, err
}

// all returns every row, sorted. It reads them only when somebody has written
// since the last time: whoever makes a request lists what is stored several
// times. Nobody changes what it returns.
func (x *index) all(ctx context.Context, db *sql.DB) ([]row, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	// Each connection counts anew, and one whose query was cancelled is replaced.
	var by any
	if err := conn.Raw(func(c any) error { by = c; return nil }); err != nil {
		return nil, err
	}
	var version int64 // counts what other connections have committed
	if err := conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
		return nil, err
	}
	if x.rows != nil && x.by == by && x.version == version {
		return x.rows, nil
	}
	rows, err := scanAll(conn.QueryContext(ctx, `SELECT `+indexColumns+` FROM credentials ORDER BY protocol, origin, agent, kind, label`))
	if err != nil {
		return nil, err
	}
	if rows == nil {
		rows = []row{}
	}
	// What was committed in between shows in the next version.
	x.rows, x.by, x.version = rows, by, version
	return rows, nil
}

// find returns the row of a key.
func (x *index) find(ctx context.Context, k Key) (r row, ok bool, err error) {
	err = x.with(ctx, "read", func(db *sql.DB) error {
		all, err := x.all(ctx, db)
		if n := slices.IndexFunc(all, func(r row) bool { return r.Key == k }); n >= 0 {
			r, ok = all[n], true
			r.Attrs = maps.Clone(r.Attrs)
		}
		return err
	})
	return r, ok, err
}

// listed reports whether the vault's own list names what the index does. It is
// in a field of the database that an older Enlist leaves alone.
func (x *index) listed(ctx context.Context) (listed bool, err error) {
	err = x.with(ctx, "read", func(db *sql.DB) error {
		var id int
		err := db.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id)
		listed = id == indexListed
		return err
	})
	return listed, err
}

// setListed notes that the vault's own list is complete. The caller holds the
// write lock.
func (x *index) setListed(ctx context.Context) error {
	return x.with(ctx, "write", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", indexListed))
		return err
	})
}

// put writes a row in the place of the one with its key. The caller holds the
// write lock and has created the index.
func (x *index) put(ctx context.Context, r row) error {
	return x.with(ctx, "write", func(db *sql.DB) error {
		x.rows = nil
		return upsert(ctx, db, r)
	})
}

// remove removes the row of a key, if there is one.
func (x *index) remove(ctx context.Context, k Key) error {
	return x.with(ctx, "delete", func(db *sql.DB) error {
		x.rows = nil
		_, err := db.ExecContext(ctx, `DELETE FROM credentials`+indexWhere, keyArgs(k)...)
		return err
	})
}

// close closes the database, if it is open.
func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.drop()
}

func (x *index) drop() error {
	if x.db == nil {
		return nil
	}
	err := x.db.Close()
	x.db, x.opened, x.rows, x.by = nil, nil, nil, nil
	return err
}

// problem tells damage from what passes.
func (x *index) problem(op string, err error) error {
	kind, remedy := ErrUnavailable, diskRemedy(err, filepath.Dir(x.path))
	damaged := errors.Is(err, errForeign)
	var failed *sqlite.Error
	if errors.As(err, &failed) {
		// The disk reads, and the file ends before its content does.
		damaged = damaged || failed.Code() == sqlite3.SQLITE_IOERR_SHORT_READ
		switch failed.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT:
			damaged = true
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
			// A full disk fails a read too, which needs the shared memory beside
			// the index, and then SQLite says I/O error.
			remedy = "free some space on the disk of " + filepath.Dir(x.path) + ", or check it"
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			remedy = "another enlist process is busy; try again"
		}
	}
	if errors.Is(err, errNewerIndex) {
		_ = x.drop()
		return &Error{Op: op, Place: x.path, Kind: ErrDamaged, Cause: err, Remedy: "update Enlist"}
	}
	if damaged {
		kind = ErrDamaged
		// Processes that have it open must not go on with the damaged file.
		_ = x.drop()
		remedy = fmt.Sprintf("enlist doctor --repair does it, or move %[1]s, %[1]s-wal and %[1]s-shm away: the secrets are safe, the index holds none, and it is made again of what is stored with them", x.path)
	}
	return &Error{Op: op, Place: x.path, Kind: kind, Cause: err, Remedy: remedy}
}

// diskTrouble reports whether it is the disk that keeps the index from being
// used: then what is in it is neither damaged nor being changed.
func diskTrouble(err error) bool {
	var failed *sqlite.Error
	if errors.As(err, &failed) {
		switch failed.Code() & 0xff {
		case sqlite3.SQLITE_IOERR:
			return failed.Code() != sqlite3.SQLITE_IOERR_SHORT_READ
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
			return true
		}
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS)
}

// execer is a [sql.DB] or a [sql.Tx].
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func upsert(ctx context.Context, to execer, r row) error {
	attrs, err := json.Marshal(r.Attrs)
	if err != nil {
		return err
	}
	created, expires := unixMillis(r.CreatedAt), unixMillis(r.ExpiresAt)
	_, err = to.ExecContext(ctx, indexUpsert, append(keyArgs(r.Key),
		string(r.phase), string(r.State), r.KeyID, created, expires, string(attrs), r.sum())...)
	return err
}

func keyArgs(k Key) []any {
	return []any{k.Protocol, k.Origin, k.Agent, string(k.Kind), k.Label}
}

// scanAll reads rows and checks that each is as it was written.
func scanAll(rows *sql.Rows, err error) ([]row, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []row
	for rows.Next() {
		var r row
		var created, expires sql.NullInt64
		var attrs string
		var sum []byte
		if err := rows.Scan(&r.Protocol, &r.Origin, &r.Agent, &r.Kind, &r.Label, &r.phase, &r.State, &r.KeyID,
			&created, &expires, &attrs, &sum); err != nil {
			return nil, err
		}
		r.CreatedAt, r.ExpiresAt = fromMillis(created), fromMillis(expires)
		if json.Unmarshal([]byte(attrs), &r.Attrs) != nil || string(sum) != string(r.sum()) {
			return nil, fmt.Errorf("%w: a row was altered", errForeign)
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// sum is a checksum of the row: SQLite does not notice when a text changes.
func (r row) sum() []byte {
	// Strings, numbers and maps of strings always marshal.
	b, _ := json.Marshal([]any{keyArgs(r.Key), r.phase, r.State, r.KeyID, unixMillis(r.CreatedAt), unixMillis(r.ExpiresAt), r.Attrs})
	sum := sha256.Sum256(b)
	return sum[:8]
}

func unixMillis(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

func fromMillis(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMilli(n.Int64).UTC()
}
