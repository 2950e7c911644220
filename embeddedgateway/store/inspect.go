package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Inspection is what there is to know of a database before it is opened.
type Inspection struct {
	Exists  bool
	Version int64 // of its tables; 0: unknown, or it has none yet
	Knows   int64 // the version that this program brings them to
}

// InspectSQLite looks at a SQLite file, and whether it could be opened and written
// here, and changes nothing: it makes no file and migrates nothing. A file that
// is not there is no error, if it could be made.
func InspectSQLite(ctx context.Context, path string) (Inspection, error) {
	seen := Inspection{Knows: newest()}
	path, err := filepath.Abs(path)
	if err != nil {
		return seen, err
	}
	folder := filepath.Dir(path)
	for {
		if _, err = os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		folder = filepath.Dir(folder) // it is made at the start
	}
	if err == nil {
		err = writable(folder)
	}
	if err != nil {
		return seen, fmt.Errorf("the folder %s cannot be written; look at its owner and its mode: %w", folder, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return seen, nil
	}
	if err != nil {
		return seen, fmt.Errorf("the database cannot be written; look at the owner and the mode of the file: %w", err)
	}
	defer f.Close()
	seen.Exists = true
	return seen, seen.look(ctx, f, path)
}

// look reads what SQLite's header and the table of versions say.
func (i *Inspection) look(ctx context.Context, f *os.File, path string) error {
	header := make([]byte, 100)
	n, err := f.ReadAt(header, 0)
	switch {
	case n == 0:
		return nil // made, and not used yet
	case err != nil && n < len(header), !bytes.HasPrefix(header, []byte("SQLite format 3\x00")):
		return errors.New("the file is damaged or is no database; give the path of another, or restore a backup")
	}
	id := strconv.FormatUint(uint64(binary.BigEndian.Uint32(header[68:])), 10)
	if id == "0" {
		return nil // what is in it may be in the log still
	}
	if id != applicationID {
		return errors.New("it belongs to another program; give the path of a new file or of one that Enlist made")
	}
	// Immutable, so that no file is made beside it. What is in the log only is
	// not seen; the version is then an older one.
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: "mode=ro&immutable=1"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // it only reads
	if db.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&i.Version) == nil && i.Version > i.Knows {
		return i.newer()
	}
	return nil
}

// newer says that a newer version of the program has been here.
func (i *Inspection) newer() error {
	return fmt.Errorf("it was written by a newer version of Enlist (its tables are at version %d, this one knows %d); "+
		"use that version, or another database", i.Version, i.Knows)
}

// newest is the version of the last migration.
func newest() (version int64) {
	entries, _ := fs.ReadDir(migrations, "migrations") // they are in the program
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			version = max(version, n)
		}
	}
	return version
}
