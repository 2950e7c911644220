package tools

import "github.com/enlist-mcp/enlist/gateway"

// DiscoveryOf is what discover_service says of a protocol that was found.
func DiscoveryOf(d Deps, origin string, found gateway.Discovery) Discovery {
	return d.discovery(origin, found)
}
