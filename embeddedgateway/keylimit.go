package embeddedgateway

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxCounted is how many keys a [keyLimit] remembers at most: some 30 MiB when
// each of them is used up, of 60 uses.
const maxCounted = 1 << 16

// keyLimit is how often each key may be used. It counts in memory, because a
// durable write for each request is not wanted: a restart begins at zero, and
// several processes over one database count apart. Within one the count is
// exact: no stretch of time as long as per ever holds more than n uses of a key.
//
// What it remembers lies in two halves. All that is used goes into the newer
// one; when that is per old, or holds its share of maxCounted, it becomes the
// older one, whose keys are forgotten unless they are used again. So idle keys
// cost nothing, and a flood of keys only resets the counts of others.
type keyLimit struct {
	n   int
	per time.Duration
	now func() time.Time

	mu         sync.Mutex
	since      time.Time         // when newer began
	newer, old map[int64][]int64 // when each key was used, in microseconds: a third of what a time takes
}

func newKeyLimit(n int, per time.Duration, now func() time.Time) *keyLimit {
	return &keyLimit{n: n, per: per, now: now, newer: map[int64][]int64{}}
}

// hit counts one use of the key with that id in the store, or refuses it.
func (k *keyLimit) hit(id int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if age := now.Sub(k.since); age >= k.per || age < 0 || len(k.newer) >= maxCounted/2 {
		k.since, k.newer, k.old = now, make(map[int64][]int64), k.newer
	}
	hits, ok := k.newer[id]
	if !ok {
		hits = k.old[id]
		delete(k.old, id)
	}
	// A clock may be set back: a hit may lie in the future, but not so far that
	// anybody waits for longer than two windows.
	at, per := now.UnixMicro(), k.per.Microseconds()
	hits = slices.DeleteFunc(hits, func(h int64) bool { return at-h >= per || at-h < -per })
	if len(hits) < k.n {
		k.newer[id] = append(hits, at)
		return nil
	}
	k.newer[id] = hits
	p := &problem{kind: kindLimited, retryAfter: time.Duration(hits[len(hits)-k.n]+per-at) * time.Microsecond}
	p.message = fmt.Sprintf("too many requests: at most %d in %s with one key; try again in %d seconds", k.n, k.per, p.seconds())
	return p
}
