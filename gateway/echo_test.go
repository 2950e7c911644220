package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// shownOf is everything of a stored credential that anybody above this package
// can read.
func shownOf(t *testing.T, f *fixture, more ...any) string {
	t.Helper()
	all, err := f.Lifecycle.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%+v %v", all, more)
	for _, i := range all {
		text += fmt.Sprint(gateway.Permissions(i), f.Lifecycle.Handle(i.Key))
	}
	return text
}

// A service that puts what it issues where a name, a scope or a number belongs
// gets it into nothing that a model is shown.
func TestWhatIsIssuedIsInNoNameOrScope(t *testing.T) {
	t.Run("agentdoor", func(t *testing.T) {
		const key = "agk_live_AbCdEfGhIjKlMnOpQrStUvWxYz010001"
		const token = "opaqueTokenAbCdEfGhIjKlMnOpQrStUvWxYz"
		d := newDoor(t)
		d.on(doorVerify, reply(200, `{"agent_id":"ag_`+token+`","api_key":"`+key+`","token":"`+token+`","scopes_granted":["`+key+`","`+token+`","weather.read"],
			"rate_limit":{"requests":"`+key+`","window":"`+token+`"},"x402":{"payment_address":"`+key+`","network":"`+token+`","currency":"x`+token+`"}}`))
		f := d.client(t, setup{})
		done := f.enlist(t, d.scout())
		text := shownOf(t, f, done.RateLimit, done.NotGranted, done.X402)
		noSecret(t, "what is shown", text, key, token, key[9:])
		if got := gateway.Permissions(done.Info); len(got) != 1 || got[0] != "weather.read" {
			t.Errorf("got the scopes %v", got)
		}
	})
	t.Run("fluxra", func(t *testing.T) {
		const id = "agt_00000000000000000000000000000099"
		const recovery, key = "rk_0123456789abcdef0123456789abcdef", "sk_fedcba9876543210fedcba9876543210"
		s := newFluxra(t)
		f := s.client(nil)
		s.do = replies(map[string]string{
			"POST /api/auth/register": `{"agent_id":"` + id + `","recovery_key":"` + recovery + `","agent_name":"` + recovery + `","email_verification_expires_at":"` + recovery + `"}`,
			keyCall:                   `{"api_key":"` + key + `","key_id":"` + key + `","name":"` + key + `","scopes":["` + key + `","` + recovery + `","a.b"],"expires_at":"` + key + `"}`,
			tokenCall:                 `{"access_token":"opaqueTokenAbCdEfGhIjKlMnOp","expires_in":3600,"key_id":"` + recovery + `","scope":"` + key + `"}`,
		}, 200)
		r := f.enrol(t)
		noSecret(t, "what is shown", shownOf(t, f, r), recovery, key, key[3:], recovery[3:], "opaqueTokenAbCdEfGhIjKlMnOp")
		// A recovery that gives the key for an id is refused.
		s.do = replies(map[string]string{"POST /api/auth/recovery/verify": `{"agent_id":"` + recovery + `x","recovery_key":"` + recovery + `x"}`}, 200)
		_, err := f.Fluxra.RecoverVerify(t.Context(), "other@example.com", fluxraCode)
		wantError(t, err, gateway.CodeBadAnswer)
		noSecret(t, "what is shown", shownOf(t, f, err), recovery)
	})
}

// A service that answers with the headers that it got, in any of the usual
// spellings, shows a model neither of Fluxra's long-lived keys.
func TestBasicHeadersAreMasked(t *testing.T) {
	for name, spell := range map[string]func(string) string{
		"as it is":         func(h string) string { return h },
		"without the word": func(h string) string { return strings.TrimPrefix(h, "Basic ") },
		"unpadded":         func(h string) string { return strings.TrimRight(h, "=") },
		"URL-safe":         func(h string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(h) },
		"escaped":          url.QueryEscape,
		"decoded": func(h string) string {
			plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(h, "Basic "))
			return string(plain)
		},
		"in base64 again": func(h string) string { return base64.StdEncoding.EncodeToString([]byte(h)) },
		"in hex":          func(h string) string { return hex.EncodeToString([]byte(h)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFluxra(t)
			f := s.client(nil)
			r := f.enrol(t)
			var sent []string
			s.do = func(call string, w http.ResponseWriter, r *http.Request) bool {
				if call != keyCall && call != deleteCall {
					return false
				}
				sent = append(sent, r.Header.Get("Authorization"))
				reply(403, fmt.Sprintf(`{"error":{"code":"FORBIDDEN","message":%q}}`, "got "+spell(r.Header.Get("Authorization"))))(w, r)
				return true
			}
			_, err := f.Lifecycle.Rotate(t.Context(), r.Key)
			e := wantError(t, err, "FORBIDDEN")
			err = f.Lifecycle.Revoke(t.Context(), r.Key)
			d := wantError(t, err, "FORBIDDEN")
			recovery := f.item(t, r.Key, credstore.KindRecovery).Secret.Reveal()
			for _, text := range []string{e.Message, d.Message} {
				noSecret(t, "the message", text, recovery, spell(sent[0]), recovery[3:])
			}
		})
	}
}
