package credstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// with opens the database if it is not open, or if another file is in its place.
func (x *index) with(ctx context.Context, op string, f func(*sql.DB) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	err := patiently(ctx, x.pause, func() error { return x.try(ctx, f) })
	if err == nil {
		return nil
	}
	return x.problem(op, err)
}

func (x *index) try(ctx context.Context, f func(*sql.DB) error) error {
	stat, err := os.Stat(x.path)
	if err == nil && !os.SameFile(stat, x.opened) {
		// If somebody moved the file that db has open, SQLite notices, and
		// does not delete the log of the new one, which has the same name.
		_ = x.drop()
		err = x.open(ctx, stat)
	}
	if err != nil {
		return err
	}
	return f(x.db)
}

func (x *index) open(ctx context.Context, stat fs.FileInfo) error {
	db, err := sql.Open("sqlite", x.dsn(x.path))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := inspect(ctx, db); err != nil {
		_ = db.Close()
		return err
	}
	x.db, x.opened = db, stat
	return nil
}

var (
	// errForeign: the file is a database, but not the index.
	errForeign = errors.New("not an index of this version")
	// errNewerIndex: it is one, and what is in it this Enlist may not understand.
	errNewerIndex = errors.New("the index was written by a newer Enlist")
)

// maxIndexVersion tells a version to come from garbage in its place.
const maxIndexVersion = 999

// inspect looks for damage, so that it is found at once and not row by row.
func inspect(ctx context.Context, db *sql.DB) error {
	var verdict, table string
	var version int
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errForeign, verdict)
	}
	if err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	err := db.QueryRowContext(ctx, `SELECT sql FROM sqlite_schema`).Scan(&table)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if version > indexVersion && version <= maxIndexVersion {
		return fmt.Errorf("version %d: %w", version, errNewerIndex)
	}
	if version != indexVersion || table != indexTable {
		return errForeign
	}
	return nil
}

// dsn is the name of a database for the driver: many processes, durable commits.
func (x *index) dsn(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: fmt.Sprintf("_txlock=immediate&_dqs=0&_pragma=busy_timeout(%d)", BusyMillis) +
		"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=trusted_schema(0)" + x.pragmas}
	return u.String()
}
