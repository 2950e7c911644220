package gateway_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// issuing is a request for each route of each protocol that answers with a
// secret or ends one.
func issuing() []gateway.Request {
	return []gateway.Request{
		{Method: "POST", Path: "/api/v1/agents/request-invite"},
		{Method: "POST", Path: "/api/v1/agents/register"},
		{Method: "POST", Path: "/v1/register"},
		{Method: "POST", Path: "/v1/keys/rotate"},
		{Method: "GET", Path: "/v1/keys"},
		{Method: "POST", Path: "/agentdoor/register"},
		{Method: "POST", Path: "/agentdoor/register/verify"},
		{Method: "POST", Path: "/agentdoor/auth"},
		{Method: "POST", Path: "/api/auth/register"},
		{Method: "GET", Path: "/api/auth/verify-email", Query: map[string]string{"token": "evt_0123456789AbCdEf"}},
		{Method: "HEAD", Path: "/api/auth/verify-email", Query: map[string]string{"token": "evt_0123456789AbCdEf"}},
		{Method: "POST", Path: "/api/auth/verify-email"},
		{Method: "POST", Path: "/api/auth/verification/resend"},
		{Method: "POST", Path: "/api/auth/token"},
		{Method: "POST", Path: "/api/auth/refresh"},
		{Method: "POST", Path: "/api/auth/logout"},
		{Method: "POST", Path: "/api/auth/recovery/request"},
		{Method: "POST", Path: "/api/auth/recovery/verify"},
		{Method: "POST", Path: "/api/agents/agt_1"},
		{Method: "DELETE", Path: "/api/agents/agt_1/keys/aky_1"},
		{Method: "POST", Path: "/api/agents/agt_1/keys/aky_1", Body: "_method=DELETE"},
		{Method: "POST", Path: "/api/v1/agent/onboard"},
		{Method: "DELETE", Path: "/api/v1/agent/keys/1"},
		{Method: "POST", Path: "/api/v1/agent/keys/1", Body: "_method=DELETE"},
	}
}

// Whatever a credential is of, with it nothing is issued and nothing ended of
// any protocol that is known to live at the same service.
func TestNoCredentialReachesAnIssuingRouteOfAnyProtocol(t *testing.T) {
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.Method+" "+r.URL.Path) }))
	t.Cleanup(s.Close)
	alias := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	settings := []string{"LONA_GATEWAY_URL", "LITHTRIX_API_URL", "AGENTDOOR_URL", "FLUXRA_API_URL", "LUMINA_API_URL"}
	set, none := map[string]string{}, map[string]string{"LUMINA_API_URL": "https://lumina.example"}
	for _, name := range settings {
		set[name] = s.URL
	}
	kinds := map[string]credstore.Kind{
		"lona": credstore.KindToken, "lithtrix": credstore.KindAPIKey, "agentdoor": credstore.KindKeyPair,
		"fluxra": credstore.KindAPIKey, "lumina": credstore.KindAPIKey,
	}
	for _, tt := range []struct {
		name, origin string
		env          map[string]string
	}{
		{"all are set to it", s.URL, set},
		{"all are stored from it and set elsewhere", s.URL, none},
		{"this machine by another name", alias, set},
		{"this machine by another name, and set elsewhere", alias, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{env: tt.env})
			for name, kind := range kinds {
				for _, origin := range []string{s.URL, tt.origin} {
					c := credstore.Credential{
						Secret: credstore.NewSecret("secret-of-" + name + "-0123456789"),
						Info: credstore.Info{
							Key: credstore.Key{Protocol: name, Origin: origin, Agent: "a", Kind: kind}, State: credstore.StateActive,
							Attrs: map[string]string{"agent_id": "ag_1"},
						},
					}
					if err := f.store.Put(t.Context(), c); err != nil {
						t.Fatal(err)
					}
				}
			}
			for name, kind := range kinds {
				k := credstore.Key{Protocol: name, Origin: tt.origin, Agent: "a", Kind: kind}
				for _, r := range issuing() {
					for _, path := range []string{r.Path, r.Path + "/", strings.ToUpper(r.Path), r.Path + ";a=b", r.Path + "%20", strings.Replace(r.Path, "a", "%61", 1)} {
						r.Path = path
						_, err := f.Lifecycle.Do(t.Context(), k, r)
						var refused *gateway.RefusedError
						if !errors.As(err, &refused) || refused.Tool == "" {
							t.Errorf("%s: %s %s: got %v, want it refused with a tool", name, r.Method, r.Path, err)
						}
					}
				}
			}
			if len(seen) != 0 {
				t.Errorf("sent %v", seen)
			}
		})
	}
}

// stored returns a client with a credential of each protocol at an origin, and
// their keys.
func stored(t *testing.T, origin string) (f *fixture, keys []credstore.Key) {
	t.Helper()
	f = newFixture(t, setup{env: map[string]string{"LUMINA_API_URL": "https://lumina.example"}})
	for _, p := range wire.Protocols() {
		kind := credstore.KindAPIKey
		switch p.Name {
		case "lona":
			kind = credstore.KindToken
		case "agentdoor":
			kind = credstore.KindKeyPair
		}
		k := credstore.Key{Protocol: p.Name, Origin: origin, Agent: "a", Kind: kind}
		f.put(t, credstore.Credential{
			Secret: credstore.NewSecret("secret-of-" + p.Name + "-0123456789"),
			Info:   credstore.Info{Key: k, Attrs: map[string]string{"agent_id": "ag_1"}},
		})
		keys = append(keys, k)
	}
	return f, keys
}

// Whatever the credential is of, a caller sets no header that carries one of any
// protocol, that is for the connection, or that says who or what is asked.
func TestACallerSetsNoHeaderOfSomebodyElse(t *testing.T) {
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r.URL.Path) }))
	t.Cleanup(s.Close)
	f, keys := stored(t, s.URL)
	names := []string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Host", "Authorization", "Cookie", "Cookie2", "Accept-Encoding", "Range", "If-Range", "Content-Length", "Content-Encoding", "Expect",
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via", "X-Original-Host",
	}
	for _, p := range wire.Protocols() {
		if len(p.Headers) == 0 {
			t.Errorf("%s has no header", p.Name)
		}
		names = append(names, p.Headers...)
	}
	for _, k := range keys {
		for _, name := range names {
			for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")} {
				_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "GET", Path: "/x", Header: map[string]string{spelled: "1"}})
				var refused *gateway.RefusedError
				if !errors.As(err, &refused) || !strings.Contains(refused.Why, "header") {
					t.Errorf("%s: %s: got %v, want it refused", k.Protocol, spelled, err)
				}
			}
		}
	}
	if len(seen) != 0 {
		t.Errorf("sent %v", seen)
	}
}

// What is refused names the tool that does it.
func TestARefusedRouteNamesItsTool(t *testing.T) {
	f, keys := stored(t, "https://everything.example")
	for call, want := range map[string]string{
		"POST /api/v1/agents/request-invite":     "lona_register_agent",
		"POST /api/v1/agents/%72egister":         "lona_register_agent",
		"POST /v1/register":                      "lithtrix_register_agent",
		"POST /v1/keys/rotate":                   "rotate_credential",
		"GET /V1/Keys/":                          "rotate_credential",
		"POST /agentdoor/auth":                   "agentdoor_register_agent",
		"POST /api/auth/register":                "fluxra_register_agent",
		"GET /api/auth/verify-email":             "fluxra_verify_email",
		"POST /api/auth/recovery/verify":         "fluxra_recover_account",
		"POST /api/auth/logout":                  "revoke_credential",
		"POST /api/auth/re%2566resh":             "rotate_credential",
		"POST /api/agents/agt_1/keys":            "rotate_credential",
		"DELETE /api/agents/agt_1/keys/aky_1":    "revoke_credential",
		"POST /api/v1/agent/onboard;a=b":         "lumina_register_agent",
		"DELETE /api/v1/agent/keys/7%20":         "revoke_credential",
		"DELETE /api/v1/agent/keys/k%3fa=b":      "revoke_credential",
		"OPTIONS /api/v1/agents/register%2ejson": "lona_register_agent",
	} {
		method, path, _ := strings.Cut(call, " ")
		for _, k := range keys {
			_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: method, Path: path})
			var refused *gateway.RefusedError
			if !errors.As(err, &refused) || refused.Tool != want {
				t.Errorf("%s: %s: got %v, want %s", k.Protocol, call, err, want)
			}
		}
	}
}

// A name that leads to a public address when it is looked up, and to this
// machine or its network when it is dialled, gets no credential.
func TestARequestIsNotReboundToAPrivateAddress(t *testing.T) {
	for _, inside := range []string{"127.0.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"} {
		n := &names{answers: map[string][][]string{"rebound.example": {{"9.9.9.9"}, {inside}}}}
		var l line
		f := newFixture(t, setup{transport: gateway.TransportWith(n.resolver(), l.connecting)})
		k := lonaKey("https://rebound.example", "my-agent")
		f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(token("my-agent", 1))})
		if first, err := n.resolver().LookupNetIP(t.Context(), "ip4", "rebound.example"); err != nil || first[0].String() != "9.9.9.9" {
			t.Fatalf("got %v (%v), want the public address", first, err)
		}

		_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "POST", Path: "/x"})

		if e := wantError(t, err, gateway.CodeAddressRefused); e.Sent || len(l.told) != 0 {
			t.Errorf("%s: got Sent %v and connections to %v, want none", inside, e.Sent, l.told)
		}
	}
}
