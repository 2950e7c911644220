package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// renewing is a protocol whose credentials are renewed by themselves.
type renewing struct {
	name    string
	setting string
	life    time.Duration
	kind    credstore.Kind // of what is sent
	renews  []string       // the routes, each of which renews
	path    func(i credstore.Info) string
	join    func(t *testing.T, f *fixture, gw *gatewaytest.Gateway) credstore.Info
}

func renewings() []renewing {
	return []renewing{
		{
			name: "lona", setting: "LONA_GATEWAY_URL", life: 30 * 24 * time.Hour, kind: credstore.KindToken,
			renews: []string{wire.LonaRegisterPath},
			path:   func(credstore.Info) string { return strategiesPath },
			join: func(t *testing.T, f *fixture, _ *gatewaytest.Gateway) credstore.Info {
				return f.register(t, "my-agent").Info
			},
		},
		{
			name: "agentdoor", setting: "AGENTDOOR_URL", life: time.Hour, kind: credstore.KindToken,
			renews: []string{wire.AgentDoorAuthPath},
			path:   func(credstore.Info) string { return wire.AgentDoorWhoAmIPath },
			join: func(t *testing.T, f *fixture, gw *gatewaytest.Gateway) credstore.Info {
				return f.enlist(t, scoutAt(gw)).Info
			},
		},
		{
			name: "fluxra", setting: "FLUXRA_API_URL", life: time.Hour, kind: credstore.KindAccess,
			renews: []string{wire.FluxraTokenPath, wire.FluxraRefreshPath},
			path:   func(i credstore.Info) string { return "/api/agents/" + i.Attrs["agent_id"] },
			join: func(t *testing.T, f *fixture, _ *gatewaytest.Gateway) credstore.Info {
				return f.enrol(t).Info
			},
		},
	}
}

// tally is a gateway that counts what renews, and may be down or stand still.
type tally struct {
	*gatewaytest.Gateway
	mu       sync.Mutex
	renewals int
	fails    int           // how many of the next requests get a 503; below 0: all
	asked    []time.Time   // when something was asked, while it was down
	hold     chan struct{} // what renewals wait for; nil: nothing
}

func (r renewing) gateway(t *testing.T) *tally {
	t.Helper()
	c := new(tally)
	c.Gateway = gatewaytest.New(t, gatewaytest.At(start), gatewaytest.Config(func(cfg *embeddedgateway.Config) {
		cfg.Wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				hold, down := c.count(r, req)
				if down {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				if hold != nil {
					select {
					case <-hold:
					case <-req.Context().Done():
					}
				}
				h.ServeHTTP(w, req)
			})
		}
	}))
	return c
}

func (c *tally) count(r renewing, req *http.Request) (hold chan struct{}, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range r.renews {
		if req.URL.Path == path {
			c.renewals++
			hold = c.hold
		}
	}
	if c.fails != 0 {
		c.fails--
		c.asked = append(c.asked, c.Clock.Now())
		return nil, true
	}
	return hold, false
}

// holding has renewals wait until a channel is closed.
func (c *tally) holding(until chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = until
}

// forget begins counting anew, and has the next requests fail.
func (c *tally) forget(fails int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewals, c.fails, c.asked = 0, fails, nil
}

func (c *tally) counted() (renewals int, asked []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renewals, c.asked
}

func (r renewing) fixture(t *testing.T, gw *tally, s setup) *fixture {
	t.Helper()
	s.env, s.now = map[string]string{r.setting: gw.URL}, gw.Clock.Now
	f := newFixture(t, s)
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), gw.Secrets()...) })
	return f
}

// sent returns what may be said of what is sent with a credential.
func (r renewing) sent(t *testing.T, f *fixture, k credstore.Key) credstore.Info {
	t.Helper()
	k.Kind = r.kind
	c, err := f.store.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return c.Info
}

var errEnough = errors.New("the test has seen enough")

// keep keeps what a client has for a time of the gateway's clock, and returns
// the pauses between two looks. after is called after each pause.
func (r renewing) keep(t *testing.T, gw *tally, store credstore.Store, life time.Duration, after func(f *fixture)) []time.Duration {
	t.Helper()
	var pauses []time.Duration
	var f *fixture
	end := gw.Clock.Now().Add(life)
	f = r.fixture(t, gw, setup{store: store, idle: func(_ context.Context, d time.Duration) error {
		pauses = append(pauses, d)
		gw.Clock.Advance(d)
		after(f)
		if gw.Clock.Now().After(end) {
			return errEnough
		}
		return nil
	}})
	f.Lifecycle.Keep(t.Context())
	return pauses
}

func TestKeepRenewsBeforeAnythingExpires(t *testing.T) {
	for _, r := range renewings() {
		t.Run(r.name, func(t *testing.T) {
			gw := r.gateway(t)
			store := credstore.NewMemory(gw.Clock.Now)
			joined := r.join(t, r.fixture(t, gw, setup{store: store}), gw.Gateway)
			gw.forget(0)

			pauses := r.keep(t, gw, store, 4*r.life, func(f *fixture) {
				if left := r.sent(t, f, joined.Key).ExpiresAt.Sub(gw.Clock.Now()); left <= 0 {
					t.Errorf("after %s: what is sent has expired", gw.Clock.Now().Sub(start))
				}
			})

			// Of each life four fifths are used, so five are needed for four.
			if got, _ := gw.counted(); got < 4 || got > 5 {
				t.Errorf("got %d renewals in four lives, want 4 or 5", got)
			}
			if first := pauses[0]; first < 30*time.Second || first > 90*time.Second {
				t.Errorf("it looked first after %s", first)
			}
			for _, pause := range pauses[1:] {
				if pause < 30*time.Second || pause > 15*time.Minute {
					t.Fatalf("it looked again after %s", pause)
				}
			}
		})
	}
}

// TestKeepLeavesAServiceThatIsDownAlone has one request after each pause, and a
// longer pause each time.
func TestKeepLeavesAServiceThatIsDownAlone(t *testing.T) {
	for _, r := range renewings() {
		t.Run(r.name, func(t *testing.T) {
			gw := r.gateway(t)
			store := credstore.NewMemory(gw.Clock.Now)
			joined := r.join(t, r.fixture(t, gw, setup{store: store}), gw.Gateway)
			gw.Clock.Advance(r.life * 81 / 100)
			gw.forget(-1)

			up := gw.Clock.Now().Add(24 * time.Hour)
			r.keep(t, gw, store, 40*time.Hour, func(*fixture) {
				if gw.Clock.Now().After(up) {
					gw.mu.Lock()
					gw.fails = 0
					gw.mu.Unlock()
				}
			})

			_, asked := gw.counted()
			if len(asked) < 5 || len(asked) > 14 {
				t.Errorf("a service that was down for a day was asked %d times", len(asked))
			}
			for n := 1; n < len(asked); n++ {
				gap, least := asked[n].Sub(asked[n-1]), min(time.Minute<<(n-1), 6*time.Hour)
				if gap < least {
					t.Errorf("it was asked again after %s, want %s or more", gap, least)
				}
			}
			if left := r.sent(t, r.fixture(t, gw, setup{store: store}), joined.Key).ExpiresAt.Sub(gw.Clock.Now()); left <= 0 {
				t.Error("it was not renewed when the service was up again")
			}
		})
	}
}

// overtaken is a store whose list is out of date by the time it is read.
type overtaken struct {
	credstore.Store
	meanwhile func()
}

func (s *overtaken) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	list, err := s.Store.List(ctx, protocol)
	if meanwhile := s.meanwhile; meanwhile != nil {
		s.meanwhile = nil
		meanwhile()
	}
	return list, err
}

// TestKeepDoesNotRenewWhatAnotherProcessHas has the credential used elsewhere
// between the look and the renewal.
func TestKeepDoesNotRenewWhatAnotherProcessHas(t *testing.T) {
	for _, r := range renewings() {
		gw := r.gateway(t)
		store := credstore.NewMemory(gw.Clock.Now)
		other := r.fixture(t, gw, setup{store: store})
		i := r.join(t, other, gw.Gateway)
		gw.Clock.Advance(r.life * 95 / 100)
		gw.forget(0)
		stale := &overtaken{Store: store, meanwhile: func() {
			if got, err := other.Lifecycle.Do(t.Context(), i.Key, get(r.path(i))); err != nil || got.Status != http.StatusOK {
				t.Errorf("%s: got %d, %v", r.name, got.Status, err)
			}
		}}

		r.keep(t, gw, stale, 5*time.Minute, func(*fixture) {})

		if got, _ := gw.counted(); got != 1 {
			t.Errorf("%s: got %d renewals, want the one of the other process", r.name, got)
		}
	}
}

func TestKeepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFixture(t, setup{idle: func(ctx context.Context, _ time.Duration) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	f.Lifecycle.Keep(ctx) // it would never return
}

// TestRenewalsAreSpread has a credential due between 80 % and 90 % of its life,
// at one time in each of its lives.
func TestRenewalsAreSpread(t *testing.T) {
	for _, r := range renewings() {
		for _, tt := range []struct {
			random float64
			want   float64 // per mille of its life
		}{{0, 800}, {0.5, 850}, {0.999, 899.9}} {
			gw := r.gateway(t)
			draws := 0
			f := r.fixture(t, gw, setup{random: func() float64 { draws++; return tt.random }})
			i := r.join(t, f, gw.Gateway)
			sent := r.sent(t, f, i.Key)
			for range 3 {
				stored, err := f.Lifecycle.List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range f.All() {
					p, ok := p.(gateway.Renewer)
					if !ok || p.Wire().Name != r.name {
						continue
					}
					due := p.Due(t.Context(), i, stored)
					want := sent.CreatedAt.Add(time.Duration(tt.want / 1000 * float64(sent.ExpiresAt.Sub(sent.CreatedAt))))
					if d := due.Sub(want).Abs(); d > time.Second {
						t.Errorf("%s with %v: due %s, want %s", r.name, tt.random, due, want)
					}
				}
			}
			if draws != 1 {
				t.Errorf("%s: drawn %d times in one life, want once", r.name, draws)
			}
		}
	}
}

// TestManyInOneProcessRenewOnce has twenty callers meet what has expired, each
// time at a service that fails the first of its requests or none.
func TestManyInOneProcessRenewOnce(t *testing.T) {
	for _, r := range renewings() {
		for _, fails := range []int{0, 1} {
			gw := r.gateway(t)
			f := r.fixture(t, gw, setup{})
			i := r.join(t, f, gw.Gateway)
			gw.Clock.Advance(2 * r.life)
			gw.forget(fails)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					got, err := f.Lifecycle.Do(t.Context(), i.Key, get(r.path(i)))
					if err != nil || got.Status != http.StatusOK {
						t.Errorf("%s: got %d, %v", r.name, got.Status, err)
					}
				})
			}
			wg.Wait()
			most := 1
			if fails == 1 && r.name != "lona" { // there an invite fails first
				most = 2
			}
			if got, _ := gw.counted(); got != most {
				t.Errorf("%s, where %d fail: got %d renewals, want %d", r.name, fails, got, most)
			}
		}
	}
}
