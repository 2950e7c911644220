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
