package wire_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What is looked for before a pattern is changes nothing of what it finds.
func TestPatternReplaces(t *testing.T) {
	for _, expr := range []string{`\brk_[a-z]{3,}`, `rk_[a-z]+`, `(rk_(?:a|b))x`, `^rk_a`, `[a-z]+_`, `a|b`, `(?i)RK_a`, `\bx?rk_`, ``, `\b`} {
		p, want := wire.NewPattern(expr), regexp.MustCompile(expr)
		for _, text := range []string{"", "rk_abc", "a rk_abc and rk_ax", "work_abc", "RK_A", "nothing", "rk_bx"} {
			if got, want := p.ReplaceAllString(text, "<${1}>"), want.ReplaceAllString(text, "<${1}>"); got != want {
				t.Errorf("%s in %q: got %q, want %q", expr, text, got, want)
			}
		}
	}
}

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
