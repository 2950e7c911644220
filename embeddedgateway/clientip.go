package embeddedgateway

import (
	"net/http"
	"net/netip"
	"strings"
)

// clientIP is the address that a request came from: the peer's or, where the
// peer is a trusted proxy, the last one in X-Forwarded-For that is not. What
// stands left of an address that is not trusted was written by a stranger.
func clientIP(r *http.Request, trusted []netip.Prefix) netip.Addr {
	ip, ok := parseIP(r.RemoteAddr)
	if !ok {
		// A peer without an address, as on a Unix socket: all of them are one.
		return netip.IPv6Unspecified()
	}
	if len(trusted) == 0 {
		return ip
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && isTrusted(ip, trusted); i-- {
		hop, ok := parseIP(strings.TrimSpace(hops[i]))
		if !ok {
			break
		}
		ip = hop
	}
	return ip
}

func isTrusted(ip netip.Addr, trusted []netip.Prefix) bool {
	for _, p := range trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// parseIP reads an address with or without a port. An IPv4 address in the dress
// of an IPv6 one is taken out of it; a zone is dropped.
func parseIP(s string) (netip.Addr, bool) {
	if with, err := netip.ParseAddrPort(s); err == nil { // as every peer's is
		return with.Addr().Unmap().WithZone(""), true
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return ip.Unmap().WithZone(""), true
}

// network is what limits go by: an IPv4 address, or the /64 of an IPv6 address,
// which is the least that a customer is given.
func network(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}
