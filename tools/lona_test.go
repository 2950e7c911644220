package tools_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// The whole life of a credential, at the real gateway.
func TestAnAgentsLife(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Strategies(wire.LonaStrategy{ID: "s-1", Name: "Mean reversion"}))
	r := newRig(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()

	empty := call[tools.CredentialList](r, "list_credentials", args{})
	if len(empty.Credentials) != 0 || !strings.HasPrefix(empty.NextStep, "Call discover_service with url: it says which of these registers there, agentdoor_register_agent") {
		t.Errorf("before registering: got %+v", empty)
	}

	reg := r.register("my-agent")
	handle := "lona/my-agent"
	want := tools.Credential{
		Handle: handle, Protocol: "lona", Origin: gw.URL, Agent: "my-agent", State: "active",
		ExpiresAt: gw.Clock.Now().Add(30 * 24 * time.Hour).UTC().Format(time.RFC3339), Permissions: []string{"*"},
	}
	if got := reg.Credential; got.Handle != want.Handle || got.Protocol != want.Protocol || got.Origin != want.Origin ||
		got.Agent != want.Agent || got.State != want.State || got.ExpiresAt != want.ExpiresAt || !slices.Equal(got.Permissions, want.Permissions) {
		t.Errorf("registered: got %+v, want %+v", got, want)
	}
	if reg.StoredIn != "memory" || reg.Reused || !strings.Contains(reg.NextStep, "lona_list_strategies") {
		t.Errorf("registered: got %+v", reg)
	}

	list := call[tools.LonaStrategies](r, "lona_list_strategies", args{})
	if got, want := list.Strategies, `[map[id:s-1 name:Mean reversion]]`; !sameText(got, want) || list.Credential != handle {
		t.Errorf("strategies: got %+v, want %s", list, want)
	}

	gw.Clock.Advance(25 * 24 * time.Hour)
	if got := call[tools.CredentialList](r, "list_credentials", args{}).Credentials[0].State; got != "expiring" {
		t.Errorf("after 25 of 30 days: got state %q, want expiring", got)
	}
	rotated := call[tools.Credential](r, "rotate_credential", args{})
	if rotated.Handle != handle || rotated.State != "active" || rotated.ExpiresAt <= reg.ExpiresAt {
		t.Errorf("rotated: got %+v, want %s until later than %s", rotated, handle, reg.ExpiresAt)
	}
	if a := call[tools.Answer](r, "send_request", args{"method": "GET", "path": wire.LonaStrategiesPath}); a.Status != 200 {
		t.Errorf("after rotating: got status %d, want 200", a.Status)
	}

	f := r.fail("revoke_credential", args{"credential": handle})
	if f.Code != tools.CodeUnsupported || !strings.Contains(f.NextStep, "rotate_credential") || !strings.Contains(f.NextStep, "forget_credential") {
		t.Errorf("revoke: got %+v", f)
	}
	if got := call[tools.CredentialList](r, "list_credentials", args{}); len(got.Credentials) != 1 {
		t.Errorf("after the refused revocation: got %+v, want one credential", got)
	}

	ended := call[tools.Ended](r, "forget_credential", args{"credential": handle})
	if !ended.MayStillWork || !strings.Contains(ended.WhatHappened, rotated.ExpiresAt) || !strings.Contains(ended.WhatHappened, gw.URL) {
		t.Errorf("forget: got %+v, want that the service accepts the key until %s", ended, rotated.ExpiresAt)
	}
	if f := r.fail("forget_credential", args{"credential": handle}); f.Code != tools.CodeNoCredential {
		t.Errorf("forget again: got %+v", f)
	}
	if len(gw.Secrets()) < 4 {
		t.Errorf("the gateway issued %d secrets, want two invites and two tokens", len(gw.Secrets()))
	}
}

func sameText(got any, want string) bool {
	return strings.TrimSpace(strings.ReplaceAll(fmt.Sprint(got), "\n", "")) == want
}

func TestRegisterTakesEveryArgument(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": "a-registration-secret-of-ours"}))
	r := newRig(t, gw.URL, options{clock: gw.Clock, env: map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "a-registration-secret-of-ours"}})
	defer func() { r.saysNothingOf(gw) }()
	got := call[tools.LonaRegistered](r, "lona_register_agent", args{
		"agent_id": "my-agent", "agent_name": "Mein Agent ☂", "expires_in_days": 7, "source": "a-test", "user_id": "user-7",
	})
	if want := gw.Clock.Now().Add(7 * 24 * time.Hour).UTC().Format(time.RFC3339); got.ExpiresAt != want {
		t.Errorf("expires_at: got %s, want %s", got.ExpiresAt, want)
	}
	// The gateway refuses a token that comes with another user id, so this one came.
	if f := r.fail("lona_list_strategies", args{}); f.Code != wire.LonaUnauthorized || f.Status != 401 || !strings.Contains(f.NextStep, "rotate_credential") {
		t.Errorf("with a user id that is not the agent's: got %+v, want unauthorized", f)
	}
}

func TestRegisteringAgainRotates(t *testing.T) {
	gw := gatewaytest.New(t)
	r := newRig(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	r.register("my-agent")
	if again := r.register("my-agent"); again.Reused {
		t.Errorf("registered again: got %+v, want a new token", again)
	}
	if got := call[tools.CredentialList](r, "list_credentials", args{}); len(got.Credentials) != 1 {
		t.Errorf("got %+v, want one credential", got)
	}
}

func TestTheServicesOwnCodesSayWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		name     string
		env      map[string]string // of the gateway
		client   map[string]string
		opts     []gatewaytest.Option
		before   func(*rig)
		code     string
		status   int
		nextStep string
	}{
		{
			name: "invites disabled", env: map[string]string{"AGENT_INVITE_ENABLED": "false"},
			code: wire.LonaInvitesDisabled, status: 403, nextStep: "LONA_AGENT_REGISTRATION_SECRET",
		},
		{
			name: "wrong registration secret", env: map[string]string{"AGENT_REGISTRATION_SECRET": "the-right-one-of-the-two"},
			client: map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "the-wrong-one-of-the-two"},
			code:   wire.LonaInvalidRegistrationSecret, status: 401, nextStep: "correct or unset LONA_AGENT_REGISTRATION_SECRET",
		},
		{
			name: "somebody else's agent_id", opts: []gatewaytest.Option{gatewaytest.Standalone()},
			before: func(r *rig) {
				r.register("my-agent")
				call[tools.Ended](r, "forget_credential", args{})
			},
			code: wire.LonaAgentExists, status: 409, nextStep: "another agent_id",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gw := gatewaytest.New(t, append(tc.opts, gatewaytest.Env(tc.env))...)
			r := newRig(t, gw.URL, options{clock: gw.Clock, env: tc.client})
			defer func() { r.saysNothingOf(gw) }()
			if tc.before != nil {
				tc.before(r)
			}
			f := r.fail("lona_register_agent", args{"agent_id": "my-agent", "agent_name": "An Agent"})
			if f.Code != tc.code || f.Status != tc.status || f.Protocol != "lona" || f.Origin != gw.URL || !strings.Contains(f.NextStep, tc.nextStep) {
				t.Errorf("got %+v, want code %s, status %d, next step with %q", f, tc.code, tc.status, tc.nextStep)
			}
			if f.ServiceSaid == "" || !strings.Contains(f.WhatIsStored, "Nothing new") {
				t.Errorf("got %+v, want the service's words and that nothing new is stored", f)
			}
		})
	}
}

func TestARateLimitSaysHowLongToWait(t *testing.T) {
	gw := gatewaytest.New(t)
	r := newRig(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	for range 3 {
		r.register("my-agent")
	}
	f := r.fail("lona_register_agent", args{"agent_id": "my-agent", "agent_name": "An Agent"})
	if f.Code != wire.LonaRateLimited || f.Status != 429 || f.RetryAfterSeconds < 1 || f.RetryAfterSeconds > 3600 {
		t.Errorf("got %+v, want rate_limited and a time within the hour", f)
	}
	if !strings.HasPrefix(f.NextStep, "Wait ") || !strings.Contains(f.NextStep, "lona_register_agent") {
		t.Errorf("next step: got %q, want to wait and call again", f.NextStep)
	}
	if got := call[tools.Answer](r, "send_request", args{"method": "GET", "path": wire.LonaStrategiesPath}); got.Status != 200 {
		t.Errorf("with the token that was there: got status %d, want 200", got.Status)
	}
}

func TestTheCredentialMayBeLeftOutOnlyWhenItIsClear(t *testing.T) {
	gw := gatewaytest.New(t)
	r := newRig(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()

	f := r.fail("lona_list_strategies", args{})
	if f.Code != tools.CodeNoCredential || !strings.Contains(f.NextStep, "lona_register_agent") {
		t.Errorf("with none: got %+v", f)
	}
	r.register("agent-a")
	r.register("agent-b")
	for _, tool := range []string{"lona_list_strategies", "rotate_credential", "forget_credential", "revoke_credential"} {
		f := r.fail(tool, args{})
		if f.Code != tools.CodeWhichCredential || !strings.Contains(f.WhatIsStored, "lona/agent-a, lona/agent-b") || !strings.Contains(f.NextStep, tool) {
			t.Errorf("%s with two: got %+v", tool, f)
		}
	}
	for _, handle := range []string{"nonsense", "lona/", "otherwise/agent-a", "lona/agent-a@evil.example/x", strings.Repeat("x", 5000)} {
		f := r.fail("lona_list_strategies", args{"credential": handle})
		if f.Code != tools.CodeNoCredential || !strings.Contains(f.NextStep, "list_credentials") || len(f.WhatHappened) > 300 {
			t.Errorf("%.40s: got %+v", handle, f)
		}
	}
	f = r.fail("send_request", args{"credential": "lona/agent-c", "method": "GET", "path": "/"})
	if f.Code != tools.CodeNoCredential || !strings.Contains(f.WhatIsStored, "lona/agent-a") {
		t.Errorf("unknown handle: got %+v", f)
	}
	gw.Clock.Advance(31 * 24 * time.Hour)
	f = r.fail("lona_list_strategies", args{})
	if f.Code == tools.CodeInternal || !strings.Contains(f.NextStep, "lona_register_agent") {
		t.Errorf("all expired: got %+v", f)
	}
	if got := call[tools.CredentialList](r, "list_credentials", args{}); got.NextStep != "Call send_request with credential lona/agent-a. What it lacks is seen to first." {
		t.Errorf("all expired: got %+v", got)
	}
}

func TestSendRequestRefusesRoutesThatIssueKeys(t *testing.T) {
	gw := gatewaytest.New(t)
	r := newRig(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	r.register("my-agent")
	before := len(gw.Audit(t))
	for name, in := range map[string]args{
		"register":          {"method": "POST", "path": wire.LonaRegisterPath, "body": args{}},
		"another spelling":  {"method": "POST", "path": "/api/v1/agents//register"},
		"dot segments":      {"method": "POST", "path": "/api/v1/x/../agents/register"},
		"another host":      {"method": "GET", "path": "https://example.com/"},
		"credential header": {"method": "GET", "path": "/", "headers": args{"X-API-Key": "lona"}},
	} {
		f := r.fail("send_request", in)
		if f.Code != tools.CodeRefused || !strings.Contains(f.WhatIsStored, "Nothing changed") {
			t.Errorf("%s: got %+v, want refused", name, f)
		}
		if name == "register" && f.NextStep != "Call lona_register_agent instead." {
			t.Errorf("register: next step: got %q", f.NextStep)
		}
	}
	if got := len(gw.Audit(t)); got != before {
		t.Errorf("the gateway saw %d events, want none", got-before)
	}
}

func TestSendRequestShowsWhatCame(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/json":
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = w.Write([]byte(`{"id": 12345678901234567890, "q": "` + r.URL.Query().Get("q") + `"}`))
		case "/text":
			_, _ = w.Write([]byte(`{"not": "said to be JSON"}`))
		case "/long":
			_, _ = w.Write([]byte(strings.Repeat("ü", 200_000)))
		case "/echo":
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			w.WriteHeader(http.StatusTeapot)
			buf := make([]byte, 1000)
			n, _ := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
		case "/mirror":
			_, _ = w.Write([]byte("your key is " + r.Header.Get("X-API-Key")))
		case "/picture":
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write([]byte("\x89PNG\r\n\x1a\n\x00\x00"))
		case "/gone":
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(service.Close)
	const token = "lona_partner_my-agent_abc123xyz456_SecretKeyHere123"
	r := newRig(t, service.URL, options{env: map[string]string{"LONA_API_KEY": token, "LONA_USER_ID": "my-agent"}})
	defer func() { r.saysNone(token) }()
	if err := r.client.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	send := func(method, path string, more args) tools.Answer {
		t.Helper()
		in := args{"method": method, "path": path}
		for k, v := range more {
			in[k] = v
		}
		return call[tools.Answer](r, "send_request", in)
	}

	if got := r.raw("send_request", args{"method": "GET", "path": "/json", "query": args{"q": "a b"}}); !strings.Contains(textOf(got), `"body":{"id":12345678901234567890,"q":"a b"}`) {
		t.Errorf("JSON: got %s, want it with all digits", textOf(got))
	}
	if got := send("GET", "/text", nil); got.Body != `{"not": "said to be JSON"}` {
		t.Errorf("text: got %+v", got)
	}
	if got := send("GET", "/long", nil); !got.Truncated || len(got.Body.(string)) != 256<<10 || got.File != nil {
		t.Errorf("long: got %d bytes, truncated %v, want 256 KiB of it", len(got.Body.(string)), got.Truncated)
	}
	if got := send("POST", "/echo", args{"body": args{"n": 1}}); got.Status != 418 || fmt.Sprint(got.Body) != "map[n:1]" {
		t.Errorf("JSON body: got %+v", got)
	}
	if got := send("POST", "/echo", args{"body": "plain words"}); got.Body != "plain words" {
		t.Errorf("text body: got %+v", got)
	}
	if got := r.raw("send_request", args{"method": "PUT", "path": "/echo", "body": args{"n": json.Number("98765432109876543210")}}); !strings.Contains(textOf(got), "98765432109876543210") {
		t.Errorf("a long number in the body: got %s", textOf(got))
	}
	if got := send("GET", "/mirror", nil); got.Body != "your key is lona_partner_my-agent_…" {
		t.Errorf("a service that repeats the key: got %+v", got)
	}
	if got := send("GET", "/picture", nil); got.Body != nil || !strings.Contains(got.Binary, "image/png") {
		t.Errorf("picture: got %+v", got)
	}
	if got := send("GET", "/gone", nil); got.Status != 401 || !strings.Contains(got.NextStep, "may need more") || !strings.Contains(got.NextStep, "lona_register_agent with agent_id my-agent") {
		t.Errorf("401: got %+v", got)
	}
}
