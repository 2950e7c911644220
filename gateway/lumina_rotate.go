package gateway

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// luminaMaxAsked is how many keys that may have been lost are remembered.
const luminaMaxAsked = 8

// issue gets a key and stores it in the place of what is held, which ends then.
// Before it asks for one it notes when: a key whose answer is lost is found by
// that, and by its label. One that was asked for before, and may be on its way yet,
// is asked for by the same signature, which is good for one key: either this is
// that key, or there is none to come. held has the name of the wallet, whether or
// not it is stored. The caller holds the lock.
func (l *Lumina) issue(ctx context.Context, act Action, k credstore.Key, w eip191.Wallet, held credstore.Credential) (info credstore.Info, err error) {
	asked := split(held.Attrs[luminaAsked])
	at, again := l.outstanding(asked)
	if !again {
		at, asked = l.now().Unix(), noted(asked, l.now().Unix())
	}
	if err := l.asks(ctx, k, held, asked); err != nil {
		return credstore.Info{}, err
	}
	ctx, op, err := l.steward.begin(ctx, act, k)
	if err != nil {
		l.takeBack(ctx, k, held, err)
		return credstore.Info{}, err
	}
	var left error
	defer func() { op.end(ctx, cmp.Or(err, left)) }()
	issued, first, err := l.onboard(ctx, k, w, at, again, func(at int64) error { return l.asks(ctx, k, held, noted(asked, at)) })
	if err != nil {
		l.takeBack(ctx, k, held, err)
		return credstore.Info{}, err
	}
	attrs := map[string]string{luminaWallet: held.Attrs[luminaWallet]}
	if before := split(held.Attrs[luminaAsked]); again && first {
		setAttr(attrs, luminaAsked, strings.Join(before[:len(before)-1], ","))
	} else {
		setAttr(attrs, luminaAsked, held.Attrs[luminaAsked])
	}
	if held.State != credstore.StateRevoked && held.State != credstore.StatePending {
		setAttr(attrs, luminaReplaces, held.KeyID)
	}
	c, err := l.keep(ctx, k, issued, attrs)
	if err == nil && c.Attrs[luminaReplaces] != "" {
		c, err = l.finish(ctx, c)
	}
	if err != nil {
		return c.Info, err
	}
	if c, _, left = l.sweep(ctx, c, c.Secret, again); left != nil {
		l.log.WarnContext(ctx, "a key that may have been lost on its way could not be looked for", "origin", k.Origin, "agent", k.Agent, "error", l.http.scrub.Own(left.Error()))
	}
	return c.Info, nil
}

// noted returns a note of when keys were asked for with one more time.
func noted(asked []string, at int64) []string {
	asked = append(slices.Clone(asked), strconv.FormatInt(at, 10))
	return asked[max(0, len(asked)-luminaMaxAsked):]
}

// asks notes when keys were asked for, beside what is held.
func (l *Lumina) asks(ctx context.Context, k credstore.Key, held credstore.Credential, asked []string) error {
	held.Attrs = maps.Clone(held.Attrs)
	held.Attrs[luminaAsked] = strings.Join(asked, ",")
	return l.begun.begin(ctx, k, held, held.Attrs, luminaNeeded()...)
}

// takeBack removes the note of a key that the service cannot have issued.
func (l *Lumina) takeBack(ctx context.Context, k credstore.Key, held credstore.Credential, why error) {
	l.begun.withdraw(ctx, k, held, why)
	var failed *Error
	if held.Key != k || errors.As(why, &failed) && failed.Sent {
		return
	}
	if _, err := keep(ctx, l.store, held, luminaNeeded()...); err != nil {
		l.log.WarnContext(ctx, "what was noted for a new key could not be taken back", "agent", k.Agent, "error", l.http.scrub.Own(err.Error()))
	}
}

// keep stores a new key. One that the store will not take is revoked with
// itself, so that it does not take a place for ever.
func (l *Lumina) keep(ctx context.Context, k credstore.Key, issued luminaIssued, attrs map[string]string) (credstore.Credential, error) {
	attrs[luminaTier] = l.http.scrub.Said(ctx, scalar(issued.fields, "tier"))
	id := scalar(issued.fields, "keyId")
	if _, ok := luminaNumber(id); !ok {
		id = "unknown" // it would stand in sentences of ours
	}
	c := credstore.Credential{Secret: issued.key, Info: credstore.Info{
		Key: k, State: credstore.StateActive, KeyID: id,
		CreatedAt: l.now().UTC().Truncate(time.Millisecond), Attrs: attrs,
	}}
	c, err := keep(ctx, l.store, c, luminaNeeded()...)
	if err == nil {
		received(ctx)
		l.log.InfoContext(ctx, "credential stored", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "key_id", c.KeyID)
		return c, nil
	}
	remedy := "When the store works again, register once more: the key that was not stored was revoked."
	if l.end(ctx, k, c.KeyID, issued.key) != nil {
		remedy = "When the store works again, register once more. The key that was not stored, number " + c.KeyID + ", takes a place of three until it is revoked."
	}
	return credstore.Credential{}, &NotStoredError{Protocol: k.Protocol, Origin: k.Origin, Agent: k.Agent, Cause: err, Remedy: remedy}
}

// Rotate implements [Rotator]: a new key, stored, and then the old one ends. It
// needs a free place; without one it is a *[KeysFullError] and nothing has
// changed. A rotation that was broken off is finished instead.
func (l *Lumina) Rotate(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	return l.rotate(ctx, k, false)
}

// RotateInPlace implements [InPlaceRotator]: the old key ends first and gives
// its place to the new one. What is broken off after that leaves a revoked
// credential, which Rotate gets a new key for.
func (l *Lumina) RotateInPlace(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	return l.rotate(ctx, k, true)
}

func (l *Lumina) rotate(ctx context.Context, k credstore.Key, inPlace bool) (_ credstore.Info, err error) {
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
	held, err := l.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	unfinished := held.Attrs[luminaReplaces] != ""
	if !unfinished && held.UsableAt(l.now()) && (!same(before, held) || before.Attrs[luminaReplaces] != "") {
		return held.Info, nil // somebody else has rotated, or finished it, meanwhile
	}
	w, err := l.walletOf(ctx, held)
	if err != nil && !unfinished {
		return credstore.Info{}, err
	}
	ctx, op, err := l.steward.begin(ctx, ActRotate, k)
	if err != nil {
		return credstore.Info{}, err
	}
	defer func() { op.end(ctx, err) }()
	if unfinished {
		held, err = l.finish(ctx, held)
		return held.Info, err
	}
	if held.UsableAt(l.now()) { // a key that was lost may have the place that is needed
		if swept, _, err := l.sweep(ctx, held, held.Secret, false); err == nil {
			held = swept
		}
	}
	if inPlace && held.UsableAt(l.now()) {
		if held, err = l.makePlace(ctx, held); err != nil {
			return credstore.Info{}, err
		}
	}
	return l.issue(ctx, ActRotate, k, w, held)
}

// walletOf returns the wallet that a credential was issued to.
func (l *Lumina) walletOf(ctx context.Context, held credstore.Credential) (eip191.Wallet, error) {
	w, err := l.openWallet(ctx, held.Origin, held.Attrs[luminaWallet])
	if errors.Is(err, credstore.ErrNotFound) || err == nil && walletAddress(w) != held.Agent {
		err = &RefusedError{Why: "The wallet that this credential was issued to is not stored any more, so no other key can be had for it."}
	}
	return w, err
}

// makePlace ends a key at the service and marks it, when the store has shown
// that it can be written.
func (l *Lumina) makePlace(ctx context.Context, held credstore.Credential) (credstore.Credential, error) {
	if _, err := keep(ctx, l.store, held, luminaNeeded()...); err != nil {
		return held, err
	}
	if err := l.end(ctx, held.Key, held.KeyID, held.Secret); err != nil && !keyRefused(err) {
		return held, err
	}
	held.State = credstore.StateRevoked
	return held, l.ended(ctx, held)
}

// finish ends the key that a stored one replaces. What fails of that is a
// *[HalfRotatedError].
func (l *Lumina) finish(ctx context.Context, c credstore.Credential) (credstore.Credential, error) {
	if err := l.end(ctx, c.Key, c.Attrs[luminaReplaces], c.Secret); err != nil {
		return credstore.Credential{}, &HalfRotatedError{Info: c.Info, Old: c.Attrs[luminaReplaces], Cause: err}
	}
	c.Attrs = maps.Clone(c.Attrs)
	delete(c.Attrs, luminaReplaces)
	return keep(ctx, l.store, c, luminaNeeded()...)
}

// Revoke implements [Revoker].
func (l *Lumina) Revoke(ctx context.Context, k credstore.Key) error {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	return l.revoke(ctx, c)
}

// revoke is Revoke for whoever holds the lock.
func (l *Lumina) revoke(ctx context.Context, c credstore.Credential) (err error) {
	k := c.Key
	if c.State == credstore.StateRevoked {
		return nil
	}
	ctx, op, err := l.steward.begin(ctx, ActRevoke, k)
	if err != nil {
		return err
	}
	defer func() { op.end(ctx, err) }()
	if old := c.Attrs[luminaReplaces]; old != "" {
		if err := l.end(ctx, k, old, c.Secret); err != nil && !keyRefused(err) {
			return err
		}
	}
	if swept, _, err := l.sweep(ctx, c, c.Secret, false); err == nil {
		c = swept
	} else if !keyRefused(err) {
		return err
	}
	if err := l.end(ctx, k, c.KeyID, c.Secret); err != nil && !keyRefused(err) {
		return err
	}
	return l.ended(ctx, c)
}

// keyRefused reports whether the service does not take the key that a request
// was made with: it has ended already.
func keyRefused(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusUnauthorized && e.Code == wire.LuminaInvalidAPIKey
}

// ended marks a key in the store that has ended at the service.
func (l *Lumina) ended(ctx context.Context, c credstore.Credential) error {
	c.State, c.Attrs = credstore.StateRevoked, maps.Clone(c.Attrs)
	delete(c.Attrs, luminaReplaces)
	_, err := keep(ctx, l.store, c, luminaNeeded()...)
	return err
}
