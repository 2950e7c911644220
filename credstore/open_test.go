package credstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zalando/go-keyring"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

var errLocked = errors.New("failed to unlock correct collection '/org/freedesktop/secrets/collection/login'")

func TestAutoChoosesTheKeyringThatWorks(t *testing.T) {
	for name, on := range map[string]func(t *testing.T) (credstore.System, string){
		"faulty ring without a fault": func(*testing.T) (credstore.System, string) {
			return credstore.QuickSystem().WithRing(newFaultyRing()), credstore.ModeAuto
		},
		"real": func(t *testing.T) (credstore.System, string) {
			needKeyring(t)
			return credstore.QuickSystem(), credstore.ModeAuto
		},
	} {
		t.Run(name, func(t *testing.T) {
			system, mode := on(t)
			o := options(t, credstore.ModeKeyring)
			o.Mode = mode
			var log bytes.Buffer
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s := openOn(t, o, system)
			wantBackend(t, s, credstore.ModeAuto)
			put(t, s, credstoretest.Lona("one"))
			wantBackend(t, s, credstore.ModeKeyring)
			put(t, s, credstoretest.Lona("two"))
			wantBackend(t, openOn(t, o, system), credstore.ModeKeyring)
			if got, want := strings.Count(log.String(), "credentials are kept in the OS keyring"), 1; got != want {
				t.Errorf("said %d times, want %d: %s", got, want, &log)
			}
			if got := string(read(t, filepath.Join(o.Home, "store"))); !keyringRecord.MatchString(got) {
				t.Errorf("got the record %q, want %s", got, keyringRecord)
			}
			wantNoFile(t, filepath.Join(o.Home, "credentials.enc"))
			wantNoFile(t, o.ConfigDir)
			wantPrivate(t, o.Home)
		})
	}
}

func TestAutoLeavesNothingOfItsSelfTest(t *testing.T) {
	r := newFaultyRing()
	s := openOn(t, options(t, credstore.ModeAuto), credstore.QuickSystem().WithRing(r))
	put(t, s, credstoretest.Lona("my-agent"))
	if got, want := len(r.credentials()), 1; got != want {
		t.Errorf("got %d items, want %d: %v", got, want, r.items)
	}
}

func TestAutoChoosesTheFileWhereTheKeyring(t *testing.T) {
	released := make(chan struct{})
	defer close(released)
	faults := map[string]func(call, service, user string) (bool, error){
		"fails":                func(_, _, _ string) (bool, error) { return true, errLocked },
		"keeps nothing":        func(call, _, _ string) (bool, error) { return call == "set", nil },
		"cannot delete":        func(call, _, _ string) (bool, error) { return call == "delete", errors.New("no") },
		"panics":               func(_, _, _ string) (bool, error) { panic("index out of range") },
		"hangs":                func(_, _, _ string) (bool, error) { <-released; return true, nil },
		"gives back something": func(call, _, _ string) (bool, error) { return call == "get", nil },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			r := newFaultyRing()
			r.fail(fault)
			o := options(t, credstore.ModeAuto)
			var log bytes.Buffer
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s := openOn(t, o, credstore.QuickSystem().WithRing(r).WithFirst(hung))
			c := credstoretest.Lona("my-agent")
			put(t, s, c)
			wantBackend(t, s, credstore.ModeFile)
			wantFile(t, filepath.Join(o.Home, "store"), "file\n")
			if !strings.Contains(log.String(), "credentials are kept in an encrypted file") || !strings.Contains(log.String(), "reason=") {
				t.Errorf("got the log %s", &log)
			}
			wantAdvice := name == "fails" || name == "hangs" // it may be locked
			for words, want := range map[string]bool{
				"level=WARN": true, "reason=<nil>": false, "OS keyring is locked": name == "fails",
				"unlock it": wantAdvice, filepath.Join(o.Home, "store") + " and " + encPath(o): wantAdvice, "ENLIST_STORE=keyring": wantAdvice,
			} {
				if strings.Contains(log.String(), words) != want {
					t.Errorf("got the log %s, %q in it: want %v", &log, words, want)
				}
			}
			r.fail(nil)
			put(t, s, credstoretest.Lona("other")) // the keyring works now: the choice stays
			wantBackend(t, openOn(t, o, credstore.QuickSystem().WithRing(r)), credstore.ModeFile)
			wantGet(t, s, c)
		})
	}
}

func TestAutoNeverLeavesAChosenKeyring(t *testing.T) {
	released := make(chan struct{})
	defer close(released)
	faults := map[string]func(call, service, user string) (bool, error){
		"locked": func(_, _, _ string) (bool, error) { return true, errLocked },
		"gone":   func(_, _, _ string) (bool, error) { return true, keyring.ErrUnsupportedPlatform },
		"hung":   func(_, _, _ string) (bool, error) { <-released; return true, errLocked },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			r := newFaultyRing()
			o := options(t, credstore.ModeAuto)
			c := credstoretest.Lona("my-agent")
			put(t, openOn(t, o, credstore.QuickSystem().WithRing(r)), c)
			r.fail(fault)
			s := openOn(t, o, credstore.QuickSystem().WithRing(r).WithWaits(hung))
			_, err := s.Get(t.Context(), c.Key)
			wantRemedy(t, err, credstore.ErrUnavailable)
			wantRemedy(t, s.Put(t.Context(), c), credstore.ErrUnavailable)
			wantRemedy(t, s.Put(t.Context(), credstoretest.Lona("other")), credstore.ErrUnavailable)
			wantRemedy(t, s.Delete(t.Context(), c.Key), credstore.ErrUnavailable)
			wantNoFile(t, filepath.Join(o.Home, "credentials.enc"))
			wantBackend(t, s, credstore.ModeKeyring)
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 1 || infos[0].Agent != "my-agent" {
				t.Errorf("list: got %v, %v, want the one that is stored", infos, err)
			}
		})
	}
}

func TestTwoFirstWritersAgree(t *testing.T) {
	r := newFaultyRing()
	var asked atomic.Int32
	// Only every second who asks gets an answer.
	r.fail(func(call, service, _ string) (bool, error) {
		if call == "set" && strings.HasSuffix(service, "self-test") {
			return asked.Add(1)%2 == 0, errLocked
		}
		return false, nil
	})
	o := options(t, credstore.ModeAuto)
	var wg sync.WaitGroup
	for i := range 8 {
		s := openOn(t, o, credstore.QuickSystem().WithRing(r))
		wg.Go(func() {
			if err := s.Put(t.Context(), credstoretest.Lona(fmt.Sprint("agent", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := asked.Load(); got != 1 {
		t.Errorf("the keyring was asked %d times, want once", got)
	}
	infos, err := openOn(t, o, credstore.QuickSystem().WithRing(r)).List(t.Context(), "")
	if err != nil || len(infos) != 8 || len(r.credentials()) != 8 {
		t.Errorf("got %d listed, %d in the keyring, %v, want 8", len(infos), len(r.credentials()), err)
	}
}

func TestFirstWriteThatIsCanceledChoosesNothing(t *testing.T) {
	r := newFaultyRing()
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan struct{})
	defer close(released)
	r.fail(func(_, _, _ string) (bool, error) { cancel(); <-released; return true, nil })
	o := options(t, credstore.ModeAuto)
	s := openOn(t, o, credstore.QuickSystem().WithRing(r))
	err := s.Put(ctx, credstoretest.Lona("my-agent"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	wantBackend(t, s, credstore.ModeAuto)
}

func TestAnotherModeThanTheRecordedOneIsRefused(t *testing.T) {
	for _, test := range []struct{ first, second string }{
		{credstore.ModeKeyring, credstore.ModeFile},
		{credstore.ModeFile, credstore.ModeKeyring},
	} {
		t.Run(test.second+" after "+test.first, func(t *testing.T) {
			system := credstore.QuickSystem().WithRing(newFaultyRing())
			o := options(t, credstore.ModeAuto)
			o.Mode = test.first
			first := openOn(t, o, system)
			c := credstoretest.Lona("my-agent")
			o.Mode = test.second
			early := openOn(t, o, system) // before anything was recorded
			put(t, first, c)
			wantRemedy(t, early.Put(t.Context(), c), credstore.ErrUnavailable)
			wantRemedy(t, early.Delete(t.Context(), c.Key), credstore.ErrUnavailable)
			_, err := early.Get(t.Context(), c.Key)
			wantRemedy(t, err, credstore.ErrUnavailable)
			_, err = early.List(t.Context(), "")
			wantRemedy(t, err, credstore.ErrUnavailable)
			_, err = openOn(t, o, system).Backend(t.Context())
			wantRemedy(t, err, credstore.ErrUnavailable)
			if !strings.Contains(err.Error(), test.first) || !strings.Contains(err.Error(), test.second) {
				t.Errorf("the error names not both: %v", err)
			}
			wantGet(t, first, c)
			wantBackend(t, first, test.first)
			if err := first.Delete(t.Context(), c.Key); err != nil {
				t.Fatal(err)
			}
			put(t, openOn(t, o, system), c) // nothing is there any more
			if got := read(t, filepath.Join(o.Home, "store")); !strings.HasPrefix(string(got), test.second) {
				t.Errorf("got the record %q, want %s", got, test.second)
			}
			o.Mode = credstore.ModeAuto
			wantGet(t, openOn(t, o, system), c)
		})
	}
}

func TestAnotherModeIsRefusedWhereTheIndexIsGone(t *testing.T) {
	system := credstore.QuickSystem().WithRing(newFaultyRing())
	o := options(t, credstore.ModeAuto)
	put(t, openOn(t, o, system), credstoretest.Lona("my-agent"))
	remove(t, filepath.Join(o.Home, "index.db"))
	o.Mode = credstore.ModeFile
	_, err := openOn(t, o, system).Backend(t.Context())
	wantRemedy(t, err, credstore.ErrUnavailable)
}

// Where a keyring was asked for that does not work, the file can be asked for
// instead: nothing was stored.
func TestFileAfterAKeyringThatNeverWorked(t *testing.T) {
	r := newFaultyRing()
	r.fail(func(_, _, _ string) (bool, error) { return true, errLocked })
	on := credstore.QuickSystem().WithRing(r)
	o := options(t, credstore.ModeAuto)
	o.Mode = credstore.ModeKeyring
	c := credstoretest.Lona("my-agent")
	wantRemedy(t, openOn(t, o, on).Put(t.Context(), c), credstore.ErrUnavailable)
	o.Mode = credstore.ModeFile
	put(t, openOn(t, o, on), c)
	wantBackend(t, openOn(t, o, on), credstore.ModeFile)
}

func TestMemoryTouchesNothing(t *testing.T) {
	o := options(t, credstore.ModeMemory)
	s := openOn(t, o, credstore.QuickSystem())
	put(t, s, credstoretest.Lona("my-agent"))
	wantBackend(t, s, credstore.ModeMemory)
	unlock, err := s.Lock(t.Context(), credstoretest.Lona("my-agent").Key)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	wantNoFile(t, o.Home)
}

func TestReadsMakeNoHome(t *testing.T) {
	ring := newFaultyRing()
	for _, mode := range []string{credstore.ModeAuto, credstore.ModeKeyring, credstore.ModeFile} {
		t.Run(mode, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			o.Mode = mode
			s := openOn(t, o, credstore.QuickSystem().WithRing(ring))
			_, err := s.Get(t.Context(), credstoretest.Lona("my-agent").Key)
			wantError(t, err, credstore.ErrNotFound)
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 0 {
				t.Errorf("got %v, %v", infos, err)
			}
			wantBackend(t, s, mode)
			wantNoFile(t, o.Home)
			wantNoFile(t, o.ConfigDir)
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	good := options(t, credstore.ModeAuto)
	tests := map[string]func(*credstore.Options){
		"an unknown mode": func(o *credstore.Options) { o.Mode = "plaintext" },
		"no home":         func(o *credstore.Options) { o.Home = "" },
		"no clock":        func(o *credstore.Options) { o.Now = nil },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			if s, err := credstore.Open(o); err == nil {
				t.Errorf("got %v, want an error", s)
			}
		})
	}
}

func TestHomeThatCannotBeMadeIsAnError(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	write(t, o.Home, "a file where the folder should be", 0o600)
	c := credstoretest.Lona("my-agent")
	wantRemedy(t, s.Put(t.Context(), c), credstore.ErrUnavailable)
	_, err := s.Lock(t.Context(), c.Key)
	wantRemedy(t, err, credstore.ErrUnavailable)
	_, err = s.List(t.Context(), "")
	wantRemedy(t, err, credstore.ErrUnavailable)
}

func put(t testing.TB, s credstore.Store, c credstore.Credential) {
	t.Helper()
	if err := s.Put(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func wantGet(t testing.TB, s credstore.Store, want credstore.Credential) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Key)
	if err != nil {
		t.Errorf("get: %v", err)
	} else if got.Secret.Reveal() != want.Secret.Reveal() {
		t.Error("get: got another secret")
	}
}

// wantListed wants exactly the agents to be listed, and as they can be got.
func wantListed(t testing.TB, s credstore.Store, agents ...string) {
	t.Helper()
	infos, err := s.List(t.Context(), "")
	if err != nil {
		t.Errorf("list: %v", err)
		return
	}
	got := []string{}
	for _, info := range infos {
		got = append(got, info.Agent)
	}
	if fmt.Sprint(got) != fmt.Sprint(agents) {
		t.Errorf("list: got %v, want %v", got, agents)
	}
}

func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got the error %v, want %v", got, want)
	}
}

// wantRemedy wants an error of a kind that says what to do and holds no secret.
func wantRemedy(t testing.TB, got, want error) {
	t.Helper()
	wantError(t, got, want)
	var e *credstore.Error
	if !errors.As(got, &e) || e.Remedy == "" {
		t.Errorf("no remedy in %v", got)
	}
	if got != nil && strings.Contains(got.Error(), "s3cr3t") {
		t.Errorf("the error holds the secret: %v", got)
	}
}

func wantBackend(t testing.TB, s credstore.Store, want string) {
	t.Helper()
	if got, err := s.Backend(t.Context()); err != nil || got != want {
		t.Errorf("backend: got %q, %v, want %q", got, err, want)
	}
}

func wantFile(t testing.TB, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
	}
}

func wantNoFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want no such file", path, err)
	}
}

// wantPrivate wants nothing under a folder, itself included, to be open to others.
func wantPrivate(t testing.TB, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return // the folder is the user's own
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func write(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
