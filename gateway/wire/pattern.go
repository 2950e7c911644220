package wire

import (
	"regexp"
	"strings"
	"sync"
)

// Pattern is a regular expression that is compiled when it is used first. A
// client starts the program and asks for its list of tools, and may need none of
// the patterns today; to compile them all took longer than the answer.
type Pattern struct {
	expr     string
	compiled func() *regexp.Regexp
	needs    func() string // a text without this does not match
}

// NewPattern returns a pattern for a package's table of them. It panics when it
// is used first if the expression is none.
func NewPattern(expr string) Pattern {
	return Pattern{
		expr:     expr,
		compiled: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) }),
		needs: sync.OnceValue(func() string {
			// Behind a word's boundary package regexp sees no beginning, and would
			// look at a text letter by letter.
			prefix, _ := regexp.MustCompile(strings.TrimPrefix(expr, `\b`)).LiteralPrefix()
			return prefix
		}),
	}
}

// String returns the expression.
func (p Pattern) String() string { return p.expr }

// MatchString is [regexp.Regexp.MatchString].
func (p Pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

// FindString is [regexp.Regexp.FindString].
func (p Pattern) FindString(s string) string { return p.compiled().FindString(s) }

// FindAllString is [regexp.Regexp.FindAllString].
func (p Pattern) FindAllString(s string, n int) []string { return p.compiled().FindAllString(s, n) }

// FindStringSubmatch is [regexp.Regexp.FindStringSubmatch].
func (p Pattern) FindStringSubmatch(s string) []string { return p.compiled().FindStringSubmatch(s) }

// ReplaceAllString is [regexp.Regexp.ReplaceAllString].
func (p Pattern) ReplaceAllString(s, with string) string {
	if !strings.Contains(s, p.needs()) {
		return s
	}
	return p.compiled().ReplaceAllString(s, with)
}
