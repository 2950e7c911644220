package gateway

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"
)

// The bounds of a connection. The time for a whole request is [Options].Timeout.
const (
	dialTimeout    = 5 * time.Second
	maxHeaderBytes = 256 << 10
)

// NewTransport returns a transport for [Options] that goes straight to the
// service: no proxy, whatever the environment says, because a proxy would see
// plain http to a loopback name. dial makes the connections; nil: the system's.
func NewTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	if dial == nil {
		dial = dialDirect
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

// dialDirect dials addr. A name under localhost is this machine, so no
// resolver is asked: one that answers with another address would get a key in
// plain http.
func dialDirect(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	host = strings.ToLower(host)
	if host != "localhost" && !strings.HasSuffix(host, ".localhost") {
		return d.DialContext(ctx, network, addr)
	}
	conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if conn6, err6 := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return conn6, nil
		}
	}
	return conn, err
}
