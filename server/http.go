package server

import (
	"bytes"
	"cmp"
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
	// Verify returns whose a bearer token is, if it is good, in constant time.
	// Every request must carry one in its Authorization header. Required.
	Verify func(token string) (Principal, bool)
	// Good reports whether a token that was good still is: it may have expired or
	// been revoked. Its sessions, streams and calls end when it is not. nil: tokens
	// are good for as long as the server runs.
	Good func(Principal) bool
	// Tick is the clock by which Good is asked; nil: every second.
	Tick func() (ticks <-chan time.Time, stop func())
	// HostAllowed reports whether a host name, without a port, is accepted beside
	// those of AllowedHosts; nil: none is.
	HostAllowed func(name string) bool
	// AllowedHosts are the values of Host that are accepted beside those of
	// the loopback interface: a name, or a name with a port.
	AllowedHosts []string
	// AllowedOrigins are the values of Origin that are accepted beside those
	// of the loopback interface: "https://app.example.com". A request without
	// an Origin does not come from a web page.
	AllowedOrigins []string
	// IdleTTL is how long a session is kept that nobody uses; 0: 30 minutes.
	IdleTTL time.Duration
	// MaxSessions is how many sessions there may be at once, of both transports,
	// and MaxSessionsEach how many of them with one token; 0: 2000 and 1500.
	MaxSessions, MaxSessionsEach int
	// MaxRequests is how many requests the sessions that there are may have made
	// together before the one with the most has to begin anew; 0: 100,000.
	MaxRequests int64
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
	c.IdleTTL = cmp.Or(c.IdleTTL, idleTTL)
	g := &guard{
		server: s, config: c, sessions: newSessions(cmp.Or(c.MaxRequests, maxRequests)), streams: newStreams(s.work),
		guests: newGuests(cmp.Or(c.MaxSessions, maxSessions), cmp.Or(c.MaxSessionsEach, maxSessionsEach)),
	}
	g.events = newEvents(sessionEvents, allEvents, g.sessions.alive)
	g.mcp = mcpserver.NewStreamableHTTPServer(s.mcp,
		// A session id that was not given out, or whose session has ended, is
		// refused, and what a session holds is dropped when nobody uses it.
		mcpserver.WithSessionIdManagerResolver(g.sessions),
		mcpserver.WithSessionIdleTTL(c.IdleTTL),
		mcpserver.WithHeartbeatInterval(heartbeat),
		// Without it a notification is lost when its call returns at once.
		mcpserver.WithEventStore(g.events),
		mcpserver.WithHTTPContextFunc(g.requestSession),
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
	watching, rest := context.WithCancel(context.Background())
	if c.Good != nil {
		ticks, stop := g.ticks()
		go func() {
			defer stop()
			g.watch(watching, ticks)
		}()
	}
	s.mu.Lock()
	s.ends = append(s.ends, func(ctx context.Context) {
		rest()
		_ = g.mcp.Shutdown(ctx) // it has no http.Server that could fail
		g.sse.CloseSessions()
	})
	s.mu.Unlock()
	s.Start(context.Background())
	return g, nil
}

// requestSession gives a request without a session, and a call, a session of its
// own, and begins the answer to a call that can be resumed.
func (g *guard) requestSession(ctx context.Context, r *http.Request) context.Context {
	session, ok := mcpserver.ClientSessionFromContext(ctx).(httpSession)
	if !ok {
		return ctx
	}
	if session.SessionID() != "" {
		p, ok := ctx.Value(postedKey{}).(*posted)
		if !ok || !p.call {
			return ctx
		}
		g.announce(p, session, r.Header)
		return g.telling(ctx, session, p)
	}
	return g.server.mcp.WithContext(ctx, &requestSession{httpSession: session, id: rand.Text()})
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
	guests   *guests
	sessions *sessions
	events   *events
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
	who, ok := g.authorized(r.Header.Values("Authorization"))
	if !ok {
		h.Set("WWW-Authenticate", `Bearer realm="enlist"`)
		refuse(w, http.StatusUnauthorized, "a bearer token is required in the Authorization header: one that has neither expired nor been revoked")
		return
	}
	ctx, leave, err := g.guests.enter(r.Context(), who)
	if err != nil {
		refuseForNow(w, err)
		return
	}
	defer leave()
	g.serveGuest(w, r.WithContext(ctx))
}

// serveGuest serves a request that came with a token.
func (g *guard) serveGuest(w http.ResponseWriter, r *http.Request) {
	next, methods := g.route(r.URL.Path)
	if next == nil {
		refuse(w, http.StatusNotFound, "no such route")
		return
	}
	if !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		refuse(w, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	if r.Method == http.MethodPost && !readBody(w, r) {
		return
	}
	if g.server.work.stopping() && !g.resumes(r) {
		w.Header().Set("Retry-After", "5")
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

// hostAllowed keeps out a page whose own name was made to point here (DNS
// rebinding): its requests carry that name.
func (g *guard) hostAllowed(host string) bool {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	allowed := func(s string) bool { return strings.EqualFold(s, host) || strings.EqualFold(s, name) }
	if g.config.HostAllowed != nil && name != "" && g.config.HostAllowed(name) {
		return true
	}
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
func (g *guard) authorized(values []string) (Principal, bool) {
	if len(values) != 1 {
		return Principal{}, false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Principal{}, false
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
	case batch(body):
		refuse(w, http.StatusBadRequest, noBatches)
		return false
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return true
}

// refuseForNow answers one who may come again.
func refuseForNow(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, errMany) {
		status = http.StatusTooManyRequests
	}
	w.Header().Set("Retry-After", "30")
	refuse(w, status, err.Error())
}

// refuse answers with a JSON-RPC error that belongs to no request.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(protocolError(nil, mcp.INVALID_REQUEST, message)) // the client has gone
}
