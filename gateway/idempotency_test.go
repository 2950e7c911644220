package gateway_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// keysOf returns the idempotency keys of the requests of a path, and checks that
// each request has one.
func keysOf(t *testing.T, s *service, path string) []string {
	t.Helper()
	var keys []string
	for _, r := range s.seen(path) {
		sent := r.Header.Values("Idempotency-Key")
		if len(sent) != 1 || len(sent[0]) != 66 {
			t.Fatalf("got the keys %q, want one of 64 characters in quotes", sent)
		}
		keys = append(keys, strings.Trim(sent[0], `"`))
	}
	return keys
}

func TestTheSameAttemptHasTheSameKey(t *testing.T) {
	s := newLithtrix(t).on(ltxRegisterPath, raw(""))
	set := ltxSetup(s.URL)
	set.store = credstore.NewMemory(frozen)
	first := newFixture(t, set)
	_, err := first.Lithtrix.Register(t.Context(), pair("my-agent", owner))
	noSecret(t, "the error", err.Error(), keysOf(t, s, ltxRegisterPath)...)

	s.on(ltxRegisterPath, ltxIssued(201, 1))
	second := newFixture(t, set) // another process
	k := second.ltxRegister(t, pair("my-agent", owner)).Key
	second.ltxRegister(t, pair("your-agent", owner))
	keys := keysOf(t, s, ltxRegisterPath)
	if len(keys) != 4 || keys[1] != keys[0] || keys[2] != keys[0] || keys[3] == keys[0] {
		t.Errorf("got the keys %q, want one for the first three, and another for another agent", keys)
	}
	for n := 2; n < 4; n++ {
		s.on(ltxRotatePath, ltxIssued(200, n))
		if _, err := second.Lifecycle.Rotate(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	keys = append(keys, keysOf(t, s, ltxRotatePath)...)
	if keys[4] == keys[5] || keys[4] == keys[0] {
		t.Errorf("got the keys %q, want another for each rotation", keys)
	}
	for _, f := range []*fixture{first, second} {
		noSecret(t, "the log", f.log.String(), keys...)
	}
	// What a service repeats of it is masked.
	if got, err := second.Scrubber.Scrub(t.Context(), "you sent "+keys[5]); err != nil || strings.Contains(got, keys[5]) {
		t.Errorf("got %q, %v, want the key masked", got, err)
	}
}

func TestAnotherEmailIsAnotherAttemptAtFluxra(t *testing.T) {
	s := newService(t).on("/api/auth/register", raw(""))
	f := newFixture(t, setup{env: map[string]string{"FLUXRA_API_URL": s.URL}})
	for _, email := range []string{"bot@example.com", "Bot@example.com", "other@example.com"} {
		r := weather()
		r.Email = email
		if _, err := f.Fluxra.Register(t.Context(), r); err == nil {
			t.Fatal("got no error")
		}
	}
	if keys := keysOf(t, s, "/api/auth/register"); len(keys) != 3 || keys[0] != keys[1] || keys[2] == keys[0] {
		t.Errorf("got the keys %q, want another for another email only, and each once", keys)
	}
}

// TestASeedIsNeverSent registers where the answer is lost, so that a seed is
// stored, and then does everything that may be done with a credential.
func TestASeedIsNeverSent(t *testing.T) {
	s := newService(t)
	s.otherwise(raw(""))
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LITHTRIX_API_URL": s.URL, "FLUXRA_API_URL": s.URL}})
	s.on(invitePath, reply(201, `{"data":{"invite_code":"`+inviteCode+`"}}`))
	if _, err := f.Lona.Register(t.Context(), named("my-agent")); err == nil {
		t.Fatal("got no error")
	}
	if _, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner)); err == nil {
		t.Fatal("got no error")
	}
	if _, err := f.Fluxra.Register(t.Context(), weather()); err == nil {
		t.Fatal("got no error")
	}
	stored, err := f.store.List(t.Context(), "")
	if err != nil || len(stored) != 3 {
		t.Fatalf("stored %v, %v, want three that are pending", stored, err)
	}
	var seeds []string
	for _, i := range stored {
		seed := f.secret(t, i.Key)
		if len(seed) < 56 || i.State != credstore.StatePending {
			t.Errorf("stored %+v with a seed of %d characters", i, len(seed))
		}
		seeds = append(seeds, seed)
		var refused *gateway.RefusedError
		if _, err := f.Lifecycle.Do(t.Context(), i.Key, get("/x")); !errors.As(err, &refused) || refused.Tool == "" {
			t.Errorf("%s: got %v, want it refused, and the tool named", i.Protocol, err)
		}
		if _, err := f.Lifecycle.Environ(t.Context(), i.Key, nil); err == nil {
			t.Errorf("%s: a program was given a seed", i.Protocol)
		}
		if _, err := f.Lifecycle.Rotate(t.Context(), i.Key); err == nil {
			t.Errorf("%s: rotated without a secret", i.Protocol)
		}
	}
	for _, r := range s.seen("") {
		for name, values := range r.Header {
			noSecret(t, "the header "+name, strings.Join(values, " "), seeds...)
		}
		if got := r.Header.Values("X-Api-Key"); len(got) != 0 {
			t.Errorf("sent X-Api-Key without a token")
		}
	}
	noSecret(t, "the log", f.log.String(), seeds...)
}

func TestWhatTakesThePlaceOfASeedIsMasked(t *testing.T) {
	store := credstore.NewMemory(frozen)
	f := newFixture(t, setup{store: store})
	c := credstore.Credential{Secret: credstore.NewSecret("enlist-begun-" + strings.Repeat("a", 43)), Info: credstore.Info{
		Key: lonaKey("https://gateway.lona.agency", "my-agent"), State: credstore.StatePending, CreatedAt: start,
	}}
	f.put(t, c)
	if _, err := f.Scrubber.Scrub(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	const issued = "another process stored this secret"
	c.Secret, c.State = credstore.NewSecret(issued), credstore.StateActive
	f.put(t, c)
	if got, err := f.Scrubber.Scrub(t.Context(), "it says: "+issued); err != nil || strings.Contains(got, issued) {
		t.Errorf("got %q, %v, want it masked", got, err)
	}
}

func TestFluxraALostRegistrationLeavesNoSecondAccount(t *testing.T) {
	gw := gatewaytest.New(t)
	store := credstore.NewMemory(gw.Clock.Now)
	first := fluxraAgainst(t, gw, setup{store: store, transport: &losing{path: "/api/auth/register", acts: true, left: 1}})
	if _, err := first.Fluxra.Register(t.Context(), weather()); err == nil {
		t.Fatal("got no error")
	}
	second := fluxraAgainst(t, gw, setup{store: store}) // another process
	r := second.enrol(t)
	if !second.fluxraWorks(t, r.Key) {
		t.Error("the account does not work")
	}
	agents := make(map[string]int)
	for _, e := range gw.Audit(t) {
		if e.Name == "agent_registered" {
			agents[e.Agent]++
		}
	}
	if len(agents) != 1 || agents[gateway.FluxraAgentID(r.Info)] != 2 {
		t.Errorf("got the agents %v, want one, registered twice", agents)
	}
}

// stopsAt runs a process that is stopped when a path is answered, and returns
// another one over the same store and journal.
func stopsAt(t *testing.T, s *service, path string, do func(f *fixture)) *fixture {
	t.Helper()
	set := ltxSetup(s.URL)
	store := credstore.NewMemory(frozen)
	stop := new(halt)
	set.home, set.store = t.TempDir(), stoppable{store, stop}
	set.transport = stopping{stop, path}
	first := newFixture(t, set)
	first.OnJournal(func(string) error { return stop.alive() })
	do(first)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	set.store, set.transport = store, nil
	second := newFixture(t, set)
	t.Cleanup(func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	return second
}

// stopping is the network of a process that is stopped when a path is answered.
type stopping struct {
	stop *halt
	path string
}

func (s stopping) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := s.stop.alive(); err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && r.URL.Path == s.path {
		_ = resp.Body.Close()
		s.stop.mu.Lock()
		s.stop.stopped = true
		s.stop.mu.Unlock()
		return nil, errHalted
	}
	return resp, err
}

// TestLithtrixHealsWhereKeysAreIgnored shows what there is to do at a service
// that knows no idempotency keys: to say what is lost, once.
func TestLithtrixHealsWhereKeysAreIgnored(t *testing.T) {
	t.Run("a registration", func(t *testing.T) {
		s := newLithtrix(t)
		f := stopsAt(t, s, ltxRegisterPath, func(f *fixture) { _, _ = f.Lithtrix.Register(t.Context(), pair("my-agent", owner)) })
		s.on(ltxRegisterPath, ltxRefused(409, "AGENT_ALREADY_EXISTS"))
		wantError(t, f.Lifecycle.Heal(t.Context()), "AGENT_ALREADY_EXISTS")
		wantSettled(t, f, credstore.StatePending)
		if keys := keysOf(t, s, ltxRegisterPath); len(keys) != 2 || keys[0] != keys[1] {
			t.Errorf("got the keys %q, want the same twice", keys)
		}
	})
	t.Run("a rotation that had happened", func(t *testing.T) {
		s := newLithtrix(t)
		f := stopsAt(t, s, ltxRotatePath, func(f *fixture) {
			_, _ = f.Lifecycle.Rotate(t.Context(), f.ltxRegister(t, pair("my-agent", owner)).Key)
		})
		dead := ltxRefused(401, "INVALID_API_KEY")
		s.on(ltxMePath, dead).on(ltxRotatePath, dead)
		wantError(t, f.Lifecycle.Heal(t.Context()), gateway.CodeKeyLost)
		wantSettled(t, f, credstore.StateRevoked)
	})
	t.Run("a rotation that had not", func(t *testing.T) {
		s := newLithtrix(t)
		f := stopsAt(t, s, ltxRotatePath, func(f *fixture) {
			_, _ = f.Lifecycle.Rotate(t.Context(), f.ltxRegister(t, pair("my-agent", owner)).Key)
		})
		s.on(ltxMePath, reply(200, `{"agent_id":"x","agent_name":"my-agent"}`))
		if err := f.Lifecycle.Heal(t.Context()); err != nil {
			t.Error(err)
		}
		wantSettled(t, f, credstore.StateActive)
		if got := len(s.seen(ltxRotatePath)); got != 1 {
			t.Errorf("rotated %d times, want no second time", got)
		}
	})
	t.Run("a rotation while the service is down", func(t *testing.T) {
		s := newLithtrix(t)
		f := stopsAt(t, s, ltxRotatePath, func(f *fixture) {
			_, _ = f.Lifecycle.Rotate(t.Context(), f.ltxRegister(t, pair("my-agent", owner)).Key)
		})
		s.on(ltxMePath, raw(""))
		wantError(t, f.Lifecycle.Heal(t.Context()), gateway.CodeUnreachable)
		if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 1 {
			t.Errorf("got %+v, %v, want it unfinished still", open, err)
		}
	})
}

// wantSettled checks that nothing is unfinished, and how the one credential stands.
func wantSettled(t *testing.T, f *fixture, state credstore.State) {
	t.Helper()
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v, %v unfinished", open, err)
	}
	all, err := f.Lifecycle.Standings(t.Context())
	if err != nil || len(all) != 1 || all[0].Now != state {
		t.Errorf("got %+v, %v, want one that is %s", all, err, state)
	}
}
