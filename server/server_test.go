package server_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// nowhere is an origin at which nobody listens.
const nowhere = "http://127.0.0.1:1"

// Every client of mcp-go's, in both eras, over every transport.
func TestClientsOfBothErasGetTheTools(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	header := map[string]string{"Authorization": "Bearer " + bearer}
	for _, tc := range []struct {
		name    string
		connect func(...mcpclient.ClientOption) *mcpclient.Client
		eras    []string
	}{
		{"in process", func(o ...mcpclient.ClientOption) *mcpclient.Client {
			return must(mcpclient.NewInProcessClientWithOptions(r.MCP(), o...))
		}, []string{legacy, modern}},
		{"streamable HTTP", func(o ...mcpclient.ClientOption) *mcpclient.Client {
			return mcpclient.NewClient(must(transport.NewStreamableHTTP(url+"/mcp", transport.WithHTTPHeaders(header))), o...)
		}, []string{legacy, modern}},
		{"SSE", func(o ...mcpclient.ClientOption) *mcpclient.Client {
			return mcpclient.NewClient(must(transport.NewSSE(url+"/sse", transport.WithHeaders(header))), o...)
		}, []string{legacy}},
		{"stdio", func(o ...mcpclient.ClientOption) *mcpclient.Client {
			c := r.openStdio(context.Background())
			return mcpclient.NewClient(transport.NewIO(c.reader(), c.in, http.NoBody), o...)
		}, []string{legacy, modern}},
	} {
		for _, era := range tc.eras {
			t.Run(tc.name+" "+era, func(t *testing.T) {
				c := tc.connect(mcpclient.WithProtocolVersion(era))
				t.Cleanup(func() { c.Close() })
				if err := c.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				hello, err := c.Initialize(t.Context(), mcp.InitializeRequest{})
				if err != nil {
					t.Fatal(err)
				}
				if got := c.ProtocolVersion(); got != era {
					t.Errorf("protocol version: got %s, want %s", got, era)
				}
				if hello.ServerInfo.Name != "enlist" || hello.ServerInfo.Version != "1.2.3" {
					t.Errorf("server: got %+v", hello.ServerInfo)
				}
				if hello.Capabilities.Tools == nil || hello.Capabilities.Tools.ListChanged {
					t.Errorf("capabilities: got %+v, want tools that do not change", hello.Capabilities)
				}
				for _, want := range []string{"list_credentials first", "lona_register_agent", "send_request", "Never ask the person for a key", "next_step"} {
					if !strings.Contains(hello.Instructions, want) {
						t.Errorf("instructions: got %q, want %q in it", hello.Instructions, want)
					}
				}
				list, err := c.ListTools(t.Context(), mcp.ListToolsRequest{})
				if want := len(tools.All(tools.Deps{})); err != nil || len(list.Tools) != want {
					t.Fatalf("tools: got %+v, %v, want %d", list, err, want)
				}
				req := mcp.CallToolRequest{}
				req.Params.Name = "list_credentials"
				res, err := c.CallTool(t.Context(), req)
				if err != nil || res.IsError || !strings.Contains(mcp.GetTextFromContent(res.Content[0]), `"handle":"lona/my-agent"`) {
					t.Errorf("list_credentials: got %+v, %v", res, err)
				}
			})
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNewRefusesWhatItCannotWorkWith(t *testing.T) {
	c, err := gateway.New(gateway.Options{Store: credstore.NewMemory(time.Now), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(server.Config{Client: c}); err == nil {
		t.Error("without a clock: got no error")
	}
	if _, err := server.New(server.Config{Now: time.Now}); err == nil {
		t.Error("without a client: got no error")
	}
}

// A slow service must not keep a client from starting. A call waits: it may be
// about what is being registered.
func TestStartUpRegistrationDelaysCallsOnly(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	const issued = "lona_partner_startup-agent_abc123xyz456_AnotherSecret123"
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"data":{"token":"` + issued + `","permissions":["*"],"expires_at":"2026-03-08T12:34:56.789Z"}}`))
	}))
	t.Cleanup(service.Close)
	r := newRig(t, service.URL, "LONA_AGENT_ID=startup-agent")
	c := r.openStdio(t.Context())
	<-asked // it has begun, before any message
	c.send(message(1, "initialize", initialize), message(2, "tools/list", ""))
	if got := c.next(); got.ID != 1.0 || got.Error != nil {
		t.Errorf("initialize: got %+v", got)
	}
	if got := c.next(); got.ID != 2.0 || got.Error != nil {
		t.Errorf("tools/list: got %+v", got)
	}
	c.send(message(3, "tools/call", `"name":"list_credentials","arguments":{}`))
	close(release)
	if got := c.next(); got.ID != 3.0 || got.Result.IsError || !strings.Contains(r.written(), `"handle":"lona/startup-agent"`) {
		t.Errorf("list_credentials: got %+v, want it to know of startup-agent", got)
	}
	c.in.Close() // at the end of the input it is waited for
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
	list, err := r.store.List(t.Context(), "lona")
	if err != nil || len(list) != 2 || list[1].Agent != "startup-agent" {
		t.Errorf("stored: got %+v, %v, want startup-agent too", list, err)
	}
	if strings.Contains(r.written(), issued) {
		t.Error("the issued token was written")
	}
}

func TestStartUpRegistrationThatFailsIsLogged(t *testing.T) {
	r := newRig(t, nowhere, "LONA_AGENT_ID=startup-agent")
	if got := r.pipe(message(1, "ping", "")); len(got) != 1 || got[0].Error != nil {
		t.Errorf("ping: got %+v", got)
	}
	if !strings.Contains(r.written(), "start-up registration failed") {
		t.Errorf("the log does not say so:\n%s", r.written())
	}
}

var bugID = regexp.MustCompile(`bug_id=([a-z2-7]{10})`)

// No tool of ours holds a secret. Here is one that does.
func TestASecretInAResultIsTakenOut(t *testing.T) {
	for _, tc := range []struct {
		name   string
		secret string
	}{
		{"a stored token", storedToken},
		{"a token that is stored nowhere", "lona_partner_someone_abc123xyz456_OtherSecret456"},
		{"an invite", "lona_invite_AbCdEf1234567890"},
		{"a stored token in base64", base64.StdEncoding.EncodeToString([]byte("x" + storedToken))},
		{"a secret without a shape", settingSecret},
		{"a stored token that JSON hides", strings.ReplaceAll(storedToken, "_", `\u005f`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nowhere)
			r.tool("leak", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				res := mcp.NewToolResultStructuredOnly(map[string]any{"token": tc.secret, "fine": "<&>"})
				return res, nil
			})
			got := r.pipe(message(1, "tools/call", `"name":"leak"`))
			if len(got) != 1 || got[0].Error != nil {
				t.Fatalf("got %+v, want a result", got)
			}
			if res := got[0].Result; !res.IsError && res.StructuredContent["fine"] != "<&>" {
				t.Errorf("got %+v, want the rest as it was, or an error", res)
			}
			if strings.Contains(r.written(), tc.secret) {
				t.Errorf("it was written:\n%s", r.written())
			}
			if !strings.Contains(r.written(), "a secret was in a result") || !bugID.MatchString(r.written()) {
				t.Errorf("it was not logged as a bug:\n%s", r.written())
			}
		})
	}
}

// The panic, the error and the notification of a tool, and a JSON-RPC error
// that repeats what a client sent.
func TestASecretIsTakenOutOfWhateverElseGoesOut(t *testing.T) {
	r := newRig(t, nowhere)
	r.tool("panic", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		panic("at the disco, with " + storedToken)
	})
	r.tool("error", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return nil, errors.New("cannot use " + storedToken)
	})
	r.tool("notify", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		err := r.MCP().SendNotificationToClient(ctx, "notifications/message", map[string]any{"data": storedToken + " " + settingSecret})
		return mcp.NewToolResultText("done"), err
	})
	got := r.pipe(strings.Join([]string{
		message(1, "initialize", initialize),
		message(2, "tools/call", `"name":"panic"`),
		message(3, "tools/call", `"name":"error"`),
		message(4, "tools/call", `"name":"notify"`),
		message(5, "tools/call", `"name":"`+storedToken+`"`),
	}, "\n"))
	if len(got) != 6 {
		t.Fatalf("got %d messages, want five answers and a notification: %+v", len(got), got)
	}
	for _, m := range got {
		if m.Method == "notifications/message" && m.Params["data"] != "lona_partner_my-agent_… [redacted]" {
			t.Errorf("notification: got %+v", m)
		}
	}
	if strings.Contains(r.written(), storedToken) {
		t.Error("it was written")
	}
}

// A keyring that hangs holds no answer for longer than the redactor's own
// bound, and what looks like a secret is masked all the same.
func TestAStoreThatHangsDoesNotHoldAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		r.tool("tell", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return mcp.NewToolResultText("here: " + storedToken), nil
		})
		r.store.hangs.Store(true)
		begin := time.Now()
		got := r.pipe(message(1, "initialize", initialize) + "\n" + message(2, "tools/call", `"name":"tell"`))
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it took %s, want 2s", took)
		}
		if len(got) != 2 || len(got[1].Result.Content) != 1 || got[1].Result.Content[0].Text != "here: lona_partner_my-agent_…" {
			t.Errorf("got %+v, want the text with the token masked", got)
		}
	})
}

// The same over HTTP, where a message goes through mcp-go's own writers.
func TestASecretIsTakenOutOverHTTP(t *testing.T) {
	r := newRig(t, nowhere)
	r.tool("notify", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		err := r.MCP().SendNotificationToClient(ctx, "notifications/message", map[string]any{"data": storedToken + " " + settingSecret})
		return mcp.NewToolResultText("done"), err
	})
	url := r.serve()
	session := r.session(url)
	s := r.openSSE(url)
	s.post(message(0, "initialize", initialize))
	s.next()
	s.post(message(1, "tools/call", `"name":"notify"`))
	unknown := `"name":"` + storedToken + `"`
	for name, got := range map[string][]rpc{
		"with a session":   r.messages(r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", `"name":"notify"`), session)),
		"without sessions": r.messages(r.modernPost(url, 1, "tools/call", `"name":"notify"`)),
		"SSE":              {s.next(), s.next()},
	} {
		if len(got) != 2 || got[0].Params["data"] != "lona_partner_my-agent_… [redacted]" {
			t.Errorf("%s: got %+v, want a notification without secrets", name, got)
		}
	}
	got := r.messages(r.request(http.MethodPost, url+"/mcp", message(2, "tools/call", unknown), session))
	if len(got) != 1 || got[0].Error == nil || !strings.Contains(got[0].Error.Message, "lona_partner_my-agent_…") {
		t.Errorf("an unknown tool: got %+v, want an error without the secret", got)
	}
	if resp := r.request(http.MethodPost, url+"/mcp", message(3, "ping", ""), map[string]string{"Mcp-Protocol-Version": storedToken}); strings.Contains(r.body(resp), storedToken) {
		t.Error("an unknown version: the secret was repeated")
	}
}

// Whatever a call waits for, it ends before the client gives up.
func TestACallThatTakesTooLongEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		var took time.Duration
		r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			deadline, _ := ctx.Deadline()
			took = time.Until(deadline)
			<-ctx.Done()
			return mcp.NewToolResultError(ctx.Err().Error()), nil
		})
		if got := r.pipe(message(1, "tools/call", `"name":"wait"`)); len(got) != 1 || got[0].ID != 1.0 {
			t.Errorf("got %+v, want an answer", got)
		}
		if took <= 0 || took > 30*time.Second {
			t.Errorf("it took %s, want at most 30 s", took)
		}
	})
}
