package embeddedgateway

import (
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
)

// rewrite makes the request that the API gets of the one that came: the same
// method, path, query and body, at the API's own host; without what only the
// gateway may say and without the credential; with who makes it.
func (x *exchange) rewrite(r *httputil.ProxyRequest) {
	out := r.Out
	r.SetURL(x.to)
	out.URL.RawQuery, out.URL.ForceQuery = r.In.URL.RawQuery, r.In.URL.ForceQuery // byte for byte
	h := out.Header
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") || r.In.Method != http.MethodGet {
		// What was agreed on instead could be HTTP again, past the gateway.
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	strip(h)
	withoutOperator(h)
	if x.admission.preflight {
		delete(h, "Cookie") // browsers send none
	}
	x.forward(h)
	h[requestIDHeader] = []string{x.id}
	for name, values := range x.admission.header {
		h[name] = values
	}
	if r.In.Trailer != nil {
		stripTrailer(r.In.Trailer)
		out.Trailer = r.In.Trailer // not a copy: it is filled at the end of the body
	}
}

// forward says in a header where the request came from. What a proxy said of it
// is taken over only from one that is trusted.
func (x *exchange) forward(h http.Header) {
	trusted := x.trusts(x.in)
	for name := range h {
		if saysWhence(name) && (!trusted || !keptWhence(name)) || sameName(name, requestIDName) {
			delete(h, name)
		}
	}
	host, proto := x.in.Host, "http"
	if x.in.TLS != nil {
		proto = "https"
	}
	if trusted {
		if given := x.in.Header["X-Forwarded-Host"]; len(given) == 1 && plainHost(given[0]) {
			host = given[0]
		}
		if given := x.in.Header["X-Forwarded-Proto"]; len(given) == 1 && (given[0] == "http" || given[0] == "https") {
			proto = given[0]
		}
	}
	if !plainHost(host) {
		// Of an absolute URL it may hold quotes, and elements of Forwarded with
		// them: net/http looks at the header Host only. It may be empty, too.
		host = ""
	}
	hops := x.hops(trusted)
	elements := make([]string, len(hops))
	for i, hop := range hops {
		elements[i] = "for=" + forwardedNode(hop)
	}
	if host != "" {
		elements[0] += `;host="` + host + `"`
		h["X-Forwarded-Host"] = []string{host}
	} else {
		delete(h, "X-Forwarded-Host")
	}
	elements[0] += ";proto=" + proto
	h["X-Forwarded-For"] = []string{joinHops(hops)}
	h["X-Forwarded-Proto"] = []string{proto}
	h["Forwarded"] = []string{strings.Join(elements, ", ")}
}

// hops is the way of a request: its client, as limits of addresses see it, and
// the trusted proxies that it came by. What a stranger wrote before is not in it.
func (x *exchange) hops(trusted bool) []netip.Addr {
	peer, ok := parseIP(x.in.RemoteAddr)
	if !ok {
		peer = netip.IPv6Unspecified() // as on a Unix socket
	}
	hops := []netip.Addr{peer}
	if !trusted {
		return hops
	}
	given := strings.Split(strings.Join(x.in.Header["X-Forwarded-For"], ","), ",")
	for _, text := range slices.Backward(given) {
		hop, ok := parseIP(strings.TrimSpace(text))
		if !ok {
			break
		}
		hops = append(hops, hop)
		if !isTrusted(hop, x.cfg.TrustedProxies) {
			break
		}
	}
	slices.Reverse(hops)
	return hops
}

func joinHops(hops []netip.Addr) string {
	if len(hops) == 1 {
		return hops[0].String()
	}
	list := make([]string, len(hops))
	for i, hop := range hops {
		list[i] = hop.String()
	}
	return strings.Join(list, ", ")
}

// forwardedNode spells an address for the header Forwarded (RFC 7239).
func forwardedNode(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	return `"[` + ip.String() + `]"`
}

// plainHost reports whether a host can stand between quotes.
func plainHost(host string) bool {
	if host == "" || len(host) > 255 {
		return false
	}
	for i := range len(host) {
		if !unreserved(host[i]) && strings.IndexByte("[]:", host[i]) < 0 {
			return false
		}
	}
	return true
}

// saysWhence reports whether a header tells an API where a request came from. An
// API that believes one that nobody checked is easily deceived.
func saysWhence(name string) bool {
	const prefix = "x-forwarded-"
	if len(name) >= len(prefix) && sameName(name[:len(prefix)], prefix) {
		return true
	}
	for _, n := range [...]string{
		"forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip",
		"client-ip", "x-remote-ip", "x-remote-addr", "x-originating-ip", "fastly-client-ip",
		"x-original-url", "x-original-uri", "x-rewrite-url", "x-original-method", "x-original-host", "x-host", "x-envoy-original-path",
	} {
		if sameName(name, n) {
			return true
		}
	}
	return false
}

// keptWhence reports whether such a header is passed on as a trusted proxy sent
// it. Those that name another path or method than the request's never are: rules
// have seen the request's.
func keptWhence(name string) bool {
	for _, n := range [...]string{"x-original-", "x-rewrite-", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-path", "x-envoy-original-path"} {
		if len(name) >= len(n) && sameName(name[:len(n)], n) {
			return false
		}
	}
	return plainName(name)
}
