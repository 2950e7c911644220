package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// maxPath is the longest path of a request, and the longest query.
	maxPath = 4 << 10
	// maxDecode is how often a path is decoded to see what is in it.
	maxDecode = 5
)

// refusePath returns why a path is refused, or "": a path must be what it
// looks like, whoever on its way decodes it, and however often.
func refusePath(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return "The path must begin with a slash; the host is always the one that issued the credential."
	case len(p) > maxPath:
		return "The path is too long."
	case strings.ContainsAny(p, "?#"):
		return "The path must not have a query or a fragment; a query has an argument of its own."
	}
	if _, err := url.PathUnescape(p); err != nil {
		return "The path has a percent sign that is not followed by two hexadecimal digits."
	}
	forms := decodings(p)
	for i, form := range forms {
		if why := refuseForm(form); why != "" {
			return why
		}
		if strings.Count(form, "/") != strings.Count(p, "/") {
			return "The path must not have an encoded slash."
		}
		if i == maxDecode {
			return "The path is encoded too often."
		}
	}
	return ""
}

// refuseForm is refusePath for one state of decoding.
func refuseForm(p string) string {
	switch {
	case !utf8.ValidString(p):
		return "The path must be UTF-8."
	case strings.ContainsFunc(p, unicode.IsControl):
		return "The path must not have control characters."
	case strings.Contains(p, `\`):
		return "The path must not have a backslash."
	case strings.Contains(p, "//"):
		return "The path must not have two slashes in a row."
	case strings.ContainsFunc(p, fullWidth):
		return "The path must not have full-width forms of ASCII characters."
	}
	for segment := range strings.SplitSeq(p[1:], "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if segment != "" && strings.Trim(segment, ". ") == "" {
			return "The path must not have segments of dots."
		}
	}
	return ""
}

// fullWidth reports whether some servers take r for an ASCII character.
func fullWidth(r rune) bool { return r >= '！' && r <= '～' }

// decodings returns p and what it becomes when it is decoded once, twice and
// so on until nothing changes. There are at most maxDecode+1 of them.
func decodings(p string) []string {
	forms := []string{p}
	for range maxDecode {
		next := decodeOnce(p)
		if next == p {
			break
		}
		forms = append(forms, next)
		p = next
	}
	return forms
}

// decodeOnce undoes the percent escapes that are valid and leaves the others,
// as a lenient server does.
func decodeOnce(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			if s, err := url.PathUnescape(p[i : i+3]); err == nil {
				b.WriteString(s)
				i += 2
				continue
			}
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// reservedBy returns the route that a request would reach, as generously as
// any server matches, among those that issue or end a credential.
func reservedBy(routes []wire.Route, method, p string) (wire.Route, bool) {
	for _, form := range decodings(p) {
		form = routeForm(form)
		bare := strings.TrimSuffix(form, path.Ext(form)) // some servers take an extension for a format
		for _, r := range routes {
			// A POST can become any other method by what is in its body.
			if r.Method != "" && r.Method != method && method != http.MethodOptions && method != http.MethodPost {
				continue
			}
			if matches(r.Path, form) || matches(r.Path, bare) {
				return r, true
			}
		}
	}
	return wire.Route{}, false
}

// matches reports whether a path in the form of routeForm is that of a route.
func matches(pattern, p string) bool {
	pattern = fold(pattern)
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(p, prefix) || strings.HasPrefix(p+"/", prefix)
	}
	return p == pattern
}

// routeForm returns a path as the most generous server would route it:
// without letter case, parameters, trailing slashes, dots and spaces, and
// what an encoded question mark or number sign cuts off.
func routeForm(p string) string {
	if i := strings.IndexAny(p, "?#"); i >= 0 {
		p = p[:i]
	}
	segments := strings.Split(fold(p), "/")
	for i, s := range segments {
		s, _, _ = strings.Cut(s, ";")
		segments[i] = strings.TrimRight(s, ". ")
	}
	return strings.TrimRight(strings.Join(segments, "/"), "/")
}

// fold returns s without letter case; ToUpper first, because some letters
// outside ASCII have an ASCII capital.
func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }
