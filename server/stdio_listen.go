package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"sync"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// SetSubscriptionFilter implements [mcpserver.SessionWithSubscriptionFilter].
func (*stdioSession) SetSubscriptionFilter(mcp.SubscriptionFilter) {}

// SubscriptionFilter implements [mcpserver.SessionWithSubscriptionFilter]. A
// client of the stateless era is told nothing but what it listens for, which
// goes over a [listenSession].
func (s *stdioSession) SubscriptionFilter() (mcp.SubscriptionFilter, bool) {
	return mcp.SubscriptionFilter{}, !s.legacy.Load()
}

// listenSession is the session of one subscriptions/listen request of a stdio
// client. mcp-go reaches it with what it tells everybody; what goes over it
// carries the number of the request, by which the client tells one stream from
// another.
type listenSession struct {
	*stdioSession
	id            string
	notifications chan mcp.JSONRPCNotification

	mu     sync.Mutex
	filter mcp.SubscriptionFilter
}

var _ mcpserver.SessionWithSubscriptionFilter = (*listenSession)(nil)

func (s *listenSession) SessionID() string { return s.id }

func (s *listenSession) Initialized() bool { return true }

func (s *listenSession) NotificationChannel() chan<- mcp.JSONRPCNotification { return s.notifications }

// SetSubscriptionFilter implements [mcpserver.SessionWithSubscriptionFilter].
func (s *listenSession) SetSubscriptionFilter(f mcp.SubscriptionFilter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filter = f
}

// SubscriptionFilter implements [mcpserver.SessionWithSubscriptionFilter].
func (s *listenSession) SubscriptionFilter() (mcp.SubscriptionFilter, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filter, true
}

// cancelable is the session that the request itself is handled in: a
// cancellation names it by the id of the connection.
type cancelable struct{ *listenSession }

func (s cancelable) SessionID() string { return s.stdioSession.id }

// listen serves one subscriptions/listen request until it ends.
func (c *stdioConn) listen(ctx context.Context, id, line json.RawMessage) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &listenSession{stdioSession: c.session, id: rand.Text(), notifications: make(chan mcp.JSONRPCNotification, 8)}
	if err := c.server.mcp.RegisterSession(ctx, s); err != nil {
		c.answer(ctx, protocolError(id, mcp.INTERNAL_ERROR, "internal error "+c.server.bug(ctx, "a stream cannot be registered", "error", err)))
		return
	}
	defer c.server.mcp.UnregisterSession(context.WithoutCancel(ctx), s.id)
	var forwarding sync.WaitGroup
	done := make(chan struct{})
	forwarding.Go(func() {
		for {
			select {
			case n := <-s.notifications:
				c.forward(ctx, n, id)
			case <-done:
				for len(s.notifications) > 0 { // such as that nothing is listened for
					c.forward(ctx, <-s.notifications, id)
				}
				return
			}
		}
	})
	answer := c.server.handle(c.server.mcp.WithContext(ctx, cancelable{s}), id, line)
	close(done)
	forwarding.Wait()
	c.answer(ctx, answer)
}

// forward sends what came over a stream, with the number of its request.
func (c *stdioConn) forward(ctx context.Context, n mcp.JSONRPCNotification, id json.RawMessage) {
	meta := maps.Clone(n.Params.Meta) // a broadcast shares it
	if meta == nil {
		meta = make(map[string]any)
	}
	meta[mcp.MetaKeySubscriptionID] = id
	n.Params.Meta = meta
	select {
	case c.session.notifications <- n:
	case <-ctx.Done():
	}
}
