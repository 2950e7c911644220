package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// retryAfter is what a client is told to wait before it asks for the rest of an
// answer whose connection it lost.
const retryAfter = time.Second

// emptyEventsSince is the revision since when clients know events that have an id
// and no message.
const emptyEventsSince = "2025-11-25"

// postedKey is the context key of a [posted].
type postedKey struct{}

// posted is a message of a streamable HTTP session whose answer can be resumed.
type posted struct {
	w       *writer
	session string
	call    bool           // it is a tool call
	stream  int64          // the number of its stream in [events], which guards it; 0: none was announced
	over    chan struct{}  // closed when it has been served
	tellers sync.WaitGroup // who sends what it tells
}

// serveMCP serves streamable HTTP.
func (g *guard) serveMCP(w http.ResponseWriter, r *http.Request) {
	modern := mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion))
	session := r.Header.Get(mcpserver.HeaderKeySessionID)
	switch {
	case modern && r.Header.Get(mcp.HeaderMethod) == string(mcp.MethodSubscriptionsListen):
		g.serveListen(w, r)
	case modern:
		if r.Method == http.MethodPost {
			defer g.server.work.begin()()
		}
		g.mcp.ServeHTTP(w, r)
	case r.Method == http.MethodPost:
		g.servePost(w, r, session)
	default:
		g.serveSession(w, r, session)
	}
}

// serveListen serves a stream of a client without sessions. mcp-go ends one without
// a word, which a client takes for a broken connection: when it is the server that
// ends, it says so.
func (g *guard) serveListen(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID json.RawMessage `json:"id"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body could not be read")
		return
	}
	_ = json.Unmarshal(body, &m) // mcp-go says what is wrong with it
	r.Body = io.NopCloser(bytes.NewReader(body))
	listen, end := g.server.listening(r)
	defer end()
	g.mcp.ServeHTTP(w, listen)
	if listen.Context().Err() == nil || r.Context().Err() != nil || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
		return
	}
	result, err := json.Marshal(mcp.NewJSONRPCResultResponse(mcp.NewRequestId(m.ID), map[string]any{
		"resultType": mcp.ResultTypeComplete, "_meta": map[string]any{mcp.MetaKeySubscriptionID: m.ID},
	}))
	if err == nil {
		_, _ = fmt.Fprintf(w, "event: message\ndata: %s\n\n", result) // the client has gone
	}
}

// serveSession serves a stream of a session, or its end. It refuses one of a
// session that does not exist: mcp-go begins it, and has one that ends meanwhile
// go on.
func (g *guard) serveSession(w http.ResponseWriter, r *http.Request, session string) {
	ctx, cancel, ok := g.sessions.within(r.Context(), guestOf(r.Context()), session)
	if !ok {
		refuse(w, http.StatusNotFound, errNoSession.Error())
		return
	}
	defer cancel()
	defer g.sweep(r.Context(), session)
	switch {
	case r.Method == http.MethodDelete:
		g.mcp.ServeHTTP(w, r) // the context ends in the middle
	case g.resumes(r):
		g.serveRest(w, r.WithContext(ctx), session)
	default:
		g.mcp.ServeHTTP(w, r.WithContext(ctx))
	}
}

// sweep takes away what was left behind by something that went on when its session
// had ended.
func (g *guard) sweep(ctx context.Context, session string) {
	if session != "" && !g.sessions.alive(session) {
		g.endSession(ctx, session)
	}
}

// servePost serves a message of the eras with sessions. There a client that has
// lost its connection has not cancelled what it asked for: it comes back for the
// answer.
func (g *guard) servePost(w http.ResponseWriter, r *http.Request, session string) {
	defer g.server.work.begin()()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body could not be read")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var m struct {
		Method mcp.MCPMethod   `json:"method"`
		ID     json.RawMessage `json:"id"`
	}
	_ = json.Unmarshal(body, &m) // mcp-go says what is wrong with it
	if m.Method == mcp.MethodInitialize {
		g.serveInitialize(w, r)
		return
	}
	ctx, cancel := guestOf(r.Context()).within(context.WithoutCancel(r.Context()))
	defer cancel()
	p := &posted{session: session, call: m.Method == mcp.MethodToolsCall && len(m.ID) > 0 && string(m.ID) != "null", over: make(chan struct{})}
	p.w, _ = w.(*writer)
	func() {
		defer p.tellers.Wait()
		defer close(p.over)
		g.mcp.ServeHTTP(w, r.WithContext(context.WithValue(ctx, postedKey{}, p)))
	}()
	g.events.retract(p)
	if len(m.ID) > 0 && m.Method != "" {
		if id := g.sessions.count(session); id != "" {
			g.endSession(ctx, id)
		}
	}
	g.sweep(ctx, session)
}

// serveInitialize begins a session, if there is room for it.
func (g *guard) serveInitialize(w http.ResponseWriter, r *http.Request) {
	leave, err := g.guests.admit(guestOf(r.Context()))
	if err != nil {
		refuseForNow(w, err)
		return
	}
	a := &admission{leave: leave}
	g.mcp.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), admissionKey{}, a)))
	if !a.taken {
		leave()
	}
}

// announce begins the answer to a call of a client that takes events, and knows
// those without a message.
func (g *guard) announce(p *posted, session httpSession, header http.Header) {
	if p.w == nil || header.Get(mcp.HeaderProtocolVersion) < emptyEventsSince ||
		!strings.Contains(header.Get("Accept"), "text/event-stream") {
		return
	}
	session.UpgradeToSSEWhenReceiveNotification() // the result is an event, too
	p.w.announce(g.events.announce(p))
}

// resumes reports whether a request is for the rest of the answer to a message.
func (g *guard) resumes(r *http.Request) bool {
	session, after := r.Header.Get(mcpserver.HeaderKeySessionID), r.Header.Get(mcp.HeaderLastEventID)
	return r.Method == http.MethodGet && r.URL.Path == mcpPath && after != "" &&
		g.sessions.owned(guestOf(r.Context()), session) && g.events.answering(session, after) != nil
}

// serveRest sends the rest of an answer. Who comes for it is waited for as one is
// who asked. What a call tells before mcp-go has sent anything comes from here.
func (g *guard) serveRest(w http.ResponseWriter, r *http.Request, session string) {
	defer g.server.work.begin()()
	after := r.Header.Get(mcp.HeaderLastEventID)
	began := g.events.answering(session, after)
	out, ok := w.(*writer)
	for waits := began != nil && ok; waits; {
		tail, more := g.events.told(session, after)
		out.open()
		for _, e := range tail {
			out.tell(e.id(), e.message)
			after = e.id()
		}
		select {
		case <-began:
			waits = false
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
	r = r.Clone(r.Context())
	r.Header.Set(mcp.HeaderLastEventID, after)
	g.mcp.ServeHTTP(w, r)
}

// serveSSE serves a stream, and remembers it for as long as it is there.
func (g *guard) serveSSE(w http.ResponseWriter, r *http.Request) {
	leave, err := g.guests.admit(guestOf(r.Context()))
	if err != nil {
		refuseForNow(w, err)
		return
	}
	defer leave()
	s := g.streams.begin(guestOf(r.Context()))
	defer g.streams.end(s)
	if w, ok := w.(*writer); ok {
		w.stream = s
	}
	g.sse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
}

// serveMessage takes a message; what it asks for is answered on the stream.
func (g *guard) serveMessage(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("sessionId")
	if !g.streams.owned(guestOf(r.Context()), id) {
		refuse(w, http.StatusNotFound, errNoSession.Error())
		return
	}
	if body, err := io.ReadAll(r.Body); err == nil {
		g.streams.asked(id, body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	g.sse.ServeHTTP(w, r)
}
