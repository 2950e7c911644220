package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// Lifecycle is the one way to use a stored credential, whatever its protocol.
type Lifecycle struct {
	store     credstore.Store
	http      *caller
	protocols []Protocol
	steward   *steward
	now       func() time.Time
	log       *slog.Logger
	files     *files // for what is too long to be returned; nil: none are written

	healing healing
	spread  *spread
	rests   rests
	idleFor func(context.Context, time.Duration) error
}

func newLifecycle(o Options, http *caller, protocols []Protocol) *Lifecycle {
	l := &Lifecycle{
		store: o.Store, http: http, protocols: protocols, steward: o.steward, now: o.Now, log: o.Logger,
		files: newFiles(o), spread: o.spread, idleFor: o.Idle,
	}
	if l.idleFor == nil {
		l.idleFor = sleep
	}
	return l
}

// List returns what is stored, sorted by protocol, origin, agent, kind and
// label. It holds the kinds that have no handle too.
func (l *Lifecycle) List(ctx context.Context) ([]credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	return l.store.List(ctx, "")
}

// Rotate replaces a credential by a new one, at the service and in the store.
func (l *Lifecycle) Rotate(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	return does(ctx, l.steward, Act{Action: ActRotate, Key: k}, func(ctx context.Context) (credstore.Info, error) {
		return l.rotate(ctx, k)
	})
}

func (l *Lifecycle) rotate(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	p, err := l.protocol(k)
	if err != nil {
		return credstore.Info{}, err
	}
	r, ok := p.(Rotator)
	if !ok {
		instead := "Register again under another name, then forget this one."
		if _, ok := p.(Renewer); ok {
			instead = "Its tokens are renewed by themselves, and its key stays. For another key, register again under another name, then forget this one."
		}
		return credstore.Info{}, &UnsupportedError{Protocol: k.Protocol, Op: "rotate", Instead: instead}
	}
	l.healBefore(ctx, k, ActRotate)
	return r.Rotate(ctx, k)
}

// RotateInPlace ends a credential first and then gets a new one, where a service
// has no place for both.
func (l *Lifecycle) RotateInPlace(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	return does(ctx, l.steward, Act{Action: ActRotate, Key: k}, func(ctx context.Context) (credstore.Info, error) {
		return l.rotateInPlace(ctx, k)
	})
}

func (l *Lifecycle) rotateInPlace(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	p, err := l.protocol(k)
	if err != nil {
		return credstore.Info{}, err
	}
	r, ok := p.(InPlaceRotator)
	if !ok {
		return credstore.Info{}, &UnsupportedError{
			Protocol: k.Protocol, Op: "revoke first and rotate", Instead: "It needs none: rotate the credential as usual, where that can be.",
		}
	}
	l.healBefore(ctx, k, ActRotate)
	return r.RotateInPlace(ctx, k)
}

// Revoke ends a credential at the service and marks it in the store.
func (l *Lifecycle) Revoke(ctx context.Context, k credstore.Key) error {
	act := Act{Action: ActRevoke, Key: k}
	r, err := l.revoker(k)
	if err != nil { // nobody need be asked for what cannot be done
		l.steward.note(ctx, act, 0, err)
		return err
	}
	_, err = does(ctx, l.steward, act, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := l.http.begin(ctx)
		defer cancel()
		l.heal(ctx, k)
		return struct{}{}, r.Revoke(ctx, k)
	})
	return err
}

// revoker returns the protocol of a credential if it can end one.
func (l *Lifecycle) revoker(k credstore.Key) (Revoker, error) {
	p, err := l.protocol(k)
	if err != nil {
		return nil, err
	}
	if r, ok := p.(Revoker); ok {
		return r, nil
	}
	instead := "Forgetting it removes it from this machine; at the service it ends when it expires."
	if _, ok := p.(Renewer); ok {
		instead = "Forgetting it removes it from this machine; the service accepts its key until whoever runs the service ends it."
	}
	if _, ok := p.(Rotator); ok {
		instead = "Rotating it ends it at the service and stores its successor; forgetting it removes it from this machine only, and the service accepts it until it expires, if it does."
	}
	return nil, &UnsupportedError{Protocol: k.Protocol, Op: "revoke", Instead: instead}
}

// Forget removes a credential and what is kept behind it from the store and
// nowhere else. It returns whether the service may still accept the key, or
// another of them.
func (l *Lifecycle) Forget(ctx context.Context, k credstore.Key) (mayLive bool, err error) {
	return does(ctx, l.steward, Act{Action: ActForget, Key: k}, func(ctx context.Context) (bool, error) {
		return l.forget(ctx, k)
	})
}

func (l *Lifecycle) forget(ctx context.Context, k credstore.Key) (mayLive bool, err error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return false, err
	}
	defer unlock()
	// What cannot be read can still be forgotten: that is how a damaged entry
	// is got rid of. Its key may well live.
	mayLive = true
	if c, err := l.store.Get(ctx, k); err == nil {
		mayLive = l.mayLive(c)
	}
	behind, err := l.forgetLocked(ctx, k)
	return err == nil && (mayLive || behind), err
}

// forgetLocked is forget for who holds the lock of the credential. It returns
// whether the service may still accept something that stood behind it.
func (l *Lifecycle) forgetLocked(ctx context.Context, k credstore.Key) (behind bool, err error) {
	// What stands behind it goes first: as long as the handle is there, the
	// rest of a call that failed can be forgotten with it.
	if behind, err = l.forgetDependents(ctx, k); err != nil {
		return false, err
	}
	if err := l.store.Delete(ctx, k); err != nil {
		return false, err
	}
	if p, err := l.protocol(k); err == nil {
		if f, ok := p.(forgetter); ok {
			f.forgotten(k)
		}
	}
	if err := l.steward.journal.settle(ctx, k); err != nil {
		l.log.WarnContext(ctx, "what was unfinished of a forgotten credential stays in the journal", "agent", k.Agent, "error", l.http.scrub.Own(err.Error()))
	}
	l.log.InfoContext(ctx, "credential forgotten", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
	return behind, nil
}

// forgetter is a Protocol that has secrets in memory, such as one that the
// store would not take: what is forgotten must not come back from there.
type forgetter interface {
	// forgotten drops what is in memory of a credential and of what stands
	// behind it.
	forgotten(k credstore.Key)
}

// mayLive reports whether a service may accept a credential.
func (l *Lifecycle) mayLive(c credstore.Credential) bool {
	state := c.StateAt(l.now())
	return state != credstore.StateRevoked && state != credstore.StateExpired
}

// forgetDependents removes what stands behind a credential, and returns whether
// the service may still accept something of it.
func (l *Lifecycle) forgetDependents(ctx context.Context, k credstore.Key) (mayLive bool, err error) {
	p, err := l.protocol(k)
	if err != nil {
		return false, nil // what no protocol speaks for has nothing behind it
	}
	d, ok := p.(Dependent)
	if !ok {
		return false, nil
	}
	for _, behind := range d.Dependents(k) {
		if c, err := l.store.Get(ctx, behind); err == nil {
			mayLive = mayLive || l.mayLive(c)
		}
		if err := l.store.Delete(ctx, behind); err != nil && !errors.Is(err, credstore.ErrNotFound) {
			return mayLive, err
		}
	}
	return mayLive, nil
}

// protocol returns the protocol of a credential.
func (l *Lifecycle) protocol(k credstore.Key) (Protocol, error) {
	for _, p := range l.protocols {
		if p.Wire().Name == k.Protocol {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: this version of Enlist does not speak the protocol %q", errors.ErrUnsupported, k.Protocol)
}
