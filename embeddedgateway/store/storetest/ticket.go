package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func ticketTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"is redeemed once":                        redeems,
		"is redeemed by who has all of it":        redeemsExactly,
		"is spent once, by who has all of it":     spends,
		"stays of a key whose agent is deleted":   keepsHashes,
		"is not redeemed once expired":            redeemsInTime,
		"is not opened twice":                     opensOnce,
		"replaces those of its subject":           replaces,
		"is not used by a Tx that fails":          notUsed,
		"that is over is pruned, the rest stays":  prunesTickets,
		"is pruned in portions":                   prunesMany,
		"that never expires is not pruned either": keepsForever,
		"is shown in whatever state it is":        showsTicket,
		"is void after so many failed tries":      strikes,
		"is dropped":                              dropsTicket,
	}
}

func (s *suite) open(k store.Ticket, replace bool) error {
	return s.Tx(s.ctx(), func(tx *store.Tx) error { return tx.OpenTicket(k, replace) })
}

func (s *suite) redeem(kind, name, subject string) (k store.Ticket, err error) {
	err = s.Tx(s.ctx(), func(tx *store.Tx) (err error) {
		k, err = tx.Redeem("lona", kind, hash(name), subject)
		return err
	})
	return k, err
}

// wantGone fails the test if the ticket can be redeemed.
func (s *suite) wantGone(kind, name, subject string) {
	s.t.Helper()
	if k, err := s.redeem(kind, name, subject); !errors.Is(err, store.ErrNotFound) {
		s.t.Errorf("redeem %s: got %+v, error %v, want %v", name, k, err, store.ErrNotFound)
	}
}

// invite is a ticket that ends in an hour.
func (s *suite) invite(name, subject string) store.Ticket {
	return store.Ticket{
		Protocol: "lona", Kind: "invite", Hash: hash(name), Subject: subject,
		ExpiresAt: s.clock.Now().Add(time.Hour),
	}
}

func redeems(t *testing.T, s *suite) {
	want := s.invite("one", "scout")
	want.Data, want.Tries = map[string]string{"source": "test"}, 3
	want.CreatedAt = s.clock.Now()
	if err := s.open(want, false); err != nil {
		t.Fatalf("open: %v", err)
	}
	s.clock.advance(time.Minute)
	want.UsedAt = s.clock.Now()
	got, err := s.redeem("invite", "one", "scout")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("redeemed: got %+v, %v, want %+v", got, err, want)
	}
	s.wantGone("invite", "one", "scout")
}

func redeemsExactly(t *testing.T, s *suite) {
	if err := s.open(s.invite("one", "scout"), false); err != nil {
		t.Fatalf("open: %v", err)
	}
	s.wantGone("invite", "two", "scout")
	s.wantGone("challenge", "one", "scout")
	s.wantGone("invite", "one", "Scout")
	s.wantGone("invite", "one", "")
	err := s.Tx(s.ctx(), func(tx *store.Tx) error {
		_, err := tx.Redeem("agentdoor", "invite", hash("one"), "scout")
		return err
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another protocol: got error %v, want %v", err, store.ErrNotFound)
	}
	if _, err := s.redeem("invite", "one", "scout"); err != nil {
		t.Errorf("all of it: got error %v", err)
	}
}

func redeemsInTime(t *testing.T, s *suite) {
	for _, name := range []string{"early", "late"} {
		if err := s.open(s.invite(name, "scout"), false); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	s.clock.advance(time.Hour - time.Microsecond)
	if _, err := s.redeem("invite", "early", "scout"); err != nil {
		t.Errorf("just in time: got error %v", err)
	}
	s.clock.advance(time.Microsecond)
	s.wantGone("invite", "late", "scout")
}

func opensOnce(t *testing.T, s *suite) {
	first := s.invite("one", "scout")
	if err := s.open(first, false); err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := s.open(s.invite("one", "other"), false); !errors.Is(err, store.ErrExists) {
		t.Errorf("open again: got error %v, want %v", err, store.ErrExists)
	}
	if _, err := s.redeem("invite", "one", "scout"); err != nil {
		t.Errorf("redeem: got error %v", err)
	}
	if err := s.open(first, true); !errors.Is(err, store.ErrExists) {
		t.Errorf("open one that was used: got error %v, want %v", err, store.ErrExists)
	}
	other := first
	other.Kind = "signature"
	if err := s.open(other, false); err != nil {
		t.Errorf("open another kind: got error %v", err)
	}
}

func replaces(t *testing.T, s *suite) {
	other := s.invite("other subject", "somebody else")
	kind := s.invite("other kind", "scout")
	kind.Kind = "challenge"
	for _, k := range []store.Ticket{other, kind, s.invite("one", "scout"), s.invite("two", "scout")} {
		if err := s.open(k, false); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	if err := s.open(s.invite("three", "scout"), true); err != nil {
		t.Fatalf("replace: %v", err)
	}
	s.wantGone("invite", "one", "scout")
	s.wantGone("invite", "two", "scout")
	for _, k := range []struct{ kind, name, subject string }{
		{"invite", "three", "scout"},
		{"invite", "other subject", "somebody else"},
		{"challenge", "other kind", "scout"},
	} {
		if _, err := s.redeem(k.kind, k.name, k.subject); err != nil {
			t.Errorf("%s: got error %v", k.name, err)
		}
	}
}

func notUsed(t *testing.T, s *suite) {
	if err := s.open(s.invite("one", "scout"), false); err != nil {
		t.Fatalf("open: %v", err)
	}
	_ = s.Tx(s.ctx(), func(tx *store.Tx) error {
		if _, err := tx.Redeem("lona", "invite", hash("one"), "scout"); err != nil {
			return err
		}
		return errors.New("changed my mind")
	})
	if _, err := s.redeem("invite", "one", "scout"); err != nil {
		t.Errorf("redeem: got error %v", err)
	}
}

func (s *suite) wantPruned(want int) {
	s.t.Helper()
	if n, err := s.Prune(s.ctx(), s.clock.Now()); err != nil || n != want {
		s.t.Errorf("pruned: got %d, %v, want %d", n, err, want)
	}
}

func prunesTickets(t *testing.T, s *suite) {
	long := s.invite("long", "scout")
	long.ExpiresAt = long.ExpiresAt.Add(time.Hour)
	for _, k := range []store.Ticket{long, s.invite("used", "scout"), s.invite("unused", "scout")} {
		if err := s.open(k, false); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	if _, err := s.redeem("invite", "used", "scout"); err != nil {
		t.Fatalf("redeem: %v", err)
	}
	s.wantPruned(0) // a used one is remembered as long as it could be used
	s.clock.advance(time.Hour)
	s.wantPruned(0) // and an hour longer, so that who comes late can be told
	s.clock.advance(time.Hour - time.Second)
	if _, err := s.redeem("invite", "long", "scout"); err != nil {
		t.Errorf("the one that goes on: got error %v", err)
	}
	s.clock.advance(time.Second)
	s.wantPruned(2)
	s.wantPruned(0)
}

func prunesMany(t *testing.T, s *suite) {
	const n = 503 // more than one portion
	s.tx(func(tx *store.Tx) error {
		for i := range n {
			if err := tx.OpenTicket(s.invite(fmt.Sprint(i), "scout"), false); err != nil {
				return err
			}
		}
		return nil
	})
	s.clock.advance(2 * time.Hour)
	s.wantPruned(n)
}

func keepsForever(t *testing.T, s *suite) {
	k := s.invite("ever", "scout")
	k.ExpiresAt = time.Time{}
	if err := s.open(k, false); err != nil {
		t.Fatalf("open: %v", err)
	}
	s.clock.advance(100 * 365 * 24 * time.Hour)
	s.wantPruned(0)
	if _, err := s.redeem("invite", "ever", "scout"); err != nil {
		t.Errorf("redeem: got error %v", err)
	}
}

func showsTicket(t *testing.T, s *suite) {
	want := s.invite("one", "scout")
	want.CreatedAt = s.clock.Now()
	if err := s.open(want, false); err != nil {
		t.Fatalf("open: %v", err)
	}
	show := func() {
		t.Helper()
		got, err := s.Ticket(s.ctx(), "lona", "invite", hash("one"))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ticket: got %+v, %v, want %+v", got, err, want)
		}
		s.tx(func(tx *store.Tx) error {
			got, err := tx.Ticket("lona", "invite", hash("one"))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("ticket in a Tx: got %+v, %v, want %+v", got, err, want)
			}
			return nil
		})
	}
	show()
	if _, err := s.redeem("invite", "one", "scout"); err != nil {
		t.Fatalf("redeem: %v", err)
	}
	want.UsedAt = s.clock.Now()
	show()
	s.clock.advance(2 * time.Hour)
	show()
	if _, err := s.Ticket(s.ctx(), "lona", "challenge", hash("one")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of another kind: got error %v, want %v", err, store.ErrNotFound)
	}
}

func strikes(t *testing.T, s *suite) {
	for _, name := range []string{"used", "one", "two"} {
		if err := s.open(s.invite(name, "scout"), false); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	if err := s.open(s.invite("other", "ranger"), false); err != nil {
		t.Fatalf("open: %v", err)
	}
	if _, err := s.redeem("invite", "used", "scout"); err != nil {
		t.Fatalf("redeem: %v", err)
	}
	strike := func(want int) {
		t.Helper()
		s.tx(func(tx *store.Tx) error {
			n, err := tx.Strike("lona", "invite", "scout", 5)
			if n != want {
				t.Errorf("counted against %d tickets, want %d", n, want)
			}
			return err
		})
	}
	for range 4 {
		strike(2)
	}
	if _, err := s.redeem("invite", "one", "scout"); err != nil {
		t.Errorf("after four: got error %v", err)
	}
	strike(1)
	strike(0)
	s.wantGone("invite", "two", "scout")
	if k, err := s.Ticket(s.ctx(), "lona", "invite", hash("used")); err != nil || k.Tries != 0 {
		t.Errorf("one that was used before: got %+v, %v", k, err)
	}
	if _, err := s.redeem("invite", "other", "ranger"); err != nil {
		t.Errorf("of another subject: got error %v", err)
	}
}

func dropsTicket(t *testing.T, s *suite) {
	for _, name := range []string{"one", "two"} {
		if err := s.open(s.invite(name, "scout"), false); err != nil {
			t.Fatalf("open: %v", err)
		}
	}
	s.tx(func(tx *store.Tx) error { return tx.DropTicket("lona", "invite", hash("one")) })
	s.wantGone("invite", "one", "scout")
	if _, err := s.redeem("invite", "two", "scout"); err != nil {
		t.Errorf("the other one: got error %v", err)
	}
}

func spends(t *testing.T, s *suite) {
	if err := errors.Join(s.open(s.invite("one", "scout"), false), s.open(s.invite("two", "scout"), false)); err != nil {
		t.Fatalf("open: %v", err)
	}
	spend := func(protocol, kind, name, subject string) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error { return tx.Spend(protocol, kind, hash(name), subject) })
	}
	for _, wrong := range [][4]string{
		{"lithtrix", "invite", "one", "scout"},
		{"lona", "challenge", "one", "scout"},
		{"lona", "invite", "three", "scout"},
		{"lona", "invite", "one", "ranger"},
	} {
		if err := spend(wrong[0], wrong[1], wrong[2], wrong[3]); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v: got error %v, want %v", wrong, err, store.ErrNotFound)
		}
	}
	if won := s.race(16, store.ErrNotFound, func(int) error { return spend("lona", "invite", "one", "scout") }); won != 1 {
		t.Errorf("%d have spent it, want one", won)
	}
	s.wantGone("invite", "one", "scout")
	s.clock.advance(time.Hour)
	if err := spend("lona", "invite", "two", "scout"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("expired: got error %v, want %v", err, store.ErrNotFound)
	}
}

func keepsHashes(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("ranger")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "1", Hash: hash("token")})
	s.issue(store.Credential{AgentID: a.ID, Kind: "claim", KeyID: "2", Hash: hash("claim")})
	s.issue(store.Credential{AgentID: b.ID, Kind: "token", KeyID: "3", Hash: hash("another's")})
	for range 2 { // again: it is there
		s.tx(func(tx *store.Tx) error { return tx.KeepHashes(a.ID, "token", "issued") })
	}
	s.tx(func(tx *store.Tx) error { return tx.DeleteAgent(a.ID) })
	want := store.Ticket{Protocol: "lona", Kind: "issued", Hash: hash("token"), CreatedAt: s.clock.Now()}
	if got, err := s.Ticket(s.ctx(), "lona", "issued", hash("token")); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, name := range []string{"claim", "another's"} {
		if got, err := s.Ticket(s.ctx(), "lona", "issued", hash(name)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, store.ErrNotFound)
		}
	}
}
