package gateway

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// luminaExact is by how much the time of a key may differ from that at which it
// was asked for, beside how long that took.
const luminaExact = 5 * time.Second

// Heal implements [Healer]. A key that was lost on its way takes a place of three
// until it is revoked: it is looked for in the wallet's list. A registration then
// goes on with another key; a rotation that got none leaves the old one as it is,
// unless that has ended already to make place, or what it sent may arrive yet: then
// it is done once more, by the same signature.
func (l *Lumina) Heal(ctx context.Context, u Unfinished) error {
	return l.steward.resumed(ctx, l.store, u.Key, func(ctx context.Context, u Unfinished) error {
		held, err := l.stored(ctx, u.Key)
		switch {
		case err != nil:
			return err
		case held.Key != u.Key:
			return nil // what was begun was noted here first
		case u.Action == ActRevoke:
			return l.revoke(ctx, held)
		}
		return l.goOn(ctx, u, held)
	})
}

// goOn is Heal for whoever holds the lock, of what is no revocation.
func (l *Lumina) goOn(ctx context.Context, u Unfinished, held credstore.Credential) (err error) {
	if held.Attrs[luminaReplaces] != "" {
		if held, err = l.finish(ctx, held); err != nil {
			return err
		}
	}
	if held.UsableAt(l.now()) {
		swept, open, err := l.sweep(ctx, held, held.Secret, false)
		if err == nil && u.Action == ActRotate {
			_, _, err = l.listKeys(ctx, u.Key, held.Secret) // it may have made place already
		}
		switch {
		case err == nil && open:
			held = swept
		case !keyRefused(err):
			return err
		default:
			held.State = credstore.StateRevoked
			if err := l.ended(ctx, held); err != nil {
				return err
			}
		}
	}
	w, err := l.walletOf(ctx, held)
	var gone *RefusedError
	if errors.As(err, &gone) {
		return nil // there is no other key to be had
	}
	if err != nil {
		return err
	}
	for _, other := range l.usable(ctx, u.Key) {
		if swept, _, err := l.sweep(ctx, held, other.Secret, false); err == nil {
			held = swept
			break
		}
	}
	_, err = l.issue(ctx, u.Action, u.Key, w, held)
	var full *KeysFullError
	if held.UsableAt(l.now()) && errors.As(err, &full) {
		return nil // what is on its way meets the same, and the note of it stays
	}
	return err
}

// sweep revokes the keys that were asked for and never arrived, with a key of
// the same wallet, and stores the credential without a note of them. Where it is
// not clear which those are, nothing is revoked and the note stays. over says that
// what was sent for them has been answered; else open says that one of them is not
// there and may be yet to come, and the note of that one stays.
func (l *Lumina) sweep(ctx context.Context, c credstore.Credential, with credstore.Secret, over bool) (_ credstore.Credential, open bool, _ error) {
	asked := split(c.Attrs[luminaAsked])
	if len(asked) == 0 {
		return c, false, nil
	}
	keys, header, err := l.listKeys(ctx, c.Key, with)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		return c, false, nil // the service does not list its keys
	}
	if err != nil {
		return c, false, err
	}
	until := l.http.deadline + luminaExact
	if over { // it may have been on its way for as long as it was good
		until = wire.LuminaWindowSeconds*time.Second + luminaExact
	}
	lost, clear := l.lost(ctx, c, keys, asked, l.skewIn(header), until)
	if !clear {
		l.log.WarnContext(ctx, "a key may have been lost on its way, and cannot be told from others", "origin", c.Origin, "agent", c.Agent)
		return c, false, nil
	}
	for _, id := range lost {
		if err := l.end(ctx, c.Key, id, with); err != nil {
			return c, false, err
		}
		l.log.InfoContext(ctx, "a key that was lost on its way is revoked", "origin", c.Origin, "agent", c.Agent, "key_id", id)
	}
	c.Attrs = maps.Clone(c.Attrs)
	delete(c.Attrs, luminaAsked)
	if _, again := l.outstanding(asked); again && !over && len(lost) < len(asked) {
		open = true
		c.Attrs[luminaAsked] = asked[len(asked)-1] // the others were answered before that was sent
	}
	c, err = keep(ctx, l.store, c, luminaNeeded()...)
	return c, open, err
}

// outstanding returns when a key was asked for of which nobody knows what became,
// if a service may still take what was sent then: by its own clock, which may be
// behind ours.
func (l *Lumina) outstanding(asked []string) (at int64, is bool) {
	if len(asked) == 0 {
		return 0, false
	}
	at, err := strconv.ParseInt(asked[len(asked)-1], 10, 64)
	return at, err == nil && l.now().Unix() <= at+2*wire.LuminaWindowSeconds
}

// lost returns those of a wallet's keys that were asked for here and never
// arrived: they have the label of the credential, were made when one was asked
// for, are stored nowhere here, and have never been used. clear is false where
// there are more of those than were asked for, or the service does not say when
// they were made: then some are somebody else's with the same wallet.
func (l *Lumina) lost(ctx context.Context, c credstore.Credential, keys []LuminaKey, asked []string, skew, until time.Duration) (ids []string, clear bool) {
	stored, err := l.store.List(ctx, wire.LuminaName)
	if err != nil {
		return nil, false
	}
	ours := make(map[string]bool)
	for _, i := range stored {
		if i.Origin == c.Origin && i.Agent == c.Agent {
			ours[i.KeyID] = true
		}
	}
	ours[c.KeyID] = true
	label := l.http.scrub.Said(ctx, c.Label)
	for _, key := range keys {
		if ours[key.KeyID] || key.Label != label || !key.LastUsedAt.IsZero() {
			continue
		}
		if key.CreatedAt.IsZero() {
			return nil, false
		}
		if askedAt(asked, key.CreatedAt.Add(-skew), until) {
			ids = append(ids, key.KeyID)
		}
	}
	return ids, len(ids) <= len(asked)
}

// askedAt reports whether a key that was made at a time can be one of those that
// were asked for, so long before at most.
func askedAt(asked []string, made time.Time, until time.Duration) bool {
	for _, text := range asked {
		unix, err := strconv.ParseInt(text, 10, 64)
		at := time.Unix(unix, 0)
		if err == nil && made.After(at.Add(-luminaExact)) && made.Before(at.Add(until)) {
			return true
		}
	}
	return false
}

// skewIn returns how far a service's clock is ahead of ours by its Date header. It
// cannot be further than a signature may be off.
func (l *Lumina) skewIn(header http.Header) time.Duration {
	at, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	skew := at.Sub(l.now())
	if skew.Abs() > wire.LuminaWindowSeconds*time.Second {
		return 0
	}
	return skew
}

// explain implements explainer.
func (l *Lumina) explain(s *Standing, _ []credstore.Info) {
	if s.Now == credstore.StateActive && s.Reason == "" && s.Attrs[luminaAsked] != "" {
		s.Reason = "It works, but a key that was asked for beside it may have been lost on its way; that one would take a place of three."
		s.Remedy = "When the wallet is full, have a person choose which of its keys to revoke."
	}
}
