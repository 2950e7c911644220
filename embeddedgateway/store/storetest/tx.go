package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func txTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"commits what the callback did":            commits,
		"undoes all of a callback that fails":      undoes,
		"undoes a callback that drops a failure":   poisons,
		"undoes a callback whose context ends":     undoesCanceled,
		"does not run under a context that ended":  neverRuns,
		"panics in the caller and goes on":         panics,
		"survives a callback that ends its thread": exits,
		"refuses a Tx inside a Tx":                 nests,
		"refuses a Tx after its callback":          outlives,
		"has one time":                             stands,
		"refuses text that cannot be kept":         refusesText,
		"refuses everything once closed":           closes,
		"leaves others alone when one fails":       isolates,
	}
}

func note(tx *store.Tx, name string) error {
	return tx.Audit(store.Event{Protocol: "lona", Name: name})
}

// wantEvents fails the test unless the trail holds exactly these, in order.
func (s *suite) wantEvents(names ...string) {
	s.t.Helper()
	var got []string
	for _, e := range s.events() {
		got = append([]string{e.Name}, got...)
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		s.t.Errorf("events: got %q, want %q", got, names)
	}
}

func commits(_ *testing.T, s *suite) {
	s.tx(func(tx *store.Tx) error { return errors.Join(note(tx, "a"), note(tx, "b")) })
	s.wantEvents("a", "b")
}

func undoes(t *testing.T, s *suite) {
	want := errors.New("changed my mind")
	got := s.Tx(s.ctx(), func(tx *store.Tx) error {
		if _, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a"}); err != nil {
			return err
		}
		return errors.Join(note(tx, "a"), want)
	})
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
	s.wantEvents()
	if _, err := s.Agent(s.ctx(), "lona", "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("agent: got error %v, want %v", err, store.ErrNotFound)
	}
}

func poisons(t *testing.T, s *suite) {
	err := s.Tx(s.ctx(), func(tx *store.Tx) error {
		if err := note(tx, "before"); err != nil {
			return err
		}
		_ = note(tx, "\xff")
		if err := note(tx, "after"); !errors.Is(err, store.ErrText) {
			t.Errorf("statement after a failure: got error %v, want %v", err, store.ErrText)
		}
		return nil
	})
	if !errors.Is(err, store.ErrText) {
		t.Errorf("got error %v, want %v", err, store.ErrText)
	}
	s.wantEvents()
}

func undoesCanceled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	err := s.Tx(ctx, func(tx *store.Tx) error {
		err := note(tx, "a")
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	s.tx(func(tx *store.Tx) error { return note(tx, "b") })
	s.wantEvents("b")
}

func neverRuns(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx())
	cancel()
	ran := false
	err := s.Tx(ctx, func(*store.Tx) error { ran = true; return nil })
	if !errors.Is(err, context.Canceled) || ran {
		t.Errorf("Tx: got ran %v, error %v, want %v", ran, err, context.Canceled)
	}
	if _, err := s.Authenticate(ctx, "lona", hash("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Authenticate: got error %v, want %v", err, context.Canceled)
	}
	if _, err := s.Events(ctx, store.EventQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Events: got error %v, want %v", err, context.Canceled)
	}
}

func panics(t *testing.T, s *suite) {
	want := errors.New("boom")
	func() {
		defer func() {
			if got := recover(); got != error(want) { //nolint:errorlint // the very value
				t.Errorf("recover: got %v, want %v", got, want)
			}
		}()
		_ = s.Tx(s.ctx(), func(tx *store.Tx) error {
			if err := note(tx, "a"); err != nil {
				return err
			}
			panic(want)
		})
		t.Error("Tx returned")
	}()
	s.tx(func(tx *store.Tx) error { return note(tx, "b") })
	s.wantEvents("b")
}

func exits(t *testing.T, s *suite) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Tx(s.ctx(), func(tx *store.Tx) error {
			if err := note(tx, "a"); err != nil {
				return err
			}
			runtime.Goexit() // as t.FailNow does
			return nil
		})
		t.Error("Tx returned")
	}()
	<-done
	s.tx(func(tx *store.Tx) error { return note(tx, "b") })
	s.wantEvents("b")
}

func nests(t *testing.T, s *suite) {
	s.tx(func(tx *store.Tx) error {
		err := s.Tx(s.ctx(), func(tx *store.Tx) error { return note(tx, "inner") })
		if !errors.Is(err, store.ErrNested) {
			t.Errorf("got error %v, want %v", err, store.ErrNested)
		}
		return note(tx, "outer")
	})
	s.wantEvents("outer")
}

func outlives(t *testing.T, s *suite) {
	var kept *store.Tx
	s.tx(func(tx *store.Tx) error { kept = tx; return nil })
	if err := note(kept, "late"); err == nil {
		t.Error("a Tx that is over was accepted")
	}
	s.wantEvents()
}

func stands(t *testing.T, s *suite) {
	s.tx(func(tx *store.Tx) error {
		want := tx.Now()
		s.clock.advance(time.Hour)
		if got := tx.Now(); !got.Equal(want) {
			t.Errorf("now: got %v, want %v", got, want)
		}
		return note(tx, "a")
	})
	want := s.clock.Now().Add(-time.Hour)
	if got := s.events()[0].At; got != want {
		t.Errorf("at: got %v, want %v", got, want)
	}
}

func refusesText(t *testing.T, s *suite) {
	a := s.agent("a")
	for name, fn := range map[string]func(*store.Tx, string) error{
		"name": func(tx *store.Tx, bad string) error {
			_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: bad})
			return err
		},
		"attribute": func(tx *store.Tx, bad string) error {
			_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a", Attrs: map[string]string{"k": bad}})
			return err
		},
		"attribute's name": func(tx *store.Tx, bad string) error {
			_, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "a", Attrs: map[string]string{bad: "v"}})
			return err
		},
		"scope": func(tx *store.Tx, bad string) error {
			_, err := tx.Issue(store.Credential{AgentID: a.ID, Scopes: []string{bad}}, 0)
			return err
		},
		"subject": func(tx *store.Tx, bad string) error {
			return tx.OpenTicket(store.Ticket{Protocol: "lona", Subject: bad}, true)
		},
		"data": func(tx *store.Tx, bad string) error {
			return tx.OpenTicket(store.Ticket{Protocol: "lona", Data: map[string]string{"k": bad}}, false)
		},
		"key": func(tx *store.Tx, bad string) error {
			_, err := tx.Hit(bad, 1, time.Minute)
			return err
		},
	} {
		for _, bad := range []string{"\xc3\x28", "a\x00b"} {
			err := s.Tx(s.ctx(), func(tx *store.Tx) error { return fn(tx, bad) })
			if !errors.Is(err, store.ErrText) {
				t.Errorf("%s %q: got error %v, want %v", name, bad, err, store.ErrText)
			}
		}
	}
	if _, err := s.Agent(s.ctx(), "lona", "\xff"); !errors.Is(err, store.ErrText) {
		t.Errorf("Agent: got error %v, want %v", err, store.ErrText)
	}
}

func closes(t *testing.T, s *suite) {
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	_, authErr := s.Authenticate(s.ctx(), "lona", hash("x"))
	_, agentErr := s.Agent(s.ctx(), "lona", "a")
	_, eventsErr := s.Events(s.ctx(), store.EventQuery{})
	_, pruneErr := s.Prune(s.ctx(), s.clock.Now())
	for name, got := range map[string]error{
		"Tx":           s.Tx(s.ctx(), func(*store.Tx) error { return nil }),
		"Authenticate": authErr,
		"Agent":        agentErr,
		"Events":       eventsErr,
		"Prune":        pruneErr,
	} {
		if !errors.Is(got, store.ErrClosed) {
			t.Errorf("%s: got error %v, want %v", name, got, store.ErrClosed)
		}
	}
}

func isolates(t *testing.T, s *suite) {
	refused := errors.New("refused")
	won := s.race(64, refused, func(i int) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error {
			if err := note(tx, fmt.Sprint("note ", i)); err != nil {
				return err
			}
			if i%2 == 1 {
				return refused
			}
			return nil
		})
	})
	if won != 32 {
		t.Errorf("committed: got %d, want 32", won)
	}
	events := s.events()
	if len(events) != 32 {
		t.Errorf("events: got %d, want 32", len(events))
	}
	for _, e := range events {
		var i int
		if _, err := fmt.Sscanf(e.Name, "note %d", &i); err != nil || i%2 == 1 {
			t.Errorf("event %q is there", e.Name)
		}
	}
}
