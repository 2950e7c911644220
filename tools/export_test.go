package tools

import (
	"context"
	"log/slog"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// DiscoveryOf is what discover_service says of a protocol that was found.
func DiscoveryOf(ctx context.Context, d Deps, origin string, found gateway.Discovery) Discovery {
	return d.discovery(ctx, origin, found)
}

// Made lists every tool with schemas that are made of its types.
func Made(d Deps) []server.ServerTool {
	return all(Deps{Selection: d.Selection, Logger: slog.New(slog.DiscardHandler)})
}
