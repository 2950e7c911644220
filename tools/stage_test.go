package tools_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/server"
)

// reportsPath is a route of the API behind the gateway that needs more than any
// agent is granted for nothing, and reportsScope is what it needs.
const (
	reportsPath  = "/reports"
	reportsScope = "reports.read"
)

// opening is when every story begins.
func opening() time.Time { return time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC) }

// stage is where a reader and a person meet a service: a real gateway on a real
// socket, a real store, and a real MCP server between. It writes down what is
// said.
type stage struct {
	t      *testing.T
	gw     *gatewaytest.Gateway
	clock  *gatewaytest.Clock
	store  credstore.Store
	client *gateway.Client
	person *principal
	seen   result // what was last returned
	// otherwise is the path that the person wants when the first cannot be had.
	otherwise string
	// onPass is told of time that passes.
	onPass func()

	listens string // host and port
	service *http.Server
	caller  *mcpclient.Client

	mu       sync.Mutex
	answered []string // the paths of GET requests with a credential that were answered, since the last call
	script   strings.Builder
	log      strings.Builder
}

// staging says how a stage is set up.
type staging struct {
	protocol string
	env      map[string]string
	store    credstore.Store // nil: one in memory
	clock    *gatewaytest.Clock
	policy   string // the file of the person's policy; "": a script, which is asked nothing
	// connect makes the client of the server; nil: one in the same process.
	connect func(*testing.T, *server.Server) *mcpclient.Client
}

func newStage(t *testing.T, o staging) *stage {
	t.Helper()
	s := &stage{t: t, person: agreeable(), clock: o.clock, store: o.store}
	env := map[string]string{
		"AGENTDOOR_SCOPES": `[{"id":"api.access","description":"Use the API."},{"id":"` + reportsScope + `","description":"Read reports.","price":"$0.01/call"}]`,
	}
	maps.Copy(env, o.env)
	s.gw = gatewaytest.New(t, gatewaytest.At(opening()), gatewaytest.Standalone(), gatewaytest.Env(env),
		gatewaytest.Config(func(c *embeddedgateway.Config) {
			c.Protocols = []string{o.protocol}
			if o.clock != nil {
				c.Now = o.clock.Now
			}
			c.Wrap = s.behind(o.protocol)
		}))
	if s.clock == nil {
		s.clock = s.gw.Clock
	}
	if s.store == nil {
		s.store = credstore.NewMemory(s.clock.Now)
	}
	s.up()
	t.Cleanup(s.down)
	s.connect(o)
	t.Cleanup(s.saysNoSecret)
	return s
}

// connect starts Enlist, and a client that knows only where to find it.
func (s *stage) connect(o staging) {
	s.t.Helper()
	settings := map[string]string{}
	for _, name := range []string{"LONA_GATEWAY_URL", "LITHTRIX_API_URL", "AGENTDOOR_URL", "FLUXRA_API_URL", "LUMINA_API_URL"} {
		settings[name] = s.url()
	}
	logger := slog.New(slog.NewTextHandler(logOf{s}, nil))
	var err error
	s.client, err = gateway.New(gateway.Options{
		Store: s.store, Policy: o.policy, Env: func(name string) string { return settings[name] }, Now: s.clock.Now, Logger: logger,
		Sleep: func(_ context.Context, d time.Duration) error {
			s.clock.Advance(d.Truncate(2*time.Second) + 2*time.Second) // without what is random about it
			return nil
		},
		Random: func() float64 { return 0.5 },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	caller := gateway.CallerScript
	if o.policy != "" {
		caller = gateway.CallerModel
	}
	mcpServer, err := server.New(server.Config{Client: s.client, Caller: caller, Now: s.clock.Now, StoredIn: s.store.Backend, Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	connect := o.connect
	if connect == nil {
		connect = inOneProcess
	}
	s.caller = connect(s.t, mcpServer)
	s.t.Cleanup(func() { _ = s.caller.Close() })
	if err := s.caller.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.caller.Initialize(s.t.Context(), mcp.InitializeRequest{}); err != nil {
		s.t.Fatal(err)
	}
}

// inOneProcess connects a client of the present era.
func inOneProcess(t *testing.T, s *server.Server) *mcpclient.Client {
	t.Helper()
	c, err := mcpclient.NewInProcessClientWithOptions(s.MCP(), mcpclient.WithProtocolVersion(mcp.LATEST_LEGACY_PROTOCOL_VERSION))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// overPipes connects a client as a program does that starts Enlist.
func overPipes(version string, options ...mcpclient.ClientOption) func(*testing.T, *server.Server) *mcpclient.Client {
	return func(t *testing.T, s *server.Server) *mcpclient.Client {
		t.Helper()
		in, toServer := io.Pipe()
		out, fromServer := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := s.ServeStdio(context.WithoutCancel(t.Context()), in, fromServer)
			_ = fromServer.Close()
			ended <- err
		}()
		t.Cleanup(func() {
			_ = toServer.Close()
			if err := <-ended; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		return mcpclient.NewClient(transport.NewIO(out, toServer, io.NopCloser(strings.NewReader(""))),
			append(options, mcpclient.WithProtocolVersion(version))...)
	}
}

// behind stands around the gateway: it has a route of its own, and sees which
// requests with a credential are answered.
func (s *stage) behind(protocol string) func(http.Handler) http.Handler {
	return func(gw http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &statusOf{ResponseWriter: w, status: http.StatusOK}
			if r.URL.Path == reportsPath {
				reports(rec, r, protocol, gw)
			} else {
				gw.ServeHTTP(rec, r)
			}
			if r.Method == http.MethodGet && presents(r) && rec.status/100 == 2 {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.answered = append(s.answered, r.URL.Path)
			}
		})
	}
}

func presents(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != ""
}

// statusOf is an answer of which one knows the status.
type statusOf struct {
	http.ResponseWriter
	status int
}

func (w *statusOf) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// reports answers who was granted the scope for it, which only AgentDoor can
// grant. Each refusal is one of the protocol's own.
func reports(w http.ResponseWriter, r *http.Request, protocol string, gw http.Handler) {
	refusal := map[string]string{
		wire.LonaName:      `{"error":{"code":"forbidden","message":"reports.read is missing"}}`,
		wire.LithtrixName:  `{"status":"error","error_code":"FORBIDDEN","message":"not in the free tier"}`,
		wire.AgentDoorName: `{"error":"` + wire.AgentDoorForbidden + `","message":"the agent was not granted the scope that this needs: reports.read"}`,
		wire.FluxraName:    `{"error":{"code":"FORBIDDEN","message":"reports.read is missing"}}`,
		wire.LuminaName:    `{"error":"forbidden","code":"forbidden","message":"not in the free tier"}`,
	}[protocol]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case !presents(r):
		w.WriteHeader(http.StatusUnauthorized)
		return
	case protocol == wire.AgentDoorName && grants(r, gw):
		_, _ = io.WriteString(w, `{"reports":[]}`)
		return
	}
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, refusal)
}

// grants asks the gateway what a credential of AgentDoor is good for.
func grants(r *http.Request, gw http.Handler) bool {
	ask := r.Clone(r.Context())
	ask.URL.Path = wire.AgentDoorWhoAmIPath
	answer := &bodyOf{header: http.Header{}}
	gw.ServeHTTP(answer, ask)
	return strings.Contains(answer.body.String(), reportsScope)
}

type bodyOf struct {
	header http.Header
	body   strings.Builder
}

func (b *bodyOf) Header() http.Header         { return b.header }
func (b *bodyOf) WriteHeader(int)             {}
func (b *bodyOf) Write(p []byte) (int, error) { return b.body.Write(p) }

// up opens the service, at the same address each time.
func (s *stage) up() {
	s.t.Helper()
	var config net.ListenConfig
	at := s.listens
	if at == "" {
		at = "127.0.0.1:0"
	}
	ln, err := config.Listen(s.t.Context(), "tcp", at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listens = ln.Addr().String()
	s.service = &http.Server{Handler: gatewaytest.Record(s.gw.Embedded().Handler(), s.gw.Issued), ReadHeaderTimeout: time.Minute}
	go func(srv *http.Server) { _ = srv.Serve(ln) }(s.service)
}

// down ends the service and every connection to it.
func (s *stage) down() { _ = s.service.Close() }

func (s *stage) url() string { return "http://" + s.listens }

// pass lets time pass.
func (s *stage) pass(d time.Duration) {
	s.clock.Advance(d)
	if s.onPass != nil {
		s.onPass()
	}
}

func (s *stage) listTools() []mcp.Tool {
	s.t.Helper()
	list, err := s.caller.ListTools(s.t.Context(), mcp.ListToolsRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Tools
}

// call calls a tool, writes down what is said, and checks that what an error
// says of the store is true.
func (s *stage) call(tool string, in map[string]any) result {
	s.t.Helper()
	s.mu.Lock()
	s.answered = nil
	s.mu.Unlock()
	before := s.stored()
	res := s.quiet(tool, in)
	shown := maps.Clone(in)
	for name := range s.person.secrets {
		if _, ok := shown[name]; ok {
			shown[name] = "(what the mail says)"
		}
	}
	s.sayf("→ %s %s", tool, compact(shown))
	mark := "←"
	if res.IsError {
		mark = "← error:"
		s.isTrue(res, before, s.stored())
	}
	s.sayf("%s %s", mark, indented(res.content))
	return res
}

// quiet calls a tool and writes nothing down.
func (s *stage) quiet(tool string, in map[string]any) result {
	s.t.Helper()
	req := mcp.CallToolRequest{}
	req.Params.Name, req.Params.Arguments = tool, in
	res, err := s.caller.CallTool(s.t.Context(), req)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", tool, err, s.transcript())
	}
	out := result{CallToolResult: res, content: map[string]any{}}
	raw, err := json.Marshal(res.StructuredContent)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out.content); err != nil {
		s.t.Fatalf("%s: %v in %s", tool, err, raw)
	}
	return out
}

// must calls a tool that must succeed, before the story begins.
func (s *stage) must(tool string, in args) result {
	s.t.Helper()
	res := s.quiet(tool, in)
	if res.IsError {
		s.t.Fatalf("%s: %s", tool, indented(res.content))
	}
	return res
}

// reached reports whether a result is the answer to a request with a credential,
// of a route that nobody is let in to without one.
func (s *stage) reached(res result) bool {
	s.mu.Lock()
	paths := slices.Clone(s.answered)
	s.mu.Unlock()
	status, ok := res.content["status"].(float64)
	if res.IsError || len(paths) == 0 || ok && status/100 != 2 {
		return false
	}
	path := paths[len(paths)-1]
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url()+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
}

// stored lists what is in the store, whether it can be used or not.
func (s *stage) stored() []credstore.Info {
	s.t.Helper()
	infos, err := s.store.List(context.WithoutCancel(s.t.Context()), "")
	if err != nil {
		s.t.Fatal(err)
	}
	return infos
}

// isTrue holds what an error says of the store against the store.
func (s *stage) isTrue(res result, before, after []credstore.Info) {
	s.t.Helper()
	for _, name := range []string{"code", "what_happened", "what_is_stored", "next_step"} {
		if res.text(name) == "" {
			s.t.Errorf("an error says nothing under %s: %s", name, indented(res.content))
		}
	}
	if wrong := untrue(res.text("what_is_stored"), holding{s.clock.Now(), before, after}); wrong != "" {
		s.t.Error(wrong)
	}
}

func (s *stage) sayf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.script, format+"\n", args...)
}

// logOf is what a stage logs.
type logOf struct{ stage *stage }

func (l logOf) Write(p []byte) (int, error) {
	l.stage.mu.Lock()
	defer l.stage.mu.Unlock()
	return l.stage.log.Write(p)
}

// transcript returns what was said, with the same words for what differs from
// run to run.
func (s *stage) transcript() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.ReplaceAll(s.script.String(), s.listens, "service.example")
	for _, r := range []struct{ find, put string }{
		{`agt_[0-9a-f]{32}`, "agt_1"},
		{`ag_[A-Za-z0-9_-]{21}`, "ag_1"},
		{`aky_[A-Za-z0-9_-]+`, "aky_1"},
		{`enlist-[0-9]{8}-[0-9]{6}-[a-z0-9]+`, "enlist-1"},
		{`0x[0-9a-fA-F]{40}`, "0xwallet"},
		{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "uuid-1"},
		{`(?s)"headers": \{.*?\n  \},\n  `, ""},
	} {
		text = regexp.MustCompile(r.find).ReplaceAllString(text, r.put)
	}
	ids := map[string]string{}
	return regexp.MustCompile(`\b[0-9]{8,}\b`).ReplaceAllStringFunc(text, func(id string) string {
		if ids[id] == "" {
			ids[id] = fmt.Sprint(1000 + len(ids))
		}
		return ids[id]
	})
}

// golden holds the transcript against the one that is committed.
func (s *stage) golden(name string) {
	s.t.Helper()
	path := filepath.Join("testdata", "transcripts", filepath.FromSlash(name)+".txt")
	got := s.transcript()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Error(err)
	}
	if got != string(want) {
		s.t.Errorf("%s is stale (go test ./tools -update); got\n%s", path, got)
	}
}

// saysNoSecret fails the test if a secret was said or logged.
func (s *stage) saysNoSecret() {
	s.mu.Lock()
	text := s.script.String() + s.log.String()
	s.mu.Unlock()
	rec, err := leakscan.New(os.Getenv(leakscan.Variable))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, secret := range s.gw.Secrets() {
		rec.Issued(secret)
		if strings.Contains(text, secret) {
			s.t.Errorf("a secret (%.16s…) was told to the model, the person or the log", secret)
		}
	}
	out, err := rec.Output(s.t.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, text); err != nil {
		s.t.Fatal(err)
	}
}

func compact(v any) string { return encoded(v, "") }

func indented(v any) string { return encoded(v, "  ") }

func encoded(v any, indent string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
