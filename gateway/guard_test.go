package gateway_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
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
