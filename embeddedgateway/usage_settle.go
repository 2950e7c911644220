package embeddedgateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// share is how much of what is left of a limit the replicas may use up
	// together before they tell one another: a fourth.
	share = 4
	// settleTime is how long a request waits until its replica has told and
	// heard. After that it counts for itself, as where the database is away.
	settleTime = 2 * time.Second
	// meetTime is how long a replica that joins others allows its part only: after
	// it they have heard of it, and told what they counted until then, which they
	// do once a second.
	meetTime = exchangeEvery * 3 / 2
	// presentEvery is how often a replica says that it is there, and presentFor
	// for how long others believe it.
	presentEvery = 20 * time.Second
	presentFor   = time.Minute
	// presence is the name of the row that says so. Its time is always the same.
	presence = "replica"
)

// settling sees to it that replicas exchange what they counted as soon as it
// matters, and not only once a second: in a second a flood of requests uses up a
// limit at each of them.
type settling struct {
	peers map[string]time.Time // when others were heard last; the turn of the usage guards it
	said  time.Time            // when this one said that it is there; so does it here

	others atomic.Int64 // how many there are
	warm   atomic.Bool  // whoever was there, or started at the same time, has been heard since

	met     chan struct{} // closed when whoever was there before has heard of this one, and told
	meeting sync.Once

	mu      sync.Mutex
	away    bool          // the last exchange failed: nobody waits for the next
	next    chan struct{} // closed when the exchange that begins next is over; nil: nobody waits for it
	running bool
	closed  bool
	rounds  sync.WaitGroup
}

// settled runs do until it has nothing to wait for. do reports whether an
// exchange is due before it may count anything; if it may not wait, it never is.
func (u *usage) settled(ctx context.Context, do func(wait bool) (due bool)) {
	if !do(true) {
		return
	}
	late := time.NewTimer(settleTime)
	defer late.Stop()
	for u.settle(ctx, late.C) {
		if !do(true) {
			return
		}
	}
	do(false)
}

// settle waits for an exchange that begins from now on, and reports whether it
// went well and there may be another.
func (u *usage) settle(ctx context.Context, late <-chan time.Time) bool {
	u.mu.Lock()
	if u.away || u.closed {
		u.mu.Unlock()
		return false
	}
	if u.next == nil {
		u.next = make(chan struct{})
	}
	next := u.next
	if u.meets() {
		u.mu.Unlock()
		select { // there is nothing to hear before
		case <-u.met:
			return true
		case <-late:
		case <-ctx.Done():
		}
		return false
	}
	if !u.running {
		u.running = true
		u.rounds.Go(func() { u.run(context.WithoutCancel(ctx)) })
	}
	u.mu.Unlock()
	select {
	case <-next:
	case <-late:
		return false
	case <-ctx.Done():
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.away
}

// run exchanges until nobody waits for it.
func (u *usage) run(ctx context.Context) {
	for {
		u.mu.Lock()
		next := u.next
		u.next, u.running = nil, next != nil
		u.mu.Unlock()
		if next == nil {
			return
		}
		_ = u.exchange(ctx) // keep says it, which tries as well
		close(next)
	}
}

// meets reports whether others may not know of this replica yet.
func (u *usage) meets() bool {
	select {
	case <-u.met:
		return false
	default:
		return true
	}
}

// meet ends that.
func (u *usage) meet() { u.meeting.Do(func() { close(u.met) }) }

// ended notes how an exchange went.
func (u *usage) ended(err error) {
	others := int64(len(u.peers))
	if !u.warm.Load() {
		others = max(1, others)
	}
	u.others.Store(others)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.away = err != nil
}

// close has the exchanges that are under way end, and tells what is left.
func (u *usage) close(ctx context.Context) error {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.rounds.Wait()
	u.turn.Lock()
	defer u.turn.Unlock()
	return u.tell(ctx)
}

// heard notes that another replica is there. Those that are silent are not.
func (u *usage) heard(row store.Usage) {
	if row.ChangedAt.After(u.peers[row.Replica]) {
		u.peers[row.Replica] = row.ChangedAt
	}
}

func (u *usage) forgetPeers(now time.Time) {
	for replica, at := range u.peers {
		if now.Sub(at).Abs() >= presentFor+skewed {
			delete(u.peers, replica)
		}
	}
}

// present is the row that says that this replica is there, if it is time to say
// so again. One over a SQLite database is mostly alone: it says so when it starts,
// and after that while there are others, so that it writes nothing while it is
// idle and alone.
func (u *usage) present(now time.Time) []store.Usage {
	first, alone := u.said.IsZero(), !u.several && len(u.peers) == 0
	if !first && (alone || now.Sub(u.said).Abs() < presentEvery) {
		return nil
	}
	return []store.Usage{{
		Replica: u.replica, Name: presence, EndsAt: time.UnixMicro(1), Counts: []byte{}, ExpiresAt: now.Add(presentFor),
	}}
}

// used is how often a key was used here since others were told. While they may not
// have been, all counts. The mutex of the limit is held.
func (x *exchanged) used(id int64) int {
	n := x.untold[id] + x.telling[id]
	if x.usage.meets() {
		n += x.early[id]
	}
	return n
}

// due reports whether others should be told, and heard, before a key is used once
// more: when this replica has used up its part of what is left of the limit since
// it did so last. So all together use a fourth of a limit too much at most, when
// they know nothing of one another's uses, and one each where little is left. The
// mutex of the limit is held.
func (x *exchanged) due(id int64, left int) bool {
	others := int(x.usage.others.Load())
	return others > 0 && x.used(id) >= max(1, left/(share*(others+1)))
}
