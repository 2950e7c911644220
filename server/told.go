package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// callSession is the session of one call of a streamable HTTP client with a
// session. mcp-go has every request of such a session, and the stream that it
// listens on, take notifications from one channel: those of a call would come on
// whichever stream is quickest, out of order, or after the result. Here they go
// out on the stream of the call, one after the other.
type callSession struct {
	lastingSession
	counter
	notifications chan mcp.JSONRPCNotification
}

// lastingSession is what mcp-go looks for in the session of such a call.
type lastingSession interface {
	httpSession
	mcpserver.SessionWithElicitation
	mcpserver.SessionWithSampling
	mcpserver.SessionWithLogging
}

func (s *callSession) NotificationChannel() chan<- mcp.JSONRPCNotification {
	s.n.Add(1)
	return s.notifications
}

// telling gives a call a session of its own. What is sent over it goes out until
// the call is over.
func (g *guard) telling(ctx context.Context, session httpSession, p *posted) context.Context {
	lasting, ok := session.(lastingSession)
	if !ok || p.w == nil {
		return ctx
	}
	s := &callSession{lastingSession: lasting, notifications: make(chan mcp.JSONRPCNotification, 128)}
	s.done = p.over
	p.tellers.Go(func() {
		for {
			select {
			case n := <-s.notifications:
				g.tell(ctx, p, n)
			case <-p.over:
				return
			}
		}
	})
	return g.server.mcp.WithContext(ctx, s)
}

// tell sends what a call tells, and keeps it for a client that comes for the rest.
func (g *guard) tell(ctx context.Context, p *posted, n mcp.JSONRPCNotification) {
	if id, ok := n.Params.AdditionalFields["id"].(string); ok && n.Method == settledMethod && g.server.settle.reached(id) {
		return
	}
	message, err := json.Marshal(n)
	if err != nil {
		g.server.bug(ctx, "a notification cannot be marshalled", "error", g.server.redact.text(err.Error()))
		return
	}
	p.w.tell(g.events.tell(p, message), message)
}

// open begins a stream of events.
func (w *writer) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.begin(http.StatusOK)
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client has gone
}

// tell writes an event of a stream that mcp-go, too, writes to.
func (w *writer) tell(id string, message json.RawMessage) {
	w.open()
	w.mu.Lock()
	defer w.mu.Unlock()
	event := fmt.Appendf(nil, "id: %s\nevent: message\ndata: %s\n\n", id, message)
	_, _ = w.ResponseWriter.Write(w.server.redact.frame(w.ctx, event)) //nolint:gosec // JSON in a stream of events, which no browser shows
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// tell keeps a message of a call that is sent before mcp-go sends any, and returns
// its id. The stream of the call begins with it where none was announced.
func (s *events) tell(p *posted, message json.RawMessage) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.log(p.session).streams[p.stream]
	if st == nil {
		st = s.announced(p)
	}
	return s.keep(st, message)
}
