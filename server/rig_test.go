package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

const (
	bearer = "a-bearer-token-of-thirty-two-chars"
	// storedToken is in the store of every rig.
	storedToken = "lona_partner_my-agent_abc123xyz456_SecretKeyHere123"
	// settingSecret has no shape of its own.
	settingSecret = "a-registration-secret-of-no-shape"
)

// rig is a server, and a record of all that it wrote.
type rig struct {
	*server.Server
	t      testing.TB
	store  *hanging
	client *gateway.Client
	ticks  chan time.Time // of the clock that slow answers are reported by

	mu   sync.Mutex
	text strings.Builder
}

// hanging is a store that answers nothing any more once it hangs, as a keyring
// does whose window waits for a password.
type hanging struct {
	credstore.Store
	hangs atomic.Bool
}

func (h *hanging) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return credstore.Credential{}, ctx.Err()
	}
	return h.Store.Get(ctx, k)
}

func (h *hanging) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Store.List(ctx, protocol)
}

// record is one stream of what a rig wrote.
type record struct{ rig *rig }

func (r record) Write(p []byte) (int, error) {
	r.rig.mu.Lock()
	defer r.rig.mu.Unlock()
	return r.rig.text.Write(p)
}

func (r *rig) written() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// newRig returns a server with a stored credential for the service at origin.
func newRig(t testing.TB, origin string, env ...string) *rig {
	t.Helper()
	return newRigWith(t, server.Config{}, origin, env...)
}

// newRigWith is newRig with settings of the server.
func newRigWith(t testing.TB, config server.Config, origin string, env ...string) *rig {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC) }
	r := &rig{t: t, store: &hanging{Store: credstore.NewMemory(now)}, ticks: make(chan time.Time)}
	vars := map[string]string{"LONA_GATEWAY_URL": origin, "LONA_AGENT_REGISTRATION_SECRET": settingSecret}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	logger := slog.New(slog.NewTextHandler(record{r}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := gateway.New(gateway.Options{
		Store: r.store, Env: func(name string) string { return vars[name] }, Now: now, Logger: logger, Policy: vars["policy"],
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	err = r.store.Put(t.Context(), credstore.Credential{
		Secret: credstore.NewSecret(storedToken),
		Info: credstore.Info{
			State: credstore.StateActive, CreatedAt: now(), ExpiresAt: now().Add(30 * 24 * time.Hour),
			Key: credstore.Key{Protocol: "lona", Origin: c.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	config.Client, config.Version, config.Now, config.Logger = c, "1.2.3", now, logger
	config.Tick = func() (<-chan time.Time, func()) { return r.ticks, func() {} }
	r.client = c
	r.Server, err = server.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Drain(context.Background()); err != nil {
			t.Errorf("drain: %v", err)
		}
		r.saysNoSecret()
	})
	return r
}

// saysNoSecret fails the test if a secret was written anywhere, and keeps it
// all for the scan of the whole suite.
func (r *rig) saysNoSecret() {
	r.t.Helper()
	text := r.written()
	for _, secret := range []string{storedToken, "SecretKeyHere123", settingSecret, bearer} {
		if strings.Contains(text, secret) {
			r.t.Errorf("%.16s… was written", secret)
		}
	}
	if strings.HasPrefix(r.t.Name(), "Fuzz") {
		return // there would be a file for each input
	}
	rec, err := leakscan.New(os.Getenv(leakscan.Variable))
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := rec.Output(r.t.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, text); err != nil {
		r.t.Fatal(err)
	}
}

// tool adds a tool to the server, which takes anything.
func (r *rig) tool(name string, handler func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error)) {
	r.MCP().AddTool(mcp.NewToolWithRawSchema(name, "a tool of the test", json.RawMessage(`{"type":"object"}`)), handler)
}

// progressTool adds a tool that sends n notifications and returns at once.
func (r *rig) progressTool(n int) {
	r.tool("progress", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for i := range n {
			if err := r.MCP().SendNotificationToClient(ctx, "notifications/progress", map[string]any{"progressToken": "p", "progress": i}); err != nil {
				return nil, err
			}
		}
		return mcp.NewToolResultText("done"), nil
	})
}

// serve serves the server over HTTP and returns its base URL.
func (r *rig) serve() string {
	r.t.Helper()
	return r.serveWith(server.HTTPConfig{})
}

func (r *rig) serveWith(c server.HTTPConfig) string {
	r.t.Helper()
	h := r.handler(c)
	s := httptest.NewServer(h)
	r.t.Cleanup(func() {
		if err := r.Drain(context.Background()); err != nil {
			r.t.Errorf("drain: %v", err)
		}
		s.Close()
	})
	return s.URL
}

func (r *rig) handler(c server.HTTPConfig) http.Handler {
	r.t.Helper()
	if c.Verify == nil {
		c.Verify = func(token string) (server.Principal, bool) {
			return server.Principal{Name: "test", ID: "1"}, token == bearer
		}
	}
	h, err := r.Handler(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// Protocol revisions of the two eras.
const (
	legacy = "2025-06-18"
	modern = "2026-07-28"
)

// message returns a JSON-RPC request; params is JSON without its braces.
func message(id any, method, params string) string {
	if id == nil {
		return fmt.Sprintf(`{"jsonrpc":"2.0","method":%q,"params":{%s}}`, method, params)
	}
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%v,"method":%q,"params":{%s}}`, id, method, params)
}

// modernMessage is message for the revision without sessions.
func modernMessage(id any, method, params string) string {
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + modern + `","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`
	if params != "" {
		meta += ","
	}
	return message(id, method, meta+params)
}

const initialize = `"protocolVersion":"` + legacy + `","capabilities":{},"clientInfo":{"name":"t","version":"1"}`

// request makes an HTTP request, with a token unless header says otherwise.
func (r *rig) request(method, url, body string, header map[string]string) *http.Response {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json, text/event-stream")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		switch {
		case value == "":
			req.Header.Del(name)
		case name == "Host":
			req.Host = value
		default:
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// modernPost posts a request of the revision without sessions.
func (r *rig) modernPost(url string, id any, method, params string) *http.Response {
	r.t.Helper()
	return r.modernPostAs("", url, id, method, params)
}

// modernPostAs is modernPost with the token of a guest.
func (r *rig) modernPostAs(name, url string, id any, method, params string) *http.Response {
	r.t.Helper()
	header := as(name, map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": method})
	var named struct{ Name string }
	if json.Unmarshal([]byte("{"+params+"}"), &named) == nil && named.Name != "" {
		header["Mcp-Name"] = named.Name
	}
	return r.request(http.MethodPost, url+"/mcp", modernMessage(id, method, params), header)
}

// session begins a streamable HTTP session and returns its id.
func (r *rig) session(url string) map[string]string {
	r.t.Helper()
	resp := r.request(http.MethodPost, url+"/mcp", message(1, "initialize", initialize), nil)
	id := resp.Header.Get("Mcp-Session-Id")
	if resp.StatusCode != http.StatusOK || id == "" {
		r.t.Fatalf("initialize: got %s, session %q: %s", resp.Status, id, r.body(resp))
	}
	return map[string]string{"Mcp-Session-Id": id, "Mcp-Protocol-Version": legacy}
}

func (r *rig) body(resp *http.Response) string {
	r.t.Helper()
	text, err := io.ReadAll(io.TeeReader(resp.Body, record{r}))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// rpc is a JSON-RPC message as it came.
type rpc struct {
	ID     any
	Method string
	Params map[string]any
	Result struct {
		IsError           bool
		StructuredContent map[string]any
		Content           []struct{ Text string }
	}
	Error *struct {
		Code    int
		Message string
	}
}

func (r *rig) parse(text string) rpc {
	r.t.Helper()
	var m rpc
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		r.t.Fatalf("%v in %q; want a message", err, text)
	}
	return m
}

// messages returns the messages of an answer, whichever way it came.
func (r *rig) messages(resp *http.Response) []rpc {
	r.t.Helper()
	text := r.body(resp)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return []rpc{r.parse(text)}
	}
	var out []rpc
	for line := range strings.SplitSeq(text, "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok && data != "" { // the first of an answer may have none
			out = append(out, r.parse(strings.TrimSpace(data)))
		}
	}
	return out
}

// sse is an SSE client, read event by event.
type sse struct {
	rig     *rig
	name    string // of the guest
	scanner *bufio.Scanner
	message string // the URL to post to
	hangUp  context.CancelFunc
}

func (r *rig) openSSE(url string) *sse {
	r.t.Helper()
	return r.openSSEAs("", url)
}

func (r *rig) openSSEAs(name, url string) *sse {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	r.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/sse", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer+name)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	s := &sse{rig: r, name: name, scanner: bufio.NewScanner(io.TeeReader(resp.Body, record{r})), hangUp: cancel}
	s.message = url + s.data()
	return s
}

// data returns the data of the next event, "" at the end of the stream.
func (s *sse) data() string {
	s.rig.t.Helper()
	for s.scanner.Scan() {
		if data, ok := strings.CutPrefix(s.scanner.Text(), "data: "); ok {
			return strings.TrimSpace(data)
		}
	}
	return ""
}

func (s *sse) next() rpc {
	s.rig.t.Helper()
	return s.rig.parse(s.data())
}

func (s *sse) post(body string) {
	s.rig.t.Helper()
	if resp := s.rig.request(http.MethodPost, s.message, body, as(s.name)); resp.StatusCode != http.StatusAccepted {
		s.rig.t.Fatalf("post: got %s: %s", resp.Status, s.rig.body(resp))
	}
}

// stdio is a client at the other end of a stdio server.
type stdio struct {
	rig   *rig
	in    *io.PipeWriter
	out   *io.PipeReader
	lines *bufio.Scanner
	ended chan error
}

func (r *rig) openStdio(ctx context.Context) *stdio {
	serverIn, in := io.Pipe()
	out, serverOut := io.Pipe()
	c := &stdio{rig: r, in: in, out: out, lines: bufio.NewScanner(io.TeeReader(out, record{r})), ended: make(chan error, 1)}
	c.lines.Buffer(nil, 8<<20)
	go func() {
		err := r.ServeStdio(ctx, serverIn, serverOut)
		serverOut.Close()
		c.ended <- err
	}()
	enough := time.AfterFunc(patience, func() { out.CloseWithError(errors.New("the server wrote nothing for too long")) })
	r.t.Cleanup(func() { enough.Stop(); in.Close(); out.Close() })
	return c
}

func (c *stdio) send(lines ...string) {
	c.rig.t.Helper()
	if _, err := io.WriteString(c.in, strings.Join(lines, "\n")+"\n"); err != nil {
		c.rig.t.Fatal(err)
	}
}

func (c *stdio) next() rpc {
	c.rig.t.Helper()
	if !c.lines.Scan() {
		c.rig.t.Fatalf("the server wrote nothing more (%v)", c.lines.Err())
	}
	return c.rig.parse(c.lines.Text())
}

// pipe runs a stdio server on a fixed input, as a shell pipe does, and returns
// all that it wrote.
func (r *rig) pipe(input string) []rpc {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.ServeStdio(r.t.Context(), strings.NewReader(input), io.MultiWriter(&out, record{r})); err != nil {
		r.t.Fatal(err)
	}
	var messages []rpc
	for line := range strings.Lines(out.String()) {
		messages = append(messages, r.parse(line))
	}
	return messages
}

// reader returns what the server writes, for a client that reads it itself.
func (c *stdio) reader() io.ReadCloser { return c.out }

// async runs f beside the test. The channel is closed when f ends the test.
func async[T any](f func() T) <-chan T {
	out := make(chan T, 1)
	go func() {
		defer close(out)
		out <- f()
	}()
	return out
}
