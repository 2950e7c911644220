package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// settledMethod is the method of a notification that never leaves: it marks
// the place in a stream behind everything that a call has sent.
const settledMethod = "notifications/enlist/settled"

// settler holds back the result of a call until the notifications that the
// call sent are written.
//
// Over HTTP mcp-go moves notifications by a goroutine of their own, which it
// stops at the result: one that it holds is dropped, or overtaken. So a mark
// is sent behind them, and the result waits until the mark comes by in
// [writer], which takes it out.
type settler struct {
	// ours is how each mark begins: one whose call does not wait any more is
	// known by it, too, and must not go out either.
	ours string

	mu      sync.Mutex
	waiting map[string]chan struct{}
}

func newSettler() *settler {
	return &settler{ours: rand.Text(), waiting: make(map[string]chan struct{})}
}

// settling is a session that counts what is sent over it.
type settling interface {
	mcpserver.ClientSession
	sent() int64
	// gone is closed when nothing is written to the client any more; nil: the
	// context of the call says so.
	gone() <-chan struct{}
}

// settled is the middleware.
func (t *settler) settled(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		session, ok := mcpserver.ClientSessionFromContext(ctx).(settling)
		if !ok {
			return next(ctx, req)
		}
		before := session.sent()
		res, err := next(ctx, req)
		if session.sent() != before {
			t.wait(ctx, session)
		}
		return res, err
	}
}

// listened is the hook of subscriptions: the acknowledgement of one that ends at
// once goes out before its end.
func (t *settler) listened(ctx context.Context, _ any, _ *mcp.SubscriptionsListenRequest, _ *mcp.SubscriptionsListenResult) {
	if session, ok := mcpserver.ClientSessionFromContext(ctx).(settling); ok {
		t.wait(ctx, session)
	}
}

// wait returns when what was sent over the session is written, or will never be.
func (t *settler) wait(ctx context.Context, session settling) {
	id, done := t.ours+rand.Text(), make(chan struct{})
	t.mu.Lock()
	t.waiting[id] = done
	t.mu.Unlock()
	defer t.reached(id)

	mark := mcp.JSONRPCNotification{JSONRPC: mcp.JSONRPC_VERSION}
	mark.Method = settledMethod
	mark.Params.AdditionalFields = map[string]any{"id": id}
	select {
	case session.NotificationChannel() <- mark:
	case <-session.gone():
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-session.gone():
	case <-ctx.Done():
	}
}

// reached says that a mark came by, and whether it is one of ours.
func (t *settler) reached(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if done, ok := t.waiting[id]; ok {
		close(done)
		delete(t.waiting, id)
	}
	return strings.HasPrefix(id, t.ours)
}

// mark reports whether a server-sent event is a mark, which must not be written.
func (t *settler) mark(event []byte) bool {
	if !bytes.Contains(event, []byte(settledMethod)) {
		return false
	}
	_, data, ok := bytes.Cut(event, []byte("data: "))
	var m struct {
		Method string `json:"method"`
		Params struct {
			ID string `json:"id"`
		} `json:"params"`
	}
	return ok && json.Unmarshal(bytes.TrimSpace(data), &m) == nil && m.Method == settledMethod && t.reached(m.Params.ID)
}

// counter counts what is sent over a session: mcp-go asks for the channel
// once for each notification.
type counter struct {
	n    atomic.Int64
	done <-chan struct{}
}

func (c *counter) sent() int64 { return c.n.Load() }

func (c *counter) gone() <-chan struct{} { return c.done }

// requestSession is the session of one streamable HTTP request of a client
// without sessions (2026-07-28). mcp-go gives them all the same empty id, and
// keys cancellation by it: one client would cancel the calls of another by
// their number. Here each has an id of its own. Such a client cancels by
// closing the response.
type requestSession struct {
	httpSession
	counter
	id string
}

// httpSession is what mcp-go looks for in the session of such a request.
type httpSession interface {
	mcpserver.SessionWithClientInfo
	mcpserver.SessionWithStreamableHTTPConfig
	mcpserver.SessionWithSubscriptionFilter
}

func (s *requestSession) SessionID() string { return s.id }

func (s *requestSession) NotificationChannel() chan<- mcp.JSONRPCNotification {
	s.n.Add(1)
	return s.httpSession.NotificationChannel()
}

// messageSession is the session of one message of an SSE client.
type messageSession struct {
	sseSession
	counter
}

// sseSession is what mcp-go looks for in the session of such a message.
type sseSession interface {
	mcpserver.SessionWithClientInfo
	mcpserver.SessionWithProtocolVersion
	SetProtocolVersion(version string)
}

func (s *messageSession) NotificationChannel() chan<- mcp.JSONRPCNotification {
	s.n.Add(1)
	return s.sseSession.NotificationChannel()
}
