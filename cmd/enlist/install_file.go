package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
)

// maxClientFile is the most that a client's file may have.
const maxClientFile = 64 << 20

// clientFile is a client's file as it was read.
type clientFile struct {
	path string // as the client knows it
	real string // what links lead to
	link bool   // the path itself is one
	info fs.FileInfo
	bom  []byte
	body []byte // without the mark; nil: there is no file
}

// openClientFile reads a client's file, through links.
func openClientFile(path string) (*clientFile, error) {
	f := &clientFile{path: path, real: path}
	real, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		f.real = real
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s is a link to a file that is not there", path)
		}
		return f, nil
	}
	if f.info, err = os.Stat(f.real); err != nil {
		return nil, err
	}
	if own, err := os.Lstat(path); err == nil {
		f.link = own.Mode()&fs.ModeSymlink != 0
	}
	if !f.info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	text, err := f.read()
	if err != nil {
		return nil, err
	}
	f.bom, f.body = cutBOM(text)
	if f.body == nil {
		f.body = []byte{}
	}
	return f, nil
}

func (f *clientFile) exists() bool { return f.body != nil }

func (f *clientFile) read() ([]byte, error) {
	in, err := os.Open(f.real)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxClientFile+1))
	if err == nil && len(text) > maxClientFile {
		return nil, fmt.Errorf("%s has more than %d MiB, which no file of settings has", f.path, maxClientFile>>20)
	}
	return text, err
}

// errChanged says that somebody else has written the file.
var errChanged = errors.New("the file was changed while this command ran; nothing was written: give the command again")

// unchanged returns an error if the file is not what was read.
func (f *clientFile) unchanged() error {
	if !f.exists() {
		if _, err := os.Lstat(f.path); err == nil {
			return errChanged
		}
		return nil
	}
	if real, err := filepath.EvalSymlinks(f.path); err != nil || real != f.real {
		return errChanged
	}
	now, err := f.read()
	if err != nil {
		return err
	}
	if !bytes.Equal(now, slices.Concat(f.bom, f.body)) {
		return errChanged
	}
	return nil
}

// write replaces what is in the file, with the same mode and owner, or deletes
// it, if body is nil: all of it or nothing, and nothing if somebody else has
// written it since it was read.
func (f *clientFile) write(body []byte) error {
	if body == nil {
		if err := f.unchanged(); err != nil {
			return err
		}
		return os.Remove(f.real)
	}
	dir := filepath.Dir(f.real)
	if !f.exists() {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	temp, err := os.CreateTemp(dir, "."+filepath.Base(f.real)+"-enlist-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone when it was renamed
	_, err = temp.Write(slices.Concat(f.bom, body))
	if f.exists() && err == nil {
		if err = keepOwner(temp, f.info); err == nil {
			err = os.Chmod(temp.Name(), f.info.Mode().Perm()) // after the owner, whose change can take bits away
		}
	}
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := f.unchanged(); err != nil {
		return err
	}
	if !f.exists() {
		// A link, unlike a rename, does not replace what came there meanwhile.
		err := os.Link(temp.Name(), f.real)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return os.Rename(temp.Name(), f.real)
}

// The names of backups.
const (
	backupInfix = ".enlist-backup-"
	backupTime  = "20060102T150405Z"
)

// backUp copies the file beside the name that the client knows, for nobody but
// the user: not beside what a link leads to, which can be a folder of files that
// are published. A backup never replaces another.
func (f *clientFile) backUp(now time.Time) (string, error) {
	base := f.path + backupInfix + now.UTC().Format(backupTime)
	for n := 1; n < 100; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%02d", base, n)
		}
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("make a backup: %w", err)
		}
		_, err = out.Write(slices.Concat(f.bom, f.body))
		if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
			return "", errors.Join(fmt.Errorf("make a backup: %w", err), os.Remove(name))
		}
		return name, nil
	}
	return "", fmt.Errorf("make a backup: %s and all names like it are taken", base)
}

// maxEarlier is how many backups are looked at.
const maxEarlier = 20

// earlier returns what backups hold, the newest first.
func (f *clientFile) earlier() [][]byte {
	entries, _ := os.ReadDir(filepath.Dir(f.path)) // without them there is only less known
	var found [][]byte
	for _, e := range slices.Backward(entries) { // by name, which is by time
		if len(found) == maxEarlier {
			break
		}
		name, ok := bytes.CutPrefix([]byte(e.Name()), []byte(filepath.Base(f.path)+backupInfix))
		if !ok || len(name) < len(backupTime) || !e.Type().IsRegular() {
			continue
		}
		text, err := (&clientFile{path: f.path, real: filepath.Join(filepath.Dir(f.path), e.Name())}).read()
		if err != nil {
			continue
		}
		if bom, body := cutBOM(text); len(bom) == len(f.bom) {
			found = append(found, body)
		}
	}
	return found
}

// How long another process may take, and how often it is looked at.
const (
	lockTime  = 10 * time.Second
	lockPause = 50 * time.Millisecond
)

// lockFile keeps a client that makes a folder beside its file while it writes,
// as Claude Code does, from writing.
func (f *clientFile) lockFile(ctx context.Context) (unlock func(), err error) {
	dir := f.real + ".lock"
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	for {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			return func() { _ = os.Remove(dir) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is there: the client is writing its file; close the client, and if it has ended, delete that folder", dir)
		case <-time.After(lockPause):
		}
	}
}

// lockInstall keeps other processes of Enlist from changing clients' files.
func lockInstall(ctx context.Context, home string) (unlock func(), err error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(home, "install.lock"), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, lockPause); err != nil {
		return nil, fmt.Errorf("another enlist install is writing: %w", err)
	}
	return func() { _ = lock.Unlock() }, nil
}
