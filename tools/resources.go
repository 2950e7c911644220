package tools

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/credstore"
)

// The addresses of what a client can read. A handle or a protocol stands behind
// the slash, as it is or percent-encoded.
const (
	CredentialsURI      = "enlist://credentials" //nolint:gosec // an address, not a credential
	CredentialURIPrefix = CredentialsURI + "/"
	ServiceURIPrefix    = "enlist://services/"
)

// Names of the variables in the templates of the addresses.
const (
	HandleVariable   = "handle"
	ProtocolVariable = "protocol"
)

// Errors of reading a resource that is not there. They say what to do, and
// repeat nothing of what was asked for.
var (
	ErrNoCredentialThere = errors.New("no credential of this handle is stored: read " + CredentialsURI + " or call list_credentials for the handles")
	ErrNoServiceThere    = errors.New("there is no such protocol: read one of the resources that resources/list names")
	ErrNoResource        = errors.New("there is no such resource: resources/list and resources/templates/list name them")
)

// CredentialPage is a stored credential as a resource.
type CredentialPage struct {
	Credential
	Reason   string `json:"reason,omitzero"`
	Remedy   string `json:"remedy,omitzero"`
	StoredIn string `json:"stored_in,omitzero"`
	Service  string `json:"service"` // the resource about the service
}

// ServicePage is a service as a resource: how it registers agents.
type ServicePage struct {
	Protocol  string   `json:"protocol"`
	Origin    string   `json:"origin,omitzero"` // where its tools go to now
	Setting   string   `json:"setting,omitzero"`
	AsksFor   string   `json:"asks_for,omitzero"`
	Tool      string   `json:"tool,omitzero"` // that registers
	Arguments string   `json:"arguments,omitzero"`
	Tools     []string `json:"tools"` // all of the service's own
	Routes    []string `json:"routes,omitzero"`
	// Refused are the routes that send_request does not take, and the tools for
	// them.
	Refused  []RefusedRoute `json:"refused,omitzero"`
	NextStep string         `json:"next_step"`
}

// RefusedRoute is a route that issues or ends a credential.
type RefusedRoute struct {
	Route string `json:"route"`
	Tool  string `json:"tool"`
}

// Offered names the protocols whose tools are offered, sorted.
func (d Deps) Offered() []string {
	var names []string
	for name := range protocols() {
		if d.speaks(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Handles returns the handles of the stored credentials of the services that are
// offered, sorted. It reads the store's list, and no secret.
func (d Deps) Handles(ctx context.Context) ([]string, error) {
	infos, err := d.Client.Lifecycle.List(ctx)
	if err != nil {
		return nil, err
	}
	var handles []string
	for _, i := range infos {
		if d.speaks(i.Protocol) && d.Client.Lifecycle.HasHandle(i.Key) {
			handles = append(handles, d.Client.Lifecycle.Handle(i.Key))
		}
	}
	slices.Sort(handles)
	return slices.Compact(handles), nil
}

// Locate returns the address that a resource goes by. An address may be written
// in many ways: percent-encoded, or with a handle whose suffix is left out. It
// returns one of the errors above where there is no such resource, and another
// where the store cannot be read.
func (d Deps) Locate(ctx context.Context, uri string) (string, error) {
	if uri == CredentialsURI {
		return uri, nil
	}
	if name, ok := decoded(uri, ServiceURIPrefix); ok {
		if slices.Contains(d.Offered(), name) {
			return ServiceURIPrefix + name, nil
		}
		return "", ErrNoServiceThere
	}
	handle, ok := decoded(uri, CredentialURIPrefix)
	if !ok {
		return "", ErrNoResource
	}
	info, err := d.stored(ctx, handle)
	if err != nil {
		return "", err
	}
	return CredentialURIPrefix + d.Client.Lifecycle.Handle(info.Key), nil
}

// decoded returns what stands behind the prefix of an address.
func decoded(uri, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(uri, prefix)
	if !ok {
		return "", false
	}
	name, err := url.PathUnescape(rest)
	return name, err == nil
}

// stored returns the credential of a handle. Unlike a tool's argument the
// address of a resource names something that is listed: no secret is read to
// find it.
func (d Deps) stored(ctx context.Context, handle string) (credstore.Info, error) {
	infos, err := d.Client.Lifecycle.List(ctx)
	if err != nil {
		return credstore.Info{}, err
	}
	var loose []credstore.Info
	for _, i := range infos {
		if !d.speaks(i.Protocol) || !d.Client.Lifecycle.HasHandle(i.Key) {
			continue
		}
		full := d.Client.Lifecycle.Handle(i.Key)
		if full == handle {
			return i, nil
		}
		if bare, _, suffixed := strings.Cut(full, "@"); suffixed && bare == handle {
			loose = append(loose, i)
		}
	}
	if len(loose) != 1 {
		return credstore.Info{}, ErrNoCredentialThere
	}
	return loose[0], nil
}

// Read returns the content of a resource by the address that [Deps.Locate]
// returned.
func (d Deps) Read(ctx context.Context, uri string) (any, error) {
	if uri == CredentialsURI {
		return d.credentialList(ctx)
	}
	if name, ok := decoded(uri, ServiceURIPrefix); ok {
		return d.servicePage(name), nil
	}
	handle, _ := decoded(uri, CredentialURIPrefix)
	info, err := d.stored(ctx, handle)
	if err != nil {
		return nil, err
	}
	s := d.Client.Lifecycle.Standing(ctx, info)
	page := CredentialPage{
		Credential: d.describe(info), Reason: s.Reason, Remedy: s.Remedy, StoredIn: d.storedIn(ctx),
		Service: ServiceURIPrefix + info.Protocol,
	}
	page.State = string(s.Now)
	return page, nil
}

// credentialList is what list_credentials returns.
func (d Deps) credentialList(ctx context.Context) (any, error) {
	res, err := listCredentials(d).Handler(ctx, mcp.CallToolRequest{})
	if err != nil {
		return nil, err
	}
	if f, ok := res.StructuredContent.(Failure); ok {
		return nil, errors.New(f.WhatHappened + " " + f.NextStep)
	}
	return res.StructuredContent, nil
}

// servicePage says how a service registers agents, and what it is good for then.
func (d Deps) servicePage(name string) ServicePage {
	p := protocols()[name]
	page := ServicePage{Protocol: name, Setting: p.setting, AsksFor: p.asks, Routes: p.routes, Tools: []string{}}
	for _, known := range d.Client.All() {
		if known.Wire().Name != name {
			continue
		}
		page.Origin = known.Origin()
		for _, r := range known.Wire().Reserved {
			page.Refused = append(page.Refused, RefusedRoute{Route: strings.TrimSpace(r.Method + " " + r.Path), Tool: r.Tool})
		}
	}
	offered := false
	var own []server.ServerTool
	for _, t := range p.tools {
		own = append(own, t(d))
	}
	for _, t := range d.of(own) {
		page.Tools = append(page.Tools, t.Tool.Name)
		if t.Tool.Name == p.register {
			offered, page.Tool, page.Arguments = true, p.register, usage(argumentsOf(t.Tool))
		}
	}
	slices.Sort(page.Tools)
	switch {
	case offered:
		page.NextStep = "Call list_credentials: if none of " + name + " is usable, call " + p.register + ". Then call send_request with the credential."
	case d.ReadOnly:
		page.NextStep = "Use a credential that is stored, or " + d.toRegister() + "."
	default:
		page.NextStep = "Use a credential that is stored."
	}
	return page
}

// ReadText is [Deps.Read] as indented JSON, with an error that says what to do
// and holds no secret.
func (d Deps) ReadText(ctx context.Context, uri string) (string, error) {
	page, err := d.Read(ctx, uri)
	if err != nil {
		return "", d.Told(err)
	}
	raw, err := json.MarshalIndent(page, "", "  ")
	return string(raw), err
}

// Told returns an error of a resource in words for a model.
func (d Deps) Told(err error) error {
	for _, known := range []error{ErrNoCredentialThere, ErrNoServiceThere, ErrNoResource} {
		if errors.Is(err, known) {
			return known
		}
	}
	if f, ok := d.explainStore(spec{name: "list_credentials"}, err); ok {
		return errors.New(f.WhatHappened + " " + f.NextStep)
	}
	return errors.New(d.ours(err))
}
