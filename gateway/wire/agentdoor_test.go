package wire_test

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestAgentDoorMessagesAreWordForWord(t *testing.T) {
	for got, want := range map[string]string{
		wire.AgentDoorChallengeMessage("ag_V1StGXR8_Z5jdHi6B", 1704067200, "abc123..."): "agentdoor:register:ag_V1StGXR8_Z5jdHi6B:1704067200:abc123...",
		wire.AgentDoorAuthMessage("ag_V1StGXR8_Z5jdHi6B", "2024-01-01T00:00:00.000Z"):   "agentdoor:auth:ag_V1StGXR8_Z5jdHi6B:2024-01-01T00:00:00.000Z",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAgentDoorKeysHaveTheirShape(t *testing.T) {
	live, test := wire.FormatAgentDoorKey(strings.Repeat("aB3-_", 9), false), wire.FormatAgentDoorKey(strings.Repeat("x", 32), true)
	if !regexp.MustCompile(`^agk_live_[aB3_-]{45}$`).MatchString(live) || !regexp.MustCompile(`^agk_test_x{32}$`).MatchString(test) {
		t.Fatalf("got the keys %q and %q", live, test)
	}
	const jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
	for text, want := range map[string]string{
		"key " + live + ".":              "key agk_live_….",
		`{"api_key":"` + test + `"}`:     `{"api_key":"agk_test_…"}`,
		`{"token":"` + jwt + `"}`:        `{"token":"eyJ…"}`,
		"agk_live_* or agk_test_*":       "agk_live_* or agk_test_*",
		"ag_V1StGXR8_Z5jdHi6B7x9Qa":      "ag_V1StGXR8_Z5jdHi6B7x9Qa",
		"agk_live_ and agk_test_<32>":    "agk_live_ and agk_test_<32>",
		"Authorization: Bearer " + jwt:   "Authorization: Bearer eyJ…",
		"agk_prod_" + live[9:]:           "agk_prod_" + live[9:],
		"https://api.example.com/" + jwt: "https://api.example.com/eyJ…",
	} {
		got := text
		for _, s := range wire.AgentDoor().Shapes {
			got = s.Pattern.ReplaceAllString(got, s.Mask)
		}
		if got != want {
			t.Errorf("got %q of %q, want %q", got, text, want)
		}
	}
}

func TestAgentDoorBase64IsStandardAndExact(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16)
	good := base64.StdEncoding.EncodeToString(raw)
	if key, ok := wire.DecodeAgentDoorKey(good); !ok || !bytes.Equal(key, raw) {
		t.Errorf("got %x, %v of %q", key, ok, good)
	}
	if _, ok := wire.DecodeAgentDoorSignature(base64.StdEncoding.EncodeToString(append(raw, raw...))); !ok {
		t.Error("a signature of 64 bytes is not taken")
	}
	for name, text := range map[string]string{
		"none":           "",
		"unpadded":       base64.RawStdEncoding.EncodeToString(raw),
		"URL-safe":       base64.URLEncoding.EncodeToString(raw),
		"a line break":   good[:4] + "\n" + good[4:],
		"loose bits":     good[:42] + "9=",
		"31 bytes":       base64.StdEncoding.EncodeToString(raw[1:]),
		"33 bytes":       base64.StdEncoding.EncodeToString(append([]byte{0}, raw...)),
		"64 bytes":       base64.StdEncoding.EncodeToString(append(raw, raw...)),
		"as printed":     "cXVpY2sgYnJvd24gZm94IGp1bXBzIG92ZXIgdGhlIGxhenk=",
		"no base64":      strings.Repeat("!", 44),
		"a break inside": good[:43] + "\n",
	} {
		if key, ok := wire.DecodeAgentDoorKey(text); ok {
			t.Errorf("%s: got %x", name, key)
		}
	}
}

func TestCheckAgentDoorAgentID(t *testing.T) {
	for id, want := range map[string]bool{
		"ag_V1StGXR8_Z5jdHi6B": true, wire.FormatAgentDoorAgentID("-_34567890123456789ab"): true,
		"": false, "ag_": false, "AG_abc": false, "agk_live_a b": false, "ag_a/b": false, "ag_a\n": false, "ag_" + strings.Repeat("a", 65): false,
	} {
		if got := wire.CheckAgentDoorAgentID(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}
