package embeddedgateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// quota is a limit of the routes that send letters, and how much of it is left.
type quota struct {
	limit
	key                         string // what is counted
	each                        string // what has so many, for people
	maximum, left, resetsAtName string // headers

	used int
	free time.Time // when one more is free
}

// spendBoth counts a call against what an address of the network and what an
// email address may ask for: both of them or neither. Whether the email is
// anybody's does not matter. The headers say how much is left, also when it was
// too much.
func (f *fluxra) spendBoth(ctx context.Context, c *call, what string, email [32]byte) (http.Header, error) {
	quotas := []quota{
		{
			limit: limit{what, 5, time.Hour}, key: c.protocol + "/" + what + "/" + network(c.ip), each: "from one address",
			maximum: wire.FluxraIPLimit, left: wire.FluxraIPRemaining, resetsAtName: wire.FluxraIPReset,
		},
		{
			limit: limit{what, 3, time.Hour}, key: c.protocol + "/" + what + "-email/" + hex.EncodeToString(email[:]), each: "for one email",
			maximum: wire.FluxraEmailLimit, left: wire.FluxraEmailRemaining, resetsAtName: wire.FluxraEmailReset,
		},
	}
	err := c.store.Tx(ctx, func(tx *store.Tx) (err error) {
		for i := range quotas {
			q := &quotas[i]
			if q.used, q.free, err = tx.Count(q.key, q.per); err != nil {
				return err
			}
		}
		for _, q := range quotas {
			wait, err := tx.Hit(q.key, q.n, q.per)
			if err != nil {
				return err
			}
			if wait > 0 { // this undoes the transaction
				return q.exceeded(wait)
			}
		}
		for i := range quotas {
			quotas[i].used++
		}
		return nil
	})
	header := http.Header{}
	for _, q := range quotas {
		q.tell(header, f.Now())
	}
	if p, ok := errors.AsType[*problem](err); ok {
		p.header = header
	}
	return header, err
}

func (q quota) exceeded(wait time.Duration) *problem {
	p := &problem{kind: kindLimited, retryAfter: wait}
	p.message = fmt.Sprintf("too many requests: at most %d in %s %s; try again in %d seconds", q.n, q.per, q.each, p.seconds())
	return p
}

// tell puts the quota into headers. It resets, in Unix time, when the first
// request that it counts does not count any more.
func (q quota) tell(h http.Header, now time.Time) {
	if q.free.IsZero() {
		q.free = now
		if q.used > 0 {
			q.free = now.Add(q.per)
		}
	}
	reset := q.free.Unix()
	if q.free.Nanosecond() > 0 {
		reset++
	}
	h.Set(q.maximum, strconv.Itoa(q.n))
	h.Set(q.left, strconv.Itoa(max(0, q.n-q.used)))
	h.Set(q.resetsAtName, strconv.FormatInt(reset, 10))
}

// fluxraGuesses is how many wrong codes may come from an address (Enlist's
// choice), which many people may share. Without it one address could void the
// codes of everybody, five wrong ones each, and find out by sending all the
// million there are whether an email has just recovered an account.
func fluxraGuesses() limit { return limit{"code", 100, time.Hour} }

func guessesKey(c *call) string {
	return c.protocol + "/" + fluxraGuesses().name + "/" + network(c.ip)
}

// guessed refuses an address that has sent too many wrong codes, whatever it
// sends now, and whoever's it is.
func guessed(tx *store.Tx, c *call) error {
	l := fluxraGuesses()
	n, free, err := tx.Count(guessesKey(c), l.per)
	if err != nil || n < l.n {
		return err
	}
	p := &problem{kind: kindLimited, retryAfter: free.Sub(tx.Now())}
	p.message = fmt.Sprintf("too many wrong codes: at most %d in %s from one address; try again in %d seconds", l.n, l.per, p.seconds())
	return p
}

// fluxraWorn is how many wrong codes there may be for one email in a day
// (Enlist's choice). Five tries at each of three codes an hour are 131,400 a
// year: without this, one chance in eight to find a code of a million in the
// first, from one address of the network. With it, it is one in about 180.
const fluxraWorn = 15

func wornKey(c *call, email [32]byte) string {
	return c.protocol + "/worn/" + hex.EncodeToString(email[:])
}

// wornOut reports whether so many codes were guessed at for an email that no
// other one counts, not even the right one, and none is sent.
func wornOut(tx *store.Tx, c *call, email [32]byte) (bool, error) {
	n, _, err := tx.Count(wornKey(c, email), 24*time.Hour)
	return n >= fluxraWorn, err
}

// wrongCode says why a code is not taken. One that was right once is no try at
// guessing; any other is, also where there is nothing to guess.
func wrongCode(tx *store.Tx, c *call, agentID string, email, hash [32]byte) (*problem, error) {
	t, err := tx.Ticket(wire.FluxraName, fluxraCode, hash)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil && t.Subject == agentID && !t.UsedAt.IsZero() && tx.Now().Before(t.ExpiresAt) {
		return conflict(wire.FluxraCodeUsed, "the code was used: ask for a new one"), nil
	}
	l := fluxraGuesses()
	if _, err := tx.Hit(guessesKey(c), l.n, l.per); err != nil {
		return nil, err
	}
	struck, err := tx.Strike(wire.FluxraName, fluxraCode, agentID, fluxraCodeTries)
	if err != nil {
		return nil, err
	}
	if struck == 0 { // there was nothing to guess: it is counted, as work, for nobody
		email = [32]byte{}
	}
	if _, err := tx.Hit(wornKey(c, email), fluxraWorn, 24*time.Hour); err != nil {
		return nil, err
	}
	return badToken("the code is wrong or has expired, or there is no account to recover by this email: ask for a new one"), nil
}
