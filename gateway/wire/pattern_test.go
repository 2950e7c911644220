package wire_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// A pattern is the regular expression that it is made of.
func TestPattern(t *testing.T) {
	const expr, text = `(a+)b|(c)`, "xaabcab"
	p, want := wire.NewPattern(expr), regexp.MustCompile(expr)
	if p.String() != expr {
		t.Errorf("got %q", p.String())
	}
	if p.MatchString(text) != want.MatchString(text) || p.MatchString("x") != want.MatchString("x") {
		t.Error("it matches otherwise")
	}
	if got := p.FindString(text); got != want.FindString(text) {
		t.Errorf("got %q", got)
	}
	if got := p.FindAllString(text, -1); !slices.Equal(got, want.FindAllString(text, -1)) {
		t.Errorf("got %q", got)
	}
	if got := p.FindStringSubmatch(text); !slices.Equal(got, want.FindStringSubmatch(text)) {
		t.Errorf("got %q", got)
	}
	if got := p.ReplaceAllString(text, "<${1}>"); got != want.ReplaceAllString(text, "<${1}>") {
		t.Errorf("got %q", got)
	}
}
