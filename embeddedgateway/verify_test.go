package embeddedgateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const verifyPath = "/.enlist/verify"

// loopback is where the proxies of these tests are.
func loopback() gatewaytest.Option {
	return gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
}

// guarded puts an API behind the gateway.
func guarded(rules ...embeddedgateway.Rule) gatewaytest.Option {
	return gatewaytest.Config(func(c *embeddedgateway.Config) { c.Front = &embeddedgateway.Front{Rules: rules} })
}

// asks is the request of nginx about a request for a path, with the headers of
// that request. One with an empty value is left out.
func asks(t testing.TB, gw *gatewaytest.Gateway, method, uri string, hs ...header) answer {
	t.Helper()
	all := header{"X-Original-Method": method, "X-Original-URI": uri}
	for _, h := range hs {
		for name, value := range h {
			all[name] = value
		}
	}
	return send(t, gw, http.MethodGet, verifyPath, "", all)
}

// member is an agent of a protocol that is registered.
type member struct {
	name            string
	protocol, agent string
	scopes, keyID   string // as the API is told; keyID "*": some
	secret          string
	header          header
	revoke          func(t testing.TB)
}

// asked is the request of a proxy about what a member asks for.
func (m member) asked(t testing.TB, gw *gatewaytest.Gateway, method, uri string, more ...header) answer {
	t.Helper()
	return asks(t, gw, method, uri, append([]header{m.header}, more...)...)
}

// members registers one agent for each kind of credential.
func members(t testing.TB, gw *gatewaytest.Gateway) []member {
	t.Helper()
	suspending := func(protocol, agent string) func(testing.TB) {
		return func(t testing.TB) {
			if err := gw.Embedded().Suspend(context.Background(), protocol, agent); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := func(t testing.TB) { token(t, gw, "trader") }
	lonaToken := token(t, gw, "trader")
	ltx := ltxKey(t, gw, "scout")
	door := doorRegister(t, gw, pair("front"))
	bot := fluxNew(t, gw, "").withKey(t, gw, map[string]any{"scopes": []string{"messages:read", "messages:write"}})
	const botScopes = "messages:read messages:write"
	deleting := func(t testing.TB) { bot.deleteKey(t, gw, bot.keyID) }
	wallet := devWallet(t, 0)
	lumina, luminaID := keyOf(t, onboard(t, gw, wallet, 0))
	return []member{
		{
			"a token of Lona", "lona", "trader", "*", strings.Split(lonaToken, "_")[3], lonaToken,
			header{"X-API-Key": lonaToken, "X-User-Id": "trader"},
			again,
		},
		{
			"a key of Lithtrix", "lithtrix", "scout/you@example.com", "", "*", ltx, bearer(ltx),
			func(t testing.TB) { ltxWith(t, gw, http.MethodPost, ltxRotatePath, ltx) },
		},
		{"a key of AgentDoor", "agentdoor", door.id, "api.access", "*", door.key, bearer(door.key), suspending("agentdoor", door.id)},
		{"a JWT of AgentDoor", "agentdoor", door.id, "api.access", "*", door.token, bearer(door.token), suspending("agentdoor", door.id)},
		{"a key of Fluxra in Basic", "fluxra", bot.id, botScopes, bot.keyID, bot.key, basic(bot.id, bot.key), deleting},
		{"a key of Fluxra as a bearer", "fluxra", bot.id, botScopes, bot.keyID, bot.key, bearer(bot.key), deleting},
		{"a JWT of Fluxra", "fluxra", bot.id, botScopes, bot.keyID, bot.jwt, bearer(bot.jwt), deleting},
		{"a JWT of Fluxra that is ended", "fluxra", bot.id, botScopes, bot.keyID, bot.jwt, bearer(bot.jwt), func(t testing.TB) { bot.logout(t, gw) }},
		{
			"a key of Lumina", "lumina", strings.ToLower(wallet.Address()), "", fmt.Sprint(luminaID), lumina,
			header{"X-API-Key": lumina},
			func(t testing.TB) { revokeKey(t, gw, lumina, luminaID) },
		},
	}
}

// fronted is a gateway that loopback proxies may ask.
func fronted(t testing.TB, rules ...embeddedgateway.Rule) *gatewaytest.Gateway {
	t.Helper()
	return gatewaytest.New(t, partner(), loopback(), guarded(rules...))
}

func TestVerifyTellsTheAPIWhoAsks(t *testing.T) {
	gw := fronted(t)
	for _, m := range members(t, gw) {
		t.Run(m.name, func(t *testing.T) {
			a := m.asked(t, gw, http.MethodGet, "/reports?q=1")
			if a.status != http.StatusOK || len(a.body) != 0 {
				t.Fatalf("got %d %s, want 200 and no body", a.status, a.body)
			}
			said := verifyAssertion(t, gw, a.header.Get("X-Enlist-Token"))
			keyID := m.keyID
			if keyID == "*" {
				keyID = a.header.Get("X-Enlist-Key-Id")
			}
			want := header{
				"X-Enlist-Protocol": m.protocol, "X-Enlist-Agent": m.protocol + "/" + m.agent,
				"X-Enlist-Scopes": m.scopes, "X-Enlist-Key-Id": keyID,
			}
			for name, value := range want {
				if got := a.header.Get(name); got != value || got == "" && name != "X-Enlist-Scopes" {
					t.Errorf("%s: got %q, want %q", name, got, value)
				}
			}
			got := fmt.Sprint(said["sub"], said["protocol"], said["agent"], said["scope"], said["key_id"], said["aud"], said["iss"])
			if want := fmt.Sprint(m.protocol+"/"+m.agent, m.protocol, m.agent, m.scopes, keyID, "enlist-upstream", embeddedgateway.Origin); got != want {
				t.Errorf("got the claims %s, want %s", got, want)
			}
			if life := said["exp"].(float64) - said["iat"].(float64); life != 60 {
				t.Errorf("the token lives for %v seconds, want 60", life)
			}
		})
	}
}

// verifyAssertion checks the token for the API as the API would, by the published
// keys, and returns what it says.
func verifyAssertion(t testing.TB, gw *gatewaytest.Gateway, text string) map[string]any {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(send(t, gw, http.MethodGet, "/.well-known/jwks.json", "", nil).body, &set); err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatalf("the token %q: %v", text, err)
	}
	if typ := parsed.Headers[0].ExtraHeaders["typ"]; typ != "enlist-caller+jwt" {
		t.Errorf("got the type %v", typ)
	}
	var said map[string]any
	if err := parsed.Claims(set.Key(parsed.Headers[0].KeyID)[0].Key, &said); err != nil {
		t.Fatal(err)
	}
	return said
}

func TestVerifyRefusesARevokedCredentialOnTheVeryNextRequest(t *testing.T) {
	for i, m := range members(t, fronted(t)) {
		t.Run(m.name, func(t *testing.T) {
			gw := fronted(t)
			m := members(t, gw)[i]
			if a := m.asked(t, gw, http.MethodGet, "/"); a.status != http.StatusOK {
				t.Fatalf("before: got %d %s", a.status, a.body)
			}
			m.revoke(t)
			want := http.StatusUnauthorized
			if m.protocol == "agentdoor" {
				want = http.StatusForbidden // its own client would answer a 401 with a new token, without end
			}
			a := m.asked(t, gw, http.MethodGet, "/")
			if a.status != want || a.header.Get("X-Enlist-Token") != "" {
				t.Errorf("got %d %s, want %d", a.status, a.body, want)
			}
			event := last(t, gw)
			if event.Protocol != m.protocol || !event.Refusal {
				t.Errorf("the audit trail ends with %+v, want a refusal of %s", event, m.protocol)
			}
		})
	}
}

func TestVerifyRefusesSuspendedAndDeletedAgents(t *testing.T) {
	for i, m := range members(t, fronted(t)) {
		for what, end := range map[string]func(context.Context, *gatewaytest.Gateway, string) error{
			"suspended": func(ctx context.Context, gw *gatewaytest.Gateway, agent string) error {
				return gw.Embedded().Suspend(ctx, m.protocol, agent)
			},
			"deleted": func(ctx context.Context, gw *gatewaytest.Gateway, agent string) error {
				return gw.Embedded().Delete(ctx, m.protocol, agent)
			},
		} {
			t.Run(m.name+" "+what, func(t *testing.T) {
				gw := fronted(t)
				m := members(t, gw)[i]
				if err := end(t.Context(), gw, m.agent); err != nil {
					t.Fatal(err)
				}
				want := http.StatusUnauthorized
				if m.protocol == "agentdoor" || m.protocol == "fluxra" && what == "suspended" {
					want = http.StatusForbidden
				}
				if a := m.asked(t, gw, http.MethodGet, "/"); a.status != want {
					t.Errorf("got %d %s, want %d", a.status, a.body, want)
				}
			})
		}
	}
}

func TestVerifyTakesOneCredential(t *testing.T) {
	gw := fronted(t)
	all := members(t, gw)
	lona, ltx, door, bot, lumina := all[0], all[1], all[3], all[4], all[8]
	recovery := fluxRegister(t, gw, "")
	assertion := ltx.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token")
	otherTyp, _ := embeddedgateway.SignerOf(gw.Embedded()).Sign(t, "lona", "trader", map[string]any{})
	for name, tc := range map[string]struct {
		header http.Header
		status int
		code   string
	}{
		"none":                            {http.Header{}, http.StatusUnauthorized, "no_credential"},
		"an empty one":                    {http.Header{"Authorization": {""}}, http.StatusUnauthorized, "no_credential"},
		"of another scheme":               {http.Header{"Authorization": {"Digest " + ltx.secret}}, http.StatusUnauthorized, "no_credential"},
		"of nobody here":                  {http.Header{"Authorization": {"Bearer ghp_16C7e42F292c6912E7710c838347Ae178B4a"}}, http.StatusUnauthorized, "unknown_credential"},
		"unknown":                         {http.Header{"Authorization": {"Bearer ltx_aaaaaaaaaaaaaaaaaaaaaaaa"}}, http.StatusUnauthorized, "INVALID_API_KEY"},
		"in the header of another kind":   {http.Header{"X-Api-Key": {ltx.secret}}, http.StatusUnauthorized, "unknown_credential"},
		"Lona's as a bearer":              {http.Header{"Authorization": {"Bearer " + lona.secret}, "X-User-Id": {"trader"}}, http.StatusUnauthorized, "unknown_credential"},
		"Lona's without its agent":        {http.Header{"X-Api-Key": {lona.secret}}, http.StatusUnauthorized, "unauthorized"},
		"Lona's with another agent":       {http.Header{"X-Api-Key": {lona.secret}, "X-User-Id": {"scout"}}, http.StatusUnauthorized, "unauthorized"},
		"Fluxra's with another agent":     {http.Header{"Authorization": {basic("agt_"+strings.Repeat("0", 32), bot.secret)["Authorization"]}}, http.StatusUnauthorized, "UNAUTHORIZED"},
		"a recovery key in Basic":         {http.Header{"Authorization": {basic(recovery.at("agent_id"), recovery.at("recovery_key"))["Authorization"]}}, http.StatusUnauthorized, "unknown_credential"},
		"a recovery key as a bearer":      {http.Header{"Authorization": {"Bearer " + recovery.at("recovery_key")}}, http.StatusUnauthorized, "unknown_credential"},
		"the token for the API":           {http.Header{"Authorization": {"Bearer " + assertion}}, http.StatusUnauthorized, "unknown_credential"},
		"a JWT for no protocol with JWTs": {http.Header{"Authorization": {"Bearer " + otherTyp}}, http.StatusUnauthorized, "unknown_credential"},
		"a JWT that is changed":           {http.Header{"Authorization": {"Bearer " + changed(door.secret)}}, http.StatusUnauthorized, "unauthorized"},
		"the registration secret":         {http.Header{"X-Agent-Registration-Secret": {partnerSecret}}, http.StatusUnauthorized, "unknown_credential"},

		"two in two headers":            {http.Header{"Authorization": {"Bearer " + ltx.secret}, "X-Api-Key": {lumina.secret}}, http.StatusBadRequest, "two_credentials"},
		"a JWT and a key":               {http.Header{"Authorization": {"Bearer " + door.secret}, "X-Api-Key": {lona.secret}, "X-User-Id": {"trader"}}, http.StatusBadRequest, "two_credentials"},
		"Basic and a key":               {http.Header{"Authorization": {bot.header["Authorization"]}, "X-Api-Key": {lumina.secret}}, http.StatusBadRequest, "two_credentials"},
		"two in the same header":        {http.Header{"Authorization": {"Bearer " + ltx.secret, "Bearer " + door.secret}}, http.StatusBadRequest, "two_credentials"},
		"one twice":                     {http.Header{"X-Api-Key": {lumina.secret, lumina.secret}}, http.StatusBadRequest, "two_credentials"},
		"two joined":                    {http.Header{"Authorization": {"Bearer " + ltx.secret + ", Bearer " + door.secret}}, http.StatusBadRequest, "two_credentials"},
		"two keys joined":               {http.Header{"X-Api-Key": {lumina.secret + "," + lona.secret}}, http.StatusBadRequest, "two_credentials"},
		"two in Basic":                  {http.Header{"Authorization": {basic(ltx.secret, bot.secret)["Authorization"]}}, http.StatusBadRequest, "two_credentials"},
		"two agents":                    {http.Header{"X-Api-Key": {lona.secret}, "X-User-Id": {"trader", "scout"}}, http.StatusBadRequest, "two_credentials"},
		"one and a registration secret": {http.Header{"Authorization": {"Bearer " + ltx.secret}, "X-Agent-Registration-Secret": {partnerSecret}}, http.StatusBadRequest, "two_credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			a := verifyWith(t, gw, tc.header, http.MethodGet, "/reports")
			wantStatus(t, a, tc.status, tc.code)
			if got := a.header.Get("WWW-Authenticate"); (got != "") != (tc.status == http.StatusUnauthorized) {
				t.Errorf("got WWW-Authenticate %q with %d", got, a.status)
			}
			if tc.status == http.StatusUnauthorized && !strings.Contains(string(a.body), embeddedgateway.Origin+"/v1/register") {
				t.Errorf("the refusal does not say where to register: %s", a.body)
			}
			if got := a.header.Get("X-Enlist-Refusal"); got != string(a.body) {
				t.Errorf("got the refusal %q in the header and %s as the body", got, a.body)
			}
			for _, m := range all {
				wantNone(t, "the refusal", a.body, m.secret)
			}
		})
	}
	if a := asks(t, gw, http.MethodGet, "/reports?api_key="+lumina.secret); a.code() != "no_credential" {
		t.Errorf("a key in the URL: got %d %s", a.status, a.body)
	}
}

// changed is a JWT with another signature.
func changed(token string) string {
	i := strings.LastIndexByte(token, '.') + 1
	return token[:i] + strings.Repeat("A", len(token)-i)
}

// verifyWith is the request of nginx, with whatever headers.
func verifyWith(t testing.TB, gw *gatewaytest.Gateway, h http.Header, method, uri string) answer {
	t.Helper()
	h = h.Clone()
	h["X-Original-Method"], h["X-Original-Uri"] = []string{method}, []string{uri}
	return raw(t, gw, http.MethodGet, verifyPath, h)
}

// raw makes a request with exactly these headers.
func raw(t testing.TB, gw *gatewaytest.Gateway, method, path string, h http.Header) answer {
	t.Helper()
	req, err := http.NewRequest(method, gw.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque, req.Header = path, h // as it is spelled
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func TestTheTokenForTheAPIIsNoCredentialAnywhere(t *testing.T) {
	gw := fronted(t)
	for _, m := range members(t, gw) {
		assertion := m.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token")
		for _, path := range []string{doorWhoAmIPath, "/api/agents/" + m.agent, ltxMePath} {
			if strings.Contains(m.agent, "@") {
				continue
			}
			if a := send(t, gw, http.MethodGet, path, "", bearer(assertion)); a.status/100 == 2 {
				t.Errorf("%s took the token for the API of %s: %s", path, m.name, a.body)
			}
		}
		if _, err := embeddedgateway.SignerOf(gw.Embedded()).Verify("enlist-upstream", assertion); err == nil {
			t.Errorf("the token for the API of %s passes where the JWTs of agents are verified", m.name)
		}
	}
}

func TestVerifyAsksTheDatabaseEachTimeAndSignsNowAndThen(t *testing.T) {
	gw := fronted(t)
	m := members(t, gw)[1]
	first := m.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token")
	gw.Clock.Advance(29 * time.Second)
	if again := m.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token"); again != first {
		t.Errorf("another token was signed within half of the life of one")
	}
	gw.Clock.Advance(2 * time.Second)
	if later := m.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token"); later == first {
		t.Errorf("the same token was given out after half of its life")
	}
	gw.Clock.Advance(-time.Hour)
	before := m.asked(t, gw, http.MethodGet, "/").header.Get("X-Enlist-Token")
	if iat := verifyAssertion(t, gw, before)["iat"].(float64); int64(iat) > gw.Clock.Now().Unix() {
		t.Errorf("a token of the future was given out when the clock was set back")
	}
	if err := gw.Embedded().Suspend(t.Context(), m.protocol, m.agent); err != nil {
		t.Fatal(err)
	}
	if a := m.asked(t, gw, http.MethodGet, "/"); a.status != http.StatusUnauthorized {
		t.Errorf("got %d after the agent was suspended", a.status)
	}
}

func TestVerifyNotesWhenAKeyWasUsed(t *testing.T) {
	gw := fronted(t)
	bot := fluxNew(t, gw, "")
	gw.Clock.Advance(time.Minute)
	if a := asks(t, gw, http.MethodGet, "/", bearer(bot.key)); a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	want := `"last_used_at":"` + gw.Clock.Now().UTC().Format(time.RFC3339) + `"`
	if a := bot.keys(t, gw, ""); !strings.Contains(string(a.body), want) {
		t.Errorf("got %s, want %s", a.body, want)
	}
}
