package embeddedgateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// exchangeEvery is how long it takes at most until a replica says what it
	// counted: what the others may miss of it.
	exchangeEvery = time.Second
	// hurryAfter is how long it takes where a key has used a sixtieth of its limit
	// that nobody was told of: what a kill takes with it.
	hurryAfter = 100 * time.Millisecond
	// skewed is how far the clocks of two replicas may differ.
	skewed = 5 * time.Second
	// minSlot is the shortest stretch of time that is told to others.
	minSlot = time.Second
	// slots is in how many such stretches a window is told.
	slots = 60
)

// usage makes the counts of several replicas over one database one: about once a
// second, and at once where much of a limit is used up in less, each writes down
// what it counted against every [keyLimit], and reads what the others did. So all
// together allow what one does, and beyond it what they use between two
// exchanges: see [exchanged.due]. What a replica counted outlives its end, but
// for that of one that was killed.
//
// What goes into the database is, for each limit and stretch of time (a sixtieth
// of the window), one row of a replica, with all keys that were used in it. It
// is written again while the stretch lasts: the row says all, so nobody counts
// anything twice. To others a use counts as made at the end of its stretch: they
// may refuse a sixtieth of a window too long, and never allow too much for it.
type usage struct {
	store   *store.Store // nil until the database is open
	replica string       // tells this run of this process from any other
	now     func() time.Time
	log     *slog.Logger

	limits  []*keyLimit // in the order of their names' making; not changed after New
	several bool        // there are other replicas, as a rule; not changed after New
	hurry   chan struct{}
	turn    sync.Mutex // one exchange at a time
	last    time.Time  // the exchange before
	warned  time.Time  // when the log was told of a clock that differs

	settling
}

func newUsage(now func() time.Time, log *slog.Logger) *usage {
	return &usage{replica: rand.Text(), now: now, log: log, hurry: make(chan struct{}, 1), settling: settling{peers: map[string]time.Time{}, met: make(chan struct{})}}
}

// limit returns a limit that all replicas keep together. Its name is its own
// among all limits of the gateway.
func (u *usage) limit(name string, n int, per time.Duration, now func() time.Time) *keyLimit {
	k := newKeyLimit(n, per, now)
	if u == nil || per < 2*exchangeEvery {
		return k // over before anybody else could hear of it
	}
	k.exchanged = &exchanged{
		name: name + "/" + per.String(),
		slot: max(minSlot, per/slots).Microseconds(),
		mine: map[int64]*slotCounts{},
		seen: map[slotOf]seenCounts{},

		usage: u, untold: map[int64]int{}, telling: map[int64]int{}, early: map[int64]int{}, much: max(1, n/slots),
	}
	u.limits = append(u.limits, k)
	return k
}

// exchange writes down what was counted here and reads what was elsewhere.
func (u *usage) exchange(ctx context.Context) (err error) {
	u.turn.Lock()
	defer u.turn.Unlock()
	defer func() { u.ended(err) }()
	if err := u.tell(ctx); err != nil {
		return err
	}
	now := u.now()
	after := time.Time{}
	if !u.last.IsZero() {
		after = u.last.Add(-skewed)
	}
	list, err := u.store.Usages(ctx, u.replica, after)
	if err != nil {
		return fmt.Errorf("read what other replicas counted: %w", err)
	}
	var errs []error
	u.compare(ctx, now, list)
	for _, row := range list {
		u.heard(row)
		i := slices.IndexFunc(u.limits, func(k *keyLimit) bool { return k.name == row.Name })
		if i < 0 {
			continue // a limit of a replica that is set otherwise, or its presence
		}
		errs = append(errs, u.limits[i].hear(row))
	}
	for _, k := range u.limits {
		k.forget(now.Add(-skewed))
	}
	u.forgetPeers(now)
	u.last = now
	if len(u.present(now)) > 0 { // it was alone: who has just come is to know of it at once
		errs = append(errs, u.tell(ctx))
	}
	return errors.Join(errs...)
}

// compare looks whether another replica's clock is so far ahead of this one's that it
// does not hear what this one counts. Of two whose clocks differ, the one that is behind
// hears the other, and says so.
func (u *usage) compare(ctx context.Context, now time.Time, list []store.Usage) {
	var ahead time.Duration
	for _, row := range list {
		ahead = max(ahead, row.ChangedAt.Sub(now))
	}
	if ahead <= skewed || now.Sub(u.warned).Abs() < time.Hour {
		return
	}
	u.warned = now
	u.log.WarnContext(ctx, "the clock of another replica differs from this one's, so that it does not hear what this one counts, "+
		"and each may allow a whole limit: have both set by the same time server", "ahead", ahead.Round(time.Second))
}

// tell writes down what was counted here since it did so last.
func (u *usage) tell(ctx context.Context) error {
	now := u.now()
	rows := u.present(now)
	says := len(rows) > 0
	for _, k := range u.limits {
		rows = append(rows, k.news(u.replica)...)
	}
	var err error
	if len(rows) > 0 {
		err = u.store.TxEach(ctx, func(tx *store.Tx) error {
			for _, row := range rows {
				if err := tx.PutUsage(row); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, k := range u.limits {
		k.told(err == nil)
	}
	if err != nil {
		return fmt.Errorf("write down what was counted: %w", err)
	}
	if says {
		u.said = now
	}
	return nil
}

// keep exchanges until ctx ends.
func (u *usage) keep(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(exchangeEvery)
	defer tick.Stop()
	failed := false // said once, not once a second
	ticks := 0      // until all that are there have heard of this one, and have said so
	met := time.After(meetTime)
	var soon <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.hurry:
			if soon == nil {
				soon = time.After(hurryAfter)
			}
			continue
		case <-met:
			u.meet()
			continue
		case <-soon:
		case <-tick.C:
			ticks++
			u.warm.Store(ticks > 1)
		}
		soon = nil
		err := u.exchange(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			log.WarnContext(ctx, "exchanging counts with other replicas fails; until it does not, this one counts for itself", "error", err)
		}
		failed = err != nil
	}
}

// exchanged is what a [keyLimit] tells other replicas and hears of them. The
// mutex of the limit guards it.
type exchanged struct {
	name string
	slot int64 // how long a stretch of time is, in microseconds

	last int64                 // the stretch in which was counted last
	mine map[int64]*slotCounts // what is to be told, by the begin of the stretch
	seen map[slotOf]seenCounts // what was heard and may be heard again

	usage           *usage
	untold, telling map[int64]int // by key: what nobody was told of, and is being told
	early           map[int64]int // by key: what was told while this replica met the others
	much            int           // of untold, for one key
}

// slotCounts is what was counted here in a stretch of time.
type slotCounts struct {
	counts map[int64]int // by key
	state  tellState
}

type tellState int

const (
	untold tellState = iota
	telling
	isTold
)

// slotOf is a stretch of time of another replica.
type slotOf struct {
	replica string
	ends    int64
}

// seenCounts is what another replica said it counted.
type seenCounts struct {
	raw     []byte
	counts  map[int64]int
	changed time.Time
}

// note remembers a use for the others. A flood of keys in one stretch is counted
// here only.
func (x *exchanged) note(id, at int64) {
	begin := at - at%x.slot
	if begin < x.last && x.last-begin <= slots*x.slot {
		begin = x.last // the clock was set back: what is told of a stretch never becomes less
	}
	x.last = begin
	s := x.mine[begin]
	if s == nil {
		s = &slotCounts{counts: map[int64]int{}}
		x.mine[begin] = s
	}
	if _, ok := s.counts[id]; !ok && len(s.counts) >= maxCounted/2 {
		return
	}
	s.counts[id]++
	s.state = untold
	if len(x.untold) < maxCounted {
		x.untold[id]++
	}
	if x.untold[id] >= x.much {
		select {
		case x.usage.hurry <- struct{}{}:
		default:
		}
	}
}

// news returns what is to be told. told says how that went.
func (k *keyLimit) news(replica string) (rows []store.Usage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for begin, s := range k.mine {
		ends := begin + k.slot
		if over := k.now().UnixMicro() - ends; over > k.per.Microseconds() {
			delete(k.mine, begin) // nobody could be told in time
			continue
		}
		if s.state != untold {
			continue
		}
		s.state = telling
		rows = append(rows, store.Usage{
			Replica: replica, Name: k.name, EndsAt: time.UnixMicro(ends), Counts: packCounts(s.counts),
			ExpiresAt: time.UnixMicro(ends).Add(k.per),
		})
	}
	k.untold, k.telling = k.telling, k.untold // which is empty: one exchange at a time
	return rows
}

// told ends what news began.
func (k *keyLimit) told(ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, n := range k.telling {
		switch {
		case !ok:
			k.untold[id] += n
		case k.usage.meets():
			k.early[id] += n
		}
	}
	if !k.usage.meets() {
		clear(k.early)
	}
	clear(k.telling)
	for begin, s := range k.mine {
		switch {
		case s.state == telling && !ok:
			s.state = untold
		case s.state == telling:
			s.state = isTold
		}
		if s.state == isTold && begin != k.last {
			delete(k.mine, begin)
		}
	}
}

// hear counts what another replica has counted and was not heard of yet.
func (k *keyLimit) hear(row store.Usage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slotOf{row.Replica, row.EndsAt.UnixMicro()}
	before := k.seen[at]
	if before.raw != nil && bytes.Equal(before.raw, row.Counts) {
		before.changed = row.ChangedAt
		k.seen[at] = before
		return nil
	}
	counts, err := unpackCounts(row.Counts)
	if err != nil {
		return fmt.Errorf("what replica %s counted: %w", row.Replica, err)
	}
	now := k.now()
	for id, n := range counts {
		if n -= before.counts[id]; n > 0 {
			k.add(k.tally(id, now), at.ends, n)
		}
	}
	k.seen[at] = seenCounts{row.Counts, counts, row.ChangedAt}
	return nil
}

// forget drops what will not be heard again: what lasts no more and was said
// before a time.
func (k *keyLimit) forget(before time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for at, s := range k.seen {
		if at.ends < before.UnixMicro() && s.changed.Before(before) {
			delete(k.seen, at)
		}
	}
}

// packCounts spells counts: a key and its count, one behind the other.
func packCounts(counts map[int64]int) []byte {
	b := make([]byte, 0, 6*len(counts))
	for id, n := range counts {
		b = binary.AppendVarint(b, id)
		b = binary.AppendVarint(b, int64(n))
	}
	return b
}

func unpackCounts(b []byte) (map[int64]int, error) {
	counts := map[int64]int{}
	for len(b) > 0 {
		id, width := binary.Varint(b)
		if width <= 0 {
			return nil, errors.New("it is not a list of counts")
		}
		n, more := binary.Varint(b[width:])
		if more <= 0 || n < 0 || n > maxTold {
			return nil, errors.New("it is not a list of counts")
		}
		counts[id] = int(n)
		b = b[width+more:]
	}
	return counts, nil
}

// maxTold is more than anybody counts in a sixtieth of a window.
const maxTold = 1 << 40
