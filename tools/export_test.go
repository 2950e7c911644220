package tools

import (
	"context"
	"log/slog"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// Curious is a tool that asks the person for each of some texts in turn.
func Curious(d Deps, names ...string) server.ServerTool {
	type out struct {
		Said string `json:"said"`
	}
	d.turns = &turns{now: d.Now}
	d.every = func() []server.ServerTool { return All(Deps{}) }
	t := tool(d, spec{name: "curious", title: "Curious", description: "Asks.", kept: "Nothing."}, func(_ context.Context, in map[string]string) (out, error) {
		all := ""
		for _, name := range names {
			if in[name] == "" {
				return out{}, &missing{form: form{message: name + "?", fields: []field{{name: name, title: name, wanted: name}}}}
			}
			all += in[name] + " "
		}
		return out{all}, nil
	})
	t.Tool.RawInputSchema = []byte(`{"type":"object","properties":{},"additionalProperties":true}`)
	return t
}

// Advice has the next steps for the codes of a protocol's services.
func Advice(protocol string) map[string]string { return protocols()[protocol].advice }

// DiscoveryOf is what discover_service says of a protocol that was found.
func DiscoveryOf(ctx context.Context, d Deps, origin string, found gateway.Discovery) Discovery {
	d.every = func() []server.ServerTool { return All(Deps{}) }
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
