package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// comesAtOnce is how long a test waits for what should come at once.
const comesAtOnce = 20 * time.Second

// clientCases are the ways in which a client speaks to Enlist: each transport,
// in every revision of the protocol that has it.
func clientCases() []clientCase {
	var all []clientCase
	for transport, revisions := range map[string][]string{
		"stdio": {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"},
		"http":  {"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"},
		"sse":   {"2024-11-05", "2025-11-25"},
	} {
		for _, revision := range revisions {
			all = append(all, clientCase{transport, revision})
		}
	}
	return all
}

type clientCase struct{ transport, revision string }

// elicits reports whether a client that says so can be asked, in whatever
// revision: plain SSE has no way for it.
func (c clientCase) elicits() bool { return c.transport != "sse" }

// world is what a client under test is put into: a gateway with two more routes,
// and a home where the person wants to be asked before an agent registers at Lona.
type world struct {
	gateway *gatewaytest.Gateway
	home    string
	server  mcpServer // where there is one
}

func newWorld(t *testing.T, c clientCase) *world {
	t.Helper()
	w := &world{home: t.TempDir()}
	w.gateway = gatewaytest.New(t, gatewaytest.Config(func(c *embeddedgateway.Config) { c.Wrap = slowRoutes() }))
	if err := os.MkdirAll(filepath.Join(w.home, "enlist"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.home, "enlist", "policy.toml"), []byte("register = \"ask\"\n[[for]]\nservice = \"lithtrix\"\nregister = \"allow\"\n"))
	if c.transport != "stdio" {
		w.server = serveMCP(t, "enlist", w.home, w.env())
	}
	return w
}

func (w *world) env() []string {
	return []string{"LONA_GATEWAY_URL=" + w.gateway.URL, "LITHTRIX_API_URL=" + w.gateway.URL}
}

// slowRoutes puts routes before a gateway that never hurry: /slow sends the
// beginning of an answer, and the rest when /release is asked for. /gone answers
// when somebody has hung up on /slow.
func slowRoutes() func(http.Handler) http.Handler {
	release, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/slow":
				if r.Header.Get("Authorization") == "" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				_, _ = io.WriteString(w, strings.Repeat("a", 1000))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-release:
					_, _ = io.WriteString(w, "the end")
				case <-r.Context().Done():
					gone <- struct{}{}
				}
			case "/release":
				release <- struct{}{}
			case "/gone":
				select {
				case <-gone:
				case <-r.Context().Done():
				}
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// keepsSecrets fails the test if a secret is in what a client received.
func (w *world) keepsSecrets(t *testing.T, received string) {
	t.Helper()
	secrets := w.gateway.Secrets()
	if len(secrets) == 0 || received == "" {
		t.Errorf("got %d secrets issued and %d bytes received, want some of both", len(secrets), len(received))
	}
	for _, secret := range secrets {
		if strings.Contains(received, secret) {
			t.Errorf("the client received a secret: %.12s…", secret)
		}
	}
}

// TestTheGoSDK has a client on the official Go SDK do what an agent does.
func TestTheGoSDK(t *testing.T) {
	t.Parallel()
	for _, c := range clientCases() {
		t.Run(c.transport+" "+c.revision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			g := connectGo(t, c, w)
			g.looksAround()
			g.registers()
			g.waits()
			if err := g.session.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			w.keepsSecrets(t, g.received.String())
			keepForScan(t, w.home)
		})
	}
}

// goClient is a client on the official Go SDK.
type goClient struct {
	clientCase
	t        *testing.T
	world    *world
	session  *mcp.ClientSession
	received *tape
	progress chan *mcp.ProgressNotificationParams

	mu    sync.Mutex
	asked []string
}

// tape keeps what was received.
type tape struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *tape) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// bearer sends the token, and keeps what comes back.
type bearer struct {
	token    string
	received io.Writer
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_ = resp.Header.Write(b.received)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(resp.Body, b.received), resp.Body}
	return resp, nil
}

func connectGo(t *testing.T, c clientCase, w *world) *goClient {
	t.Helper()
	g := &goClient{clientCase: c, t: t, world: w, received: new(tape), progress: make(chan *mcp.ProgressNotificationParams, 100)}
	client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.8.0"}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{},
		ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.asked = append(g.asked, r.Params.Message)
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{}}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) { g.progress <- r.Params },
	})
	var transport mcp.Transport
	httpClient := &http.Client{Transport: bearer{w.server.token, g.received}}
	switch c.transport {
	case "stdio":
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "enlist", "mcp")
		cmd.Env = homeEnv(w.home, w.env()...)
		transport = &mcp.LoggingTransport{Transport: &mcp.CommandTransport{Command: cmd}, Writer: g.received}
	case "http":
		transport = &mcp.StreamableClientTransport{Endpoint: w.server.url + "/mcp", HTTPClient: httpClient}
	case "sse":
		transport = &mcp.SSEClientTransport{Endpoint: w.server.url + "/sse", HTTPClient: httpClient}
	}
	var err error
	g.session, err = client.Connect(t.Context(), transport, &mcp.ClientSessionOptions{ProtocolVersion: c.revision})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// looksAround lists what there is.
func (g *goClient) looksAround() {
	g.t.Helper()
	hello := g.session.InitializeResult()
	if hello.ProtocolVersion != g.revision || hello.ServerInfo == nil || hello.ServerInfo.Name != "enlist" || hello.Instructions == "" {
		g.t.Errorf("got %+v, want enlist in revision %s", hello, g.revision)
	}
	var names []string
	for tool, err := range g.session.Tools(g.t.Context(), nil) {
		if err != nil {
			g.t.Fatal(err)
		}
		names = append(names, tool.Name)
		if tool.Description == "" || tool.InputSchema == nil || tool.OutputSchema == nil || tool.Annotations == nil {
			g.t.Errorf("%s: got %+v, want everything that a client shows", tool.Name, tool)
		}
	}
	for _, want := range []string{"list_credentials", "lona_register_agent", "send_request"} {
		if !slices.Contains(names, want) {
			g.t.Errorf("got the tools %v, want %s", names, want)
		}
	}
	if hello.Capabilities.Resources != nil {
		for resource, err := range g.session.Resources(g.t.Context(), nil) {
			if err != nil {
				g.t.Fatal(err)
			}
			if _, err := g.session.ReadResource(g.t.Context(), &mcp.ReadResourceParams{URI: resource.URI}); err != nil {
				g.t.Errorf("%s: %v", resource.URI, err)
			}
		}
	}
	if hello.Capabilities.Prompts != nil {
		for prompt, err := range g.session.Prompts(g.t.Context(), nil) {
			if err != nil || prompt.Name == "" {
				g.t.Errorf("prompts: got %+v, %v", prompt, err)
			}
		}
	}
}

// call calls a tool, and returns its structured result.
func (g *goClient) call(ctx context.Context, tool string, arguments map[string]any, more ...func(*mcp.CallToolParams)) (map[string]any, error) {
	g.t.Helper()
	params := &mcp.CallToolParams{Name: tool, Arguments: arguments}
	for _, f := range more {
		f(params)
	}
	res, err := g.session.CallTool(ctx, params)
	if err != nil {
		return nil, err
	}
	// Older revisions do not know of structured results: there is the same as text.
	text, ok := res.Content[0].(*mcp.TextContent)
	var structured map[string]any
	if !ok || json.Unmarshal([]byte(text.Text), &structured) != nil {
		g.t.Errorf("%s: got %+v, want a result", tool, res)
	}
	if _, failed := structured["code"]; failed != res.IsError {
		g.t.Errorf("%s: got isError %v with %v", tool, res.IsError, structured)
	}
	return structured, nil
}

// registers registers at two services, at one of which the person is asked, and
// makes a request that only who has registered may make.
func (g *goClient) registers() {
	g.t.Helper()
	for _, step := range []struct {
		tool      string
		arguments map[string]any
		field     string
		want      any
	}{
		{"lithtrix_register_agent", map[string]any{"agent_name": "scout", "owner_identifier": "me@example.com"}, "handle", "lithtrix/scout"},
		{"lona_register_agent", map[string]any{"agent_id": "my-agent", "agent_name": "My Agent"}, "handle", "lona/my-agent"},
		{"send_request", map[string]any{"credential": "lithtrix/scout", "method": "GET", "path": "/v1/me"}, "status", 200.0},
	} {
		if step.tool == "lona_register_agent" && !g.elicits() {
			step.field, step.want = "code", "approval_needed"
		}
		got, err := g.call(g.t.Context(), step.tool, step.arguments)
		if err != nil || got[step.field] != step.want {
			g.t.Errorf("%s: got %v, %v, want the %s %v", step.tool, got, err, step.field, step.want)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.elicits() != (len(g.asked) == 1 && strings.Contains(g.asked[0], `Register the agent "my-agent"`)) || !g.elicits() && len(g.asked) > 0 {
		g.t.Errorf("the person was asked %q", g.asked)
	}
}

// waits has a slow request reported, and gives up on another.
func (g *goClient) waits() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), comesAtOnce)
	defer cancel()
	slow := map[string]any{"credential": "lithtrix/scout", "method": "GET", "path": "/slow"}
	released := make(chan error, 1)
	go func() {
		select {
		case <-g.progress:
			released <- ask(ctx, g.world.gateway.URL+"/release")
		case <-ctx.Done():
			released <- ctx.Err()
		}
	}()
	got, err := g.call(ctx, "send_request", slow, withProgress("first"))
	if rerr := <-released; err != nil || rerr != nil || !strings.HasSuffix(fmt.Sprint(got["body"]), "the end") {
		g.t.Errorf("a slow request: got %v, %v, %v, want all of it", got, err, rerr)
	}

	giving, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		for {
			select {
			case p := <-g.progress:
				if p.ProgressToken == "second" {
					giveUp()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	if got, err := g.call(giving, "send_request", slow, withProgress("second")); err == nil {
		g.t.Errorf("a call that is cancelled: got %v, want an error", got)
	}
	if err := ask(ctx, g.world.gateway.URL+"/gone"); err != nil {
		g.t.Errorf("the request to the service goes on: %v", err)
	}
}

func withProgress(token string) func(*mcp.CallToolParams) {
	return func(p *mcp.CallToolParams) { p.SetProgressToken(token) }
}

// ask makes a request that has no answer but that it was made.
func ask(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// typeScriptLine is what the client of .ci/peers prints of a step.
type typeScriptLine struct {
	Step, Server, Version, Handle, Code, End, Text string
	Names, Asked                                   []string
	Whole, Status                                  int
	Instructions, Reported, Cancelled              bool
}

// TestTheTypeScriptSDK has clients on the official TypeScript SDK do the same:
// its first version for the revisions with sessions, its second for the one
// without.
func TestTheTypeScriptSDK(t *testing.T) {
	t.Parallel()
	for _, c := range []clientCase{
		{"stdio", "2025-11-25"}, {"stdio", "2026-07-28"}, {"http", "2025-11-25"}, {"http", "2026-07-28"}, {"sse", "2025-11-25"},
	} {
		t.Run(c.transport+" "+c.revision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			server := w.server.url
			if c.transport == "stdio" {
				server = "enlist"
			}
			got := peerIn[typeScriptLine](t, homeEnv(w.home, w.env()...), "mcp-client.mjs", c.transport, c.revision, w.gateway.URL, server, w.server.token)
			byStep := map[string]typeScriptLine{}
			for _, line := range got {
				byStep[line.Step] = line
			}
			hello := byStep["connect"]
			if hello.Server != "enlist" || !hello.Instructions || hello.Version != "" && hello.Version != c.revision {
				t.Errorf("connect: got %+v", hello)
			}
			list := byStep["tools"]
			if !slices.Contains(list.Names, "lona_register_agent") || list.Whole != len(list.Names) {
				t.Errorf("tools: got %+v, want everything of all", list)
			}
			if got := byStep["register"]; got.Handle != "lithtrix/scout" {
				t.Errorf("register: got %+v", got)
			}
			person := byStep["register where the person is asked"]
			if c.elicits() && (person.Handle != "lona/my-agent" || len(person.Asked) != 1) || !c.elicits() && person.Code != "approval_needed" {
				t.Errorf("register where the person is asked: got %+v", person)
			}
			if got := byStep["request"]; got.Status != http.StatusOK {
				t.Errorf("request: got %+v", got)
			}
			if got := byStep["slow request"]; !got.Reported || got.End != "the end" {
				t.Errorf("slow request: got %+v, want progress and all of it", got)
			}
			if got := byStep["slow request given up"]; !got.Cancelled {
				t.Errorf("slow request given up: got %+v", got)
			}
			w.keepsSecrets(t, byStep["received"].Text)
			keepForScan(t, w.home)
		})
	}
}
