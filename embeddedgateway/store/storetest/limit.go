package storetest

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func limitTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"allows exactly so many, and again later": limits,
		"slides":                                      slides,
		"does not count what it refuses":              countsAllowed,
		"does not count what is undone":               countsCommitted,
		"counts each key for itself":                  keysApart,
		"agrees with counting by hand":                agrees,
		"can be lowered":                              lowers,
		"survives a clock that is set back":           clockBack,
		"refuses a limit that makes no sense":         nonsense,
		"counts that are over are pruned, not others": prunesCounters,
		"can be looked at":                            counts,
	}
}

func (s *suite) wantHit(key string, limit int, per, want time.Duration) {
	s.t.Helper()
	if got := s.hit(key, limit, per); got != want {
		s.t.Errorf("hit at %s: got wait %v, want %v", s.clock.Now().Format(time.TimeOnly), got, want)
	}
}

func limits(_ *testing.T, s *suite) {
	for range 3 {
		s.wantHit("k", 3, time.Hour, 0)
	}
	s.wantHit("k", 3, time.Hour, time.Hour)
	s.clock.advance(time.Hour - time.Microsecond)
	s.wantHit("k", 3, time.Hour, time.Microsecond)
	s.clock.advance(time.Microsecond)
	for range 3 {
		s.wantHit("k", 3, time.Hour, 0)
	}
	s.wantHit("k", 3, time.Hour, time.Hour)
}

func slides(_ *testing.T, s *suite) {
	s.wantHit("k", 2, time.Hour, 0) // 0:00
	s.clock.advance(50 * time.Minute)
	s.wantHit("k", 2, time.Hour, 0)              // 0:50
	s.wantHit("k", 2, time.Hour, 10*time.Minute) // a fixed window would begin here
	s.clock.advance(10 * time.Minute)
	s.wantHit("k", 2, time.Hour, 0)              // 1:00
	s.wantHit("k", 2, time.Hour, 50*time.Minute) // until 0:50 is over
}

func countsAllowed(_ *testing.T, s *suite) {
	s.wantHit("k", 1, time.Minute, 0)
	for range 5 {
		s.clock.advance(10 * time.Second)
		s.hit("k", 1, time.Minute)
	}
	s.clock.advance(10 * time.Second)
	s.wantHit("k", 1, time.Minute, 0)
}

func countsCommitted(t *testing.T, s *suite) {
	s.wantHit("k", 2, time.Hour, 0)
	for range 5 {
		err := s.Tx(s.ctx(), func(tx *store.Tx) error {
			wait, err := tx.Hit("k", 2, time.Hour)
			if wait != 0 {
				t.Errorf("got wait %v", wait)
			}
			return errors.Join(err, errors.New("changed my mind"))
		})
		if err == nil {
			t.Fatal("the Tx was not undone")
		}
	}
	s.wantHit("k", 2, time.Hour, 0)
	s.wantHit("k", 2, time.Hour, time.Hour)
}

func keysApart(_ *testing.T, s *suite) {
	s.wantHit("a", 1, time.Hour, 0)
	s.wantHit("b", 1, time.Hour, 0)
	s.wantHit("A", 1, time.Hour, 0)
	s.wantHit("a", 1, time.Hour, time.Hour)
}

// agrees compares random hits with the definition: one is allowed unless limit
// were allowed in the window that ends with it.
func agrees(t *testing.T, s *suite) {
	const limit, per = 4, 10 * time.Second
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	var allowed []time.Time
	for range 80 {
		s.clock.advance(time.Duration(r.Int64N(int64(4 * time.Second))).Truncate(time.Second / 2))
		now := s.clock.Now()
		var inside []time.Time
		for _, a := range allowed {
			if a.After(now.Add(-per)) {
				inside = append(inside, a)
			}
		}
		var want time.Duration
		if len(inside) < limit {
			allowed = append(allowed, now)
		} else {
			want = inside[len(inside)-limit].Add(per).Sub(now)
		}
		if got := s.hit("k", limit, per); got != want {
			t.Fatalf("seed %d, hit %d: got wait %v, want %v", seed, len(allowed), got, want)
		}
	}
}

func lowers(_ *testing.T, s *suite) {
	for range 5 {
		s.wantHit("k", 5, time.Hour, 0)
		s.clock.advance(time.Minute)
	}
	// Hits at 0, 1, 2, 3 and 4 minutes, now 5: two are few enough when the one
	// at 3 is over.
	s.wantHit("k", 2, time.Hour, 58*time.Minute)
	s.wantHit("k", 6, time.Hour, 0)
}

func clockBack(_ *testing.T, s *suite) {
	s.wantHit("near", 2, time.Minute, 0)
	s.wantHit("far", 1, time.Minute, 0)
	s.clock.advance(-30 * time.Second)
	s.wantHit("near", 2, time.Minute, 0) // the one in the future counts
	s.wantHit("near", 2, time.Minute, time.Minute)
	s.clock.advance(time.Minute)
	s.wantHit("near", 2, time.Minute, 0)
	s.wantHit("near", 2, time.Minute, 30*time.Second)
	// Nobody waits a day for a clock that was a day wrong.
	s.clock.advance(-24 * time.Hour)
	s.wantHit("far", 1, time.Minute, 0)
	s.wantHit("far", 1, time.Minute, time.Minute)
}

func nonsense(t *testing.T, s *suite) {
	for _, c := range []struct {
		limit int
		per   time.Duration
	}{{0, time.Hour}, {-1, time.Hour}, {1, 0}, {1, -time.Hour}} {
		err := s.Tx(s.ctx(), func(tx *store.Tx) error {
			_, err := tx.Hit("k", c.limit, c.per)
			return err
		})
		if err == nil {
			t.Errorf("%d in %v was accepted", c.limit, c.per)
		}
	}
}

func prunesCounters(_ *testing.T, s *suite) {
	s.wantHit("short", 1, time.Minute, 0)
	s.wantHit("long", 1, time.Hour, 0)
	s.clock.advance(30 * time.Minute)
	s.wantPruned(1)
	s.wantHit("long", 1, time.Hour, 30*time.Minute)
	s.wantHit("short", 1, time.Minute, 0)
}

func counts(t *testing.T, s *suite) {
	want := func(n int, free time.Time) {
		t.Helper()
		s.tx(func(tx *store.Tx) error {
			got, at, err := tx.Count("k", time.Hour)
			if got != n || !at.Equal(free) {
				t.Errorf("at %s: got %d until %v, want %d until %v", s.clock.Now().Format(time.TimeOnly), got, at, n, free)
			}
			return err
		})
	}
	want(0, time.Time{})
	first := s.clock.Now()
	s.hit("k", 2, time.Hour)
	s.hit("another", 2, time.Hour)
	want(1, first.Add(time.Hour))
	s.clock.advance(10 * time.Minute)
	s.hit("k", 2, time.Hour)
	s.hit("k", 2, time.Hour) // refused
	want(2, first.Add(time.Hour))
	want(2, first.Add(time.Hour)) // looking counts nothing
	s.clock.advance(50 * time.Minute)
	want(1, first.Add(70*time.Minute))
	s.clock.advance(10 * time.Minute)
	want(0, time.Time{})
}
