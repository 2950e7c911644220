package gateway

import (
	"fmt"
	"net/netip"
)

// AddressError says that a host leads to an address that no request goes to.
// Nothing was sent to it, and no connection was made.
type AddressError struct {
	Host string // as the request named it
	Kind string // what it leads to: "a private address"
	// Choosable: requests go there once a person has set the service's base URL.
	Choosable bool
}

// Error implements error. It does not give the address itself, which may be
// known within somebody's network only.
func (e *AddressError) Error() string {
	text := fmt.Sprintf("%s leads to %s; requests go to public addresses only", e.Host, e.Kind)
	if e.Choosable {
		text += ", unless a person sets the base URL of such a service in Enlist's environment"
	}
	return text
}

// The kinds of addresses that a person may choose a service at.
const (
	kindLoopback = "this machine, which must be called localhost or by its address"
	kindPrivate  = "a private address"
	kindShared   = "a shared address of a provider's or a virtual network"
)

// special is a range of addresses that no service of the public internet has.
type special struct {
	prefix netip.Prefix
	kind   string
	// choosable: a service may be there if a person says so.
	choosable bool
}

// metadata lists what answers with the credentials of the machine itself in
// somebody's cloud. It is refused whoever chose it.
func metadata() []special {
	const kind = "a metadata address of a cloud"
	return []special{
		{netip.MustParsePrefix("100.100.100.200/32"), kind, false}, // Alibaba
		{netip.MustParsePrefix("168.63.129.16/32"), kind, false},   // Azure; public by its looks
		{netip.MustParsePrefix("169.254.169.254/32"), kind, false}, // nearly all
		{netip.MustParsePrefix("192.0.0.192/32"), kind, false},     // Oracle
		{netip.MustParsePrefix("fd00:ec2::/32"), kind, false},      // AWS
		{netip.MustParsePrefix("fd20:ce::/32"), kind, false},       // Google
	}
}

// specials lists the ranges of IANA's registries of special-purpose addresses
// that are not globally reachable, or lead to an address that is hidden in
// them. Of IPv6 it has what lies within 2000::/3, and what has a better name
// than all that lies outside.
func specials() []special {
	const example, tunnel, unused = "an address for documentation or tests", "an address of a tunnel", "an address that no service has"
	return append(metadata(), []special{
		{netip.MustParsePrefix("0.0.0.0/8"), unused, false},
		{netip.MustParsePrefix("10.0.0.0/8"), kindPrivate, true},
		{netip.MustParsePrefix("100.64.0.0/10"), kindShared, true},
		{netip.MustParsePrefix("127.0.0.0/8"), kindLoopback, true},
		{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address", false},
		{netip.MustParsePrefix("172.16.0.0/12"), kindPrivate, true},
		{netip.MustParsePrefix("192.0.0.0/24"), unused, false},
		{netip.MustParsePrefix("192.0.2.0/24"), example, false},
		{netip.MustParsePrefix("192.88.99.0/24"), tunnel, false},
		{netip.MustParsePrefix("192.168.0.0/16"), kindPrivate, true},
		{netip.MustParsePrefix("198.18.0.0/15"), example, false},
		{netip.MustParsePrefix("198.51.100.0/24"), example, false},
		{netip.MustParsePrefix("203.0.113.0/24"), example, false},
		{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address", false},
		{netip.MustParsePrefix("240.0.0.0/4"), unused, false},

		{netip.MustParsePrefix("::1/128"), kindLoopback, true},
		{netip.MustParsePrefix("fc00::/7"), kindPrivate, true},
		{netip.MustParsePrefix("fe80::/10"), "a link-local address", false},
		{netip.MustParsePrefix("fec0::/10"), "a site-local address", false},
		{netip.MustParsePrefix("ff00::/8"), "a multicast address", false},
		{netip.MustParsePrefix("2001::/23"), tunnel, false}, // Teredo, and others that are nobody's
		{netip.MustParsePrefix("2001:db8::/32"), example, false},
		{netip.MustParsePrefix("2002::/16"), tunnel, false}, // 6to4
		{netip.MustParsePrefix("3fff::/20"), example, false},
	}...)
}

// judge returns why no connection may be made to an address, or nil. host is
// what the request called it; chosen says that a person did, in a setting.
func judge(host string, addr netip.Addr, chosen bool) *AddressError {
	if addr.Zone() != "" {
		return &AddressError{Host: host, Kind: "an address of one link"}
	}
	addr = addr.Unmap() // as the system does before it connects
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(addr) {
		// All of IPv4 is reached so where there is no IPv4.
		raw := addr.As16()
		addr = netip.AddrFrom4([4]byte(raw[12:]))
	} else if addr.IsLoopback() && loopback(host) {
		return nil
	}
	for _, s := range specials() {
		if !s.prefix.Contains(addr) {
			continue
		}
		if chosen && s.choosable {
			return nil
		}
		return &AddressError{Host: host, Kind: s.kind, Choosable: s.choosable}
	}
	if global := netip.MustParsePrefix("2000::/3"); !addr.Is4() && !global.Contains(addr) {
		return &AddressError{Host: host, Kind: "an address that no service has"}
	}
	return nil
}
