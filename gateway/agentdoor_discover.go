package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// maxScopes is how many scopes of a service are passed on.
const maxScopes = 30

// agentDoorScopeID matches the names of scopes that can be repeated as they are.
var agentDoorScopeID = wire.NewPattern(`^[A-Za-z0-9._:/*-]{1,100}$`)

// Discover implements [Discoverer]. It reads a service's discovery document. It is what the
// protocol itself is found by, so one that is there and not whole is reported.
func (*AgentDoor) Discover(ctx context.Context, s *Site) (*Discovery, error) {
	a, err := s.get(ctx, wire.AgentDoorDiscoveryPath)
	if err != nil {
		return nil, err
	}
	doc, ok := document(a)
	if !ok || scalar(doc, "agentdoor_version") == "" {
		return nil, nil
	}
	d := &Discovery{
		Confidence: Certain,
		Evidence:   []string{"GET " + wire.AgentDoorDiscoveryPath + " answers with AgentDoor's discovery document."},
		Said: Said{
			Service:     s.said(scalar(doc, "service_name"), maxShort),
			Description: s.said(scalar(doc, "service_description"), maxSaid),
			Version:     s.said(scalar(doc, "agentdoor_version"), maxShort),
			Payment:     s.said(written(doc, "payment"), maxSaid),
		},
	}
	d.RequiresPayment = wantsX402(doc["payment"])
	usable := saidScopes(s, doc["scopes_available"], &d.Said)
	d.Problem = agentDoorProblem(s.origin, doc, usable)
	return d, nil
}

// wantsX402 reports whether a document's payment is by x402, the only protocol
// for it that AgentDoor knows.
func wantsX402(raw json.RawMessage) bool {
	var payment map[string]json.RawMessage
	return json.Unmarshal(raw, &payment) == nil && len(payment) > 0 &&
		strings.EqualFold(cmp.Or(scalar(payment, "protocol"), "x402"), "x402")
}

// saidScopes adds the scopes of a document to what its service says. It
// returns how many of them have what the protocol wants.
func saidScopes(s *Site, raw json.RawMessage, said *Said) (usable int) {
	var all []json.RawMessage
	_ = json.Unmarshal(raw, &all)
	for _, one := range all {
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(one, &fields)
		id, description := scalar(fields, "id"), scalar(fields, "description")
		if id == "" || description == "" {
			said.MoreScopes++
			continue
		}
		usable++
		if len(said.Scopes) == maxScopes || !agentDoorScopeID.MatchString(id) || s.said(id, maxShort) != id {
			said.MoreScopes++
			continue
		}
		said.Scopes = append(said.Scopes, Scope{
			ID: id, Description: s.said(description, maxShort),
			Price: s.said(written(fields, "price"), maxShort), RateLimit: s.said(written(fields, "rate_limit"), maxShort),
		})
	}
	return usable
}

// agentDoorProblem returns why nobody can register by a document, or "".
func agentDoorProblem(origin string, doc map[string]json.RawMessage, scopes int) string {
	for _, name := range []string{"service_name", "registration_endpoint", "auth_endpoint"} {
		if scalar(doc, name) == "" {
			return "Its discovery document has no " + name + "."
		}
	}
	if scopes == 0 {
		return "Its discovery document has no scope with an id and a description."
	}
	base, err := url.Parse(origin)
	if err != nil {
		return "Its address is not valid."
	}
	for _, name := range []string{"registration_endpoint", "auth_endpoint"} {
		to, err := base.Parse(scalar(doc, name))
		switch {
		case err != nil || to.User != nil:
			return "The " + name + " of its discovery document is not valid."
		case originOf(to) != origin:
			return "The " + name + " of its discovery document is at another origin, which is refused: a service speaks for itself only."
		}
		if _, ok := endpointAt(origin, scalar(doc, name)); !ok { // as when registering
			return "The " + name + " of its discovery document is not a plain path."
		}
	}
	return ""
}
