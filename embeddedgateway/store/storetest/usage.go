package storetest

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func usageTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"is what the others said, and what they said last": usageOfOthers,
		"is heard once":             usageSince,
		"is pruned when it expired": usagePruned,
	}
}

func (s *suite) put(replica, counts string, ends time.Time) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) error {
		return tx.PutUsage(store.Usage{
			Replica: replica, Name: "limit", EndsAt: ends, Counts: []byte(counts), ExpiresAt: ends.Add(time.Hour),
		})
	})
}

// wantUsages compares what a replica hears.
func (s *suite) wantUsages(replica string, after time.Time, want ...string) {
	s.t.Helper()
	list, err := s.Usages(s.ctx(), replica, after)
	if err != nil {
		s.t.Fatalf("Usages: %v", err)
	}
	var got []string
	for _, u := range list {
		if u.Name != "limit" || !u.ExpiresAt.Equal(u.EndsAt.Add(time.Hour)) {
			s.t.Errorf("got %+v", u)
		}
		got = append(got, u.Replica+":"+string(u.Counts))
	}
	if len(got) != len(want) {
		s.t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			s.t.Errorf("got %q, want %q", got, want)
		}
	}
}

func usageOfOthers(_ *testing.T, s *suite) {
	ends := s.clock.Now().Add(time.Minute)
	s.put("a", "\x00\xff1", ends)
	s.clock.advance(time.Second)
	s.put("b", "2", ends)
	s.clock.advance(time.Second)
	s.put("a", "3", ends)
	s.wantUsages("a", time.Time{}, "b:2")
	s.wantUsages("b", time.Time{}, "a:3")
	s.wantUsages("c", time.Time{}, "b:2", "a:3")
	s.put("a", "4", ends.Add(time.Minute))
	s.wantUsages("b", time.Time{}, "a:3", "a:4")
}

func usageSince(_ *testing.T, s *suite) {
	begin := s.clock.Now()
	s.put("a", "1", begin.Add(time.Minute))
	s.wantUsages("b", begin)
	s.wantUsages("b", begin.Add(-time.Microsecond), "a:1")
	s.clock.advance(time.Second)
	s.put("a", "2", begin.Add(time.Minute))
	s.wantUsages("b", begin, "a:2")
}

func usagePruned(_ *testing.T, s *suite) {
	ends := s.clock.Now()
	s.put("a", "1", ends)
	s.put("a", "2", ends.Add(time.Microsecond))
	s.clock.advance(time.Hour - time.Microsecond)
	s.wantUsages("b", time.Time{}, "a:1", "a:2")
	s.wantPruned(0)
	s.clock.advance(time.Microsecond)
	s.wantUsages("b", time.Time{}, "a:2")
	s.wantPruned(1)
}
