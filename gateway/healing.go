package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

const (
	// healPause is for how long an operation is left alone that could not be
	// finished.
	healPause = time.Minute
	// busyTime is how long a credential's lock is waited for to see whether an
	// operation is under way.
	busyTime = 50 * time.Millisecond
)

// healing remembers which credentials are being healed, and which were tried to
// be in vain.
type healing struct {
	mu    sync.Mutex
	tried map[credstore.Key]time.Time
	now   map[credstore.Key]chan struct{}
}

// begin reports whether the caller is to heal a credential, and is told by end
// what came of that. Where somebody is at it already it waits for them.
func (h *healing) begin(ctx context.Context, k credstore.Key) bool {
	h.mu.Lock()
	ended, busy := h.now[k]
	if !busy {
		if h.now == nil {
			h.now = make(map[credstore.Key]chan struct{})
		}
		h.now[k] = make(chan struct{})
	}
	h.mu.Unlock()
	if busy {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	return !busy
}

// end lets those go on who wait.
func (h *healing) end(k credstore.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.now[k])
	delete(h.now, k)
}

// due reports whether it is time to try a credential, and remembers that it is
// tried now.
func (h *healing) due(k credstore.Key, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last, ok := h.tried[k]; ok && now.Sub(last) < healPause {
		return false
	}
	if h.tried == nil {
		h.tried = make(map[credstore.Key]time.Time)
	}
	h.tried[k] = now
	return true
}

func (h *healing) done(k credstore.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tried, k)
}

// Heal finishes every operation that a process of the past left half-done, where
// that can be done without a person. It is for the start of a program; before a
// credential is used its own are finished in any case. When ctx ends, what takes
// longer than a few seconds from then on is left for the next time.
func (l *Lifecycle) Heal(ctx context.Context) error {
	ctx, cancel := outlasting(ctx)
	defer cancel()
	all, err := l.steward.journal.unfinished(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range all {
		if ctx.Err() != nil {
			break
		}
		if err := l.finish(ctx, u.Key); err != nil {
			errs = append(errs, fmt.Errorf("finish what was begun with %s: %w", l.Handle(u.Key), err))
		}
	}
	return errors.Join(errs...)
}

// heal finishes what is half-done of a credential before it is used. When that
// fails the credential is used as it is: it may work, and if it does not, the
// error of that says what can be done.
func (l *Lifecycle) heal(ctx context.Context, k credstore.Key) {
	if err := l.finish(ctx, k); err != nil {
		l.log.WarnContext(ctx, "what was begun with a credential could not be finished",
			"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "error", l.http.scrub.Own(err.Error()))
	}
}

// healBefore is heal before something is done that itself goes on with what is
// half-done of its own kind: to finish that first would be to do it twice.
func (l *Lifecycle) healBefore(ctx context.Context, k credstore.Key, next Action) {
	open, err := l.steward.journal.unfinished(ctx, k)
	if err == nil && len(open) == 1 && open[0].Action == next {
		return
	}
	l.heal(ctx, k)
}

// finish finishes the operation of a credential, unless there is none, it is
// under way, or it was tried a moment ago. Where this process is finishing it just
// now, as it does when it starts, it waits for the end of that.
func (l *Lifecycle) finish(ctx context.Context, k credstore.Key) error {
	open, err := l.steward.journal.unfinished(ctx, k)
	if err != nil || len(open) == 0 {
		return err
	}
	p, err := l.protocol(k)
	if err != nil {
		return err
	}
	h, ok := p.(Healer)
	if !ok || !l.healing.begin(ctx, k) {
		return nil
	}
	defer l.healing.end(k)
	if !l.idle(ctx, k) || !l.healing.due(k, l.now()) {
		return nil
	}
	// What somebody else had under way may have come to its end meanwhile.
	if open, err = l.steward.journal.unfinished(ctx, k); err != nil || len(open) == 0 {
		return err
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	// It was asked for, and allowed, when it was begun.
	ctx = WithCaller(ctx, Caller{Kind: CallerSelf, Name: "enlist"})
	_, err = does(ctx, l.steward, Act{Action: ActHeal, Key: k}, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.Heal(ctx, open[0])
	})
	if err == nil {
		l.healing.done(k)
	}
	return err
}

// idle reports whether nobody holds the lock of a credential.
func (l *Lifecycle) idle(ctx context.Context, k credstore.Key) bool {
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return false
	}
	unlock()
	return true
}

// resumed has f finish what is unfinished of a credential, under its lock, and
// takes it out of the journal. It does nothing where somebody else was faster.
func (s *steward) resumed(ctx context.Context, store credstore.Store, k credstore.Key, f func(context.Context, Unfinished) error) (err error) {
	unlock, err := store.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, op, u, err := s.journal.resume(ctx, k)
	if err != nil || op == nil {
		return err
	}
	defer func() { op.end(ctx, err) }()
	return f(ctx, u)
}
