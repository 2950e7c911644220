// Package tools is what the model sees: one tool a file of its thing, typed
// arguments and results, and errors that say what to do next.
//
// A tool names a credential by its handle and never holds one. It reaches a
// service through package gateway only.
package tools

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Deps is what tools are made of. Client and Now are required.
type Deps struct {
	Client *gateway.Client
	// Selection says which tools there are.
	Selection
	Now func() time.Time
	// StoredIn names where secrets are kept, as credstore.Store.Backend does.
	// nil: results do not say.
	StoredIn func(context.Context) (string, error)
	// Tick starts the clock at whose ticks a client that wants to know hears how
	// far a slow answer is. nil: one that ticks every second.
	Tick func() (ticks <-chan time.Time, stop func())
	// Logger gets what only a bug of ours can cause. nil: nothing is logged.
	Logger *slog.Logger

	// schemas are those of the tools, made beforehand; nil: they are made.
	schemas map[string]schemas
	// turns are the calls that wait for an answer of the person.
	turns *turns
	// every returns every tool there is, offered or not, to read of them.
	every func() []server.ServerTool
}

// Register adds every tool to a server.
func Register(s *server.MCPServer, d Deps) {
	s.AddTools(All(d)...)
}

// All lists every tool that is offered, sorted by name: those that are for every
// protocol, and each protocol's own.
func All(d Deps) []server.ServerTool {
	d.schemas = committedSchemas()
	return all(d)
}

func all(d Deps) []server.ServerTool {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	d.turns = &turns{now: d.Now}
	d.every = sync.OnceValue(func() []server.ServerTool { return All(Deps{}) })
	list := []server.ServerTool{
		discoverService(d),
		forgetCredential(d),
		listCredentials(d),
		revokeCredential(d),
		rotateCredential(d),
		sendRequest(d),
	}
	for name, p := range protocols() {
		if !d.speaks(name) {
			continue
		}
		for _, t := range p.tools {
			list = append(list, t(d))
		}
	}
	list = d.of(list)
	slices.SortFunc(list, func(a, b server.ServerTool) int { return strings.Compare(a.Tool.Name, b.Tool.Name) })
	return list
}

// allTools returns every tool there is, offered or not.
func (d Deps) allTools() []server.ServerTool {
	if d.every == nil { // these are of a resource or a prompt
		return All(Deps{})
	}
	return d.every()
}

// protocol is the tools of a protocol, and what those that are for every
// protocol know of it.
type protocol struct {
	tools    []func(Deps) server.ServerTool
	register string            // the tool that registers an agent
	names    string            // its argument that an agent is told apart by
	takesURL bool              // it registers at any service, by the argument service_url
	setting  string            // the environment variable that holds the service's base URL
	asks     string            // what an agent needs to register, in words
	routes   []string          // what send_request is good for there, in words
	advice   map[string]string // the next step for an error code of the service; {again} in it is the call that failed
	// lost is the next step after the answer to what was being done was lost,
	// where that is not what the tool itself says.
	lost map[string]string
	// forgets is what else is gone when a credential is forgotten; "": nothing is.
	forgets string
}

// protocols lists them. It is one of the four lists that a new protocol is added
// to; the manual names them, in adding-a-protocol.
func protocols() map[string]protocol {
	return map[string]protocol{
		wire.AgentDoorName: agentDoor(),
		wire.FluxraName:    fluxra(),
		wire.LithtrixName:  lithtrix(),
		wire.LonaName:      lona(),
		wire.LuminaName:    lumina(),
	}
}

// Forgets says what else is gone when a credential of a protocol is forgotten,
// or stays; "": nothing.
func Forgets(protocol string) string { return protocols()[protocol].forgets }

// Markdown returns the table of all tools for the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| Tool | What it does | Arguments | Changes anything |\n|---|---|---|---|\n")
	for _, t := range All(Deps{}) {
		what, _, _ := strings.Cut(t.Tool.Description, ". ")
		var args []string
		for _, a := range argumentsOf(t.Tool) {
			name := "`" + a.name + "`"
			if !a.required {
				name = "[" + name + "]"
			}
			args = append(args, name)
		}
		fmt.Fprintf(&b, "| `%s` | %s. | %s | %s |\n",
			t.Tool.Name, strings.TrimSuffix(what, "."), strings.Join(args, ", "), effect(t.Tool.Annotations))
	}
	return b.String()
}

// effect says what the hints say, in a word or two.
func effect(a mcp.ToolAnnotation) string {
	switch {
	case *a.ReadOnlyHint:
		return "no"
	case *a.DestructiveHint:
		return "yes, for good"
	}
	return "yes"
}
