package embeddedgateway_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

func TestFluxraTokensSayWhoseTheyAre(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	agent := fluxNew(t, gw, "")
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(agent.jwt, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]any
	if err := json.Unmarshal(text, &said); err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(said)), []string{"aud", "exp", "iat", "iss", "jti", "key_id", "scope", "sub"}; !slices.Equal(got, want) {
		t.Errorf("got the claims %v, want %v", got, want)
	}
	for name, want := range map[string]any{
		"sub": agent.id, "key_id": agent.keyID, "scope": "messages:read messages:write conversations:read presence:update",
		"iat": float64(fluxTime.Unix()), "exp": float64(fluxTime.Add(time.Hour).Unix()),
	} {
		if said[name] != want {
			t.Errorf("got %s %v, want %v", name, said[name], want)
		}
	}
	head, err := base64.RawURLEncoding.DecodeString(strings.Split(agent.jwt, ".")[0])
	if kid := published(t, gw)[0].KeyID; err != nil || !strings.Contains(string(head), `"kid":"`+kid+`"`) || !strings.Contains(string(head), `"alg":"EdDSA"`) {
		t.Errorf("got the header %s, want EdDSA by %s", head, kid)
	}
}

func TestFluxraTokenTakesAnyGrantOrNone(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, "")
	for body, status := range map[string]int{
		"": 200, "{}": 200, `{"grant_type":"client_credentials"}`: 200, `{"grant_type":"whatever","more":[1]}`: 200,
		`{"grant_type":1}`: 400, `[]`: 400, `{"a":1,"a":1}`: 400,
	} {
		a := send(t, gw, http.MethodPost, "/api/auth/token", body, basic(agent.id, agent.key))
		code := ""
		if status == 400 {
			code = "INVALID_REQUEST"
		}
		wantStatus(t, a, status, code)
	}
}

func TestFluxraTokensAreSixtyAMinuteForAnAgent(t *testing.T) {
	gw := gatewaytest.New(t)
	agent, other := fluxNew(t, gw, ""), fluxNew(t, gw, "")
	gw.Clock.Advance(time.Minute)
	wrong := agent
	wrong.key += "a"
	for range 61 { // a stranger uses up nothing
		wantStatus(t, wrong.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
	}
	second := agent.makeKey(t, gw, nil)
	for i := range 60 {
		by := agent
		if i%2 == 1 {
			by.key = second.at("api_key")
		}
		wantStatus(t, by.token(t, gw), http.StatusOK, "")
	}
	a := agent.token(t, gw)
	wantStatus(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	if got := a.header.Get("Retry-After"); got != "60" {
		t.Errorf("got Retry-After %q, want 60", got)
	}
	wantStatus(t, agent.refresh(t, gw), http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	wantStatus(t, other.token(t, gw), http.StatusOK, "")
	gw.Clock.Advance(time.Minute)
	wantStatus(t, agent.token(t, gw), http.StatusOK, "")
}

func TestFluxraRefreshEndsTheTokenBefore(t *testing.T) {
	gw := gatewaytest.New(t)
	old := fluxNew(t, gw, "").withKey(t, gw, map[string]any{"scopes": []string{"messages:read"}})
	gw.Clock.Advance(59 * time.Minute)
	a := old.refresh(t, gw)
	wantStatus(t, a, http.StatusOK, "")
	if a.at("scope") != "messages:read" || strings.Contains(string(a.body), "key_id") {
		t.Errorf("got %s, want the scope of the key, and no key_id", a.body)
	}
	agent := old
	agent.jwt = a.at("access_token")
	old.wantJWT(t, gw, "refreshed", http.StatusUnauthorized, "UNAUTHORIZED")
	agent.wantJWT(t, gw, "new", http.StatusOK, "")
	gw.Restart(t)
	old.wantJWT(t, gw, "refreshed, after a restart", http.StatusUnauthorized, "UNAUTHORIZED")
	agent.wantJWT(t, gw, "new, after a restart", http.StatusOK, "")
	gw.Clock.Advance(time.Hour)
	agent.wantJWT(t, gw, "expired", http.StatusUnauthorized, "UNAUTHORIZED")
}

func TestFluxraLogoutEndsAToken(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	agent := fluxNew(t, gw, "")
	other := agent.withKey(t, gw, nil)
	a := agent.logout(t, gw)
	wantStatus(t, a, http.StatusOK, "")
	if got := a.at("revoked_at"); got != "2026-04-03T20:00:00Z" {
		t.Errorf("got revoked_at %q", got)
	}
	agent.wantJWT(t, gw, "logged out", http.StatusUnauthorized, "UNAUTHORIZED")
	gw.Restart(t)
	agent.wantJWT(t, gw, "logged out, after a restart", http.StatusUnauthorized, "UNAUTHORIZED")
	other.wantJWT(t, gw, "another one of the same agent", http.StatusOK, "")
	wantStatus(t, agent.token(t, gw), http.StatusOK, "") // the key is as good as before
}

func TestFluxraTokenEndsInOneWay(t *testing.T) {
	gw := gatewaytest.New(t)
	for name, do := range map[string]func(fluxAgent) answer{
		"refresh": func(f fluxAgent) answer { return f.refresh(t, gw) },
		"logout":  func(f fluxAgent) answer { return f.logout(t, gw) },
	} {
		t.Run(name, func(t *testing.T) {
			agent := fluxNew(t, gw, "")
			won := 0
			for _, a := range race(64, func(int) answer { return do(agent) }) {
				switch a.status {
				case http.StatusOK:
					won++
				case http.StatusTooManyRequests: // beyond sixty a minute
					wantStatus(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
				default:
					wantStatus(t, a, http.StatusUnauthorized, "UNAUTHORIZED")
				}
			}
			if won != 1 {
				t.Errorf("got %d winners, want 1", won)
			}
		})
	}
}

func TestFluxraRefusesTokensThatAreNotGood(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, "")
	signer := embeddedgateway.SignerOf(gw.Embedded())
	claims := map[string]any{"scope": "messages:read", "key_id": agent.keyID}
	fine, _ := signer.Sign(t, "fluxra", agent.id, claims)
	agentdoor, _ := signer.Sign(t, "agentdoor", agent.id, claims)
	nobody, _ := signer.Sign(t, "fluxra", docAgentID, claims)
	keyless, _ := signer.Sign(t, "fluxra", agent.id, map[string]any{})
	foreign, _ := embeddedgateway.SignerOf(gatewaytest.New(t).Embedded()).Sign(t, "fluxra", agent.id, claims)

	parts := strings.Split(fine, ".")
	key := published(t, gw)[0]
	public, err := base64.RawURLEncoding.DecodeString(key.X)
	if err != nil {
		t.Fatal(err)
	}
	as := func(head string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + parts[1]
	}
	hs256 := as(fmt.Sprintf(`{"alg":"HS256","kid":%q}`, key.KeyID))
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(hs256))

	for name, token := range map[string]string{
		"nothing": "", "an API key": agent.key, "a recovery key": agent.recovery,
		"alg none":                   as(fmt.Sprintf(`{"alg":"none","kid":%q}`, key.KeyID)) + ".",
		"HS256 under the public key": hs256 + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"another gateway's":          foreign,
		"another protocol's":         agentdoor,
		"nobody's":                   nobody,
		"without a key":              keyless,
	} {
		fluxAgent{id: agent.id, jwt: token}.wantJWT(t, gw, name, http.StatusUnauthorized, "UNAUTHORIZED")
	}
	fluxAgent{id: agent.id, jwt: fine}.wantJWT(t, gw, "a good one", http.StatusOK, "")
	wantStatus(t, send(t, gw, http.MethodGet, agent.path(), "", basic(agent.id, fine)), http.StatusUnauthorized, "UNAUTHORIZED")
}

func TestFluxraTokensEndWithWhatIsBehindThem(t *testing.T) {
	gw := gatewaytest.New(t)
	t.Run("the API key", func(t *testing.T) {
		agent := fluxNew(t, gw, "")
		other := agent.withKey(t, gw, nil)
		wantStatus(t, agent.deleteKey(t, gw, agent.keyID), http.StatusNoContent, "")
		agent.wantJWT(t, gw, "its key was revoked", http.StatusUnauthorized, "UNAUTHORIZED")
		other.wantJWT(t, gw, "another key's", http.StatusOK, "")
	})
	t.Run("a deleted agent", func(t *testing.T) {
		agent := fluxNew(t, gw, "")
		remove(t, gw, agent.id)
		agent.wantJWT(t, gw, "deleted", http.StatusUnauthorized, "UNAUTHORIZED")
		wantStatus(t, agent.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
		wantStatus(t, agent.makeKey(t, gw, nil), http.StatusUnauthorized, "UNAUTHORIZED")
	})
	t.Run("a suspended agent", func(t *testing.T) {
		agent := fluxNew(t, gw, "")
		ended := agent.withKey(t, gw, nil)
		wantStatus(t, agent.deleteKey(t, gw, ended.keyID), http.StatusNoContent, "")
		gw.Clock.Advance(time.Second)
		suspend(t, gw, agent.id)
		agent.wantJWT(t, gw, "suspended", http.StatusForbidden, "FORBIDDEN")
		wantStatus(t, agent.token(t, gw), http.StatusForbidden, "FORBIDDEN")
		wantStatus(t, agent.makeKey(t, gw, nil), http.StatusForbidden, "FORBIDDEN")
		wantStatus(t, agent.deleteKey(t, gw, agent.keyID), http.StatusForbidden, "FORBIDDEN")
		// Who holds nothing that was good is not told.
		wantStatus(t, ended.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
		stranger := agent
		stranger.key, stranger.recovery = "sk_x", "rk_x"
		wantStatus(t, stranger.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
		wantStatus(t, stranger.makeKey(t, gw, nil), http.StatusUnauthorized, "UNAUTHORIZED")
	})
}

func TestFluxraKeepsAnAuditTrail(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	verifyBy(t, gw, token)
	verifyBy(t, gw, token)
	resend(t, gw, fluxBot)
	agent.jwt = agent.refresh(t, gw).at("access_token")
	agent.logout(t, gw)
	agent.deleteKey(t, gw, agent.keyID)
	askCode(t, gw, fluxBot)
	recoverBy(t, gw, fluxBot, lastCode(t, gw))
	var got []string
	for _, e := range gw.Audit(t) {
		whose := "nobody"
		if e.Agent == agent.id {
			whose = "agent"
		}
		if (e.KeyID == "") != (e.Refusal || strings.HasPrefix(e.Name, "email") || e.Name == "mail_declined" || e.Detail == "recovery") && e.Name != "mail_queued" {
			t.Errorf("got the event %+v", e)
		}
		got = append(got, strings.TrimSpace(e.Name+" "+whose+" "+e.Detail))
	}
	want := []string{
		"agent_registered agent", "mail_queued agent verification", "key_issued agent", "token_issued agent",
		"email_verified agent", "refused:INVALID_TOKEN nobody", "mail_declined nobody verification",
		"token_refreshed agent", "token_revoked agent", "key_revoked agent",
		"mail_queued agent recovery", "recovery_key_reset agent",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestFluxraHealth(t *testing.T) {
	gw := gatewaytest.New(t)
	wantStatus(t, send(t, gw, http.MethodGet, "/health", "", nil), http.StatusOK, "")
	wantStatus(t, send(t, gw, http.MethodPost, "/health", "{}", nil), http.StatusMethodNotAllowed, "INVALID_REQUEST")
}
