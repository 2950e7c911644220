package credstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// files is what the store asks of a file system. It is a seam: tests run as
// root, whom no permission stops, so a disk that is full or read-only is put in
// here.
type files interface {
	// Create makes a new file, 0600, that must not exist.
	Create(path string) (newFile, error)
	Rename(from, to string) error
	Remove(path string) error
	Mkdir(path string) error
	SyncDir(path string) error
}

// newFile is what is being written.
type newFile interface {
	io.WriteCloser
	Sync() error
}

type osFiles struct{}

func (osFiles) Create(path string) (newFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Rename goes through os.Root, because on Windows that replaces a file while
// another process reads it, and os.Rename does not. Both are in one directory.
func (osFiles) Rename(from, to string) error {
	dir, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Rename(filepath.Base(from), filepath.Base(to))
}

func (osFiles) Remove(path string) error { return os.Remove(path) }

func (osFiles) Mkdir(path string) error { return os.MkdirAll(path, 0o700) }

func (osFiles) SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // there is no such call; NTFS journals the names
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readFile reads a file of at most limit bytes, sharing it with whoever
// replaces it meanwhile.
func readFile(path string, limit int64) ([]byte, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	f, err := dir.Open(filepath.Base(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, nil
}

// writeFile puts data into the place of the file at path, all of it or nothing.
// It is durable when it returns; when it fails, former is there as before (nil:
// no file). Nobody else may be writing the file.
func writeFile(on files, path string, data, former []byte) error {
	if err := replace(on, path, data); err != nil {
		return err
	}
	err := on.SyncDir(filepath.Dir(path))
	if err == nil {
		return nil
	}
	// The new content is there and may be gone after a power cut. Nobody must
	// rely on it, so the former one goes back.
	if former == nil {
		return errors.Join(err, on.Remove(path))
	}
	return errors.Join(err, replace(on, path, former))
}

func replace(on files, path string, data []byte) (err error) {
	// The name is fixed, so that what a killed process left is not one more
	// file each time.
	temp := path + ".new"
	if err := on.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := on.Create(temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = on.Remove(temp)
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(data))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return on.Rename(temp, path)
}
