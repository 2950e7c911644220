package embeddedgateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// maxCounted is how many keys a [keyLimit] remembers at most, and maxRuns how
	// many times of use for all of them: some 40 MiB.
	maxCounted = 1 << 16
	maxRuns    = 1 << 21
	// maxFine is how many uses in a window are told apart. Where more are
	// allowed, those in the same 1/maxFine of a window count as long as the last
	// of them does.
	maxFine = 1 << 10
)

// keyLimit is how often each key may be used. It counts in memory, because a
// durable write for each request is not wanted. Within one process the count is
// exact: no stretch of time as long as per ever holds more than n uses of a key.
// What other processes counted comes by [usage], about a second late, and counts
// as what was counted here.
//
// What it remembers lies in two halves. All that is used goes into the newer
// one; when that is per old, or holds its share of maxCounted or maxRuns, it
// becomes the older one, whose keys are forgotten unless they are used again. So
// idle keys cost nothing, and a flood of keys only resets the counts of others.
type keyLimit struct {
	n   int
	per time.Duration
	now func() time.Time

	mu         sync.Mutex
	since      time.Time // when newer began
	newer, old map[int64]*tally
	runs       int // in newer

	*exchanged // nil: with nobody
}

func newKeyLimit(n int, per time.Duration, now func() time.Time) *keyLimit {
	return &keyLimit{n: n, per: per, now: now, newer: map[int64]*tally{}}
}

// hit counts one use of the key with that id in the store, or refuses it. It may
// write to the database: nobody calls it inside a transaction.
func (k *keyLimit) hit(ctx context.Context, id int64) error {
	var refusal error
	try := func(wait bool) (due bool) {
		due, refusal = k.try(id, wait)
		return due
	}
	if k.exchanged == nil {
		try(false)
	} else {
		k.usage.settled(ctx, try)
	}
	return refusal
}

// try is hit, unless an exchange is due before, for which it may wait.
func (k *keyLimit) try(id int64, wait bool) (due bool, refusal error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := k.now()
	full, t := k.room(id, at)
	switch {
	case full > 0:
		p := &problem{kind: kindLimited, retryAfter: full}
		p.message = fmt.Sprintf("too many requests: at most %d in %s with one key; try again in %d seconds", k.n, k.per, p.seconds())
		return false, p
	case wait && k.exchanged != nil && k.due(id, k.n-t.sum):
		return true, nil
	}
	k.use(id, at)
	return false, nil
}

// room returns how long to wait until the key may be used once more, 0 for not
// at all, and what is counted of it. The mutex is held.
func (k *keyLimit) room(id int64, at time.Time) (time.Duration, *tally) {
	t := k.tally(id, at)
	if t.sum < k.n {
		return 0, t
	}
	return t.leaves(t.sum-k.n+1, at, k.per), t
}

// use counts one use for which there is room. The mutex is held.
func (k *keyLimit) use(id int64, at time.Time) {
	k.add(k.newer[id], at.UnixMicro(), 1)
	if k.exchanged != nil {
		k.note(id, at.UnixMicro())
	}
}

func (k *keyLimit) add(t *tally, at int64, n int) {
	before := len(t.runs)
	t.add(at, n, k.fine())
	k.runs += len(t.runs) - before
}

// fine is how close two uses are that are not told apart, in microseconds.
func (k *keyLimit) fine() int64 {
	if k.n <= maxFine {
		return 1
	}
	return max(1, k.per.Microseconds()/maxFine)
}

// tally returns what is counted of a key in the window that ends now. It then is
// in the newer half. The mutex is held.
func (k *keyLimit) tally(id int64, now time.Time) *tally {
	if age := now.Sub(k.since); age >= k.per || age < 0 || len(k.newer) >= maxCounted/2 || k.runs >= maxRuns/2 {
		k.since, k.newer, k.old, k.runs = now, make(map[int64]*tally), k.newer, 0
	}
	t := k.newer[id]
	if t == nil {
		if t = k.old[id]; t == nil {
			t = &tally{}
		}
		delete(k.old, id)
		k.newer[id] = t
		k.runs += len(t.runs)
	}
	before := len(t.runs)
	t.trim(now.UnixMicro(), k.per.Microseconds())
	k.runs += len(t.runs) - before
	return t
}

// used returns how often a key was used in the window that ends now. It counts
// nothing.
func (k *keyLimit) used(id int64) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.newer[id]
	if t == nil {
		if t = k.old[id]; t == nil {
			return 0
		}
	}
	seen := tally{slices.Clone(t.runs), t.sum}
	seen.trim(k.now().UnixMicro(), k.per.Microseconds())
	return seen.sum
}

// tally is when a key was used, the oldest first.
type tally struct {
	runs []run
	sum  int
}

// run is so many uses that count until a window after at, in microseconds.
type run struct {
	at int64
	n  int
}

// trim forgets what has left the window that ends now. A clock may be set back:
// a use may lie in the future, but not so far that anybody waits for longer than
// two windows.
func (t *tally) trim(now, per int64) {
	for len(t.runs) > 0 && now-t.runs[0].at >= per {
		t.sum -= t.runs[0].n
		t.runs = t.runs[1:]
	}
	for last := len(t.runs) - 1; last >= 0 && now-t.runs[last].at < -per; last-- {
		t.sum -= t.runs[last].n
		t.runs = t.runs[:last]
	}
}

// add counts n uses. Those within the same fine microseconds count until the
// last of them is over.
func (t *tally) add(at int64, n int, fine int64) {
	t.sum += n
	i := len(t.runs)
	for i > 0 && t.runs[i-1].at > at {
		i--
	}
	switch {
	case i > 0 && t.runs[i-1].at/fine == at/fine:
		t.runs[i-1].n += n
		t.runs[i-1].at = at
	case i < len(t.runs) && t.runs[i].at/fine == at/fine:
		t.runs[i].n += n
	default:
		t.runs = slices.Insert(t.runs, i, run{at, n})
	}
}

// leaves returns how long it takes until n uses have left the window.
func (t *tally) leaves(n int, now time.Time, per time.Duration) time.Duration {
	for _, r := range t.runs {
		if n -= r.n; n <= 0 {
			return time.UnixMicro(r.at).Add(per).Sub(now)
		}
	}
	return 0
}
