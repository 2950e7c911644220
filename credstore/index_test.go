package credstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// indexed returns a home with some credentials in a keyring, and the bytes of
// its index.
func indexed(t *testing.T) (o credstore.Options, on credstore.System, path string, good []byte) {
	t.Helper()
	o = options(t, credstore.ModeAuto)
	on = credstore.QuickSystem().WithRing(newFaultyRing())
	s := openOn(t, o, on)
	for _, agent := range []string{"a", "b", "c"} {
		put(t, s, credstoretest.Lona(agent))
	}
	if err := s.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(o.Home, "index.db")
	wantNoFile(t, path+"-wal")
	return o, on, path, read(t, path)
}

func TestDamagedIndexHidesNoSecretAndHasARemedy(t *testing.T) {
	_, _, _, good := indexed(t)
	second := len(good) - 1
	for range 2 { // of three rows the one in the middle
		second = bytes.LastIndex(good[:second], []byte("a1B2c3D4e5F6"))
	}
	garbage := func(from, to int) []byte {
		data := bytes.Clone(good)
		for i := range data[from:to] {
			data[from+i] = byte(i*7 + 13)
		}
		return data
	}
	tests := map[string][]byte{
		"empty":                       {},
		"cut in the magic":            good[:10],
		"cut in the header":           good[:60],
		"cut in the first page":       good[:1000],
		"cut after the first page":    good[:4096],
		"cut in the last page":        good[:len(good)-1000],
		"another file":                []byte(strings.Repeat("not a database\n", 1000)),
		"with garbage in the magic":   garbage(0, 16),
		"with garbage in the header":  garbage(16, 100),
		"with garbage in the schema":  garbage(100, 4096),
		"with garbage in the rows":    garbage(4096, len(good)),
		"with garbage in the last":    garbage(len(good)-200, len(good)),
		"with zeros for rows":         append(bytes.Clone(good[:4096]), make([]byte, len(good)-4096)...),
		"all garbage":                 garbage(0, len(good)),
		"of a version beyond reason":  bytes.Join([][]byte{good[:60], {1, 0, 0, 2}, good[64:]}, nil),
		"with one letter of a row":    bytes.Join([][]byte{good[:second], []byte("a1B2c3D4e5F7"), good[second+12:]}, nil),
		"with one letter of a column": bytes.Replace(good, []byte("key_id"), []byte("key_ie"), 1),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			o, on, path, _ := indexed(t)
			write(t, path, string(data), 0o600)
			s := openOn(t, o, on)
			c := credstoretest.Lona("b")
			_, err := s.List(t.Context(), "")
			wantRemedy(t, err, credstore.ErrDamaged)
			if err != nil && !strings.Contains(err.Error(), "move "+path) {
				t.Errorf("got %v, want what to do", err)
			}
			wantGet(t, s, c)
			next := c
			next.Secret = credstore.NewSecret("next")
			wantRemedy(t, s.Put(t.Context(), next), credstore.ErrDamaged)
			wantRemedy(t, s.Delete(t.Context(), c.Key), credstore.ErrDamaged)
			wantGet(t, s, c)
			remove(t, path) // what the remedy says
			wantListed(t, s, "a", "b", "c")
			wantGet(t, s, c)
			put(t, s, credstoretest.Lona("d"))
			wantListed(t, openOn(t, o, on), "a", "b", "c", "d")
		})
	}
}

// One byte anywhere: the list is right or there is an error.
func TestIndexWithOneWrongByteNeverLies(t *testing.T) {
	o, on, path, good := indexed(t)
	s := openOn(t, o, on)
	want, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if len(good) > 2048 {
		step = 61 // prime to the sizes of what is in a page
	}
	damaged := 0
	for i := 0; i < len(good); i += step {
		remove(t, path)
		write(t, path, string(bytes.Join([][]byte{good[:i], {good[i] ^ 0x55}, good[i+1:]}, nil)), 0o600)
		got, err := s.List(t.Context(), "")
		switch {
		case errors.Is(err, credstore.ErrDamaged):
			damaged++
		case err != nil:
			wantRemedy(t, err, credstore.ErrUnavailable)
		case !reflect.DeepEqual(got, want):
			t.Errorf("byte %d: got %+v", i, got)
		}
	}
	if damaged == 0 {
		t.Error("no damage was found at all")
	}
}

func TestIndexThatWasMovedAwayIsLeftAlone(t *testing.T) {
	o, on, path, _ := indexed(t)
	s := openOn(t, o, on)
	wantListed(t, s, "a", "b", "c")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, path+".old"+suffix); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, credstoretest.Lona("d"))
	wantListed(t, s, "a", "b", "c", "d")
	wantListed(t, openOn(t, o, on), "a", "b", "c", "d")
}

// What has the old index open must not touch the log of the new one.
func TestIndexThatWasMovedAwayUnderAnotherProcess(t *testing.T) {
	o, on, path, _ := indexed(t)
	old := openOn(t, o, on)
	put(t, old, credstoretest.Lona("d"))
	if err := os.Rename(path, path+".old"); err != nil { // and its log not
		t.Fatal(err)
	}
	other := openOn(t, o, on)
	put(t, other, credstoretest.Lona("e"))
	wantListed(t, old, "a", "b", "c", "d", "e")
	put(t, old, credstoretest.Lona("f"))
	put(t, other, credstoretest.Lona("g"))
	for _, s := range []credstore.Store{old, other, openOn(t, o, on)} {
		wantListed(t, s, "a", "b", "c", "d", "e", "f", "g")
	}
}

// A log that an index left behind must not become part of the next one.
func TestNewIndexTakesNothingFromAnOldOnesLog(t *testing.T) {
	o, on, path, _ := indexed(t)
	s := openOn(t, o, on)
	put(t, s, credstoretest.Lona("in the log"))
	wal := read(t, path+"-wal")
	if len(wal) == 0 {
		t.Fatal("there is no log")
	}
	if err := s.Delete(t.Context(), credstoretest.Lona("in the log").Key); err != nil {
		t.Fatal(err)
	}
	if err := s.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, path)
	write(t, path+"-wal", string(wal), 0o600)
	put(t, s, credstoretest.Lona("d"))
	wantListed(t, s, "a", "b", "c", "d")
}

func TestIndexOnAFullDiskChangesNothing(t *testing.T) {
	o, on, _, _ := indexed(t)
	full := openOn(t, o, on.WithPragmas("&_pragma=max_page_count(1)"))
	var err error
	stored := 0
	for ; err == nil && stored < 100; stored++ {
		c := credstoretest.Lona(strings.Repeat("x", stored+1))
		if err = full.Put(t.Context(), c); err != nil {
			wantRemedy(t, err, credstore.ErrUnavailable)
			if !strings.Contains(err.Error(), "free some space") {
				t.Errorf("got %v", err)
			}
			_, gone := full.Get(t.Context(), c.Key)
			wantError(t, gone, credstore.ErrNotFound)
		}
	}
	if err == nil {
		t.Fatal("the disk was never full")
	}
	infos, err := openOn(t, o, on).List(t.Context(), "")
	if err != nil || len(infos) != 3+stored-1 {
		t.Errorf("got %d, %v, want %d", len(infos), err, 3+stored-1)
	}
}

func TestIndexOnAReadOnlyDiskChangesNothing(t *testing.T) {
	o, on, _, _ := indexed(t)
	s := openOn(t, o, on.WithPragmas("&_pragma=query_only(1)"))
	before := fmt.Sprint(ringOf(on).items)
	next := credstoretest.Lona("b")
	next.Secret = credstore.NewSecret("next s3cr3t")
	for _, err := range []error{
		s.Put(t.Context(), next), s.Put(t.Context(), credstoretest.Lona("d")), s.Delete(t.Context(), next.Key),
	} {
		wantRemedy(t, err, credstore.ErrUnavailable)
	}
	wantListed(t, s, "a", "b", "c")
	wantGet(t, s, credstoretest.Lona("b"))
	if got := fmt.Sprint(ringOf(on).items); got != before {
		t.Errorf("the keyring was changed: %s", got)
	}
}

func TestHomeWithCharactersOfAURL(t *testing.T) {
	o := options(t, credstore.ModeFile)
	o.Home = filepath.Join(t.TempDir(), "a b?c#d%41&e=ü")
	put(t, openOn(t, o, credstore.QuickSystem()), credstoretest.Lona("my-agent"))
	wantListed(t, openOn(t, o, credstore.QuickSystem()), "my-agent")
	if _, err := os.Stat(filepath.Join(o.Home, "index.db")); err != nil {
		t.Error(err)
	}
}

// What another process is in the way of for a moment is tried again, also where
// SQLite itself does not wait.
func TestTheIndexWaitsForAMoment(t *testing.T) {
	home := t.TempDir()
	var inTheWay *sql.Tx
	store, err := credstore.OpenOn(
		credstore.Options{Mode: credstore.ModeFile, Home: home, ConfigDir: t.TempDir(), Now: time.Now},
		credstore.QuickSystem().WithPause(func(context.Context) error {
			err := inTheWay.Rollback()
			inTheWay = nil
			return err
		}))
	if err != nil {
		t.Fatal(err)
	}
	put := func(agent string) error {
		return store.Put(t.Context(), credstoretest.Lona(agent))
	}
	if err := put("a"); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", "file:"+filepath.ToSlash(filepath.Join(home, "index.db"))+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	if inTheWay, err = other.BeginTx(t.Context(), nil); err != nil {
		t.Fatal(err)
	}

	if err := put("b"); err != nil || inTheWay != nil {
		t.Errorf("got %v, want it stored when the other one is out of the way", err)
	}
}
