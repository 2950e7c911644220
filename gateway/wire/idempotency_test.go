package wire_test

import (
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestIdempotencyKeyIsAStringInQuotes(t *testing.T) {
	key := strings.Repeat("0a1b", 16)
	long := strings.Repeat("x", 255)
	for _, tt := range []struct {
		name, value, want string
		ok                bool
	}{
		{"as it is made", wire.FormatIdempotencyKey(key), key, true},
		{"with spaces around it", ` "` + key + `" `, key, true},
		{"with what is escaped", `"` + key + `\"\\"`, key + `"\`, true},
		{"the shortest", `"` + key[:32] + `"`, key[:32], true},
		{"the longest", `"` + long + `"`, long, true},
		{"too short", `"` + key[:31] + `"`, "", false},
		{"too long", `"` + long + `x"`, "", false},
		{"short but for its escapes", `"` + strings.Repeat(`\\`, 31) + `"`, "", false},
		{"nothing", "", "", false},
		{"an empty string", `""`, "", false},
		{"one quote", `"`, "", false},
		{"a token", key, "", false},
		{"no end", `"` + key, "", false},
		{"its end is escaped", `"` + key + `\"`, "", false},
		{"a quote within", `"` + key + `"` + key + `"`, "", false},
		{"two of them", `"` + key + `", "` + key + `"`, "", false},
		{"another escape", `"` + key + `\n"`, "", false},
		{"a letter that is not ASCII", `"` + key + `é"`, "", false},
		{"a tab", `"` + key + "\t\"", "", false},
		{"a parameter", `"` + key + `";a=1`, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := wire.ParseIdempotencyKey(tt.value)
			if ok != tt.ok || ok && got != tt.want {
				t.Errorf("got %q, %v, want %q, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}
