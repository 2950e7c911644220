package storetest

import (
	"errors"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func agentTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"is added once":                       agentAdded,
		"is created, found and updated":       agentLives,
		"is not found":                        agentNotFound,
		"is another in another protocol":      agentElsewhere,
		"is another in other letters":         agentOtherCase,
		"keeps any text that can be kept":     agentText,
		"is seen inside the Tx that makes it": agentInside,
		"is suspended with all that it has":   agentSuspended,
		"is deleted with all that it has":     agentDeleted,
	}
}

func agentLives(t *testing.T, s *suite) {
	created := s.clock.Now()
	first := store.Agent{
		Protocol: "lona", Name: "scout", DisplayName: "Scout",
		Attrs: map[string]string{"source": "test", "user_id": "u1"},
	}
	ensure := func(a store.Agent, wantNew bool) (got store.Agent) {
		s.tx(func(tx *store.Tx) (err error) {
			var isNew bool
			got, isNew, err = tx.EnsureAgent(a)
			if isNew != wantNew {
				t.Errorf("created: got %v, want %v", isNew, wantNew)
			}
			return err
		})
		return got
	}
	got := ensure(first, true)
	want := first
	want.ID, want.CreatedAt = got.ID, created
	if got.ID == 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("created: got %+v, want %+v", got, want)
	}

	s.clock.advance(time.Hour)
	second := store.Agent{Protocol: "lona", Name: "scout", DisplayName: "Scout II"}
	got = ensure(second, false)
	want.DisplayName, want.Attrs = "Scout II", nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("updated: got %+v, want %+v", got, want)
	}
	got = ensure(second, false)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("updated again: got %+v, want %+v", got, want)
	}
	found, err := s.Agent(s.ctx(), "lona", "scout")
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("found: got %+v, %v, want %+v", found, err, want)
	}
}

func agentNotFound(t *testing.T, s *suite) {
	if _, err := s.Agent(s.ctx(), "lona", "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got error %v, want %v", err, store.ErrNotFound)
	}
	s.tx(func(tx *store.Tx) error {
		if _, err := tx.Agent("lona", "nobody"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("in a Tx: got error %v, want %v", err, store.ErrNotFound)
		}
		return note(tx, "went on") // an answer, not a failure
	})
	s.wantEvents("went on")
}

func agentElsewhere(t *testing.T, s *suite) {
	a := s.agent("scout")
	s.tx(func(tx *store.Tx) error {
		b, created, err := tx.EnsureAgent(store.Agent{Protocol: "agentdoor", Name: "scout"})
		if !created || a.ID == b.ID {
			t.Errorf("created: got %v (ids %d and %d), want another", created, a.ID, b.ID)
		}
		return err
	})
}

func agentOtherCase(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("Scout")
	if a.ID == b.ID {
		t.Error("scout and Scout are one")
	}
}

func agentText(t *testing.T, s *suite) {
	text := "\U0001F916 $1 '; DROP TABLE agents; -- \" % _ \\ \n\t\u0001 é e\u0301 \u202e"
	want := map[string]string{text: text, "": "", "null": "null"}
	s.tx(func(tx *store.Tx) error {
		_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: text, DisplayName: text, Attrs: want})
		return err
	})
	a, err := s.Agent(s.ctx(), "lona", text)
	if err != nil || a.DisplayName != text || !maps.Equal(a.Attrs, want) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func agentInside(t *testing.T, s *suite) {
	s.tx(func(tx *store.Tx) error {
		a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "scout"})
		if err != nil {
			return err
		}
		got, err := tx.Agent("lona", "scout")
		if !reflect.DeepEqual(got, a) {
			t.Errorf("inside: got %+v, want %+v", got, a)
		}
		// Nobody else sees it before the commit.
		if _, err := s.Agent(s.ctx(), "lona", "scout"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("outside: got error %v, want %v", err, store.ErrNotFound)
		}
		return err
	})
}

func agentSuspended(t *testing.T, s *suite) {
	a := s.agent("scout")
	for _, kind := range []string{"token", "key"} {
		s.issue(store.Credential{AgentID: a.ID, Kind: kind, KeyID: kind, Hash: hash(kind)})
	}
	suspend := func() (first bool) {
		s.tx(func(tx *store.Tx) (err error) {
			first, err = tx.Suspend(a.ID)
			return err
		})
		return first
	}
	if !suspend() || suspend() {
		t.Error("suspended: want true the first time and false the second time")
	}
	for _, kind := range []string{"token", "key"} {
		if c, err := s.Authenticate(s.ctx(), "lona", hash(kind)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("authenticate with the %s: got %+v, %v, want %v", kind, c, err, store.ErrNotFound)
		}
	}
	if got, err := s.Agent(s.ctx(), "lona", "scout"); err != nil || !got.DisabledAt.Equal(s.clock.Now()) {
		t.Errorf("agent: got %+v, %v, want it suspended now", got, err)
	}
}

func agentDeleted(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("ranger")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "a", Hash: hash("a")})
	s.issue(store.Credential{AgentID: b.ID, Kind: "token", KeyID: "b", Hash: hash("b")})
	if err := s.open(s.invite("one", "scout"), false); err != nil {
		t.Fatalf("open: %v", err)
	}
	s.tx(func(tx *store.Tx) error { return tx.DeleteAgent(a.ID) })
	if _, err := s.Agent(s.ctx(), "lona", "scout"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the agent: got error %v, want %v", err, store.ErrNotFound)
	}
	if _, err := s.Authenticate(s.ctx(), "lona", hash("a")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its token: got error %v, want %v", err, store.ErrNotFound)
	}
	s.wantGone("invite", "one", "scout")
	if _, err := s.Authenticate(s.ctx(), "lona", hash("b")); err != nil {
		t.Errorf("another's token: got error %v", err)
	}
	err := s.Tx(s.ctx(), func(tx *store.Tx) error { return tx.DeleteAgent(a.ID) })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted again: got error %v, want %v", err, store.ErrNotFound)
	}
}

func agentAdded(t *testing.T, s *suite) {
	add := func(name string) (a store.Agent, err error) {
		err = s.Tx(s.ctx(), func(tx *store.Tx) (err error) {
			a, err = tx.AddAgent(store.Agent{Protocol: "lona", Name: name, DisplayName: "Scout", Attrs: map[string]string{"source": `a "test" of ü`}})
			return err
		})
		return a, err
	}
	a, err := add("scout")
	if err != nil {
		t.Fatalf("add: %v", err)
	}
	if got, err := s.Agent(s.ctx(), "lona", "scout"); err != nil || !reflect.DeepEqual(got, a) || !a.CreatedAt.Equal(s.clock.Now()) {
		t.Errorf("got %+v, %v, want %+v", got, err, a)
	}
	if got, err := add("scout"); !errors.Is(err, store.ErrExists) {
		t.Errorf("again: got %+v, %v, want %v", got, err, store.ErrExists)
	}
	if won := s.race(16, store.ErrExists, func(int) error { _, err := add("ranger"); return err }); won != 1 {
		t.Errorf("%d have added it, want one", won)
	}
	s.wantList(store.AgentQuery{Protocol: "lona", Prefix: "sco", Limit: 10}, "lona/scout", "lona/ranger")
}
