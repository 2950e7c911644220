package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

const (
	// minSecret and maxSecret bound the length of what a service may issue. A
	// shorter secret could not be masked without masking half of every text.
	minSecret = 16
	maxSecret = 4 << 10
	// minSetting is the same for a secret that the user chose.
	minSetting = 8
	// storeTime is how long storing what was issued may take at the end of an
	// operation: a whole one stays under 30 seconds.
	storeTime = 4 * time.Second
)

// presentable reports whether s can be put into a header and taken out of a
// text again: printable ASCII without spaces, of a sensible length.
func presentable(s string, shortest int) bool {
	return len(s) >= shortest && len(s) <= maxSecret &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// fingerprint tells secrets apart, and of one says nothing.
func fingerprint(secret credstore.Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:6])
}

// keep stores what a service issued, and returns it as it was stored. It does
// so even when whoever asked has given up meanwhile, because the service will
// not issue it a second time, and tries twice: a keyring may have been busy.
// Where there is no room for all of its attributes, only the needed ones stay.
func keep(ctx context.Context, s credstore.Store, c credstore.Credential, needed ...string) (credstore.Credential, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	err := s.Put(ctx, c)
	if errors.Is(err, credstore.ErrTooLarge) {
		c.Attrs = maps.Clone(c.Attrs)
		maps.DeleteFunc(c.Attrs, func(name, _ string) bool { return !slices.Contains(needed, name) })
	}
	if err != nil && ctx.Err() == nil {
		err = s.Put(ctx, c)
	}
	return c, err
}

// unstored has what the store would not take. A service shows no key a second
// time, so it waits here for the next try.
type unstored struct {
	mu    sync.Mutex
	items map[credstore.Key]credstore.Credential
}

// waiting returns what the store would not take under a key.
func (u *unstored) waiting(k credstore.Key) (credstore.Credential, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.items[k]
	return c, ok
}

// hold makes a credential wait; drop lets go of it.
func (u *unstored) hold(c credstore.Credential) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.items == nil {
		u.items = make(map[credstore.Key]credstore.Credential)
	}
	u.items[c.Key] = c
}

func (u *unstored) drop(k credstore.Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.items, k)
}

// forgotten implements forgetter for a credential that nothing stands behind.
func (u *unstored) forgotten(k credstore.Key) { u.drop(k) }

// keep is [keep] for what waits when the store does not take it: then it is a
// *[NotStoredError].
func (u *unstored) keep(ctx context.Context, s credstore.Store, c credstore.Credential, needed ...string) (credstore.Credential, error) {
	stored, err := keep(ctx, s, c, needed...)
	if err != nil {
		u.hold(c)
		return c, &NotStoredError{
			Protocol: c.Protocol, Origin: c.Origin, Agent: c.Agent, Cause: err,
			Remedy: "Do not stop Enlist: it has the key in memory. When the store works again, make the same call once more, and the key is stored without asking the service for another.",
		}
	}
	received(ctx)
	u.drop(c.Key)
	return stored, nil
}
