package wire_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestLuminaMessageIsWordForWord(t *testing.T) {
	const want = "Lumina onboarding for 0xAbC at 1770382496"
	if got := wire.LuminaMessage("0xAbC", 1770382496); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLuminaKeysHaveTheirShape(t *testing.T) {
	key := wire.FormatLuminaKey([32]byte{0: 0xab, 31: 0x01})
	if !regexp.MustCompile(`^lk_[0-9a-f]{64}$`).MatchString(key) {
		t.Fatalf("got the key %q", key)
	}
	for text, want := range map[string]string{
		"key " + key + ".":                   "key lk_….",
		strings.ToUpper(key[3:]):             strings.ToUpper(key[3:]),
		"the lk_ prefix, and lk_<64 hex>":    "the lk_ prefix, and lk_<64 hex>",
		"_" + key + key:                      "_lk_…lk_…",
		"lk_" + strings.ToUpper(key[3:]):     "lk_…",
		"lk_" + strings.Repeat("a", 63):      "lk_" + strings.Repeat("a", 63),
		"0x" + strings.Repeat("a", 64):       "0x" + strings.Repeat("a", 64),
		`{"apiKey":"` + key + `","keyId":1}`: `{"apiKey":"lk_…","keyId":1}`,
	} {
		got := text
		for _, s := range wire.Lumina().Shapes {
			got = s.Pattern.ReplaceAllString(got, s.Mask)
		}
		if got != want {
			t.Errorf("got %q of %q, want %q", got, text, want)
		}
	}
}

func TestCheckLuminaFields(t *testing.T) {
	check := map[string]func(string) bool{"label": wire.CheckLuminaLabel, "signature": wire.CheckLuminaSignature}
	for _, tt := range []struct {
		name, field, value string
		want               bool
	}{
		{"the documentation's own", "label", "funding-rate-monitor", true},
		{"none", "label", "", true},
		{"50 characters of two bytes", "label", strings.Repeat("ä", 50), true},
		{"51 characters", "label", strings.Repeat("a", 51), false},
		{"a newline", "label", "a\nb", false},
		{"invalid UTF-8", "label", "a\xff", false},
		{"65 bytes", "signature", "0x" + strings.Repeat("aB", 65), true},
		{"64 bytes", "signature", "0x" + strings.Repeat("ab", 64), false},
		{"66 bytes", "signature", "0x" + strings.Repeat("ab", 66), false},
		{"no 0x", "signature", strings.Repeat("ab", 65), false},
		{"no hex", "signature", "0x" + strings.Repeat("zz", 65), false},
		{"a newline", "signature", "0x" + strings.Repeat("ab", 65) + "\n", false},
	} {
		t.Run(tt.field+" "+tt.name, func(t *testing.T) {
			if got := check[tt.field](tt.value); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
