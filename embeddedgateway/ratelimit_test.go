package embeddedgateway_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

func perMinute(n int) embeddedgateway.Rate { return embeddedgateway.Rate{N: n, Per: time.Minute} }

func TestHeadersSayWhatIsLeft(t *testing.T) {
	agent, key := embeddedgateway.Rate{N: 5, Per: time.Hour}, perMinute(2)
	caller := embeddedgateway.Caller{AgentID: 7, CredentialID: 3}
	const policy = `"agent";q=5;w=3600, "key";q=2;w=60`
	r := newReplicas(t, 1, embeddedgateway.Front{AgentLimit: agent, KeyLimit: key})
	for _, tt := range []struct {
		later   time.Duration
		caller  embeddedgateway.Caller
		left    string
		refused string // "": not; else a part of why
	}{
		{0, caller, `"agent";r=4;t=3600, "key";r=1;t=60`, ""},
		{10 * time.Second, caller, `"agent";r=3;t=3590, "key";r=0;t=50`, ""},
		{0, caller, `"agent";r=3;t=3590, "key";r=0;t=50`, "at most 2 in 1m0s with one key; try again in 50 seconds"},
		{500 * time.Millisecond, caller, `"agent";r=3;t=3590, "key";r=0;t=50`, "try again in 50 seconds"},
		{49500 * time.Millisecond, caller, `"agent";r=2;t=3540, "key";r=0;t=10`, ""}, // what was refused was not counted
		{0, embeddedgateway.Caller{AgentID: 7, CredentialID: 4}, `"agent";r=1;t=3540, "key";r=1;t=60`, ""},
		{0, embeddedgateway.Caller{AgentID: 7}, `"agent";r=0;t=3540, "key";r=1;t=60`, ""}, // a token of its own
		{0, embeddedgateway.Caller{AgentID: 7, CredentialID: 5}, `"agent";r=0;t=3540, "key";r=2;t=0`, "at most 5 in 1h0m0s by one agent; try again in 3540 seconds"},
		{0, embeddedgateway.Caller{AgentID: 8, CredentialID: 6}, `"agent";r=4;t=3600, "key";r=1;t=60`, ""},
	} {
		r.clock.Advance(tt.later)
		h := http.Header{}
		err := embeddedgateway.Spend(r.list[0], tt.caller, h)
		if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%v: got %v, want %q", tt.caller, err, tt.refused)
		}
		if got := h.Get("RateLimit"); got != tt.left {
			t.Errorf("got RateLimit: %s, want %s", got, tt.left)
		}
		if got := h.Get("RateLimit-Policy"); got != policy {
			t.Errorf("got RateLimit-Policy: %s, want %s", got, policy)
		}
	}
}

func TestWithoutALimitThereIsNoHeader(t *testing.T) {
	r := newReplicas(t, 1, embeddedgateway.Front{})
	h := http.Header{}
	if err := embeddedgateway.Spend(r.list[0], embeddedgateway.Caller{AgentID: 7}, h); err != nil || len(h) != 0 {
		t.Errorf("got %v and %v, want nothing", err, h)
	}
}

func TestRequestsAtOnceAreExactlySoMany(t *testing.T) {
	r := newReplicas(t, 1, embeddedgateway.Front{AgentLimit: perMinute(100), KeyLimit: perMinute(70)})
	var through atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			key := embeddedgateway.Caller{AgentID: 7, CredentialID: int64(1 + i%2)}
			through.Add(int64(allowed(r.list[0], key, 10)))
		})
	}
	wg.Wait()
	if got := through.Load(); got != 100 {
		t.Errorf("got %d requests through, want 100", got)
	}
	for _, l := range embeddedgateway.LimitsOf(r.list[0], 7, map[string]int64{"k1": 1, "k2": 2}) {
		if l.Name == "requests to the API by the agent" && l.Used != 100 || l.Used > l.Limit {
			t.Errorf("got %+v", l)
		}
	}
}

func TestNewRefusesALimitThatCannotBeKept(t *testing.T) {
	for setting, front := range map[string]embeddedgateway.Front{
		"limits.agent: a limit must allow from 1":   {AgentLimit: embeddedgateway.Rate{N: 0, Per: time.Minute}},
		"limits.agent: a limit must allow":          {AgentLimit: embeddedgateway.Rate{N: 2_000_000_000, Per: time.Minute}},
		"limits.key: the time of a limit":           {KeyLimit: embeddedgateway.Rate{N: 1}},
		"limits.key: the time of a limit must":      {KeyLimit: embeddedgateway.Rate{N: 1, Per: 1500 * time.Millisecond}},
		"limits.key: the time of a limit must be":   {KeyLimit: embeddedgateway.Rate{N: 1, Per: 48 * time.Hour}},
		"limits.agent: the time of a limit must be": {AgentLimit: embeddedgateway.Rate{N: 1, Per: -time.Hour}},
	} {
		cfg := config(t)
		cfg.Front = &front
		g, err := embeddedgateway.New(t.Context(), cfg)
		if err == nil {
			g.Close()
			t.Errorf("%+v: got no error", front)
		} else if !strings.Contains(err.Error(), setting) {
			t.Errorf("%+v: got %q, want %q in it", front, err, setting)
		}
	}
}

// A limit of a million holds what one of a thousand does, in a little longer.
func TestALargeLimitIsBoundedAndNeverExceeded(t *testing.T) {
	const limit = 100_000
	clock := gatewaytest.NewClock(docTime)
	l := embeddedgateway.NewKeyLimit(limit, time.Hour, clock.Now)
	var taken []time.Time
	for range 3 * limit { // 2.4 hours
		clock.Advance(29 * time.Millisecond)
		if l.Hit(1) == nil {
			taken = append(taken, clock.Now())
		}
	}
	for i := limit; i < len(taken); i++ {
		if d := taken[i].Sub(taken[i-limit]); d < time.Hour {
			t.Fatalf("%d uses in %s", limit+1, d)
		}
	}
	if len(taken) < 2*limit {
		t.Errorf("got %d uses in 2.4 hours, want more than twice the limit", len(taken))
	}
	if counted, real := l.Runs(); counted != real || real > 1100 {
		t.Errorf("remembers %d times of use and counts %d, want at most 1100", real, counted)
	}
}

func TestManyUsedUpKeysAreBounded(t *testing.T) {
	clock := gatewaytest.NewClock(docTime)
	l := embeddedgateway.NewKeyLimit(1000, time.Hour, clock.Now)
	most := 0
	for id := range int64(4000) { // 4,000,000 uses, all at other times
		for range 1000 {
			clock.Advance(time.Microsecond)
			if err := l.Hit(id); err != nil {
				t.Fatal(err)
			}
		}
		counted, real := l.Runs()
		if counted != real {
			t.Fatalf("counts %d times of use, remembers %d", counted, real)
		}
		most = max(most, real)
	}
	if most > embeddedgateway.MaxRuns/2+1000 {
		t.Errorf("remembers %d times of use in half of its memory, want at most %d", most, embeddedgateway.MaxRuns/2)
	}
}
