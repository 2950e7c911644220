package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"modernc.org/sqlite"
)

// Contents says what is in a database.
type Contents struct {
	Version     int64 // of its tables
	Agents      int
	Credentials int // all of them, those that are expired or revoked too
}

// backupPages is how much of a backup is copied before it looks whether it is
// still wanted.
const backupPages = 4096

// Backup writes a SQLite database into another file, as it is at one moment,
// while others read and write it. The file is readable by its owner only, and
// it is there whole and checked or not at all. What was there before is
// replaced only with force; else it is [fs.ErrExist].
func Backup(ctx context.Context, path, to string, force bool) (_ Contents, err error) {
	if path, err = located(path); err != nil {
		return Contents{}, err
	}
	if to, err = filepath.Abs(to); err != nil {
		return Contents{}, err
	}
	switch there, err := os.Stat(to); {
	case err == nil && there.IsDir():
		return Contents{}, fmt.Errorf("%s is a folder: name a file in it", to)
	case err == nil && !force:
		return Contents{}, fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	if sameFile(path, to) {
		return Contents{}, fmt.Errorf("%s is the database itself", to)
	}
	temp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*") // 0600
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // its path is one that nobody named
		}
		return Contents{}, fmt.Errorf("the folder of the backup, %s, cannot be written: %w", filepath.Dir(to), err)
	}
	defer func() { _ = os.Remove(temp.Name()) }() // when it has its name, it is not there
	if err := temp.Close(); err != nil {
		return Contents{}, err
	}
	if err := snapshot(ctx, path, temp.Name()); err != nil {
		return Contents{}, fmt.Errorf("back up %s: %w", path, advise(err))
	}
	has, err := seal(ctx, temp.Name())
	if err != nil {
		return Contents{}, fmt.Errorf("the backup of %s is not good: %w", path, advise(err))
	}
	return has, settle(temp.Name(), to, force)
}

// snapshot copies a database as it is when the copying begins. The transaction
// keeps it so: without one, every write of another connection would have the
// copying begin again.
func snapshot(ctx context.Context, path, to string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	use, err := share(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, use.end()) }()
	db, err := openPool(ctx, path, 1, readerPragmas())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := ours(ctx, db); err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	var n int // the snapshot is taken by the first statement that reads
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n); err != nil {
		return err
	}
	err = conn.Raw(func(c any) error { return copyPages(ctx, c, to) })
	_, ended := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return errors.Join(err, ended)
}

// copyPages copies the database of a connection of the driver into a file. No
// journal is needed: the file is thrown away unless all of it is good.
func copyPages(ctx context.Context, conn any, to string) error {
	from, ok := conn.(interface {
		NewBackup(uri string) (*sqlite.Backup, error)
	})
	if !ok {
		return fmt.Errorf("the driver of SQLite has no backups: %T", conn)
	}
	b, err := from.NewBackup(fileURL(to, url.Values{"_pragma": {"synchronous(OFF)", "journal_mode(OFF)"}}))
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		if err = ctx.Err(); err == nil {
			more, err = b.Step(backupPages)
		}
	}
	return errors.Join(err, b.Finish())
}

// seal makes one file of a database that nobody else has open, checks it, and
// has it on the disk.
func seal(ctx context.Context, path string) (has Contents, err error) {
	db, err := openAlone(ctx, path)
	if err != nil {
		return has, err
	}
	if has, err = examine(ctx, db); err == nil {
		// The log of a database in WAL mode is another file, which would have
		// to be kept with it. It stays in that mode if somebody has it open,
		// even a program that does not know of the lock in use.
		var mode string
		err = db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode)
		if err == nil && mode != "delete" {
			err = ErrInUse
		}
	}
	if isBusy(err) {
		err = ErrInUse
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return has, err
	}
	return has, syncFile(path)
}

// openAlone opens a database that nobody else has open, and keeps others out.
func openAlone(ctx context.Context, path string) (*sql.DB, error) {
	db, err := openPool(ctx, path, 1, []pragma{
		{"busy_timeout", "0", "0"},
		{"locking_mode", "EXCLUSIVE", "exclusive"},
		{"synchronous", "FULL", "2"},
		{"fullfsync", "1", "1"},
	})
	if isBusy(err) {
		err = ErrInUse
	}
	return db, err
}

// ours reports why a database is not one that Enlist made.
func ours(ctx context.Context, db *sql.DB) error {
	var id string
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id != applicationID {
		return errors.New("it is no database of a gateway of Enlist")
	}
	return nil
}

// examine reports why a database is not whole, or else what is in it.
func examine(ctx context.Context, db *sql.DB) (has Contents, err error) {
	if err := ours(ctx, db); err != nil {
		return has, err
	}
	var says string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&says); err != nil {
		return has, err
	}
	if says != "ok" {
		return has, fmt.Errorf("it is damaged: %s", says)
	}
	if has.Version, err = versionOf(ctx, db); err != nil {
		return has, err
	}
	if has.Version == 0 {
		return has, errors.New("it has no tables yet: no gateway has used it")
	}
	err = db.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM agents), (SELECT count(*) FROM credentials)").
		Scan(&has.Agents, &has.Credentials)
	return has, err
}

// settle gives a file its name, for good.
func settle(temp, to string, force bool) error {
	if force {
		if err := os.Rename(temp, to); err != nil {
			return err
		}
	} else if err := os.Link(temp, to); err != nil { // never replaces what is there
		return err
	}
	return syncDir(filepath.Dir(to))
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// syncFile has what was written to a file on the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir has the names in a folder on the disk. Windows does that by itself,
// and opens no folders.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
