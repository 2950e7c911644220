package embeddedgateway

import (
	"bufio"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Which requests get a line in the log.
const (
	AccessAll    = "all"
	AccessErrors = "errors" // answers of 500 and above
	AccessOff    = "off"
)

// observed is the writer of an answer that is counted and logged. Who handles the
// request notes on it whose it is.
type observed struct {
	http.ResponseWriter
	id       string // of the request
	status   int
	protocol string
	agent    string
	keyID    string

	of       *Gateway
	hijacked bool
}

// WriteHeader implements [http.ResponseWriter].
func (o *observed) WriteHeader(status int) {
	if o.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		o.status = status
		o.leave(status)
	}
	o.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (o *observed) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
		o.leave(o.status)
	}
	return o.ResponseWriter.Write(b)
}

// leave has the client leave the connection with this answer, if the gateway is
// about to end: what it sends as that is closed would be lost.
func (o *observed) leave(status int) {
	if o.of.draining.Load() && status != http.StatusSwitchingProtocols {
		o.Header()["Connection"] = []string{"close"} // over HTTP/2 it is GOAWAY
	}
}

// Hijack implements [http.Hijacker]: whoever takes the connection over speaks
// another protocol on it.
func (o *observed) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(o.ResponseWriter).Hijack()
	if err != nil {
		return conn, rw, err
	}
	if !o.hijacked {
		o.hijacked = true
		o.of.taken.add(1)
	}
	if o.status == 0 {
		o.status = http.StatusSwitchingProtocols
	}
	return conn, rw, nil
}

// Unwrap is for [http.ResponseController].
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// noteCaller says whose request it is that w answers, for the log. What is
// unknown is "". It does nothing where nobody observes.
func noteCaller(w http.ResponseWriter, protocol, agent, keyID string) {
	for {
		switch v := w.(type) {
		case *observed:
			v.protocol, v.agent, v.keyID = protocol, agent, keyID
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return
		}
	}
}

// observer stands around all handlers of a gateway: it gives each request its id,
// counts it, and logs it.
type observer struct {
	*Gateway
	next http.Handler
}

// ServeHTTP implements [http.Handler].
func (o *observer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := o.cfg.Now()
	seen := &observed{ResponseWriter: w, id: o.requestID(r), of: o.Gateway}
	w.Header()[requestIDHeader] = []string{seen.id}
	o.metrics.inFlight.Add(1)
	defer o.over(seen, r, began) // a handler may panic to cut the answer off
	o.next.ServeHTTP(seen, r)
}

// over is what is done when a request is.
func (o *observer) over(seen *observed, r *http.Request, began time.Time) {
	o.metrics.inFlight.Add(-1)
	if seen.hijacked {
		o.taken.add(-1)
	}
	took := o.cfg.Now().Sub(began)
	status := seen.status
	if status == 0 {
		status = http.StatusOK // what net/http sends where nobody said anything
	}
	at := o.metrics.routeOf(r.Pattern)
	at.count(r.Method, status)
	at.took.Observe(took.Seconds())
	if o.cfg.AccessLog == AccessAll || o.cfg.AccessLog == AccessErrors && status >= http.StatusInternalServerError {
		o.logAccess(seen, r, at, status, took)
	}
}

// logAccess writes a request down: by the pattern of its route, never by its path,
// in which a token may stand.
func (o *observer) logAccess(seen *observed, r *http.Request, at *routeMetrics, status int, took time.Duration) {
	level := slog.LevelInfo
	if status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("request_id", seen.id),
		slog.String("protocol", first(seen.protocol, at.protocol)),
		slog.String("method", methodLabel(r.Method)),
		slog.String("route", at.route),
		slog.Int("status", status),
		slog.Duration("duration", took),
		slog.String("agent", wire.Mask(seen.agent)),
		slog.String("key_id", seen.keyID),
		slog.String("client_ip", clientIP(r, o.cfg.TrustedProxies).String()),
	}
	kept := attrs[:0]
	for _, a := range attrs {
		if a.Value.Kind() != slog.KindString || a.Value.String() != "" {
			kept = append(kept, a)
		}
	}
	o.cfg.Logger.LogAttrs(r.Context(), level, "request", kept...)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
