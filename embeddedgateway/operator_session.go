package embeddedgateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// What an operator does by the listener of their own stands in the audit trail
// under a name that no protocol has.
const (
	operatorTrail   = "gateway"
	operatorSession = "session"
)

// How often a wrong token may be presented to the operator's listener, over all
// gateways on the database. Who is over it is not told whether a token is right.
const (
	wrongTokens    = 10  // from one address
	wrongTokensAll = 100 // from all of them
	wrongTokensPer = time.Minute
)

// OperatorSession is a browser that was let in by the operator's token.
type OperatorSession struct {
	BegunAt   time.Time
	ExpiresAt time.Time // it can be extended until then
}

// Peer says who a request to a listener of the gateway is from, and whether they
// sent it by https: what the peer itself shows or, where that is a trusted proxy,
// what it says.
func (g *Gateway) Peer(r *http.Request) (ip netip.Addr, https bool) {
	if r.TLS != nil {
		https = true
	} else if peer, ok := parseIP(r.RemoteAddr); ok && isTrusted(peer, g.cfg.TrustedProxies) {
		https = strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
	}
	return clientIP(r, g.cfg.TrustedProxies), https
}

// CountToken counts what came of comparing a token that was presented as the
// operator's. Nobody may be let in, not even with the right one, while it returns
// a time to wait: that many wrong ones came lately. Whoever calls it compares
// first, so that of many tries at once no more than allowed are told their outcome.
func (g *Gateway) CountToken(ctx context.Context, ip netip.Addr, right bool) (retryAfter time.Duration, err error) {
	counts := []struct {
		key string
		max int
	}{{operatorTrail + "/token/" + network(ip), wrongTokens}, {operatorTrail + "/token", wrongTokensAll}}
	err = g.store.Tx(ctx, func(tx *store.Tx) error {
		retryAfter = 0
		for _, c := range counts {
			n, free, err := tx.Count(c.key, wrongTokensPer)
			if err != nil {
				return err
			}
			if n >= c.max {
				// One more fits in when the first of them has left the window.
				retryAfter = max(retryAfter, free.Sub(tx.Now()), time.Second)
			}
		}
		if right {
			return nil
		}
		for _, c := range counts {
			if retryAfter > 0 {
				break
			}
			wait, err := tx.Hit(c.key, c.max, wrongTokensPer)
			if err != nil {
				return err
			}
			retryAfter = max(retryAfter, wait)
		}
		return tx.Audit(store.Event{
			Protocol: operatorTrail, Name: "refused:admin_token", IP: network(ip), Refusal: true,
		})
	})
	if err != nil {
		return 0, fmt.Errorf("count the operator's tokens: %w", err)
	}
	return retryAfter, nil
}

// BeginSession keeps a session, by its hash, that is good as long as the token is
// by whose hash it was begun, and no longer than until expires unless it is
// extended.
func (g *Gateway) BeginSession(ctx context.Context, session, token [32]byte, expires time.Time, ip netip.Addr) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		err := tx.OpenTicket(store.Ticket{
			Protocol: operatorTrail, Kind: operatorSession, Hash: session,
			Subject: g.sessionOwner(token), ExpiresAt: expires,
		}, false)
		if err != nil {
			return err
		}
		return tx.Audit(store.Event{Protocol: operatorTrail, Name: "admin_signed_in", IP: ip.String()})
	})
	if err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	return nil
}

// Session returns a session that is good: begun by one of the tokens, neither
// expired nor ended. Otherwise the error wraps [store.ErrNotFound].
func (g *Gateway) Session(ctx context.Context, session [32]byte, tokens [][32]byte) (OperatorSession, error) {
	k, err := g.store.Ticket(ctx, operatorTrail, operatorSession, session)
	if err != nil {
		return OperatorSession{}, fmt.Errorf("look for a session: %w", err)
	}
	good := false
	for _, token := range tokens {
		good = good || k.Subject == g.sessionOwner(token)
	}
	if !good || !k.ExpiresAt.After(g.cfg.Now()) {
		return OperatorSession{}, fmt.Errorf("look for a session: %w", store.ErrNotFound)
	}
	return OperatorSession{BegunAt: k.CreatedAt, ExpiresAt: k.ExpiresAt}, nil
}

// ExtendSession moves the end of a session that has not ended. It is
// [store.ErrNotFound] if it has.
func (g *Gateway) ExtendSession(ctx context.Context, session [32]byte, expires time.Time) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		return tx.ExtendTicket(operatorTrail, operatorSession, session, expires)
	})
	if err != nil {
		return fmt.Errorf("extend a session: %w", err)
	}
	return nil
}

// EndSession ends a session in every gateway over the database. Ending one that
// there is not does nothing.
func (g *Gateway) EndSession(ctx context.Context, session [32]byte, ip netip.Addr) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		_, err := tx.Ticket(operatorTrail, operatorSession, session)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil {
			err = tx.DropTicket(operatorTrail, operatorSession, session)
		}
		if err != nil {
			return err
		}
		return tx.Audit(store.Event{Protocol: operatorTrail, Name: "admin_signed_out", IP: ip.String()})
	})
	if err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}

// Letter returns a letter of the outbox as [Gateway.Outbox] does, and puts into
// the audit trail that somebody at ip has read it. It is [store.ErrNotFound] if it
// does not wait any more.
func (g *Gateway) Letter(ctx context.Context, name string, ip netip.Addr) (Mail, error) {
	list, err := g.Outbox(ctx)
	for _, m := range list {
		if m.Name != name {
			continue
		}
		// Nobody sees it unless the trail says so.
		err := g.store.Tx(ctx, func(tx *store.Tx) error {
			return tx.Audit(store.Event{Protocol: operatorTrail, Name: "outbox_read", IP: ip.String(), Detail: "letter " + name})
		})
		if err != nil {
			return Mail{}, fmt.Errorf("read a letter: %w", err)
		}
		return m, nil
	}
	if err != nil {
		return Mail{}, err
	}
	return Mail{}, fmt.Errorf("read a letter: %w", store.ErrNotFound)
}

// sessionOwner is what a session keeps of the token that it was begun by: a MAC,
// so that a copy of the database does not help to guess the token.
func (g *Gateway) sessionOwner(token [32]byte) string {
	sum := g.mail.vault.mac(operatorTrail, string(token[:]))
	return hex.EncodeToString(sum[:16])
}
