package tools

import (
	"context"

	"github.com/enlist-mcp/enlist/gateway"
)

// DiscoveryOf is what discover_service says of a protocol that was found.
func DiscoveryOf(ctx context.Context, d Deps, origin string, found gateway.Discovery) Discovery {
	return d.discovery(ctx, origin, found)
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
