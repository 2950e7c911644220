package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const (
	// recheckEvery is how long a WebSocket or another answer that lasts goes on
	// at most when its credential may not be used any more.
	recheckEvery = 10 * time.Second
	// maxUnknown is how often in succession the database may fail to say whether
	// it may, until it may not.
	maxUnknown = 6
)

// codeTooManyOpen is what an agent is told that has too many requests under way.
const codeTooManyOpen = "too_many_open"

// begin puts an exchange on the list of those that go on, unless none may begin,
// or no more of its agent.
func (x *exchange) begin() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errDraining
	}
	if !x.admission.preflight {
		agent := x.admission.caller.AgentID
		if x.maxOpen > 0 && x.open[agent] >= x.maxOpen {
			return &problem{
				kind: kindLimited, code: codeTooManyOpen, retryAfter: time.Second, header: x.admission.limits,
				message: fmt.Sprintf("too many requests under way: at most %d by one agent at once, WebSockets and streams included; end one, then try again", x.maxOpen),
			}
		}
		x.open[agent]++
	}
	x.streams[x] = true
	x.ended.Add(1)
	return nil
}

// record puts a refusal of the exchange into the audit trail.
func (x *exchange) record(ctx context.Context, err error) error {
	caller := x.admission.caller
	c := &call{
		Request: x.in, protocol: caller.Protocol, store: x.store, ip: clientIP(x.in, x.cfg.TrustedProxies),
		agent: caller.Agent, keyID: caller.KeyID,
	}
	return x.front.record(ctx, c, err)
}

// refused answers that the request does not get to the API.
func (x *exchange) refused(ctx context.Context, err error) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = unavailable()
	}
	x.front.refuse(x.ResponseWriter, x.in, p)
	x.logged(ctx, x, p.kind.status())
}

// end takes it off. No timer of it does anything from now on.
func (x *exchange) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.streams, x)
	if agent := x.admission.caller.AgentID; !x.admission.preflight {
		if x.open[agent]--; x.open[agent] == 0 {
			delete(x.open, agent)
		}
	}
	x.ended.Done()
}

// on runs f unless the exchange has ended: what belongs to its connection may not
// be touched then.
func (x *exchange) on(f func(*http.ResponseController)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.streams[x] {
		f(http.NewResponseController(x.ResponseWriter))
	}
}

// stop ends the exchange before its time. The mutex is held.
func (x *exchange) stop(why error) {
	x.cancel(why) // first: the context of a request ends with what is read of it, for no reason
	c := http.NewResponseController(x.ResponseWriter)
	if x.reading.Load() {
		_ = c.SetReadDeadline(past())
	}
	if x.begun.Load() { // there is nothing more to say
		_ = c.SetWriteDeadline(past())
	}
}

// lasting notes that the answer has no end of its own, and reports whether it may
// begin.
func (x *exchange) lasting() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stream = true
	return !x.draining
}

// underWay is how many exchanges there are, and how many of them last.
func (p *proxy) underWay() (all, last int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.streams {
		if x.stream {
			last++
		}
	}
	return len(p.streams), last
}

// drain ends what has no end of its own; all else is answered. A client that
// connects again finds another replica, or this one when it is back.
func (p *proxy) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for x := range p.streams {
		if x.stream {
			x.stop(errDraining)
		}
	}
}

// close ends everything and the connections to the API.
func (p *proxy) close() {
	p.drain()
	p.mu.Lock()
	p.closed = true
	for x := range p.streams {
		x.stop(errDraining)
	}
	p.mu.Unlock()
	p.ended.Wait()
	if p.transport != nil {
		p.transport.CloseIdleConnections()
	}
}

// keep looks at the credentials of what goes on until ctx ends.
func (p *proxy) keep(ctx context.Context) {
	if p.to == nil {
		return
	}
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.recheck(ctx, p.front.identify)
		}
	}
}

// recheck ends what goes on with a credential that may not be used any more: one
// that was revoked or has expired, or whose agent was suspended or deleted.
func (p *proxy) recheck(ctx context.Context, identify func(context.Context, *call) (Caller, error)) {
	p.checking.Lock()
	defer p.checking.Unlock()
	p.mu.Lock()
	list := slices.Collect(maps.Keys(p.streams))
	p.mu.Unlock()
	var away error
	for _, x := range list {
		c := &call{Request: x.in, protocol: keyring{}.name(), store: p.store, ip: clientIP(x.in, p.cfg.TrustedProxies)}
		err := away
		if away == nil {
			_, err = identify(ctx, c)
		}
		refusal, ok := errors.AsType[*problem](err)
		fault := err != nil && (!ok || refusal.kind.fault())
		if fault {
			away = err // for the others, too: each would wait for the database, one after the other
		}
		if fault || err != nil && x.admission.preflight { // which has none, and is no answer that lasts
			if x.unknown++; x.unknown < maxUnknown {
				continue
			}
		}
		if err == nil {
			x.unknown = 0
			continue
		}
		p.mu.Lock()
		if p.streams[x] {
			x.stop(errRevoked)
		}
		p.mu.Unlock()
		p.cfg.Logger.InfoContext(ctx, "an answer that lasted was ended: its credential may not be used any more",
			"request_id", x.id, "agent", x.admission.caller.String(), "key_id", x.admission.caller.KeyID)
	}
}
