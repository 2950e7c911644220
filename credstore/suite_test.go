package credstore_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func TestMemory(t *testing.T) {
	credstoretest.Run(t, func(*testing.T) func() credstore.Store {
		s := credstore.NewMemory(now)
		return func() credstore.Store { return s }
	})
}

func TestFileWithPassphrase(t *testing.T) {
	credstoretest.Run(t, func(t *testing.T) func() credstore.Store {
		o := options(t, credstore.ModeFile)
		o.Passphrase = passphrase("correct horse battery staple")
		return func() credstore.Store { return openOn(t, o, credstore.QuickSystem()) }
	})
}

func TestFileWithKeyFile(t *testing.T) {
	credstoretest.Run(t, func(t *testing.T) func() credstore.Store {
		o := options(t, credstore.ModeFile)
		return func() credstore.Store { return openOn(t, o, credstore.QuickSystem()) }
	})
}

func TestKeyring(t *testing.T) {
	needKeyring(t)
	credstoretest.Run(t, func(t *testing.T) func() credstore.Store {
		o := options(t, credstore.ModeKeyring)
		return func() credstore.Store { return openOn(t, o, credstore.QuickSystem()) }
	})
}

// TestFaultyRing runs the suite on the keyring that the fault tests use, to
// show that without a fault it behaves as a real one.
func TestFaultyRing(t *testing.T) {
	credstoretest.Run(t, func(t *testing.T) func() credstore.Store {
		o := options(t, credstore.ModeKeyring)
		r := newFaultyRing()
		return func() credstore.Store { return openOn(t, o, credstore.QuickSystem().WithRing(r)) }
	})
}

// needKeyring skips the test where there is no keyring to test with.
func needKeyring(t *testing.T) {
	t.Helper()
	if os.Getenv("ENLIST_TEST_KEYRING") != "1" {
		t.Skip("needs a Secret Service: run .ci/with-keyring go test ./credstore/...")
	}
}

func now() time.Time { return time.Date(2026, 1, 8, 9, 0, 0, 0, time.UTC) }

func passphrase(s string) func() (credstore.Secret, error) {
	return func() (credstore.Secret, error) { return credstore.NewSecret(s), nil }
}

// options are those of a new home. What they put into a keyring is deleted.
func options(t testing.TB, mode string) credstore.Options {
	t.Helper()
	dir := t.TempDir()
	o := credstore.Options{
		Mode: mode, Home: filepath.Join(dir, "home"), ConfigDir: filepath.Join(dir, "config"),
		Now: now,
	}
	if mode == credstore.ModeKeyring && os.Getenv("ENLIST_TEST_KEYRING") == "1" {
		t.Cleanup(func() { forgetAll(t, o) })
	}
	return o
}

func forgetAll(t testing.TB, o credstore.Options) {
	ctx := context.Background() // the test's own is over
	s, err := credstore.Open(o)
	if err != nil {
		return // the test broke the home, and says so itself
	}
	infos, _ := s.List(ctx, "")
	for _, info := range infos {
		_ = s.Delete(ctx, info.Key)
	}
}

func openOn(t testing.TB, o credstore.Options, on credstore.System) credstore.Store {
	t.Helper()
	s, err := credstore.OpenOn(o, on)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := s.(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return s
}
