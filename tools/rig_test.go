package tools_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// rig is a script at the tools of a real server, in one process.
type rig struct {
	t      *testing.T
	caller *mcpclient.Client
	client *gateway.Client
	store  credstore.Store
	clock  *gatewaytest.Clock
	words  func() vocabulary
	// offered are the tools' names.
	offered []string
	// described are their descriptions, one behind the other.
	described string

	mu   sync.Mutex
	seen strings.Builder // every answer and every log line
}

// options change a rig.
type options struct {
	env     map[string]string
	store   func(credstore.Store) credstore.Store
	clock   *gatewaytest.Clock
	timeout time.Duration
	// transport is the gateway client's; nil: the usual one.
	transport http.RoundTripper
	// home is the data folder; "": there is none.
	home string
	// person sits before a model's client; nil: it is a script that calls.
	person *person
	// version is the protocol's revision; "": the newest with sessions.
	version string
	// policy is the text of the policy; "": there is none.
	policy    string
	selection tools.Selection
	// more are tools of the test.
	more func(tools.Deps) []mcpserver.ServerTool
}

// person fills in the forms of a client, one answer after the other. One that is
// nil is to cancel, a string the action; else it is the content of the form.
type person struct {
	answers []any

	mu    sync.Mutex
	asked []mcp.ElicitationParams
}

// Elicit implements [mcpclient.ElicitationHandler].
func (p *person) Elicit(_ context.Context, r mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.asked)
	p.asked = append(p.asked, r.Params)
	out := &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: mcp.ElicitationResponseActionCancel}}
	if n >= len(p.answers) {
		return out, nil
	}
	switch answer := p.answers[n].(type) {
	case nil:
	case string:
		out.Action = mcp.ElicitationResponseAction(answer)
	case func(mcp.ElicitationParams) any:
		out.Action, out.Content = mcp.ElicitationResponseActionAccept, answer(r.Params)
	default:
		out.Action, out.Content = mcp.ElicitationResponseActionAccept, answer
	}
	return out, nil
}

// messages are the questions, by their first words.
func (p *person) messages() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, a := range p.asked {
		all = append(all, strings.TrimPrefix(a.Message, "Enlist: "))
	}
	return all
}

// newRig returns a model that talks about Lona to the service at origin.
func newRig(t *testing.T, origin string, o options) *rig {
	t.Helper()
	r := &rig{t: t, clock: o.clock, words: sync.OnceValue(func() vocabulary { return allWords(t) })}
	if r.clock == nil {
		r.clock = gatewaytest.NewClock(time.Now())
	}
	r.store = credstore.NewMemory(r.clock.Now)
	if o.store != nil {
		r.store = o.store(r.store)
	}
	env := map[string]string{"LONA_GATEWAY_URL": origin}
	for name, value := range o.env {
		env[name] = value
	}
	logger := slog.New(slog.NewTextHandler(r, nil))
	var err error
	r.client, err = gateway.New(gateway.Options{
		Store: r.store, Env: func(name string) string { return env[name] }, Now: r.clock.Now, Logger: logger,
		Timeout: o.timeout, Transport: o.transport, Home: o.home, Policy: policyFile(t, o.policy),
		Sleep: func(_ context.Context, d time.Duration) error {
			r.clock.Advance(d)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// What a person must agree to has tests of its own.
	config := server.Config{Client: r.client, Caller: gateway.CallerScript, Tools: o.selection, Now: r.clock.Now, StoredIn: r.store.Backend, Logger: logger}
	request := mcp.InitializeRequest{}
	var client []mcpclient.ClientOption
	if o.person != nil {
		config.Caller = gateway.CallerModel
		client = append(client, mcpclient.WithElicitationHandler(o.person))
	}
	if o.version != "" {
		request.Params.ProtocolVersion = o.version
		client = append(client, mcpclient.WithProtocolVersion(o.version))
	}
	s, err := server.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if o.more != nil {
		s.MCP().AddTools(o.more(tools.Deps{Client: r.client, Now: r.clock.Now})...)
	}
	r.caller, err = mcpclient.NewInProcessClientWithOptions(s.MCP(), client...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.caller.Close() })
	if err := r.caller.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.caller.Initialize(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	list, err := r.caller.ListTools(t.Context(), mcp.ListToolsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range list.Tools {
		r.offered = append(r.offered, tool.Name)
		r.described += tool.Description + "\n"
	}
	return r
}

// policyFile writes a policy, and returns its path.
func policyFile(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	path := filepath.Join(t.TempDir(), gateway.PolicyFile)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Write implements [io.Writer] for the log.
func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(p)
}

// args are the arguments of a tool.
type args map[string]any

// raw calls a tool.
func (r *rig) raw(tool string, arguments any) *mcp.CallToolResult {
	r.t.Helper()
	return r.rawCtx(r.t.Context(), tool, arguments)
}

func (r *rig) rawCtx(ctx context.Context, tool string, arguments any) *mcp.CallToolResult {
	r.t.Helper()
	req := mcp.CallToolRequest{}
	req.Params.Name, req.Params.Arguments = tool, arguments
	res, err := r.caller.CallTool(ctx, req)
	if err != nil {
		r.t.Fatalf("%s: %v", tool, err)
	}
	text, err := json.Marshal(res)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = fmt.Fprintln(r, string(text))
	if res.IsError {
		r.checkFailure(tool, decode[tools.Failure](r.t, res))
	}
	return res
}

// checkFailure checks what holds for every failure there is: it says all there is
// to say, and what comes next is to call a tool that is offered, or to ask the
// person or tell them something.
func (r *rig) checkFailure(tool string, f tools.Failure) {
	r.t.Helper()
	if f.Code == "" || f.WhatHappened == "" || f.WhatIsStored == "" || f.NextStep == "" {
		r.t.Errorf("%s: got %+v, want code, what_happened, what_is_stored and next_step", tool, f)
	}
	if n := len([]rune(f.ServiceSaid)); n > 500 {
		r.t.Errorf("%s: service_said has %d characters, want at most 500", tool, n)
	}
	var named, withheld bool
	for _, t := range tools.All(tools.Deps{}) {
		if !strings.Contains(f.NextStep, t.Tool.Name) {
			continue
		}
		if slices.Contains(r.offered, t.Tool.Name) {
			named = true
		} else {
			withheld = true
		}
	}
	if withheld && !strings.Contains(f.NextStep, "you do not have ") {
		r.t.Errorf("%s: %+v names a tool that is not offered", tool, f)
	}
	if !named && !strings.Contains(f.NextStep, "the person") {
		r.t.Errorf("%s: %+v names no tool, and nothing to ask or tell the person", tool, f)
	}
}

// call calls a tool that must succeed.
func call[Out any](r *rig, tool string, arguments args) Out {
	r.t.Helper()
	res := r.raw(tool, arguments)
	if res.IsError {
		r.t.Fatalf("%s: got the error %s", tool, mcp.GetTextFromContent(res.Content[0]))
	}
	for _, next := range nextSteps(decode[any](r.t, res)) {
		if _, err := r.words().read(next); err != nil {
			r.t.Errorf("%s: next_step cannot be followed to the letter: %v", tool, err)
		}
	}
	return decode[Out](r.t, res)
}

// fail calls a tool that must fail.
func (r *rig) fail(tool string, arguments any) tools.Failure {
	r.t.Helper()
	return r.failCtx(r.t.Context(), tool, arguments)
}

func (r *rig) failCtx(ctx context.Context, tool string, arguments any) tools.Failure {
	r.t.Helper()
	before, beforeErr := r.store.List(r.t.Context(), "")
	res := r.rawCtx(ctx, tool, arguments)
	after, afterErr := r.store.List(r.t.Context(), "")
	if !res.IsError {
		r.t.Fatalf("%s: got %s, want an error", tool, mcp.GetTextFromContent(res.Content[0]))
	}
	f := decode[tools.Failure](r.t, res)
	if _, err := r.words().read(f.NextStep); err != nil {
		r.t.Errorf("%s: next_step cannot be followed to the letter: %v", tool, err)
	}
	if beforeErr == nil && afterErr == nil {
		if wrong := untrue(f.WhatIsStored, holding{r.clock.Now(), before, after}); wrong != "" {
			r.t.Errorf("%s: what_is_stored: %s", tool, wrong)
		}
	}
	return f
}

// nextSteps returns every next step in a result, however deep.
func nextSteps(in any) (steps []string) {
	switch v := in.(type) {
	case map[string]any:
		for name, inner := range v {
			if text, ok := inner.(string); ok && name == "next_step" && text != "" {
				steps = append(steps, text)
			}
			if name != "body" { // which is the service's
				steps = append(steps, nextSteps(inner)...)
			}
		}
	case []any:
		for _, inner := range v {
			steps = append(steps, nextSteps(inner)...)
		}
	}
	return steps
}

func decode[Out any](t *testing.T, res *mcp.CallToolResult) (out Out) {
	t.Helper()
	raw, err := json.Marshal(res.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	if got, want := mcp.GetTextFromContent(res.Content[0]), string(raw); !sameJSON(got, want) {
		t.Errorf("text content: got %s, want what the structured content says: %s", got, want)
	}
	return out
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}

// register registers an agent.
func (r *rig) register(agent string) tools.LonaRegistered {
	r.t.Helper()
	return call[tools.LonaRegistered](r, "lona_register_agent", args{"agent_id": agent, "agent_name": "An Agent"})
}

// saysNothingOf is saysNone for what a gateway has issued. It also tells the
// scan of the whole suite of it.
func (r *rig) saysNothingOf(gw *gatewaytest.Gateway) {
	r.t.Helper()
	rec := r.recorder()
	for _, secret := range gw.Secrets() {
		rec.Issued(secret)
	}
	r.saysNone(gw.Secrets()...)
}

// saysNone fails the test if a secret is in anything that the model saw or
// that was logged, and keeps it all for the scan of the whole suite.
func (r *rig) saysNone(secrets ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range secrets {
		if strings.Contains(r.seen.String(), secret) {
			r.t.Errorf("a secret (%.16s…) was told to the model or logged", secret)
		}
	}
	out, err := r.recorder().Output(r.t.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, r.seen.String()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) recorder() *leakscan.Recorder {
	r.t.Helper()
	rec, err := leakscan.New(os.Getenv(leakscan.Variable))
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func textOf(res *mcp.CallToolResult) string { return mcp.GetTextFromContent(res.Content[0]) }
