package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// racers is how many goroutines race, rounds how often.
const (
	racers = 64
	rounds = 2
)

var errRefused = errors.New("refused")

func raceTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"for a ticket has one winner":               raceRedeem,
		"to open a ticket has one winner":           raceOpen,
		"for credentials stops at the cap":          raceIssue,
		"for hits stops at the limit":               raceHit,
		"to be an agent makes one":                  raceEnsure,
		"to rotate leaves one credential":           raceRotate,
		"of refusals counts all":                    raceAudit,
		"to register with one invite makes one key": raceRegister,
	}
}

func raceRedeem(t *testing.T, s *suite) {
	for round := range rounds {
		name := fmt.Sprint("invite ", round)
		if err := s.open(s.invite(name, "scout"), false); err != nil {
			t.Fatalf("open: %v", err)
		}
		won := s.race(racers, store.ErrNotFound, func(int) error {
			_, err := s.redeem("invite", name, "scout")
			return err
		})
		if won != 1 {
			t.Errorf("round %d: got %d winners, want 1", round, won)
		}
	}
}

func raceOpen(t *testing.T, s *suite) {
	for round := range rounds {
		won := s.race(racers, store.ErrExists, func(int) error {
			return s.open(s.invite(fmt.Sprint("signature ", round), "scout"), false)
		})
		if won != 1 {
			t.Errorf("round %d: got %d winners, want 1", round, won)
		}
	}
}

func raceIssue(t *testing.T, s *suite) {
	const limit = 3
	for round := range rounds {
		a := s.agent(fmt.Sprint("agent ", round))
		won := s.race(racers, store.ErrCap, func(i int) error {
			return s.Tx(s.ctx(), func(tx *store.Tx) error {
				_, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "key", Hash: hash(fmt.Sprint(round, i))}, limit)
				return err
			})
		})
		if won != limit {
			t.Errorf("round %d: got %d, want %d", round, won, limit)
		}
	}
}

func raceHit(t *testing.T, s *suite) {
	const limit = 10
	for round := range rounds {
		key := fmt.Sprint("ip ", round)
		won := s.race(racers, errRefused, func(int) error {
			var wait time.Duration
			err := s.Tx(s.ctx(), func(tx *store.Tx) (err error) {
				wait, err = tx.Hit(key, limit, time.Hour)
				return err
			})
			if err == nil && wait > 0 {
				return errRefused
			}
			return err
		})
		if won != limit {
			t.Errorf("round %d: got %d, want %d", round, won, limit)
		}
	}
}

func raceEnsure(t *testing.T, s *suite) {
	for round := range rounds {
		var first atomic.Int64
		name := fmt.Sprint("agent ", round)
		won := s.race(racers, errRefused, func(int) error {
			var a store.Agent
			var created bool
			err := s.Tx(s.ctx(), func(tx *store.Tx) (err error) {
				a, created, err = tx.EnsureAgent(store.Agent{Protocol: "lona", Name: name})
				return err
			})
			if err != nil {
				return err
			}
			first.CompareAndSwap(0, a.ID)
			if a.ID != first.Load() {
				t.Errorf("another id: got %d, want %d", a.ID, first.Load())
			}
			if !created {
				return errRefused
			}
			return nil
		})
		if won != 1 {
			t.Errorf("round %d: got %d creators, want 1", round, won)
		}
	}
}

func raceRotate(t *testing.T, s *suite) {
	a := s.agent("scout")
	won := s.race(racers, nil, func(i int) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error {
			a, _, err := tx.EnsureAgent(a)
			if err != nil {
				return err
			}
			if _, err := tx.RevokeAll(a.ID, "token"); err != nil {
				return err
			}
			_, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash(fmt.Sprint(i))}, 1)
			return err
		})
	})
	if won != racers {
		t.Errorf("rotations: got %d, want %d", won, racers)
	}
	active := 0
	for i := range racers {
		if _, err := s.Authenticate(s.ctx(), "lona", hash(fmt.Sprint(i))); err == nil {
			active++
		}
	}
	if active != 1 {
		t.Errorf("active: got %d, want 1", active)
	}
}

func raceAudit(t *testing.T, s *suite) {
	s.race(racers, nil, func(int) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error {
			return tx.Audit(refusal("token_refused", "192.0.2.1", "scout"))
		})
	})
	got := s.events()
	if len(got) != 1 || got[0].Count != racers {
		t.Errorf("got %+v, want one that counts %d", got, racers)
	}
}

// raceRegister is Lona's registration: everything or nothing, once.
func raceRegister(t *testing.T, s *suite) {
	if err := s.open(s.invite("invite", "scout"), false); err != nil {
		t.Fatalf("open: %v", err)
	}
	won := s.race(racers, store.ErrNotFound, func(i int) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error {
			a, _, err := tx.EnsureAgent(store.Agent{Protocol: "lona", Name: "scout", DisplayName: fmt.Sprint(i)})
			if err != nil {
				return err
			}
			if _, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash(fmt.Sprint(i))}, 0); err != nil {
				return err
			}
			if err := tx.Audit(store.Event{Protocol: "lona", Name: "token_issued", Agent: fmt.Sprint(i)}); err != nil {
				return err
			}
			_, err = tx.Redeem("lona", "invite", hash("invite"), "scout")
			return err
		})
	})
	if won != 1 {
		t.Fatalf("got %d winners, want 1", won)
	}
	got := s.events()
	if len(got) != 1 {
		t.Fatalf("got %d events, want 1", len(got))
	}
	s.wantAccepted(got[0].Agent)
	if a, err := s.Agent(s.ctx(), "lona", "scout"); err != nil || a.DisplayName != got[0].Agent {
		t.Errorf("agent: got %+v, %v, want that of winner %s", a, err, got[0].Agent)
	}
}
