package server_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/server"
)

// TestNobodyElseGetsIn tries every route with every wrong request.
func TestNobodyElseGetsIn(t *testing.T) {
	r := newRig(t, nowhere)
	h := r.handler(server.HTTPConfig{
		AllowedHosts:   []string{"mcp.example.com", "lan.example:8421"},
		AllowedOrigins: []string{"https://app.example.com"},
	})
	list := message(1, "tools/list", "")
	for _, tc := range []struct {
		name   string
		method string
		path   string
		body   string
		header map[string][]string
		host   string
		status int
	}{
		{name: "no token", header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "a wrong token", header: map[string][]string{"Authorization": {"Bearer nonsense"}}, status: 401},
		{name: "the token and more", header: map[string][]string{"Authorization": {"Bearer " + bearer + "x"}}, status: 401},
		{name: "an empty token", header: map[string][]string{"Authorization": {"Bearer "}}, status: 401},
		{name: "another scheme", header: map[string][]string{"Authorization": {"Basic " + bearer}}, status: 401},
		{name: "the token alone", header: map[string][]string{"Authorization": {bearer}}, status: 401},
		{name: "two tokens", header: map[string][]string{"Authorization": {"Bearer nonsense", "Bearer " + bearer}}, status: 401},
		{name: "a token in the URL", path: "/mcp?token=" + bearer + "&access_token=" + bearer, header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "a token in a cookie", header: map[string][]string{"Authorization": nil, "Cookie": {"token=" + bearer}}, status: 401},
		{name: "no token, another route", path: "/nothing", header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "no token, a stream", method: "GET", path: "/sse", header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "no token, a message", path: "/message?sessionId=x", header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "no token, metadata", method: "GET", path: "/.well-known/oauth-protected-resource", header: map[string][]string{"Authorization": nil}, status: 401},
		{name: "another scheme's spelling", header: map[string][]string{"Authorization": {"bearer " + bearer}}, status: 404}, // gets in: there is no session

		{name: "a foreign host", host: "evil.example", status: 403},
		{name: "a foreign host with our port", host: "evil.example:8421", status: 403},
		{name: "a host that begins like ours", host: "localhost.evil.example", status: 403},
		{name: "an address of the network", host: "192.168.1.2:8421", status: 403},
		{name: "no host", host: "-", status: 403},
		{name: "localhost", host: "localhost:8421", status: 404},
		{name: "127.0.0.1", host: "127.0.0.1", status: 404},
		{name: "::1", host: "[::1]:8421", status: 404},
		{name: "an allowed host", host: "MCP.example.com", status: 404},
		{name: "an allowed host with a port", host: "mcp.example.com:443", status: 404},
		{name: "an allowed port", host: "lan.example:8421", status: 404},
		{name: "an allowed host, another port", host: "lan.example:8422", status: 403},

		{name: "a foreign origin", header: map[string][]string{"Origin": {"https://evil.example"}}, status: 403},
		{name: "no origin in particular", header: map[string][]string{"Origin": {"null"}}, status: 403},
		{name: "an empty origin", header: map[string][]string{"Origin": {""}}, status: 403},
		{name: "a file", header: map[string][]string{"Origin": {"file://localhost"}}, status: 403},
		{name: "an allowed origin, plainly", header: map[string][]string{"Origin": {"http://app.example.com"}}, status: 403},
		{name: "an origin that begins like ours", header: map[string][]string{"Origin": {"http://localhost.evil.example"}}, status: 403},
		{name: "two origins", header: map[string][]string{"Origin": {"http://localhost", "https://evil.example"}}, status: 403},
		{name: "a page of this machine", header: map[string][]string{"Origin": {"http://localhost:6274"}}, status: 404},
		{name: "an allowed origin", header: map[string][]string{"Origin": {"https://app.example.com"}}, status: 404},

		{name: "text", header: map[string][]string{"Content-Type": {"text/plain"}}, status: 415},
		{name: "no type", header: map[string][]string{"Content-Type": nil}, status: 415},
		{name: "a form", header: map[string][]string{"Content-Type": {"application/x-www-form-urlencoded"}}, status: 415},
		{name: "nearly JSON", header: map[string][]string{"Content-Type": {"application/json-seq"}}, status: 415},
		{name: "compressed", header: map[string][]string{"Content-Encoding": {"gzip"}}, status: 415},
		{name: "JSON with a charset", header: map[string][]string{"Content-Type": {"application/json; charset=utf-8"}}, status: 404},
		{name: "a message as text", path: "/message?sessionId=x", header: map[string][]string{"Content-Type": {"text/plain"}}, status: 415},
		{name: "not UTF-8", body: "\"\xff\"", status: 400},
		{name: "not JSON", body: "nonsense", status: 400},

		{name: "an unknown route", path: "/", status: 404},
		{name: "a method that /mcp has not", method: "PUT", status: 405},
		{name: "a preflight", method: "OPTIONS", status: 405},
		{name: "HEAD", method: "HEAD", status: 405},
		{name: "a POST to the stream", path: "/sse", status: 405},
		{name: "a GET of the messages", method: "GET", path: "/message", status: 405},
	} {
		t.Run(tc.name, func(t *testing.T) {
			method, path, body := first(tc.method, "POST"), first(tc.path, "/mcp"), first(tc.body, list)
			req := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+bearer)
			req.Header.Set("Content-Type", "application/json")
			for name, values := range tc.header {
				req.Header[name] = values
			}
			if tc.host != "" {
				req.Host = strings.Trim(tc.host, "-")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != tc.status {
				t.Errorf("got %d, want %d: %s", w.Code, tc.status, w.Body)
			}
			if got := w.Header().Get("WWW-Authenticate"); (got == `Bearer realm="enlist"`) != (tc.status == 401) {
				t.Errorf("WWW-Authenticate: got %q with %d", got, w.Code)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"Access-Control-Allow-Origin": "", "Access-Control-Allow-Headers": "",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if tc.status == 405 && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if strings.Contains(w.Body.String(), bearer) {
				t.Errorf("the answer repeats the token: %s", w.Body)
			}
		})
	}
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func TestHandlerRefusesAConfigurationThatCannotBeMeant(t *testing.T) {
	yes := func(string) (server.Principal, bool) { return server.Principal{}, true }
	for name, c := range map[string]server.HTTPConfig{
		"nobody is let in":         {},
		"a URL for a host":         {Verify: yes, AllowedHosts: []string{"https://mcp.example.com"}},
		"an empty host":            {Verify: yes, AllowedHosts: []string{""}},
		"a host for an origin":     {Verify: yes, AllowedOrigins: []string{"app.example.com"}},
		"a star":                   {Verify: yes, AllowedOrigins: []string{"*"}},
		"an origin with a path":    {Verify: yes, AllowedOrigins: []string{"https://app.example.com/"}},
		"an origin that is a page": {Verify: yes, AllowedOrigins: []string{"https://app.example.com/page"}},
	} {
		if _, err := newRig(t, nowhere).Handler(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// The calls under way get their time, over both transports, and streams that
// nobody closes do not hold the program.
func TestDrainWaitsForCallsAndEndsStreams(t *testing.T) {
	for _, tc := range []struct {
		name string
		call func(r *rig, url string, session map[string]string, s *sse) (answer <-chan rpc)
	}{
		{"streamable HTTP", func(r *rig, url string, session map[string]string, _ *sse) <-chan rpc {
			return async(func() rpc {
				return r.messages(r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", `"name":"wait"`), session))[0]
			})
		}},
		{"SSE", func(_ *rig, _ string, _ map[string]string, s *sse) <-chan rpc {
			s.post(message(1, "tools/call", `"name":"wait"`))
			return async(s.next)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nowhere)
			began, release := make(chan struct{}), make(chan struct{})
			r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				close(began)
				select {
				case <-release:
					return mcp.NewToolResultText("done"), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			url := r.serve()
			session := r.session(url)
			listening := r.request(http.MethodGet, url+"/mcp", "", session)
			s := r.openSSE(url)
			answer := tc.call(r, url, session, s)
			<-began

			drained := async(func() error { return r.Drain(t.Context()) })
			// Requests are refused from the moment on when draining has begun.
			for r.request(http.MethodPost, url+"/mcp", message(3, "ping", ""), session).StatusCode != http.StatusServiceUnavailable {
				continue
			}
			select {
			case err := <-drained:
				t.Errorf("drained (%v) with a call under way", err)
			default:
			}
			close(release)
			if got := <-answer; got.ID != 1.0 || got.Error != nil || got.Result.IsError {
				t.Errorf("got %+v, want the result", got)
			}
			if err := <-drained; err != nil {
				t.Error(err)
			}
			if got := s.data(); got != "" {
				t.Errorf("the SSE stream goes on: %q", got)
			}
			if _, err := io.ReadAll(listening.Body); err != nil {
				t.Errorf("the listening stream: %v", err)
			}
		})
	}
}

func TestDrainDoesNotWaitForEver(t *testing.T) {
	r := newRig(t, nowhere)
	began, release := make(chan struct{}), make(chan struct{})
	r.tool("wait", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		close(began)
		<-release
		return mcp.NewToolResultText("done"), nil
	})
	url := r.serve()
	answer := async(func() []rpc { return r.messages(r.modernPost(url, 1, "tools/call", `"name":"wait"`)) })
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("got no error, want that something was cut off")
	}
	close(release)
	<-answer
}

// A client that hangs up leaves nothing behind that is waited for: neither its
// call, nor the progress of it that nobody reads.
func TestAnSSEClientThatHangsUpHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		release := make(chan struct{})
		r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			<-release
			err := r.MCP().SendNotificationToClient(ctx, "notifications/progress", map[string]any{"progress": 1})
			return mcp.NewToolResultText("done"), err
		})
		h := r.handler(server.HTTPConfig{})
		ask := func(ctx context.Context, method, url, body string) *httptest.ResponseRecorder {
			req := httptest.NewRequestWithContext(ctx, method, "http://localhost"+url, strings.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+bearer)
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			async(func() bool { h.ServeHTTP(w, req); return true })
			synctest.Wait()
			return w
		}
		ctx, hangUp := context.WithCancel(t.Context())
		_, endpoint, _ := strings.Cut(ask(ctx, http.MethodGet, "/sse", "").Body.String(), "data: ")
		endpoint = strings.TrimSpace(endpoint)
		ask(t.Context(), http.MethodPost, endpoint, message(0, "initialize", initialize))
		if w := ask(t.Context(), http.MethodPost, endpoint, message(1, "tools/call", `"name":"wait"`)); w.Code != http.StatusAccepted {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		hangUp()
		synctest.Wait()
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		if !strings.Contains(r.written(), `msg="tool called" tool=wait`) {
			t.Errorf("the call goes on:\n%s", r.written())
		}
	})
}

// A broken stream is taken up again, and what was missed comes then.
func TestAStreamIsResumed(t *testing.T) {
	r := newRig(t, nowhere)
	r.progressTool(2)
	url := r.serve()
	session := r.session(url)
	resp := r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", `"name":"progress"`), session)
	text := r.body(resp)
	id, _, ok := strings.Cut(strings.TrimPrefix(text, "id: "), "\n")
	if !ok || id == "" {
		t.Fatalf("the first event has no id:\n%s", text)
	}
	again := map[string]string{"Last-Event-ID": id}
	for name, value := range session {
		again[name] = value
	}
	got := r.messages(r.request(http.MethodGet, url+"/mcp", "", again))
	if len(got) != 2 || got[0].Params["progress"] != 1.0 || got[1].ID != 1.0 {
		t.Errorf("got %+v, want the second notification and the result", got)
	}
	again["Last-Event-ID"] = "99999"
	if resp := r.request(http.MethodGet, url+"/mcp", "", again); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an event that never was: got %s, want 400", resp.Status)
	}
}

func TestAPanicOfTheTransportIsAnsweredWithAnID(t *testing.T) {
	r := newRig(t, nowhere)
	r.MCP().AddNotificationHandler("notifications/boom", func(context.Context, mcp.JSONRPCNotification) { panic("the inner life") })
	url := r.serve()
	resp := r.modernPost(url, nil, "notifications/boom", "")
	text := r.body(resp)
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(text, "inner life") || !strings.Contains(text, "internal error ") {
		t.Errorf("got %s: %s, want 500 and an id", resp.Status, text)
	}
	if !bugID.MatchString(r.written()) {
		t.Errorf("the panic is not in the log:\n%s", r.written())
	}
}

// The name of the mark that holds results back is no way to swallow a message.
func TestAMessageThatLooksLikeAMarkGoesOut(t *testing.T) {
	r := newRig(t, nowhere)
	r.tool("mark", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		err := r.MCP().SendNotificationToClient(ctx, "notifications/enlist/settled", map[string]any{"id": "made up"})
		return mcp.NewToolResultText(`"method":"notifications/enlist/settled"`), err
	})
	got := r.messages(r.modernPost(r.serve(), 1, "tools/call", `"name":"mark"`))
	if len(got) != 2 || got[0].Params["id"] != "made up" || got[1].ID != 1.0 {
		t.Errorf("got %+v, want the notification and the result", got)
	}
}
