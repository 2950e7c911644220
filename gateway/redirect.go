package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// maxHops is how many redirects within the origin are followed.
const maxHops = 5

// isRedirect reports whether an answer is a redirect to somewhere.
func isRedirect(a answer) bool {
	switch a.status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return a.header.Get("Location") != ""
	}
	return false
}

// redirectTo returns where a redirect leads, and whether it stays at the origin
// that the request went to.
func redirectTo(from *url.URL, a answer) (*url.URL, bool) {
	to, err := from.Parse(a.header.Get("Location"))
	if err != nil || originOf(to) != originOf(from) {
		return nil, false
	}
	return to, true
}

// follow returns the request that a redirect within the origin asks for, if it
// may be made: it must be the same request, so what changes something is sent
// on only where the service says so (307, 308) and nothing has to be sent twice;
// and it must be one that could have been made in the first place, so a path
// is guarded as one of a caller is.
func follow(m message, a answer, to *url.URL, reserved []wire.Route) (message, bool) {
	same := a.status == http.StatusTemporaryRedirect || a.status == http.StatusPermanentRedirect
	if !safe(m.method) && (!same || m.body != nil) {
		return m, false
	}
	next := *to
	next.Fragment, next.RawFragment = "", ""
	if next.Path == "" {
		next.Path = "/"
	}
	p := next.EscapedPath()
	if next.User != nil || refusePath(p) != "" || len(next.RawQuery) > maxPath {
		return m, false
	}
	for name := range next.Query() {
		if strings.EqualFold(name, methodParameter) {
			return m, false
		}
	}
	if _, ok := reservedBy(reserved, m.method, p); ok {
		return m, false
	}
	m.url = &next
	return m, true
}
