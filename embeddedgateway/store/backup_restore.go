package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Restoring says what is to be restored, and how.
type Restoring struct {
	From string // the backup
	Path string // the SQLite database, which need not be there
	// Mark is the kind of the sealed thing that tells one database from
	// another. Verify gets that of the backup, nil if it has none, and refuses
	// what must not be restored.
	Mark   string
	Verify func(mark []byte) error
	// AsItWas brings back what was ended since the backup.
	AsItWas bool
	Now     func() time.Time
}

// Restored says what was restored.
type Restored struct {
	Contents
	Aside string // where the database is that was there before; "" if there was none
	// Compared is whether that database could be read and is a later state of
	// the backup. If not, the rest is unknown.
	Compared bool
	// Ended is what was ended since the backup: keys revoked, agents suspended,
	// tickets used or replaced. It stays ended, unless AsItWas.
	KeysRevoked, AgentsSuspended, TicketsUsed int
	// KeysLost is how many keys were issued since the backup, and are unknown
	// now. KeysBack is how many the database had no record of any more, and
	// that work again.
	KeysLost, KeysBack int
}

// Restore puts a backup in the place of a database, and keeps the one that was
// there under another name. It is [ErrInUse] if somebody has that open. The
// backup stays as it is. Until the last step, which is one rename, nothing has
// changed.
func Restore(ctx context.Context, r Restoring) (_ Restored, err error) {
	if r.From, err = filepath.Abs(r.From); err != nil {
		return Restored{}, err
	}
	if r.Path, err = located(r.Path); err != nil {
		return Restored{}, err
	}
	if err := fitToRestore(r); err != nil {
		return Restored{}, err
	}
	use, err := exclude(r.Path)
	if err != nil {
		return Restored{}, fmt.Errorf("database %s: %w", r.Path, err)
	}
	defer func() { err = errors.Join(err, use.end()) }()
	there, whole, err := previous(ctx, r.Path)
	if err != nil {
		return Restored{}, fmt.Errorf("database %s: %w", r.Path, advise(err))
	}
	if err := sweepRestores(r.Path); err != nil {
		return Restored{}, err
	}
	temp, err := copyFile(ctx, r.From, filepath.Dir(r.Path), restoring(r.Path))
	if err != nil {
		return Restored{}, err
	}
	defer func() { // when it has its name, it is not there
		for _, ext := range []string{"", "-wal", "-shm", "-journal"} {
			_ = os.Remove(temp + ext)
		}
	}()
	done, err := prepareRestored(ctx, r, temp, whole)
	if err != nil {
		return Restored{}, fmt.Errorf("backup %s: %w", r.From, advise(err))
	}
	if there {
		done.Aside = r.Path + ".before-restore-" + r.Now().UTC().Format("20060102T150405.000000Z")
		if err := setAside(r.Path, done.Aside); err != nil {
			return Restored{}, err
		}
	}
	if err := settle(temp, r.Path, true); err != nil {
		if there { // else it would be another name of the same file
			err = errors.Join(err, os.Remove(done.Aside))
		}
		return Restored{}, err
	}
	return done, nil
}

// fitToRestore refuses what can be seen from the names.
func fitToRestore(r Restoring) error {
	if sameFile(r.From, r.Path) {
		return fmt.Errorf("%s is the database itself", r.From)
	}
	info, err := os.Stat(r.From + "-wal")
	if err == nil && info.Size() > 0 {
		return fmt.Errorf("%s is a database that is open, or was not closed, and no backup: beside it is %s-wal, "+
			"in which its last changes are", r.From, filepath.Base(r.From))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// previous looks at the database that is to be replaced: whether it is there,
// and whether it is good enough to be read. Afterwards it is one file, if it is
// good.
func previous(ctx context.Context, path string) (there, whole bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	} else if err != nil {
		return false, false, err
	}
	_, err = seal(ctx, path)
	if errors.Is(err, ErrInUse) || ctx.Err() != nil {
		return true, false, err
	}
	return true, err == nil, nil // who restores may do so because it is not good
}

// restoring is how the names begin of what is to take the place of a database.
func restoring(path string) string { return "." + filepath.Base(path) + ".restore-" }

// sweepRestores deletes what restores of a database have left that were killed.
// Nobody else restores it.
func sweepRestores(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), restoring(path)) {
			if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFile copies a file into a folder, readable by its owner only, and returns
// its name, which begins as it is told.
func copyFile(ctx context.Context, from, dir, begin string) (name string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(dir, begin+"*") // 0600
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, contextReader{ctx, in})
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", errors.Join(err, os.Remove(out.Name()))
	}
	return out.Name(), nil
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

// Read implements [io.Reader].
func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// prepareRestored checks the copy of a backup and makes it what is to take the
// place of the previous database.
func prepareRestored(ctx context.Context, r Restoring, temp string, whole bool) (done Restored, err error) {
	if done.Contents, err = seal(ctx, temp); err != nil {
		return done, err
	}
	all, err := knownMigrations()
	if err != nil {
		return done, err
	}
	if err := newer(done.Version, all[len(all)-1].Version); err != nil {
		return done, err
	}
	db, err := openAlone(ctx, temp)
	if err != nil {
		return done, err
	}
	mark, err := markOf(ctx, db, "main", r.Mark)
	if err == nil {
		err = r.Verify(mark)
	}
	if err == nil && whole && len(mark) > 0 {
		err = compare(ctx, db, r, mark, &done)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return done, err
	}
	return done, syncFile(temp)
}

// markOf returns the mark of a database, nil if it has none.
func markOf(ctx context.Context, db *sql.DB, schema, kind string) (mark []byte, err error) {
	var tables int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM "+schema+".sqlite_schema WHERE name = 'sealed'").Scan(&tables)
	if err != nil || tables == 0 {
		return nil, err
	}
	err = db.QueryRowContext(ctx, "SELECT data FROM "+schema+".sealed WHERE kind = $1 ORDER BY id LIMIT 1", kind).Scan(&mark)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return mark, err
}

// setAside gives the previous database another name, which it has beside its
// own until that is taken from it. A log that is still there belongs to a
// database that is damaged; it must not come beside the restored one.
func setAside(path, aside string) error {
	for _, ext := range []string{"-wal", "-shm", "-journal"} {
		if err := os.Rename(path+ext, aside+ext); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Link(path, aside); err != nil {
		return fmt.Errorf("keep the previous database: %w", err)
	}
	return nil
}
