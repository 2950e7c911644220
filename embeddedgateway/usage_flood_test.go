package embeddedgateway_test

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// TestAFloodAtSeveralReplicasGetsOneLimit uses a key at three replicas at once, as
// fast as they answer, by a protocol's limit and by one of what is behind the
// gateway, as soon as they have started. All of it lies in one exchange of those
// that come once a second: were that all, each replica would allow a whole limit.
func TestAFloodAtSeveralReplicasGetsOneLimit(t *testing.T) {
	t.Parallel()
	t.Run("on SQLite", func(t *testing.T) {
		var one *gatewaytest.Gateway
		flood(t, func(c gatewaytest.Option) *gatewaytest.Gateway {
			if one == nil {
				one = gatewaytest.New(t, gatewaytest.SQLite(), c)
				return one
			}
			return gatewaytest.New(t, gatewaytest.ReplicaOf(one), c)
		})
	})
	t.Run("on PostgreSQL", func(t *testing.T) {
		at := pgtest.Ready(t)
		flood(t, func(c gatewaytest.Option) *gatewaytest.Gateway {
			return gatewaytest.New(t, gatewaytest.PostgreSQL(at), c)
		})
	})
}

func flood(t *testing.T, begin func(gatewaytest.Option) *gatewaytest.Gateway) {
	t.Helper()
	const replicas, clients, each = 3, 8, 25
	clock := gatewaytest.NewClock(docTime)
	front := embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: 100, Per: time.Hour}}
	list := make([]*gatewaytest.Gateway, replicas)
	for i := range list {
		list[i] = begin(gatewaytest.Config(func(c *embeddedgateway.Config) {
			c.Front, c.Now = &front, clock.Now
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}))
	}
	for _, tt := range []struct {
		name  string
		limit int
		ask   func(gw *gatewaytest.Gateway, key string) answer
	}{
		{"protocol", 60, func(gw *gatewaytest.Gateway, key string) answer {
			return send(t, gw, http.MethodGet, wire.LithtrixMePath, "", bearer(key))
		}},
		{"operator", 100, func(gw *gatewaytest.Gateway, key string) answer {
			return asks(t, gw, http.MethodGet, "/r", bearer(key))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := ltxKey(t, list[0], tt.name)
			var allowed atomic.Int64
			var all sync.WaitGroup
			for i := range replicas * clients {
				gw := list[i%replicas]
				all.Go(func() {
					for range each {
						switch a := tt.ask(gw, key); a.status {
						case http.StatusOK, http.StatusNoContent:
							allowed.Add(1)
						case http.StatusTooManyRequests:
						default:
							t.Errorf("got %d %s", a.status, a.body)
						}
					}
				})
			}
			all.Wait()
			t.Logf("%d of %d were let in, the limit is %d", allowed.Load(), replicas*clients*each, tt.limit)
			if got := int(allowed.Load()); got < tt.limit || got > tt.limit+tt.limit/4+replicas {
				t.Errorf("%d were let in, want %d, and a fourth more at most", got, tt.limit)
			}
		})
	}
}

// TestAReplicaThatJoinsAllowsNoSecondLimit has one join another that was alone, and
// so told nobody anything for up to a second, and uses a key at both at once.
func TestAReplicaThatJoinsAllowsNoSecondLimit(t *testing.T) {
	t.Parallel()
	const limit, most = 100, 200
	r := newReplicas(t, 1, embeddedgateway.Front{AgentLimit: embeddedgateway.Rate{N: limit, Per: time.Hour}}, gatewaytest.PostgreSQL(pgtest.Ready(t)))
	agent := embeddedgateway.Caller{AgentID: 7}
	embeddedgateway.Alone(r.list[0])
	r.start()
	var let atomic.Int64
	var all sync.WaitGroup
	for _, g := range r.list {
		for range most {
			all.Go(func() {
				if embeddedgateway.Ask(t.Context(), g, agent) == nil {
					let.Add(1)
				}
			})
		}
	}
	all.Wait()
	if got := let.Load(); got < limit || got > limit+limit/4 {
		t.Errorf("%d were let in, want %d, and a fourth more at most", got, limit)
	}
	late := r.start()
	if err := embeddedgateway.Ask(t.Context(), late, agent); err == nil {
		t.Error("one that joins later lets in one more")
	}
	if err := embeddedgateway.Ask(t.Context(), late, embeddedgateway.Caller{AgentID: 8}); err != nil {
		t.Errorf("another agent is refused: %v", err)
	}
}
