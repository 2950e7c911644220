package embeddedgateway_test

import (
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// replicas are gateways over one database, with one clock.
type replicas struct {
	t     *testing.T
	cfg   embeddedgateway.Config
	clock *gatewaytest.Clock
	list  []*embeddedgateway.Gateway
}

func newReplicas(t *testing.T, n int, front embeddedgateway.Front, on ...gatewaytest.Option) *replicas {
	t.Helper()
	r := &replicas{t: t, clock: gatewaytest.NewClock(docTime)}
	r.cfg = embeddedgateway.Config{
		Database: "sqlite:" + filepath.Join(t.TempDir(), "gateway.db"), Now: r.clock.Now, Front: &front,
	}
	for _, o := range on {
		o(&r.cfg, r.clock)
	}
	for range n {
		r.start()
	}
	return r
}

// start adds a replica.
func (r *replicas) start() *embeddedgateway.Gateway {
	r.t.Helper()
	g, err := embeddedgateway.New(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.list = append(r.list, g)
	r.t.Cleanup(func() { g.Close() })
	return g
}

// exchange has everybody tell, and then everybody hear.
func (r *replicas) exchange() {
	r.t.Helper()
	for range 2 {
		for _, g := range r.list {
			embeddedgateway.Exchange(r.t, g)
		}
	}
}

// allowed is how many of n requests of a caller a replica lets through.
func allowed(g *embeddedgateway.Gateway, c embeddedgateway.Caller, n int) (got int) {
	for range n {
		if embeddedgateway.Spend(g, c, http.Header{}) == nil {
			got++
		}
	}
	return got
}

func TestReplicasKeepOneLimit(t *testing.T) {
	t.Run("on SQLite", func(t *testing.T) { keepOneLimit(t) })
	t.Run("on PostgreSQL", func(t *testing.T) { keepOneLimit(t, gatewaytest.PostgreSQL(pgtest.URL(t))) })
}

func keepOneLimit(t *testing.T, on ...gatewaytest.Option) {
	r := newReplicas(t, 3, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 100, Per: time.Minute}}, on...)
	agent := embeddedgateway.Caller{AgentID: 7}
	for i, want := range []int{40, 40, 20} {
		if got := allowed(r.list[i], agent, 40); got != want {
			t.Errorf("replica %d: got %d requests through, want %d", i, got, want)
		}
		r.exchange()
	}
	for i, g := range r.list {
		if got := allowed(g, agent, 1); got != 0 {
			t.Errorf("replica %d: got one more", i)
		}
		if got := allowed(g, embeddedgateway.Caller{AgentID: 8}, 1); got != 1 {
			t.Errorf("replica %d: another agent was refused", i)
		}
	}
}

// What an exchange can miss is what everybody allows until it: the limit, each.
func TestBetweenTwoExchangesAReplicaKeepsTheLimitItself(t *testing.T) {
	r := newReplicas(t, 3, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 10, Per: time.Minute}})
	agent := embeddedgateway.Caller{AgentID: 7}
	for i, g := range r.list {
		if got := allowed(g, agent, 50); got != 10 {
			t.Errorf("replica %d: got %d requests through, want 10", i, got)
		}
	}
	r.exchange()
	// It is made up for: until all that was too much has left the window, too.
	r.clock.Advance(time.Minute)
	for i, g := range r.list {
		if got := allowed(g, agent, 50); got != 0 {
			t.Errorf("replica %d: got %d requests through, want none: the others' count for a second longer", i, got)
		}
	}
	r.clock.Advance(time.Second)
	if got := allowed(r.list[0], agent, 50); got != 10 {
		t.Errorf("a window later: got %d requests through, want 10", got)
	}
}

// Over many windows, with an exchange each second and requests all the time, no
// window holds more than the limit and what was asked for in a second.
func TestNoWindowHoldsMoreThanTheLimitAndOneExchange(t *testing.T) {
	const limit, most = 50, 4
	r := newReplicas(t, 2, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: limit, Per: time.Minute}})
	agent := embeddedgateway.Caller{AgentID: 7}
	random := rand.New(rand.NewPCG(1, 2))
	var taken []time.Time
	for range 400 {
		for range random.IntN(most + 1) {
			if allowed(r.list[random.IntN(2)], agent, 1) == 1 {
				taken = append(taken, r.clock.Now())
			}
		}
		r.exchange()
		r.clock.Advance(time.Second)
	}
	for i := limit + most; i < len(taken); i++ {
		if d := taken[i].Sub(taken[i-limit-most]); d < time.Minute {
			t.Fatalf("%d requests in %s", limit+most+1, d)
		}
	}
	if windows := 400 / 61; len(taken) < windows*limit*9/10 {
		t.Errorf("got %d requests through, want about %d: the limit is to be used up", len(taken), windows*limit)
	}
}

// A gateway that is alone over a SQLite database says nothing of itself; but when
// another one comes, it does, so that both know of each other before a flood.
func TestWhoWasAloneTellsWhoComes(t *testing.T) {
	r := newReplicas(t, 1, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 10, Per: time.Minute}})
	r.clock.Advance(time.Hour)
	embeddedgateway.Exchange(t, r.list[0])
	if got := embeddedgateway.Others(r.list[0]); got != 0 {
		t.Errorf("alone: %d others are known", got)
	}
	r.start()
	for i, g := range r.list {
		embeddedgateway.Exchange(t, g)
		if got := embeddedgateway.Others(g); got != 1 {
			t.Errorf("replica %d: %d others are known, want one", i, got)
		}
	}
}

func TestCountsOutliveARestart(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *embeddedgateway.Gateway){
		"an orderly one": func(t *testing.T, g *embeddedgateway.Gateway) {
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"a crash a second after": embeddedExchange,
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplicas(t, 1, embeddedgateway.Front{KeyLimit: embeddedgateway.Rate{N: 10, Per: time.Hour}})
			key := embeddedgateway.Caller{AgentID: 7, CredentialID: 3}
			if got := allowed(r.list[0], key, 6); got != 6 {
				t.Fatalf("got %d requests through, want 6", got)
			}
			end(t, r.list[0])
			g := r.start()
			if got := allowed(g, key, 10); got != 4 {
				t.Errorf("after it: got %d requests through, want 4", got)
			}
		})
	}
}

// Of two whose clocks differ too much, the one that is behind says so, and says so
// once: the other one does not hear it.
func TestReplicasWhoseClocksDifferSaySo(t *testing.T) {
	for name, tt := range map[string]struct {
		ahead time.Duration
		want  int
	}{
		"no more than they may": {4 * time.Second, 0},
		"too much":              {time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var log syncBuffer
			r := newReplicas(t, 0, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 10, Per: time.Hour}})
			r.cfg.Logger = log.logger()
			behind := r.start()
			now := r.cfg.Now
			r.cfg.Now = func() time.Time { return now().Add(tt.ahead) }
			r.cfg.Logger = slog.New(slog.DiscardHandler)
			r.start()
			for range 3 {
				r.exchange()
				allowed(behind, embeddedgateway.Caller{AgentID: 7}, 1)
				r.clock.Advance(30 * time.Second)
			}
			if got := strings.Count(string(log.bytes()), "clock of another replica"); got != tt.want {
				t.Errorf("got %d warnings, want %d: %s", got, tt.want, log.bytes())
			}
		})
	}
}

func embeddedExchange(t *testing.T, g *embeddedgateway.Gateway) { embeddedgateway.Exchange(t, g) }

func TestWhatIsHeardTwiceCountsOnce(t *testing.T) {
	r := newReplicas(t, 2, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 100, Per: time.Hour}})
	agent := embeddedgateway.Caller{AgentID: 7}
	want := 0
	for i := range 90 { // one a second: the same row again and again, then another
		want += allowed(r.list[0], agent, 1)
		for range 1 + i%3 {
			r.exchange()
		}
		r.clock.Advance(time.Second)
	}
	if got := embeddedgateway.LimitsOf(r.list[1], 7, nil)[0].Used; got != want || got != 90 {
		t.Errorf("the other one counts %d, want %d", got, want)
	}
}

func TestProtocolsLimitsHoldOverReplicas(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "scout")
	other := gatewaytest.New(t, gatewaytest.ReplicaOf(gw))
	for range 60 {
		ltxWant(t, ltxWith(t, gw, http.MethodGet, wire.LithtrixMePath, key), http.StatusOK, "")
	}
	embeddedgateway.Exchange(t, gw.Embedded())
	embeddedgateway.Exchange(t, other.Embedded())
	a := ltxWith(t, other, http.MethodGet, wire.LithtrixMePath, key)
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("the other replica: got %d with Retry-After %q, want 429", a.status, a.header.Get("Retry-After"))
	}
	gw.Restart(t)
	ltxWant(t, ltxWith(t, gw, http.MethodGet, wire.LithtrixMePath, key), http.StatusTooManyRequests, wire.LithtrixRateLimited)
}

func TestCountsAreReadAsTheyWereWritten(t *testing.T) {
	for _, counts := range []map[int64]int{{}, {1: 1}, {-9: 1 << 30, 1 << 60: 2, 0: 7}} {
		got, err := embeddedgateway.Counts(embeddedgateway.PackCounts(counts))
		if err != nil || !maps.Equal(got, counts) {
			t.Errorf("got %v (%v), want %v", got, err, counts)
		}
	}
	for _, raw := range []string{"\x80", "\x02", "\x02\x80", "\x02\x01"} { // the last: a negative count
		if got, err := embeddedgateway.Counts([]byte(raw)); err == nil {
			t.Errorf("%q: got %v, want an error", raw, got)
		}
	}
}

func FuzzCounts(f *testing.F) {
	f.Add(embeddedgateway.PackCounts(map[int64]int{1: 2, -3: 4}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		counts, err := embeddedgateway.Counts(raw)
		if err != nil {
			return
		}
		again, err := embeddedgateway.Counts(embeddedgateway.PackCounts(counts))
		if err != nil || !maps.Equal(again, counts) {
			t.Errorf("got %v (%v), want %v", again, err, counts)
		}
	})
}
