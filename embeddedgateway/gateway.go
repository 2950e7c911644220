// Package embeddedgateway is the server half: a gateway that registers agents
// by the protocols of the services that do so, over a database of its own.
//
// The same [Gateway] runs alone, inside another program, and inside a Go test
// (package gatewaytest). [Gateway.Handler] is an ordinary http.Handler;
// [Gateway.Serve] runs it on a listener, [Gateway.DialContext] without one.
//
// # What is shared, and what a protocol brings
//
// A protocol is one file: its routes, what they do, and what its refusals look
// like on the wire. Everything that must hold for every route is done once,
// around all of them, in serve.go: methods, content types, size, strict JSON,
// the client's address, rate limits, the audit trail, panics, the headers that
// keep secrets out of caches. So a protocol cannot forget it.
//
// # Secrets
//
// A secret is made of 256 random bits, returned once, and stored as a hash
// only. What must be read again (mail that waits, the keys that tokens are
// signed with) is encrypted under the server key, which is not in the database. None is ever logged, audited or put into an error, neither those that
// the gateway issued nor what a client sent in the place of one.
//
// # Answers that are lost
//
// A secret that is returned once may never arrive. So where a client has nothing
// else to show who it is by (registering at Lona, Lithtrix and Fluxra, rotating at
// Lithtrix) it may name its attempt in the header Idempotency-Key. The same key
// for the same agent within 24 hours, as long as nothing else was issued to the
// agent, ends the secret that was lost and issues another; stored of the key is a
// MAC. It is Enlist's choice: without the header everything is as the services
// publish it.
package embeddedgateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Config says how a [Gateway] runs. Database and Now are required.
type Config struct {
	// Database is where everything is kept: "sqlite:PATH", or the URL of a
	// PostgreSQL database, "postgres://USER@HOST/DATABASE", which may hold a
	// password. Any number of gateways may share one.
	Database string
	// Protocols names the protocols to serve; none: all of them.
	Protocols []string
	// Env returns the value of a variable of the environment, or "". Each
	// protocol reads its own. Nil: nothing is set.
	Env func(string) string
	// Standalone says that strangers reach the gateway, as they do where it
	// runs on its own. Defaults are then the careful ones: Lona's
	// AGENT_INVITE_REBIND is proof, not open.
	Standalone bool
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// ServerKey is what codes, signing keys and mail that waits are kept under:
	// 32 bytes, see [ParseServerKey]. Nil: a key in a file beside a SQLite database,
	// which is made with it. With PostgreSQL it must be given.
	ServerKey []byte
	// PublicURL is the base URL that the gateway is reached at from outside: it
	// is in the links that it sends and in the tokens that it signs. "": [Origin].
	PublicURL string
	// SMTPURL is the mail server that letters go out by, as [SMTPForm] says; it
	// holds a password. "": none, and they lie in the outbox until they expire.
	SMTPURL string
	// SMTPTLS is what TLS with the mail server begins from, for certificates of
	// an authority of one's own. Nil: what the system trusts.
	SMTPTLS *tls.Config
	// LonaStrategies is what Lona's list of strategies answers.
	LonaStrategies []wire.LonaStrategy
	// Now is the clock of everything that expires.
	Now func() time.Time
	// Rand is where secrets come from. Nil: crypto/rand.
	Rand io.Reader
	// Logger gets what an operator should know. Nil: nobody does.
	Logger *slog.Logger
	// Front is what stands behind the gateway. Nil: nothing does.
	Front *Front
	// Chaos is what goes wrong on purpose. Nil: nothing does.
	Chaos *Chaos
	// TLS is what [Gateway.Serve] speaks TLS with. Nil: it does not.
	TLS *tls.Config
	// Drain says how [Gateway.Serve] ends.
	Drain Drain
	// Retention says how long is kept what nobody needs any more.
	Retention Retention
	// AccessLog says which requests get a line in the log: [AccessAll],
	// [AccessErrors] or [AccessOff]. "": AccessOff.
	AccessLog string
	// Version is the program's, for [Gateway.Metrics].
	Version string
	// Wrap stands around the handler, however a request comes. Nil: nothing does.
	Wrap func(http.Handler) http.Handler
}

// closeTime is how long a gateway that ends tries to write down what it counted.
const closeTime = 2 * time.Second

// Gateway serves the registration protocols. It is safe for concurrent use.
type Gateway struct {
	cfg     Config
	store   *store.Store
	handler http.Handler
	inner   *inProcess
	uses    *lastUse
	usage   *usage
	limits  *frontLimits
	signer  *signer
	mail    *mailer
	front   *front
	proxy   *proxy

	served  []protocol
	traffic traffic
	census  census

	metrics  *metrics
	prober   *prober
	draining atomic.Bool // Serve is about to end
	taken    taken

	id     string        // tells this process from others over the same database
	boot   int64         // tells the fault ids of two runs apart
	faults atomic.Uint64 // how many faults there were

	stop    context.CancelFunc // ends the sweeper
	sweeper sync.WaitGroup
	closing sync.Once
	closed  error
}

// New opens the database, applies what migrations it lacks, and reads the
// environment of every protocol. An error names what is to be set right.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	place, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := cfg.Front.check(); err != nil {
		return nil, err
	}
	makers, err := choose(cfg.Protocols)
	if err != nil {
		return nil, err
	}
	relay, err := newRelay(cfg.SMTPURL, cfg.SMTPTLS)
	if err != nil {
		return nil, err
	}
	cfg.SMTPURL, cfg.Database = "", "" // nobody else has a use for what they hold
	d := newDeps(cfg, relay)
	limits := newFrontLimits(d.usage, cfg.Front, cfg.Now)
	served, err := build(d, makers)
	if err != nil {
		return nil, err
	}
	front, err := newFront(d, served)
	if err != nil {
		return nil, err
	}
	if served, err = rehearse(ctx, cfg, served); err != nil {
		return nil, err
	}
	place.Now, place.Terms, place.Logger, place.Audited = cfg.Now, findBy, cfg.Logger, d.metrics.audited
	db, err := store.Open(ctx, place)
	if err != nil {
		return nil, fmt.Errorf("open the database of the gateway: %w", err)
	}
	if err := d.unlock(ctx, place.Path, db); err != nil {
		return nil, fmt.Errorf("open the database of the gateway: %w", errors.Join(err, db.Close()))
	}
	g := &Gateway{
		cfg: cfg, store: db, uses: d.uses, usage: d.usage, limits: limits, signer: d.signer, mail: d.mail, front: front,
		id: rand.Text(), boot: cfg.Now().UnixMilli(), metrics: d.metrics,
	}
	front.Gateway = g
	front.usage = limits.count
	g.proxy = newProxy(g)
	g.served = served
	g.prober = &prober{ask: db.Ping, now: cfg.Now}
	g.handler = &observer{g, counted{newRouter(g, append(served, keyring{d.signer})), &g.traffic, cfg.Now}}
	if cfg.Wrap != nil {
		g.handler = cfg.Wrap(g.handler)
	}
	g.inner = newInProcess(ctx, g)
	g.sweep(ctx)
	return g, nil
}

// complete fills in what may be left out and returns where the database is.
func (c *Config) complete() (place store.Options, err error) {
	if c.Now == nil {
		return place, errors.New("embeddedgateway: Config.Now is nil: give it a clock, such as time.Now")
	}
	if c.Env == nil {
		c.Env = func(string) string { return "" }
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.PublicURL == "" {
		c.PublicURL = Origin
	}
	if err := checkPublicURL(c.PublicURL); err != nil {
		return place, err
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	return c.place()
}

// place says where the database is. An error does not hold the value: that may
// hold a password.
func (c *Config) place() (store.Options, error) {
	scheme, path, _ := strings.Cut(c.Database, ":")
	switch {
	case scheme == "sqlite" && path != "":
		return store.Options{Path: path}, nil
	case scheme == "postgres" || scheme == "postgresql":
		if len(c.ServerKey) == 0 {
			return store.Options{}, errors.New("a gateway on PostgreSQL needs its server key from you, the same for all that share the database: " +
				"set ENLIST_SERVER_KEY_FILE, or ENLIST_SERVER_KEY, to " + ServerKeyForm)
		}
		return store.Options{URL: c.Database}, nil
	}
	return store.Options{}, errors.New(`the gateway's database is not known: want "sqlite:PATH" or "postgres://USER@HOST/DATABASE"`)
}

// checkPublicURL reports why links cannot begin with a URL.
func checkPublicURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || strings.ContainsAny(text, "?#") {
		// Not the value: it may hold a user's password.
		return errors.New("the gateway's public URL is not one that links can begin with: " +
			"want such as https://gateway.example.com, without a user, a query and a fragment")
	}
	return nil
}

// newDeps returns what protocols are made from. What stands on the database
// works when unlock has returned.
func newDeps(cfg Config, relay *relay) deps {
	d := deps{Config: cfg, mint: minter{cfg.Rand}, uses: newLastUse(), usage: newUsage(cfg.Now, cfg.Logger), vault: &vault{}, metrics: newMetrics()}
	d.signer = &signer{
		vault: d.vault, now: cfg.Now, issuer: cfg.PublicURL, opened: map[string]signingKey{}, metrics: d.metrics,
	}
	d.mail = &mailer{
		vault: d.vault, mint: d.mint, now: cfg.Now, log: cfg.Logger, relay: relay, due: make(chan struct{}, 1), metrics: d.metrics,
	}
	return d
}

// unlock opens what is sealed in the database.
func (d deps) unlock(ctx context.Context, path string, db *store.Store) error {
	if err := d.vault.unlock(ctx, d.Config, path, db); err != nil {
		return err
	}
	d.signer.store, d.mail.store, d.usage.store = db, db, db
	d.usage.several = path == "" // PostgreSQL
	if err := d.usage.exchange(ctx); err != nil {
		return err
	}
	if !d.usage.several || len(d.usage.peers) == 0 {
		d.usage.meet() // there is nobody to meet
	}
	return d.signer.begin(ctx)
}

// build makes the protocols. Every variable that does not parse is reported.
func build(d deps, makers []maker) ([]protocol, error) {
	var served []protocol
	var errs []error
	for _, m := range makers {
		d.env = &environ{get: d.Env}
		p := m.make(d)
		if err := d.env.err(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
		served = append(served, p)
	}
	return served, errors.Join(errs...)
}

// sweep removes what has expired, now and then.
func (g *Gateway) sweep(ctx context.Context) {
	ctx, g.stop = context.WithCancel(context.WithoutCancel(ctx))
	g.sweeper.Go(func() { g.retain(ctx) })
	g.sweeper.Go(func() { g.uses.keep(ctx, g.store, g.cfg.Logger) })
	g.sweeper.Go(func() { g.usage.keep(ctx, g.cfg.Logger) })
	g.sweeper.Go(func() { g.proxy.keep(ctx) })
	g.sweeper.Go(func() { g.mail.keep(ctx) })
}

// Handler returns the handler of all protocols. Paths that none of them claims
// are answered with 404.
func (g *Gateway) Handler() http.Handler { return g.handler }

// Audit returns what the audit trail holds, the newest first.
func (g *Gateway) Audit(ctx context.Context, q store.EventQuery) ([]store.Event, error) {
	events, err := g.store.Events(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	return events, nil
}

// Close ends the in-process connections when their requests are answered, lets
// a letter that is being sent go out within two seconds, and closes the database. A [Gateway.Serve] is to have returned before.
func (g *Gateway) Close() error {
	g.closing.Do(func() {
		g.stop()
		err := g.inner.close()
		g.proxy.close()
		g.sweeper.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), closeTime) // the database may be away
		defer cancel()
		err = errors.Join(err, g.uses.flush(ctx, g.store), g.usage.close(ctx))
		g.closed = errors.Join(err, g.store.Close())
	})
	return g.closed
}
