package tools_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

const ltxIssued = "ltx_SecretKeyHere1234567890SecretKeyHere"

// atLithtrix returns a model that talks about Lithtrix to the service at origin.
func atLithtrix(t *testing.T, origin string, o options) *rig {
	t.Helper()
	o.env = map[string]string{"LITHTRIX_API_URL": origin}
	return newRig(t, "http://127.0.0.1:1", o)
}

func ltxArgs(agent, owner string) args {
	return args{"agent_name": agent, "owner_identifier": owner}
}

func (r *rig) ltxRegister(agent, owner string) tools.LithtrixRegistered {
	r.t.Helper()
	return call[tools.LithtrixRegistered](r, "lithtrix_register_agent", ltxArgs(agent, owner))
}

func TestAnAgentsLifeAtLithtrix(t *testing.T) {
	gw := gatewaytest.New(t)
	r := atLithtrix(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	const handle = "lithtrix/my-agent"

	reg := r.ltxRegister("my-agent", "you@example.com")
	if c := reg.Credential; c.Handle != handle || c.Protocol != "lithtrix" || c.Origin != gw.URL || c.Agent != "my-agent" || c.State != "active" || c.ExpiresAt != "" {
		t.Errorf("registered: got %+v", c)
	}
	if reg.StoredIn != "memory" || reg.Reused || !strings.Contains(reg.NextStep, handle) {
		t.Errorf("registered: got %+v", reg)
	}
	if again := r.ltxRegister("my-agent", "you@example.com"); !again.Reused || again.Handle != handle {
		t.Errorf("registered again: got %+v, want what is stored", again)
	}
	works := func() {
		t.Helper()
		a := call[tools.Answer](r, "send_request", args{"method": "GET", "path": wire.LithtrixMePath})
		if text := fmt.Sprint(a.Body); a.Status != 200 || !strings.Contains(text, "owner_identifier:you@example.com") || !strings.Contains(text, "tier:free") {
			t.Errorf("got %+v, want who the agent is", a)
		}
	}
	works()
	if got := call[tools.Credential](r, "rotate_credential", args{}); got.Handle != handle || got.State != "active" {
		t.Errorf("rotated: got %+v", got)
	}
	works()

	f := r.fail("revoke_credential", args{"credential": handle})
	if f.Code != tools.CodeUnsupported || !strings.Contains(f.NextStep, "rotate_credential") || strings.Contains(f.NextStep, "when it expires") {
		t.Errorf("revoke: got %+v", f)
	}
	for _, path := range []string{wire.LithtrixRegisterPath, wire.LithtrixRotatePath, "/v1/keys"} {
		if f := r.fail("send_request", args{"method": "POST", "path": path, "body": args{}}); f.Code != tools.CodeRefused || !strings.HasSuffix(f.NextStep, " instead.") {
			t.Errorf("%s: got %+v, want refused, and the tool named", path, f)
		}
	}
	if f := r.fail("send_request", args{"method": "GET", "path": "/", "headers": args{"authorization": "Bearer x"}}); f.Code != tools.CodeRefused {
		t.Errorf("a credential header: got %+v, want refused", f)
	}
	ended := call[tools.Ended](r, "forget_credential", args{"credential": handle})
	if !ended.MayStillWork || !strings.Contains(ended.WhatHappened, "for ever") {
		t.Errorf("forget: got %+v, want that the key lives on", ended)
	}
	f = r.fail("lithtrix_register_agent", ltxArgs("my-agent", "you@example.com"))
	if f.Code != wire.LithtrixAgentExists || f.Status != 409 || !strings.Contains(f.NextStep, "another agent_name") || !strings.Contains(f.NextStep, "backup of the lost key") {
		t.Errorf("with the key forgotten: got %+v, want both ways out", f)
	}
	if len(gw.Secrets()) != 2 {
		t.Errorf("the gateway issued %d secrets, want two keys", len(gw.Secrets()))
	}
}

func TestAnotherOwnerAtLithtrixNeedsALabel(t *testing.T) {
	gw := gatewaytest.New(t)
	r := atLithtrix(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	r.ltxRegister("my-agent", "you@example.com")
	f := r.fail("lithtrix_register_agent", ltxArgs("my-agent", "me@example.com"))
	if f.Code != gateway.CodeInvalidInput || !strings.Contains(f.WhatHappened, "lithtrix/my-agent") || !strings.Contains(f.WhatHappened, "give a label") {
		t.Errorf("got %+v, want that a label is asked for", f)
	}
	in := ltxArgs("my-agent", "me@example.com")
	in["label"] = "mine"
	if got := call[tools.LithtrixRegistered](r, "lithtrix_register_agent", in); got.Handle != "lithtrix/mine" || got.Agent != "my-agent" {
		t.Errorf("with a label: got %+v", got)
	}
	for _, handle := range []string{"lithtrix/my-agent", "lithtrix/mine"} {
		call[tools.Credential](r, "rotate_credential", args{"credential": handle})
		if a := call[tools.Answer](r, "send_request", args{"credential": handle, "method": "GET", "path": wire.LithtrixBillingPath}); a.Status != 200 {
			t.Errorf("%s: got %+v", handle, a)
		}
	}
}

func TestTheTermsOfLithtrixAreAskedFor(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"LITHTRIX_REQUIRE_TERMS": "true"}))
	r := atLithtrix(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	in := ltxArgs("my-agent", "you@example.com")
	for _, agree := range []any{nil, false} {
		if agree != nil {
			in["agree_to_terms"] = agree
		}
		f := r.fail("lithtrix_register_agent", in)
		if f.Code != wire.LithtrixInvalid || !strings.Contains(f.NextStep, "ask the person whether they agree") {
			t.Errorf("%v: got %+v, want to ask the person", agree, f)
		}
	}
	in["agree_to_terms"] = true
	call[tools.LithtrixRegistered](r, "lithtrix_register_agent", in)
}

func TestALimitOfLithtrixSaysHowLongToWait(t *testing.T) {
	gw := gatewaytest.New(t)
	r := atLithtrix(t, gw.URL, options{clock: gw.Clock})
	defer func() { r.saysNothingOf(gw) }()
	for i := range 10 {
		r.ltxRegister(fmt.Sprintf("agent-%d", i), "you@example.com")
	}
	f := r.fail("lithtrix_register_agent", ltxArgs("one-more", "you@example.com"))
	if f.Code != wire.LithtrixRateLimited || f.Status != 429 || f.RetryAfterSeconds != 3600 || !strings.HasPrefix(f.NextStep, "Wait 1h0m0s, then call lithtrix_register_agent") {
		t.Errorf("got %+v, want to wait an hour", f)
	}
}

// TestEveryFaultOfLithtrixSaysWhatNext rotates and registers at a service that
// fails, one path at a time.
func TestEveryFaultOfLithtrixSaysWhatNext(t *testing.T) {
	refuse := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"status":"error","error_code":"`+code+`","message":"`+hostileClean+` `+ltxIssued+`"}`)
		}
	}
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	// A service that does not know the attempt refuses the dead key.
	brokenOnce := func(then http.HandlerFunc) http.HandlerFunc {
		var asked atomic.Bool
		return func(w http.ResponseWriter, r *http.Request) {
			if !asked.Swap(true) {
				broken(w, r)
			}
			then(w, r)
		}
	}
	me := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"agent_id":"x","agent_name":"my-agent","owner_identifier":"you@example.com","tier":"free"}`)
	}
	for _, tc := range []struct {
		name         string
		tool         string
		service, me  http.HandlerFunc
		code, stored string
		next         []string
	}{
		{"register: lost", "lithtrix_register_agent", broken, nil, gateway.CodeUnreachable, "their key is lost", []string{"Wait a minute, then call"}},
		{"register: 500", "lithtrix_register_agent", refuse(500, "OOPS"), nil, "OOPS", "their key is lost", []string{"Wait a minute, then call"}},
		{"register: known", "lithtrix_register_agent", refuse(409, "AGENT_ALREADY_EXISTS"), nil, "AGENT_ALREADY_EXISTS", "Nothing new", []string{"another agent_name", "rotate_credential"}},
		{"register: a page", "lithtrix_register_agent", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>"+hostileWords) }, nil, gateway.CodeBadAnswer, "their key is lost", []string{"LITHTRIX_API_URL"}},
		{"rotate: lost, done", "rotate_credential", brokenOnce(refuse(401, "INVALID_API_KEY")), refuse(401, "INVALID_API_KEY"), gateway.CodeKeyLost, "marked as revoked", []string{"Tell the person", "another agent_name"}},
		{"rotate: lost, not done", "rotate_credential", broken, me, gateway.CodeUnreachable, "as it was.", []string{"Wait a minute, then call"}},
		{"rotate: lost, not found out", "rotate_credential", broken, broken, gateway.CodeUnreachable, "may have replaced it", []string{"Wait a minute, then call rotate_credential again"}},
		{"rotate: dead already", "rotate_credential", refuse(401, "INVALID_API_KEY"), me, "INVALID_API_KEY", "as it was.", []string{"backup", "another agent_name"}},
		{"rotate: limited", "rotate_credential", refuse(429, "RATE_LIMIT_EXCEEDED"), me, "RATE_LIMIT_EXCEEDED", "as it was.", []string{"Wait a minute", "an hour"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == wire.LithtrixMePath {
					tc.me(w, r)
					return
				}
				tc.service(w, r)
			}))
			t.Cleanup(s.Close)
			r := atLithtrix(t, s.URL, options{})
			defer func() { r.saysNone(ltxIssued, "\x1b", "\u202e") }()
			in := ltxArgs("my-agent", "you@example.com")
			if tc.tool == "rotate_credential" {
				in = args{}
				r.putKey(t)
			}
			f := r.fail(tc.tool, in)
			if f.Code != tc.code || f.Protocol != "lithtrix" || f.Origin != s.URL || !strings.Contains(f.WhatIsStored, tc.stored) {
				t.Errorf("got %+v, want the code %s and that is stored: %s", f, tc.code, tc.stored)
			}
			for _, want := range tc.next {
				if !strings.Contains(f.NextStep, want) {
					t.Errorf("next_step: got %q, want %q in it", f.NextStep, want)
				}
			}
			if slices.ContainsFunc([]string{f.WhatHappened, f.WhatIsStored, f.NextStep}, func(ours string) bool { return strings.Contains(ours, hostileClean) }) {
				t.Errorf("got %+v, want the service's words in service_said only", f)
			}
			if list := call[tools.CredentialList](r, "list_credentials", args{}); tc.code == gateway.CodeKeyLost && list.Credentials[0].State != "revoked" {
				t.Errorf("got %+v, want the old key marked as revoked", list)
			}
		})
	}
}

// putKey stores a key without a service.
func (r *rig) putKey(t *testing.T) {
	t.Helper()
	err := r.store.Put(t.Context(), credstore.Credential{
		Secret: credstore.NewSecret(ltxIssued),
		Info: credstore.Info{
			State: credstore.StateActive, CreatedAt: r.clock.Now().Add(-time.Hour), Attrs: map[string]string{"owner_identifier": "you@example.com"},
			Key: credstore.Key{Protocol: "lithtrix", Origin: r.client.Lithtrix.Origin(), Agent: "my-agent", Kind: credstore.KindToken},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestALithtrixKeyThatIsNotStoredIsNotLost(t *testing.T) {
	gw := gatewaytest.New(t)
	store := &brokenStore{err: &credstore.Error{Op: "write", Place: "keyring", Kind: credstore.ErrUnavailable, Remedy: "unlock it"}, reads: true}
	r := atLithtrix(t, gw.URL, options{clock: gw.Clock, store: func(s credstore.Store) credstore.Store {
		store.Store = s
		return store
	}})
	defer func() { r.saysNothingOf(gw) }()
	f := r.fail("lithtrix_register_agent", ltxArgs("my-agent", "you@example.com"))
	if f.Code != tools.CodeNotStored || !strings.Contains(f.NextStep, "Do not stop Enlist") || !strings.Contains(f.NextStep, "same call once more") {
		t.Errorf("got %+v, want to make the same call once more", f)
	}
}
