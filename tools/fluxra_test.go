package tools_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// What the scripted service issues.
const (
	fluxraAgentID  = "agt_0123456789abcdef0123456789abcdef"
	fluxraRecovery = "rk_recoveryKey0123456789recoveryKey"
	fluxraKey      = "sk_apiKey01234567890123456789apiKey"
	fluxraToken    = "eyJhbGciOiJFZERTQSJ9.cGF5bG9hZA.c2lnbmF0dXJl"
	fluxraMailed   = "evt_0123456789AbCdEf0123456789AbCdEf"
	fluxraDigits   = "271828"
)

// fluxraScript is a Fluxra that always answers the same to a call.
type fluxraScript struct {
	mu    sync.Mutex
	says  map[string]string // "STATUS BODY", by "METHOD PATH"
	calls []string
}

func newFluxraScript() *fluxraScript {
	return &fluxraScript{says: map[string]string{
		"POST /api/auth/register": `201 {"agent_id":"` + fluxraAgentID + `","agent_name":"weather-bot","recovery_key":"` + fluxraRecovery +
			`","created_at":"2026-04-03T20:00:00Z","warning":"w","email_verification_sent":true,"email_verification_expires_at":"2099-04-03T21:00:00Z"}`,
		"POST /api/agents/" + fluxraAgentID: `201 {"key_id":"aky_1","name":"n","api_key":"` + fluxraKey +
			`","scopes":["messages:read"],"expires_at":null,"created_at":"2026-04-03T20:00:00Z"}`,
		"POST /api/auth/token":                                `200 {"access_token":"` + fluxraToken + `","token_type":"Bearer","expires_in":3600,"scope":"messages:read","key_id":"aky_1"}`,
		"POST /api/auth/refresh":                              `200 {"access_token":"` + fluxraToken + `","token_type":"Bearer","expires_in":3600,"scope":"messages:read"}`,
		"POST /api/auth/logout":                               `200 {"message":"m","revoked_at":"2026-04-03T20:00:00Z"}`,
		"DELETE /api/agents/" + fluxraAgentID + "/keys/aky_1": `204 `,
		"POST /api/auth/verify-email":                         `200 {"agent_id":"` + fluxraAgentID + `","email_verified":true,"message":"m"}`,
		"POST /api/auth/verification/resend":                  `200 {"message":"m"}`,
		"POST /api/auth/recovery/request":                     `200 {"agent_id":"","email":"bot@example.com","code_expires_at":"2026-04-03T20:15:00Z","message":"m"}`,
		"POST /api/auth/recovery/verify":                      `200 {"agent_id":"` + fluxraAgentID + `","recovery_key":"rk_newRecoveryKey9876543210newRecov","message":"m"}`,
		"GET /api/me":                                         `200 {"token":"` + fluxraToken + `"}`,
	}}
}

func (s *fluxraScript) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	s.calls = append(s.calls, call)
	status, body, _ := strings.Cut(s.says[call], " ")
	codes := map[string]int{"200": 200, "201": 201, "204": 204, "400": 400, "401": 401, "403": 403, "404": 404, "409": 409, "429": 429, "500": 500, "503": 503}
	if strings.HasPrefix(body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(codes[status])
	if status != "204" {
		_, _ = w.Write([]byte(body))
	}
}

// say changes what is answered to a call.
func (s *fluxraScript) say(call, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.says[call] = text
}

// newFluxraRig returns a model whose Fluxra is a script.
func newFluxraRig(t *testing.T) (*rig, *fluxraScript) {
	t.Helper()
	s := newFluxraScript()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	r := newRig(t, srv.URL, options{env: map[string]string{"FLUXRA_API_URL": srv.URL}})
	t.Cleanup(func() {
		r.saysNone(fluxraRecovery, fluxraKey, fluxraToken, fluxraMailed, fluxraDigits, "rk_newRecoveryKey9876543210newRecov")
	})
	return r, s
}

func (r *rig) enrol() tools.FluxraRegistered {
	r.t.Helper()
	return call[tools.FluxraRegistered](r, "fluxra_register_agent", args{
		"agent_name": "weather-bot", "email": "bot@example.com", "metadata": args{"owner": "Lensy Inc.", "version": "1.0.0"},
	})
}

func TestAFluxraAccountsLife(t *testing.T) {
	r, s := newFluxraRig(t)
	reg := r.enrol()
	if reg.Handle != "fluxra/weather-bot" || reg.State != "active" || reg.Reused || reg.ExpiresAt != "" || reg.StoredIn != "memory" || reg.Permissions[0] != "messages:read" {
		t.Errorf("registered: got %+v", reg)
	}
	for _, want := range []string{"send_request", "fluxra_verify_email", "2099-04-03T21:00:00Z"} {
		if !strings.Contains(reg.NextStep, want) {
			t.Errorf("got the next step %q, want %s in it", reg.NextStep, want)
		}
	}
	if again := r.enrol(); !again.Reused {
		t.Errorf("again: got %+v", again)
	}
	if list := call[tools.CredentialList](r, "list_credentials", args{}); len(list.Credentials) != 1 || list.Credentials[0].Handle != reg.Handle {
		t.Errorf("listed %+v, want one handle for three items", list)
	}
	if got := call[tools.Answer](r, "send_request", args{"method": "GET", "path": "/api/me"}); got.Status != 200 {
		t.Errorf("got %+v", got)
	}
	verified := call[tools.FluxraVerified](r, "fluxra_verify_email", args{"token": fluxraMailed})
	if !verified.Verified || verified.Credential != reg.Handle {
		t.Errorf("got %+v", verified)
	}
	if again := r.enrol(); strings.Contains(again.NextStep, "fluxra_verify_email") {
		t.Errorf("verified: got %q", again.NextStep)
	}
	r.clock.Advance(2 * time.Hour)
	if got := call[tools.CredentialList](r, "list_credentials", args{}).Credentials[0].State; got != "active" {
		t.Errorf("got the state %s, want that of the key and not of the token", got)
	}
	if got := call[tools.Credential](r, "rotate_credential", args{}); got.Handle != reg.Handle {
		t.Errorf("rotated: got %+v", got)
	}
	call[tools.Ended](r, "revoke_credential", args{"credential": reg.Handle})
	if f := r.fail("send_request", args{"credential": reg.Handle, "method": "GET", "path": "/api/me"}); f.Code != tools.CodeRefused || !strings.Contains(f.NextStep, "rotate_credential") {
		t.Errorf("revoked: got %+v", f)
	}
	if got := call[tools.Ended](r, "forget_credential", args{"credential": reg.Handle}); !got.MayStillWork || !strings.Contains(got.WhatHappened, "recovery key is gone, too") {
		t.Errorf("got %+v, want that the recovery key may work", got)
	}
	if all, _ := r.store.List(t.Context(), ""); len(all) != 0 {
		t.Errorf("left %+v", all)
	}
	if len(s.calls) == 0 {
		t.Error("nothing was asked for")
	}
}

func TestFluxraSaysWhatBecameOfTheMail(t *testing.T) {
	start := `201 {"agent_id":"` + fluxraAgentID + `","recovery_key":"` + fluxraRecovery + `"`
	for _, tt := range []struct {
		name, answer string
		in           args
		want, not    string
	}{
		{"not sent", start + `,"email_verification_sent":false}`, args{"email": "bot@example.com"}, "enlist gateway outbox", "good until"},
		{"nothing said", start + `}`, args{"email": "bot@example.com"}, "did not say", "outbox"},
		{"no email", start + `}`, args{}, "cannot be recovered", "link"},
	} {
		r, s := newFluxraRig(t)
		s.say("POST /api/auth/register", tt.answer)
		tt.in["agent_name"] = "weather-bot"
		got := call[tools.FluxraRegistered](r, "fluxra_register_agent", tt.in).NextStep
		if !strings.Contains(got, tt.want) || strings.Contains(got, tt.not) {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

func TestRecoveringAFluxraAccountTakesTwoCalls(t *testing.T) {
	r, _ := newFluxraRig(t)
	asked := call[tools.FluxraRecovered](r, "fluxra_recover_account", args{"email": "bot@example.com"})
	if asked.Recovered || asked.CodeExpiresAt != "2026-04-03T20:15:00Z" || !strings.Contains(asked.NextStep, "fluxra_recover_account with the same email and code") {
		t.Errorf("asked: got %+v", asked)
	}
	got := call[tools.FluxraRecovered](r, "fluxra_recover_account", args{"email": "bot@example.com", "code": fluxraDigits})
	if !got.Recovered || got.Credential != "fluxra/"+fluxraAgentID || got.StoredIn != "memory" {
		t.Errorf("recovered: got %+v", got)
	}
	again := call[tools.FluxraVerified](r, "fluxra_verify_email", args{"email": "bot@example.com", "credential": got.Credential})
	if again.Verified || !strings.Contains(again.NextStep, "outbox") {
		t.Errorf("sent again: got %+v", again)
	}
	if f := r.fail("fluxra_verify_email", args{"token": fluxraMailed, "email": "bot@example.com"}); f.Code != tools.CodeRefused {
		t.Errorf("both: got %+v", f)
	}
	for _, tool := range []string{"fluxra_verify_email", "fluxra_recover_account"} {
		if f := r.fail(tool, args{}); f.Code != tools.CodeMissingArgument || !strings.HasPrefix(f.NextStep, "Ask the person for ") {
			t.Errorf("%s without anything: got %+v", tool, f)
		}
	}
	for _, in := range []args{{"email": "no"}, {"email": "bot@example.com", "code": "12"}} {
		if f := r.fail("fluxra_recover_account", in); f.Code != gateway.CodeInvalidInput {
			t.Errorf("%v: got %+v", in, f)
		}
	}
}

func TestFluxraErrorsSayWhatToDo(t *testing.T) {
	refusal := func(status, code string) string {
		return status + ` {"error":{"code":"` + code + `","message":"words on ` + fluxraDigits[:3] + `"}}`
	}
	const (
		register = "POST /api/auth/register"
		agent    = "POST /api/agents/" + fluxraAgentID
		verify   = "POST /api/auth/verify-email"
		recovery = "POST /api/auth/recovery/verify"
	)
	tool := map[string]string{register: "fluxra_register_agent", agent: "fluxra_register_agent", verify: "fluxra_verify_email", recovery: "fluxra_recover_account"}
	in := map[string]args{
		register: {"agent_name": "weather-bot"}, agent: {"agent_name": "weather-bot"},
		verify: {"token": fluxraMailed}, recovery: {"email": "bot@example.com", "code": fluxraDigits},
	}
	for _, tt := range []struct{ call, status, code, next string }{
		{register, "400", wire.FluxraInvalidAgentName, "3 to 50"},
		{register, "400", wire.FluxraInvalidRequest, "service_said"},
		{register, "400", wire.FluxraInvalidEmail, "Ask the person"},
		{agent, "400", wire.FluxraInvalidAgentID, "FLUXRA_API_URL"},
		{agent, "400", wire.FluxraInvalidKeyName, "Tell the person"},
		{register, "401", wire.FluxraUnauthorized, "rotate_credential"},
		{verify, "401", wire.FluxraInvalidToken, "fluxra_verify_email again with email alone"},
		{recovery, "401", wire.FluxraInvalidToken, "fluxra_recover_account again with email alone"},
		{register, "403", wire.FluxraForbidden, "Tell the person"},
		{register, "404", wire.FluxraNotFound, "FLUXRA_API_URL"},
		{recovery, "409", wire.FluxraCodeUsed, "another code"},
		{register, "429", wire.FluxraRateLimited, "an hour"},
		{verify, "500", wire.FluxraInternal, "same token"},
		{register, "500", wire.FluxraInternal, "another account"},
		{recovery, "503", wire.FluxraUnavailable, "another code"},
		{agent, "500", wire.FluxraInternal, "ends the one that was lost"},
	} {
		t.Run(tt.code+" "+tt.call, func(t *testing.T) {
			r, s := newFluxraRig(t)
			s.say(tt.call, refusal(tt.status, tt.code))
			f := r.fail(tool[tt.call], in[tt.call])
			if f.Code != tt.code || f.ServiceSaid == "" || !strings.Contains(f.NextStep, tt.next) {
				t.Errorf("got %+v, want a next step with %q", f, tt.next)
			}
		})
	}
}

func TestFluxraTellsWhenAPersonIsNeeded(t *testing.T) {
	r, s := newFluxraRig(t)
	r.enrol()
	dead := `401 {"error":{"code":"UNAUTHORIZED","message":"no"}}`
	for _, call := range []string{"POST /api/auth/token", "POST /api/auth/refresh", "POST /api/agents/" + fluxraAgentID} {
		s.say(call, dead)
	}
	r.clock.Advance(2 * time.Hour)
	elsewhere := newRig(t, "http://127.0.0.1:1", options{
		clock: r.clock, env: map[string]string{"FLUXRA_API_URL": "http://127.0.0.1:1"}, store: func(credstore.Store) credstore.Store { return r.store },
	})
	f := elsewhere.fail("rotate_credential", args{"credential": "fluxra/weather-bot"})
	if f.Code != gateway.CodeRecovery || !strings.Contains(f.NextStep, "set FLUXRA_API_URL="+f.Origin) {
		t.Errorf("of a service that is not set: got %+v", f)
	}
	for tool, in := range map[string]args{"send_request": {"method": "GET", "path": "/api/me"}, "rotate_credential": {}} {
		f := r.fail(tool, in)
		if f.Code != gateway.CodeRecovery || !strings.Contains(f.NextStep, "fluxra_recover_account") || f.ServiceSaid != "UNAUTHORIZED: no" {
			t.Errorf("%s: got %+v", tool, f)
		}
	}
}

func TestFluxraSaysThatAnOldKeyMayLive(t *testing.T) {
	r, s := newFluxraRig(t)
	reg := r.enrol()
	key := "POST /api/agents/" + fluxraAgentID
	s.say(key, strings.ReplaceAll(s.says[key], "aky_1", "aky_2"))
	s.say("DELETE /api/agents/"+fluxraAgentID+"/keys/aky_1", "404 404 page not found")
	f := r.fail("rotate_credential", args{})
	if f.Status != 404 || !strings.Contains(f.WhatIsStored, "new key") || !strings.Contains(f.NextStep, "Do not rotate it again") {
		t.Errorf("got %+v, want that another rotation does not help", f)
	}
	c, err := r.store.Get(t.Context(), credstore.Key{Protocol: "fluxra", Origin: reg.Origin, Agent: "weather-bot", Kind: credstore.KindAPIKey})
	if err != nil || c.KeyID != "aky_2" || c.Attrs["replaces"] != "aky_1" {
		t.Errorf("got %+v, %v", c.Info, err)
	}
	s.say("DELETE /api/agents/"+fluxraAgentID+"/keys/aky_1", "503 upstream")
	if f := r.fail("rotate_credential", args{}); f.Status != 503 || !strings.Contains(f.NextStep, "old key may still work") {
		t.Errorf("got %+v, want that another rotation ends it", f)
	}
}
