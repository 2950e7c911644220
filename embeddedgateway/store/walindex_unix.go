//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// walIndexes are the files that this process looks at. It is shared by all, as
// SQLite's own list of them is, for the same reason: a process that closes any
// descriptor of a file loses all locks that it has on it (POSIX, fcntl), those
// of SQLite too. So there is one descriptor for each file, and it is closed when
// this process has the database open nowhere.
//
//nolint:gochecknoglobals // as said
var walIndexes = struct {
	sync.Mutex
	open map[fileID]*walFile // by the database
}{open: map[fileID]*walFile{}}

// fileID is what a file is, whatever it is called.
type fileID struct{ dev, ino uint64 }

// walFile is a database that this process has open.
type walFile struct {
	database fileID
	users    int
	views    []walView
	main     *os.File // to sync it
}

// walView is a file of shared memory. There is more than one for a database only
// if SQLite has deleted it and made another.
type walView struct {
	id     fileID
	fd     int
	memory []byte
}

// claimWALIndex says that the database is about to be opened. The end of
// [walFile.release] is to come after it was closed.
func claimWALIndex(path string) (*walFile, error) {
	id, _, err := identify(path)
	if err != nil {
		return nil, err
	}
	walIndexes.Lock()
	defer walIndexes.Unlock()
	f := walIndexes.open[id]
	if f == nil {
		main, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		f = &walFile{database: id, main: main}
		walIndexes.open[id] = f
	}
	f.users++
	return f, nil
}

// view looks at the shared memory of the database at path, which is open. It is
// nil where the memory is not as expected.
func (f *walFile) view(path string) (*walIndex, error) {
	path += "-shm"
	id, size, err := identify(path)
	if err != nil {
		return nil, err
	}
	if size < int64(2*len(walHeader{})) {
		return nil, nil //nolint:nilnil // nothing to look at is no failure
	}
	walIndexes.Lock()
	defer walIndexes.Unlock()
	for _, v := range f.views {
		if v.id == id {
			return &walIndex{memory: v.memory, file: f}, nil
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	v := walView{fd: fd}
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil {
		v.id = statID(&stat)
		v.memory, err = unix.Mmap(fd, 0, 2*len(walHeader{}), unix.PROT_READ, unix.MAP_SHARED)
	}
	f.views = append(f.views, v) // also after an error: not to be closed before the database
	if err != nil || v.id != id {
		return nil, errors.Join(err, fmt.Errorf("look at the shared memory of the database, %s", path))
	}
	return &walIndex{memory: v.memory, file: f}, nil
}

// release says that the database was closed.
func (f *walFile) release() error {
	walIndexes.Lock()
	defer walIndexes.Unlock()
	if f.users--; f.users > 0 {
		return nil
	}
	delete(walIndexes.open, f.database)
	errs := []error{f.main.Close()}
	for _, v := range f.views {
		if v.memory != nil {
			errs = append(errs, unix.Munmap(v.memory))
		}
		errs = append(errs, unix.Close(v.fd))
	}
	return errors.Join(errs...)
}

// sync puts on the disk what was written to the database itself, as far as that can
// be left to somebody who has not written it.
func (f *walFile) sync() error { return syncDatabase(f.main) }

// mayOpen reports why this process may not read and write a file, without opening
// it.
func mayOpen(path string) error {
	var stat unix.Stat_t
	err := unix.Stat(path, &stat)
	if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.EISDIR
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

// located is where the file of a database is, behind symbolic links: SQLite keeps
// its other files beside the file itself. What lies beside a link, under their
// names, is of some other time, and nobody keeps it up to date.
func located(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	file, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return file, err
}

func identify(path string) (id fileID, size int64, err error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return id, 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return statID(&stat), stat.Size, nil
}

// statID is the file's; the types of its parts differ between systems.
func statID(s *unix.Stat_t) fileID {
	return fileID{uint64(s.Dev), uint64(s.Ino)} //nolint:unconvert // it is not on every system
}
