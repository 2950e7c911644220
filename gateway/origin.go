package gateway

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// The errors of a base URL. They do not repeat it: a person may have put a
// password into it.
var (
	errNotAnOrigin = errors.New("want scheme, host and port only, as in https://api.example.com or http://127.0.0.1:8080")
	errNotASCII    = errors.New("want the host in ASCII: write an international name in its xn-- form")
	errPlainHTTP   = errors.New("want https: plain http is for loopback hosts only, because anybody on the way could read the key")
)

// parseOrigin returns the origin of a base URL, in lower case and without a
// default port, or an error when the URL is more than an origin or a
// credential must not be sent to it.
func parseOrigin(base string) (string, error) {
	if strings.ContainsFunc(base, func(r rune) bool { return r > '~' }) {
		return "", errNotASCII
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", errNotAnOrigin // err holds the URL
	}
	if !namesHost(u.Hostname()) || u.User != nil || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(u.Host, ":") {
		return "", errNotAnOrigin
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", errNotAnOrigin
	}
	origin := originOf(u)
	if !secure(origin) {
		return "", errPlainHTTP
	}
	return origin, nil
}

// namesHost reports whether a host is an address, or a name as it stands in DNS.
// A URL lets more through: other letters, behind percent signs, quotes, brackets.
// An origin is put before a person who is to agree to it, so it must be what it
// looks like; and a dot at its end would be another spelling of the same host.
func namesHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	return host != "" && !strings.HasSuffix(host, ".") && !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// originOf returns the scheme, host and port of a URL in the one spelling that
// a [credstore.Key] uses.
func originOf(u *url.URL) string {
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		port = ""
	}
	switch {
	case port != "":
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return scheme + "://" + host
}

// secure reports whether a credential may travel to an origin: by https, or
// within this machine.
func secure(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname())
}

// loopback reports whether a host is this machine by its very name. The names
// under localhost are (RFC 6761), and [NewTransport] asks no resolver for them.
func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// sameService reports whether two origins are one service for all that is known:
// the same, or the same port of this machine by two of its names.
func sameService(a, b string) bool {
	if a == b {
		return true
	}
	one, err := url.Parse(a)
	if err != nil {
		return false
	}
	other, err := url.Parse(b)
	return err == nil && one.Port() == other.Port() && loopback(one.Hostname()) && loopback(other.Hostname())
}
