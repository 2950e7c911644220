package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// fluxraToRecover registers an agent whose email is verified.
func fluxraToRecover(t *testing.T, gw *gatewaytest.Gateway, f *fixture, agent string) credstore.Key {
	t.Helper()
	r, err := f.Fluxra.Register(t.Context(), gateway.FluxraRegistration{AgentName: agent, Email: agent + "@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	link := mailed(t, gw, `http\S+/api/auth/verify-email\?token=\S+`)
	gw.Issued(link[strings.Index(link, "evt_"):])
	if _, err := f.Fluxra.VerifyEmail(t.Context(), r.Key, link); err != nil {
		t.Fatal(err)
	}
	return r.Key
}

// sentCode has a recovery code sent and returns it.
func sentCode(t *testing.T, gw *gatewaytest.Gateway, f *fixture, agent string) string {
	t.Helper()
	if _, err := f.Fluxra.RecoverRequest(t.Context(), agent+"@example.com"); err != nil {
		t.Fatal(err)
	}
	return mailed(t, gw, `\b[0-9]{6}\b`)
}

// TestARecoveryThatIsStopped stops a process at every step of recovering an
// account, one that it knows and one that it does not, and goes on with another.
func TestARecoveryThatIsStopped(t *testing.T) {
	for name, known := range map[string]bool{"a stored account": true, "an account of another machine": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gw := gatewaytest.New(t, gatewaytest.At(start))
			for n := 1; ; n++ {
				stop := &halt{at: n}
				stopRecovery(t, gw, fmt.Sprintf("agent-%d", n), stop, known)
				if t.Failed() {
					t.Fatalf("stopped %q", stop.steps[len(stop.steps)-1])
				}
				if !stop.stopped {
					if n < 10 {
						t.Fatalf("there were only %d steps: %q", len(stop.steps), stop.steps)
					}
					return
				}
				gw.Clock.Advance(2 * time.Hour) // the limits of registering and of mail
			}
		})
	}
}

func stopRecovery(t *testing.T, gw *gatewaytest.Gateway, agent string, stop *halt, known bool) {
	t.Helper()
	s := setup{home: t.TempDir(), store: credstore.NewMemory(gw.Clock.Now)}
	before := fluxraAgainst(t, gw, s)
	k := fluxraToRecover(t, gw, before, agent)
	code := sentCode(t, gw, before, agent)
	if err := before.Close(); err != nil {
		t.Error(err)
	}
	if !known {
		s.home, s.store = t.TempDir(), credstore.NewMemory(gw.Clock.Now)
		k.Agent = before.item(t, k, credstore.KindAPIKey).Attrs["agent_id"]
	}
	halted := s
	halted.store, halted.transport = stoppable{s.store, stop}, stop
	first := fluxraAgainst(t, gw, halted)
	first.OnJournal(func(step string) error { return stop.step("before the journal says %s", step) })
	_, recoverErr := first.Fluxra.RecoverVerify(t.Context(), agent+"@example.com", code)
	if err := first.Close(); err != nil {
		t.Error(err)
	}

	f := fluxraAgainst(t, gw, s)
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := f.Lifecycle.Heal(t.Context()); err != nil {
		t.Errorf("heal: %v", err)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) > 0 {
		t.Errorf("got %+v unfinished (%v)", open, err)
	}
	lost := recoverErr != nil && !takesRecovery(t, gw, f, k)
	if lost {
		// Only a person can do something, and is told what.
		if known {
			saysThatARecoveryIsLost(t, f, k)
		}
		gw.Clock.Advance(2 * time.Hour)
		again, err := f.Fluxra.RecoverVerify(t.Context(), agent+"@example.com", sentCode(t, gw, f, agent))
		if err != nil || again.Incomplete || again.Key != k {
			t.Errorf("recovering again: got %+v, %v", again, err)
		}
	}
	if !known && !lost && recoverErr != nil && f.item(t, k, credstore.KindAPIKey).State != credstore.StateActive {
		t.Error("what was recovered is not usable")
	}
	if !f.fluxraWorks(t, k) || !takesRecovery(t, gw, f, k) {
		t.Error("the account does not work, or its recovery key does not")
	}
	want := 1
	if !known {
		want = 2 // the other machine has one
	}
	if live := (crashCase{}).count(t, gw, "key", agent); live != want {
		t.Errorf("the gateway has %d live keys of the agent, want %d", live, want)
	}
	all, err := f.Lifecycle.Standings(t.Context())
	n := slices.IndexFunc(all, func(s gateway.Standing) bool { return s.Key == k })
	if err != nil || n < 0 || all[n].Now != credstore.StateActive || all[n].Reason != "" {
		t.Errorf("it stands %+v, %v", all, err)
	}
}

// saysThatARecoveryIsLost checks that the credential works on, and that its
// standing says what a person can do.
func saysThatARecoveryIsLost(t *testing.T, f *fixture, k credstore.Key) {
	t.Helper()
	all, err := f.Lifecycle.Standings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(all, func(s gateway.Standing) bool { return s.Key == k })
	if n < 0 || !all[n].UsableNow() || !strings.Contains(all[n].Remedy, "recover the account") {
		t.Errorf("it stands %+v", all)
	}
	if one := f.Lifecycle.Standing(t.Context(), all[n].Info); one.Remedy != all[n].Remedy {
		t.Errorf("got %+v, want the same of one", one)
	}
	if !f.fluxraWorks(t, k) {
		t.Error("it does not work")
	}
}

// takesRecovery reports whether the gateway takes the stored recovery key.
func takesRecovery(t *testing.T, gw *gatewaytest.Gateway, f *fixture, k credstore.Key) bool {
	t.Helper()
	k.Kind = credstore.KindRecovery
	c, err := f.store.Get(t.Context(), k)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, gw.URL+"/api/agents/"+c.Attrs["agent_id"]+"/keys/none", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(c.Attrs["agent_id"], c.Secret.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusNotFound
}
