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

// Steps returns the next steps that the protocols' own errors have, by the error,
// as the tool that registers says them.
func Steps() map[string]string {
	steps := make(map[string]string)
	for name, p := range protocols() {
		said := spec{name: p.register}
		for code, step := range p.advice {
			steps[name+" "+code] = said.here(step)
		}
		for op, step := range p.lost {
			steps[name+" lost: "+op] = said.here(step)
		}
	}
	return steps
}
