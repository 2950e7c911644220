package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agentDoorDocument is what counts of a service's discovery document.
type agentDoorDocument struct {
	register, auth    string // paths
	scopes            []agentDoorScope
	network, currency string // of its payments; "": it did not say
}

type agentDoorScope struct {
	id    string
	price string // "": it costs nothing
}

// agentDoorPath matches an endpoint: a path that is what it looks like.
var agentDoorPath = wire.NewPattern(`^(/[A-Za-z0-9._~-]+)+/?$`)

// discover reads the discovery document of a service. Nothing is sent with the
// request that says who asks.
func (a *AgentDoor) discover(ctx context.Context, origin string) (agentDoorDocument, error) {
	op := call{protocol: wire.AgentDoorName, origin: origin, op: "read the discovery document"}
	var d agentDoorDocument
	u, err := url.Parse(origin + wire.AgentDoorDiscoveryPath)
	if err != nil {
		return d, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	answer, err := a.http.exchange(ctx, op, message{method: http.MethodGet, url: u}, nil, true)
	if err != nil {
		return d, err
	}
	var fields map[string]json.RawMessage
	if err := a.http.decode(op, answer, &fields); err != nil {
		return d, err
	}
	if v := scalar(fields, "agentdoor_version"); v != "" && v != "1" && !strings.HasPrefix(v, "1.") {
		return d, op.unreadable(answer, "the service speaks a version of the protocol that Enlist does not know")
	}
	var methods []string
	if json.Unmarshal(fields["auth_methods"], &methods) == nil && len(methods) > 0 &&
		!slices.ContainsFunc(methods, func(m string) bool { return strings.Contains(fold(m), "ed25519") }) {
		return d, op.unreadable(answer, "the service takes no Ed25519 key pair, which is the only proof that Enlist has")
	}
	for name, to := range map[string]*string{"registration_endpoint": &d.register, "auth_endpoint": &d.auth} {
		path, ok := endpointAt(origin, scalar(fields, name))
		if !ok {
			return d, op.unreadable(answer, "its "+name+" is missing, or not a plain path at the service itself")
		}
		*to = path
	}
	d.scopes = agentDoorScopes(fields["scopes_available"])
	var payment map[string]json.RawMessage
	if json.Unmarshal(fields["payment"], &payment) == nil {
		d.network, d.currency = firstOf(payment, "networks", "network"), firstOf(payment, "currency", "currencies")
	}
	return d, nil
}

// endpointAt returns the path of an endpoint that a document names, unless it
// is anywhere but at the origin of the document: what is sent there would go
// somewhere else than to the service that was asked for.
func endpointAt(origin, said string) (string, bool) {
	path := strings.TrimPrefix(said, origin)
	return path, len(path) <= 128 && agentDoorPath.MatchString(path) && refusePath(path) == ""
}

// agentDoorScopes reads a list of scopes, and of each what can be read.
func agentDoorScopes(raw json.RawMessage) []agentDoorScope {
	var list []map[string]json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	var scopes []agentDoorScope
	for _, fields := range list {
		if id := scalar(fields, "id"); presentable(id, 1) && len(id) <= maxScope && len(scopes) < maxScopesAsked {
			scopes = append(scopes, agentDoorScope{id, priceOf(fields["price"])})
		}
	}
	return scopes
}

// priceOf returns what something costs, in the service's words, or "" where
// that is nothing.
func priceOf(raw json.RawMessage) string {
	var price string
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if json.Unmarshal(raw, &price) != nil {
		price = string(raw)
	}
	price = strings.TrimSpace(price)
	if strings.EqualFold(price, "free") || strings.Contains(price, "0") && !strings.ContainsAny(price, "123456789") {
		return ""
	}
	return price
}

// firstOf returns the first string of the named fields, each a string or a list.
func firstOf(fields map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		var list []string
		if json.Unmarshal(fields[name], &list) == nil && len(list) > 0 {
			return list[0]
		}
	}
	return scalar(fields, names...)
}

// choose returns the scopes to ask for: what was asked for, or all that cost
// nothing.
func (a *AgentDoor) choose(ctx context.Context, origin string, d agentDoorDocument, asked []string) ([]string, error) {
	op := call{protocol: wire.AgentDoorName, origin: origin, op: "choose the scopes"}
	var scopes []string
	for _, s := range d.scopes {
		if len(asked) == 0 && s.price == "" && !slices.Contains(scopes, s.id) {
			scopes = append(scopes, s.id)
		}
	}
	why := errors.New("no scope of the service is free of charge; Enlist does not pay, so one with a price must be asked for by its id")
	if len(d.scopes) == 0 {
		why = errors.New("the service offers no scope")
	}
	for _, id := range asked {
		switch {
		case !slices.ContainsFunc(d.scopes, func(s agentDoorScope) bool { return s.id == id }):
			why = fmt.Errorf("the service has no scope %s", clip(id))
			return nil, a.noScope(ctx, op, d, why)
		case !slices.Contains(scopes, id):
			scopes = append(scopes, id)
		}
	}
	if len(scopes) == 0 {
		return nil, a.noScope(ctx, op, d, why)
	}
	return scopes, nil
}

// noScope returns the Error for scopes that cannot be had, with those that can
// as the service's words.
func (a *AgentDoor) noScope(ctx context.Context, op call, d agentDoorDocument, why error) *Error {
	var list []string
	for _, s := range d.scopes {
		text := s.id
		if s.price != "" {
			text += " (" + s.price + ")"
		}
		list = append(list, text)
	}
	e := op.fail(CodeNoScope, why)
	if list != nil {
		e.Message = a.http.scrub.Said(ctx, "scopes_available: "+strings.Join(list, ", "))
	}
	return e
}
