package storetest

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func retentionTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"deletes old events":               prunesEvents,
		"lets others write":                prunesBetween,
		"keeps tickets as long as it must": prunesTicketsLater,
		"lends to one":                     lends,
		"lends to one of many at once":     lendsUnderRace,
		"counts what it does":              countsItself,
	}
}

func (s *suite) outlived(p store.Pruning) bool {
	s.t.Helper()
	some, err := s.Outlived(s.ctx(), p)
	if err != nil {
		s.t.Fatal(err)
	}
	return some
}

func prunesEvents(t *testing.T, s *suite) {
	s.audit(refusal("invite_refused", "192.0.2.1", "scout"), store.Event{Protocol: "lona", Name: "old"})
	s.clock.advance(24 * time.Hour)
	s.audit(store.Event{Protocol: "lona", Name: "young"})
	if n, err := s.Prune(s.ctx(), s.clock.Now().AddDate(1, 0, 0)); n != 0 || err != nil {
		t.Errorf("without being told to: got %d, %v", n, err)
	}
	p := store.Pruning{Now: s.clock.Now(), Events: 24*time.Hour + time.Second}
	if s.outlived(p) {
		t.Error("a second early: there is something to delete")
	}
	p.Events = 24 * time.Hour
	gone := map[string]int{}
	p.Pruned = func(table string, rows int) { gone[table] += rows }
	if !s.outlived(p) {
		t.Error("there is nothing to delete")
	}
	if n, err := s.PruneAs(s.ctx(), p); n != 2 || err != nil {
		t.Errorf("got %d, %v, want 2", n, err)
	}
	if want := map[string]int{"tickets": 0, "counters": 0, "usages": 0, "sealed": 0, "events": 2}; !maps.Equal(gone, want) {
		t.Errorf("was told %v, want %v", gone, want)
	}
	if left := s.events(); len(left) != 1 || left[0].Name != "young" {
		t.Errorf("left are %+v", left)
	}
}

func prunesBetween(t *testing.T, s *suite) {
	const n = 1203 // two portions and a bit
	s.tx(func(tx *store.Tx) error {
		for range n {
			if err := tx.Audit(store.Event{Protocol: "lona", Name: "old"}); err != nil {
				return err
			}
		}
		return nil
	})
	s.clock.advance(time.Hour)
	times, enough := 0, errors.New("enough")
	p := store.Pruning{Now: s.clock.Now(), Events: time.Minute, Between: func(ctx context.Context) error {
		times++
		// Nobody holds anything.
		err := s.Tx(ctx, func(tx *store.Tx) error { return tx.Audit(store.Event{Protocol: "lona", Name: "young"}) })
		if err != nil {
			return err
		}
		if times == 2 {
			return enough
		}
		return nil
	}}
	if got, err := s.PruneAs(s.ctx(), p); got != 1000 || !errors.Is(err, enough) {
		t.Errorf("got %d, %v, want 1000 and what Between returned", got, err)
	}
	times = 5
	if got, err := s.PruneAs(s.ctx(), p); got != n-1000 || err != nil {
		t.Errorf("got %d, %v, want the rest", got, err)
	}
}

func prunesTicketsLater(t *testing.T, s *suite) {
	k := s.invite("one", "scout") // for an hour
	if err := s.open(k, false); err != nil {
		t.Fatal(err)
	}
	p := store.Pruning{Now: s.clock.Now().Add(time.Hour + 20*time.Minute), Tickets: 30 * time.Minute}
	if n, err := s.PruneAs(s.ctx(), p); n != 0 || err != nil {
		t.Errorf("early: got %d, %v", n, err)
	}
	p.Now = p.Now.Add(10 * time.Minute)
	if n, err := s.PruneAs(s.ctx(), p); n != 1 || err != nil {
		t.Errorf("in time: got %d, %v", n, err)
	}
}

func (s *suite) lease(holder string, d time.Duration) (held bool) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) (err error) {
		held, err = tx.Lease("retention", holder, s.clock.Now().Add(d))
		return err
	})
	return held
}

func lends(t *testing.T, s *suite) {
	for _, step := range []struct {
		name, holder string
		after        time.Duration
		want         bool
	}{
		{"the first", "a", 0, true},
		{"another", "b", 0, false},
		{"the first again", "a", 50 * time.Second, true},
		{"another while it holds longer", "b", 59 * time.Second, false},
		{"another when it is over", "b", time.Second, true},
		{"the first, too late", "a", 0, false},
	} {
		s.clock.advance(step.after)
		if got := s.lease(step.holder, time.Minute); got != step.want {
			t.Errorf("%s: got %t, want %t", step.name, got, step.want)
		}
	}
	for _, holder := range []string{"a", "b"} { // only its holder ends it
		s.tx(func(tx *store.Tx) error { return tx.EndLease("retention", holder) })
		if got := s.lease("c", time.Minute); got != (holder == "b") {
			t.Errorf("when %s ended it: got %t", holder, got)
		}
	}
}

func lendsUnderRace(t *testing.T, s *suite) {
	var held atomic.Int32
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			_ = s.Tx(s.ctx(), func(tx *store.Tx) error {
				got, err := tx.Lease("retention", string(rune('A'+i)), s.clock.Now().Add(time.Minute))
				if err == nil && got {
					held.Add(1)
				}
				return err
			})
		})
	}
	all.Wait()
	if n := held.Load(); n != 1 {
		t.Errorf("%d hold it at once", n)
	}
}

func countsItself(t *testing.T, s *suite) {
	before := s.Stats()
	s.agent("scout")
	_ = s.Tx(s.ctx(), func(*store.Tx) error { return errors.New("no") })
	if _, err := s.Authenticate(s.ctx(), "lona", hash("nothing")); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	after := s.Stats()
	if after.Committed != before.Committed+1 || after.Undone != before.Undone+1 {
		t.Errorf("got %d and %d, before %d and %d", after.Committed, after.Undone, before.Committed, before.Undone)
	}
	if got := after.Authentications["lona"]; got.Refused != 1 || got.Good != 0 {
		t.Errorf("got %+v", got)
	}
	if w := after.Writer; w != nil {
		if w.Sum < w.Count || w.Count == 0 || len(w.Batches) != len(w.BatchSizes()) || w.Batches[len(w.Batches)-1] != w.Count {
			t.Errorf("the writer: %+v", w)
		}
	}
	if err := s.Ping(s.ctx()); err != nil {
		t.Errorf("ping: %v", err)
	}
}
