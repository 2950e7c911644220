package tools

import (
	"context"

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
