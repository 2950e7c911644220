package gateway

import (
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
