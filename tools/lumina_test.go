package tools_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// newLuminaRig returns a model whose Lumina and Lona are one real gateway.
func newLuminaRig(t *testing.T) (*rig, *gatewaytest.Gateway) {
	t.Helper()
	gw := gatewaytest.New(t)
	r := newRig(t, gw.URL, options{clock: gw.Clock, env: map[string]string{"LUMINA_API_URL": gw.URL}})
	t.Cleanup(func() { r.saysNothingOf(gw) })
	return r, gw
}

func (r *rig) onboard(label string) tools.LuminaRegistered {
	r.t.Helper()
	return call[tools.LuminaRegistered](r, "lumina_register_agent", args{"label": label})
}

func TestALuminaKeysLife(t *testing.T) {
	r, gw := newLuminaRig(t)
	reg := r.onboard("spot-arb-1")
	if reg.Handle != "lumina/spot-arb-1" || reg.State != "active" || reg.Origin != gw.URL || reg.Reused || reg.ExpiresAt != "" || reg.StoredIn != "memory" {
		t.Errorf("registered: got %+v", reg)
	}
	if again := r.onboard("spot-arb-1"); !again.Reused {
		t.Errorf("the same label again: got %+v, want the same key", again)
	}
	list := call[tools.CredentialList](r, "list_credentials", args{})
	if len(list.Credentials) != 1 || list.Credentials[0].Handle != reg.Handle {
		t.Errorf("listed %+v, want the key, and not the wallet", list)
	}
	works := func() int {
		return call[tools.Answer](r, "send_request", args{"credential": reg.Handle, "method": "GET", "path": wire.LuminaKeysPath}).Status
	}
	if got := works(); got != 200 {
		t.Errorf("got status %d, want 200", got)
	}
	gw.Clock.Advance(time.Second)
	if got := call[tools.Credential](r, "rotate_credential", args{"credential": reg.Handle}); got.Handle != reg.Handle || works() != 200 {
		t.Errorf("rotated: got %+v", got)
	}
	call[tools.Ended](r, "revoke_credential", args{"credential": reg.Handle})
	if got := call[tools.CredentialList](r, "list_credentials", args{}).Credentials[0].State; got != "revoked" {
		t.Errorf("revoked: got the state %q", got)
	}
	if got := works(); got != 401 {
		t.Errorf("after revoking: got status %d, want 401", got)
	}
	for _, in := range []args{
		{"credential": reg.Handle, "method": "POST", "path": wire.LuminaOnboardPath},
		{"credential": reg.Handle, "method": "DELETE", "path": wire.LuminaKeysPath + "/1"},
		{"credential": reg.Handle, "method": "GET", "path": "/", "headers": args{"x-api-key": "lk_"}},
	} {
		if f := r.fail("send_request", in); f.Code != tools.CodeRefused {
			t.Errorf("%v: got %+v, want it refused", in, f)
		}
	}
}

func TestAFullWalletNamesItsKeys(t *testing.T) {
	r, gw := newLuminaRig(t)
	for i := range 3 {
		r.onboard(fmt.Sprintf("bot-%d", i))
		gw.Clock.Advance(time.Second)
	}
	if got := call[tools.Ended](r, "forget_credential", args{"credential": "lumina/bot-2"}); !strings.Contains(got.WhatHappened, "keeps one of its places") {
		t.Errorf("forgot: got %+v", got)
	}

	f := r.fail("lumina_register_agent", args{"label": "bot-3"})

	if f.Code != wire.LuminaCapReached || f.Status != 409 || !strings.Contains(f.WhatHappened, "stored as lumina/bot-0") ||
		!strings.Contains(f.ServiceSaid, `"bot-2"`) || !strings.Contains(f.NextStep, "Ask the person") || !strings.Contains(f.NextStep, "revoke_key_id") {
		t.Fatalf("got %+v", f)
	}
	id := regexp.MustCompile(`(\d+) is labelled "bot-2"`).FindStringSubmatch(f.ServiceSaid)[1]
	var number int64
	if _, err := fmt.Sscan(id, &number); err != nil {
		t.Fatal(err)
	}
	got := call[tools.LuminaRegistered](r, "lumina_register_agent", args{"label": "bot-3", "revoke_key_id": number})
	if got.Handle != "lumina/bot-3" || got.Reused {
		t.Errorf("after the choice: got %+v", got)
	}
	gw.Clock.Advance(time.Minute)
	f = r.fail("rotate_credential", args{"credential": "lumina/bot-3"})
	if f.Code != wire.LuminaCapReached || !strings.Contains(f.NextStep, "Ask the person") || !strings.Contains(f.WhatIsStored, "Nothing changed") {
		t.Errorf("rotating at the cap: got %+v", f)
	}
	// The person chooses the key that is being rotated.
	if !strings.Contains(f.NextStep, "lumina_register_agent with revoke_key_id") || !strings.Contains(f.NextStep, "the label of the credential") {
		t.Errorf("rotating at the cap: got the next step %q", f.NextStep)
	}
	m := regexp.MustCompile(`(\d+)[^;]*, stored as lumina/bot-3`).FindStringSubmatch(f.WhatHappened)
	if m == nil {
		t.Fatalf("%q does not name the key that is being rotated", f.WhatHappened)
	}
	if _, err := fmt.Sscan(m[1], &number); err != nil {
		t.Fatal(err)
	}
	got = call[tools.LuminaRegistered](r, "lumina_register_agent", args{"label": "bot-3", "revoke_key_id": number})
	if got.Handle != "lumina/bot-3" || got.Reused || got.State != "active" {
		t.Errorf("in its place: got %+v", got)
	}
}

func TestLuminaWithoutAnAddress(t *testing.T) {
	r := newRig(t, "http://127.0.0.1:1", options{})
	f := r.fail("lumina_register_agent", args{})
	if f.Code != tools.CodeRefused || !strings.Contains(f.WhatHappened, "LUMINA_API_URL") {
		t.Errorf("got %+v, want it to name LUMINA_API_URL", f)
	}
}

func TestLuminaErrorsSayWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		status         int
		body           string
		code, nextStep string
		lost           bool
	}{
		"a clock that is wrong":    {400, `{"error":"stale_timestamp","code":"stale_timestamp","message":"m"}`, wire.LuminaStaleTimestamp, "clock", false},
		"a replay":                 {401, `{"error":"invalid_signature","code":"invalid_signature","message":"m"}`, wire.LuminaInvalidSignature, "signature", false},
		"a wrong signer elsewhere": {401, `{"error":"signature_mismatch"}`, wire.LuminaSignatureMismatch, "signature", false},
		"too often":                {429, `{"error":"rate_limit","code":"rate_limit","message":"m"}`, wire.LuminaRateLimit, "an hour", false},
		"too often elsewhere":      {429, `{"error":"rate_limited"}`, wire.LuminaRateLimited, "an hour", false},
		"full, with nothing here":  {409, `{"error":"key_limit_reached"}`, wire.LuminaKeyLimitReached, "cannot be listed", false},
		"an answer that was lost":  {502, `bad gateway`, gateway.CodeHTTPStatus, "three places", true},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			t.Cleanup(service.Close)
			r := newRig(t, service.URL, options{env: map[string]string{"LUMINA_API_URL": service.URL}})
			f := r.fail("lumina_register_agent", args{"label": "bot"})
			if f.Code != tt.code || f.Status != tt.status || !strings.Contains(f.NextStep, tt.nextStep) {
				t.Errorf("got %+v, want %s, next step with %q", f, tt.code, tt.nextStep)
			}
			if got := strings.Contains(f.WhatIsStored, "never arrived"); got != tt.lost {
				t.Errorf("got %q", f.WhatIsStored)
			}
		})
	}
}
