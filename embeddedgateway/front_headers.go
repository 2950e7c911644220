package embeddedgateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// enlistPrefix begins the names of all headers that the API believes, lower
// case.
const enlistPrefix = "x-enlist-"

// The headers that the API learns by who makes a request.
const (
	protocolHeader = "X-Enlist-Protocol"
	agentHeader    = "X-Enlist-Agent"
	scopesHeader   = "X-Enlist-Scopes"
	keyIDHeader    = "X-Enlist-Key-Id"
	assertedHeader = "X-Enlist-Token"
)

// strip removes from a header, or a trailer, that came from outside what only
// the gateway may say, and the agent's own credential: an API that does not get
// it can neither leak nor use it. Some programs read X_Enlist_Agent, and a few
// X.Enlist.Agent, as X-Enlist-Agent, so all of them are one here.
func strip(h http.Header) {
	if len(h) == 0 {
		return
	}
	secrets := secretHeaders()
	for name := range h {
		if ours(name) || secrets.has(name) {
			delete(h, name)
		}
	}
	// What these two name is taken out of the request on its way, or put into
	// it at the end.
	for _, list := range []string{"Connection", "Trailer"} {
		values, ok := h[list]
		if !ok {
			continue
		}
		delete(h, list)
		if kept := secrets.unlist(values); kept != "" {
			h[list] = []string{kept}
		}
	}
}

// stripTrailer removes from a trailer what strip does, and what rules, limits and
// logs have looked for in the header only: some programs take it for that.
func stripTrailer(h http.Header) {
	strip(h)
	for name := range h {
		if saysWhence(name) || overrides(name) || sameName(name, requestIDName) {
			delete(h, name)
		}
	}
}

// headerNames are names of headers in lower case, with dashes.
type headerNames []string

// secretHeaders lists the headers that credentials come in, or beside.
func secretHeaders() headerNames {
	var names headerNames
	for _, p := range wire.Protocols() {
		for _, name := range p.Headers {
			if !names.has(name) {
				names = append(names, strings.ToLower(name))
			}
		}
	}
	return names
}

// has reports whether a header is one of them.
func (n headerNames) has(name string) bool {
	return slices.ContainsFunc(n, func(one string) bool { return sameName(name, one) })
}

// unlist returns what a header that is a list of names has beside those.
func (n headerNames) unlist(values []string) string {
	var kept []string
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" && !ours(name) && !n.has(name) {
				kept = append(kept, name)
			}
		}
	}
	return strings.Join(kept, ", ")
}

// ours reports whether only the gateway may set a header.
func ours(name string) bool {
	return len(name) >= len(enlistPrefix) && sameName(name[:len(enlistPrefix)], enlistPrefix)
}

// overrides reports whether a header makes some APIs take another method than
// the one that the rules see.
func overrides(name string) bool {
	return sameName(name, "x-http-method-override") || sameName(name, "x-http-method") || sameName(name, "x-method-override")
}

// sameName reports whether a header is called by a name, which is in lower case
// and of letters, digits and dashes. Programs that make variables of headers turn
// whatever else can stand in a name into an underscore, as they do the dash.
func sameName(name, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case (c < 'a' || c > 'z') && (c < '0' || c > '9'):
			c = '-'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// plainName reports whether a header has a name that no program takes for
// another's.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
	})
}

// scopeText is scopes as one line: between spaces, each escaped.
func scopeText(scopes []string) string {
	if len(scopes) == 1 {
		return visible(scopes[0])
	}
	list := make([]string, len(scopes))
	for i, s := range scopes {
		list[i] = visible(s)
	}
	return strings.Join(list, " ")
}

// visible is a text as it can stand in a header and between spaces: what is not
// visible ASCII, and the percent sign, is percent-encoded.
func visible(text string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' && c != '"' }
	for i := range len(text) {
		if plain(text[i]) {
			continue
		}
		out := []byte(text[:i])
		for _, c := range []byte(text[i:]) {
			if plain(c) {
				out = append(out, c)
			} else {
				out = append(out, '%', hex[c>>4], hex[c&15])
			}
		}
		return string(out)
	}
	return text
}
