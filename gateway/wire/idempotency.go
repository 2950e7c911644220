package wire

import "strings"

// IdempotencyHeader names an attempt at something that issues a secret, in a
// structured-field string (draft-ietf-httpapi-idempotency-key-header). No
// service's documentation has it: it is Enlist's choice, for Lona, Lithtrix and
// registering at Fluxra. The client sends it always, and a service that does not
// know it ignores it. The embedded gateway takes the same key within a day for
// the same attempt, whose answer was lost: it issues another secret in the place
// of the one that nobody got. Without the header everything is as published.
const IdempotencyHeader = "Idempotency-Key"

// The lengths of an idempotency key. It stands for a secret where it comes a
// second time, so a short one is none.
const (
	minIdempotencyKey = 32
	maxIdempotencyKey = 255
)

// What a service answers to an idempotency key that was sent with another
// request before, with 409 (Enlist's choice).
const (
	LonaKeyReused     = "idempotency_key_reused"
	LithtrixKeyReused = "IDEMPOTENCY_KEY_REUSED"
	FluxraKeyReused   = "IDEMPOTENCY_KEY_REUSED"
)

// FormatIdempotencyKey returns the value of an [IdempotencyHeader]. The key is
// letters and digits.
func FormatIdempotencyKey(key string) string { return `"` + key + `"` }

// ParseIdempotencyKey reads the value of an [IdempotencyHeader]: a string of 32
// to 255 printable ASCII characters in double quotes, with \" and \\ for the two
// that cannot stand in it (RFC 9651, section 3.3.3), and no parameters behind it.
func ParseIdempotencyKey(value string) (key string, ok bool) {
	inner, begins := strings.CutPrefix(strings.Trim(value, " "), `"`)
	inner, ends := strings.CutSuffix(inner, `"`)
	if !begins || !ends {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		c := inner[i]
		if c == '\\' {
			i++
			if i == len(inner) || inner[i] != '"' && inner[i] != '\\' {
				return "", false
			}
			c = inner[i]
		} else if c == '"' || c < ' ' || c > '~' {
			return "", false
		}
		b.WriteByte(c)
	}
	n := b.Len()
	return b.String(), n >= minIdempotencyKey && n <= maxIdempotencyKey
}
