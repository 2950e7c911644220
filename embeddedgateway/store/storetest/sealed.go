package storetest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func sealedTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"is listed as it was, until it expires":   sealedLives,
		"has a name of its own in its kind":       sealedOnce,
		"is handed out when due, to one":          sealedTaken,
		"is postponed by its last taker":          sealedPostponed,
		"is outdated, but for one":                sealedOutdated,
		"is pruned when it has expired":           sealedPruned,
		"is handed out to one of many that try":   sealedRace,
		"that expires is not handed out any more": sealedTooLate,
	}
}

func (s *suite) seal(v store.Sealed) error {
	return s.Tx(s.ctx(), func(tx *store.Tx) error { return tx.Seal(v) })
}

func (s *suite) mail(name string) store.Sealed {
	return store.Sealed{Kind: "mail", Name: name, Data: []byte("\x00sealed " + name), ExpiresAt: s.clock.Now().Add(time.Hour)}
}

func (s *suite) mustSeal(list ...store.Sealed) {
	s.t.Helper()
	for _, v := range list {
		if err := s.seal(v); err != nil {
			s.t.Fatalf("seal %s: %v", v.Name, err)
		}
	}
}

func (s *suite) take(d time.Duration) (v store.Sealed, err error) {
	err = s.Tx(s.ctx(), func(tx *store.Tx) (err error) {
		v, err = tx.Take("mail", tx.Now().Add(d))
		return err
	})
	return v, err
}

// names returns the names of what is sealed of a kind, in its order.
func (s *suite) names(kind string) (names []string) {
	s.t.Helper()
	list, err := s.Sealed(s.ctx(), kind, 1000)
	if err != nil {
		s.t.Fatalf("sealed: %v", err)
	}
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

func (s *suite) wantNames(kind string, want ...string) {
	s.t.Helper()
	if got := s.names(kind); !reflect.DeepEqual(got, want) {
		s.t.Errorf("sealed of kind %s: got %q, want %q", kind, got, want)
	}
}

func sealedLives(t *testing.T, s *suite) {
	want := s.mail("one")
	s.mustSeal(want, s.mail("two"))
	s.mustSeal(store.Sealed{Kind: "key", Name: "ever", Data: []byte{1}})
	want.CreatedAt = s.clock.Now()
	list, err := s.Sealed(s.ctx(), "mail", 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("sealed: got %+v, %v, want one", list, err)
	}
	want.ID = list[0].ID
	if want.ID == 0 || !reflect.DeepEqual(list[0], want) {
		t.Errorf("sealed: got %+v, want %+v", list[0], want)
	}
	s.clock.advance(time.Hour)
	s.wantNames("mail")
	s.wantNames("key", "ever")
}

func sealedOnce(t *testing.T, s *suite) {
	s.mustSeal(s.mail("one"))
	if err := s.seal(s.mail("one")); !errors.Is(err, store.ErrExists) {
		t.Errorf("again: got error %v, want %v", err, store.ErrExists)
	}
	other := s.mail("one")
	other.Kind = "key"
	s.mustSeal(other)
}

func sealedTaken(t *testing.T, s *suite) {
	later := s.mail("later")
	later.DueAt = s.clock.Now().Add(time.Minute)
	s.mustSeal(later, s.mail("one"), s.mail("two"))
	var first store.Sealed
	for i, want := range []string{"one", "two"} {
		got, err := s.take(10 * time.Minute)
		if err != nil || got.Name != want || got.Tries != 1 {
			t.Errorf("taken: got %+v, %v, want %s, for the first time", got, err, want)
		}
		if i == 0 {
			first = got
		}
	}
	if got, err := s.take(time.Minute); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nothing is due: got %+v, %v, want %v", got, err, store.ErrNotFound)
	}
	s.tx(func(tx *store.Tx) error { return tx.Drop(first.ID) })
	s.clock.advance(time.Minute)
	if got, err := s.take(time.Hour); err != nil || got.Name != "later" {
		t.Errorf("a minute later: got %+v, %v, want later", got, err)
	}
	s.clock.advance(9 * time.Minute)
	if got, err := s.take(time.Hour); err != nil || got.Name != "two" || got.Tries != 2 {
		t.Errorf("what nobody dropped: got %+v, %v, want two, for the second time", got, err)
	}
}

func sealedPostponed(t *testing.T, s *suite) {
	s.mustSeal(s.mail("one"))
	taken := func(want string) store.Sealed {
		t.Helper()
		got, err := s.take(time.Minute)
		if err != nil && !errors.Is(err, store.ErrNotFound) || got.Name != want {
			t.Errorf("taken: got %+v, %v, want %q", got, err, want)
		}
		return got
	}
	first := taken("one")
	s.tx(func(tx *store.Tx) error { return tx.Postpone(first, tx.Now().Add(5*time.Minute)) })
	s.clock.advance(4 * time.Minute)
	taken("")
	s.clock.advance(time.Minute)
	taken("one")
	s.tx(func(tx *store.Tx) error { return tx.Postpone(first, tx.Now()) })
	taken("")
}

func sealedOutdated(_ *testing.T, s *suite) {
	soon := s.mail("soon")
	soon.ExpiresAt = s.clock.Now().Add(time.Minute)
	ever := s.mail("ever")
	ever.ExpiresAt = time.Time{}
	s.mustSeal(soon, ever, store.Sealed{Kind: "mail", Name: "new", Data: []byte{1}})
	s.tx(func(tx *store.Tx) error { return tx.Outdate("mail", "new", tx.Now().Add(time.Hour)) })
	s.clock.advance(time.Minute)
	s.wantNames("mail", "ever", "new")
	s.clock.advance(time.Hour)
	s.wantNames("mail", "new")
}

func sealedPruned(_ *testing.T, s *suite) {
	s.mustSeal(s.mail("one"), s.mail("two"), store.Sealed{Kind: "key", Name: "ever", Data: []byte{1}})
	s.wantPruned(0)
	s.clock.advance(time.Hour)
	s.wantPruned(2)
	s.wantPruned(0)
	s.wantNames("key", "ever")
}

func sealedRace(t *testing.T, s *suite) {
	s.mustSeal(s.mail("one"))
	if won := s.race(64, store.ErrNotFound, func(int) error {
		_, err := s.take(time.Minute)
		return err
	}); won != 1 {
		t.Errorf("taken %d times, want once", won)
	}
}

func sealedTooLate(t *testing.T, s *suite) {
	s.mustSeal(s.mail("one"))
	s.clock.advance(time.Hour)
	if got, err := s.take(time.Minute); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("taken: got %+v, %v, want %v", got, err, store.ErrNotFound)
	}
}
