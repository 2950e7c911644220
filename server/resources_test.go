package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// reader is a client of a rig, in an era and over a transport.
type reader struct {
	name, era string
	*mcpclient.Client
}

// readers connects a client over every transport in both eras, each to a rig of
// its own.
func readers(t *testing.T, rigOf func(t *testing.T) *rig, do func(t *testing.T, r *rig, c reader)) {
	t.Helper()
	header := map[string]string{"Authorization": "Bearer " + bearer}
	for name, connect := range map[string]func(r *rig, era string, o ...mcpclient.ClientOption) *mcpclient.Client{
		"in process": func(r *rig, era string, o ...mcpclient.ClientOption) *mcpclient.Client {
			return must(mcpclient.NewInProcessClientWithOptions(r.MCP(), o...))
		},
		"streamable HTTP": func(r *rig, era string, o ...mcpclient.ClientOption) *mcpclient.Client {
			options := []transport.StreamableHTTPCOption{transport.WithHTTPHeaders(header)}
			if era == legacy {
				options = append(options, transport.WithContinuousListening()) //nolint:staticcheck // a client of that era has nothing else
			}
			return mcpclient.NewClient(must(transport.NewStreamableHTTP(r.serve()+"/mcp", options...)), o...)
		},
		"SSE": func(r *rig, era string, o ...mcpclient.ClientOption) *mcpclient.Client {
			return mcpclient.NewClient(must(transport.NewSSE(r.serve()+"/sse", transport.WithHeaders(header))), o...)
		},
		"stdio": func(r *rig, era string, o ...mcpclient.ClientOption) *mcpclient.Client {
			c := r.openStdio(context.Background())
			return mcpclient.NewClient(transport.NewIO(c.reader(), c.in, http.NoBody), o...)
		},
	} {
		for _, era := range []string{legacy, modern} {
			if name == "SSE" && era == modern {
				continue
			}
			t.Run(name+" "+era, func(t *testing.T) {
				r := rigOf(t)
				c := reader{name, era, connect(r, era, mcpclient.WithProtocolVersion(era))}
				t.Cleanup(func() { c.Close() })
				if err := c.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Initialize(t.Context(), mcp.InitializeRequest{}); err != nil {
					t.Fatal(err)
				}
				if got := c.ProtocolVersion(); got != era {
					t.Fatalf("protocol version: got %s, want %s", got, era)
				}
				do(t, r, c)
			})
		}
	}
}

// read returns the JSON of a resource.
func (c reader) read(t *testing.T, uri string) (got map[string]any, err error) {
	t.Helper()
	req := mcp.ReadResourceRequest{}
	req.Params.URI = uri
	res, err := c.ReadResource(t.Context(), req)
	if err != nil {
		return nil, err
	}
	if len(res.Contents) != 1 {
		t.Fatalf("%s: got %d contents, want one", uri, len(res.Contents))
	}
	text, ok := res.Contents[0].(mcp.TextResourceContents)
	if !ok || text.MIMEType != "application/json" {
		t.Fatalf("%s: got %+v, want JSON", uri, res.Contents[0])
	}
	if err := json.Unmarshal([]byte(text.Text), &got); err != nil {
		t.Fatalf("%s: %v in %s", uri, err, text.Text)
	}
	got["uri"] = text.URI
	return got, nil
}

func TestResourcesSayWhatIsStored(t *testing.T) {
	readers(t, func(t *testing.T) *rig { return newRig(t, nowhere) }, func(t *testing.T, r *rig, c reader) {
		hello := c.GetServerCapabilities()
		if hello.Resources == nil || !hello.Resources.ListChanged || hello.Resources.Subscribe || hello.Prompts == nil || hello.Prompts.ListChanged || hello.Completions == nil {
			t.Errorf("capabilities: got %+v, want resources that change and cannot be subscribed to, prompts, completions", hello)
		}
		list, err := c.ListResources(t.Context(), mcp.ListResourcesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var uris []string
		for _, l := range list.Resources {
			uris = append(uris, l.URI)
			if l.Title == "" || l.Description == "" || l.MIMEType != "application/json" || l.Annotations == nil || l.Annotations.Priority == nil {
				t.Errorf("%s: got %+v, want a title, a description, a type and a priority", l.URI, l)
			}
			if _, err := c.read(t, l.URI); err != nil {
				t.Errorf("%s is listed, and cannot be read: %v", l.URI, err)
			}
		}
		for _, want := range []string{"enlist://credentials", "enlist://credentials/lona/my-agent", "enlist://services/agentdoor", "enlist://services/lona"} {
			if !slices.Contains(uris, want) {
				t.Errorf("resources: got %q, want %s among them", uris, want)
			}
		}
		templates, err := c.ListResourceTemplates(t.Context(), mcp.ListResourceTemplatesRequest{})
		if err != nil || len(templates.ResourceTemplates) != 2 {
			t.Fatalf("templates: got %+v, %v", templates, err)
		}
		all, err := c.read(t, "enlist://credentials")
		if err != nil || len(all["credentials"].([]any)) != 1 || all["next_step"] == "" {
			t.Errorf("credentials: got %v, %v", all, err)
		}
		for _, uri := range []string{"enlist://credentials/lona/my-agent", "enlist://credentials/lona%2Fmy-agent", "enlist://credentials/lona%2fmy%2Dagent"} {
			one, err := c.read(t, uri)
			if err != nil || one["handle"] != "lona/my-agent" || one["state"] != "active" || one["expires_at"] != "2026-03-08T12:00:00Z" || one["uri"] != "enlist://credentials/lona/my-agent" {
				t.Errorf("%s: got %v, %v", uri, one, err)
			}
		}
		lona, err := c.read(t, "enlist://services/lona")
		if err != nil || lona["tool"] != "lona_register_agent" || lona["setting"] != "LONA_GATEWAY_URL" || lona["origin"] != nowhere || len(lona["routes"].([]any)) == 0 {
			t.Errorf("lona: got %v, %v", lona, err)
		}
		r.completes(t, c)
	})
}

// completes checks what is offered for what was typed.
func (r *rig) completes(t *testing.T, c reader) {
	t.Helper()
	for _, tc := range []struct {
		ref             any
		argument, value string
		want            []string
	}{
		{mcp.ResourceReference{Type: "ref/resource", URI: "enlist://credentials/{handle}"}, "handle", "LONA/", []string{"lona/my-agent"}},
		{mcp.ResourceReference{Type: "ref/resource", URI: "enlist://services/{protocol}"}, "protocol", "l", []string{"lithtrix", "lona", "lumina"}},
		{mcp.ResourceReference{Type: "ref/resource", URI: "enlist://services/{protocol}"}, "nothing", "l", []string{}},
		{mcp.PromptReference{Type: "ref/prompt", Name: "sign-up"}, "service", "f", []string{"fluxra"}},
		{mcp.PromptReference{Type: "ref/prompt", Name: "recover-account"}, "credential", "", []string{"lona/my-agent"}},
		{mcp.PromptReference{Type: "ref/prompt", Name: "recover-account"}, "credential", "x", []string{}},
	} {
		req := mcp.CompleteRequest{}
		req.Params.Ref, req.Params.Argument = tc.ref, mcp.CompleteArgument{Name: tc.argument, Value: tc.value}
		got, err := c.Complete(t.Context(), req)
		if err != nil || !slices.Equal(got.Completion.Values, tc.want) {
			t.Errorf("%v %s %q: got %+v, %v, want %q", tc.ref, tc.argument, tc.value, got, err, tc.want)
		}
	}
}

func TestAResourceThatIsNotThere(t *testing.T) {
	readers(t, func(t *testing.T) *rig { return newRig(t, nowhere) }, func(t *testing.T, _ *rig, c reader) {
		for uri, want := range map[string]string{
			"enlist://credentials/lona/nobody":                           "list_credentials",
			"enlist://credentials/" + strings.Repeat("x", 5000):          "list_credentials",
			"enlist://credentials/%zz":                                   "resources/list",
			"enlist://services/nova":                                     "resources/list",
			"https://example.com/" + strings.Repeat("x", 5000):           "resources/list",
			"enlist://credentials/" + storedToken:                        "list_credentials",
			"enlist://credentials/lona/my-agent/../../../secrets/no-one": "list_credentials",
		} {
			_, err := c.read(t, uri)
			if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 || strings.Contains(err.Error(), "xxxx") || strings.Contains(err.Error(), "SecretKeyHere") {
				t.Errorf("%.60s: got %v, want few words with %q", uri, err, want)
			}
			notFound := errors.Is(err, mcp.ErrResourceNotFound)
			if c.era == modern {
				notFound = errors.Is(err, mcp.ErrInvalidParams)
			}
			if !notFound {
				t.Errorf("%.60s: got %v, want the error of its revision for what is not there", uri, err)
			}
		}
	})
}

// What another origin issued is named with its host.
func TestAHandleWithAHostIsRead(t *testing.T) {
	const handle = "lona/my-agent@127.0.0.1:8443"
	readers(t, func(t *testing.T) *rig {
		r := newRig(t, nowhere)
		r.put("https://127.0.0.1:8443", "my-agent")
		r.put("https://127.0.0.1:8443", "other")
		return r
	}, func(t *testing.T, _ *rig, c reader) {
		for uri, want := range map[string]string{
			"enlist://credentials/" + handle:                                handle,
			"enlist://credentials/lona%2Fmy-agent%40127.0.0.1%3A8443":       handle,
			"enlist://credentials/lona/my-agent":                            "lona/my-agent",
			"enlist://credentials/lona/other":                               "lona/other@127.0.0.1:8443",
			"enlist://credentials/lona%2fother":                             "lona/other@127.0.0.1:8443",
			"enlist://credentials/" + "lona/other%40127.0.0.1:8443":         "lona/other@127.0.0.1:8443",
			"enlist://credentials/" + "lona/%6Fther@127.0.0.1:%38%34%34%33": "lona/other@127.0.0.1:8443",
		} {
			if got, err := c.read(t, uri); err != nil || got["handle"] != want || got["uri"] != "enlist://credentials/"+want {
				t.Errorf("%s: got %v, %v, want %s", uri, got, err, want)
			}
		}
	})
}

// put stores another credential.
func (r *rig) put(origin, agent string) {
	r.t.Helper()
	err := r.store.Put(r.t.Context(), credstore.Credential{
		Secret: credstore.NewSecret("lona_partner_" + agent + "_abc123xyz456_OneMoreSecret"),
		Info: credstore.Info{
			State: credstore.StateActive,
			Key:   credstore.Key{Protocol: "lona", Origin: origin, Agent: agent, Kind: credstore.KindToken},
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// A secret that got where none belongs leaves neither by a resource, nor by a
// list of them, nor by a prompt or a completion.
func TestNoSecretLeavesByAResourceOrAPrompt(t *testing.T) {
	readers(t, func(t *testing.T) *rig {
		r := newRig(t, nowhere)
		r.put(nowhere, "a-"+settingSecret) // as if a service had given it as a name
		return r
	}, func(t *testing.T, r *rig, c reader) {
		req := mcp.GetPromptRequest{}
		req.Params.Name = "recover-account"
		req.Params.Arguments = map[string]string{"credential": storedToken, "email": settingSecret}
		prompt, err := c.GetPrompt(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		// The setting is no secret of the store; the token is, and the shape of one.
		if got := mcp.GetTextFromContent(prompt.Messages[0].Content); strings.Contains(got, "SecretKeyHere") {
			t.Errorf("prompt: got %s", got)
		}
	})
	r := newRig(t, nowhere)
	err := r.store.Put(t.Context(), credstore.Credential{
		Secret: credstore.NewSecret("no-shape-of-its-own-0123456789"),
		Info: credstore.Info{
			State: credstore.StateActive,
			Key:   credstore.Key{Protocol: "lona", Origin: nowhere, Agent: "no-shape-of-its-own-0123456789", Kind: credstore.KindToken},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := r.pipe(strings.Join([]string{
		message(1, "initialize", initialize), message(nil, "notifications/initialized", ""),
		message(2, "resources/list", ""),
		message(3, "resources/read", `"uri":"enlist://credentials"`),
		message(4, "resources/read", `"uri":"enlist://credentials/lona/no-shape-of-its-own-0123456789"`),
		message(5, "completion/complete", `"ref":{"type":"ref/prompt","name":"recover-account"},"argument":{"name":"credential","value":""}`),
		message(6, "prompts/get", `"name":"recover-account","arguments":{"credential":"lona/no-shape-of-its-own-0123456789"}`),
	}, "\n") + "\n")
	if len(c) != 6 {
		t.Errorf("got %d answers, want 6", len(c))
	}
	for _, m := range c {
		if m.Error != nil {
			t.Errorf("%v: got %+v", m.ID, m.Error)
		}
	}
	if text := r.written(); strings.Contains(text, "no-shape-of-its-own-0123456789") {
		t.Errorf("the secret was written: %s", text)
	} else if !strings.Contains(text, "bug_id") {
		t.Error("that a secret was there was not logged")
	}
}

func TestOnlyTheChosenServicesHaveResources(t *testing.T) {
	readers(t, func(t *testing.T) *rig {
		return newRigWith(t, server.Config{Tools: tools.Selection{Services: []string{"fluxra"}, ReadOnly: true}}, nowhere)
	}, func(t *testing.T, _ *rig, c reader) {
		list, err := c.ListResources(t.Context(), mcp.ListResourcesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var uris []string
		for _, l := range list.Resources {
			uris = append(uris, l.URI)
		}
		if want := []string{"enlist://credentials", "enlist://services/fluxra"}; !slices.Equal(uris, want) {
			t.Errorf("got %q, want %q", uris, want)
		}
		for _, uri := range []string{"enlist://credentials/lona/my-agent", "enlist://services/lona"} {
			if got, err := c.read(t, uri); err == nil {
				t.Errorf("%s: got %v", uri, got)
			}
		}
		page, err := c.read(t, "enlist://services/fluxra")
		if err != nil || page["tool"] != nil || !strings.Contains(page["next_step"].(string), "--read-only") {
			t.Errorf("fluxra: got %v, %v, want no tool that registers", page, err)
		}
	})
}

// While the store hangs, what needs it says so, and the rest answers.
func TestResourcesWhileTheStoreHangs(t *testing.T) {
	r := newRig(t, nowhere)
	c := r.openStdio(t.Context())
	c.send(message(1, "initialize", initialize), message(nil, "notifications/initialized", ""))
	c.next()
	r.store.hangs.Store(true)
	c.send(message(2, "resources/list", ""), message(3, "ping", ""))
	if got := c.next(); got.ID != 3.0 {
		t.Errorf("got %+v, want the ping answered first", got)
	}
	if got := c.next(); got.ID != 2.0 || got.Error != nil || !strings.Contains(r.written(), "enlist://services/lona") {
		t.Errorf("list: got %+v, want the resources that need no store", got)
	}
	r.store.hangs.Store(false)
	c.in.Close()
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
}
