package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// benchTally is what came of many operations of one kind.
type benchTally struct {
	took     []time.Duration // of those that were answered as hoped, sorted
	statuses map[int]int     // of the others, by status; 0: no answer came
	first    error           // the first of those without an answer
	waits    int             // how often a client waited because it was told to, and did not stop
	elapsed  time.Duration
}

// benchOp is an operation of a client, on the client's own connection.
type benchOp func(ctx context.Context, client int, c *benchConn) (benchAnswer, error)

// drive has each connection do op while more says so. A client that is told to
// wait does so, and stops if that is past the end of ctx.
func drive(ctx context.Context, conns []*benchConn, more func() bool, op benchOp) *benchTally {
	all := &benchTally{statuses: map[int]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun := time.Now()
	for i, c := range conns {
		wg.Go(func() {
			t := benchTally{statuses: map[int]int{}}
			for ctx.Err() == nil && more() {
				if !t.one(ctx, i, c, op) {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.add(&t)
		})
	}
	wg.Wait()
	all.elapsed = time.Since(begun)
	slices.Sort(all.took)
	return all
}

// one does op once, and says whether the client goes on.
func (t *benchTally) one(ctx context.Context, client int, c *benchConn, op benchOp) bool {
	begun := time.Now()
	a, err := op(ctx, client, c)
	took := time.Since(begun)
	if refused, ok := errors.AsType[*refusedError](err); ok {
		a, err = refused.answer, nil
	}
	switch {
	case err != nil && ctx.Err() != nil: // cut off by the end
		return false
	case err != nil:
		t.statuses[0]++
		t.first = cmp.Or(t.first, err)
		return t.wait(ctx, time.Second) // nobody is helped by a flood of dials
	case a.ok():
		t.took = append(t.took, took)
		return true
	}
	t.statuses[a.status]++
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		if !t.wait(ctx, max(a.retryAfter, time.Second)) {
			return false
		}
		t.waits++
	}
	return true
}

// wait returns when d is over; or at once, with false, if ctx ends before.
func (t *benchTally) wait(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// add adds what another tally counted.
func (t *benchTally) add(o *benchTally) {
	t.took = append(t.took, o.took...)
	for status, n := range o.statuses {
		t.statuses[status] += n
	}
	t.first = cmp.Or(t.first, o.first)
	t.waits += o.waits
}

// failed is how many operations were not answered as hoped.
func (t *benchTally) failed() (n int) {
	for count := range maps.Values(t.statuses) {
		n += count
	}
	return n
}

// rate is how many operations a second were answered as hoped.
func (t *benchTally) rate() float64 {
	if t.elapsed <= 0 {
		return 0
	}
	return float64(len(t.took)) / t.elapsed.Seconds()
}

// percentile is the time in which so many of a hundred operations were answered.
func (t *benchTally) percentile(p int) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	return t.took[min(len(t.took)-1, len(t.took)*p/100)]
}

// upTo returns what is true n times, for all clients together; 0: always.
func upTo(n int) func() bool {
	if n <= 0 {
		return func() bool { return true }
	}
	var done atomic.Int64
	return func() bool { return done.Add(1) <= int64(n) }
}
