package embeddedgateway_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// The secrets in the transcripts.
const (
	docAgentID        = "agt_0123456789abcdef0123456789abcdef"
	docKeyID          = "aky_0123456789abcdef"
	docRecoveryKey    = "rk_AbCdEf0123456789AbCdEf0123456789AbCdEf01234"
	docNewRecoveryKey = "rk_ZyXwVu9876543210ZyXwVu9876543210ZyXwVu98765"
	docAPIKey         = "sk_0123456789AbCdEf0123456789AbCdEf0123456789A"
	docMailToken      = "evt_0123456789AbCdEf0123456789AbCdEf0123456789A"
	docJWT            = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ3RfMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYiLCJqdGkiOiJvbmUifQ.c2lnbmF0dXJlLW9uZQ"
	docNewJWT         = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ3RfMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYiLCJqdGkiOiJ0d28ifQ.c2lnbmF0dXJlLXR3bw"

	fluxBot = "bot@example.com"
)

// fluxTime is when the documentation's examples were made.
var fluxTime = time.Date(2026, 4, 3, 20, 0, 0, 0, time.UTC)

// fluxAgent is an agent with what it was issued.
type fluxAgent struct{ id, recovery, keyID, key, jwt string }

func basic(id, secret string) header {
	return header{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))}
}

func bearer(token string) header { return header{"Authorization": "Bearer " + token} }

// fluxRegister registers an agent, with an email unless it is "".
func fluxRegister(t testing.TB, gw *gatewaytest.Gateway, email string) answer {
	t.Helper()
	body := map[string]any{"agent_name": "weather-bot"}
	if email != "" {
		body["email"] = email
	}
	return postJSON(t, gw, "/api/auth/register", body, nil)
}

// fluxNew registers an agent and takes it as far as a JWT.
func fluxNew(t testing.TB, gw *gatewaytest.Gateway, email string) fluxAgent {
	t.Helper()
	a := fluxRegister(t, gw, email)
	wantStatus(t, a, http.StatusCreated, "")
	agent := fluxAgent{id: a.at("agent_id"), recovery: a.at("recovery_key")}
	return agent.withKey(t, gw, nil)
}

// withKey is the agent with a new API key, and a JWT for it.
func (f fluxAgent) withKey(t testing.TB, gw *gatewaytest.Gateway, more map[string]any) fluxAgent {
	t.Helper()
	a := f.makeKey(t, gw, more)
	wantStatus(t, a, http.StatusCreated, "")
	f.keyID, f.key = a.at("key_id"), a.at("api_key")
	a = f.token(t, gw)
	wantStatus(t, a, http.StatusOK, "")
	f.jwt = a.at("access_token")
	return f
}

func (f fluxAgent) path() string { return "/api/agents/" + f.id }

func (f fluxAgent) makeKey(t testing.TB, gw *gatewaytest.Gateway, more map[string]any) answer {
	t.Helper()
	body := map[string]any{"name": "laptop"}
	for name, value := range more {
		body[name] = value
	}
	return postJSON(t, gw, f.path(), body, basic(f.id, f.recovery))
}

func (f fluxAgent) token(t testing.TB, gw *gatewaytest.Gateway) answer {
	t.Helper()
	return postJSON(t, gw, "/api/auth/token", map[string]any{"grant_type": "client_credentials"}, basic(f.id, f.key))
}

func (f fluxAgent) refresh(t testing.TB, gw *gatewaytest.Gateway) answer {
	t.Helper()
	return send(t, gw, http.MethodPost, "/api/auth/refresh", "{}", bearer(f.jwt))
}

func (f fluxAgent) logout(t testing.TB, gw *gatewaytest.Gateway) answer {
	t.Helper()
	return send(t, gw, http.MethodPost, "/api/auth/logout", "", bearer(f.jwt))
}

func (f fluxAgent) keys(t testing.TB, gw *gatewaytest.Gateway, query string) answer {
	t.Helper()
	return send(t, gw, http.MethodGet, f.path()+query, "", bearer(f.jwt))
}

func (f fluxAgent) deleteKey(t testing.TB, gw *gatewaytest.Gateway, keyID string) answer {
	t.Helper()
	return send(t, gw, http.MethodDelete, f.path()+"/keys/"+keyID, "", basic(f.id, f.recovery))
}

// wantJWT checks whether a JWT is taken, everywhere alike.
func (f fluxAgent) wantJWT(t testing.TB, gw *gatewaytest.Gateway, what string, status int, code string) {
	t.Helper()
	if a := f.keys(t, gw, ""); a.status != status || a.code() != code {
		t.Errorf("%s: got %d %q for the list of keys, want %d %q", what, a.status, a.code(), status, code)
	}
	if status == http.StatusOK {
		return
	}
	for route, a := range map[string]answer{"refresh": f.refresh(t, gw), "logout": f.logout(t, gw)} {
		if a.status != status || a.code() != code {
			t.Errorf("%s: got %d %q for %s, want %d %q", what, a.status, a.code(), route, status, code)
		}
		if got := a.header.Get("WWW-Authenticate"); status == http.StatusUnauthorized && got != "Bearer" {
			t.Errorf("%s: got WWW-Authenticate %q for %s, want Bearer", what, got, route)
		}
	}
}

// delivering configures a mail server. It is never there, so that the letters
// wait.
func delivering() gatewaytest.Option {
	return gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.SMTPURL = "smtp://127.0.0.1:1?tls=none&from=noreply%40example.com"
	})
}

func TestFluxraRegisters(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	var ids []string
	for range 2 { // names are not unique
		a := fluxRegister(t, gw, "")
		wantStatus(t, a, http.StatusCreated, "")
		if bytes.Contains(a.body, []byte("email_verification")) {
			t.Errorf("got %s, want nothing about an email", a.body)
		}
		ids = append(ids, a.at("agent_id"))
	}
	if ids[0] == ids[1] {
		t.Error("two agents have one agent_id")
	}
	wantBool := func(want bool) {
		t.Helper()
		a := fluxRegister(t, gw, fluxBot)
		var body struct {
			Sent    *bool  `json:"email_verification_sent"`
			Expires string `json:"email_verification_expires_at"`
		}
		if err := json.Unmarshal(a.body, &body); err != nil || body.Sent == nil || *body.Sent != want || body.Expires != "2026-04-03T21:00:00Z" {
			t.Errorf("got %s, want email_verification_sent %v", a.body, want)
		}
	}
	wantBool(false) // it lies in the outbox
	gw.Restart(t, delivering())
	wantBool(true)
}

func TestFluxraRefusesWrongRegistrations(t *testing.T) {
	gw := gatewaytest.New(t)
	long := strings.Repeat("a", 501)
	for name, tt := range map[string]struct{ body, code string }{
		"no name":            {`{}`, "INVALID_AGENT_NAME"},
		"a short name":       {`{"agent_name":"ab"}`, "INVALID_AGENT_NAME"},
		"a long name":        {`{"agent_name":"` + long[:51] + `"}`, "INVALID_AGENT_NAME"},
		"an underscore":      {`{"agent_name":"weather_bot"}`, "INVALID_AGENT_NAME"},
		"a newline":          {`{"agent_name":"weather\n"}`, "INVALID_AGENT_NAME"},
		"a name in Greek":    {`{"agent_name":"καιρός"}`, "INVALID_AGENT_NAME"},
		"a number":           {`{"agent_name":123}`, "INVALID_REQUEST"},
		"no email":           {`{"agent_name":"weather-bot","email":"bot"}`, "INVALID_EMAIL"},
		"email is a list":    {`{"agent_name":"weather-bot","email":["a@b.c"]}`, "INVALID_REQUEST"},
		"metadata is a text": {`{"agent_name":"weather-bot","metadata":"x"}`, "INVALID_REQUEST"},
		"owner is a number":  {`{"agent_name":"weather-bot","metadata":{"owner":1}}`, "INVALID_REQUEST"},
		"a long description": {`{"agent_name":"weather-bot","metadata":{"description":"` + long + `"}}`, "INVALID_REQUEST"},
		"a key as version":   {`{"agent_name":"weather-bot","metadata":{"version":"` + docAPIKey + `"}}`, "INVALID_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, send(t, gw, http.MethodPost, "/api/auth/register", tt.body, nil), http.StatusBadRequest, tt.code)
		})
	}
	for _, body := range []string{
		`{"agent_name":"a-1","email":null,"metadata":null}`,
		`{"agent_name":"` + long[:50] + `","metadata":{"whatever":[1],"owner":"Ä"},"more":true}`,
	} {
		wantStatus(t, send(t, gw, http.MethodPost, "/api/auth/register", body, nil), http.StatusCreated, "")
	}
}

func TestFluxraRegistersTenAnHour(t *testing.T) {
	gw := gatewaytest.New(t)
	for range 10 {
		wantStatus(t, fluxRegister(t, gw, ""), http.StatusCreated, "")
	}
	a := fluxRegister(t, gw, "")
	wantStatus(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	if got := a.header.Get("Retry-After"); got != "3600" {
		t.Errorf("got Retry-After %q, want 3600", got)
	}
	gw.Restart(t)
	wantStatus(t, fluxRegister(t, gw, ""), http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	gw.Clock.Advance(time.Hour)
	wantStatus(t, fluxRegister(t, gw, ""), http.StatusCreated, "")
}

func TestFluxraKeysAreMadeListedAndEnded(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	agent := fluxNew(t, gw, "")
	a := agent.makeKey(t, gw, map[string]any{"name": "ci", "scopes": []string{"presence:update", "messages:read"}, "expires_in_days": 30})
	wantStatus(t, a, http.StatusCreated, "")
	if got := a.at("expires_at"); got != "2026-05-03T20:00:00Z" {
		t.Errorf("got expires_at %q, want 30 days from now", got)
	}
	ci := fluxAgent{id: agent.id, recovery: agent.recovery, key: a.at("api_key"), keyID: a.at("key_id")}
	if got := ci.token(t, gw).at("scope"); got != "presence:update messages:read" {
		t.Errorf("got the scope %q, want what was asked for", got)
	}
	gw.Clock.Advance(time.Minute)
	for range 2 { // also when it has ended already
		a = agent.deleteKey(t, gw, ci.keyID)
		wantStatus(t, a, http.StatusNoContent, "")
		gw.Clock.Advance(time.Minute)
	}
	wantStatus(t, ci.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
	want := fmt.Sprintf(`{"keys":[`+
		`{"key_id":%q,"name":"laptop","scopes":["messages:read","messages:write","conversations:read","presence:update"],`+
		`"created_at":"2026-04-03T20:00:00Z","expires_at":null,"last_used_at":"2026-04-03T20:00:00Z","revoked_at":null},`+
		`{"key_id":%q,"name":"ci","scopes":["presence:update","messages:read"],`+
		`"created_at":"2026-04-03T20:00:00Z","expires_at":"2026-05-03T20:00:00Z","last_used_at":"2026-04-03T20:00:00Z","revoked_at":"2026-04-03T20:01:00Z"}`+
		`],"next_cursor":null,"has_more":false}`, agent.keyID, ci.keyID)
	if got := string(agent.keys(t, gw, "").body); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	gw.Restart(t)
	if got := string(agent.keys(t, gw, "").body); got != want {
		t.Errorf("after a restart: got %s, want %s", got, want)
	}
}

func TestFluxraKeysAreThreeHundredAnHourForAnAgent(t *testing.T) {
	gw := gatewaytest.New(t)
	agent, other := fluxNew(t, gw, ""), fluxNew(t, gw, "")
	wrong := agent
	wrong.recovery += "a"
	made := 1
	for _, a := range race(320, func(i int) answer {
		if i%16 == 0 { // a stranger uses up nothing
			wantStatus(t, wrong.makeKey(t, gw, nil), http.StatusUnauthorized, "UNAUTHORIZED")
		}
		return agent.makeKey(t, gw, nil)
	}) {
		if a.status == http.StatusCreated {
			made++
			continue
		}
		wantStatus(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		if got := a.header.Get("Retry-After"); got != "3600" {
			t.Errorf("got Retry-After %q, want 3600", got)
		}
	}
	if made != 300 {
		t.Errorf("got %d keys, want 300", made)
	}
	wantStatus(t, other.makeKey(t, gw, nil), http.StatusCreated, "")
	gw.Clock.Advance(time.Hour)
	wantStatus(t, agent.makeKey(t, gw, nil), http.StatusCreated, "")
}

func TestFluxraKeysEndWhenTheyExpire(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, "").withKey(t, gw, map[string]any{"expires_in_days": 1})
	gw.Clock.Advance(24*time.Hour - time.Minute)
	a := agent.token(t, gw)
	wantStatus(t, a, http.StatusOK, "")
	agent.jwt = a.at("access_token")
	agent.wantJWT(t, gw, "before its key expires", http.StatusOK, "")
	gw.Clock.Advance(time.Minute)
	wantStatus(t, agent.token(t, gw), http.StatusUnauthorized, "UNAUTHORIZED")
	agent.wantJWT(t, gw, "after its key has expired", http.StatusUnauthorized, "UNAUTHORIZED")
}

func TestFluxraKeysAreListedAPageAtATime(t *testing.T) {
	gw := gatewaytest.New(t)
	agent, other := fluxNew(t, gw, ""), fluxNew(t, gw, "")
	for i := range 4 {
		wantStatus(t, agent.makeKey(t, gw, map[string]any{"name": fmt.Sprint("key ", i)}), http.StatusCreated, "")
	}
	var names []string
	query := "?limit=2"
	for range 3 {
		var list struct {
			Keys []struct {
				Name string `json:"name"`
			} `json:"keys"`
			NextCursor *string `json:"next_cursor"`
			HasMore    bool    `json:"has_more"`
		}
		a := agent.keys(t, gw, query)
		if err := json.Unmarshal(a.body, &list); err != nil || list.HasMore != (list.NextCursor != nil) {
			t.Fatalf("got %s, %v", a.body, err)
		}
		for _, k := range list.Keys {
			names = append(names, k.Name)
		}
		if list.NextCursor == nil {
			break
		}
		query = "?limit=2&cursor=" + *list.NextCursor
	}
	if got, want := strings.Join(names, ", "), "laptop, key 0, key 1, key 2, key 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, wrong := range []string{"?limit=0", "?limit=101", "?limit=x", "?limit=", "?cursor=aky_none", "?cursor=%00", "?cursor=" + other.keyID} {
		wantStatus(t, agent.keys(t, gw, wrong), http.StatusBadRequest, "INVALID_REQUEST")
	}
}

func TestFluxraRefusesWrongKeyRequests(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, "")
	for name, tt := range map[string]struct {
		more map[string]any
		code string
	}{
		"no name":          {map[string]any{"name": ""}, "INVALID_KEY_NAME"},
		"a long name":      {map[string]any{"name": strings.Repeat("n", 101)}, "INVALID_KEY_NAME"},
		"a control":        {map[string]any{"name": "a\x1b"}, "INVALID_KEY_NAME"},
		"a key as a name":  {map[string]any{"name": agent.key}, "INVALID_KEY_NAME"},
		"an unknown scope": {map[string]any{"scopes": []string{"admin"}}, "INVALID_REQUEST"},
		"a scope twice":    {map[string]any{"scopes": []string{"messages:read", "messages:read"}}, "INVALID_REQUEST"},
		"no scope":         {map[string]any{"scopes": []string{}}, "INVALID_REQUEST"},
		"no day":           {map[string]any{"expires_in_days": 0}, "INVALID_REQUEST"},
		"too many days":    {map[string]any{"expires_in_days": 366}, "INVALID_REQUEST"},
		"half a day":       {map[string]any{"expires_in_days": 0.5}, "INVALID_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, agent.makeKey(t, gw, tt.more), http.StatusBadRequest, tt.code)
		})
	}
	wantStatus(t, agent.makeKey(t, gw, map[string]any{"expires_in_days": nil, "scopes": nil}), http.StatusCreated, "")
	for _, id := range []string{"me", "agt_", strings.ToUpper(agent.id), agent.id + "0", "agt_%00"} {
		wrong := agent
		wrong.id = id
		wantStatus(t, wrong.makeKey(t, gw, nil), http.StatusBadRequest, "INVALID_AGENT_ID")
		wantStatus(t, wrong.keys(t, gw, ""), http.StatusBadRequest, "INVALID_AGENT_ID")
		wantStatus(t, wrong.deleteKey(t, gw, agent.keyID), http.StatusBadRequest, "INVALID_AGENT_ID")
	}
	for _, id := range []string{"aky_none", "x", "%00", "%ff"} {
		wantStatus(t, agent.deleteKey(t, gw, id), http.StatusNotFound, "NOT_FOUND")
	}
}

func TestFluxraRefusesAlikeWhateverIsWrongWithBasic(t *testing.T) {
	gw := gatewaytest.New(t)
	agent, other := fluxNew(t, gw, ""), fluxNew(t, gw, "")
	for name, h := range map[string]header{
		"nothing":              nil,
		"bearer":               bearer(agent.jwt),
		"another secret":       basic(agent.id, agent.recovery+"a"),
		"no secret":            basic(agent.id, ""),
		"another agent's":      basic(agent.id, other.recovery),
		"another agent's, and": basic(other.id, other.recovery),
		"an API key":           basic(agent.id, agent.key),
		"an unknown agent":     basic("agt_00000000000000000000000000000000", agent.recovery),
		"no agent_id":          basic("\xff\x00", agent.recovery),
	} {
		t.Run(name, func(t *testing.T) {
			bodies := map[string]bool{}
			for _, a := range []answer{
				send(t, gw, http.MethodPost, agent.path(), `{"name":"x"}`, h),
				send(t, gw, http.MethodDelete, agent.path()+"/keys/"+agent.keyID, "", h),
			} {
				wantStatus(t, a, http.StatusUnauthorized, "UNAUTHORIZED")
				if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Basic ") {
					t.Errorf("got WWW-Authenticate %q, want Basic", got)
				}
				bodies[a.at("error", "code")] = true
			}
		})
	}
	for name, h := range map[string]header{
		"nothing": nil, "a recovery key": basic(agent.id, agent.recovery), "another agent's": basic(agent.id, other.key), "bearer": bearer(agent.jwt),
	} {
		t.Run("token with "+name, func(t *testing.T) {
			wantStatus(t, send(t, gw, http.MethodPost, "/api/auth/token", "", h), http.StatusUnauthorized, "UNAUTHORIZED")
		})
	}
	wantStatus(t, send(t, gw, http.MethodDelete, agent.path()+"/keys/"+other.keyID, "", basic(agent.id, agent.recovery)), http.StatusNotFound, "NOT_FOUND")
	agent.wantJWT(t, gw, "after all that", http.StatusOK, "")
	a := send(t, gw, http.MethodGet, other.path(), "", bearer(agent.jwt))
	wantStatus(t, a, http.StatusForbidden, "FORBIDDEN")
}

func TestFluxraSecretsAreInNoLogTrailOrDatabase(t *testing.T) {
	log := &syncBuffer{}
	gw := gatewaytest.New(t, gatewaytest.SQLite(), gatewaytest.Logger(log.logger()), gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
	agent := fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	send(t, gw, http.MethodGet, "/api/auth/verify-email?token="+token, "", header{"Accept": "text/html"})
	send(t, gw, http.MethodGet, "/api/auth/verify-email?token="+token, "", nil)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	recovered := recoverBy(t, gw, fluxBot, code)
	wantStatus(t, recovered, http.StatusOK, "")
	agent.jwt = agent.refresh(t, gw).at("access_token")
	agent.logout(t, gw)
	agent.makeKey(t, gw, nil) // with the recovery key that has ended
	agent.deleteKey(t, gw, agent.key)
	send(t, gw, http.MethodGet, "/api/agents/"+agent.recovery, "", bearer(agent.key))
	send(t, gw, http.MethodPost, "/api/auth/register", `{"agent_name":"`+agent.key+`",}`, nil)

	secrets := gw.Secrets()
	if len(secrets) != 6 { // two recovery keys, an API key, two JWTs, a token
		t.Errorf("got %d secrets, want 6", len(secrets))
	}
	for _, e := range gw.Audit(t) {
		wantNone(t, "the audit trail", fmt.Appendf(nil, "%+v", e), append(secrets, fluxBot)...)
		wantNone(t, "the audit trail", []byte(e.Name+" "+e.Detail), code)
	}
	gw.Restart(t)
	wantNone(t, "the log", log.bytes(), append(secrets, fluxBot)...)
	files, err := filepath.Glob(gw.Database + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no database: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wantNone(t, filepath.Base(file), text, append(secrets, fluxBot)...)
	}
}
