package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// The routes of a [Server.Handler].
const (
	mcpPath     = "/mcp"
	ssePath     = "/sse"
	messagePath = "/message"
)

const (
	// idleTTL is how long a session is kept that nobody uses.
	idleTTL = 30 * time.Minute
	// heartbeat is how often an open stream is written to, so that it counts
	// as used and a client that has vanished is noticed.
	heartbeat = 30 * time.Second
)

// HTTPConfig says who may use a [Server.Handler].
type HTTPConfig struct {
	// Verify reports whether a bearer token is the right one, in constant time.
	// Every request must carry one in its Authorization header. Required.
	Verify func(token string) bool
	// AllowedHosts are the values of Host that are accepted beside those of
	// the loopback interface: a name, or a name with a port.
	AllowedHosts []string
	// AllowedOrigins are the values of Origin that are accepted beside those
	// of the loopback interface: "https://app.example.com". A request without
	// an Origin does not come from a web page.
	AllowedOrigins []string
	// IdleTTL is how long a session is kept that nobody uses; 0: 30 minutes.
	IdleTTL time.Duration
}

// check returns what is wrong with the configuration.
func (c HTTPConfig) check() error {
	if c.Verify == nil {
		return errors.New("server: HTTPConfig.Verify is required")
	}
	for _, host := range c.AllowedHosts {
		if host == "" || strings.ContainsAny(host, "/@ ") {
			return fmt.Errorf("allowed host %q: want a host name, or a name and a port, as in mcp.example.com", host)
		}
	}
	for _, origin := range c.AllowedOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return fmt.Errorf("allowed origin %q: want a scheme and a host, as in https://app.example.com", origin)
		}
	}
	return nil
}

// Handler serves streamable HTTP at /mcp, and the older SSE transport at /sse
// and /message. It also starts what [Server.Start] starts. [Server.Drain] ends
// what it serves.
//
// It sends no CORS headers: a page may use it from its own origin only.
func (s *Server) Handler(c HTTPConfig) (http.Handler, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.IdleTTL == 0 {
		c.IdleTTL = idleTTL
	}
	g := &guard{server: s, config: c, sessions: newSessionIDs(), streams: newStreams(s.work)}
	g.mcp = mcpserver.NewStreamableHTTPServer(s.mcp,
		// A session id that was not given out, or whose session has ended, is
		// refused, and what a session holds is dropped when nobody uses it.
		mcpserver.WithSessionIdManager(g.sessions),
		mcpserver.WithSessionIdleTTL(c.IdleTTL),
		mcpserver.WithHeartbeatInterval(heartbeat),
		// Without it a notification is lost when its call returns at once.
		mcpserver.WithEventStore(mcpserver.NewInMemoryEventStore()),
		mcpserver.WithHTTPContextFunc(s.ownSession),
		mcpserver.WithStreamableHTTPLogger(s.log),
		// The guard is stricter, and knows AllowedHosts.
		mcpserver.WithDisableLocalhostProtection(true),
	)
	g.sse = mcpserver.NewSSEServer(s.mcp,
		mcpserver.WithSSEEndpoint(ssePath),
		mcpserver.WithMessageEndpoint(messagePath),
		mcpserver.WithUseFullURLForMessageEndpoint(false),
		mcpserver.WithKeepAliveInterval(heartbeat),
		mcpserver.WithSessionIDGenerator(g.streams.open),
		mcpserver.WithSSEContextFunc(g.streamSession),
		mcpserver.WithSSEDisableLocalhostProtection(true),
	)
	s.mu.Lock()
	s.ends = append(s.ends, func(ctx context.Context) {
		_ = g.mcp.Shutdown(ctx) // it has no http.Server that could fail
		g.sse.CloseSessions()
	})
	s.mu.Unlock()
	s.Start(context.Background())
	return g, nil
}

// ownSession gives a request without a session a session of its own.
func (s *Server) ownSession(ctx context.Context, _ *http.Request) context.Context {
	session, ok := mcpserver.ClientSessionFromContext(ctx).(httpSession)
	if !ok || session.SessionID() != "" {
		return ctx
	}
	return s.mcp.WithContext(ctx, &requestSession{httpSession: session, id: rand.Text()})
}

// streamSession gives a message of an SSE client a session that knows when the
// client's stream ends.
func (g *guard) streamSession(ctx context.Context, _ *http.Request) context.Context {
	session, ok := mcpserver.ClientSessionFromContext(ctx).(sseSession)
	if !ok {
		return ctx
	}
	m := &messageSession{sseSession: session}
	m.done = g.streams.ended(session.SessionID())
	return g.server.mcp.WithContext(ctx, m)
}

// guard stands before mcp-go's handlers.
type guard struct {
	server   *Server
	config   HTTPConfig
	sessions *sessionIDs
	streams  *streams
	mcp      *mcpserver.StreamableHTTPServer
	sse      *mcpserver.SSEServer
}

// ServeHTTP implements [http.Handler].
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")

	if !g.hostAllowed(r.Host) {
		refuse(w, http.StatusForbidden, "this Host is not allowed")
		return
	}
	if !g.originAllowed(r.Header.Values("Origin")) {
		refuse(w, http.StatusForbidden, "this Origin is not allowed")
		return
	}
	if !g.authorized(r.Header.Values("Authorization")) {
		h.Set("WWW-Authenticate", `Bearer realm="enlist"`)
		refuse(w, http.StatusUnauthorized, "a bearer token is required in the Authorization header")
		return
	}
	next, methods := g.route(r.URL.Path)
	if next == nil {
		refuse(w, http.StatusNotFound, "no such route")
		return
	}
	if !slices.Contains(methods, r.Method) {
		h.Set("Allow", strings.Join(methods, ", "))
		refuse(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	if r.Method == http.MethodPost && !readBody(w, r) {
		return
	}
	if g.server.work.stopping() {
		h.Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "the server is being stopped")
		return
	}
	g.serve(next, w, r)
}

// route returns the handler of a path and the methods it has.
func (g *guard) route(path string) (next http.Handler, methods []string) {
	switch path {
	case mcpPath:
		return http.HandlerFunc(g.serveMCP), []string{http.MethodGet, http.MethodPost, http.MethodDelete}
	case ssePath:
		return http.HandlerFunc(g.serveSSE), []string{http.MethodGet}
	case messagePath:
		return http.HandlerFunc(g.serveMessage), []string{http.MethodPost}
	}
	return nil, nil
}

// serve runs a handler of mcp-go's on a writer that looks through what it writes.
func (g *guard) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	out := &writer{ResponseWriter: w, server: g.server, ctx: ctx}
	defer func() {
		p := recover()
		if p == nil {
			out.finish()
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint // a panic's value is compared as net/http does
			panic(p)
		}
		out.abandon(g.server.panicked(ctx, p, "where", r.URL.Path))
	}()
	next.ServeHTTP(out, r)
}

// serveMCP refuses a GET or DELETE of a session that does not exist: mcp-go
// begins it.
func (g *guard) serveMCP(w http.ResponseWriter, r *http.Request) {
	modern := mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion))
	if r.Method != http.MethodPost && !modern {
		if _, err := g.sessions.Validate(r.Header.Get(mcpserver.HeaderKeySessionID)); err != nil {
			refuse(w, http.StatusNotFound, "no such session")
			return
		}
	}
	switch {
	case r.Method == http.MethodPost && modern && r.Header.Get(mcp.HeaderMethod) == string(mcp.MethodSubscriptionsListen):
		var end func()
		r, end = g.server.listening(r)
		defer end()
	case r.Method == http.MethodPost:
		defer g.server.work.begin()()
	}
	g.mcp.ServeHTTP(w, r)
}

// serveSSE serves a stream, and remembers it for as long as it is there.
func (g *guard) serveSSE(w http.ResponseWriter, r *http.Request) {
	s := g.streams.begin()
	defer g.streams.end(s)
	if w, ok := w.(*writer); ok {
		w.stream = s
	}
	g.sse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
}

// serveMessage takes a message; what it asks for is answered on the stream.
func (g *guard) serveMessage(w http.ResponseWriter, r *http.Request) {
	if body, err := io.ReadAll(r.Body); err == nil {
		g.streams.asked(r.URL.Query().Get("sessionId"), body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	g.sse.ServeHTTP(w, r)
}

// hostAllowed keeps out a page whose own name was made to point here (DNS
// rebinding): its requests carry that name.
func (g *guard) hostAllowed(host string) bool {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	allowed := func(s string) bool { return strings.EqualFold(s, host) || strings.EqualFold(s, name) }
	return loopback(name) || slices.ContainsFunc(g.config.AllowedHosts, allowed)
}

// originAllowed keeps out the pages of other sites.
func (g *guard) originAllowed(origins []string) bool {
	switch len(origins) {
	case 0:
		return true
	case 1:
	default:
		return false
	}
	if slices.ContainsFunc(g.config.AllowedOrigins, func(s string) bool { return strings.EqualFold(s, origins[0]) }) {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && loopback(strings.ToLower(u.Hostname()))
}

// loopback reports whether a host name or address is this machine's own.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// authorized takes the token from one header and nowhere else: a URL ends up
// in logs and histories.
func (g *guard) authorized(values []string) bool {
	if len(values) != 1 {
		return false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	return g.config.Verify(strings.TrimSpace(token))
}

// readBody reads the body, which is bounded and JSON, and puts it back; or it
// answers, and returns false. A form or text/plain could come from any page
// without the browser asking first.
func readBody(w http.ResponseWriter, r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || r.Header.Get("Content-Encoding") != "" {
		refuse(w, http.StatusUnsupportedMediaType, "want Content-Type application/json, not encoded")
		return false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxMessage))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "message too long")
		return false
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body could not be read")
		return false
	case !utf8.Valid(body):
		refuse(w, http.StatusBadRequest, "want JSON in UTF-8")
		return false
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return true
}

// refuse answers with a JSON-RPC error that belongs to no request.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(protocolError(nil, mcp.INVALID_REQUEST, message)) // the client has gone
}
