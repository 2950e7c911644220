package wire_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestParseLonaToken(t *testing.T) {
	const secret = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"
	for name, tt := range map[string]struct {
		token, agent, keyID string
		ok                  bool
	}{
		"the documentation's own":     {"lona_partner_my-agent_abc123xyz456_SecretKeyHere123", "my-agent", "abc123xyz456", true},
		"an agent with underscores":   {"lona_partner_my_agent_1_abc123xyz456_" + secret, "my_agent_1", "abc123xyz456", true},
		"an agent that looks like it": {"lona_partner_lona_partner_x_abc123xyz456_s_abc123xyz456_" + secret, "lona_partner_x_abc123xyz456_s", "abc123xyz456", true},
		"an agent that ends in one":   {"lona_partner_a__abc123xyz456_" + secret, "a_", "abc123xyz456", true},
		"nothing":                     {"", "", "", false},
		"the prefix":                  {"lona_partner_", "", "", false},
		"another prefix":              {"lona_invite_my-agent_abc123xyz456_" + secret, "", "", false},
		"no secret":                   {"lona_partner_my-agent_abc123xyz456_", "", "", false},
		"no key id":                   {"lona_partner_my-agent_" + secret, "", "", false},
		"a short key id":              {"lona_partner_my-agent_abc123xyz45_" + secret, "", "", false},
		"no agent":                    {"lona_partner__abc123xyz456_" + secret, "", "", false},
		"an agent in another script":  {"lona_partner_агент_abc123xyz456_" + secret, "", "", false},
		"something behind it":         {"lona_partner_my-agent_abc123xyz456_" + secret + "\n", "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			agent, keyID, ok := wire.ParseLonaToken(tt.token)
			if agent != tt.agent || keyID != tt.keyID || ok != tt.ok {
				t.Errorf("got %q, %q, %v, want %q, %q, %v", agent, keyID, ok, tt.agent, tt.keyID, tt.ok)
			}
		})
	}
}

func FuzzLonaToken(f *testing.F) {
	f.Add("my-agent", "abc123xyz456", "SecretKeyHere123")
	f.Add("lona_partner_a", "abc123xyz456", "s_s")
	f.Add("a_", "____________", "")
	f.Fuzz(func(t *testing.T, agentID, keyID, secret string) {
		token := wire.FormatLonaToken(agentID, keyID, secret)
		agent, key, ok := wire.ParseLonaToken(token)
		if good := wire.CheckLonaAgentID(agentID) && alphanumeric(keyID) && len(keyID) == 12 && alphanumeric(secret) && secret != ""; good && !ok {
			t.Fatalf("cannot take %q apart", token)
		} else if good && (agent != agentID || key != keyID) {
			t.Errorf("took %q apart to %q and %q, want %q and %q", token, agent, key, agentID, keyID)
		}
		if !ok {
			if agent != "" || key != "" {
				t.Errorf("got %q and %q from %q, which is no token", agent, key, token)
			}
			return
		}
		if !wire.CheckLonaAgentID(agent) || len(key) != 12 || !alphanumeric(key) {
			t.Errorf("got %q and %q from %q", agent, key, token)
		}
		rest, found := strings.CutPrefix(token, wire.FormatLonaToken(agent, key, ""))
		if !found || rest == "" || !alphanumeric(rest) {
			t.Errorf("%q is not made of %q and %q", token, agent, key)
		}
	})
}

func alphanumeric(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func TestLonaShapesMaskSecretsAndNothingElse(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a token":                      {"key lona_partner_my-agent_abc123xyz456_SecretKeyHere123.", "key lona_partner_my-agent_…."},
		"an agent with underscores":    {"lona_partner_my_agent_1_abc123xyz456_SecretKeyHere123", "lona_partner_my_agent_1_…"},
		"an invite":                    {`{"invite_code":"lona_invite_AbCdEf123456"}`, `{"invite_code":"lona_invite_…"}`},
		"two tokens":                   {"lona_partner_aa_abc123xyz456_SecretKey lona_partner_bb_abc123xyz456_SecretKey", "lona_partner_aa_… lona_partner_bb_…"},
		"the documentation's template": {"lona_partner_<agent_id>_<12 chars>_<secret>", "lona_partner_<agent_id>_<12 chars>_<secret>"},
		"a masked token":               {"lona_partner_my-agent_…", "lona_partner_my-agent_…"},
		"prose":                        {"a lona_partner_ token and a lona_invite_ code", "a lona_partner_ token and a lona_invite_ code"},
	} {
		t.Run(name, func(t *testing.T) {
			got := tt.text
			for _, s := range wire.Lona().Shapes {
				got = s.Pattern.ReplaceAllString(got, s.Mask)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckLonaFields(t *testing.T) {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	check := map[string]func(string) bool{"agent_id": wire.CheckLonaAgentID, "agent_name": wire.CheckLonaAgentName, "source": wire.CheckLonaSource}
	for _, tt := range []struct {
		name, field, value string
		want               bool
	}{
		{"the documentation's own", "agent_id", "moltbook-agent-123", true},
		{"two characters", "agent_id", "a1", true},
		{"one character", "agent_id", "a", false},
		{"64 characters", "agent_id", strings.Repeat("a", 64), true},
		{"65 characters", "agent_id", strings.Repeat("a", 65), false},
		{"dots inside", "agent_id", "a..b", true},
		{"a dot first", "agent_id", ".hidden", false},
		{"a slash", "agent_id", "a/b", false},
		{"a newline", "agent_id", "ab\n", false},
		{"another script", "agent_id", "агент", false},
		{"a name", "agent_name", "My Autonomous Agent", true},
		{"100 characters of two bytes", "agent_name", strings.Repeat("ä", 100), true},
		{"101 characters", "agent_name", strings.Repeat("a", 101), false},
		{"empty", "agent_name", "", false},
		{"an escape", "agent_name", "\x1b[31m", false},
		{"a C1 control", "agent_name", "a\u0085b", false},
		{"invalid UTF-8", "agent_name", "a\xff", false},
		{"empty", "source", "", true},
		{"64 characters", "source", strings.Repeat("s", 64), true},
		{"65 characters", "source", strings.Repeat("s", 65), false},
		{"letters", "source", letters, true},
	} {
		t.Run(tt.field+" "+tt.name, func(t *testing.T) {
			if got := check[tt.field](tt.value); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestMilliTimeHasThreeDigitsAndZ(t *testing.T) {
	east := time.FixedZone("", 2*60*60)
	for name, tt := range map[string]struct {
		at   time.Time
		want string
	}{
		"a whole second": {time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC), `"2026-02-06T14:00:00.000Z"`},
		"another zone":   {time.Date(2026, 3, 8, 14, 34, 56, 789_999_999, east), `"2026-03-08T12:34:56.789Z"`},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(wire.MilliTime(tt.at))
			if err != nil || string(text) != tt.want {
				t.Fatalf("got %s, %v, want %s", text, err, tt.want)
			}
			var back wire.MilliTime
			if err := json.Unmarshal(text, &back); err != nil || !back.Time().Equal(tt.at.Truncate(time.Millisecond)) {
				t.Errorf("read back %s, %v, want %s", back, err, tt.at)
			}
		})
	}
	var read wire.MilliTime
	if err := json.Unmarshal([]byte(`"2026-03-08T14:34:56+02:00"`), &read); err != nil || read.String() != "2026-03-08T12:34:56.000Z" {
		t.Errorf("got %s, %v", read, err)
	}
	if err := json.Unmarshal([]byte(`"tomorrow"`), &read); err == nil {
		t.Error("took a time that is none")
	}
}

func TestProtocolsAreSortedAndWhole(t *testing.T) {
	var names []string
	for _, p := range wire.Protocols() {
		names = append(names, p.Name)
		if len(p.Reserved) == 0 || len(p.Headers) == 0 || len(p.Shapes) == 0 {
			t.Errorf("%s lacks reserved routes, headers or shapes", p.Name)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("got %v, want each name once, sorted", names)
	}
}
