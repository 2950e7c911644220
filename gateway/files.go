package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// filesFolder is where in the data folder long answers are.
	filesFolder = "answers"
	// maxFile is how much of one answer is written to a file.
	maxFile = 32 << 20
	// maxFiles is how much there is in all of them; the oldest go first.
	maxFiles = 256 << 20
	// fileAge is how long one is kept.
	fileAge = 7 * 24 * time.Hour
	// unfinishedAge is how old a file is that nobody finishes any more.
	unfinishedAge = time.Hour
	// What the names of files begin with, and of those that are being written.
	filePrefix, unfinishedPrefix = "answer-", ".answer-"
)

// files writes long answers to files in a folder of their own, where nobody
// else can read them, and removes the old ones. A file appears when it is
// whole. Several processes share the folder.
type files struct {
	home string
	now  func() time.Time
	log  *slog.Logger
	once sync.Once
}

// newFiles returns nil where no files are to be written.
func newFiles(o Options) *files {
	if o.Home == "" {
		return nil
	}
	return &files{home: o.Home, now: o.Now, log: o.Logger}
}

// open opens the folder, which is made if it is not there. Nothing in it leads
// out of it.
func (f *files) open(mayMake bool) (*os.Root, error) {
	if mayMake {
		if err := os.MkdirAll(f.home, 0o700); err != nil {
			return nil, err
		}
	}
	home, err := os.OpenRoot(f.home)
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }()
	if mayMake {
		if err := home.Mkdir(filesFolder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	info, err := home.Lstat(filesFolder)
	switch {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(f.home, filesFolder), Err: errors.New("it is not a folder: remove it")}
	case info.Mode().Perm()&0o077 != 0:
		if err := home.Chmod(filesFolder, 0o700); err != nil {
			return nil, err
		}
	}
	return home.OpenRoot(filesFolder)
}

// file is one that is being written.
type file struct {
	folder *files
	root   *os.Root
	to     *os.File
	name   string // that it gets when it is whole
	size   int64
}

// create begins a file. Its name has nothing in it that a service said.
func (f *files) create(ctx context.Context, extension string) (*file, error) {
	f.prune(ctx)
	root, err := f.open(true)
	if err != nil {
		return nil, err
	}
	name := filePrefix + f.now().UTC().Format("20060102-150405") + "-" + strings.ToLower(rand.Text()[:12]) + extension
	to, err := root.OpenFile("."+name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &file{folder: f, root: root, to: to, name: name}, nil
}

func (w *file) write(piece []byte) error {
	n, err := w.to.Write(piece)
	w.size += int64(n)
	return err
}

// finish makes the file appear. It is open no more, whatever is returned.
func (w *file) finish() error {
	defer func() { _ = w.root.Close() }()
	if err := w.to.Close(); err != nil {
		return err
	}
	// Its age is that of the clock that judges it.
	if err := w.root.Chtimes("."+w.name, w.folder.now(), w.folder.now()); err != nil {
		return err
	}
	if err := w.root.Rename("."+w.name, w.name); err != nil {
		return err
	}
	w.folder.removeOld(w.root)
	return nil
}

// discard removes the file, whole or not.
func (w *file) discard() {
	_ = w.to.Close() // it may be closed already
	if root, err := w.folder.open(false); err == nil {
		defer func() { _ = root.Close() }()
		_ = root.Remove("." + w.name)
		_ = root.Remove(w.name)
	}
	_ = w.root.Close()
}

// path returns where the finished file is.
func (w *file) path() string { return filepath.Join(w.folder.home, filesFolder, w.name) }

// pruneOnce removes old files at the first request of a process.
func (f *files) pruneOnce(ctx context.Context) { f.once.Do(func() { f.prune(ctx) }) }

// prune removes old files.
func (f *files) prune(ctx context.Context) {
	root, err := f.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.log.WarnContext(ctx, "old answers could not be removed", "error", err)
		return
	}
	defer func() { _ = root.Close() }()
	f.removeOld(root)
}

// removeOld removes what is too old, and the oldest of what is too much. It
// touches only files that are named as ours are. What cannot be removed now is
// removed another time.
func (f *files) removeOld(root *os.Root) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	var whole []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		age := f.now().Sub(info.ModTime())
		switch name := e.Name(); {
		case strings.HasPrefix(name, unfinishedPrefix) && age > unfinishedAge, strings.HasPrefix(name, filePrefix) && age > fileAge:
			_ = root.Remove(name)
		case strings.HasPrefix(name, filePrefix):
			whole = append(whole, info)
		}
	}
	slices.SortFunc(whole, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), strings.Compare(b.Name(), a.Name()))
	})
	var size int64
	for _, info := range whole {
		if size += info.Size(); size > maxFiles {
			_ = root.Remove(info.Name())
		}
	}
}

// extension returns what the name of a file ends with: one of a few that no
// program runs.
func extension(a answer) string {
	beginning := a.body
	if isText(upTo(beginning, min(len(beginning), 512))) {
		kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
		switch {
		case kind == "application/json" || strings.HasSuffix(kind, "+json"):
			return ".json"
		case kind == "text/csv":
			return ".csv"
		}
		return ".txt"
	}
	switch kind, _, _ := strings.Cut(http.DetectContentType(beginning), ";"); kind {
	case "image/png", "image/gif", "image/jpeg", "image/webp":
		return "." + strings.TrimPrefix(kind, "image/")
	case "application/pdf":
		return ".pdf"
	case "application/zip":
		return ".zip"
	case "application/x-gzip":
		return ".gz"
	}
	return ".bin"
}
