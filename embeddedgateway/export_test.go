package embeddedgateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/go-json-experiment/json"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// MaxBody is the size of the largest body.
const MaxBody = maxBody

// ServeFor is Serve with another time for the requests that are under way when
// it ends.
func ServeFor(ctx context.Context, g *Gateway, ln net.Listener, patience time.Duration) error {
	return g.serve(ctx, ln, patience)
}

// Route is a route of a protocol, for tests that go over all of them.
type Route struct {
	Protocol, Method, Path string
	Fields                 []string // the names in the body; nil: the route takes none
	Bare                   bool     // it may come without a body, which is ignored but must be JSON
}

// Routes lists the routes of every protocol. One without a method claims what
// is below its path.
func Routes() []Route {
	var list []Route
	for _, p := range everyProtocol() {
		for _, r := range p.routes() {
			route := Route{Protocol: p.name(), Method: r.method, Path: r.path}
			if r.takes != nil {
				route.Fields = fields(reflect.TypeOf(r.takes))
			}
			route.Bare = r.method == http.MethodPost && r.takes == nil
			list = append(list, route)
		}
	}
	return list
}

// RefusalBody is how a protocol says that a request is invalid.
func RefusalBody(protocol string) []byte {
	for _, p := range everyProtocol() {
		if p.name() == protocol {
			_, body := p.refuse(invalid("why"))
			text, err := json.Marshal(body)
			if err != nil {
				panic(err)
			}
			return text
		}
	}
	panic("no protocol " + protocol)
}

// Kinds reports, for each kind of problem in each protocol, the status that it
// is to have, the one that it has, and its body.
func Kinds(report func(protocol string, want, got int, body any)) {
	for _, p := range everyProtocol() {
		for k := kindInvalid; k <= kindInternal; k++ {
			status, body := p.refuse(&problem{kind: k, message: "why"})
			report(p.name(), k.status(), status, body)
		}
	}
}

// Decode decodes a body.
func Decode[In any](body []byte) (In, error) { return decode[In](body) }

// ClientIP returns the address of a client, and what limits go by.
func ClientIP(r *http.Request, trusted []netip.Prefix) (ip, limitedBy string) {
	addr := clientIP(r, trusted)
	return addr.String(), network(addr)
}

func everyProtocol() []protocol {
	var list []protocol
	for _, m := range makers() {
		list = append(list, m.make(deps{env: &environ{get: func(string) string { return "" }}}))
	}
	return list
}

func fields(t reflect.Type) []string {
	names := []string{}
	for f := range t.Fields() {
		if f.Anonymous {
			names = append(names, fields(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// MaxCounted is how many keys a KeyLimit remembers at most.
const MaxCounted = maxCounted

// KeyLimit counts the uses of keys.
type KeyLimit struct{ l *keyLimit }

// NewKeyLimit returns a KeyLimit.
func NewKeyLimit(n int, per time.Duration, now func() time.Time) KeyLimit {
	return KeyLimit{newKeyLimit(n, per, now)}
}

// Hit counts one use of a key.
func (k KeyLimit) Hit(id int64) error { return k.l.hit(context.Background(), id) }

// Len is how many keys are remembered.
func (k KeyLimit) Len() int { return len(k.l.newer) + len(k.l.old) }

// Used is how often a key was used in the window that ends now.
func (k KeyLimit) Used(id int64) int { return k.l.used(id) }

// Runs is how many times of use are remembered in the newer half.
func (k KeyLimit) Runs() (counted, real int) {
	for _, t := range k.l.newer {
		real += len(t.runs)
	}
	return k.l.runs, real
}

// MaxRuns is how many times of use a KeyLimit remembers at most.
const MaxRuns = maxRuns

// Exchange has a gateway exchange its counts with others over its database.
func Exchange(t testing.TB, g *Gateway) {
	t.Helper()
	if err := g.usage.exchange(context.Background()); err != nil {
		t.Fatalf("exchange counts: %v", err)
	}
}

// LimitsOf returns how much of their limits an agent and its keys have used up.
func LimitsOf(g *Gateway, agentID int64, keys map[string]int64) []LimitInfo {
	return g.limits.info(agentID, keys)
}

// Spend counts a request of a caller against the limits of what is behind a
// gateway.
func Spend(g *Gateway, c Caller, h http.Header) error {
	if _, p := g.limits.spend(c, h, false); p != nil {
		return p
	}
	return nil
}

// Others returns how many other replicas are known.
func Others(g *Gateway) int {
	g.usage.turn.Lock()
	defer g.usage.turn.Unlock()
	return len(g.usage.peers)
}

// Counts reads what replicas tell one another.
func Counts(raw []byte) (map[int64]int, error) { return unpackCounts(raw) }

// PackCounts spells what replicas tell one another.
func PackCounts(counts map[int64]int) []byte { return packCounts(counts) }

// Signer signs and verifies tokens as the protocols do.
type Signer struct{ s *signer }

// SignerOf returns the signer of a gateway.
func SignerOf(g *Gateway) Signer { return Signer{g.signer} }

// Sign makes a token.
func (s Signer) Sign(t testing.TB, protocol, subject string, extra any) (string, jwt.Claims) {
	t.Helper()
	token, claims, err := s.s.sign(context.Background(), protocol, subject, extra)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return token, claims
}

// Verify returns all that a token says.
func (s Signer) Verify(protocol, token string) (said map[string]any, err error) {
	_, err = s.s.verify(context.Background(), protocol, token, &said)
	return said, err
}

// Letter is a mail to one person.
type Letter = letter

// Mailer is the mail of a gateway as the protocols use it.
type Mailer struct{ m *mailer }

// MailerOf returns the mailer of a gateway.
func MailerOf(g *Gateway) Mailer { return Mailer{g.mail} }

// Store puts a letter where it waits, and returns its name.
func (m Mailer) Store(t testing.TB, l Letter) (name string) {
	t.Helper()
	sealed, err := m.m.enclose(l)
	if err != nil {
		t.Fatalf("enclose: %v", err)
	}
	if err := m.m.store.Tx(context.Background(), func(tx *store.Tx) error { return tx.Seal(sealed) }); err != nil {
		t.Fatalf("store a letter: %v", err)
	}
	return sealed.Name
}

// Wake says that a letter was stored.
func (m Mailer) Wake() { m.m.wake() }

// Delivers reports whether letters go out.
func (m Mailer) Delivers() bool { return m.m.delivers() }

// Deliver sends what is due now.
func (m Mailer) Deliver(t testing.TB) {
	t.Helper()
	if err := m.m.deliver(context.Background()); err != nil {
		t.Errorf("deliver: %v", err)
	}
}

// PauseAfter is how long a letter waits that was tried so many times.
func PauseAfter(tries int) time.Duration { return pauseAfter(tries) }

// UsablePoint reports whether AgentDoor takes a public key.
func UsablePoint(key []byte) bool { return usablePoint(key) }

// Requires is what AgentDoor answers to a caller who needs a scope, 0 for
// nothing.
func Requires(granted []string, scope string) (status int, code string) {
	err := agentDoorCaller{scopes: granted}.requires(scope)
	if err == nil {
		return 0, ""
	}
	var p *problem
	if !errors.As(err, &p) {
		return http.StatusInternalServerError, ""
	}
	status, body := (&agentDoor{}).refuse(p)
	return status, body.(wire.AgentDoorError).Error
}

// Prober returns what asks a database whether it is there.
func Prober(now func() time.Time, ask func(context.Context) error) func(context.Context) error {
	return (&prober{now: now, ask: ask}).probe
}

// SweepNow deletes what has outlived its time, without pauses.
func (g *Gateway) SweepNow(ctx context.Context) (int, error) { return g.sweepOnce(ctx, 0) }

// Still ends what a gateway does unasked, for a test that does it.
func Still(g *Gateway) {
	g.stop()
	g.sweeper.Wait()
}

// HoldSweep makes a gateway the one that sweeps, until release is called.
func HoldSweep(ctx context.Context, g *Gateway) (release func(), err error) {
	held, err := g.holdSweep(ctx)
	if err == nil && !held {
		err = errors.New("another holds it")
	}
	return func() {
		_ = g.store.Tx(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.EndLease(sweepName, g.id) })
	}, err
}

// Recheck has a gateway look at the credentials of what goes on.
func Recheck(g *Gateway) { RecheckFor(context.Background(), g) }

// RecheckFor is Recheck while a context lasts.
func RecheckFor(ctx context.Context, g *Gateway) { g.proxy.recheck(ctx, g.front.identify) }

// RecheckAway is Recheck while the database does not answer, and returns how often
// it was asked.
func RecheckAway(g *Gateway) (asked int) {
	g.proxy.recheck(context.Background(), func(context.Context, *call) (Caller, error) {
		asked++
		return Caller{}, store.ErrUnavailable
	})
	return asked
}

// MaxUnknown is how often in succession that may fail.
const MaxUnknown = maxUnknown
