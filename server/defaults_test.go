package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// One test for each of mcp-go's defaults that is not safe. What they say of a
// transport alone is in the file of that transport.

// Default: validation is off, and a handler gets zero values and unknown
// fields.
func TestDefaultArgumentsAndResultsAreValidated(t *testing.T) {
	r := newRig(t, nowhere)
	called := false
	r.MCP().AddTool(mcp.NewTool("typed", mcp.WithString("name", mcp.Required()),
		mcp.WithRawOutputSchema(json.RawMessage(`{"type":"object","properties":{"n":{"type":"integer"}}}`))),
		func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			called = true
			return mcp.NewToolResultStructuredOnly(map[string]any{"n": req.GetString("name", "")}), nil
		})
	got := r.pipe(strings.Join([]string{
		message(1, "tools/call", `"name":"lona_register_agent","arguments":{"agent_id":7}`),
		message(2, "tools/call", `"name":"list_credentials","arguments":{"verbose":true}`),
		message(3, "tools/call", `"name":"typed","arguments":{}`),
		message(4, "tools/call", `"name":"typed","arguments":{"name":"x","other":1}`),
	}, "\n"))
	for _, m := range got {
		if code := m.Result.StructuredContent["code"]; !m.Result.IsError || code != "invalid_arguments" {
			t.Errorf("got %+v, want invalid_arguments", m)
		}
	}
	if called {
		t.Error("the handler was called")
	}
	got = r.pipe(message(5, "tools/call", `"name":"typed","arguments":{"name":"x"}`))
	if len(got) != 1 || !called || !got[0].Result.IsError || got[0].Result.StructuredContent["code"] != "internal" {
		t.Errorf("a result that breaks its schema: got %+v, want internal", got)
	}
	if !strings.Contains(r.written(), "a result breaks its schema") {
		t.Errorf("it is not in the log:\n%s", r.written())
	}
}

// Default: the origin is never checked, SSE is open to every page, and
// /message runs a tool from text/plain. The whole matrix is in
// TestNobodyElseGetsIn; this is the attack.
func TestDefaultAWebPageCannotDriveTheServer(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	s := r.openSSE(url)
	foreign := map[string]string{"Origin": "https://evil.example"}
	for name, resp := range map[string]*http.Response{
		"a stream":                   r.request(http.MethodGet, url+"/sse", "", foreign),
		"a message":                  r.request(http.MethodPost, s.message, message(1, "tools/list", ""), foreign),
		"a message as text":          r.request(http.MethodPost, s.message, message(1, "tools/list", ""), map[string]string{"Content-Type": "text/plain"}),
		"a message without a token":  r.request(http.MethodPost, s.message, message(1, "tools/list", ""), map[string]string{"Authorization": ""}),
		"a preflight":                r.request(http.MethodOptions, url+"/mcp", "", foreign),
		"streamable HTTP":            r.request(http.MethodPost, url+"/mcp", message(1, "initialize", initialize), foreign),
		"a name that was made ours":  r.request(http.MethodPost, url+"/mcp", message(1, "initialize", initialize), map[string]string{"Host": "evil.example"}),
		"streamable HTTP, as a form": r.request(http.MethodPost, url+"/mcp", message(1, "initialize", initialize), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}),
	} {
		if resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("%s: got %s, want it refused", name, resp.Status)
		}
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: got Access-Control-Allow-Origin %q, want none", name, got)
		}
	}
	if got := r.request(http.MethodGet, url+"/sse", "", nil); got.StatusCode != http.StatusOK || got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a stream of our own: got %s, Access-Control-Allow-Origin %q, want none", got.Status, got.Header.Get("Access-Control-Allow-Origin"))
	}
}

// Default: a body may have any size.
func TestDefaultMessagesAreBounded(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	long := message(1, "tools/call", `"name":"list_credentials","arguments":{"x":"`+strings.Repeat("x", server.MaxMessage)+`"}`)
	if got := r.request(http.MethodPost, url+"/mcp", long, nil); got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("/mcp: got %s, want 413", got.Status)
	}
	s := r.openSSE(url)
	if got := r.request(http.MethodPost, s.message, long, nil); got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("/message: got %s, want 413", got.Status)
	}
	got := r.pipe(long + "\n" + message(2, "ping", "") + "\n")
	if len(got) != 2 || got[0].Error == nil || got[0].Error.Code != mcp.INVALID_REQUEST || got[0].ID != nil {
		t.Fatalf("stdio: got %+v, want an error for the long line", got)
	}
	if got[1].ID != 2.0 || got[1].Error != nil {
		t.Errorf("stdio: the line after it: got %+v, want an answer", got[1])
	}
}

// Default: a session id may be invented, lives on after its end, and is kept
// for ever.
func TestDefaultSessionsAreGivenOutAndEnd(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	invented := map[string]string{"Mcp-Session-Id": "mcp-session-8e2d9a3e-6f5c-4f3e-9f6a-0d6c1c7b0b11"}
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
		if got := r.request(method, url+"/mcp", message(1, "tools/list", ""), invented); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s with an invented session: got %s, want 404", method, got.Status)
		}
		if got := r.request(method, url+"/mcp", message(1, "tools/list", ""), nil); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s without a session: got %s, want 404", method, got.Status)
		}
	}
	if got := r.request(http.MethodPost, url+"/message?sessionId=invented", message(1, "tools/list", ""), nil); got.StatusCode != http.StatusNotFound {
		t.Errorf("/message with an invented session: got %s, want 404", got.Status)
	}

	session := r.session(url)
	if got := r.request(http.MethodPost, url+"/mcp", message(2, "tools/list", ""), session); got.StatusCode != http.StatusOK {
		t.Fatalf("with a session: got %s, want 200", got.Status)
	}
	if got := r.request(http.MethodDelete, url+"/mcp", "", session); got.StatusCode != http.StatusOK {
		t.Fatalf("DELETE: got %s, want 200", got.Status)
	}
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
		if got := r.request(method, url+"/mcp", message(3, "tools/list", ""), session); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s after DELETE: got %s, want 404", method, got.Status)
		}
	}
}

func TestDefaultASessionThatNobodyUsesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		h := r.handler(server.HTTPConfig{IdleTTL: time.Hour})
		post := func(id, body string) *httptest.ResponseRecorder {
			req := httptest.NewRequest(http.MethodPost, "http://localhost/mcp", strings.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+bearer)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Mcp-Session-Id", id)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			return w
		}
		id := post("", message(1, "initialize", initialize)).Header().Get("Mcp-Session-Id")
		for range 3 { // used, it lives
			<-time.After(40 * time.Minute)
			if got := post(id, message(2, "ping", "")).Code; got != http.StatusOK {
				t.Fatalf("after 40 minutes: got %d, want 200", got)
			}
		}
		<-time.After(2 * time.Hour)
		if got := post(id, message(3, "ping", "")).Code; got != http.StatusNotFound {
			t.Errorf("after two hours: got %d, want 404", got)
		}
		if err := r.Drain(t.Context()); err != nil { // ends the sweeper, which the bubble waits for
			t.Error(err)
		}
	})
}

// Default: clients without sessions share the empty one, and one cancels the
// calls of another by their number.
func TestDefaultOneClientCannotCancelTheCallOfAnother(t *testing.T) {
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
	answer := async(func() []rpc { return r.messages(r.modernPost(url, 7, "tools/call", `"name":"wait"`)) })
	<-began
	cancel := r.modernPost(url, nil, "notifications/cancelled", `"requestId":7`)
	if cancel.StatusCode != http.StatusAccepted {
		t.Errorf("cancellation: got %s: %s", cancel.Status, r.body(cancel))
	}
	close(release)
	if got := <-answer; len(got) != 1 || got[0].Error != nil || got[0].Result.IsError {
		t.Errorf("the call of another client: got %+v, want its result", got)
	}
}

// With a session a client cancels its own call, and by the same number nobody
// else's.
func TestDefaultCancellationStaysWithinASession(t *testing.T) {
	r := newRig(t, nowhere)
	began, release := make(chan struct{}, 2), make(chan struct{})
	r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		began <- struct{}{}
		select {
		case <-release:
			return mcp.NewToolResultText("done"), nil
		case <-ctx.Done():
			return mcp.NewToolResultError("cancelled"), nil
		}
	})
	url := r.serve()
	sessions := map[string]map[string]string{"a": r.session(url), "b": r.session(url)}
	answers := make(map[string]<-chan []rpc)
	for who, session := range sessions {
		answers[who] = async(func() []rpc {
			return r.messages(r.request(http.MethodPost, url+"/mcp", message(7, "tools/call", `"name":"wait"`), session))
		})
	}
	<-began
	<-began
	r.request(http.MethodPost, url+"/mcp", message(nil, "notifications/cancelled", `"requestId":7`), sessions["a"])
	if got := <-answers["a"]; len(got) != 1 || !got[0].Result.IsError {
		t.Errorf("the cancelled call: got %+v", got)
	}
	close(release)
	if got := <-answers["b"]; len(got) != 1 || got[0].Result.IsError {
		t.Errorf("the other session's call: got %+v, want its result", got)
	}
}

// Default: what a call notifies of is lost or comes after its result when the
// handler returns at once.
func TestDefaultProgressComesBeforeItsResult(t *testing.T) {
	const notifications, calls = 5, 60
	check := func(t *testing.T, got []rpc) {
		t.Helper()
		if len(got) != notifications+1 {
			t.Fatalf("got %d messages, want %d notifications and a result: %+v", len(got), notifications, got)
		}
		for i, m := range got[:notifications] {
			if m.Method != "notifications/progress" || m.Params["progress"] != float64(i) {
				t.Errorf("message %d: got %+v, want progress %d", i, m, i)
			}
		}
		if last := got[notifications]; last.ID == nil || last.Result.IsError {
			t.Errorf("the last message: got %+v, want the result", last)
		}
	}
	const params = `"name":"progress"`
	t.Run("streamable HTTP without sessions", func(t *testing.T) {
		r := newRig(t, nowhere)
		r.progressTool(notifications)
		url := r.serve()
		for range calls {
			check(t, r.messages(r.modernPost(url, 1, "tools/call", params)))
		}
	})
	t.Run("streamable HTTP with a session", func(t *testing.T) {
		r := newRig(t, nowhere)
		r.progressTool(notifications)
		url := r.serve()
		session := r.session(url)
		for range calls {
			check(t, r.messages(r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", params), session)))
		}
	})
	t.Run("SSE", func(t *testing.T) {
		r := newRig(t, nowhere)
		r.progressTool(notifications)
		s := r.openSSE(r.serve())
		s.post(message(0, "initialize", initialize))
		s.next()
		for range calls {
			s.post(message(1, "tools/call", params))
			var got []rpc
			for range notifications + 1 {
				got = append(got, s.next())
			}
			check(t, got)
		}
	})
	t.Run("stdio", func(t *testing.T) {
		r := newRig(t, nowhere)
		r.progressTool(notifications)
		c := r.openStdio(t.Context())
		c.send(message(0, "initialize", initialize))
		c.next()
		for range calls {
			c.send(message(1, "tools/call", params))
			var got []rpc
			for range notifications + 1 {
				got = append(got, c.next())
			}
			check(t, got)
		}
	})
}

// Default: calls of one session share a channel, so that a notification can
// reach the stream of another call. So no tool of ours sends one, but for how
// far a slow answer is (TestASlowAnswerIsReported), and what might be sent is
// looked through (TestASecretIsTakenOutOfWhateverElseGoesOut).
func TestDefaultNoToolNotifies(t *testing.T) {
	r := newRig(t, nowhere)
	var calls []string
	calls = append(calls, message(0, "initialize", initialize))
	for i, tool := range []string{
		"list_credentials", "lona_list_strategies", "rotate_credential", "revoke_credential",
		"lona_register_agent", "lithtrix_register_agent", "lumina_register_agent", "fluxra_register_agent", "fluxra_verify_email", "fluxra_recover_account", "send_request", "forget_credential",
	} {
		calls = append(calls, message(i+1, "tools/call", `"name":"`+tool+`","_meta":{"progressToken":1},"arguments":{}`))
	}
	got := r.pipe(strings.Join(calls, "\n"))
	if len(got) != len(calls) {
		t.Errorf("got %d messages, want one for each of %d requests", len(got), len(calls))
	}
	for _, m := range got {
		if m.Method != "" {
			t.Errorf("got the notification %+v", m)
		}
	}
}

// Default: the text of a panic reaches the client, and an error of a handler
// becomes a JSON-RPC error that a model does not see.
func TestDefaultAPanicAndAnErrorLeaveAsAnID(t *testing.T) {
	r := newRig(t, nowhere)
	r.tool("panic", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) { panic("the inner life") })
	r.tool("error", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return nil, errors.New("the inner life")
	})
	r.tool("nothing", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) { return nil, nil })
	url := r.serve()
	s := r.openSSE(url)
	session := r.session(url)
	for _, tool := range []string{"panic", "error", "nothing"} {
		params := `"name":"` + tool + `"`
		s.post(message(1, "tools/call", params))
		for transport, got := range map[string]rpc{
			"stdio":           r.pipe(message(1, "tools/call", params))[0],
			"streamable HTTP": r.messages(r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", params), session))[0],
			"no sessions":     r.messages(r.modernPost(url, 1, "tools/call", params))[0],
			"SSE":             s.next(),
		} {
			text := fmt.Sprint(got)
			if got.Error != nil || !got.Result.IsError || got.Result.StructuredContent["code"] != "internal" || strings.Contains(text, "inner life") {
				t.Errorf("%s over %s: got %s, want internal and an id", tool, transport, text)
			}
			next := fmt.Sprint(got.Result.StructuredContent["next_step"])
			_, id, _ := strings.Cut(next, "this id: ")
			if id = strings.TrimSuffix(id, "."); len(id) != 10 || !strings.Contains(r.written(), "bug_id="+id) {
				t.Errorf("%s over %s: the id %q is not in the log", tool, transport, id)
			}
		}
	}
}

// Default: the destructive and the open-world hint are true, also of a tool
// that only reads.
func TestDefaultEveryHintIsSentOverTheWire(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	resp := r.modernPost(url, 1, "tools/list", "")
	var list struct {
		Result struct {
			Tools []struct {
				Name        string
				Annotations map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(r.body(resp)), &list); err != nil || len(list.Result.Tools) != len(tools.All(tools.Deps{})) {
		t.Fatalf("got %+v, %v, want every tool", list, err)
	}
	for _, tool := range list.Result.Tools {
		for _, hint := range []string{"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"} {
			if _, ok := tool.Annotations[hint].(bool); !ok {
				t.Errorf("%s: no %s in %v", tool.Name, hint, tool.Annotations)
			}
		}
	}
}

// Default: the stdio session is a package variable, and two servers in a
// process mix their notifications.
func TestDefaultTwoStdioClientsDoNotMix(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 {
		r := newRig(t, nowhere)
		r.progressTool(5)
		wg.Go(func() {
			for range 20 {
				if got := r.pipe(message(0, "initialize", initialize) + "\n" + message(1, "tools/call", `"name":"progress"`)); len(got) != 7 {
					t.Errorf("got %d messages, want 7: %+v", len(got), got)
				}
			}
		})
	}
	wg.Wait()
}
