// Package storetest is the suite that a store passes on every database.
package storetest

import (
	"context"
	"crypto/sha256"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// Open opens a store on an empty database that goes away with the test.
type Open func(t *testing.T, now func() time.Time) *store.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		tests map[string]func(*testing.T, *suite)
	}{
		{"tx", txTests()},
		{"agent", agentTests()},
		{"credential", credentialTests()},
		{"ticket", ticketTests()},
		{"limit", limitTests()},
		{"audit", auditTests()},
		{"sealed", sealedTests()},
		{"retention", retentionTests()},
		{"usage", usageTests()},
		{"operator", operatorTests()},
		{"race", raceTests()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for name, test := range group.tests {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					c := &clock{now: time.Date(2026, 2, 6, 14, 0, 0, 123456000, time.UTC)}
					test(t, &suite{Store: open(t, c.Now), t: t, clock: c})
				})
			}
		})
	}
}

// suite is what a test works with: a store, and a clock that stands still.
type suite struct {
	*store.Store
	t     *testing.T
	clock *clock
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// ctx is not the test's own: that one ends before the cleanup.
func (s *suite) ctx() context.Context { return context.Background() }

// tx runs fn and fails the test on any error.
func (s *suite) tx(fn func(tx *store.Tx) error) {
	s.t.Helper()
	if err := s.Tx(s.ctx(), fn); err != nil {
		s.t.Fatalf("Tx: %v", err)
	}
}

// agent stores an agent and returns it.
func (s *suite) agent(name string) (a store.Agent) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) (err error) {
		a, _, err = tx.EnsureAgent(store.Agent{Protocol: "lona", Name: name, DisplayName: name})
		return err
	})
	return a
}

// issue issues a credential without a cap.
func (s *suite) issue(c store.Credential) store.Credential {
	s.t.Helper()
	s.tx(func(tx *store.Tx) (err error) {
		c, err = tx.Issue(c, 0)
		return err
	})
	return c
}

// hit counts one hit.
func (s *suite) hit(key string, limit int, per time.Duration) (wait time.Duration) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) (err error) {
		wait, err = tx.Hit(key, limit, per)
		return err
	})
	return wait
}

// events returns the whole trail, the newest first.
func (s *suite) events() []store.Event {
	s.t.Helper()
	events, err := s.Events(s.ctx(), store.EventQuery{Limit: 1000})
	if err != nil {
		s.t.Fatalf("Events: %v", err)
	}
	return events
}

// hash is the hash of a secret that is called so.
func hash(name string) [32]byte { return sha256.Sum256([]byte(name)) }

// race runs fn n times at once and returns how many times it was nil. An error
// other than want fails the test.
func (s *suite) race(n int, want error, fn func(i int) error) (won int) {
	s.t.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case err != want: //nolint:errorlint // exactly that
			s.t.Errorf("racer %s: got error %v, want %v", strconv.Itoa(i), err, want)
		}
	}
	return won
}
