package server_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/server"
)

// wire stands between a client and a server, and can be cut.
type wire struct {
	url string
	mu  sync.Mutex
	own []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: "http://" + ln.Addr().String()}
	t.Cleanup(func() { ln.Close(); w.cut() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(to, "http://"))
			if err != nil {
				in.Close()
				return
			}
			w.mu.Lock()
			w.own = append(w.own, in, out)
			w.mu.Unlock()
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return w
}

// cut breaks every connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.own {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
	w.own = nil
}

// firstEvent reads the first event of a stream and returns its id and data.
func (r *rig) firstEvent(resp *http.Response) (id, data string) {
	r.t.Helper()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			r.t.Fatalf("no event in %s: %v", resp.Status, err)
		}
		line = strings.TrimRight(line, "\n")
		if line == "" {
			return id, data
		}
		if v, ok := strings.CutPrefix(line, "id: "); ok {
			id = v
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			data = v
		}
	}
}

// telling adds a tool that sends a notification, waits, sends another and returns.
func (r *rig) telling() (told <-chan struct{}, release chan<- struct{}) {
	in, out := make(chan struct{}, 1), make(chan struct{})
	r.tool("tell", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		for i := range 2 {
			if err := r.MCP().SendNotificationToClient(ctx, "notifications/progress", map[string]any{"progressToken": "p", "progress": i}); err != nil {
				return nil, err
			}
			if i == 0 {
				in <- struct{}{}
				<-out
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return mcp.NewToolResultText("done"), nil
	})
	return in, out
}

// A client that loses its connection while a tool runs gets the rest, once: in
// every revision after the first event, and in the later ones at any time. It may
// come while the tool runs, when it has ended, or when the server is told to stop.
func TestACallOutlivesItsConnection(t *testing.T) {
	for _, version := range []string{"2025-03-26", legacy, "2025-11-25"} {
		for _, when := range []string{"while it runs", "afterwards", "while the server stops"} {
			t.Run(version+" "+when, func(t *testing.T) {
				r := newRig(t, nowhere)
				told, release := r.telling()
				url := r.serve()
				session := r.sessionOf("", url, version)
				w := newWire(t, url)
				resp := r.request(http.MethodPost, w.url+"/mcp", message(7, "tools/call", `"name":"tell"`), session)
				id, data := r.firstEvent(resp)
				want := 2 // the second notification, and the result
				if version == "2025-11-25" {
					if id == "" || data != "" {
						t.Fatalf("got the event %q with %q, want one with an id and nothing else", id, data)
					}
					want = 3
				}
				<-told
				w.cut()
				if _, err := io.ReadAll(resp.Body); err == nil {
					t.Fatal("the connection was not cut")
				}

				var drained <-chan error
				if when == "while the server stops" {
					drained = async(func() error { return r.Drain(t.Context()) })
					for r.request(http.MethodPost, url+"/mcp", message(3, "ping", ""), session).StatusCode != http.StatusServiceUnavailable {
						continue
					}
				}
				if when == "afterwards" {
					close(release)
					for !strings.Contains(r.written(), `msg="tool called" tool=tell`) {
						continue
					}
				}
				again := as("", session, map[string]string{"Last-Event-ID": id})
				rest := r.request(http.MethodGet, url+"/mcp", "", again)
				if when != "afterwards" {
					close(release)
				}
				got := r.messages(rest)
				if len(got) != want || got[want-1].ID != 7.0 || got[want-1].Result.Content[0].Text != "done" || got[want-2].Params["progress"] != 1.0 {
					t.Errorf("got %+v, want the rest and the result", got)
				}
				if drained != nil {
					if err := <-drained; err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// A client that hears nothing at all before its connection breaks waits for the
// result where it left off.
func TestACallIsResumedBeforeItHasSaidAnything(t *testing.T) {
	r := newRig(t, nowhere)
	began, release, cancelled := r.holding()
	url := r.serve()
	session := r.sessionOf("", url, "2025-11-25")
	w := newWire(t, url)
	id, _ := r.firstEvent(r.request(http.MethodPost, w.url+"/mcp", message(7, "tools/call", hold), session))
	<-began
	w.cut()
	again := as("", session, map[string]string{"Last-Event-ID": id})
	rest := async(func() []rpc { return r.messages(r.request(http.MethodGet, url+"/mcp", "", again)) })
	close(release)
	if got := <-rest; len(got) != 1 || got[0].ID != 7.0 || got[0].Result.Content[0].Text != "done" {
		t.Errorf("got %+v, want the result", got)
	}
	if len(cancelled) != 0 {
		t.Error("the broken connection cancelled the call")
	}
	// What has ended can be asked for as well.
	id, _ = r.firstEvent(r.request(http.MethodPost, url+"/mcp", message(8, "tools/call", `"name":"nothing"`), session))
	again["Last-Event-ID"] = id
	if got := r.messages(r.request(http.MethodGet, url+"/mcp", "", again)); len(got) != 1 || got[0].ID != 8.0 || got[0].Error == nil {
		t.Errorf("got %+v, want the error, once more", got)
	}
}

// Who takes no events, or does not know those without a message, gets none.
func TestWhoCannotResumeGetsAPlainAnswer(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	for name, tc := range map[string]struct{ version, accept string }{
		"an older revision": {legacy, "application/json, text/event-stream"},
		"JSON only":         {"2025-11-25", "application/json"},
	} {
		header := as("", r.sessionOf("", url, tc.version), map[string]string{"Accept": tc.accept})
		resp := r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", `"name":"list_credentials"`), header)
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: got %s, want JSON", name, got)
		}
	}
}

// A real client goes on where a proxy between it and the server gave up.
func TestARealClientResumes(t *testing.T) {
	r := newRig(t, nowhere)
	began, release, _ := r.holding()
	at := r.serve()
	target, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var after []string // what the client asked for the rest of
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(target); p.Out.Host = target.Host },
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method == http.MethodPost && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
				resp.Body = &givesUp{ReadCloser: resp.Body}
			}
			return nil
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if id := req.Header.Get("Last-Event-ID"); id != "" {
			mu.Lock()
			after = append(after, id)
			mu.Unlock()
			close(release)
		}
		proxy.ServeHTTP(w, req)
	}))
	defer s.Close()
	c, err := client.NewStreamableHttpClient(s.URL+"/mcp", transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + bearer}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var hello mcp.InitializeRequest
	hello.Params.ProtocolVersion, hello.Params.ClientInfo = "2025-11-25", mcp.Implementation{Name: "t", Version: "1"}
	if _, err := c.Initialize(ctx, hello); err != nil {
		t.Fatal(err)
	}
	var call mcp.CallToolRequest
	call.Params.Name = "hold"
	got, err := c.CallTool(ctx, call)
	if err != nil || len(got.Content) != 1 || mcp.GetTextFromContent(got.Content[0]) != "done" {
		t.Errorf("got %+v, %v", got, err)
	}
	<-began
	mu.Lock()
	defer mu.Unlock()
	if len(after) != 1 {
		t.Errorf("the client asked for the rest %d times, want once", len(after))
	}
}

// givesUp is the body of an answer that ends after its first piece.
type givesUp struct {
	io.ReadCloser
	n int
}

func (g *givesUp) Read(p []byte) (int, error) {
	if g.n++; g.n > 1 {
		return 0, io.EOF
	}
	return g.ReadCloser.Read(p)
}

// Over TLS clients speak HTTP/2, where a call is cancelled by closing one stream
// of many, and where all of them end when the server does.
func TestOverTLS(t *testing.T) {
	r := newRig(t, nowhere)
	began, release, cancelled := r.holding()
	s := httptest.NewUnstartedServer(r.handler(server.HTTPConfig{}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	http2 := s.Client()
	ask := func(ctx context.Context, method, path, body string, header map[string]string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for k, v := range as("", header) {
			req.Header.Set(k, v)
		}
		resp, err := http2.Do(req)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return nil
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("%s %s: got %s, want HTTP/2", method, path, resp.Proto)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// The stateless era: who closes the stream has cancelled.
	off, hangUp := context.WithCancel(ctx)
	left := async(func() *http.Response {
		return ask(off, "POST", "/mcp", modernMessage(1, "tools/call", hold), map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "hold"})
	})
	<-began
	hangUp()
	<-cancelled
	<-left

	// The eras before it: everything that runs is answered when the server stops.
	begun := ask(ctx, "POST", "/mcp", message(1, "initialize", initialize), nil)
	session := map[string]string{"Mcp-Session-Id": begun.Header.Get("Mcp-Session-Id"), "Mcp-Protocol-Version": legacy}
	r.body(begun)
	listening := ask(ctx, "GET", "/mcp", "", session)
	stream := &sse{rig: r, scanner: bufio.NewScanner(ask(ctx, "GET", "/sse", "", nil).Body)}
	messages := stream.data()
	for i, m := range []string{message(0, "initialize", initialize), message(2, "tools/call", hold)} {
		if got := ask(ctx, "POST", messages, m, nil); got.StatusCode != http.StatusAccepted {
			t.Fatalf("message %d: got %s", i, got.Status)
		}
	}
	stream.next()
	<-began
	answer := async(func() []rpc { return r.messages(ask(ctx, "POST", "/mcp", message(3, "tools/call", hold), session)) })
	<-began
	drained := async(func() error { return r.Drain(ctx) })
	for ask(ctx, "POST", "/mcp", message(4, "ping", ""), session).StatusCode != http.StatusServiceUnavailable {
		continue
	}
	close(release)
	if got := <-answer; len(got) != 1 || got[0].ID != 3.0 || got[0].Error != nil {
		t.Errorf("got %+v, want the result", got)
	}
	if got := stream.next(); got.ID != 2.0 || got.Error != nil {
		t.Errorf("over SSE: got %+v, want the result", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(listening.Body); err != nil || stream.data() != "" {
		t.Errorf("a stream goes on (%v)", err)
	}
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
