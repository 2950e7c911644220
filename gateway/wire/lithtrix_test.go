package wire_test

import (
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestCheckLithtrixFields(t *testing.T) {
	check := map[string]func(string) bool{"agent_name": wire.CheckLithtrixAgentName, "owner_identifier": wire.CheckLithtrixOwner}
	for _, tt := range []struct {
		name, field, value string
		want               bool
	}{
		{"the documentation's own", "agent_name", "my-agent", true},
		{"every kind of character", "agent_name", "_Az09-", true},
		{"100 characters", "agent_name", strings.Repeat("a", 100), true},
		{"101 characters", "agent_name", strings.Repeat("a", 101), false},
		{"empty", "agent_name", "", false},
		{"a space", "agent_name", "my agent", false},
		{"a dot", "agent_name", "my.agent", false},
		{"a newline", "agent_name", "my-agent\n", false},
		{"another script", "agent_name", "агент", false},
		{"an address", "owner_identifier", "you@example.com", true},
		{"a URL", "owner_identifier", "https://example.com/~you?x=1", true},
		{"255 characters of two bytes", "owner_identifier", strings.Repeat("ä", 255), true},
		{"256 characters", "owner_identifier", strings.Repeat("a", 256), false},
		{"empty", "owner_identifier", "", false},
		{"an escape", "owner_identifier", "\x1b[31m", false},
		{"invalid UTF-8", "owner_identifier", "a\xff", false},
	} {
		t.Run(tt.field+" "+tt.name, func(t *testing.T) {
			if got := check[tt.field](tt.value); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLithtrixShapesMaskKeysAndNothingElse(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a key":         {"key " + wire.FormatLithtrixKey("abcdefgh234567") + ".", "key ltx_…."},
		"a bearer":      {`"Bearer ltx_abcdefgh-_234567"`, `"Bearer ltx_…"`},
		"a masked key":  {"ltx_…", "ltx_…"},
		"the prefix":    {"a key begins with ltx_", "a key begins with ltx_"},
		"a placeholder": {"Authorization: Bearer ltx_...", "Authorization: Bearer ltx_..."},
	} {
		t.Run(name, func(t *testing.T) {
			got := tt.text
			for _, s := range wire.Lithtrix().Shapes {
				got = s.Pattern.ReplaceAllString(got, s.Mask)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
