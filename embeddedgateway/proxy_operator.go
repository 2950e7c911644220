package embeddedgateway

import (
	"net/http"
	"strings"
)

// OperatorCookie begins the name of every cookie of the operator's listener, but
// for what browsers want before it: see [withoutOperator].
const OperatorCookie = "enlist-admin"

// withoutOperator removes the operator's sessions from the header of a request.
// Cookies know no ports: a browser that is signed in to the operator's page sends
// its session to every other server of the same host, the gateway among them; and
// the API would be the operator with it.
func withoutOperator(h http.Header) {
	var kept []string
	for _, line := range h["Cookie"] {
		if strings.Contains(line, OperatorCookie) {
			line = withoutCookies(line)
		}
		if line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

func withoutCookies(line string) string {
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		if part = strings.TrimSpace(part); part != "" && !operatorCookie(part) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "; ")
}

// withoutOperatorSet removes from the header of an answer what would put a session
// of the API's choice in the place of the operator's.
func withoutOperatorSet(h http.Header) {
	const name = "Set-Cookie"
	var kept []string
	for _, line := range h[name] {
		if !operatorCookie(strings.TrimLeft(line, "= \t")) { // a cookie may have no name, and look as if its value were one
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(h, name)
		return
	}
	h[name] = kept
}

// operatorCookie reports whether a text begins with the name of a cookie of the
// operator's listener.
func operatorCookie(text string) bool {
	return strings.HasPrefix(strings.TrimPrefix(text, "__Host-"), OperatorCookie)
}
