package credstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// list returns the items of the keyring's own list, by their names.
func (r *faultyRing) list() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := make(map[string]string)
	for name, text := range r.items {
		if isList(name[0]) {
			parts[name[1]] = text
		}
	}
	return parts
}

// setList puts a text into the place of a part of the keyring's own list; ""
// removes it.
func (r *faultyRing) setList(t *testing.T, part, text string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.items {
		if isList(name[0]) && name[1] == part {
			r.items[name] = text
			if text == "" {
				delete(r.items, name)
			}
			return
		}
	}
	t.Fatalf("there is no %s", part)
}

func TestKeyringKeepsAListOfItsOwn(t *testing.T) {
	s, r := keyringStore(t)
	wantList := func(want map[string]string) {
		t.Helper()
		if got := r.list(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	a, b := credstoretest.Lona("a"), credstoretest.Lona("b")
	b.Label = "work"
	put(t, s, b)
	put(t, s, a)
	wantList(map[string]string{"part 1": `{"v":1,"part":1,"parts":1,"keys":{"lona":{"https://gateway.lona.agency":{"token":["a","b\nwork"]}}}}`})
	put(t, s, a)
	if err := s.Delete(t.Context(), a.Key); err != nil {
		t.Fatal(err)
	}
	wantList(map[string]string{"part 1": `{"v":1,"part":1,"parts":1,"keys":{"lona":{"https://gateway.lona.agency":{"token":["b\nwork"]}}}}`})
	if err := s.Delete(t.Context(), b.Key); err != nil {
		t.Fatal(err)
	}
	if len(r.items) != 0 {
		t.Errorf("got %v, want nothing left", r.items)
	}
}

// What is read and written often costs what it did before there was a list.
func TestListCostsOnlyWhoChangesTheSetOfKeys(t *testing.T) {
	s, r := keyringStore(t)
	c := credstoretest.Lona("a")
	put(t, s, c)
	var calls []string
	r.fail(func(call, service, _ string) (bool, error) {
		calls = append(calls, call)
		if isList(service) {
			t.Errorf("%s of the list", call)
		}
		return false, nil
	})
	wantGet(t, s, c)
	put(t, s, c)
	wantListed(t, s, "a")
	if want := []string{"get", "get", "set", "get"}; !slices.Equal(calls, want) {
		t.Errorf("got %v, want %v", calls, want)
	}
}

func TestListIsSplitWhereOneItemWouldBeTooLarge(t *testing.T) {
	o := options(t, credstore.ModeAuto)
	r := newFaultyRing()
	on := credstore.QuickSystem().WithRing(r)
	s := openOn(t, o, on)
	var agents []string
	for i := range 60 {
		// What JSON and UTF-8 make longer, too.
		agents = append(agents, fmt.Sprintf("agent-%02d-\"<é>%s", i, strings.Repeat("x", i)))
		put(t, s, credstoretest.Lona(agents[i]))
	}
	parts := r.list()
	if len(parts) < 3 {
		t.Errorf("got %d parts, want more", len(parts))
	}
	for name, text := range parts {
		if len(text) > credstore.MaxEnvelope {
			t.Errorf("%s has %d bytes, want %d at most", name, len(text), credstore.MaxEnvelope)
		}
	}
	remove(t, filepath.Join(o.Home, "index.db"))
	wantListed(t, openOn(t, o, on), agents...)

	t.Run("a part that is lost is missed", func(t *testing.T) {
		lost := parts["part 2"]
		r.setList(t, "part 2", "")
		flaws := inspect(t, s).Flaws
		if len(flaws) == 0 || flaws[0].Kind != credstore.FlawList {
			t.Errorf("got %v, want what is lost", flaws)
		}
		if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
			t.Error(err)
		}
		if flaws := inspect(t, s).Flaws; len(flaws) != 0 || r.list()["part 2"] != lost {
			t.Errorf("got %v, %q, want it back", flaws, r.list()["part 2"])
		}
	})
	t.Run("parts that are no longer needed are deleted", func(t *testing.T) {
		for _, agent := range agents[1:] {
			if err := s.Delete(t.Context(), credstoretest.Lona(agent).Key); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.list(); len(got) != 1 || !strings.Contains(got["part 1"], `"parts":1,`) {
			t.Errorf("got %v, want one part", got)
		}
	})
}

// older makes a home look as one of before there was a list.
func older(t *testing.T, o credstore.Options, r *faultyRing) {
	t.Helper()
	for part := range r.list() {
		r.setList(t, part, "")
	}
	execute(t, o, "PRAGMA application_id = 0")
}

// execute runs a statement on the index.
func execute(t *testing.T, o credstore.Options, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(o.Home, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), statement)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOlderHomeHasItsListFromTheNextWriteOn(t *testing.T) {
	changes := map[string]func(s credstore.Store) error{
		"of a new one":  func(s credstore.Store) error { return s.Put(t.Context(), credstoretest.Lona("d")) },
		"over a former": func(s credstore.Store) error { return s.Put(t.Context(), credstoretest.Lona("b")) },
		"by a repair":   func(s credstore.Store) error { _, err := s.(credstore.Inspector).Repair(t.Context()); return err },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			o, on, path, _ := indexed(t)
			r := ringOf(on)
			older(t, o, r)
			s := openOn(t, o, on)
			wantGet(t, s, credstoretest.Lona("a"))
			if flaws := inspect(t, s).Flaws; len(flaws) != 1 || flaws[0].Kind != credstore.FlawList {
				t.Errorf("got %v, want that there is no list", flaws)
			}
			if err := change(s); err != nil {
				t.Fatal(err)
			}
			want := []string{"a", "b", "c"}
			if name == "of a new one" {
				want = append(want, "d")
			}
			remove(t, path)
			wantListed(t, s, want...)
		})
	}
	t.Run("and until then a credential is listed when it is used", func(t *testing.T) {
		o, on, path, _ := indexed(t)
		older(t, o, ringOf(on))
		write(t, path, "not a database", 0o600)
		s := openOn(t, o, on)
		got, err := s.(credstore.Inspector).Repair(t.Context())
		if err != nil || got.Index == "" || len(got.Left) != 1 || got.Left[0].Kind != credstore.FlawList {
			t.Errorf("got %+v, %v, want that nobody knows what was in it", got, err)
		}
		wantListed(t, s)
		wantGet(t, s, credstoretest.Lona("b"))
		wantListed(t, s, "b")
	})
}

// The list may be what an older Enlist did not complete.
func TestListIsCompletedWithTheIndex(t *testing.T) {
	o, on, path, _ := indexed(t)
	r := ringOf(on)
	r.setList(t, "part 1", `{"v":1,"part":1,"parts":1,"keys":{"lona":{"https://gateway.lona.agency":{"token":["b"]}}}}`)
	s := openOn(t, o, on)
	put(t, s, credstoretest.Lona("d"))
	remove(t, path)
	wantListed(t, s, "a", "b", "c", "d")
}

func TestListThatCannotBeReadIsLeftAloneAndStopsNobody(t *testing.T) {
	for name, text := range map[string]string{
		"of somebody else's":  "s3cr3t password of a person",
		"of another part":     `{"v":1,"part":2,"parts":1,"keys":{}}`,
		"with a key of none":  `{"v":1,"part":1,"parts":1,"keys":{"lona":{"":{"token":[""]}}}}`,
		"with too many parts": `{"v":1,"part":1,"parts":100000,"keys":{}}`,
		"cut short":           `{"v":1,"part":1,"parts":1,"keys":{"lona":`,
	} {
		t.Run(name, func(t *testing.T) {
			o, on, path, _ := indexed(t)
			r := ringOf(on)
			r.setList(t, "part 1", text)
			s := openOn(t, o, on)
			put(t, s, credstoretest.Lona("d"))
			if got := r.list()["part 1"]; got != text {
				t.Errorf("got %q, want it as it was", got)
			}
			flaws := inspect(t, s).Flaws
			if len(flaws) != 1 || flaws[0].Kind != credstore.FlawList || strings.Contains(fmt.Sprint(flaws), "s3cr3t") {
				t.Errorf("got %v, want the part", flaws)
			}
			if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
				t.Error(err)
			}
			if flaws := inspect(t, s).Flaws; len(flaws) != 0 {
				t.Errorf("got %v, want none any more", flaws)
			}
			remove(t, path)
			wantListed(t, s, "a", "b", "c", "d")
		})
	}
}

// state is a home and a keyring at some moment.
type state struct {
	o     credstore.Options
	items map[[2]string]string
}

// freeze copies what is on disk and in the keyring, as a crash leaves it.
func freeze(t *testing.T, o credstore.Options, r *faultyRing) *state {
	t.Helper()
	copied := o
	copied.Home = filepath.Join(t.TempDir(), "home")
	if err := os.CopyFS(copied.Home, os.DirFS(o.Home)); err != nil {
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &state{copied, maps.Clone(r.items)}
}

// wantWhole wants every item of the keyring to be had and listed, with and
// without the index, and nothing else to be listed as if it were there; and one
// repair to be enough.
func (at *state) wantWhole(t *testing.T, agents ...string) {
	t.Helper()
	for _, index := range []bool{true, false} {
		r := newFaultyRing()
		r.items = maps.Clone(at.items)
		o := at.o
		s := openOn(t, o, credstore.QuickSystem().WithRing(r))
		if !index {
			remove(t, filepath.Join(o.Home, "index.db"))
		}
		infos, err := s.List(t.Context(), "")
		if err != nil {
			t.Errorf("list: %v", err)
		}
		listed := make(map[string]bool)
		for _, info := range infos {
			listed[info.Agent] = info.State != credstore.StateLost
		}
		for _, agent := range agents {
			c, err := s.Get(t.Context(), credstoretest.Lona(agent).Key)
			there := err == nil && !c.Secret.IsZero()
			if !there && !errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("get %s: %v", agent, err)
			}
			if listed[agent] != there {
				t.Errorf("index %v: %s is listed: %v, is there: %v", index, agent, listed[agent], there)
			}
			delete(listed, agent)
		}
		for _, flaw := range inspect(t, s).Flaws {
			if flaw.Kind == credstore.FlawList {
				t.Errorf("got %v, want a list that is whole at every moment", flaw)
			}
		}
		if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
			t.Errorf("repair: %v", err)
		}
		if report := inspect(t, s); len(report.Flaws) != 0 || report.Unread != (credstore.Fault{}) {
			t.Errorf("after a repair: got %v, %v", report.Flaws, report.Unread)
		}
		for _, agent := range agents {
			put(t, s, credstoretest.Lona(agent))
		}
		wantListed(t, s, agents...)
	}
}

// steps are the changes that are stopped at every step.
func steps() map[string]func(t *testing.T, s credstore.Store) error {
	next := credstoretest.Lona("b")
	next.KeyID, next.Secret = "next", credstore.NewSecret("next s3cr3t")
	return map[string]func(t *testing.T, s credstore.Store) error{
		"a first put":    func(t *testing.T, s credstore.Store) error { return s.Put(t.Context(), credstoretest.Lona("d")) },
		"a put over one": func(t *testing.T, s credstore.Store) error { return s.Put(t.Context(), next) },
		"a delete":       func(t *testing.T, s credstore.Store) error { return s.Delete(t.Context(), next.Key) },
	}
}

func TestCrashAtEveryKeyringCallLosesNothing(t *testing.T) {
	for name, step := range steps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for nth := 1; crashAt(t, nth, step, "a", "b", "c", "d"); nth++ {
			}
		})
	}
}

// crashAt takes a step in a home with agents, but for the last of them, and
// looks at what a crash at the nth call to the keyring leaves. It returns
// false if there are fewer.
func crashAt(t *testing.T, nth int, step func(t *testing.T, s credstore.Store) error, agents ...string) bool {
	t.Helper()
	o, on, _, _ := indexed(t)
	r := ringOf(on)
	s := openOn(t, o, on)
	for _, agent := range agents[3 : len(agents)-1] {
		put(t, s, credstoretest.Lona(agent))
	}
	var at *state
	calls := 0
	r.fail(func(string, string, string) (bool, error) {
		if calls++; calls == nth {
			at = freeze(t, o, r)
		}
		return false, nil
	})
	if err := step(t, s); err != nil {
		t.Fatal(err)
	}
	r.fail(nil)
	if at == nil {
		if calls < 3 {
			t.Errorf("got %d calls, want more", calls)
		}
		return false
	}
	at.wantWhole(t, agents...)
	return true
}

// The same where the list gets one more part, or needs one less.
func TestCrashBetweenPartsOfTheListLosesNothing(t *testing.T) {
	agents := []string{"a", "b", "c"}
	for i := range 12 { // the last one does not fit into the first part
		agents = append(agents, fmt.Sprintf("d%02d%s", i, strings.Repeat("x", 97)))
	}
	last := credstoretest.Lona(agents[len(agents)-1])
	more := func(t *testing.T, s credstore.Store) error { return s.Put(t.Context(), last) }
	for name, step := range map[string]func(t *testing.T, s credstore.Store) error{
		"one more": more,
		"one less": func(t *testing.T, s credstore.Store) error {
			return errors.Join(more(t, s), s.Delete(t.Context(), last.Key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nth := 1
			for crashAt(t, nth, step, agents...) {
				nth++
			}
			if nth < 12 {
				t.Errorf("got %d calls, want those of a second part", nth)
			}
		})
	}
}

func TestKeyringThatIsLockedHalfWayLosesNothing(t *testing.T) {
	for name, step := range steps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for nth := 1; ; nth++ {
				o, on, _, _ := indexed(t)
				r := ringOf(on)
				calls := 0
				r.fail(func(string, string, string) (bool, error) {
					calls++
					return calls >= nth, errLocked
				})
				s := openOn(t, o, on)
				err := step(t, s)
				locked := calls >= nth
				r.fail(nil)
				if err != nil {
					wantRemedy(t, err, credstore.ErrUnavailable)
				}
				if !locked {
					if nth < 4 || err != nil {
						t.Errorf("got %d steps, %v, want more, and success", nth, err)
					}
					return
				}
				freeze(t, o, r).wantWhole(t, "a", "b", "c", "d")
			}
		})
	}
}

// The list that was given up may still be written: it then names what was never
// put, and the next look takes it off again.
func TestLateListNamesNothingInTheEnd(t *testing.T) {
	s, r := keyringStore(t)
	put(t, s, credstoretest.Lona("other"))
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan struct{})
	r.fail(func(call, service, _ string) (bool, error) {
		if call == "set" && isList(service) {
			cancel()
			<-released
		}
		return false, nil
	})
	c := credstoretest.Lona("my-agent")
	wantRemedy(t, s.Put(ctx, c), credstore.ErrUnavailable)
	wantListed(t, s, "other")
	close(released)
	_, err := s.Get(t.Context(), c.Key) // behind the list
	wantError(t, err, credstore.ErrNotFound)
	wantListed(t, s, "other")
	if got := inspect(t, s).Flaws; len(got) != 0 || strings.Contains(r.list()["part 1"], "my-agent") {
		t.Errorf("got %v, %v, want the other one alone", got, r.list())
	}
}
