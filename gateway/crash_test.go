package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// errHalted is what everything of a process answers once it has been stopped.
var errHalted = errors.New("the process was stopped")

// halt stops a process at the nth step: a write to the store or the journal,
// before it or after it, or a request, before it is sent or after its answer came.
// From then on nothing that the process does reaches anything.
type halt struct {
	mu      sync.Mutex
	at      int // 0: never
	steps   []string
	stopped bool
}

func (s *halt) step(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errHalted
	}
	s.steps = append(s.steps, fmt.Sprintf(format, args...))
	if len(s.steps) == s.at {
		s.stopped = true
		return errHalted
	}
	return nil
}

func (s *halt) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errHalted
	}
	return nil
}

// stoppable is a store of a process that can be stopped.
type stoppable struct {
	credstore.Store
	stop *halt
}

func (s stoppable) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	if err := s.stop.alive(); err != nil {
		return credstore.Credential{}, err
	}
	return s.Store.Get(ctx, k)
}

func (s stoppable) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	if err := s.stop.alive(); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, protocol)
}

func (s stoppable) Put(ctx context.Context, c credstore.Credential) error {
	if err := s.stop.step("before %s is stored (%s)", c.Kind, c.State); err != nil {
		return err
	}
	err := s.Store.Put(ctx, c)
	return errors.Join(err, s.stop.step("after %s is stored (%s)", c.Kind, c.State))
}

func (s stoppable) Delete(ctx context.Context, k credstore.Key) error {
	if err := s.stop.step("before %s is deleted", k.Kind); err != nil {
		return err
	}
	err := s.Store.Delete(ctx, k)
	return errors.Join(err, s.stop.step("after %s is deleted", k.Kind))
}

// RoundTrip implements http.RoundTripper: the network of such a process.
func (s *halt) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := s.step("before %s %s is sent", req.Method, req.URL.Path); err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = s.step("after %s %s is answered", req.Method, req.URL.Path)
	}
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// crashCase is a protocol whose processes are stopped at every step.
type crashCase struct {
	name string
	env  map[string]string
	gw   []gatewaytest.Option
	// setting is the variable that says where the service is.
	setting string
	// register registers an agent; with the same name it is the same agent.
	register func(ctx context.Context, f *fixture, gw *gatewaytest.Gateway, agent string) (credstore.Info, error)
	// path is of a route that needs the credential; {agent_id} in it is the
	// service's own name for the agent.
	path string
	// later is how much later the process uses the credential than it registered
	// it: so much that it is renewed. 0: at once.
	later time.Duration
	// kind is that of the credentials that are counted at the gateway, and live
	// how many of an agent there may be.
	kind string
	live int
	// account is the kind of credential that the gateway has one of for each
	// registration; "": kind.
	account string
	// owner returns the name that the gateway has for an agent. nil: its own.
	owner func(f *fixture, agent string) string
	// remedy reports whether an error of registering again is one that a person
	// has a remedy for, which its text names. nil: there is no such error.
	remedy func(stopped string, err error) bool
	// orphan reports whether a process that was stopped there leaves something at
	// the service that nobody can find again. nil: nowhere.
	orphan func(stopped string) bool
}

func TestAProcessThatIsStopped(t *testing.T) {
	for _, c := range crashCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			gw := gatewaytest.New(t, append(c.gw, gatewaytest.At(start))...)
			runs := 0
			run := func(stops ...*halt) (left bool) {
				runs++
				left = c.run(t, gw, fmt.Sprintf("agent-%d", runs), stops)
				if t.Failed() {
					t.Fatalf("stopped %q", stopped(stops))
				}
				gw.Clock.Advance(2 * time.Hour) // the limits of registering
				return left
			}
			for n := 1; ; n++ {
				first := &halt{at: n}
				left := run(first)
				if !first.stopped {
					if n < 5 {
						t.Fatalf("there were only %d steps: %q", len(first.steps), first.steps)
					}
					return
				}
				// Where something was left half-done, the process that finishes it is
				// stopped, too: somewhere else in each run.
				if left {
					run(&halt{at: n}, &halt{at: 1 + n*7%23})
				}
			}
		})
	}
}

// stopped returns where processes were stopped.
func stopped(stops []*halt) []string {
	var last []string
	for _, s := range stops {
		if s.stopped {
			last = append(last, s.steps[len(s.steps)-1])
		}
	}
	return last
}

// run does everything with one agent in a process that is stopped, goes on in
// others that are stopped, and at last in one that is not. It returns whether the
// first one left something half-done.
func (c crashCase) run(t *testing.T, gw *gatewaytest.Gateway, agent string, stops []*halt) (left bool) {
	t.Helper()
	home, store := t.TempDir(), credstore.NewMemory(gw.Clock.Now)
	env := map[string]string{c.setting: gw.URL}
	for name, value := range c.env {
		env[name] = value
	}
	s := setup{env: env, home: home, now: gw.Clock.Now}
	acknowledged := ""
	for n, stop := range stops {
		s.store, s.transport = stoppable{store, stop}, stop
		f := newFixture(t, s)
		f.OnJournal(func(step string) error { return stop.step("before the journal says %s", step) })
		if n == 0 {
			acknowledged = c.script(t, f, gw, agent)
		} else {
			acknowledged = c.again(t, f, gw, agent, acknowledged)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if len(stops) > 1 {
			gw.Clock.Advance(2 * time.Hour)
		}
	}

	s.store, s.transport = store, nil
	last := newFixture(t, s)
	defer func() {
		if err := last.Close(); err != nil {
			t.Error(err)
		}
	}()
	open, err := last.Unfinished(t.Context())
	if err != nil {
		t.Error(err)
	}
	if err := last.Start(t.Context()); err != nil {
		t.Errorf("start: %v", err)
	}
	if err := last.Lifecycle.Heal(t.Context()); err != nil {
		t.Logf("heal: %v", err) // what it could not do, the next use says
	}
	c.goOn(t, last, gw, agent, stopped(stops), acknowledged)
	return len(open) > 0
}

// script is what the process does: it returns the last thing that the process
// told somebody was done.
func (c crashCase) script(t *testing.T, f *fixture, gw *gatewaytest.Gateway, agent string) (acknowledged string) {
	t.Helper()
	info, err := c.register(t.Context(), f, gw, agent)
	if err != nil {
		return ""
	}
	gw.Clock.Advance(c.later)
	if r, err := f.Lifecycle.Do(t.Context(), info.Key, c.request(info)); err != nil || r.Status != http.StatusOK {
		return "register"
	}
	_, err = f.Lifecycle.Rotate(t.Context(), info.Key)
	var unsupported *gateway.UnsupportedError
	if err != nil && !errors.As(err, &unsupported) {
		return "register"
	}
	if r, err := f.Lifecycle.Do(t.Context(), info.Key, c.request(info)); err != nil || r.Status != http.StatusOK {
		return "rotate"
	}
	err = f.Lifecycle.Revoke(t.Context(), info.Key)
	if err != nil {
		return "rotate" // there may be no such call
	}
	return "revoke"
}

// again is what a process does that finds what another one left, and is stopped,
// too.
func (c crashCase) again(t *testing.T, f *fixture, gw *gatewaytest.Gateway, agent, acknowledged string) string {
	t.Helper()
	_ = f.Start(t.Context())
	_ = f.Lifecycle.Heal(t.Context())
	if acknowledged != "" {
		return acknowledged
	}
	info, err := c.register(t.Context(), f, gw, agent)
	if err != nil {
		return ""
	}
	_, _ = f.Lifecycle.Do(t.Context(), info.Key, c.request(info))
	return "register"
}

// request returns a request that needs the credential.
func (c crashCase) request(i credstore.Info) gateway.Request {
	return get(strings.ReplaceAll(c.path, "{agent_id}", i.Attrs["agent_id"]))
}

// goOn is what another process finds.
func (c crashCase) goOn(t *testing.T, f *fixture, gw *gatewaytest.Gateway, agent string, stopped []string, acknowledged string) {
	t.Helper()
	standings, err := f.Lifecycle.Standings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(standings, func(s gateway.Standing) bool { return f.Lifecycle.HasHandle(s.Key) })
	if acknowledged != "" && n < 0 {
		t.Fatalf("%s was acknowledged, and nothing is stored", acknowledged)
	}
	if acknowledged == "revoke" {
		c.ended(t, f, standings[n].Info)
		return
	}
	if acknowledged == "" {
		info, err := c.register(t.Context(), f, gw, agent)
		if err != nil {
			if c.remedy == nil || !slices.ContainsFunc(stopped, func(at string) bool { return c.remedy(at, err) }) {
				t.Errorf("registering again: %v", err)
			}
			return
		}
		standings, n = []gateway.Standing{{Info: info}}, 0
	}
	r, err := f.Lifecycle.Do(t.Context(), standings[n].Key, c.request(standings[n].Info))
	if err != nil || r.Status != http.StatusOK {
		c.notWorking(t, f, standings[n], r, err)
		return
	}
	owner := agent
	if c.owner != nil {
		owner = c.owner(f, agent)
	}
	if n := c.count(t, gw, cmp.Or(c.account, c.kind), owner); c.account != "" && n != 1 && !slices.ContainsFunc(stopped, c.mayOrphan) {
		t.Errorf("the gateway has %d registrations of the agent, want 1", n)
	}
	live := c.count(t, gw, c.kind, owner)
	if live == 0 || live > c.live && !slices.ContainsFunc(stopped, c.mayOrphan) {
		t.Errorf("the gateway has %d live credentials of the agent, want %d", live, c.live)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) > 0 {
		t.Errorf("got %+v unfinished (%v)", open, err)
	}
}

// notWorking is fine where a revocation was under way, which is brought to an
// end then, and nowhere else.
func (c crashCase) notWorking(t *testing.T, f *fixture, s gateway.Standing, r gateway.Response, err error) {
	t.Helper()
	now, listErr := f.Lifecycle.Standings(t.Context())
	if listErr != nil {
		t.Fatal(listErr)
	}
	n := slices.IndexFunc(now, func(other gateway.Standing) bool { return other.Key == s.Key })
	if n < 0 || now[n].Now != credstore.StateRevoked {
		t.Errorf("the credential does not work: %d %v; it stands %+v", r.Status, err, now)
	}
}

// ended checks that a credential whose revocation was acknowledged works no more.
func (c crashCase) ended(t *testing.T, f *fixture, i credstore.Info) {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), i.Key, c.request(i))
	if err == nil && r.Status != http.StatusUnauthorized {
		t.Errorf("a revoked credential got %d", r.Status)
	}
}

// mayOrphan reports whether something may be left at the gateway by a process that
// was stopped there.
func (c crashCase) mayOrphan(stopped string) bool { return c.orphan != nil && c.orphan(stopped) }

// count returns how many live credentials of a kind the gateway has of an agent,
// by the name that it registered with.
func (c crashCase) count(t *testing.T, gw *gatewaytest.Gateway, kind, agent string) int {
	t.Helper()
	db, err := sql.Open("sqlite", gw.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	now := gw.Clock.Now().UnixMicro()
	err = db.QueryRowContext(t.Context(), `SELECT count(*) FROM credentials c JOIN agents a ON a.id = c.agent_id
		WHERE c.kind = $1 AND c.revoked_at = 0 AND (c.expires_at = 0 OR c.expires_at > $2)
		AND (a.name = $3 OR a.display_name = $3 OR a.attrs LIKE '%"' || $3 || '"%' OR a.attrs LIKE '%"' || $3 || '\"%')`, kind, now, agent).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// crashCases lists them, a protocol each.
func crashCases() []crashCase {
	return []crashCase{
		agentDoorCrash(),
		fluxraCrash(),
		lonaCrash(),
		lonaSecretCrash(),
		lithtrixCrash(),
		luminaCrash(),
	}
}
