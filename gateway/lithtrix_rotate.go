package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Rotate implements [Rotator].
func (l *Lithtrix) Rotate(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	before, err := l.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	defer unlock()
	if c, ok := l.waiting(k); ok {
		return l.keepWaiting(ctx, c)
	}
	held, err := l.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	switch {
	case held.UsableAt(l.now()) && !same(before, held):
		return held.Info, nil
	case held.State == credstore.StatePending:
		return credstore.Info{}, unregisteredLithtrix(k)
	}
	return l.replace(ctx, ActRotate, held, l.turn)
}

// replace gets a key in the place of the one that is held, in a way, and stores
// it. The caller holds the lock.
func (l *Lithtrix) replace(ctx context.Context, act Action, held credstore.Credential,
	way func(context.Context, call, credstore.Credential) (credstore.Credential, error),
) (info credstore.Info, err error) {
	if err := l.begun.begin(ctx, held.Key, held, nil, lithtrixOwner, lithtrixAgentID); err != nil {
		return credstore.Info{}, err
	}
	ctx, begun, err := l.steward.begin(ctx, act, held.Key)
	if err != nil {
		return credstore.Info{}, err
	}
	defer func() {
		begun.end(ctx, err)
		var e *Error
		if errors.As(err, &e) && e.Code == CodeKeyLost {
			l.settle(ctx, held.Key) // nobody can do anything about it
		}
	}()
	op := call{protocol: wire.LithtrixName, origin: held.Origin, op: "rotate the key", acts: true}
	c, err := way(ctx, op, held)
	if err != nil {
		return credstore.Info{}, err
	}
	for name, value := range held.Attrs {
		c.Attrs[name] = cmp.Or(c.Attrs[name], value)
	}
	return l.keep(ctx, c)
}

// turn rotates a key. Where the answer is lost it asks, with the old key, whether
// it has happened. Where it has not, the old key is as good as before; where it
// has, the old key is dead, and may still get another key in the place of the one
// that was in the answer.
func (l *Lithtrix) turn(ctx context.Context, op call, held credstore.Credential) (credstore.Credential, error) {
	c, err := l.present(ctx, op, held)
	var lost *Error
	if !errors.As(err, &lost) || !lost.Sent {
		return c, err
	}
	// Even when whoever asked has given up: to know is worth two requests.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(l.http.timeout, storeTime))
	defer cancel()
	alive, unknown := l.alive(ctx, held)
	if unknown != nil {
		return c, lost // not found out: Sent says so
	}
	if alive {
		lost.Sent = false
		return c, lost
	}
	return l.makeUp(ctx, op, held, lost)
}

// present asks for a key in the place of the one that is held.
func (l *Lithtrix) present(ctx context.Context, op call, held credstore.Credential) (credstore.Credential, error) {
	header := l.http.attempt(op, held)
	header.Set(wire.LithtrixHeader, "Bearer "+held.Secret.Reveal())
	return l.issue(ctx, op, held.Key, wire.LithtrixRotatePath, header, nil)
}

// makeUp is for a key that a rotation has ended whose answer was lost. A service
// that knows the idempotency key takes the old key for the same rotation once
// more; any other refuses it as it refuses everything with it, and then the new
// key is lost.
func (l *Lithtrix) makeUp(ctx context.Context, op call, held credstore.Credential, lost error) (credstore.Credential, error) {
	c, err := l.present(ctx, op, held)
	if !isRefusal(err, wire.LithtrixInvalidKey) {
		return c, err
	}
	held.State = credstore.StateRevoked
	if _, err := keep(ctx, l.store, held, lithtrixOwner, lithtrixAgentID); err != nil {
		l.log.WarnContext(ctx, "a key that has ended could not be marked", "protocol", held.Protocol, "origin", held.Origin, "agent", held.Agent, "error", l.http.scrub.Own(err.Error()))
	}
	dead := op.fail(CodeKeyLost, fmt.Errorf("the rotation failed with %w", lost))
	dead.Sent = true
	return c, dead
}

// alive asks whether the service accepts a key. An error says that it was not
// found out.
func (l *Lithtrix) alive(ctx context.Context, held credstore.Credential) (bool, error) {
	op := call{protocol: held.Protocol, origin: held.Origin, op: "find out whether the key was rotated"}
	u, err := url.Parse(op.origin + wire.LithtrixMePath)
	if err != nil {
		return false, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	a, err := l.http.send(ctx, op, message{method: http.MethodGet, url: u, header: http.Header{
		wire.LithtrixHeader: {"Bearer " + held.Secret.Reveal()},
	}}, maxAnswer)
	if err != nil {
		return false, err
	}
	var me wire.LithtrixMe
	if a.status == http.StatusOK && json.Unmarshal(a.body, &me) == nil && me.AgentName == held.Agent {
		return true, nil
	}
	if code, _ := refusal(a.body); a.status == http.StatusUnauthorized && code == wire.LithtrixInvalidKey {
		return false, nil
	}
	return false, op.unreadable(a, "the answer does not say whether the key is good")
}

// errInterrupted: a process ended before it had an answer.
var errInterrupted = errors.New("the process ended before the answer came")

// Heal implements [Healer]. A key that was stored before the process ended is all
// there is to it. Without one the service is asked once more by the idempotency
// key of the same attempt, which may get a key in the place of the lost one.
func (l *Lithtrix) Heal(ctx context.Context, u Unfinished) error {
	var refused error
	if u.Action == ActRegister && u.Phase == PhaseIntent {
		refused = l.registerAgain(ctx, u)
		if refused != nil && !isRefusal(refused, wire.LithtrixAgentExists) {
			return refused
		} // that it exists says that there is nothing more to try
	}
	unlock, err := l.store.Lock(ctx, u.Key)
	if err != nil {
		return errors.Join(refused, err)
	}
	defer unlock()
	open, err := l.steward.journal.unfinished(ctx, u.Key)
	_, waits := l.waiting(u.Key) // for the next call, which stores it
	if err != nil || len(open) == 0 || open[0].Action != u.Action || waits {
		return errors.Join(refused, err)
	}
	if u.Action != ActRegister && open[0].Phase == PhaseIntent {
		if done, err := l.rotateAgain(ctx, u); err != nil || done {
			return err
		}
	}
	l.settle(ctx, u.Key)
	return refused
}

// registerAgain registers as it was begun, unless there is a key by now, or what
// was begun has been forgotten.
func (l *Lithtrix) registerAgain(ctx context.Context, u Unfinished) error {
	unlock, err := lockHandle(ctx, l.store, u.Key)
	if err != nil {
		return err
	}
	defer unlock()
	begun, err := l.store.Get(ctx, u.Key)
	if errors.Is(err, credstore.ErrNotFound) || err == nil && begun.UsableAt(l.now()) {
		return nil
	}
	if err != nil {
		return err
	}
	r := LithtrixRegistration{AgentName: u.Key.Agent, OwnerIdentifier: begun.Attrs[lithtrixOwner], Label: u.Key.Label}
	if agreed, ok := begun.Attrs[lithtrixTerms]; ok {
		r.AgreeToTerms = new(agreed == "true")
	}
	if err := r.check(); err != nil {
		return call{protocol: wire.LithtrixName, origin: u.Key.Origin, op: "register"}.fail(CodeInvalidInput, err)
	}
	_, err = l.registerLocked(ctx, u.Action, u.Key, r)
	return err
}

// rotateAgain makes up for a rotation, if it has happened, and reports whether it
// had to. The caller holds the lock.
func (l *Lithtrix) rotateAgain(ctx context.Context, u Unfinished) (done bool, err error) {
	held, err := l.store.Get(ctx, u.Key)
	if errors.Is(err, credstore.ErrNotFound) || err == nil && !held.UsableAt(l.now()) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if alive, err := l.alive(ctx, held); err != nil || alive {
		return false, err
	}
	_, err = l.replace(ctx, u.Action, held, func(ctx context.Context, op call, held credstore.Credential) (credstore.Credential, error) {
		return l.makeUp(ctx, op, held, errInterrupted)
	})
	return true, err
}

// explain implements explainer: a pair registers once, and a key that has ended
// gets no other one.
func (l *Lithtrix) explain(s *Standing, _ []credstore.Info) {
	const another = "register the agent under another agent_name, and forget this one."
	switch {
	case s.Now == credstore.StateRevoked, s.Now == credstore.StateLost:
		s.Remedy, s.Way = "The service gives this agent no other key: "+another, WayAnother
	case s.Now == credstore.StatePending && strings.HasPrefix(s.Remedy, "Register the agent again"):
		s.Remedy = "Register the agent again with the same arguments; if the service then says that it exists, " + another
	}
}
