package tools

import (
	"context"

	"github.com/enlist-mcp/enlist/gateway"
)

// DiscoveryOf is what discover_service says of a protocol that was found.
func DiscoveryOf(ctx context.Context, d Deps, origin string, found gateway.Discovery) Discovery {
	return d.discovery(ctx, origin, found)
}
