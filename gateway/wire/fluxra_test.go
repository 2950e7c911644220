package wire_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestFluxrasSecretsHaveTheirShape(t *testing.T) {
	const tail = "0123456789AbCdEf-_0123456789AbCdEf0123456789A"
	recovery, key, mail := wire.FormatFluxraRecoveryKey(tail), wire.FormatFluxraKey(tail), wire.FormatFluxraMailToken(tail)
	for text, want := range map[string]string{
		recovery + " and " + key:                            "rk_… and sk_…",
		`{"api_key":"` + key + `","key_id":"aky_1"}`:        `{"api_key":"sk_…","key_id":"aky_1"}`,
		"/api/auth/verify-email?token=" + mail + "&x=1":     "/api/auth/verify-email?token=evt_…&x=1",
		"Bearer eyJhbGciOiJFZERTQSJ9.cGF5bG9hZA.c2lnbmF0":   "Bearer eyJ…",
		`{"risk_management_parameters":{"task_identifier":`: `{"risk_management_parameters":{"task_identifier":`,
		"framework_and_network_of_a_disk_with_long_names":   "framework_and_network_of_a_disk_with_long_names",
		"an sk_… key, the rk_ prefix and evt_<43 letters>":  "an sk_… key, the rk_ prefix and evt_<43 letters>",
		wire.FormatFluxraAgentID(strings.Repeat("0a", 16)):  "agt_" + strings.Repeat("0a", 16),
		wire.FormatFluxraKeyID(strings.Repeat("0a", 16)):    "aky_" + strings.Repeat("0a", 16),
	} {
		got := text
		for _, s := range wire.Fluxra().Shapes {
			got = s.Pattern.ReplaceAllString(got, s.Mask)
		}
		if got != want {
			t.Errorf("got %q of %q, want %q", got, text, want)
		}
	}
}

func TestCheckFluxraFields(t *testing.T) {
	check := map[string]func(string) bool{
		"agent_name": wire.CheckFluxraAgentName, "agent_id": wire.CheckFluxraAgentID, "code": wire.CheckFluxraCode,
		"email": wire.CheckFluxraEmail, "name": wire.CheckFluxraKeyName, "metadata": wire.CheckFluxraMetadata,
	}
	for _, tt := range []struct {
		name, field, value string
		want               bool
	}{
		{"the documentation's own", "agent_name", "weather-bot", true},
		{"3", "agent_name", "a-1", true},
		{"2", "agent_name", "ab", false},
		{"50", "agent_name", strings.Repeat("a", 50), true},
		{"51", "agent_name", strings.Repeat("a", 51), false},
		{"an underscore", "agent_name", "a_b", false},
		{"a newline behind", "agent_name", "abc\n", false},
		{"other letters", "agent_name", "wétter", false},
		{"the documentation's own", "agent_id", "agt_0123456789abcdef0123456789abcdef", true},
		{"upper case", "agent_id", "agt_0123456789ABCDEF0123456789abcdef", false},
		{"the documentation's own", "code", "123456", true},
		{"five digits", "code", "12345", false},
		{"other digits", "code", "１２３４５６", false},
		{"the documentation's own", "email", "bot@example.com", true},
		{"two at signs", "email", "a@b@example.com", true},
		{"no at sign", "email", "example.com", false},
		{"nobody", "email", "@example.com", false},
		{"nowhere", "email", "bot@", false},
		{"a header", "email", "bot@example.com\r\nBcc: x@example.com", false},
		{"a name", "email", "Bot <bot@example.com>", false},
		{"255 characters", "email", strings.Repeat("a", 250) + "@b.co", false},
		{"one letter", "name", "k", true},
		{"none", "name", "", false},
		{"101 letters", "name", strings.Repeat("k", 101), false},
		{"none", "metadata", "", true},
		{"501 letters", "metadata", strings.Repeat("k", 501), false},
		{"a control character", "metadata", "a\x1bb", false},
	} {
		t.Run(tt.field+" "+tt.name, func(t *testing.T) {
			if got := check[tt.field](tt.value); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestFluxrasPathsAndBodies(t *testing.T) {
	if got, want := wire.FluxraKeyPath("agt_1", "aky/../2"), "/api/agents/agt_1/keys/aky%2F..%2F2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for want, body := range map[string]any{
		`{"agent_name":"weather-bot"}`: wire.FluxraRegisterRequest{AgentName: "weather-bot"},
		`{"name":"k"}`:                 wire.FluxraKeyRequest{Name: "k"},
		`{"access_token":"t","token_type":"Bearer","expires_in":3600,"scope":"a b"}`: wire.FluxraToken{
			AccessToken: "t", TokenType: wire.FluxraBearer, ExpiresIn: wire.FluxraTokenSeconds, Scope: "a b",
		},
	} {
		if got, err := json.Marshal(body); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
