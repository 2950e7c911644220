// Package wire is what goes over the wire between an agent and a service that
// registers agents: paths, headers, bodies, error codes, time formats and the
// shapes of tokens. One file a protocol, used by both halves.
//
// It imports the standard library only and does no more than encode and recognise,
// so that neither half can reach the other through it. Because a wrong tag in
// here would break both halves alike and every round trip would still pass,
// each half is also tested against the literal transcripts in testdata, which
// never go through these types.
package wire

import (
	"fmt"
	"sync"
	"time"
)

// Protocol is what both halves and the tools need to know of a protocol
// without speaking it.
type Protocol struct {
	// Name is the protocol's short name: "lona". It begins every handle.
	Name string
	// Origin is the origin (scheme, host, port) of the service itself, or ""
	// where the protocol has no fixed service.
	Origin string
	// Anywhere says that any service may speak the protocol, so that a
	// credential of whichever origin is one to use.
	Anywhere bool
	// Reserved lists the routes that answer with a secret or end one. The
	// generic request tool refuses them.
	Reserved []Route
	// Headers lists the request headers, in canonical form, that carry the
	// protocol's credentials. Nobody but the protocol itself may set them.
	Headers []string
	// Shapes match everything secret that the service ever issues.
	Shapes []Shape
}

// Route is a method and a path of a service.
type Route struct {
	// Method is an HTTP method, or "" for every method.
	Method string
	// Path is an absolute path. A trailing "*" matches every path that begins
	// with what stands before it.
	Path string
	// Tool is the name of the tool that does what the route does.
	Tool string
}

// Shape recognises a secret by its looks.
type Shape struct {
	// Pattern matches the whole secret.
	Pattern Pattern
	// Mask replaces it, in the syntax of [regexp.Regexp.ReplaceAll]: it keeps
	// what is public, such as the agent's id, and drops the rest.
	Mask string
}

// jwtShape matches a JSON Web Token in its compact form: a header that is a JSON
// object begins with eyJ in base64url.
var jwtShape = NewPattern(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// JWTShape is the shape of a JSON Web Token (RFC 7519), for the protocols that
// issue one.
func JWTShape() Shape { return Shape{Pattern: jwtShape, Mask: "eyJ…"} }

// Protocols lists every protocol, sorted by name. It is one of the four lists
// that a new protocol is added to; the manual names them, in adding-a-protocol.
func Protocols() []Protocol {
	return []Protocol{AgentDoor(), Fluxra(), Lithtrix(), Lona(), Lumina()}
}

// Mask returns text with everything masked that looks like a secret of a
// protocol. It knows secrets by their looks only; where the secrets themselves
// are known, they are to be looked for as well.
func Mask(text string) string {
	for _, s := range shapes() {
		text = s.Pattern.ReplaceAllString(text, s.Mask)
	}
	return text
}

// shapes lists those of every protocol, in the order of [Protocols]. It is made once:
// the gateway masks every line of its audit trail.
var shapes = sync.OnceValue(func() (all []Shape) { //nolint:gochecknoglobals // it never changes, as a pattern does not
	for _, p := range Protocols() {
		all = append(all, p.Shapes...)
	}
	return all
})

// MilliTime is a time that is written as RFC 3339 in UTC with exactly three
// digits of milliseconds and a Z, as in 2026-02-06T14:00:00.000Z. Any RFC 3339
// time is read.
type MilliTime time.Time

// milliLayout is the layout of [time.Time.Format].
const milliLayout = "2006-01-02T15:04:05.000Z"

// MarshalText implements [encoding.TextMarshaler].
func (t MilliTime) MarshalText() ([]byte, error) {
	return []byte(t.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *MilliTime) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return fmt.Errorf("malformed time: want RFC 3339, as in 2026-02-06T14:00:00.000Z: %w", err)
	}
	*t = MilliTime(parsed.UTC())
	return nil
}

// String returns the time as it goes over the wire.
func (t MilliTime) String() string { return time.Time(t).UTC().Format(milliLayout) }

// Time returns t as a [time.Time].
func (t MilliTime) Time() time.Time { return time.Time(t) }

// SecondTime is a time that is written as RFC 3339 in UTC without a fraction,
// as in 2026-04-03T20:00:00Z. Any RFC 3339 time is read.
type SecondTime time.Time

// MarshalText implements [encoding.TextMarshaler].
func (t SecondTime) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *SecondTime) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return fmt.Errorf("malformed time: want RFC 3339, as in 2026-04-03T20:00:00Z: %w", err)
	}
	*t = SecondTime(parsed.UTC())
	return nil
}

// String returns the time as it goes over the wire.
func (t SecondTime) String() string { return time.Time(t).UTC().Format(time.RFC3339) }

// Time returns t as a [time.Time].
func (t SecondTime) Time() time.Time { return time.Time(t) }
