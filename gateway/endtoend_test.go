package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// against returns a client of a real gateway that goes by the gateway's clock.
func against(t *testing.T, gw *gatewaytest.Gateway, s setup) *fixture {
	t.Helper()
	env := map[string]string{"LONA_GATEWAY_URL": gw.URL}
	for name, value := range s.env {
		env[name] = value
	}
	s.env, s.now = env, gw.Clock.Now
	f := newFixture(t, s)
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), gw.Secrets()...) })
	return f
}

func (f *fixture) works(t *testing.T, k credstore.Key) bool {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get(strategiesPath))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status == http.StatusOK
}

// accepts reports whether a gateway takes a token of Lona's, however the client
// half would use it.
func accepts(t *testing.T, gw *gatewaytest.Gateway, agent, token string) bool {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, gw.URL+strategiesPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(wire.LonaKeyHeader, token)
	req.Header.Set(wire.LonaUserHeader, agent)
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func TestEndToEndWithAnInvite(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Strategies(wire.LonaStrategy{ID: "s1", Name: "One"}))
	f := against(t, gw, setup{})

	r := f.register(t, "my-agent")

	if life := r.ExpiresAt.Sub(gw.Clock.Now()); life < 29*24*time.Hour || life > 31*24*time.Hour {
		t.Errorf("got a token for %v, want 30 days", life)
	}
	if r.Attrs["permissions"] != "*" || r.KeyID == "" {
		t.Errorf("got %+v", r)
	}
	list, err := f.Lona.Strategies(t.Context(), r.Key)
	if err != nil || !strings.Contains(string(list), `"s1"`) {
		t.Errorf("got %s (%v), want the strategy", list, err)
	}
	if !f.works(t, r.Key) {
		t.Error("the token does not work")
	}
}

func TestEndToEndWithTheSecret(t *testing.T) {
	secret := "1f0e2d3c4b5a69788796a5b4c3d2e1f0"
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret, "AGENT_INVITE_ENABLED": "false"}))
	days := 5

	f := against(t, gw, setup{env: map[string]string{"LONA_AGENT_REGISTRATION_SECRET": secret}})
	r, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{AgentID: "my-agent", AgentName: "A", ExpiresInDays: &days})
	if err != nil {
		t.Fatal(err)
	}
	if !f.works(t, r.Key) || r.ExpiresAt.Sub(gw.Clock.Now()).Round(time.Hour) != 5*24*time.Hour {
		t.Errorf("got %+v, want a token for 5 days that works", r)
	}

	without := against(t, gw, setup{})
	_, err = without.Lona.Register(t.Context(), named("other-agent"))
	wantError(t, err, "invites_disabled")
	wrong := against(t, gw, setup{env: map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "not-the-secret"}})
	_, err = wrong.Lona.Register(t.Context(), named("other-agent"))
	if e := wantError(t, err, "invalid_registration_secret"); e.Status != 401 || e.Sent {
		t.Errorf("got %+v", e)
	}
}

func TestEndToEndRotation(t *testing.T) {
	for _, policy := range []string{"open", "proof"} {
		t.Run(policy, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_INVITE_REBIND": policy}))
			f := against(t, gw, setup{})
			r := f.register(t, "my-agent")
			old := f.secret(t, r.Key)

			rotated, err := f.Lifecycle.Rotate(t.Context(), r.Key)
			if err != nil {
				t.Fatal(err)
			}

			if rotated.KeyID == r.KeyID || !f.works(t, r.Key) {
				t.Errorf("got %+v, want another token that works", rotated)
			}
			if accepts(t, gw, "my-agent", old) {
				t.Error("the old token still works")
			}
		})
	}
}

func TestEndToEndAnExpiredTokenIsRegisteredAgain(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Standalone()) // asks for the last token
	f := against(t, gw, setup{})
	r := f.register(t, "my-agent")
	gw.Clock.Advance(31 * 24 * time.Hour)
	if accepts(t, gw, "my-agent", f.secret(t, r.Key)) {
		t.Fatal("the token has not expired")
	}
	if _, err := f.Lifecycle.Resolve(t.Context(), ""); err == nil {
		t.Error("an expired credential counts as usable")
	}

	if !f.works(t, r.Key) {
		t.Error("the token was not renewed when it was used")
	}

	renewed := f.secret(t, r.Key)
	gw.Clock.Advance(31 * 24 * time.Hour)
	again := f.register(t, "my-agent")
	if again.KeyID == r.KeyID || f.secret(t, r.Key) == renewed || !f.works(t, again.Key) {
		t.Errorf("got %+v, want a new token that works", again)
	}
	stranger := against(t, gw, setup{})
	_, err := stranger.Lona.Register(t.Context(), named("my-agent"))
	if e := wantError(t, err, "agent_exists"); e.Status != 409 || e.Sent {
		t.Errorf("got %+v", e)
	}
}

func TestEndToEndInvitesRunOut(t *testing.T) {
	gw := gatewaytest.New(t)
	f := against(t, gw, setup{})
	for _, agent := range []string{"agent-1", "agent-2", "agent-3"} {
		f.register(t, agent)
	}

	_, err := f.Lona.Register(t.Context(), named("agent-4"))

	e := wantError(t, err, "rate_limited")
	if e.RetryAfter <= 0 || e.RetryAfter > time.Hour || e.Message == "" {
		t.Errorf("got %+v, want how long to wait", e)
	}
	if len(f.slept) != 0 {
		t.Errorf("paused %v, want the wait reported at once", f.slept)
	}
}

// lossy is a transport that loses the first answers to registrations: the
// gateway has acted, and nobody hears of it.
type lossy struct {
	mu   sync.Mutex
	lose int
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && r.URL.Path == registerPath && l.lose > 0 {
		l.lose--
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

func TestEndToEndALostAnswerIsMadeUpFor(t *testing.T) {
	gw := gatewaytest.New(t)
	f := against(t, gw, setup{transport: &lossy{lose: 1}})

	r := f.register(t, "my-agent")

	if !f.works(t, r.Key) {
		t.Error("the token does not work")
	}
	var issued int
	for _, secret := range gw.Secrets() {
		if strings.HasPrefix(secret, "lona_partner_") {
			issued++
		}
	}
	if issued != 2 {
		t.Errorf("the gateway issued %d tokens, want 2", issued)
	}
}

// TestEndToEndALostAnswerUnderProof shows what the idempotency key is for: the
// token that would prove who the agent is was in the answer that was lost.
func TestEndToEndALostAnswerUnderProof(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Standalone())
	lose := &lossy{lose: 1}
	f := against(t, gw, setup{transport: lose})

	r := f.register(t, "my-agent")

	if !f.works(t, r.Key) {
		t.Error("the token does not work")
	}
	gw.Clock.Advance(time.Hour) // for more invites
	lose.lose = 1
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil || !f.works(t, r.Key) {
		t.Errorf("rotating: got %v, want a token that works", err)
	}
	stranger := against(t, gw, setup{})
	_, err := stranger.Lona.Register(t.Context(), named("my-agent"))
	wantError(t, err, "agent_exists")
}

func TestEndToEndManyAtOnce(t *testing.T) {
	gw := gatewaytest.New(t)
	store := newTurnstile(20)
	f := against(t, gw, setup{store: store, transport: &held{until: store.all}})
	var wg sync.WaitGroup
	ids := make([]string, 20)
	for i := range ids {
		wg.Go(func() { ids[i] = f.register(t, "my-agent").KeyID })
	}
	wg.Wait()

	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("got the key ids %v, want the same 20 times", ids)
		}
	}
	if !f.works(t, lonaKey(gw.URL, "my-agent")) {
		t.Error("the stored token does not work")
	}
}

// held is a transport that lets nothing through before its time.
type held struct{ until chan struct{} }

func (h *held) RoundTrip(r *http.Request) (*http.Response, error) {
	<-h.until
	return http.DefaultTransport.RoundTrip(r)
}
