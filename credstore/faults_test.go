package credstore_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/enlist-mcp/enlist/credstore"
)

// hung is how long tests wait for what never comes.
const hung = 50 * time.Millisecond

// faultyRing is a keyring that fails when and how it is told to.
type faultyRing struct {
	mu    sync.Mutex
	items map[[2]string]string
	fault func(call, service, user string) (stop bool, err error)
}

// isList reports whether an item of this name belongs to the keyring's own list.
func isList(service string) bool { return strings.HasSuffix(service, ": list of credentials") }

// credentials returns the items without those of the keyring's own list.
func (r *faultyRing) credentials() map[[2]string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	items := maps.Clone(r.items)
	maps.DeleteFunc(items, func(name [2]string, _ string) bool { return isList(name[0]) })
	return items
}

func newFaultyRing() *faultyRing { return &faultyRing{items: make(map[[2]string]string)} }

// fail makes every later call ask f first. f runs without a lock, so it can
// hang; if it says stop, the call ends with its error without having done anything.
func (r *faultyRing) fail(f func(call, service, user string) (stop bool, err error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

func (r *faultyRing) ask(call, service, user string) (bool, error) {
	r.mu.Lock()
	f := r.fault
	r.mu.Unlock()
	if f == nil {
		return false, nil
	}
	return f(call, service, user)
}

func (r *faultyRing) Set(service, user, secret string) error {
	if stop, err := r.ask("set", service, user); stop {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items[[2]string{service, user}] = secret
	return nil
}

func (r *faultyRing) Get(service, user string) (string, error) {
	if stop, err := r.ask("get", service, user); stop {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	text, ok := r.items[[2]string{service, user}]
	if !ok {
		return "", keyring.ErrNotFound
	}
	return text, nil
}

func (r *faultyRing) Delete(service, user string) error {
	if stop, err := r.ask("delete", service, user); stop {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.items[[2]string{service, user}]; !ok {
		return keyring.ErrNotFound
	}
	delete(r.items, [2]string{service, user})
	return nil
}

// faultyFiles is a real file system that fails at the steps it is told to.
type faultyFiles struct {
	credstore.OSFiles
	fault func(step, path string) error
}

func (f faultyFiles) Create(path string) (credstore.NewFile, error) {
	if err := f.fault("create", path); err != nil {
		return nil, err
	}
	file, err := f.OSFiles.Create(path)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, path, f.fault}, nil
}

func (f faultyFiles) Rename(from, to string) error {
	if err := f.fault("rename", to); err != nil {
		return err
	}
	return f.OSFiles.Rename(from, to)
}

func (f faultyFiles) Mkdir(path string) error {
	if err := f.fault("mkdir", path); err != nil {
		return err
	}
	return f.OSFiles.Mkdir(path)
}

func (f faultyFiles) SyncDir(path string) error {
	if err := f.fault("syncdir", path); err != nil {
		return err
	}
	return f.OSFiles.SyncDir(path)
}

type faultyFile struct {
	credstore.NewFile
	path  string
	fault func(step, path string) error
}

// Write writes half of it when the disk is full.
func (f faultyFile) Write(data []byte) (int, error) {
	if err := f.fault("write", f.path); err != nil {
		n, _ := f.NewFile.Write(data[:len(data)/2])
		return n, err
	}
	return f.NewFile.Write(data)
}

func (f faultyFile) Sync() error {
	if err := f.fault("sync", f.path); err != nil {
		return err
	}
	return f.NewFile.Sync()
}

func (f faultyFile) Close() error {
	err := f.NewFile.Close()
	if fault := f.fault("close", f.path); fault != nil {
		return fault
	}
	return err
}

// ringOf returns the faulty ring of a system.
func ringOf(on credstore.System) *faultyRing { return on.Ring().(*faultyRing) }

// inspect returns what a store says of itself.
func inspect(t testing.TB, s credstore.Store) credstore.Report {
	t.Helper()
	r, err := s.(credstore.Inspector).Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
