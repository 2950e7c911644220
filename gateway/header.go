package gateway

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// maxHeaders is how many headers a request may set, and how many of an
	// answer are passed on.
	maxHeaders = 40
	// maxHeaderValue is the longest value of one, either way.
	maxHeaderValue = 2 << 10
)

// requestHeader returns the headers of a request, or why one is refused.
func requestHeader(given map[string]string, protocols []Protocol) (http.Header, string) {
	if len(given) > maxHeaders {
		return nil, "There are too many headers."
	}
	h := make(http.Header)
	for name, value := range given {
		if !httpguts.ValidHeaderFieldName(name) || len(name) > 100 {
			return nil, "A header's name is not valid."
		}
		// Some servers take an underscore for a dash.
		canonical := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		switch {
		case headerRefused(canonical):
			return nil, "The header " + canonical + " is not for a caller to set."
		case carriesCredential(canonical, protocols):
			return nil, "The header " + canonical + " carries a credential: the stored one is sent in it where it belongs."
		case !httpguts.ValidHeaderFieldValue(value) || len(value) > maxHeaderValue:
			return nil, "The value of the header " + canonical + " is not valid, or too long."
		case h.Get(name) != "":
			return nil, "The header " + canonical + " is given twice."
		}
		h.Set(name, value)
	}
	return h, ""
}

// headerRefused reports whether a header is set by nobody but the connection,
// the protocol or a proxy: it carries a credential, says who is asking, cuts
// the answer up, or turns the request into another one than was checked.
func headerRefused(canonical string) bool {
	switch canonical {
	case "Accept-Encoding", "Authorization", "Cf-Connecting-Ip", "Connection", "Content-Encoding", "Content-Length",
		"Cookie", "Cookie2", "Expect", "Fastly-Client-Ip", "Forwarded", "Host", "Http2-Settings", "If-Range",
		"Keep-Alive", "Max-Forwards", "Range", "Te", "Trailer", "Transfer-Encoding", "True-Client-Ip", "Upgrade", "Via",
		"X-Client-Ip", "X-Cluster-Client-Ip", "X-Host", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
		"X-Original-Host", "X-Original-Method", "X-Original-Url", "X-Real-Ip", "X-Rewrite-Url":
		return true
	}
	return strings.HasPrefix(canonical, "Proxy-") || strings.HasPrefix(canonical, "Sec-") ||
		strings.HasPrefix(canonical, "X-Forwarded")
}

func carriesCredential(canonical string, protocols []Protocol) bool {
	return slices.ContainsFunc(protocols, func(p Protocol) bool {
		return slices.ContainsFunc(p.Wire().Headers, func(h string) bool { return strings.EqualFold(h, canonical) })
	})
}

// told reports whether a header of an answer is worth knowing.
func told(canonical string) bool {
	switch canonical {
	case "Allow", "Content-Disposition", "Content-Language", "Content-Length", "Content-Type", "Deprecation", "Etag",
		"Last-Modified", "Link", "Location", "Retry-After", "Sunset", "Www-Authenticate":
		return true
	}
	return rateLimit.MatchString(canonical)
}

// rateLimit matches the names of rate limit headers. It leaves no room for
// anything else, since a name changes its letter case on the way and could
// carry a secret past those who look for one.
var rateLimit = wire.NewPattern(`^(X-)?Rate-?limit(-(After|Burst|Day|Email|Hour|Ip|Limit|Minute|Policy|Remaining|Requests|Reset|Resource|Retry|Scope|Second|Tokens|Used|Window)){0,4}$`)
