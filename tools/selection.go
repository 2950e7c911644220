package tools

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/server"
)

// Selection says which tools are offered. The zero value: all of them.
type Selection struct {
	// Services are the protocols whose tools are offered; none: all.
	Services []string
	// ReadOnly offers nothing that changes anything, here or at a service:
	// send_request then makes GET, HEAD and OPTIONS requests only.
	ReadOnly bool
}

// Check returns what is wrong with a selection.
func (s Selection) Check() error {
	known := slices.Sorted(maps.Keys(protocols()))
	for _, name := range s.Services {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no service %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// speaks reports whether the tools of a protocol are offered.
func (s Selection) speaks(protocol string) bool {
	return len(s.Services) == 0 || slices.Contains(s.Services, protocol)
}

// of returns those of some tools that are offered.
func (s Selection) of(all []server.ServerTool) []server.ServerTool {
	return slices.DeleteFunc(all, func(t server.ServerTool) bool { return s.ReadOnly && !readOnly(t) })
}

// offers reports whether a tool is offered.
func (s Selection) offers(t server.ServerTool) bool {
	for name := range protocols() {
		if strings.HasPrefix(t.Tool.Name, name+"_") && !s.speaks(name) {
			return false
		}
	}
	return !s.ReadOnly || readOnly(t)
}

// readOnly reports whether a tool changes nothing, if it is told so.
func readOnly(t server.ServerTool) bool {
	return *t.Tool.Annotations.ReadOnlyHint || t.Tool.Name == "send_request"
}

// registerTools names the tools that register an agent and are offered; "" for
// none.
func (s Selection) registerTools() string {
	if s.ReadOnly {
		return ""
	}
	var names []string
	all := protocols()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if s.speaks(name) && all[name].register != "" {
			names = append(names, all[name].register)
		}
	}
	return strings.Join(names, " or ")
}

// without says why an agent cannot register by a protocol for want of its tool,
// and what to do about it; "": it has the tool.
func (s Selection) without(protocol string) string {
	switch {
	case !s.speaks(protocol):
		return "Ask the person to start Enlist with --services " + strings.Join(append(slices.Clone(s.Services), protocol), ",") +
			": you do not have the tools of " + protocol + " here."
	case s.ReadOnly:
		return "Ask the person to start Enlist without --read-only, or to register the agent by 'enlist call " + protocols()[protocol].register + "': you cannot register here."
	}
	return ""
}

// toRegister says how to come to a credential, as a part of a sentence.
func (s Selection) toRegister() string {
	switch names := s.registerTools(); {
	case names == "":
		return "ask the person to start Enlist without --read-only, which keeps you from registering"
	case strings.Contains(names, " or "):
		return "call discover_service with url: it says which of these registers there, " + names
	default:
		return "call " + names
	}
}

// withheld says of a next step which of the tools that it names are not offered,
// and what to do instead; "": none.
func (d Deps) withheld(step string) string {
	if len(d.Services) == 0 && !d.ReadOnly {
		return ""
	}
	var missing []string
	for _, t := range d.allTools() {
		if strings.Contains(step, t.Tool.Name) && !d.offers(t) {
			missing = append(missing, t.Tool.Name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return " Ask the person to start Enlist without --read-only or --services, or to do it for you: you do not have " + strings.Join(missing, " and ") + " here."
}
