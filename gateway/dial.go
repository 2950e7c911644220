package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The bounds of a connection. The time for a whole request is [Options].Timeout.
const (
	dialTimeout    = 5 * time.Second
	maxHeaderBytes = 256 << 10
)

// NewTransport returns a transport for [Options] that goes straight to the
// service: no proxy, whatever the environment says, because a proxy would see
// plain http to a loopback name, and would dial where nobody judges the
// address. dial makes the connections; nil: the system's, to public addresses
// only, but for this machine by its name and for what a person has set.
func NewTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	if dial == nil {
		dial = (&dialer{}).DialContext
	}
	return &http.Transport{
		DialContext:            dial,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// chosenKey is the context key of whether a person has set the origin that a
// request goes to. It depends on the origin alone, so that a connection which
// is used again was judged as it would be now.
type chosenKey struct{}

// networksKey is the context key of the private networks that the policy lets
// requests go to.
type networksKey struct{}

// dialer makes connections to the addresses that [judge] lets pass.
type dialer struct {
	resolver *net.Resolver // nil: the system's
	// connecting hears of an address that was let pass before the connection is
	// made, and can keep it from being made. nil: nobody does.
	connecting func(addr netip.AddrPort) error
}

// DialContext dials addr. A name under localhost is this machine, so no
// resolver is asked: one that answers with another address would get a key in
// plain http.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	chosen, _ := ctx.Value(chosenKey{}).(bool)
	networks, _ := ctx.Value(networksKey{}).([]netip.Prefix)
	host = strings.ToLower(host)
	a := admission{host, chosen, networks}
	nd := &net.Dialer{Timeout: dialTimeout, Resolver: d.resolver, Control: d.control(a)}
	conn, err := d.dial(ctx, nd, network, addr, host, port)
	if err == nil && a.byPolicy(conn.RemoteAddr()) {
		return &admittedConn{conn, host}, nil
	}
	return conn, err
}

// dial makes the connection.
func (d *dialer) dial(ctx context.Context, nd *net.Dialer, network, addr, host, port string) (net.Conn, error) {
	if host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return nd.DialContext(ctx, network, addr)
	}
	conn, err := nd.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if conn6, err6 := nd.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return conn6, nil
		}
	}
	return conn, err
}

// control judges an address after the name was resolved, when the connection to
// just that address is about to be made. An answer of the resolver that was
// judged earlier says nothing: the next one may be another.
func (d *dialer) control(a admission) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &AddressError{Host: a.host, Kind: "an address that cannot be judged"}
		}
		if refused := a.judge(to.Addr()); refused != nil {
			return refused
		}
		if d.connecting != nil {
			return d.connecting(to)
		}
		return nil
	}
}

// admission is what lets a host be at an address that is not public: that a
// person has set it, or a network of the policy.
type admission struct {
	host     string
	chosen   bool
	networks []netip.Prefix
}

// judge returns why no connection may be made to an address, or nil.
func (a admission) judge(addr netip.Addr) *AddressError {
	refused := judge(a.host, addr, a.chosen)
	if refused != nil && refused.Choosable && addr.Zone() == "" &&
		slices.ContainsFunc(a.networks, func(n netip.Prefix) bool { return n.Contains(addr.Unmap()) }) {
		return nil
	}
	return refused
}

// byPolicy reports whether only the policy lets a connection be made.
func (a admission) byPolicy(to net.Addr) bool {
	tcp, ok := to.(*net.TCPAddr)
	return ok && judge(a.host, tcp.AddrPort().Addr(), a.chosen) != nil
}

// admittedConn is a connection that is there because of the policy.
type admittedConn struct {
	net.Conn
	host string
}

// recheck closes a connection that was made earlier if the policy does not
// admit it any more. Nothing was sent over it yet, so that the request goes over
// a new one, if that can be made.
func recheck(conn net.Conn, networks []netip.Prefix) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*admittedConn)
	if !ok {
		return
	}
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); !ok || (admission{c.host, false, networks}).judge(tcp.AddrPort().Addr()) != nil {
		_ = c.Close()
	}
}
