package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// The times of [Lifecycle.Keep].
const (
	// keepFirst is about when it looks first: a program that starts has better
	// things to do, and many are ended before that.
	keepFirst = time.Minute
	// keepLeast and keepMost bound the time between two looks. Another process
	// may store something at any time, and a machine may have slept.
	keepLeast = 30 * time.Second
	keepMost  = 15 * time.Minute
	// keepGrace is for how long what is under way in the background goes on when
	// the program ends: what the service issues meanwhile is still to be stored.
	keepGrace = 4 * time.Second
)

// The pauses after a renewal that failed: each twice the one before.
const (
	shortestRest = time.Minute
	longestRest  = 6 * time.Hour
)

// spread says from when on a credential is renewed: after 80 % of its life, and
// before 90 % of it. Where in between is drawn anew for each credential in each
// of its lives, by each process, so that what was issued at one time, or is known
// to many processes, is not renewed by all at one time.
type spread struct {
	random func() float64 // in [0, 1)

	mu    sync.Mutex
	drawn map[credstore.Key]drawn
}

// drawn is what was drawn for one life of a credential.
type drawn struct {
	created, expires time.Time
	at               time.Time
}

func newSpread(random func() float64) *spread {
	if random == nil {
		random = rand.Float64
	}
	return &spread{random: random, drawn: make(map[credstore.Key]drawn)}
}

// due returns from when on a credential is to be renewed; never for one without
// an expiry, the zero time.
func (s *spread) due(i credstore.Info) time.Time {
	life := i.ExpiresAt.Sub(i.CreatedAt)
	if i.ExpiresAt.IsZero() || life <= 0 {
		return i.ExpiresAt
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.drawn[i.Key]
	if !ok || !d.created.Equal(i.CreatedAt) || !d.expires.Equal(i.ExpiresAt) {
		part := life / 10
		d = drawn{i.CreatedAt, i.ExpiresAt, i.CreatedAt.Add(8*part + time.Duration(s.random()*float64(part)))}
		s.drawn[i.Key] = d
	}
	return d.at
}

// fresh reports whether a credential can be used and need not be renewed yet.
func (s *spread) fresh(i credstore.Info, now time.Time) bool {
	return i.UsableAt(now) && (i.ExpiresAt.IsZero() || now.Before(s.due(i)))
}

// rests remembers which credentials could not be renewed, and until when they
// are left alone.
type rests struct {
	mu sync.Mutex
	of map[credstore.Key]rest
}

type rest struct {
	failed int
	until  time.Time
}

// until returns when a credential may be tried again; the zero time: now.
func (r *rests) until(k credstore.Key) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[k].until
}

// failed has a credential left alone for a while, longer each time, and for as
// long as the service asks.
func (r *rests) failed(k credstore.Key, now time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = make(map[credstore.Key]rest)
	}
	next := rest{failed: r.of[k].failed + 1}
	pause := min(shortestRest<<min(next.failed-1, 16), longestRest)
	var e *Error
	if errors.As(err, &e) {
		pause = max(pause, e.RetryAfter)
	}
	next.until = now.Add(pause)
	r.of[k] = next
}

func (r *rests) done(k credstore.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, k)
}

// keepingKey is the context key of what is renewed although nobody waits for it.
type keepingKey struct{}

// unasked reports whether a renewal is one of [Lifecycle.Keep]. Nothing was
// refused then, and what fails is tried again later rather than now.
func unasked(ctx context.Context) bool {
	yes, _ := ctx.Value(keepingKey{}).(bool)
	return yes
}

// Keep renews what is stored before it expires, until ctx ends. It is for a
// program that runs for long; it returns when a renewal under way has ended, or
// has been cancelled a few seconds later.
//
// It looks first after a minute or so, then when something is due, and at least
// every quarter of an hour. What fails is left alone for a minute at first, and
// for twice as long each time; it is tried by one request each time.
func (l *Lifecycle) Keep(ctx context.Context) {
	lasting, cancel := outlasting(ctx)
	defer cancel()
	work := bySelf(context.WithValue(lasting, keepingKey{}, true))
	pause := keepFirst/2 + time.Duration(l.spread.random()*float64(keepFirst))
	for l.idleFor(ctx, pause) == nil && ctx.Err() == nil {
		pause = min(max(l.look(ctx, work), keepLeast), keepMost)
	}
}

// outlasting returns a context that ends a few seconds after another one: what is
// under way when a program ends may be issued a secret yet.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(keepGrace, cancel)
		context.AfterFunc(work, func() { late.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// look renews what is due, and returns how long it will be until something is.
// Nothing more is begun when ctx ends; what was begun goes on within work.
func (l *Lifecycle) look(ctx, work context.Context) time.Duration {
	stored, err := l.List(work)
	if err != nil {
		l.log.WarnContext(work, "what is stored could not be looked through for what expires", "error", l.http.scrub.Own(err.Error()))
		return keepMost
	}
	next := l.now().Add(keepMost)
	for _, i := range stored {
		if ctx.Err() != nil {
			break
		}
		r, ok := l.renewer(i.Key)
		if !ok {
			continue
		}
		if _, err := l.steward.policy.permit(work, Act{Action: ActRenew, Key: i.Key}); err != nil {
			continue // nothing goes there any more, whoever asks
		}
		due := r.Due(work, i, stored)
		if due.IsZero() {
			continue
		}
		if until := l.rests.until(i.Key); until.After(due) {
			due = until
		}
		if !due.After(l.now()) {
			due = l.renewNow(work, r, i)
		}
		if !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	return next.Sub(l.now())
}

// renewer returns the protocol of a credential that has a handle, if that renews.
func (l *Lifecycle) renewer(k credstore.Key) (Renewer, bool) {
	p, err := l.protocol(k)
	if err != nil || p.Kind() != k.Kind {
		return nil, false
	}
	r, ok := p.(Renewer)
	return r, ok
}

// renewNow renews a credential that is due, and returns when it will be so
// again, or may be tried again.
func (l *Lifecycle) renewNow(ctx context.Context, r Renewer, i credstore.Info) time.Time {
	ctx, cancel := l.http.once(ctx)
	defer cancel()
	err := l.renewOnce(ctx, r, i.Key)
	if err == nil {
		var next time.Time
		if next, err = l.nextDue(ctx, r, i.Key); err == nil && (next.IsZero() || next.After(l.now())) {
			l.rests.done(i.Key)
			return next
		}
	}
	said := "it is still due"
	if err != nil {
		said = l.http.scrub.Own(err.Error())
	}
	l.rests.failed(i.Key, l.now(), err)
	until := l.rests.until(i.Key)
	l.log.WarnContext(ctx, "a credential could not be renewed before it expires",
		"protocol", i.Protocol, "origin", i.Origin, "agent", i.Agent, "error", said, "next_try", until)
	return until
}

// renewOnce renews a credential, or brings to an end what was begun with it: a
// service that is down is asked for one of them only.
func (l *Lifecycle) renewOnce(ctx context.Context, r Renewer, k credstore.Key) error {
	open, err := l.steward.journal.unfinished(ctx, k)
	if err != nil {
		return err
	}
	if _, ok := r.(Healer); ok && len(open) > 0 {
		return l.finish(ctx, k)
	}
	return r.Renew(ctx, k)
}

// nextDue returns when a credential is due by what is stored now.
func (l *Lifecycle) nextDue(ctx context.Context, r Renewer, k credstore.Key) (time.Time, error) {
	stored, err := l.store.List(ctx, k.Protocol)
	if err != nil {
		return time.Time{}, err
	}
	n := slices.IndexFunc(stored, func(i credstore.Info) bool { return i.Key == k })
	if n < 0 {
		return time.Time{}, nil // forgotten meanwhile
	}
	return r.Due(ctx, stored[n], stored), nil
}
