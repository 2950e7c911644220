package gateway_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

func TestRegisterStoresTheToken(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	days := 7

	got, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{
		AgentID: "my-agent", AgentName: "My Autonomous Agent", ExpiresInDays: &days,
	})
	if err != nil {
		t.Fatal(err)
	}

	want := gateway.Registration{Info: credstore.Info{
		Key: lonaKey(s.URL, "my-agent"), State: credstore.StateActive, KeyID: "abc123xyz001",
		CreatedAt: start, ExpiresAt: time.Date(2026, 3, 8, 12, 34, 56, 789e6, time.UTC),
	}}
	attrs := map[string]string{
		"user_id": "my-agent", "agent_name": "My Autonomous Agent", "source": "enlist", "permissions": "*",
	}
	equalAttrs(t, got.Attrs, attrs)
	got.Attrs = nil
	if got.Key != want.Key || got.State != want.State || got.KeyID != want.KeyID || got.Reused ||
		!got.CreatedAt.Equal(want.CreatedAt) || !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	stored, err := f.store.Get(t.Context(), want.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := stored.Secret.Reveal(), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	equalAttrs(t, stored.Attrs, attrs)
	register := s.seen(registerPath)[0]
	if got, want := register.fields(t)["expires_in_days"], 7.0; got != want {
		t.Errorf("sent expires_in_days %v, want %v", got, want)
	}
	if got, want := register.Header.Get("User-Agent"), "enlist/1.2.3"; got != want {
		t.Errorf("sent User-Agent %q, want %q", got, want)
	}
	noSecret(t, "the log", f.log.String(), token("my-agent", 1), inviteCode)
}

func equalAttrs(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("got %s %q, want %q", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got the attributes %v, want %v", got, want)
	}
}

func TestRegisterAgainRotates(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	first := f.register(t, "my-agent")

	second := f.register(t, "my-agent")

	if second.Reused {
		t.Error("got Reused, want a new token")
	}
	if got, want := f.secret(t, first.Key), token("my-agent", 2); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	proofs := s.seen(registerPath)
	if got := proofs[0].Header.Get("X-Api-Key"); got != "" {
		t.Errorf("the first registration sent X-API-Key %q, want none", got)
	}
	if got, want := proofs[1].Header.Get("X-Api-Key"), token("my-agent", 1); got != want {
		t.Errorf("the second registration sent X-API-Key %q, want %q", got, want)
	}
}

func TestRegisterSendsTheLastTokenAsProof(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state credstore.State
		until time.Time
		want  bool
	}{
		{"of an active one", credstore.StateActive, start.Add(time.Hour), true},
		{"of an expired one", credstore.StateActive, start.Add(-time.Hour), true},
		{"not of a revoked one", credstore.StateRevoked, start.Add(time.Hour), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			held := token("my-agent", 77)
			f.put(t, credstore.Credential{
				Info:   credstore.Info{Key: lonaKey(s.URL, "my-agent"), State: tt.state, ExpiresAt: tt.until},
				Secret: credstore.NewSecret(held),
			})

			if got := f.register(t, "my-agent"); got.Reused {
				t.Error("got Reused, want a new token")
			}

			if got := s.seen(registerPath)[0].Header.Get("X-Api-Key") == held; got != tt.want {
				t.Errorf("sent the held token: %v, want %v", got, tt.want)
			}
			if got := s.seen(invitePath)[0].Header.Get("X-Api-Key"); got != "" {
				t.Errorf("the request for an invite sent %q, want nothing", got)
			}
		})
	}
}

func TestRegisterWithTheSecretNeedsNoInvite(t *testing.T) {
	s := newService(t)
	secret := "5f2c1d0e9b8a7766554433221100ffee"
	f := newFixture(t, setup{env: map[string]string{
		"LONA_GATEWAY_URL": s.URL, "LONA_AGENT_REGISTRATION_SECRET": secret,
	}})

	f.register(t, "my-agent")

	if got := len(s.seen(invitePath)); got != 0 {
		t.Errorf("got %d requests for an invite, want none", got)
	}
	sent := s.seen(registerPath)[0]
	if got := sent.Header.Get("X-Agent-Registration-Secret"); got != secret {
		t.Errorf("sent the secret %q, want %q", got, secret)
	}
	if _, ok := sent.fields(t)["invite_code"]; ok {
		t.Error("sent an invite_code, want none")
	}
	noSecret(t, "the log", f.log.String(), secret)
}

func TestTheSecretStaysAtTheConfiguredGateway(t *testing.T) {
	configured, other := newService(t), newService(t)
	f := newFixture(t, setup{env: map[string]string{
		"LONA_GATEWAY_URL": configured.URL, "LONA_AGENT_REGISTRATION_SECRET": "5f2c1d0e9b8a7766",
	}})
	k := lonaKey(other.URL, "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(token("my-agent", 9))})

	if _, err := f.Lifecycle.Rotate(t.Context(), k); err != nil {
		t.Fatal(err)
	}

	for _, r := range other.seen("") {
		if got := r.Header.Get("X-Agent-Registration-Secret"); got != "" {
			t.Errorf("%s got the registration secret of another gateway", r.Path)
		}
	}
	if got := len(configured.seen("")); got != 0 {
		t.Errorf("the configured gateway got %d requests, want none", got)
	}
	if got, want := f.secret(t, k), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestRotateRegistersUnderTheSameName(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	first, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{
		AgentID: "my-agent", AgentName: "Robin", Source: "moltbook", UserID: "user-7",
	})
	if err != nil {
		t.Fatal(err)
	}

	got, err := f.Lifecycle.Rotate(t.Context(), first.Key)
	if err != nil {
		t.Fatal(err)
	}

	fields := s.seen(registerPath)[1].fields(t)
	for name, want := range map[string]string{"agent_id": "my-agent", "agent_name": "Robin", "source": "moltbook"} {
		if got := fields[name]; got != want {
			t.Errorf("sent %s %q, want %q", name, got, want)
		}
	}
	if got, want := got.Attrs["user_id"], "user-7"; got != want {
		t.Errorf("got user_id %q, want %q", got, want)
	}
}

func TestRegisterRefusesBeforeAnyRequest(t *testing.T) {
	zero := 0
	for _, tt := range []struct {
		name  string
		give  gateway.LonaRegistration
		field string
	}{
		{"agent_id with a slash", named("my/agent"), "agent_id"},
		{"agent_id with a newline", named("my-agent\n"), "agent_id"},
		{"agent_id of 10,000 characters", named(strings.Repeat("a", 10_000)), "agent_id"},
		{"agent_id in another script", named("агент"), "agent_id"},
		{"agent_id of dots", named(".."), "agent_id"},
		{"no agent_id", named(""), "agent_id"},
		{"no agent_name", gateway.LonaRegistration{AgentID: "my-agent"}, "agent_name"},
		{"agent_name with a newline", gateway.LonaRegistration{AgentID: "my-agent", AgentName: "a\nb"}, "agent_name"},
		{"agent_name too long", gateway.LonaRegistration{AgentID: "my-agent", AgentName: strings.Repeat("ä", 101)}, "agent_name"},
		{"source too long", gateway.LonaRegistration{AgentID: "my-agent", AgentName: "A", Source: strings.Repeat("s", 65)}, "source"},
		{"user_id with a newline", gateway.LonaRegistration{AgentID: "my-agent", AgentName: "A", UserID: "a\r\nX-Admin: 1"}, "user_id"},
		{"expires_in_days of 0", gateway.LonaRegistration{AgentID: "my-agent", AgentName: "A", ExpiresInDays: &zero}, "expires_in_days"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)

			_, err := f.Lona.Register(t.Context(), tt.give)

			e := wantError(t, err, gateway.CodeInvalidInput)
			if !strings.Contains(e.Error(), tt.field) || len(e.Error()) > 300 {
				t.Errorf("got %q, want a short text that names %s", e, tt.field)
			}
			if got := len(s.seen("")); got != 0 {
				t.Errorf("got %d requests, want none", got)
			}
		})
	}
}

// wantError returns err as an Error with a code.
func wantError(t *testing.T, err error, code string) *gateway.Error {
	t.Helper()
	var e *gateway.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a gateway.Error with the code %q", err, code)
	}
	if e.Code != code {
		t.Errorf("got the code %q (%v), want %q", e.Code, e, code)
	}
	return e
}

func TestStrategiesPresentsTheToken(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{AgentID: "my-agent", AgentName: "A", UserID: "user-7"})
	if err != nil {
		t.Fatal(err)
	}

	got, err := f.Lona.Strategies(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}

	if got, want := string(got), `[{"id":"s1","name":"One"}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sent := s.seen(strategiesPath)[0].Header
	if sent.Get("X-Api-Key") != token("my-agent", 1) || sent.Get("X-User-Id") != "user-7" {
		t.Errorf("sent X-API-Key %q and X-User-Id %q", sent.Get("X-Api-Key"), sent.Get("X-User-Id"))
	}
}

func TestStrategiesReportsARefusal(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	s.on(strategiesPath, reply(401, `{"error":{"code":"unauthorized","message":"the token has expired"}}`))

	_, err := f.Lona.Strategies(t.Context(), r.Key)

	e := wantError(t, err, "unauthorized")
	if e.Status != 401 || e.Message != "the token has expired" || e.Sent {
		t.Errorf("got %+v", e)
	}
}

func TestStartRegistersWhenNoUsableTokenIsStored(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stored *credstore.Info
		want   int
	}{
		{"nothing stored", nil, 1},
		{"usable", &credstore.Info{State: credstore.StateActive, ExpiresAt: start.Add(time.Hour)}, 0},
		{"expired", &credstore.Info{State: credstore.StateActive, ExpiresAt: start.Add(-time.Hour)}, 1},
		{"revoked", &credstore.Info{State: credstore.StateRevoked}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_AGENT_ID": "my-agent"}})
			if tt.stored != nil {
				tt.stored.Key = lonaKey(s.URL, "my-agent")
				f.put(t, credstore.Credential{Info: *tt.stored, Secret: credstore.NewSecret(token("my-agent", 50))})
			}

			if err := f.Start(t.Context()); err != nil {
				t.Fatal(err)
			}

			if got := len(s.seen(registerPath)); got != tt.want {
				t.Errorf("got %d registrations, want %d", got, tt.want)
			}
		})
	}
}

func TestStartTakesATokenOver(t *testing.T) {
	env := func(s *service, key string) map[string]string {
		return map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_API_KEY": key, "LONA_USER_ID": "user-7"}
	}
	given, other := token("my-agent", 1), token("my-agent", 2)
	for _, tt := range []struct {
		name  string
		state credstore.State // of the other token that is stored; "": none is
		until time.Time
		want  string
	}{
		{"into an empty store", "", start, given},
		{"not over a usable one", credstore.StateActive, start.Add(time.Hour), other},
		{"over an expired one", credstore.StateActive, start.Add(-time.Hour), given},
		{"over a revoked one", credstore.StateRevoked, start.Add(time.Hour), given},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := newFixture(t, setup{env: env(s, given)})
			k := lonaKey(s.URL, "my-agent")
			if tt.state != "" {
				f.put(t, credstore.Credential{
					Info: credstore.Info{Key: k, State: tt.state, ExpiresAt: tt.until}, Secret: credstore.NewSecret(other),
				})
			}

			if err := f.Start(t.Context()); err != nil {
				t.Fatal(err)
			}

			if got := f.secret(t, k); got != tt.want {
				t.Errorf("stored %q, want %q", got, tt.want)
			}
			if got := len(s.seen("")); got != 0 {
				t.Errorf("got %d requests, want none", got)
			}
			noSecret(t, "the log", f.log.String(), given, other)
		})
	}
}

func TestATokenThatWasTakenOverDoesNotComeBack(t *testing.T) {
	s := newService(t)
	env := map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_API_KEY": "an-opaque-token-of-no-shape", "LONA_USER_ID": "my-agent"}
	now := start
	f := newFixture(t, setup{env: env, now: func() time.Time { return now }})
	k := lonaKey(s.URL, "my-agent")
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := f.secret(t, k), env["LONA_API_KEY"]; got != want {
		t.Fatalf("stored %q, want %q", got, want)
	}
	rotated, err := f.Lifecycle.Rotate(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	now = rotated.ExpiresAt.Add(time.Hour)

	// The setting is still there at the next start; the token that it was
	// rotated into has expired, but is the proof of who the agent is.
	again := newFixture(t, setup{env: env, store: f.store, now: func() time.Time { return now }})
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	if got, want := f.secret(t, k), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	secret := "s3cr3t value"
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"url with a path", map[string]string{"LONA_GATEWAY_URL": "https://example.com/lona"}, "LONA_GATEWAY_URL"},
		{"url with a password", map[string]string{"LONA_GATEWAY_URL": "https://user:hunter2@example.com"}, "LONA_GATEWAY_URL"},
		{"url in plain http", map[string]string{"LONA_GATEWAY_URL": "http://gateway.lona.agency"}, "LONA_GATEWAY_URL"},
		{"url without a host", map[string]string{"LONA_GATEWAY_URL": "https://"}, "LONA_GATEWAY_URL"},
		{"url of a file", map[string]string{"LONA_GATEWAY_URL": "file:///etc/passwd"}, "LONA_GATEWAY_URL"},
		{"url that is a word", map[string]string{"LONA_GATEWAY_URL": "localhost:8080"}, "LONA_GATEWAY_URL"},
		{"url in another script", map[string]string{"LONA_GATEWAY_URL": "https://lоna.agency"}, "LONA_GATEWAY_URL"},
		{"registration secret with a space", map[string]string{"LONA_AGENT_REGISTRATION_SECRET": secret}, "LONA_AGENT_REGISTRATION_SECRET"},
		{"registration secret too short", map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "s3cr3t"}, "LONA_AGENT_REGISTRATION_SECRET"},
		{"token with a newline", map[string]string{"LONA_API_KEY": token("a1", 1) + "\n", "LONA_USER_ID": "a1"}, "LONA_API_KEY"},
		{"token without a user", map[string]string{"LONA_API_KEY": token("a1", 1)}, "LONA_USER_ID"},
		{"user with a space", map[string]string{"LONA_API_KEY": token("a1", 1), "LONA_USER_ID": "a 1"}, "LONA_USER_ID"},
		{"agent id with a slash", map[string]string{"LONA_AGENT_ID": "a/b"}, "LONA_AGENT_ID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tryFixture(setup{env: tt.env})

			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error that names %s", err, tt.want)
			}
			noSecret(t, "the error", err.Error(), "s3cr3t", "hunter2", token("a1", 1))
		})
	}
}

func TestSettingsThatAreRight(t *testing.T) {
	for give, want := range map[string]string{
		"":                             "https://gateway.lona.agency",
		"https://Gateway.Example.com/": "https://gateway.example.com",
		"https://example.com:443":      "https://example.com",
		"https://example.com:8443":     "https://example.com:8443",
		"http://127.0.0.1:8080":        "http://127.0.0.1:8080",
		"http://127.8.9.1":             "http://127.8.9.1",
		"http://[::1]:8080":            "http://[::1]:8080",
		"http://[::1]":                 "http://[::1]",
		"http://localhost:80":          "http://localhost",
		"http://enlist.localhost":      "http://enlist.localhost",
	} {
		f, err := tryFixture(setup{env: map[string]string{"LONA_GATEWAY_URL": give}})
		if err != nil {
			t.Errorf("%q: %v", give, err)
			continue
		}
		if got := f.Lona.Origin(); got != want {
			t.Errorf("%q: got %q, want %q", give, got, want)
		}
	}
}

func TestOriginsGoBeforeSettings(t *testing.T) {
	settings := map[string]string{"LONA_GATEWAY_URL": "https://example.com"}
	o := gateway.Options{
		Store: credstore.NewMemory(frozen), Now: frozen,
		Env: func(name string) string { return settings[name] },
	}
	for origin, want := range map[string]string{
		"":                        "https://example.com",
		"http://enlist.localhost": "http://enlist.localhost",
	} {
		o.Origins = map[string]string{"lona": origin}
		c, err := gateway.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Lona.Origin(); got != want {
			t.Errorf("with Origins %q: got %q, want %q", origin, got, want)
		}
	}
}

func TestOriginsKeepAnExistingTokenWhereItBelongs(t *testing.T) {
	store := credstore.NewMemory(frozen)
	settings := map[string]string{"LONA_API_KEY": "lona_partner_my-agent_abc123xyz456_SecretKeyHere123", "LONA_USER_ID": "my-agent"}
	c, err := gateway.New(gateway.Options{
		Store: store, Now: frozen,
		Env:     func(name string) string { return settings[name] },
		Origins: map[string]string{"lona": "http://enlist.localhost"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stored, err := store.List(t.Context(), ""); err != nil || len(stored) != 0 {
		t.Errorf("got %v, %v, want nothing: the token is of another gateway", stored, err)
	}
}

func TestProtocolsAreSorted(t *testing.T) {
	f := newFixture(t, setup{})
	var names []string
	for _, p := range f.All() {
		names = append(names, p.Wire().Name)
	}
	if !slices.IsSorted(names) || len(names) == 0 {
		t.Errorf("got %v, want them sorted", names)
	}
}

func TestAuthorizeRefusesAnotherOrigin(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}

	err = f.Lona.Authorize(t.Context(), r.Key, req)

	if err == nil || len(req.Header) != 0 {
		t.Errorf("got %v and the headers %v, want an error and none", err, req.Header)
	}
}
