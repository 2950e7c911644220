package embeddedgateway

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	requestIDHeader = "X-Request-Id"
	requestIDName   = "x-request-id" // for sameName
	maxRequestID    = 128

	frontMaxBody = 10 << 20         // where Front.MaxBody is 0
	frontTimeout = 30 * time.Second // where Front.Timeout is 0
	frontMaxOpen = 256              // where Front.MaxOpen is 0

	dialTime = 5 * time.Second
	// poolTime is how long a connection to the API stays open that is not used:
	// less than the 5 seconds after which Node.js closes one, perhaps just as a
	// request comes that cannot be repeated.
	poolTime = 4 * time.Second
	maxPool  = 1024 // connections to the API that are not used

	copyBuffer = 32 << 10
)

// proxy passes requests on to the API behind the gateway, or answers that there
// is nothing where none is set.
type proxy struct {
	*Gateway
	to        *url.URL // nil: nothing is behind the gateway
	transport *http.Transport
	maxBody   int64
	maxOpen   int // less than 1: any number
	timeout   time.Duration
	stall     time.Duration // how long a client may take to receive a part of an answer
	buffers   *buffers
	errors    *log.Logger

	mu       sync.Mutex
	streams  map[*exchange]bool // all that are under way
	open     map[int64]int      // how many of each agent
	draining bool               // nothing that lasts may begin
	closed   bool               // nothing may
	ended    sync.WaitGroup
	checking sync.Mutex // one look at all of them at a time
}

// newProxy makes the proxy of a gateway.
func newProxy(g *Gateway) *proxy {
	p := &proxy{Gateway: g, streams: map[*exchange]bool{}, open: map[int64]int{}}
	if g.cfg.Front == nil || g.cfg.Front.Upstream == nil {
		return p
	}
	to := *g.cfg.Front.Upstream
	if to.Path != "" && to.Path[0] != '/' { // as of URL.JoinPath
		to.Path, to.RawPath = "/"+to.Path, ""
	}
	p.to = &to
	p.maxBody, p.timeout, p.stall = g.cfg.Front.MaxBody, g.cfg.Front.Timeout, writeTime
	if p.maxOpen = g.cfg.Front.MaxOpen; p.maxOpen == 0 {
		p.maxOpen = frontMaxOpen
	}
	if p.maxBody == 0 {
		p.maxBody = frontMaxBody
	}
	if p.timeout == 0 {
		p.timeout = frontTimeout
	}
	p.transport = &http.Transport{
		TLSClientConfig:        g.cfg.Front.TLS,
		DialContext:            (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout:    dialTime,
		MaxIdleConnsPerHost:    maxPool,
		IdleConnTimeout:        poolTime,
		DisableCompression:     true, // what the client accepts is its own to say
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
		WriteBufferSize:        8 << 10,
		ReadBufferSize:         8 << 10,
	}
	p.buffers = &buffers{sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}}
	p.errors = slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug)
	return p
}

// check reports what is wrong with what is to stand behind the gateway.
func (f *Front) check() error {
	if f == nil {
		return nil
	}
	errs := []error{f.AgentLimit.check("limits.agent"), f.KeyLimit.check("limits.key")}
	if u := f.Upstream; u != nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "") {
		// Not the value: it may hold a user's password.
		errs = append(errs, errors.New("upstream.url: this is not the base URL of an API: "+
			"want such as http://127.0.0.1:3000, without a user, a query and a fragment"))
	}
	if err := CheckOrigins(f.Origins); err != nil {
		errs = append(errs, fmt.Errorf("upstream.origins: %w", err))
	}
	if f.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("upstream.max_body: a body cannot have less than 0 bytes, got %d", f.MaxBody))
	}
	if f.Timeout < 0 {
		errs = append(errs, fmt.Errorf("upstream.timeout: want a time such as 30s, got %s", f.Timeout))
	}
	return errors.Join(errs...)
}

// ServeHTTP implements [http.Handler].
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := rawPath(r)
	if p.to == nil || reservedPath(path) {
		unclaimed(w, r)
		return
	}
	x := &exchange{proxy: p, ResponseWriter: w, in: r, id: w.Header().Get(requestIDHeader)}
	admitted, err := p.admit(r, target{method: r.Method, path: path})
	if err != nil {
		x.refused(r.Context(), err)
		return
	}
	x.admission = admitted
	noteCaller(w, admitted.caller.Protocol, admitted.caller.Agent, admitted.caller.KeyID)
	x.serve(r.Context())
}

// admit is [front.admit] in a bounded time.
func (p *proxy) admit(r *http.Request, t target) (admission, error) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	if p.cfg.Front.Preflights && p.front.isPreflight(r) {
		return p.front.admitPreflight(ctx, r, t)
	}
	return p.front.admit(ctx, r, t)
}

// reservedPath reports whether a path is the gateway's own, whatever is behind it.
func reservedPath(path string) bool {
	switch path {
	case "/healthz", "/readyz", "/.enlist", "/.well-known/jwks.json":
		return true
	}
	return strings.HasPrefix(path, "/.enlist/")
}

// rawPath is the path of a request as it was sent.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath() // of an absolute URL, or of a request that no server read
}

// requestID is the id that a trusted proxy gave the request, or a new one.
func (g *Gateway) requestID(r *http.Request) string {
	if given := r.Header[requestIDHeader]; len(given) == 1 && plainRequestID(given[0]) && g.trusts(r) {
		return given[0]
	}
	// Nobody gains by guessing it, and every request has one: so it does not ask
	// the system for its bits, which on some is a call of the kernel.
	var id [16]byte
	for half := range 2 {
		binary.BigEndian.PutUint64(id[8*half:], rand.Uint64()) //nolint:gosec // see above
	}
	return base32.StdEncoding.EncodeToString(id[:])[:26] // without what fills it up
}

// trusts reports whether a request comes from a proxy that is believed.
func (g *Gateway) trusts(r *http.Request) bool {
	ip, ok := parseIP(r.RemoteAddr)
	return ok && isTrusted(ip, g.cfg.TrustedProxies)
}

// plainRequestID reports whether an id may be put into headers and logs.
func plainRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if !unreserved(id[i]) && strings.IndexByte("+/=:@", id[i]) < 0 {
			return false
		}
	}
	return wire.Mask(id) == id
}

// logged puts a request into the log, without what a client may have hidden in
// its query.
func (p *proxy) logged(ctx context.Context, x *exchange, status int) {
	if !p.cfg.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	p.cfg.Logger.DebugContext(ctx, "request to the API", "request_id", x.id, "method", x.in.Method,
		"path", wire.Mask(x.in.URL.Path), "status", status, "agent", x.admission.name(), "key_id", x.admission.caller.KeyID)
}

// buffers are what answers are copied with.
type buffers struct{ pool sync.Pool }

// Get implements [httputil.BufferPool].
func (b *buffers) Get() []byte { return *b.pool.Get().(*[]byte) }

// Put implements [httputil.BufferPool].
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }

var _ httputil.BufferPool = (*buffers)(nil)
