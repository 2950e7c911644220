package embeddedgateway

import (
	"context"
	"errors"
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

// begin puts an exchange on the list of those that go on, unless none may begin.
func (x *exchange) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	x.streams[x] = true
	x.ended.Add(1)
	return true
}

// end takes it off. No timer of it does anything from now on.
func (x *exchange) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.streams, x)
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
	c := http.NewResponseController(x.ResponseWriter)
	if x.reading.Load() {
		_ = c.SetReadDeadline(past())
	}
	if x.begun.Load() { // there is nothing more to say
		_ = c.SetWriteDeadline(past())
	}
	x.cancel(why)
}

// lasting notes that the answer has no end of its own, and reports whether it may
// begin.
func (x *exchange) lasting() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stream = true
	return !x.draining
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
			p.recheck(ctx)
		}
	}
}

// recheck ends what goes on with a credential that may not be used any more: one
// that was revoked or has expired, or whose agent was suspended or deleted.
func (p *proxy) recheck(ctx context.Context) {
	p.checking.Lock()
	defer p.checking.Unlock()
	p.mu.Lock()
	list := slices.Collect(maps.Keys(p.streams))
	p.mu.Unlock()
	for _, x := range list {
		c := &call{Request: x.in, protocol: keyring{}.name(), store: p.store, ip: clientIP(x.in, p.cfg.TrustedProxies)}
		_, err := p.front.identify(ctx, c)
		refusal, ok := errors.AsType[*problem](err)
		if err != nil && (!ok || refusal.kind.fault() || x.admission.preflight) { // which has none, and is no answer that lasts
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
