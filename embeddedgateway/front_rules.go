package embeddedgateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxPath is how long a path may be that rules are looked up for.
const maxPath = 8 << 10

// everything is the scope that stands for all of them, as Lona's permission is
// spelled.
const everything = "*"

// guards are rules in the order in which they are tried: the longest path first,
// and of one path those that name methods before the one that does not.
type guards []Rule

// newGuards reads rules. Every one that is wrong is reported.
func newGuards(rules []Rule) (guards, error) {
	var list guards
	var errs []error
	for i, r := range rules {
		read, err := readRule(r)
		for _, other := range list {
			if err == nil && other.Path == read.Path && overlap(other.Methods, read.Methods) {
				err = errors.New("another rule has the same path and method")
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %d (path %q): %w", i+1, r.Path, err))
		}
		list = append(list, read)
	}
	slices.SortStableFunc(list, func(a, b Rule) int {
		if d := len(b.Path) - len(a.Path); d != 0 {
			return d
		}
		return min(len(b.Methods), 1) - min(len(a.Methods), 1)
	})
	return list, errors.Join(errs...)
}

// readRule returns a rule as it is compared: its path decoded and without a
// slash at the end, and HEAD beside GET, which answers the same.
func readRule(r Rule) (Rule, error) {
	path, ok := plainPath(r.Path)
	if !ok {
		return r, errors.New("path must be one as it stands in a URL, such as /reports: " +
			"from the root, encoded where it must be and nowhere else, without dot segments, empty segments, semicolons and a query")
	}
	read := Rule{Path: strings.TrimRight(path, "/"), Methods: slices.Clone(r.Methods), Scopes: slices.Clone(r.Scopes)}
	for _, m := range r.Methods {
		if !plainMethod(m) {
			return read, fmt.Errorf("methods: %q is none; write it in capital letters, such as GET", m)
		}
	}
	if slices.Contains(read.Methods, http.MethodGet) && !slices.Contains(read.Methods, http.MethodHead) {
		read.Methods = append(read.Methods, http.MethodHead)
	}
	for _, s := range r.Scopes {
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return read, fmt.Errorf("scopes: %q is none; name each by itself, without spaces", s)
		}
	}
	return read, nil
}

// overlap reports whether a request could match two rules of one path equally
// well.
func overlap(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

// permit refuses a caller without the scopes that a request needs. Who has no
// scopes, because its protocol knows none, has access to what needs none.
func (g guards) permit(method, path string, granted []string) *problem {
	var others *Rule // names other methods than one that is invented
	for _, r := range g {
		if !covers(r.Path, path) || others != nil && r.Path != others.Path {
			continue
		}
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			if !usual(method) {
				others = &r
			}
			continue
		}
		for _, scope := range r.Scopes {
			if !slices.Contains(granted, scope) && !slices.Contains(granted, everything) {
				return lacking(r.Scopes)
			}
		}
		return nil
	}
	if others != nil {
		return refusal(kindForbidden, "method_refused", "no rule names this method here, and rules name others")
	}
	return nil
}

// usual reports whether every API knows a method. Many take any other for GET:
// what a rule guards of one they would do by the other.
func usual(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// lacking is the refusal of a caller without scopes: never a 401, which some
// clients answer with a new token and the same request, without end.
func lacking(scopes []string) *problem {
	p := forbidden("insufficient_scope", "the agent was not granted the scopes that this needs: "+scopeText(scopes))
	p.header = http.Header{"WWW-Authenticate": {`Bearer error="insufficient_scope", scope="` + scopeText(scopes) + `"`}}
	return p
}

// covers reports whether a prefix that ends between two segments covers a path.
func covers(prefix, path string) bool {
	return strings.HasPrefix(path, prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

// plainMethod reports whether every API reads a method alike.
func plainMethod(m string) bool {
	return m != "" && len(m) <= 32 && !strings.ContainsFunc(m, func(c rune) bool { return (c < 'A' || c > 'Z') && c != '-' })
}

// plainPath decodes a path that every API reads alike. It refuses one that
// cleaning would change, one with something encoded that needs no encoding or
// ends a segment where it is decoded, and what programs are known to read in
// several ways: semicolons, backslashes, controls, what is encoded twice, what is
// no UTF-8.
func plainPath(escaped string) (path string, ok bool) {
	if !strings.HasPrefix(escaped, "/") || len(escaped) > maxPath {
		return "", false
	}
	begin, encoded := 1, false
	for i := 1; i <= len(escaped); i++ {
		switch {
		case i == len(escaped) || escaped[i] == '/':
			s := escaped[begin:i]
			if s == "." || s == ".." || s == "" && i < len(escaped) {
				return "", false
			}
			begin = i + 1
		case escaped[i] == '%':
			if !plainEscape(escaped[i:]) {
				return "", false
			}
			encoded = true
			i += 2
		case !unreserved(escaped[i]) && strings.IndexByte("!$&'()*+,=:@", escaped[i]) < 0:
			return "", false
		}
	}
	if !encoded {
		return escaped, true
	}
	path, err := url.PathUnescape(escaped)
	return path, err == nil && utf8.ValidString(path)
}

// plainEscape reports whether what begins with a percent sign is one character
// that must be encoded, and is one still when it is decoded.
func plainEscape(s string) bool {
	c, ok := hexByte(s)
	switch {
	case !ok || unreserved(c) || c < ' ' || c == 0x7f || strings.IndexByte(`/\;`, c) >= 0:
		return false
	case c == '%':
		_, twice := hexByte("%" + s[3:])
		return !twice
	}
	return true
}

// hexByte reads %xx at the beginning of a string.
func hexByte(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, ok := hexDigit(s[1])
	low, also := hexDigit(s[2])
	return high<<4 | low, ok && also
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// unreserved reports whether a character means the same encoded or not (RFC
// 3986, 2.3).
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
