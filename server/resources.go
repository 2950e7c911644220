package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/tools"
)

const (
	// steady is for how long what changes with a new start only may be kept, in
	// milliseconds.
	steady = 5 * 60 * 1000
	// maxCompletions is how many values the protocol allows.
	maxCompletions = 100
	jsonType       = "application/json"

	credentialTemplate = tools.CredentialURIPrefix + "{" + tools.HandleVariable + "}"
	serviceTemplate    = tools.ServiceURIPrefix + "{" + tools.ProtocolVariable + "}"
)

// resources is what a client can read and start from beside the tools.
type resources struct {
	server *Server
	deps   tools.Deps
	watch  *watch
}

// options are those of the MCP server.
func (r *resources) options(hooks *mcpserver.Hooks) []mcpserver.ServerOption {
	hooks.AddBeforeReadResource(r.locate)
	hooks.AddAfterReadResource(r.kept)
	hooks.AddAfterListResources(r.list)
	hooks.AddBeforeGetPrompt(shorten)
	r.watch.hook(hooks)
	return []mcpserver.ServerOption{
		// Subscriptions to one resource mcp-go only acknowledges: nothing would
		// come of them.
		mcpserver.WithResourceCapabilities(false, true),
		mcpserver.WithPromptCapabilities(false),
		mcpserver.WithCompletions(),
		mcpserver.WithResourceCompletionProvider(r),
		mcpserver.WithPromptCompletionProvider(r),
		mcpserver.WithResourceHandlerMiddleware(r.reads),
		mcpserver.WithPromptHandlerMiddleware(r.prompts),
		mcpserver.WithToolHandlerMiddleware(r.watch.changes),
		// These are the same for everybody; what is stored is a person's own.
		mcpserver.WithCacheHints(0, mcp.CacheScopePrivate),
		mcpserver.WithMethodCacheHints(mcp.MethodToolsList, steady, mcp.CacheScopePublic),
		mcpserver.WithMethodCacheHints(mcp.MethodPromptsList, steady, mcp.CacheScopePublic),
		mcpserver.WithMethodCacheHints(mcp.MethodResourcesTemplatesList, steady, mcp.CacheScopePublic),
	}
}

// add adds the resources and the prompts. What depends on what is stored is made
// when it is asked for.
func (r *resources) add(s *mcpserver.MCPServer) {
	var all []mcpserver.ServerResource
	all = append(all, mcpserver.ServerResource{Handler: r.read, Resource: mcp.NewResource(tools.CredentialsURI, "credentials",
		mcp.WithResourceTitle("Stored credentials"),
		mcp.WithResourceDescription("The stored credentials as list_credentials has them: handle, service, agent, state, expiry; never a key."),
		mcp.WithMIMEType(jsonType),
		mcp.WithAnnotations([]mcp.Role{mcp.RoleUser, mcp.RoleAssistant}, 1, ""),
	)})
	for _, name := range r.deps.Offered() {
		all = append(all, mcpserver.ServerResource{Handler: r.read, Resource: mcp.NewResource(tools.ServiceURIPrefix+name, "services/"+name,
			mcp.WithResourceTitle("How "+name+" registers agents"),
			mcp.WithResourceDescription("What it asks for, which tool registers there, the routes to use then, and where it is set."),
			mcp.WithMIMEType(jsonType),
			mcp.WithAnnotations([]mcp.Role{mcp.RoleAssistant}, 0.3, ""),
		)})
	}
	s.AddResources(all...)
	s.AddResourceTemplates(
		mcpserver.ServerResourceTemplate{Handler: r.read, Template: mcp.NewResourceTemplate(credentialTemplate, "credential",
			mcp.WithTemplateTitle("A stored credential"),
			mcp.WithTemplateDescription("One credential by its handle: state, why it is so, what to do about it, expiry; never a key."),
			mcp.WithTemplateMIMEType(jsonType),
			mcp.WithTemplateAnnotations([]mcp.Role{mcp.RoleUser, mcp.RoleAssistant}, 0.7, ""),
		)},
		mcpserver.ServerResourceTemplate{Handler: r.read, Template: mcp.NewResourceTemplate(serviceTemplate, "service",
			mcp.WithTemplateTitle("How a service registers agents"),
			mcp.WithTemplateDescription("By its protocol: what it asks for, which tool registers there, the routes to use then, and where it is set."),
			mcp.WithTemplateMIMEType(jsonType),
			mcp.WithTemplateAnnotations([]mcp.Role{mcp.RoleAssistant}, 0.3, ""),
		)},
	)
	r.addPrompts(s)
}

// locate is called before a resource is read. It puts the address in the one way
// that the resource is registered by: a handle may come percent-encoded or as it
// is, which one template cannot match. Of a resource that is not there it makes
// an address that nothing matches, which says why: the error of the protocol for
// that comes from nowhere but from mcp-go, and would repeat what was asked for.
func (r *resources) locate(ctx context.Context, _ any, req *mcp.ReadResourceRequest) {
	defer r.recovered(ctx, "resources/read")
	if ofTheSuite(req.Params.URI) {
		return
	}
	if strings.HasPrefix(req.Params.URI, tools.CredentialsURI) {
		r.server.waitStarted(ctx) // it may be about what is being registered
	}
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	uri, err := r.deps.Locate(ctx, req.Params.URI)
	switch {
	case errors.Is(err, tools.ErrNoCredentialThere):
		uri = credentialTemplate + ": " + err.Error()
	case errors.Is(err, tools.ErrNoServiceThere):
		uri = serviceTemplate + ": " + err.Error()
	case errors.Is(err, tools.ErrNoResource):
		uri = "enlist://…: " + err.Error()
	case err != nil:
		// The store cannot be read; the handler finds that, too, and may say so.
		uri = tools.CredentialURIPrefix + "-"
	default:
		if handle, ok := strings.CutPrefix(uri, tools.CredentialURIPrefix); ok {
			uri = tools.CredentialURIPrefix + strings.ReplaceAll(url.QueryEscape(handle), "+", "%20")
		}
	}
	req.Params.URI = uri
}

// read is the handler of every resource.
func (r *resources) read(ctx context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
	uri, err := r.deps.Locate(ctx, req.Params.URI)
	if err != nil {
		return nil, r.deps.Told(err)
	}
	text, err := r.deps.ReadText(ctx, uri)
	if err != nil {
		return nil, err
	}
	return []mcp.ResourceContents{mcp.TextResourceContents{URI: uri, MIMEType: jsonType, Text: text}}, nil
}

// reads stands around the handlers of resources as the middlewares of tools do
// around theirs: it bounds them, lets no panic and no secret out, and logs them.
func (r *resources) reads(next mcpserver.ResourceHandlerFunc) mcpserver.ResourceHandlerFunc {
	return func(ctx context.Context, req mcp.ReadResourceRequest) (out []mcp.ResourceContents, err error) {
		if ofTheSuite(req.Params.URI) {
			return next(ctx, req)
		}
		defer func() {
			if p := recover(); p != nil {
				out, err = nil, errors.New("internal error "+r.server.panicked(ctx, p, "resource", req.Params.URI))
			}
		}()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		began := r.server.now()
		out, err = next(ctx, req)
		r.server.log.InfoContext(ctx, "resource read", "failed", err != nil, "took", r.server.now().Sub(began))
		if err != nil {
			return nil, errors.New(r.server.redact.all(ctx, err.Error()))
		}
		for n, c := range out {
			text, ok := c.(mcp.TextResourceContents)
			if !ok {
				return nil, errors.New("internal error " + r.server.bug(ctx, "a resource is no text"))
			}
			text.URI = masked(ctx, r.server.redact, text.URI, "a secret was in the address of a resource; it was replaced")
			text.Text = masked(ctx, r.server.redact, text.Text, "a secret was in a resource; it was replaced")
			out[n] = text
		}
		return out, nil
	}
}

// masked returns text without secrets, and logs a bug where there was one.
func masked(ctx context.Context, r *redactor, text, found string) string {
	clean := r.all(ctx, text)
	if clean != text {
		r.bug(ctx, found)
	}
	return clean
}

// recovered keeps a panic of a hook from the client.
func (r *resources) recovered(ctx context.Context, where string) {
	if p := recover(); p != nil {
		r.server.panicked(ctx, p, "where", where)
	}
}

// kept says of a page about a service that it may be kept for a while.
func (r *resources) kept(_ context.Context, _ any, req *mcp.ReadResourceRequest, res *mcp.ReadResourceResult) {
	if strings.HasPrefix(req.Params.URI, tools.ServiceURIPrefix) {
		res.SetCacheHints(steady, mcp.CacheScopePrivate)
	}
}

// list adds the stored credentials to the list of the resources. Where they
// cannot be read in a moment the list goes without them: reading
// enlist://credentials says why.
func (r *resources) list(ctx context.Context, _ any, req *mcp.ListResourcesRequest, res *mcp.ListResourcesResult) {
	defer r.recovered(ctx, "resources/list")
	if req.Params.Cursor != "" {
		return
	}
	handles, err := r.watch.look(ctx)
	if err != nil {
		r.server.log.WarnContext(ctx, "the stored credentials could not be listed as resources", "error", r.server.redact.text(err.Error()))
		return
	}
	var all []mcp.Resource
	for _, handle := range handles {
		all = append(all, mcp.NewResource(tools.CredentialURIPrefix+handle, "credentials/"+handle,
			mcp.WithResourceTitle("Credential "+handle),
			mcp.WithResourceDescription("Its state, why it is so, what to do about it, and its expiry; never a key."),
			mcp.WithMIMEType(jsonType),
			mcp.WithAnnotations([]mcp.Role{mcp.RoleUser, mcp.RoleAssistant}, 0.7, ""),
		))
	}
	if len(all) == 0 {
		return
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return
	}
	if clean := masked(ctx, r.server.redact, string(raw), "a secret was in the list of the resources; it was replaced"); clean != string(raw) {
		all = nil
		if json.Unmarshal([]byte(clean), &all) != nil {
			return
		}
	}
	res.Resources = append(slices.Clone(res.Resources), all...)
}

// CompleteResourceArgument implements [mcpserver.ResourceCompletionProvider].
func (r *resources) CompleteResourceArgument(ctx context.Context, uri string, arg mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	switch {
	case uri == credentialTemplate && arg.Name == tools.HandleVariable:
		return r.complete(ctx, r.handles(ctx), arg.Value), nil
	case uri == serviceTemplate && arg.Name == tools.ProtocolVariable:
		return r.complete(ctx, r.deps.Offered(), arg.Value), nil
	}
	return &mcp.Completion{}, nil
}

// handles lists those that are stored, in a moment or not at all.
func (r *resources) handles(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	handles, err := r.deps.Handles(ctx)
	if err != nil {
		return nil
	}
	return handles
}

// complete returns those of some values that begin with what was typed. They
// are looked through for secrets like everything that goes out.
func (r *resources) complete(ctx context.Context, values []string, typed string) *mcp.Completion {
	typed = strings.ToLower(typed)
	c := &mcp.Completion{Values: []string{}}
	for _, v := range values {
		if strings.HasPrefix(strings.ToLower(v), typed) {
			c.Total++
			if len(c.Values) < maxCompletions {
				c.Values = append(c.Values, masked(ctx, r.server.redact, v, "a secret was in a completion; it was replaced"))
			}
		}
	}
	c.HasMore = c.Total > len(c.Values)
	return c
}
