package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
)

// human answers the questions of a client. Its zero value does not answer.
type human struct {
	answer mcp.ElicitationResponseAction
	filled map[string]any // what stands in the form
	wait   chan struct{}  // answers when it is closed; nil: at once

	mu    sync.Mutex
	asked []string
	left  time.Duration // how long there was for the last answer
	came  chan struct{} // gets one for each question; nil: does not
}

// Elicit implements [mcpclient.ElicitationHandler].
func (h *human) Elicit(ctx context.Context, r mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	h.mu.Lock()
	h.asked = append(h.asked, r.Params.Message)
	if until, ok := ctx.Deadline(); ok {
		h.left = time.Until(until)
	}
	h.mu.Unlock()
	if h.came != nil {
		h.came <- struct{}{}
	}
	if h.answer == "" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if h.wait != nil {
		<-h.wait
	}
	filled := h.filled
	if filled == nil {
		filled = map[string]any{}
	}
	return &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: h.answer, Content: filled}}, nil
}

func (h *human) questions() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// connect connects a client to the rig over a transport in an era. h is who sits
// before it; nil: the client cannot ask anybody.
func (r *rig) connect(over, version string, h *human) *mcpclient.Client {
	r.t.Helper()
	options := []mcpclient.ClientOption{mcpclient.WithProtocolVersion(version)}
	if h != nil {
		options = append(options, mcpclient.WithElicitationHandler(h))
	}
	var c *mcpclient.Client
	switch over {
	case "in process":
		var err error
		if c, err = mcpclient.NewInProcessClientWithOptions(r.MCP(), options...); err != nil {
			r.t.Fatal(err)
		}
	case "stdio":
		s := r.openStdio(r.t.Context())
		c = mcpclient.NewClient(transport.NewIO(s.reader(), s.in, io.NopCloser(strings.NewReader(""))), options...)
	case "http":
		tr, err := transport.NewStreamableHTTP(r.serve()+"/mcp", transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + bearer}))
		if err != nil {
			r.t.Fatal(err)
		}
		c = mcpclient.NewClient(tr, options...)
	case "sse":
		tr, err := transport.NewSSE(r.serve()+"/sse", transport.WithHeaders(map[string]string{"Authorization": "Bearer " + bearer}))
		if err != nil {
			r.t.Fatal(err)
		}
		c = mcpclient.NewClient(tr, options...)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	request := mcp.InitializeRequest{}
	request.Params.ProtocolVersion = version
	request.Params.ClientInfo = mcp.Implementation{Name: "Test Client", Version: "7.8.9"}
	if _, err := c.Initialize(r.t.Context(), request); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// tryForget has a client forget the credential of a rig, and returns the code of
// the failure, or "".
func tryForget(ctx context.Context, t *testing.T, c *mcpclient.Client) (code, text string) {
	t.Helper()
	return try(ctx, t, c, "forget_credential", map[string]any{"credential": "lona/my-agent"})
}

// try has a client call a tool.
func try(ctx context.Context, t *testing.T, c *mcpclient.Client, tool string, arguments map[string]any) (code, text string) {
	t.Helper()
	request := mcp.CallToolRequest{}
	request.Params.Name, request.Params.Arguments = tool, arguments
	res, err := c.CallTool(ctx, request)
	if err != nil {
		t.Error(err)
		return "error", err.Error()
	}
	raw, err := json.Marshal(res.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Code string }
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return f.Code, string(raw)
}

// outcomes returns what the audit trail has of forgetting.
func (r *rig) outcomes() string {
	r.t.Helper()
	events, err := r.client.Lifecycle.Audit(context.Background(), time.Time{}, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, e := range events {
		if e.Action == gateway.ActForget {
			all = append(all, strings.TrimSuffix(fmt.Sprintf("%s %s %s:%s", e.Client, e.Version, e.Outcome, e.Code), ":"))
		}
	}
	return strings.Join(all, ", ")
}

func (r *rig) stored() bool {
	_, err := r.store.Get(context.Background(), credstore.Key{Protocol: "lona", Origin: r.client.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken})
	return err == nil
}

func TestAPersonIsAsked(t *testing.T) {
	const who = "Test Client 7.8.9 "
	for _, over := range []string{"in process", "stdio", "http"} {
		for _, version := range []string{legacy, "2025-11-25", modern} {
			for name, tt := range map[string]struct {
				human *human
				code  string
				audit string
			}{
				"yes":     {&human{answer: mcp.ElicitationResponseActionAccept}, "", who + "approved, " + who + "done"},
				"no":      {&human{answer: mcp.ElicitationResponseActionDecline}, "approval_declined", who + "refused:approval_declined"},
				"neither": {&human{answer: mcp.ElicitationResponseActionCancel}, "approval_unanswered", who + "refused:approval_unanswered"},
				"nobody":  {nil, "approval_needed", who + "refused:approval_needed"},
			} {
				t.Run(over+"/"+version+"/"+name, func(t *testing.T) {
					r := newRig(t, "https://gateway.lona.agency")
					c := r.connect(over, version, tt.human)
					code, text := tryForget(t.Context(), t, c)
					if code != tt.code || r.stored() != (tt.code != "") {
						t.Fatalf("got %q (%s), stored %v; want %q", code, text, r.stored(), tt.code)
					}
					if got := r.outcomes(); got != tt.audit {
						t.Errorf("audit: got %q, want %q", got, tt.audit)
					}
					if tt.human == nil {
						for _, want := range []string{"policy.toml", `forget = \"allow\"`, "enlist forget lona/my-agent"} {
							if !strings.Contains(text, want) {
								t.Errorf("got %s, want it to say %s", text, want)
							}
						}
						return
					}
					want := `[Enlist: Delete the credential of the agent "my-agent" at https://gateway.lona.agency from this machine for good? The service is not told.]`
					if got := fmt.Sprint(tt.human.questions()); got != want {
						t.Errorf("asked %s, want %s", got, want)
					}
				})
			}
		}
	}
}

func TestAPersonIsAskedBeforeAnAgentRegistersSomewhereNew(t *testing.T) {
	r := newRig(t, "https://gateway.lona.agency")
	if err := r.store.Delete(t.Context(), credstore.Key{Protocol: "lona", Origin: r.client.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken}); err != nil {
		t.Fatal(err)
	}
	h := &human{answer: mcp.ElicitationResponseActionDecline}
	c := r.connect("stdio", modern, h)
	code, text := try(t.Context(), t, c, "lona_register_agent", map[string]any{"agent_id": "scout", "agent_name": "Scout. Say yes!"})
	if got := fmt.Sprint(h.questions()); code != "approval_declined" || got != `[Enlist: Register the agent "scout" at https://gateway.lona.agency?]` {
		t.Errorf("got %q (%s) after %s, want that the person was asked and declined", code, text, got)
	}
}

func TestAnSSEClientCannotBeAsked(t *testing.T) {
	r := newRig(t, "https://gateway.lona.agency")
	h := &human{answer: mcp.ElicitationResponseActionAccept}
	c := r.connect("sse", legacy, h)
	if code, text := tryForget(t.Context(), t, c); code != "approval_needed" || len(h.questions()) != 0 || !r.stored() {
		t.Errorf("got %q (%s) after %v, want approval_needed", code, text, h.questions())
	}
}

func TestACallToAScriptIsNotAsked(t *testing.T) {
	r := newRigWith(t, server.Config{Caller: gateway.CallerScript}, "https://gateway.lona.agency")
	h := &human{answer: mcp.ElicitationResponseActionDecline}
	if code, text := tryForget(t.Context(), t, r.connect("in process", legacy, h)); code != "" || len(h.questions()) != 0 {
		t.Errorf("got %q (%s) after %v, want it forgotten", code, text, h.questions())
	}
}

func TestAQuestionThatNobodyAnswers(t *testing.T) {
	for _, over := range []string{"in process", "stdio", "http"} {
		r := newRigWith(t, server.Config{AskTime: time.Millisecond}, "https://gateway.lona.agency")
		c := r.connect(over, legacy, &human{})
		if code, text := tryForget(t.Context(), t, c); code != "approval_unanswered" || !r.stored() {
			t.Errorf("%s: got %q (%s), want that nobody answered", over, code, text)
		}
	}
}

// TestManyQuestionsAtOnce asks more at once than there are places for calls: the
// answers must be read all the same.
func TestManyQuestionsAtOnce(t *testing.T) {
	r := newRig(t, "https://gateway.lona.agency")
	const n = 40
	h := &human{answer: mcp.ElicitationResponseActionDecline, wait: make(chan struct{}), came: make(chan struct{}, n)}
	c := r.connect("stdio", legacy, h)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	codes := map[string]int{}
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			code, _ := tryForget(ctx, t, c)
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	for range 16 { // as many as are asked at once
		<-h.came
	}
	request := mcp.CallToolRequest{}
	request.Params.Name = "list_credentials"
	if _, err := c.CallTool(ctx, request); err != nil {
		t.Errorf("a call beside the questions: %v", err)
	}
	close(h.wait)
	calls.Wait()
	if codes["approval_declined"] < 16 || codes["approval_declined"]+codes["approval_unanswered"] != n || !r.stored() {
		t.Errorf("got %v, want %d of them declined or not asked", codes, n)
	}
}

func TestAQuestionEndsWithItsClient(t *testing.T) {
	ask := message(2, "tools/call", `"name":"forget_credential","arguments":{"credential":"lona/my-agent"}`)
	begin := message(1, "initialize", `"protocolVersion":"`+legacy+`","capabilities":{"elicitation":{}},"clientInfo":{"name":"t","version":"1"}`)
	t.Run("at the end of the input", func(t *testing.T) {
		r := newRig(t, "https://gateway.lona.agency")
		got := r.pipe(begin + "\n" + ask + "\n")
		if last := got[len(got)-1]; last.Result.StructuredContent["code"] != "approval_unanswered" || !r.stored() {
			t.Errorf("got %+v, want that nobody answered", last)
		}
	})
	t.Run("when it cancels", func(t *testing.T) {
		r := newRig(t, "https://gateway.lona.agency")
		c := r.openStdio(t.Context())
		c.send(begin)
		c.next()
		c.send(ask)
		question := c.next()
		if question.Method != "elicitation/create" {
			t.Fatalf("got %+v, want the question", question)
		}
		c.send(message(nil, "notifications/cancelled", `"requestId":2`), message(3, "ping", ""))
		c.next()
		// An answer after that is to nothing.
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%v,"result":{"action":"accept","content":{}}}`, question.ID), message(4, "ping", ""))
		c.next()
		if err := c.in.Close(); err != nil {
			t.Fatal(err)
		}
		for c.lines.Scan() { // to the end, so that all that is under way has ended
		}
		if got := r.outcomes(); !r.stored() || got != "t 1 refused:approval_unanswered" {
			t.Errorf("audit: got %q, stored %v; want a refusal", got, r.stored())
		}
	})
	t.Run("when the server stops", func(t *testing.T) {
		r := newRig(t, "https://gateway.lona.agency")
		h := &human{came: make(chan struct{}, 1)}
		c := r.connect("http", legacy, h)
		done := async(func() string { code, _ := tryForget(t.Context(), t, c); return code })
		<-h.came
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.Drain(ctx); err != nil {
			t.Error(err)
		}
		if code := <-done; code != "approval_unanswered" || !r.stored() {
			t.Errorf("got %q, want that nobody answered", code)
		}
	})
}

// TestWhileAPersonThinks: neither the limit of a call nor a lock is held up.
func TestWhileAPersonThinks(t *testing.T) {
	r := newRig(t, "https://gateway.lona.agency")
	h := &human{answer: mcp.ElicitationResponseActionAccept, wait: make(chan struct{}), came: make(chan struct{}, 1)}
	c := r.connect("in process", legacy, h)
	done := async(func() string { code, _ := tryForget(t.Context(), t, c); return code })
	<-h.came
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	unlock, err := r.store.Lock(ctx, credstore.Key{Protocol: "lona", Origin: r.client.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken})
	if err != nil {
		t.Fatalf("the lock is held: %v", err)
	}
	unlock()
	h.mu.Lock()
	left := h.left
	h.mu.Unlock()
	if left < time.Minute || left > 10*time.Minute {
		t.Errorf("the person has %v, want some minutes", left)
	}
	close(h.wait)
	if code := <-done; code != "" || r.stored() {
		t.Errorf("got %q, want it forgotten", code)
	}
}

func TestAPolicyIsReadAgainWhileTheServerRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), gateway.PolicyFile)
	r := newRig(t, "https://gateway.lona.agency", "policy="+path)
	c := r.connect("stdio", legacy, nil)
	for _, step := range []struct{ policy, code string }{
		{`forget = "deny"`, "policy"},
		{`forget = "ask"`, "approval_needed"},
		{`forget = `, "policy"},
		{`forget = "allow"`, ""},
	} {
		if err := errors.Join(os.WriteFile(path+".new", []byte(step.policy), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		if code, text := tryForget(t.Context(), t, c); code != step.code {
			t.Errorf("%s: got %q (%s), want %q", step.policy, code, text, step.code)
		}
	}
}

// TestWhatAnswersANewQuestion plays a client of the stateless era by hand.
func TestWhatAnswersANewQuestion(t *testing.T) {
	r := newRig(t, "https://gateway.lona.agency")
	url := r.serve()
	header := map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "forget_credential"}
	call := func(arguments, more string) map[string]any {
		t.Helper()
		meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + modern + `","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}`
		body := message(1, "tools/call", meta+`,"name":"forget_credential","arguments":`+arguments+more)
		resp := r.request(http.MethodPost, url+"/mcp", body, header)
		var m struct{ Result map[string]any }
		text := r.body(resp)
		for line := range strings.Lines(text) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				text = data
			}
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		return m.Result
	}
	answer := func(id string) string {
		return `,"inputResponses":{"` + id + `":{"action":"accept","content":{}}}`
	}
	code := func(result map[string]any) any {
		content, _ := result["structuredContent"].(map[string]any)
		return content["code"]
	}
	const mine, other = `{"credential":"lona/my-agent"}`, `{}`
	ask := func() string {
		t.Helper()
		result := call(mine, "")
		requests, _ := result["inputRequests"].(map[string]any)
		if result["resultType"] != "input_required" || len(requests) != 1 {
			t.Fatalf("got %v, want a question", result)
		}
		for id := range requests {
			return id
		}
		return ""
	}

	if got := code(call(mine, answer("invented"))); got != "approval_unanswered" {
		t.Errorf("an answer to nothing: got %v", got)
	}
	id := ask()
	if got := code(call(other, answer(id))); got != "approval_unanswered" || !r.stored() {
		t.Errorf("an answer for other arguments: got %v", got)
	}
	if got := code(call(` { "credential" : "lona/my-agent" } `, answer(id))); got != nil || r.stored() {
		t.Errorf("the answer: got %v, want it forgotten", got)
	}
	if err := r.store.Put(t.Context(), credstore.Credential{Secret: credstore.NewSecret(storedToken), Info: credstore.Info{
		State: credstore.StateActive, Key: credstore.Key{Protocol: "lona", Origin: r.client.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken},
	}}); err != nil {
		t.Fatal(err)
	}
	if got := code(call(mine, answer(id))); got != "approval_unanswered" || !r.stored() {
		t.Errorf("the same answer once more: got %v", got)
	}

	// Of many that come with one answer, one is let through.
	id = ask()
	var mu sync.Mutex
	got := map[any]int{}
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			c := code(call(mine, answer(id)))
			mu.Lock()
			defer mu.Unlock()
			got[c]++
		})
	}
	calls.Wait()
	if got["approval_unanswered"]+got["no_such_credential"] != 7 || got[nil] != 1 {
		t.Errorf("got %v, want one that was let through", got)
	}
}
