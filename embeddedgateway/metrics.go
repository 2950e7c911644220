package embeddedgateway

import (
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// noRoute is how requests are labelled whose path nobody claims: the path itself
// would make as many labels as strangers like.
const noRoute = "none"

// metrics is what a gateway counts. The values of all labels are words of this
// program: never an agent, a path, a key or an address.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	inFlight atomic.Int64
	refusals *prometheus.CounterVec
	events   *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	mail     *prometheus.CounterVec
	upstream *prometheus.CounterVec
	pruned   *prometheus.CounterVec

	registrations *prometheus.CounterVec

	routes map[string]*routeMetrics // by pattern; not written to any more when the gateway serves
	none   *routeMetrics
}

// counter is a counter of the gateway, by labels.
func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func newMetrics() *metrics {
	m := &metrics{
		requests: counter("enlist_http_requests_total", "Requests that were answered.", "protocol", "route", "method", "status"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "enlist_http_request_duration_seconds", Help: "How long answering took.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"protocol", "route"}),
		refusals: counter("enlist_refusals_total", "Requests that were refused, by the code of the refusal.", "protocol", "code"),
		events:   counter("enlist_events_total", "What the audit trail was told of, but for refusals.", "protocol", "event"),
		tokens:   counter("enlist_jwt_verifications_total", "JSON Web Tokens that were presented.", "protocol", "result"),
		mail:     counter("enlist_mail_total", "Letters that left the outbox, or failed to.", "result"),
		upstream: counter("enlist_upstream_errors_total", "Requests that got no answer of the API behind the gateway.", "reason"),
		pruned:   counter("enlist_pruned_rows_total", "Rows that were deleted because their time was over.", "table"),
		routes:   map[string]*routeMetrics{},

		registrations: counter("enlist_registrations_total", "Registrations, by what came of them.", "protocol", "outcome"),
	}
	m.none = m.route(noRoute, noRoute)
	return m
}

// routeMetrics counts the requests of one route.
type routeMetrics struct {
	protocol, route string
	took            prometheus.Observer
	requests        *prometheus.CounterVec
	counts          [methods][5]atomic.Pointer[prometheus.Counter] // by method and class of status
}

// route adds a route.
func (m *metrics) route(protocol, pattern string) *routeMetrics {
	at := &routeMetrics{
		protocol: protocol, route: pattern, requests: m.requests, took: m.took.WithLabelValues(protocol, pattern),
	}
	m.routes[pattern] = at
	return at
}

// routeOf returns the route that answered.
func (m *metrics) routeOf(pattern string) *routeMetrics {
	if at, ok := m.routes[pattern]; ok {
		return at
	}
	return m.none
}

// methods is how many methods are told apart, with one for all others.
const methods = 8

func methodIndex(method string) int {
	switch method {
	case http.MethodGet:
		return 0
	case http.MethodPost:
		return 1
	case http.MethodHead:
		return 2
	case http.MethodPut:
		return 3
	case http.MethodPatch:
		return 4
	case http.MethodDelete:
		return 5
	case http.MethodOptions:
		return 6
	}
	return methods - 1
}

// methodLabel is a method as it is counted and logged: a stranger can invent any.
func methodLabel(method string) string {
	if methodIndex(method) == methods-1 {
		return "other"
	}
	return method
}

// count counts a request. Which counter that is is looked up once.
func (at *routeMetrics) count(method string, status int) {
	m, class := methodIndex(method), min(max(status/100, 1), 5)
	slot := &at.counts[m][class-1]
	c := slot.Load()
	if c == nil {
		found := at.requests.WithLabelValues(at.protocol, at.route, methodLabel(method), strconv.Itoa(class)+"xx")
		c = &found
		slot.Store(c)
	}
	(*c).Inc()
}

// What comes of a registration.
const (
	outcomeRegistered = "registered"
	outcomeRefused    = "refused"
	outcomeLimited    = "limited" // refused for a limit's sake
	outcomeFailed     = "failed"  // by the gateway's fault, or the database's
)

// registrar has the outcomes of a route that registers there from the start, at
// zero: else the first of each would be no increase.
func (m *metrics) registrar(protocol string, r route) {
	if !r.registers {
		return
	}
	for _, outcome := range []string{outcomeRegistered, outcomeRefused, outcomeLimited, outcomeFailed} {
		m.registrations.WithLabelValues(protocol, outcome)
	}
}

// registration counts a call that was to register, by the status it was answered
// with.
func (m *metrics) registration(c *call, status int) {
	if !c.registers {
		return
	}
	outcome := outcomeRegistered
	switch {
	case status == http.StatusTooManyRequests:
		outcome = outcomeLimited
	case status >= http.StatusInternalServerError:
		outcome = outcomeFailed
	case status >= http.StatusBadRequest:
		outcome = outcomeRefused
	}
	m.registrations.WithLabelValues(c.protocol, outcome).Inc()
}

// audited counts an event that is in the database.
func (m *metrics) audited(e store.Event) {
	if !e.Refusal {
		m.events.WithLabelValues(e.Protocol, e.Name).Inc()
	}
}

// token counts a JSON Web Token that was presented.
func (m *metrics) token(protocol string, err error) {
	result := "good"
	switch {
	case errors.Is(err, errBadToken):
		result = "refused"
	case err != nil:
		result = "failed"
	}
	m.tokens.WithLabelValues(protocol, result).Inc()
}

// Metrics returns a handler of what the gateway counts, for Prometheus. It says
// nothing of any agent, but how much there is to do: it is for the operator only.
func (g *Gateway) Metrics() http.Handler {
	registry := prometheus.NewRegistry()
	m := g.metrics
	registry.MustRegister(
		m.requests, m.took, m.refusals, m.events, m.tokens, m.mail, m.upstream, m.pruned, m.registrations,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "enlist_http_requests_in_flight", Help: "Requests that are being answered.",
		}, func() float64 { return float64(m.inFlight.Load()) }),
		&scraped{g},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
}
