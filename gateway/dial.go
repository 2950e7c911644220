package gateway

import (
	"context"
	"net"
	"net/http"
	"net/netip"
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
	host = strings.ToLower(host)
	nd := &net.Dialer{Timeout: dialTimeout, Resolver: d.resolver, Control: d.control(host, chosen)}
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
func (d *dialer) control(host string, chosen bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &AddressError{Host: host, Kind: "an address that cannot be judged"}
		}
		if refused := judge(host, to.Addr(), chosen); refused != nil {
			return refused
		}
		if d.connecting != nil {
			return d.connecting(to)
		}
		return nil
	}
}
