package embeddedgateway_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// The transcripts in the order in which an agent lives through them.
func TestFluxraAnswersAsItsDocumentationShows(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime), delivering())
	var now []string // what stands for what in the transcripts
	doc := func(secret string) string {
		return base64.StdEncoding.EncodeToString([]byte(docAgentID + ":" + secret))
	}
	with := func(pairs ...string) { now = append(pairs, now...) }
	play := func(name string, response ...string) answer {
		t.Helper()
		request, want := transcript(t, "fluxra", name)
		return exchange(t, gw, "chat.tryfluxra.com", strings.NewReplacer(now...).Replace(request), strings.NewReplacer(response...).Replace(want))
	}
	play("health")
	a := play("register")
	id, recovery := a.at("agent_id"), a.at("recovery_key")
	play("resend")
	with(docMailToken, lastToken(t, gw))
	play("verify-email")
	play("recovery-request")
	code := lastCode(t, gw)
	with(`"123456"`, `"`+code+`"`)
	with(docRecoveryKey, recovery, docAgentID, id, doc(docRecoveryKey), strings.TrimPrefix(basic(id, recovery)["Authorization"], "Basic "))
	a = play("create-key")
	key, keyID := a.at("api_key"), a.at("key_id")
	with(doc(docAPIKey), strings.TrimPrefix(basic(id, key)["Authorization"], "Basic "), docKeyID, keyID)
	with(docJWT, play("token").at("access_token"))
	play("list-keys", `"last_used_at": null`, `"last_used_at": "2026-04-03T20:00:00Z"`) // for the token
	play("delete-key")

	agent := fluxAgent{id: id, recovery: recovery}.withKey(t, gw, map[string]any{"scopes": []string{"messages:read", "messages:write"}})
	with(docJWT, agent.jwt)
	now = now[:2]
	with(docNewJWT, play("refresh").at("access_token"))
	play("logout")

	with(`"123456"`, `"`+code+`"`)
	if got := play("recovery-verify").at("agent_id"); got != id {
		t.Errorf("recovered the agent %s, want %s", got, id)
	}
	play("recovery-used")

	gw = gatewaytest.New(t, gatewaytest.At(fluxTime))
	fluxRegister(t, gw, fluxBot)
	with(docMailToken, lastToken(t, gw))
	play("verify-email-link")
}

func TestFluxraTellsWhatIsLeftAsItsDocumentationShows(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	_, response := transcript(t, "fluxra", "recovery-request")
	want := readAnswer(t, strings.NewReader(response))
	got := askCode(t, gw, fluxBot)
	n := 0
	for name, values := range want.header {
		if !strings.HasPrefix(name, "X-Ratelimit-") {
			continue
		}
		n++
		if g := got.header.Get(name); g != values[0] {
			t.Errorf("got %s %q, want %q", name, g, values[0])
		}
	}
	if n != 6 {
		t.Errorf("the transcript has %d such headers, want 6", n)
	}
}
