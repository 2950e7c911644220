// Package gatewaytest runs a whole registration gateway inside a Go test: the
// real one, over HTTP and a real database in a temporary folder, with a clock
// that the test moves.
//
//	gw := gatewaytest.New(t)
//	resp, err := gw.Client().Post(gw.URL+"/api/v1/agents/request-invite", ...)
//	gw.Clock.Advance(time.Hour)
//
// It also remembers every secret that it issued, so that a test can look for
// them where none may be.
package gatewaytest

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Gateway is a gateway that ends with its test.
type Gateway struct {
	URL      string // without a slash at the end
	Database string // the path of the SQLite file, where there is one
	Clock    *Clock

	server  *httptest.Server
	cfg     embeddedgateway.Config
	running atomic.Pointer[embeddedgateway.Gateway]
	handler atomic.Pointer[http.Handler]

	record  *leakscan.Recorder
	mu      sync.Mutex
	secrets []string
}

// Option changes how the gateway runs.
type Option func(*embeddedgateway.Config, *Clock)

// Env sets the environment that the gateway sees. Without it nothing is set.
func Env(vars map[string]string) Option {
	return func(c *embeddedgateway.Config, _ *Clock) {
		c.Env = func(name string) string { return vars[name] }
	}
}

// Standalone gives the gateway the defaults of one that strangers reach.
func Standalone() Option {
	return func(c *embeddedgateway.Config, _ *Clock) { c.Standalone = true }
}

// TrustedProxies are believed in what they say of their clients' addresses.
func TrustedProxies(networks ...netip.Prefix) Option {
	return func(c *embeddedgateway.Config, _ *Clock) { c.TrustedProxies = networks }
}

// Strategies is what Lona's list answers.
func Strategies(list ...wire.LonaStrategy) Option {
	return func(c *embeddedgateway.Config, _ *Clock) { c.LonaStrategies = list }
}

// Logger gets what the gateway logs. Without it nobody does.
func Logger(l *slog.Logger) Option {
	return func(c *embeddedgateway.Config, _ *Clock) { c.Logger = l }
}

// At sets where the clock begins. Without it that is the real time, so that a
// client under test may go by its own clock.
func At(begin time.Time) Option {
	return func(_ *embeddedgateway.Config, c *Clock) { c.Set(begin) }
}

// PostgreSQL keeps everything in the database of a URL, as pgtest.URL makes one.
func PostgreSQL(url string) Option {
	return func(c *embeddedgateway.Config, _ *Clock) {
		c.Database = url
		c.ServerKey = bytes.Repeat([]byte{7}, 32)
	}
}

// SQLite keeps everything in a file, for a test that looks into it.
func SQLite() Option {
	return func(c *embeddedgateway.Config, _ *Clock) { c.Database, c.ServerKey = "", nil }
}

// ReplicaOf keeps everything where another gateway does, and goes by its clock.
func ReplicaOf(other *Gateway) Option {
	return func(c *embeddedgateway.Config, _ *Clock) {
		c.Database, c.ServerKey, c.Now = other.cfg.Database, other.cfg.ServerKey, other.Clock.Now
	}
}

// databaseVariable names the database that gateways of tests run on which do not
// choose one: "postgres", on a server of the test process; else SQLite.
const databaseVariable = "ENLIST_TEST_DATABASE"

// Config changes whatever else there is to change.
func Config(change func(*embeddedgateway.Config)) Option {
	return func(c *embeddedgateway.Config, _ *Clock) { change(c) }
}

// New starts a gateway. It ends the test if it cannot.
func New(t testing.TB, opts ...Option) *Gateway {
	t.Helper()
	g := &Gateway{
		Database: filepath.Join(t.TempDir(), "gateway.db"),
		Clock:    NewClock(time.Now()), //nolint:forbidigo // the clients under test may read the real clock
	}
	g.cfg = embeddedgateway.Config{Now: g.Clock.Now}
	if os.Getenv(databaseVariable) == "postgres" { //nolint:forbidigo // a test asks, not the program
		opts = append([]Option{PostgreSQL(pgtest.Ready(t))}, opts...)
	}
	for _, o := range opts {
		o(&g.cfg, g.Clock)
	}
	g.keepRecord(t)
	if g.cfg.Env != nil {
		for secret := range strings.SplitSeq(g.cfg.Env("AGENT_REGISTRATION_SECRET"), ",") {
			g.remember(strings.TrimSpace(secret))
		}
	}
	g.start(t)
	g.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*g.handler.Load()).ServeHTTP(w, r)
	}))
	g.URL = g.server.URL
	t.Cleanup(func() {
		g.server.Close()
		g.close(t)
	})
	return g
}

// keepRecord has what the gateway issues, logs and stores kept for the leak
// scan of the whole suite, where the environment asks for one.
func (g *Gateway) keepRecord(t testing.TB) {
	t.Helper()
	record, err := leakscan.New(os.Getenv(leakscan.Variable)) //nolint:forbidigo // a test asks, not the program
	if err != nil {
		t.Fatalf("record for the leak scan: %v", err)
	}
	g.record = record
	if record == nil {
		return
	}
	t.Cleanup(func() { // after the gateway has ended
		if err := record.Keep(t.Name(), filepath.Dir(g.Database)); err != nil {
			t.Errorf("record for the leak scan: %v", err)
		}
	})
	if g.cfg.Logger != nil {
		return
	}
	log, err := record.Output(t.Name() + "-log")
	if err != nil {
		t.Fatalf("record for the leak scan: %v", err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Errorf("record for the leak scan: %v", err)
		}
	})
	g.cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (g *Gateway) start(t testing.TB) {
	t.Helper()
	if g.cfg.Database == "" {
		g.cfg.Database = "sqlite:" + g.Database
	}
	gw, err := embeddedgateway.New(context.Background(), g.cfg)
	if err != nil {
		t.Fatalf("start the gateway: %v", err)
	}
	h := Record(gw.Handler(), g.remember)
	g.running.Store(gw)
	g.handler.Store(&h)
}

func (g *Gateway) close(t testing.TB) {
	t.Helper()
	if err := g.running.Load().Close(); err != nil {
		t.Errorf("close the gateway: %v", err)
	}
}

// Restart ends the gateway and starts it again on the same database and URL,
// with what the options change.
func (g *Gateway) Restart(t testing.TB, opts ...Option) {
	t.Helper()
	g.close(t)
	for _, o := range opts {
		o(&g.cfg, g.Clock)
	}
	g.start(t)
}

// Embedded returns the gateway itself.
func (g *Gateway) Embedded() *embeddedgateway.Gateway { return g.running.Load() }

// Bare opens the database without the gateway, for a test that looks into it or
// damages it.
func (g *Gateway) Bare(t testing.TB) *sql.DB {
	t.Helper()
	driver, in := "pgx", g.cfg.Database
	if path, ok := strings.CutPrefix(in, "sqlite:"); ok {
		driver, in = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, in)
	if err != nil {
		t.Fatalf("open the database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Client returns an HTTP client for the gateway. It follows no redirects.
func (g *Gateway) Client() *http.Client {
	c := *g.server.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// Audit returns the audit trail, the oldest event first.
func (g *Gateway) Audit(t testing.TB) []store.Event {
	t.Helper()
	events, err := g.running.Load().Audit(context.Background(), store.EventQuery{Limit: 1_000_000})
	if err != nil {
		t.Fatalf("read the audit trail: %v", err)
	}
	slices.Reverse(events)
	return events
}

// Outbox returns the letters that wait, the oldest first. The tokens in them
// count as issued.
func (g *Gateway) Outbox(t testing.TB) []embeddedgateway.Mail {
	t.Helper()
	list, err := g.running.Load().Outbox(context.Background())
	if err != nil {
		t.Fatalf("read the outbox: %v", err)
	}
	for _, m := range list {
		secretsIn("", m.Text, g.remember)
	}
	return list
}

// Secrets returns every secret that the gateway has issued or was configured
// with so far.
func (g *Gateway) Secrets() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.secrets)
}

// Issued remembers a secret that the gateway has issued by another way than an
// answer, as in a letter.
func (g *Gateway) Issued(secret string) { g.remember(secret) }

func (g *Gateway) remember(secret string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if secret != "" && !slices.Contains(g.secrets, secret) {
		g.secrets = append(g.secrets, secret)
		g.record.Issued(secret)
	}
}

// Clock is a clock that stands still until it is moved. It is safe for
// concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at a time.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set moves the clock to a time.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}
