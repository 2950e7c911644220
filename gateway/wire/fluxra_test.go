package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestFluxraSecretsHaveTheirShapes(t *testing.T) {
	secret := strings.Repeat("a2", 26)
	for text, want := range map[string]string{
		"the key " + wire.FormatFluxraKey(secret) + ".":           "the key sk_….",
		`"recovery_key":"` + wire.FormatFluxraRecoveryKey(secret): `"recovery_key":"rk_…`,
		"?token=" + wire.FormatFluxraMailToken(secret) + "&a=b":   "?token=evt_…&a=b",
		"Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln":        "Bearer eyJ…",
		// What is public stays.
		wire.FormatFluxraAgentID(strings.Repeat("0f", 16)): "agt_" + strings.Repeat("0f", 16),
		wire.FormatFluxraKeyID("abcdefghijkl"):             "aky_abcdefghijkl",
		"sk_... and rk_...":                                "sk_... and rk_...",
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
		"name": wire.CheckFluxraKeyName, "metadata": wire.CheckFluxraMetadata, "email": wire.CheckFluxraEmail,
	}
	for _, tt := range []struct {
		field, value string
		want         bool
	}{
		{"agent_name", "weather-bot", true},
		{"agent_name", "abc", true},
		{"agent_name", strings.Repeat("a", 50), true},
		{"agent_name", "ab", false},
		{"agent_name", strings.Repeat("a", 51), false},
		{"agent_name", "weather_bot", false},
		{"agent_name", "weather-bot\n", false},
		{"agent_id", "agt_0123456789abcdef0123456789abcdef", true},
		{"agent_id", "agt_0123456789ABCDEF0123456789ABCDEF", false},
		{"agent_id", "agt_0123456789abcdef0123456789abcde", false},
		{"code", "123456", true},
		{"code", "12345", false},
		{"code", "123456\n", false},
		{"code", "１２３４５６", false},
		{"name", "a laptop", true},
		{"name", "", false},
		{"name", strings.Repeat("ä", 100), true},
		{"name", strings.Repeat("a", 101), false},
		{"metadata", "", true},
		{"metadata", strings.Repeat("a", 500), true},
		{"metadata", strings.Repeat("a", 501), false},
		{"metadata", "a\nb", false},
		{"email", "bot@example.com", true},
		{"email", "@example.com", false},
		{"email", "bot@", false},
		{"email", "a bot@example.com", false},
		{"email", strings.Repeat("a", 250) + "@b.c", true},
		{"email", strings.Repeat("a", 251) + "@b.c", false},
	} {
		if got := check[tt.field](tt.value); got != tt.want {
			t.Errorf("%s %q: got %v, want %v", tt.field, tt.value, got, tt.want)
		}
	}
}

func TestFluxraPathsKeepNamesInOnePart(t *testing.T) {
	if got, want := wire.FluxraKeyPath("agt_/..", "aky_?#"), "/api/agents/agt_%2F../keys/aky_%3F%23"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSecondTimeHasNoFractionAndZ(t *testing.T) {
	at := time.Date(2026, 4, 3, 22, 0, 0, 999_999_999, time.FixedZone("", 2*60*60))
	if got, want := wire.SecondTime(at).String(), "2026-04-03T20:00:00Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var read wire.SecondTime
	if err := read.UnmarshalText([]byte("2026-04-03T22:00:00.5+02:00")); err != nil || read.String() != "2026-04-03T20:00:00Z" {
		t.Errorf("got %s, %v", read, err)
	}
	if err := read.UnmarshalText([]byte("soon")); err == nil {
		t.Error("took a time that is none")
	}
}
