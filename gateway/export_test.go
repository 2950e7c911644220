package gateway

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// With adds protocols to a client, as a new file and a line in protocols.go do.
func (c *Client) With(ps ...Protocol) {
	c.protocols = append(c.protocols, ps...)
	c.Lifecycle.protocols = c.protocols
}

// Store returns the store as the protocols of a client have it.
func (c *Client) Store() credstore.Store { return c.Lifecycle.store }

// What tests reach directly.
var (
	RefusePath = refusePath
	Sleep      = sleep
)

// Reserved reports whether a request would reach one of the routes.
func Reserved(routes []wire.Route, method, path string) bool {
	_, ok := reservedBy(routes, method, path)
	return ok
}

// Judge returns why a host at an address is refused, or nil.
func Judge(host string, addr netip.Addr, chosen bool) *AddressError { return judge(host, addr, chosen) }

// TransportWith is the usual transport with another resolver. connecting hears
// of each address that was let pass.
func TransportWith(r *net.Resolver, connecting func(netip.AddrPort) error) *http.Transport {
	return NewTransport((&dialer{resolver: r, connecting: connecting}).DialContext)
}

// Chosen marks a request as one to an origin that a person has set.
func Chosen(ctx context.Context) context.Context { return context.WithValue(ctx, chosenKey{}, true) }
