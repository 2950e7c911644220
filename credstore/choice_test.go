package credstore_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// keyringRecord is the record of a choice of the keyring.
var keyringRecord = regexp.MustCompile(`^keyring ([a-z0-9]{8})\n$`)

func TestTwoHomesShareNoItem(t *testing.T) {
	for _, mode := range []string{credstore.ModeAuto, credstore.ModeKeyring} {
		t.Run(mode, func(t *testing.T) {
			on := credstore.QuickSystem().WithRing(newFaultyRing())
			o := options(t, credstore.ModeAuto)
			o.Mode = mode
			other := o
			other.Home = filepath.Join(t.TempDir(), "other")
			one, two := openOn(t, o, on), openOn(t, other, on)
			c, next := credstoretest.Lona("my-agent"), credstoretest.Lona("my-agent")
			next.Secret = credstore.NewSecret("next s3cr3t")
			put(t, one, c)
			_, err := two.Get(t.Context(), c.Key)
			wantError(t, err, credstore.ErrNotFound)
			wantNoFile(t, other.Home)
			put(t, two, next)
			wantGet(t, one, c)
			wantGet(t, two, next)
		})
	}
}

// The namespace is the home's own: nothing else takes part in it.
func TestHomeKeepsItsItemsWhereverItIs(t *testing.T) {
	r := newFaultyRing()
	on := credstore.QuickSystem().WithRing(r)
	o := options(t, credstore.ModeAuto)
	c := credstoretest.Lona("my-agent")
	s := openOn(t, o, on)
	put(t, s, c)
	if err := s.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	record := keyringRecord.FindSubmatch(read(t, filepath.Join(o.Home, "store")))
	if record == nil {
		t.Fatal("there is no namespace in the record")
	}
	service, user := credstore.ItemName(string(record[1]), c.Key)
	if _, ok := r.items[[2]string{service, user}]; !ok {
		t.Errorf("got %v, want an item %q, %q", r.items, service, user)
	}
	moved := o
	moved.Home, moved.ConfigDir = filepath.Join(t.TempDir(), "moved"), ""
	if err := os.Rename(o.Home, moved.Home); err != nil {
		t.Fatal(err)
	}
	s = openOn(t, moved, on)
	wantGet(t, s, c)
	put(t, s, c)
	if len(r.credentials()) != 1 {
		t.Errorf("got %v, want the one item", r.items)
	}
}

func TestRecordIsRead(t *testing.T) {
	for name, test := range map[string]struct{ record, service string }{
		"without a namespace":            {"keyring\n", "enlist: https://gateway.lona.agency"},
		"with one":                       {"keyring k3f9x2ab\n", "enlist [k3f9x2ab]: https://gateway.lona.agency"},
		"without the end of its line":    {"keyring k3f9x2ab", "enlist [k3f9x2ab]: https://gateway.lona.agency"},
		"with another end of its line":   {"keyring k3f9x2ab\r\n", "enlist [k3f9x2ab]: https://gateway.lona.agency"},
		"of the file, without any of it": {"file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFaultyRing()
			o := options(t, credstore.ModeAuto)
			write(t, filepath.Join(o.Home, "store"), test.record, 0o600)
			s := openOn(t, o, credstore.QuickSystem().WithRing(r))
			c := credstoretest.Lona("my-agent")
			put(t, s, c)
			wantGet(t, s, c)
			wantFile(t, filepath.Join(o.Home, "store"), test.record)
			for name := range r.credentials() {
				if name[0] != test.service {
					t.Errorf("got the item %q, want it in %q", name, test.service)
				}
			}
			if test.service != "" && len(r.credentials()) != 1 {
				t.Errorf("got %v, want one item", r.items)
			}
		})
	}
}

// Without its record a home does not know where its credentials are. It must
// not look elsewhere and call them lost, nor choose again.
func TestHomeWithoutItsRecordLosesNothing(t *testing.T) {
	for _, mode := range []string{credstore.ModeAuto, credstore.ModeKeyring, credstore.ModeFile} {
		t.Run(mode, func(t *testing.T) {
			r := newFaultyRing()
			on := credstore.QuickSystem().WithRing(r)
			o := options(t, credstore.ModeAuto)
			c := credstoretest.Lona("my-agent")
			put(t, openOn(t, o, on), c)
			path := filepath.Join(o.Home, "store")
			record := read(t, path)
			remove(t, path)
			astray := o
			astray.Mode = mode
			s := openOn(t, astray, on)
			_, err := s.Get(t.Context(), c.Key)
			wantError(t, err, credstore.ErrNotFound)
			err = s.Put(t.Context(), credstoretest.Lona("other"))
			wantRemedy(t, err, credstore.ErrDamaged)
			if err != nil && !strings.Contains(err.Error(), "keyring k3f9x2ab") {
				t.Errorf("got %v, want what to put back", err)
			}
			wantNoFile(t, path)
			write(t, path, string(record), 0o600)
			s = openOn(t, o, on)
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 1 || infos[0].State != credstore.StateActive {
				t.Errorf("got %v, %v, want it active", infos, err)
			}
			wantGet(t, s, c)
			remove(t, path)
			remove(t, filepath.Join(o.Home, "index.db")) // given up
			put(t, openOn(t, astray, on), c)
		})
	}
}

// An answer from where the record no longer points says nothing.
func TestRecordPutRightDuringAReadLosesNothing(t *testing.T) {
	r := newFaultyRing()
	o := options(t, credstore.ModeAuto)
	s := openOn(t, o, credstore.QuickSystem().WithRing(r))
	c := credstoretest.Lona("my-agent")
	put(t, s, c)
	path := filepath.Join(o.Home, "store")
	record := string(read(t, path))
	write(t, path, "keyring k3f9x2ab\n", 0o600)
	r.fail(func(string, string, string) (bool, error) {
		write(t, path, record, 0o600)
		return false, nil
	})
	_, err := s.Get(t.Context(), c.Key)
	wantError(t, err, credstore.ErrNotFound)
	infos, err := s.List(t.Context(), "")
	if err != nil || len(infos) != 1 || infos[0].State != credstore.StateActive {
		t.Errorf("got %v, %v, want it active", infos, err)
	}
}

func TestWithoutAFolderForTheKeyFile(t *testing.T) {
	t.Chdir(t.TempDir()) // where a relative path would lead
	refused := func(t *testing.T, err error) {
		t.Helper()
		wantRemedy(t, err, credstore.ErrUnavailable)
		if err != nil && !strings.Contains(err.Error(), "there is no folder for the key file (set HOME or XDG_CONFIG_HOME (Windows: AppData), or ENLIST_PASSPHRASE)") {
			t.Errorf("got %v", err)
		}
	}
	ring := newFaultyRing()
	ring.fail(func(_, _, _ string) (bool, error) { return true, errLocked })
	on := credstore.QuickSystem().WithRing(ring)
	c := credstoretest.Lona("my-agent")
	for _, mode := range []string{credstore.ModeAuto, credstore.ModeFile} {
		t.Run("the first write of "+mode+" writes nothing", func(t *testing.T) {
			o := options(t, credstore.ModeFile)
			o.Mode, o.ConfigDir = mode, ""
			s := openOn(t, o, on)
			refused(t, s.Put(t.Context(), c))
			wantBackend(t, s, mode)
			entries, err := os.ReadDir(o.Home)
			if err != nil || len(entries) != 1 || entries[0].Name() != "locks" {
				t.Errorf("got %v, %v, want the locks alone", entries, err)
			}
			o.Passphrase = passphrase("right")
			put(t, openOn(t, o, on), c)
		})
	}
	t.Run("a file of a key file is not read", func(t *testing.T) {
		o := options(t, credstore.ModeFile)
		put(t, openOn(t, o, on), c)
		o.ConfigDir = ""
		s := openOn(t, o, on)
		_, err := s.Get(t.Context(), c.Key)
		refused(t, err)
		refused(t, s.Put(t.Context(), c))
	})
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want nothing in the current folder", entries, err)
	}
}

func TestARecordThatCannotBeReadIsTheErrorOfEveryUse(t *testing.T) {
	record := func(text string) func(*credstore.Options) {
		return func(o *credstore.Options) { write(t, filepath.Join(o.Home, "store"), text, 0o600) }
	}
	tests := map[string]func(*credstore.Options){
		"a record of neither":                 record("kering\n"),
		"a record without a mode":             record("\n"),
		"a record with a namespace cut short": record("keyring k3f9x2a\n"),
		"a record with too long a namespace":  record("keyring k3f9x2abc\n"),
		"a record with a namespace of others": record("keyring k3f9X2ab\n"),
		"a record with more":                  record("keyring k3f9x2ab k3f9x2ab\n"),
		"a record of a file with a namespace": record("file k3f9x2ab\n"),
		"a record that is a folder": func(o *credstore.Options) {
			o.Home = filepath.Join(o.Home, "other")
			if err := os.MkdirAll(filepath.Join(o.Home, "store"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			change(&o)
			s := openOn(t, o, credstore.QuickSystem())
			c := credstoretest.Lona("my-agent")
			_, get := s.Get(t.Context(), c.Key)
			_, list := s.List(t.Context(), "")
			for what, err := range map[string]error{"get": get, "list": list, "put": s.Put(t.Context(), c)} {
				if failed := new(credstore.Error); !errors.As(err, &failed) || failed.Remedy == "" {
					t.Errorf("%s: got %v, want an error with a remedy", what, err)
				}
				if name != "a record that is a folder" && (!errors.Is(err, credstore.ErrDamaged) || !strings.Contains(err.Error(), "keyring k3f9x2ab")) {
					t.Errorf("%s: got %v, want damaged, and the form", what, err)
				}
			}
		})
	}
}
