package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// applicationID marks a SQLite file as ours ("ENLS"), so that a mistyped path
// does not put our tables into somebody else's database.
const applicationID = "1162759251"

const (
	// lockTimeout is how long to wait for other processes that open the same
	// database: longer than any migration takes.
	lockTimeout = 30 * time.Second
	lockPoll    = 5 * time.Millisecond
)

// pragma is a setting of a connection. SQLite ignores a misspelt one, so what
// must not be missing is read back.
type pragma struct{ name, value, reads string }

func writerPragmas() []pragma {
	return []pragma{
		{"busy_timeout", "5000", "5000"}, // how long to wait for the writer of another process
		{"journal_mode", "WAL", "wal"},
		{"synchronous", "FULL", "2"}, // a commit is on the disk,
		{"fullfsync", "1", "1"},      // and on macOS not only in the disk's cache
		{"foreign_keys", "1", "1"},
		// KiB. After most commits SQLite looks at all pages that it keeps (where a page was
		// split, and put in order with its neighbours by way of a page number that is beyond
		// the end: it drops what is there). With the 128 MiB in which the hashes of a
		// million credentials would fit, a commit for a dozen takes longer over that than it
		// saves by reading nothing: the system has the pages in memory, too.
		{"cache_size", "-8192", ""},
		{"wal_autocheckpoint", "0", "0"}, // it would be done inside a COMMIT; the checkpointer does it
		{"journal_size_limit", "67108864", "67108864"},
	}
}

func readerPragmas() []pragma {
	return []pragma{
		{"busy_timeout", "5000", "5000"},
		{"query_only", "1", "1"},
		{"mmap_size", "268435456", ""},
	}
}

func sqliteWords() *strings.Replacer {
	return strings.NewReplacer("${ID}", "INTEGER PRIMARY KEY", "${BYTES}", "BLOB", "${SORTED}", "TEXT")
}

// sqliteDB is the dialect of SQLite: a pool that reads, and one connection that
// writes for everybody.
type sqliteDB struct {
	path   string
	write  *sql.DB
	read   *sql.DB
	rows   *rowReader
	recent *recent
	writer *writer
	use    use
	file   *walFile
}

// openSQLite opens a database file. A lock on a file beside it keeps other
// processes from creating or migrating it at the same time.
func openSQLite(ctx context.Context, path string, now func() time.Time, log *slog.Logger) (_ *sqliteDB, err error) {
	if path == "" {
		return nil, errors.New("no path was given")
	}
	path, err = located(path)
	if err != nil {
		return nil, err
	}
	db := &sqliteDB{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(advise(err), db.close())
		}
	}()
	lock := flock.New(path + ".lock")
	wait, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if _, err := lock.TryLockContext(wait, lockPoll); err != nil {
		return nil, fmt.Errorf("wait for other processes that open it (%s): %w", lock.Path(), err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	if db.use, err = share(ctx, path); err != nil {
		return nil, err
	}

	if err := create(path); err != nil {
		return nil, err
	}
	if db.file, err = claimWALIndex(path); err != nil {
		return nil, err
	}
	if db.write, err = openPool(ctx, path, 1, writerPragmas()); err != nil {
		return nil, err
	}
	if err := claim(ctx, db.write); err != nil {
		return nil, err
	}
	if err := migrateSQLite(ctx, db.write.Driver(), path, log); err != nil {
		return nil, err
	}
	if db.read, err = openPool(ctx, path, max(4, 2*runtime.GOMAXPROCS(0)), readerPragmas()); err != nil {
		return nil, err
	}
	if db.rows, err = newRowReader(db.read.Driver(), dsnOf(path, readerPragmas()), max(4, 2*runtime.GOMAXPROCS(0))); err != nil {
		return nil, err
	}
	checkpoints, err := openPool(ctx, path, 1, writerPragmas())
	if err != nil {
		return nil, err
	}
	index, err := db.file.view(path)
	if err != nil {
		return nil, errors.Join(err, checkpoints.Close())
	}
	db.recent = &recent{index: index, max: maxRecent}
	db.writer, err = startWriter(ctx, path, db.write, newCheckpointer(checkpoints, db.file.sync, log), db.recent, db.explain, now)
	return db, err
}

// create makes the file if it is not there, for its owner only: SQLite gives its
// other files the mode of this one. One that is there is not opened: this process
// may have it open already, and would lose its locks on it when the second
// descriptor is closed.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return mayOpen(path)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// openPool opens connections with the given settings and checks that one has
// them.
func openPool(ctx context.Context, path string, size int, pragmas []pragma) (_ *sql.DB, err error) {
	db, err := sql.Open("sqlite", dsnOf(path, pragmas))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	for _, p := range pragmas {
		if p.reads == "" {
			continue
		}
		var got string
		err := db.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got)
		if err != nil && !errors.Is(err, sql.ErrNoRows) { // no row: SQLite does not know it
			return nil, err
		}
		if got != p.reads {
			return nil, fmt.Errorf("SQLite does not take the setting %s: it is %q, want %q", p.name, got, p.reads)
		}
	}
	return db, nil
}

// dsnOf is what the driver opens a file with the given settings by.
func dsnOf(path string, pragmas []pragma) string {
	q := url.Values{"_txlock": {"immediate"}, "_dqs": {"0"}}
	for _, p := range pragmas {
		q.Add("_pragma", p.name+"("+p.value+")")
	}
	return fileURL(path, q)
}

// fileURL is how SQLite is told of a file, with settings.
func fileURL(path string, q url.Values) string {
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // file:///C:/…
	}
	dsn := url.URL{Scheme: "file", Path: slashed, RawQuery: q.Encode()}
	return dsn.String()
}

// claim marks a database that is empty as ours and refuses one that is
// somebody else's.
func claim(ctx context.Context, db *sql.DB) error {
	var id string
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id == applicationID {
		return nil
	}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if tables > 0 {
		return errors.New("it belongs to another program; give the path of a new file or of one that Enlist made")
	}
	_, err := db.ExecContext(ctx, "PRAGMA application_id = "+applicationID)
	return err
}

func (db *sqliteDB) tx(ctx context.Context, fn func(*Tx) error) error {
	return db.writer.tx(ctx, fn, false)
}

// passing is tx without the wait for the disk.
func (db *sqliteDB) passing(ctx context.Context, fn func(*Tx) error) error {
	return db.writer.tx(ctx, fn, true)
}

func (db *sqliteDB) eachPassing(ctx context.Context, fn func(*Tx) error) error {
	return db.writer.tx(ctx, fn, true)
}

// each is tx: a writer that is alone has nothing to lose by it.
func (db *sqliteDB) each(ctx context.Context, fn func(*Tx) error) error {
	return db.writer.tx(ctx, fn, false)
}

// persist does it once: SQLite has no connection that could be lost.
func (*sqliteDB) persist(_ context.Context, do func() (bool, error)) error {
	_, err := do()
	return err
}

func (*sqliteDB) passes(error) bool { return false }

func (db *sqliteDB) reader() *sql.DB { return db.read }

// close closes what is open. The writer's connection is the last: SQLite then
// moves everything into the main file.
func (db *sqliteDB) close() error {
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.stop())
	}
	if db.rows != nil {
		errs = append(errs, db.rows.close())
	}
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if db.recent != nil {
		db.recent.end()
	}
	if db.file != nil {
		errs = append(errs, db.file.release())
	}
	return errors.Join(append(errs, db.use.end())...)
}

// explain says which database it was, and what can be done.
func (db *sqliteDB) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("database %s: %w", db.path, advise(err))
}

// isBusy reports whether another process has what err was to get.
func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// advise says what an error of SQLite means and what can be done.
func advise(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	var says string
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		says = "the disk is full; free some space"
	case sqlite3.SQLITE_IOERR:
		says = "the disk failed or is full; look at it and at the system's log"
	case sqlite3.SQLITE_BUSY:
		says = "another process kept the database busy for too long; end it or try again"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		says = "the database cannot be written; look at the owner and the mode of the file and of its folder"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		says = "the file is damaged or is no database; restore a backup"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", says, err)
}
