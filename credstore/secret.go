package credstore

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// redacted stands wherever a secret would be written.
const redacted = "[redacted]"

// Secret is a string that does not print, log or marshal: every way of turning
// it into text gives "[redacted]". The one way out is [Secret.Reveal].
//
// It cannot be compared with == on purpose: a comparison of secrets belongs
// into crypto/subtle.
type Secret struct {
	_ [0]func() // not comparable
	// A pointer, because fmt does not ask the methods of an unexported field:
	// of a struct that holds a Secret in one it prints an address, not a text.
	s *string
}

// NewSecret wraps s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{s: &s}
}

// Reveal returns the secret itself. Only the packages gateway and credstore
// may call it; the linter says so.
func (s Secret) Reveal() string {
	if s.s == nil {
		return ""
	}
	return *s.s
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.s == nil }

// Format implements [fmt.Formatter], for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements [fmt.Stringer].
func (Secret) String() string { return redacted }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements [json.Marshaler].
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
