package credstore_test

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// cutHome is a home whose index is to be cut: with pages as small as SQLite has
// them, so that every offset can be tried, and a last change that is in the log
// beside it.
type cutHome struct {
	o          credstore.Options
	on         credstore.System
	path       string
	index, log []byte
}

func newCutHome(t *testing.T) cutHome {
	t.Helper()
	// The driver sorts what it is told; with quotation marks the size of a page
	// comes before the mode of the journal, after which it is fixed.
	on := credstore.QuickSystem().WithRing(newFaultyRing()).WithPragmas("&_pragma=%22main%22.page_size(512)")
	h := cutHome{o: options(t, credstore.ModeAuto), on: on}
	h.path = filepath.Join(h.o.Home, "index.db")
	s := openOn(t, h.o, h.on)
	put(t, s, credstoretest.Lona("a"))
	put(t, s, credstoretest.Lona("b"))
	if err := s.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	h.index = read(t, h.path)
	put(t, s, credstoretest.Lona("c"))
	h.log = read(t, h.path+"-wal")
	if len(h.index) > 4096 || len(h.log) == 0 {
		t.Fatalf("got an index of %d bytes and a log of %d", len(h.index), len(h.log))
	}
	return h
}

// page is the size of a page of such an index.
const page = 512

// An index that a power cut, a full disk or a copy cut short works or says that
// it is damaged; no secret depends on it, and a repair brings all of it back.
func TestIndexCutAnywhereHealsAndLosesNoSecret(t *testing.T) {
	tests := map[string]struct {
		offsets func(h cutHome) int
		tried   func(n int) bool
		index   func(h cutHome, n int) []byte
		log     func(h cutHome, n int) []byte
	}{
		"without its log": {
			func(h cutHome) int { return len(h.index) },
			func(int) bool { return true },
			func(h cutHome, n int) []byte { return h.index[:n] },
			nil,
		},
		"with its log": {
			func(h cutHome) int { return len(h.index) },
			func(n int) bool { return n%16 == 0 || n%page < 8 || n%page > page-8 },
			func(h cutHome, n int) []byte { return h.index[:n] },
			func(h cutHome, _ int) []byte { return h.log },
		},
		"in its log": {
			func(h cutHome) int { return len(h.log) },
			// What is not a whole frame SQLite does not look at.
			func(n int) bool { f := (n - 32) % (24 + page); return n%32 == 0 || -4 < f && f < 28 || f > 20+page },
			func(h cutHome, _ int) []byte { return h.index },
			func(h cutHome, n int) []byte { return h.log[:n] },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newCutHome(t)
			s := openOn(t, h.o, h.on)
			worked, damaged := 0, 0
			last := test.offsets(h)
			for n := range last + 1 {
				if !test.tried(n) && n != last {
					continue
				}
				if err := s.(io.Closer).Close(); err != nil {
					t.Fatal(err)
				}
				remove(t, h.path)
				write(t, h.path, string(test.index(h, n)), 0o600)
				if test.log != nil {
					write(t, h.path+"-wal", string(test.log(h, n)), 0o600)
				}
				infos, err := s.List(t.Context(), "")
				agents := []string{}
				for _, info := range infos {
					agents = append(agents, info.Agent)
				}
				switch got := strings.Join(agents, " "); {
				case errors.Is(err, credstore.ErrDamaged):
					damaged++
				case err != nil || got != "a b" && got != "a b c":
					t.Fatalf("cut at %d: got %q, %v, want a list or that it is damaged", n, got, err)
				default:
					worked++
				}
				if n%128 < 2 { // each takes ten times as long
					h.wantHealed(t, s, fmt.Sprintf("cut at %d", n))
				}
			}
			if worked == 0 || name != "in its log" && damaged == 0 {
				t.Errorf("it worked %d times and was damaged %d times", worked, damaged)
			}
		})
	}
}

// wantHealed wants every secret to be there before a repair, and to be listed
// after it.
func (h cutHome) wantHealed(t *testing.T, s credstore.Store, at string) {
	t.Helper()
	for _, agent := range []string{"a", "b", "c"} {
		wantGet(t, s, credstoretest.Lona(agent))
	}
	if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
		t.Fatalf("%s: repair: %v", at, err)
	}
	wantListed(t, s, "a", "b", "c")
	put(t, s, credstoretest.Lona("c"))
	if report := inspect(t, s); report.Index.State != credstore.IndexOK || len(report.Flaws) != 0 {
		t.Fatalf("%s: after a repair: got %+v, %v", at, report.Index, report.Flaws)
	}
}
