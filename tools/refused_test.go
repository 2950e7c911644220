package tools_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/tools"
)

// TestARefusedCredentialSaysWhatNext tells one that is renewed by itself from one
// that only a rotation replaces.
func TestARefusedCredentialSaysWhatNext(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer service.Close()
	for protocol, tc := range map[string]struct {
		kind credstore.Kind
		want string
	}{
		"lona":     {credstore.KindToken, "Call rotate_credential, then call send_request again. If it fails again, call lona_register_agent"},
		"lithtrix": {credstore.KindToken, "Call rotate_credential with credential lithtrix/scout, then call send_request again"},
	} {
		r := newRig(t, service.URL, options{env: map[string]string{"LITHTRIX_API_URL": service.URL}})
		err := r.store.Put(t.Context(), credstore.Credential{
			Secret: credstore.NewSecret("a-key-of-the-agents-0123456789"),
			Info: credstore.Info{
				State: credstore.StateActive, CreatedAt: r.clock.Now(), ExpiresAt: r.clock.Now().Add(30 * 24 * time.Hour),
				Key: credstore.Key{Protocol: protocol, Origin: service.URL, Agent: "scout", Kind: tc.kind},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := call[tools.Answer](r, "send_request", args{"method": "GET", "path": "/x"})
		if got.Status != 401 || !strings.Contains(got.NextStep, tc.want) {
			t.Errorf("%s: got %d, %q", protocol, got.Status, got.NextStep)
		}
	}
}
