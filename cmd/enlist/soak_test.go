package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

var (
	soakRounds = flag.Int("soak", 20, "how many processes TestSoak kills")
	soakSeed   = flag.Uint64("soak-seed", 0, "the number of the first round of TestSoak, to repeat it; 0: any")
)

// soakMargin is left of the test's time for its end.
const soakMargin = 30 * time.Second

// TestSoak kills a real enlist process at a random moment, as the system or a
// person does, and goes on with another one: what the first said was done is so,
// what it had begun comes to an end or has a way out, and nothing is left behind
// at the gateway. Each round has a number that all its randomness comes from;
// `-soak 1 -soak-seed NUMBER` repeats it.
func TestSoak(t *testing.T) {
	t.Parallel()
	first := *soakSeed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	s := &soak{t: t, whole: map[string]*extent{}, counts: map[string]int{}}
	began := time.Now()
	numbers := make(chan uint64)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for n := range numbers {
				t.Run(fmt.Sprint(n), func(t *testing.T) { s.round(t, n) })
			}
		})
	}
	end, bounded := t.Deadline()
	for n := range *soakRounds {
		if bounded && time.Until(end) < soakMargin {
			t.Errorf("there was time for %d rounds of %d; give it more with -timeout", n, *soakRounds)
			break
		}
		numbers <- first + uint64(n)
	}
	close(numbers)
	workers.Wait()
	t.Logf("%d rounds from number %d on, in %s", s.rounds, first, time.Since(began).Round(time.Second))
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%5d %s", s.counts[what], what)
	}
}

// soak is what the rounds share.
type soak struct {
	t *testing.T

	mu     sync.Mutex
	whole  map[string]*extent
	rounds int
	counts map[string]int
}

// extent is how long a script is that nobody disturbs.
type extent struct {
	once     sync.Once
	requests int
	time     time.Duration
}

func (s *soak) count(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[fmt.Sprintf(format, args...)]++
}

// extentOf measures a script once.
func (s *soak) extentOf(t *testing.T, p soakProtocol, session bool) *extent {
	t.Helper()
	name := fmt.Sprint(p.name, session)
	s.mu.Lock()
	e := s.whole[name]
	if e == nil {
		e = &extent{}
		s.whole[name] = e
	}
	s.mu.Unlock()
	e.once.Do(func() {
		began := time.Now()
		v := newVictim(t, p, session, &trigger{})
		v.script(t)
		e.requests, e.time = v.trigger.requests(), time.Since(began)
		if v.acknowledged != v.steps()[len(v.steps())-1] || e.requests == 0 {
			t.Errorf("%s: nobody disturbed the script, and it got to %q after %d requests: %s", p.name, v.acknowledged, e.requests, v.last)
		}
		v.works(t)
		if live := v.live(t); live > p.live {
			t.Errorf("%s: nobody disturbed the script, and there are %d live credentials", p.name, live)
		}
	})
	return e
}

// round kills one process.
func (s *soak) round(t *testing.T, n uint64) {
	random := rand.New(rand.NewPCG(n, 0))
	all := soakProtocols()
	p := all[n%uint64(len(all))]
	session := random.IntN(2) == 0
	whole := s.extentOf(t, p, session)
	if t.Failed() || whole.requests == 0 {
		return
	}
	tr := aim(random, whole)
	v := newVictim(t, p, session, tr)
	v.script(t)
	if !tr.fired() {
		v.kill() // it was faster than the one that was measured
		tr.how = "when all was done"
	}
	during := v.during
	if v.acknowledged == during {
		during = "nothing"
	}
	t.Logf("%s, session %v: killed %s, during %s; %q was acknowledged", p.name, session, tr, during, v.acknowledged)
	found := v.goOn(t, during)
	if t.Failed() {
		t.Logf("repeat it with: go test -run Soak ./cmd/enlist -soak 1 -soak-seed %d\nthe last answer: %s", n, v.last)
	}
	s.mu.Lock()
	s.rounds++
	s.mu.Unlock()
	s.count("%s: killed during %s", p.name, during)
	s.count("killed %s", tr.how)
	for _, f := range found {
		s.count("found: %s", f)
	}
}

// aim chooses when to kill: mostly by a request at the gateway, else at any time
// from the start of the first process on.
func aim(random *rand.Rand, whole *extent) *trigger {
	tr := &trigger{at: 1 + random.IntN(whole.requests), dead: make(chan struct{})}
	switch random.IntN(5) {
	case 0:
		tr.at, tr.how = 0, "at a random time"
		tr.delay = time.Duration(random.Int64N(int64(whole.time)))
	case 1:
		tr.how = "before a request reached the gateway"
	case 2:
		tr.how = "before the gateway's answer left it"
	default:
		tr.how = "a moment after the gateway's answer"
		tr.delay = time.Duration(random.Int64N(int64(25 * time.Millisecond)))
	}
	return tr
}

// soakProtocol is what is done at one of the five.
type soakProtocol struct {
	name, setting string
	handle        string
	register      map[string]any
	path          string // of a route that needs the credential; %s: the agent_id
	rotates       bool
	renews        bool
	revokes       bool
	// kind is that of the credentials that are counted at the gateway.
	kind string
	live int
}

func soakProtocols() []soakProtocol {
	return []soakProtocol{
		{
			name: "agentdoor", setting: "AGENTDOOR_URL", handle: "agentdoor/scout", path: "/whoami",
			register: map[string]any{"agent_name": "scout"}, renews: true, kind: "api-key", live: 1,
		},
		{
			name: "fluxra", setting: "FLUXRA_API_URL", handle: "fluxra/scout", path: "/api/agents/%s",
			register: map[string]any{"agent_name": "scout"}, rotates: true, renews: true, revokes: true, kind: "key", live: 1,
		},
		{
			name: "lithtrix", setting: "LITHTRIX_API_URL", handle: "lithtrix/scout", path: "/v1/me",
			register: map[string]any{"agent_name": "scout", "owner_identifier": "me@example.com"}, rotates: true, kind: "key", live: 1,
		},
		{
			name: "lona", setting: "LONA_GATEWAY_URL", handle: "lona/scout", path: "/api/v1/strategies",
			register: map[string]any{"agent_id": "scout", "agent_name": "Scout"}, rotates: true, kind: "token", live: 1,
		},
		{
			name: "lumina", setting: "LUMINA_API_URL", handle: "lumina/scout", path: "/api/v1/agent/keys",
			register: map[string]any{"label": "scout"}, rotates: true, revokes: true, kind: "key", live: 1,
		},
	}
}

// steps returns what the script does, in order.
func (v *victim) steps() []string {
	steps := []string{"register", "use"}
	if v.renews {
		steps = append(steps, "renew")
	}
	if v.rotates {
		steps = append(steps, "rotate", "use again")
	}
	if v.revokes {
		steps = append(steps, "revoke")
	}
	return steps
}

// script does it all, until the process is killed.
func (v *victim) script(t *testing.T) {
	t.Helper()
	v.trigger.begin(v)
	for _, step := range v.steps() {
		v.during = step
		if step == "revoke" {
			// It is a person's to say so, and a script's.
			v.end()
			v.session = false
		}
		answer, ok := v.step(t, step)
		if !ok {
			return
		}
		if answer.failed || strings.Contains(step, "use") && answer.status() != 200 {
			if !v.trigger.fired() {
				t.Errorf("%s: %s failed: %s", v.name, step, v.last)
			}
			return
		}
		v.acknowledged = step
	}
	v.end()
}

// step does one step of the script.
func (v *victim) step(t *testing.T, step string) (told, bool) {
	t.Helper()
	switch step {
	case "register":
		return v.tool(t, v.name+"_register_agent", v.register)
	case "rotate", "revoke":
		return v.tool(t, step+"_credential", map[string]any{"credential": v.handle})
	case "renew":
		v.trigger.expire() // the gateway says 401 once
	}
	return v.use(t, v.handle)
}

func (v *victim) use(t *testing.T, handle string) (told, bool) {
	t.Helper()
	path := v.path
	if strings.Contains(path, "%s") {
		path = fmt.Sprintf(path, v.agentID)
	}
	return v.tool(t, "send_request", map[string]any{"credential": handle, "method": "GET", "path": path})
}

// works checks what was left when nobody disturbed the script.
func (v *victim) works(t *testing.T) {
	t.Helper()
	defer v.restart()()
	answer, ok := v.use(t, v.handle)
	if works := ok && answer.status() == 200; works == v.revokes {
		t.Errorf("%s: after the whole script the credential works: %v; %s", v.name, works, v.last)
	}
}

// goOn is what another process finds, and does about it. It returns that in
// words, for the figures.
func (v *victim) goOn(t *testing.T, during string) (found []string) {
	t.Helper()
	open := v.unfinished(t)
	if open > 0 {
		found = append(found, "something unfinished in the journal")
	}
	defer v.restart()()
	listed, ok := v.tool(t, "list_credentials", map[string]any{})
	if !ok || listed.failed {
		t.Errorf("list_credentials: %s", v.last)
		return found
	}
	state := listed.state(v.handle)
	found = append(found, v.name+": listed as "+state)
	if v.acknowledged != "" && state == "nothing" {
		t.Errorf("%s was acknowledged, and nothing is stored", v.acknowledged)
		return found
	}
	handle := v.handle
	if v.acknowledged == "" {
		handle, found = v.again(t, during, found)
	}
	used, ok := v.use(t, handle)
	switch works := ok && used.status() == 200; {
	case v.acknowledged == "revoke" && works:
		t.Error("a revocation was acknowledged, and the credential works")
	case v.acknowledged == "revoke":
		return found
	case !works:
		handle, found = v.remedied(t, during, found)
	default:
		found = append(found, "it works")
	}
	if live := v.live(t); live > v.soakProtocol.live && handle == v.handle {
		t.Errorf("the gateway has %d live credentials, want %d", live, v.soakProtocol.live)
	}
	if v.unfinished(t) > 0 {
		t.Error("something is still unfinished in the journal")
	}
	return found
}

// again registers the agent again when the first process had not said that it is
// registered.
func (v *victim) again(t *testing.T, during string, found []string) (string, []string) {
	t.Helper()
	done, ok := v.tool(t, v.name+"_register_agent", v.register)
	if ok && !done.failed {
		return v.handle, append(found, "registered again with the same arguments")
	}
	t.Errorf("registering again: %s", v.last)
	return v.handle, found
}

// remedied goes on with a credential that does not work: that may be only when its
// revocation was under way, and then it is listed as revoked.
func (v *victim) remedied(t *testing.T, during string, found []string) (string, []string) {
	t.Helper()
	said := v.last
	listed, ok := v.tool(t, "list_credentials", map[string]any{})
	state := listed.state(v.handle)
	if !ok || during != "revoke" || state == "active" {
		t.Errorf("the credential, listed as %s, does not work: %s", state, said)
		return v.handle, found
	}
	tool := v.name + "_register_agent"
	done, ok := v.tool(t, tool, v.register)
	if !ok || done.failed {
		t.Errorf("%s after a revocation: %s", tool, v.last)
		return v.handle, found
	}
	if used, ok := v.use(t, v.handle); !ok || used.status() != 200 {
		t.Errorf("registered after a revocation, it does not work: %s", v.last)
	}
	return v.handle, append(found, v.name+": revoked, and then "+tool)
}

// newVictim returns processes that can be killed, with a gateway and a home of
// their own.
func newVictim(t *testing.T, p soakProtocol, session bool, tr *trigger) *victim {
	t.Helper()
	v := &victim{soakProtocol: p, session: session, trigger: tr, home: t.TempDir(), leaks: os.Getenv(leakscan.Variable)}
	v.gw = gatewaytest.New(t, gatewaytest.Config(tr.stand))
	if err := os.Mkdir(v.temp(), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.kill()
		keepForScan(t, v.home)
	})
	return v
}
