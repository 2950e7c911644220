package tools

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// DiscoverInput is the arguments of discover_service.
type DiscoverInput struct {
	URL string `json:"url,omitzero" jsonschema:"any https URL of the service"`
}

// Discovered is the result of discover_service.
type Discovered struct {
	Origin     string      `json:"origin"`
	Found      []Discovery `json:"found"`
	Unanswered []string    `json:"unanswered,omitzero"`
	NextStep   string      `json:"next_step"`
}

// Discovery is a protocol that a service seems to speak.
type Discovery struct {
	Protocol        string   `json:"protocol"`
	Confidence      string   `json:"confidence"`
	Evidence        []string `json:"evidence"`
	AsksFor         string   `json:"asks_for,omitzero"`
	Tool            string   `json:"tool,omitzero"`
	Arguments       string   `json:"arguments,omitzero"`
	RequiresPayment bool     `json:"requires_payment,omitzero"`
	// ServiceSaid holds the service's words, and no other field does.
	ServiceSaid map[string]any `json:"service_said,omitzero"`
	NextStep    string         `json:"next_step"`
}

func discoverService(d Deps) server.ServerTool {
	s := spec{
		name:  "discover_service",
		title: "Discover a service",
		description: "Finds out by its URL how a service registers agents: protocol, what it asks for, which tool to call. " +
			"Call it for a service that you do not know; it registers nothing. If it finds nothing, ask the person for the API's address.",
		readOnly:    true,
		destructive: false,
		idempotent:  true,
		openWorld:   true,
		kept:        "Nothing changed.",
		lost:        "Nothing changed.",
		moved:       "Ask the person for url, if they mean the service that service_said names, then call discover_service with url.",
	}
	return tool(d, s, func(ctx context.Context, in DiscoverInput) (Discovered, error) {
		if in.URL == "" {
			return Discovered{}, link("url", "The agent wants to look at a service, to see how agents register there, and did not say which. What is its address?")
		}
		found, err := d.Client.Discover(ctx, in.URL)
		if err != nil {
			return Discovered{}, err
		}
		out := Discovered{Origin: found.Origin, Found: []Discovery{}, Unanswered: found.Unanswered}
		for _, p := range found.Protocols {
			out.Found = append(out.Found, d.discovery(ctx, found.Origin, p))
		}
		switch len(out.Found) {
		case 0:
			out.NextStep = "Ask the person for url, the base URL of the service's API, then call discover_service with url: no protocol that Enlist knows was found here. " +
				"The API is often at another host than the web site; the service may also not register agents at all."
		case 1:
			out.NextStep = "Do what next_step says of " + out.Found[0].Protocol + "."
		default:
			out.NextStep = "Do what next_step says of " + out.Found[0].Protocol + ", the surest, unless the person wants another one of these."
		}
		if len(out.Unanswered) > 0 {
			out.NextStep += " The service did not answer when it was asked about " + strings.Join(out.Unanswered, ", ") + "."
		}
		return out, nil
	})
}

// discovery says what a model has to know of a protocol that was found.
func (d Deps) discovery(ctx context.Context, origin string, found gateway.Discovery) Discovery {
	p := protocols()[found.Protocol]
	out := Discovery{
		Protocol: found.Protocol, Confidence: string(found.Confidence), Evidence: found.Evidence,
		AsksFor: p.asks, Tool: p.register, RequiresPayment: found.RequiresPayment,
	}
	if !found.Said.IsZero() {
		out.ServiceSaid = object(found.Said)
	}
	var takesURL bool
	for _, t := range d.allTools() {
		if t.Tool.Name == p.register {
			args := argumentsOf(t.Tool)
			out.Arguments = usage(args)
			takesURL = slices.ContainsFunc(args, func(a argument) bool { return a.name == "service_url" })
		}
	}
	switch {
	case found.Problem != "":
		out.NextStep = "Tell the person that you do not register here. " + found.Problem
	case p.register == "":
		out.NextStep = "Tell the person that Enlist has no tool that registers with this protocol."
	default:
		if out.NextStep = d.without(found.Protocol); out.NextStep == "" {
			out.NextStep = d.registerStep(origin, found, p, takesURL)
		} else {
			out.Tool, out.Arguments = "", ""
		}
		if have := d.usableAt(ctx, origin, found.Protocol); len(have) > 0 {
			out.NextStep = "Call send_request with credential " + strings.Join(have, ", or with ") + ": you are registered here. To register another agent: " + out.NextStep
		}
	}
	return out
}

// object returns what was said as the JSON object that it is.
func object(said gateway.Said) map[string]any {
	raw, _ := json.Marshal(said) // texts and a number
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	return out
}

// usableAt names the usable credentials of a protocol at an origin.
func (d Deps) usableAt(ctx context.Context, origin, protocol string) []string {
	all, err := d.named(ctx)
	if err != nil {
		return nil // what was found is worth saying all the same
	}
	var handles []string
	for _, i := range all {
		if i.Protocol == protocol && i.Origin == origin && i.UsableAt(d.Now()) {
			handles = append(handles, d.Client.Lifecycle.Handle(i.Key))
		}
	}
	return handles
}

// registerStep says how to register by a protocol that was found.
func (d Deps) registerStep(origin string, found gateway.Discovery, p protocol, takesURL bool) string {
	var set string // where the tool registers
	for _, known := range d.Client.All() {
		if known.Wire().Name == found.Protocol {
			set = known.Origin()
		}
	}
	step := "Call " + p.register + "."
	switch {
	case takesURL:
		step = "Call " + p.register + " with service_url " + origin + "."
	case set != origin:
		step = "Ask the person to set " + p.setting + "=" + origin + " in Enlist's environment and to restart Enlist, if they want an account here. Then call " + p.register +
			": until then it registers at " + cmp.Or(set, "no address") + "."
	}
	if found.Confidence == gateway.Weak {
		step = "Ask the person whether this is the service they mean: the evidence is weak, and no reason to register. Then " + strings.ToLower(step[:1]) + step[1:]
	}
	if len(found.Said.Scopes) > 0 {
		step += " Ask for the scopes that you need by their ids in service_said; one with a price costs money, so ask the person first."
	}
	if found.RequiresPayment {
		step += " The service wants to be paid, which Enlist does not do: tell the person."
	}
	return step
}
