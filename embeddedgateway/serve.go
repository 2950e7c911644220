package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	maxBody     = 64 << 10
	requestTime = 10 * time.Second // one request, from its first byte of body to its answer
	auditTime   = 5 * time.Second  // one event of the audit trail, when the client is gone

	htmlType = "text/html; charset=utf-8"
)

// router finds the endpoint of a path. It never redirects and never answers
// with HTML.
type router struct {
	mux    *http.ServeMux
	verify verifier
}

// newRouter puts the routes of all protocols side by side. Two protocols that
// claim one path are a fault of this program, found by the tests.
func newRouter(g *Gateway, served []protocol) *router {
	mux := http.NewServeMux()
	mux.Handle("/", g.proxy)
	mux.HandleFunc(healthPath, health)
	mux.HandleFunc(readyPath, g.readiness)
	g.metrics.route(keyring{}.name(), verifyPath)
	if g.proxy.to != nil {
		g.metrics.route("upstream", "/")
	}
	for _, p := range served {
		at := map[string]*endpoint{}
		claim := func(path string) *endpoint {
			if at[path] == nil {
				at[path] = &endpoint{Gateway: g, protocol: p}
				mux.Handle(path, at[path])
				g.metrics.route(p.name(), path)
			}
			return at[path]
		}
		for _, r := range p.routes() {
			e := claim(r.path)
			if r.method != "" {
				e.routes = append(e.routes, r)
				g.metrics.registrar(p.name(), r)
				continue
			}
			// Without this ServeMux would redirect from the path itself.
			claim(strings.TrimSuffix(r.path, "/"))
		}
	}
	return &router{mux, verifier{g.front}}
}

// ServeHTTP implements [http.Handler].
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	given := r.URL.EscapedPath()
	clean := path.Clean("/" + given)
	if strings.HasSuffix(given, "/") && clean != "/" {
		clean += "/"
	}
	switch {
	case r.Method == http.MethodConnect:
		unclaimed(w, r)
	case rt.verify.claims(given):
		r.Pattern = verifyPath
		rt.verify.ServeHTTP(w, r)
	case given == clean:
		rt.mux.ServeHTTP(w, r)
	default:
		// ServeMux would redirect. Nobody has reason to send such a path.
		to := r.Clone(r.Context())
		to.URL.Path, to.URL.RawPath = path.Clean("/"+r.URL.Path), ""
		h, _ := rt.mux.Handler(to)
		if e, ok := h.(*endpoint); ok {
			h = &endpoint{Gateway: e.Gateway, protocol: e.protocol}
		}
		h.ServeHTTP(w, r)
	}
}

// unclaimed answers where no protocol does.
func unclaimed(w http.ResponseWriter, _ *http.Request) {
	p := notFound()
	reply(w, p.kind.status(), []byte(`{"error":{"code":"not_found","message":"`+p.message+`"}}`))
}

// endpoint is everything that is done around the routes of one path.
type endpoint struct {
	*Gateway
	protocol protocol
	routes   []route // none: there is nothing at the path
}

// call is one request to a route.
type call struct {
	*http.Request
	protocol string
	store    *store.Store
	ip       netip.Addr // the client's
	body     []byte

	// Whom the request is about, as far as it is known: for the audit trail.
	agent, keyID string

	registers bool // see [route]
}

// ServeHTTP implements [http.Handler].
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	c := &call{Request: r, protocol: e.protocol.name(), store: e.store, ip: clientIP(r, e.cfg.TrustedProxies)}
	a, err := e.try(ctx, w, c)
	noteCaller(w, c.protocol, c.agent, c.keyID)
	if err == nil {
		e.metrics.registration(c, a.status)
		copyHeader(w.Header(), a.header)
		reply(w, a.status, a.body)
		return
	}
	p := e.judge(ctx, c, err)
	if !p.kind.fault() {
		e.refused(ctx, c, p)
	}
	status, refusal := e.protocol.refuse(p)
	e.metrics.registration(c, status)
	body, err := json.Marshal(refusal)
	if err != nil {
		e.cfg.Logger.ErrorContext(ctx, "a refusal cannot be encoded", "protocol", c.protocol, "error", err)
	}
	copyHeader(w.Header(), p.header)
	if p.page != nil {
		w.Header().Set("Content-Type", htmlType)
		body = p.page
	}
	if p.allow != "" {
		w.Header().Set("Allow", p.allow)
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.seconds()))
	}
	reply(w, status, body)
}

// panicked is a panic as an error.
type panicked struct {
	value any
	stack []byte
}

// Error implements error.
func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// encoded is an answer as it goes out.
type encoded struct {
	status int
	header http.Header
	body   []byte // nil: none
}

// try answers the request. Nothing is written to w yet; a panic is an error.
func (e *endpoint) try(ctx context.Context, w http.ResponseWriter, c *call) (_ encoded, err error) {
	defer func() {
		if v := recover(); v != nil {
			if abort, ok := v.(error); ok && errors.Is(abort, http.ErrAbortHandler) { // the connection is to end without an answer
				panic(v)
			}
			err = &panicked{value: v, stack: debug.Stack()}
		}
	}()
	r, err := e.route(c.Method)
	if err != nil {
		return encoded{}, err
	}
	c.registers = r.registers
	if r.before != nil {
		if err := r.before(ctx, c); err != nil {
			return encoded{}, err
		}
	}
	if r.takes != nil {
		if c.body, err = readBody(w, c.Request); err != nil {
			return encoded{}, err
		}
	}
	out, err := r.answer(ctx, c)
	if err != nil {
		return encoded{}, err
	}
	return encode(r.status, out)
}

// encode turns what a route answers into what goes out.
func encode(status int, out any) (encoded, error) {
	e := encoded{status: status}
	if a, ok := out.(answered); ok {
		e.header, out = a.header, a.body
		if a.status != 0 {
			e.status = a.status
		}
	}
	switch body := out.(type) {
	case nil:
		return e, nil
	case page:
		e.header = e.header.Clone()
		if e.header == nil {
			e.header = http.Header{}
		}
		e.header.Set("Content-Type", htmlType)
		e.body = body
		return e, nil
	}
	body, err := json.Marshal(out)
	if err != nil {
		return encoded{}, fmt.Errorf("encode the answer: %w", err)
	}
	e.body = body
	return e, nil
}

// copyHeader sets what from holds.
func copyHeader(to, from http.Header) {
	for name, values := range from {
		to[http.CanonicalHeaderKey(name)] = values
	}
}

// route finds the route of a method.
func (e *endpoint) route(method string) (route, error) {
	if len(e.routes) == 0 {
		return route{}, notFound()
	}
	var allowed []string
	for _, r := range e.routes {
		if r.method == method || r.method == http.MethodGet && method == http.MethodHead {
			return r, nil
		}
		allowed = append(allowed, r.method)
		if r.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	return route{}, methodNotAllowed(strings.Join(allowed, ", "))
}

// readBody returns the body of a request that says it is JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, mediaType()
	}
	name, params, err := mime.ParseMediaType(types[0])
	charset, given := params["charset"]
	if err != nil || name != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return nil, mediaType()
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge(maxBody)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, tooLarge(maxBody)
	}
	if err != nil {
		return nil, invalid("the body could not be read to its end")
	}
	return body, nil
}

// judge says what problem an error is. What is not a refusal is the gateway's
// fault: it is logged under an id, and the client learns the id only.
func (e *endpoint) judge(ctx context.Context, c *call, err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if ctx.Err() != nil || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrUnavailable) {
		level := slog.LevelWarn
		if c.Context().Err() != nil { // the client has left: nothing is wrong here
			level = slog.LevelDebug
		}
		e.cfg.Logger.Log(ctx, level, "a request was given up", "protocol", c.protocol, "path", c.Pattern, "error", wire.Mask(err.Error()))
		return unavailable()
	}
	id := fmt.Sprintf("%x-%d", e.boot, e.faults.Add(1))
	attrs := []any{"id", id, "protocol", c.protocol, "method", c.Method, "path", c.Pattern, "error", wire.Mask(err.Error())}
	if p, ok := errors.AsType[*panicked](err); ok {
		attrs = append(attrs, "stack", wire.Mask(string(p.stack)))
	}
	e.cfg.Logger.ErrorContext(ctx, "internal error", attrs...)
	return internal(id)
}

// refused puts a refusal into the audit trail, also when the client has left.
func (e *endpoint) refused(ctx context.Context, c *call, p *problem) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	e.metrics.refusals.WithLabelValues(c.protocol, p.event()).Inc()
	event := c.event("refused:" + p.event())
	event.Refusal = true
	// A network, because refusals are counted together by their IP: one
	// customer's 2^64 addresses must not be as many events.
	if at := network(c.ip); at != event.IP {
		event.IP, event.Detail = at, event.IP
	}
	err := e.store.TxEach(ctx, func(tx *store.Tx) error { return tx.Audit(event) })
	if err != nil {
		e.cfg.Logger.ErrorContext(ctx, "a refusal could not be put into the audit trail",
			"event", event.Name, "protocol", c.protocol, "client_ip", event.IP, "error", err)
	}
}

// event is an event of the audit trail about the call. The store gives it its
// time.
func (c *call) event(name string) store.Event {
	return store.Event{Protocol: c.protocol, Name: name, Agent: wire.Mask(c.agent), KeyID: c.keyID, IP: c.ip.String()}
}

// spend counts the call against limits that go by the client's address: all of
// them or, where one is used up, none. What comes of the call is not on the disk
// without the count.
func (c *call) spend(ctx context.Context, ls ...limit) error {
	if len(ls) == 0 {
		return nil
	}
	return c.store.TxEachPassing(ctx, func(tx *store.Tx) error {
		for _, l := range ls {
			if err := c.count(tx, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// sent returns the value of a header, or "" where there is none or more than
// one: which of them would count is anybody's guess.
func (c *call) sent(header string) string {
	values := c.Header.Values(header)
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// bearer returns the token of an Authorization header, or "".
func (c *call) bearer() string {
	scheme, token, _ := strings.Cut(c.sent("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimLeft(token, " ")
}

// basic returns the two parts of an Authorization header with a name and a
// password (RFC 7617), or false.
func (c *call) basic() (user, password string, ok bool) {
	if len(c.Header.Values("Authorization")) != 1 {
		return "", "", false
	}
	return c.BasicAuth()
}

// reply writes an answer, without a body where that is nil. What a protocol
// answers may hold a secret, so no cache keeps any of it unless it says otherwise.
func reply(w http.ResponseWriter, status int, body []byte) {
	h, values := w.Header(), []string{"no-store", "application/json", "nosniff"} // one allocation, not three
	if h.Get("Cache-Control") == "" {
		h["Cache-Control"] = values[0:1:1]
	}
	if body != nil && h.Get("Content-Type") == "" {
		h["Content-Type"] = values[1:2:2]
	}
	h["X-Content-Type-Options"] = values[2:3:3]
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
