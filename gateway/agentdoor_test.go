package gateway_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The first key pair in RFC 8032, 7.1.
const (
	doorSeed   = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
	doorPublic = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
)

// knownPair is a key pair as a registration that was broken off leaves it.
func knownPair(k credstore.Key) credstore.Credential {
	return credstore.Credential{
		Secret: credstore.NewSecret(doorSeed),
		Info:   credstore.Info{Key: k, State: credstore.StatePending, KeyID: doorPublic},
	}
}

func weatherAssistant() gateway.AgentDoorRegistration {
	return gateway.AgentDoorRegistration{
		ServiceURL: "https://api.example.com", AgentName: "weather-assistant",
		Metadata: map[string]any{"framework": "langchain", "framework_version": "0.1.0", "name": "Weather Assistant"},
	}
}

func TestTranscriptOfAgentDoor(t *testing.T) {
	clock := &ticker{at: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)}
	second := readExchange(t, "agentdoor/client-request.txtar")
	second.request.Header.Set("Authorization", "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.second")
	f := newFixture(t, setup{now: clock.now, transport: replay(t,
		readExchange(t, "agentdoor/client-discovery.txtar"), readExchange(t, "agentdoor/client-register.txtar"),
		readExchange(t, "agentdoor/client-verify.txtar"), readExchange(t, "agentdoor/client-request.txtar"),
		readExchange(t, "agentdoor/client-auth.txtar"), second,
	)})
	k := doorKey("https://api.example.com", "weather-assistant")
	f.put(t, knownPair(k))

	done := f.enlist(t, weatherAssistant())

	if done.Key != k || done.State != credstore.StateActive || done.Reused || done.RateLimit != "1000/1h" || len(done.NotGranted) != 0 {
		t.Errorf("got %+v", done)
	}
	if got, want := gateway.Permissions(done.Info), []string{"weather.read", "forecast.read"}; !slices.Equal(got, want) {
		t.Errorf("got the scopes %v, want %v", got, want)
	}
	if want := (wire.AgentDoorX402{PaymentAddress: "0x742d35Cc6634C0532925a3b844Bc9e7595f0bEb", Network: "base", Currency: "USDC"}); done.X402 != want {
		t.Errorf("got %+v, want %+v", done.X402, want)
	}
	if got, want := f.secret(t, of(k, credstore.KindAPIKey)), "agk_live_abc123..."; got != want {
		t.Errorf("stored the API key %q, want %q", got, want)
	}
	if got, want := f.secret(t, of(k, credstore.KindToken)), "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..."; got != want {
		t.Errorf("stored the token %q, want %q", got, want)
	}
	if got, want := f.Lifecycle.Handle(done.Key), "agentdoor/weather-assistant@api.example.com"; got != want {
		t.Errorf("got the handle %s, want %s", got, want)
	}
	for range 2 {
		if r, err := f.Lifecycle.Do(t.Context(), k, get("/v1/weather")); err != nil || r.Status != 200 {
			t.Errorf("got %+v (%v), want 200", r, err)
		}
		clock.at = time.Date(2024, 1, 1, 0, 50, 0, 0, time.UTC) // the last fifth of the token's hour
	}
	if c, err := f.store.Get(t.Context(), of(k, credstore.KindToken)); err != nil || !c.ExpiresAt.Equal(time.Date(2024, 1, 1, 1, 50, 0, 0, time.UTC)) {
		t.Errorf("got the token's end %v (%v)", c.ExpiresAt, err)
	}
}

func TestTranscriptOfAgentDoorAfterACrash(t *testing.T) {
	clock := &ticker{at: time.Date(2024, 1, 1, 0, 50, 0, 0, time.UTC)}
	f := newFixture(t, setup{now: clock.now, transport: replay(t,
		readExchange(t, "agentdoor/client-discovery.txtar"), readExchange(t, "agentdoor/client-taken.txtar"), readExchange(t, "agentdoor/client-auth.txtar"),
	)})
	k := doorKey("https://api.example.com", "weather-assistant")
	f.put(t, knownPair(k))

	done := f.enlist(t, weatherAssistant())

	if done.State != credstore.StateActive || done.Attrs["agent_id"] != "ag_V1StGXR8_Z5jdHi6B" {
		t.Errorf("got %+v", done)
	}
	if got, want := f.secret(t, of(k, credstore.KindToken)), "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.second"; got != want {
		t.Errorf("stored the token %q, want %q", got, want)
	}
	if _, err := f.store.Get(t.Context(), of(k, credstore.KindAPIKey)); !errors.Is(err, credstore.ErrNotFound) {
		t.Errorf("an API key is stored that never came (%v)", err)
	}
}

func TestAgentDoorRegistersOnceAnAgent(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	r := d.scout()
	r.Metadata, r.X402Wallet = map[string]any{"framework": "x", "depth": 2}, "0x742d35Cc6634C0532925a3b844Bc9e7595f0bEb"

	done := f.enlist(t, r)

	body := d.seen(doorRegister)[0].fields(t)
	if got := body["metadata"].(map[string]any); got["name"] != "scout" || got["framework"] != "x" || got["depth"] != 2.0 {
		t.Errorf("sent the metadata %v", got)
	}
	if got := body["x402_wallet"]; got != r.X402Wallet {
		t.Errorf("sent the wallet %v", got)
	}
	if got, ok := body["scopes_requested"].([]any); !ok || len(got) != 2 {
		t.Errorf("asked for %v, want what costs nothing", body["scopes_requested"])
	}
	if f.doorWorks(t, done.Key) != 200 || len(r.Metadata) != 2 {
		t.Error("the credential does not work, or the arguments were changed")
	}
	before := len(d.seen(""))
	r.Scopes, r.Label = []string{"weather.read", "history.read"}, "another"
	if again := f.enlist(t, r); !again.Reused || again.Key != done.Key || !slices.Equal(again.NotGranted, []string{"history.read"}) {
		t.Errorf("again: got %+v, want what is stored", again)
	}
	if got := len(d.seen("")); got != before {
		t.Errorf("got %d requests for what is stored", got-before)
	}
}

func TestAgentDoorHasOneKeyPairAnAgentAndOrigin(t *testing.T) {
	one, two := newDoor(t), newDoor(t)
	f := one.client(t, setup{})
	two.clock = one.clock
	public := map[string]bool{}
	for _, d := range []*door{one, two} {
		for _, name := range []string{"scout", "ranger"} {
			r := d.scout()
			r.AgentName = name
			public[f.enlist(t, r).KeyID] = true
		}
	}
	if len(public) != 4 {
		t.Errorf("got %d key pairs, want one for each of two agents at two services", len(public))
	}
}

func TestAgentDoorTakesAnyNameAndKeepsHandlesApart(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	r := d.scout()
	r.AgentName = "my agent"
	first := f.enlist(t, r)
	if got, want := f.Lifecycle.Handle(first.Key), "agentdoor/my-agent@"+strings.TrimPrefix(d.URL, "http://"); got != want {
		t.Errorf("got the handle %s, want %s", got, want)
	}
	r.AgentName = "my-agent"
	_, err := f.AgentDoor.Register(t.Context(), r)
	var e *gateway.Error
	if !errors.As(err, &e) || e.Code != gateway.CodeInvalidInput || !strings.Contains(err.Error(), "label") {
		t.Fatalf("got %v, want the handle refused", err)
	}
	r.Label = "the other"
	second := f.enlist(t, r)
	if second.KeyID == first.KeyID || !strings.HasPrefix(f.Lifecycle.Handle(second.Key), "agentdoor/the-other@") {
		t.Errorf("got %+v, want another identity", second)
	}
	if r, err := f.Lifecycle.Resolve(t.Context(), "agentdoor/the-other"); err != nil || r.Key != second.Key {
		t.Errorf("resolved to %+v (%v)", r, err)
	}
}

func TestAgentDoorTokensAreRenewed(t *testing.T) {
	for name, after := range map[string]time.Duration{"in their last fifth": 49 * time.Minute, "after their end": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			f := d.client(t, setup{})
			k := f.enlist(t, d.scout()).Key
			d.clock.advance(after)
			for range 2 {
				if got := f.doorWorks(t, k); got != 200 {
					t.Errorf("got the status %d, want 200", got)
				}
			}
			if got := len(d.seen(doorAuth)); got != 1 {
				t.Errorf("got %d renewals, want 1", got)
			}
		})
	}
}

func TestAnAgentDoorTokenThatIsRefusedIsRenewedOnce(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.revokeTokens()
	if got := f.doorWorks(t, k); got != 200 {
		t.Errorf("got the status %d, want 200 with another token", got)
	}
	d.on("/data", reply(401, `{"error":"unauthorized","message":"never"}`))
	before := len(d.seen("/data"))
	if got := f.doorWorks(t, k); got != 401 {
		t.Errorf("got the status %d, want the 401", got)
	}
	if got := len(d.seen("/data")) - before; got != 2 {
		t.Errorf("asked %d times, want twice", got)
	}
}

func TestManyWithAnExpiredTokenRenewItOnce(t *testing.T) {
	for name, end := range map[string]func(*door){
		"expired": func(d *door) { d.clock.advance(2 * time.Hour) },
		"refused": func(d *door) { d.revokeTokens() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			store := credstore.NewMemory(d.clock.now)
			f, other := d.client(t, setup{store: store}), d.client(t, setup{store: store})
			k := f.enlist(t, d.scout()).Key
			end(d)
			var arrived sync.WaitGroup
			if name == "refused" { // everybody sends the old token before anybody renews it
				arrived.Add(20)
				d.on("/data", func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.Header.Get("Authorization"), "0001") {
						arrived.Done()
						arrived.Wait()
					}
					d.data(w, r)
				})
			}
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if got := []*fixture{f, other}[i%2].doorWorks(t, k); got != 200 {
						t.Errorf("got the status %d", got)
					}
				})
			}
			wg.Wait()
			if got := len(d.seen(doorAuth)); got != 1 {
				t.Errorf("got %d renewals, want 1", got)
			}
		})
	}
}

func TestManyRegisterOneAgentDoorAgentOnce(t *testing.T) {
	d := newDoor(t)
	store := credstore.NewMemory(d.clock.now)
	clients := []*fixture{d.client(t, setup{store: store}), d.client(t, setup{store: store})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for i := range 20 {
		wg.Go(func() {
			done, err := clients[i%2].AgentDoor.Register(t.Context(), d.scout())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !done.Reused {
				fresh++
			}
		})
	}
	wg.Wait()
	if got := len(d.seen(doorVerify)); got != 1 || fresh != 1 {
		t.Errorf("registered %d times, %d were told so; want once", got, fresh)
	}
}

func TestTheAPIKeyIsTheFallback(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.on(doorAuth, reply(503, page))
	d.clock.advance(2 * time.Hour)
	for range 2 {
		if got := f.doorWorks(t, k); got != 200 {
			t.Errorf("got the status %d, want 200 with the API key", got)
		}
	}
	sent := d.seen("/data")
	if got := sent[len(sent)-1].Header.Get("Authorization"); !strings.HasPrefix(got, "Bearer agk_live_") {
		t.Error("the API key was not sent")
	}
	if got := len(d.seen(doorAuth)); got != 3 {
		t.Errorf("asked for a token %d times, want 3 tries once", got)
	}
	d.on(doorAuth, d.auth)
	d.clock.advance(2 * time.Minute)
	if f.doorWorks(t, k) != 200 || len(d.seen(doorAuth)) != 4 {
		t.Error("a token was not asked for again a while later")
	}
}

func TestAnAgentThatIsGoneIsRegisteredAnew(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.mu.Lock()
	clear(d.agents)
	clear(d.tokens)
	d.keys = nil
	d.mu.Unlock()
	if got := f.doorWorks(t, k); got != 401 {
		t.Errorf("got the status %d, want 401", got)
	}
	if c, err := f.store.Get(t.Context(), k); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %v (%v), want it revoked", c.State, err)
	}
	again := f.enlist(t, d.scout())
	if again.Reused || again.Key != k || f.doorWorks(t, k) != 200 {
		t.Errorf("got %+v, want a registration that works", again)
	}
}

func TestAClockThatIsWrong(t *testing.T) {
	for name, skew := range map[string]time.Duration{"behind": -20 * time.Minute, "ahead": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			mine := func() time.Time { return d.clock.now().Add(skew) }
			dated := func(h http.HandlerFunc) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Date", d.clock.now().UTC().Format(http.TimeFormat))
					h(w, r)
				}
			}
			d.on(doorRegister, dated(d.register)).on(doorVerify, dated(d.verify)).on(doorAuth, dated(d.auth))
			f := d.client(t, setup{now: mine})
			k := f.enlist(t, d.scout()).Key
			for range 2 {
				d.clock.advance(55 * time.Minute)
				if got := f.doorWorks(t, k); got != 200 {
					t.Errorf("got the status %d, want 200", got)
				}
			}
			if got := len(d.seen(doorAuth)); got != 3 {
				t.Errorf("got %d requests for tokens, want 3: the first one finds out", got)
			}
		})
	}
}

func TestTheSameSignatureIsNotSentTwice(t *testing.T) {
	d := newDoor(t)
	store := credstore.NewMemory(d.clock.now)
	f, other := d.client(t, setup{store: store}), d.client(t, setup{store: store})
	k := f.enlist(t, d.scout()).Key
	for _, c := range []*fixture{f, f, other} { // another process has not signed yet
		if err := c.Renew(t, k); err != nil {
			t.Fatal(err)
		}
	}
	signatures := map[any]bool{}
	for _, r := range d.seen(doorAuth) {
		signatures[r.fields(t)["timestamp"]] = true
	}
	if got := len(d.seen(doorAuth)); got != 4 || len(signatures) != 3 {
		t.Errorf("got %d requests with %d times, want 4 with 3", got, len(signatures))
	}
}

// Renew renews what a request would be made with.
func (f *fixture) Renew(t *testing.T, k credstore.Key) error {
	t.Helper()
	return f.AgentDoor.Renew(t.Context(), k)
}

func TestForgettingForgetsItAll(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	alive, err := f.Lifecycle.Forget(t.Context(), k)
	if err != nil || !alive {
		t.Errorf("got %v (%v), want that it may live on", alive, err)
	}
	if left, err := f.store.List(t.Context(), ""); err != nil || len(left) != 0 {
		t.Errorf("still stored: %v (%v)", left, err)
	}
	if again := f.enlist(t, d.scout()); again.Reused || len(d.seen(doorVerify)) != 2 {
		t.Errorf("got %+v, want another registration", again)
	}
}

func TestAgentDoorCanNeitherRotateNorRevoke(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	_, err := f.Lifecycle.Rotate(t.Context(), k)
	var unsupported *gateway.UnsupportedError
	if !errors.As(err, &unsupported) || !strings.Contains(unsupported.Instead, "renewed by themselves") {
		t.Errorf("rotate: got %v", err)
	}
	if err := f.Lifecycle.Revoke(t.Context(), k); !errors.As(err, &unsupported) || !strings.Contains(unsupported.Instead, "whoever runs the service") {
		t.Errorf("revoke: got %v", err)
	}
}

func TestAgentDoorNamesItsOnlyCredential(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	if got, err := f.Lifecycle.Resolve(t.Context(), ""); err != nil || got.Key != k {
		t.Errorf("got %+v (%v), want the only one", got, err)
	}
	set := d.client(t, setup{store: f.store, env: map[string]string{"AGENTDOOR_URL": d.URL}})
	if got := set.Lifecycle.Handle(k); got != "agentdoor/scout" {
		t.Errorf("got the handle %s, want it without the host that is set", got)
	}
	if got := set.enlist(t, gateway.AgentDoorRegistration{AgentName: "scout"}); !got.Reused {
		t.Errorf("got %+v, want AGENTDOOR_URL to say which service", got)
	}
}

func TestEnvironOfAgentDoor(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	done := f.enlist(t, d.scout())
	variables := func() map[string]string {
		got, err := f.Lifecycle.Environ(t.Context(), done.Key, []string{"AGENTDOOR_API_KEY=stale"})
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]string{}
		for _, v := range got {
			name, value, _ := strings.Cut(v, "=")
			set[name] = value
		}
		return set
	}
	got := variables()
	if got["AGENTDOOR_URL"] != d.URL || got["AGENTDOOR_AGENT_ID"] != done.Attrs["agent_id"] || got["AGENTDOOR_API_KEY"] != d.keys[0] || !strings.HasPrefix(got["AGENTDOOR_TOKEN"], "eyJ") {
		t.Errorf("got %d variables, want the service, the agent and both secrets", len(got))
	}
	if err := f.store.Delete(t.Context(), of(done.Key, credstore.KindAPIKey)); err != nil { // as a crash loses it
		t.Fatal(err)
	}
	if _, ok := variables()["AGENTDOOR_API_KEY"]; ok {
		t.Error("a stale API key is left to the program")
	}
}
