package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
)

// Default: at the end of the input the calls under way lose their answers.
func TestDefaultCallsUnderWayAreAnsweredAtTheEndOfTheInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		release := make(chan struct{})
		r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			select {
			case <-release:
				return mcp.NewToolResultText("done"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		c := r.openStdio(t.Context())
		const calls = 10
		for i := range calls {
			c.send(message(i, "tools/call", `"name":"wait"`))
		}
		c.in.Close()
		synctest.Wait() // everybody waits, for nothing but release
		select {
		case err := <-c.ended:
			t.Fatalf("it has ended (%v), with %d calls under way", err, calls)
		default:
		}
		close(release)
		var ids []int
		for range calls {
			m := c.next()
			if m.Error != nil || m.Result.IsError {
				t.Errorf("got %+v, want the result", m)
			}
			ids = append(ids, int(m.ID.(float64)))
		}
		slices.Sort(ids)
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(ids, want) {
			t.Errorf("answered: got %v, want %v", ids, want)
		}
		if err := <-c.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStdioAnswersInTheOrderOfTheQuestions(t *testing.T) {
	r := newRig(t, nowhere)
	var in []string
	for i := range 50 {
		in = append(in, message(i, []string{"ping", "tools/list", "no/such"}[i%3], ""))
	}
	for i, m := range r.pipe(strings.Join(in, "\n")) {
		if m.ID != float64(i) {
			t.Fatalf("answer %d: got %+v", i, m)
		}
	}
}

func TestStdioSurvivesNonsense(t *testing.T) {
	r := newRig(t, nowhere)
	for _, tc := range []struct {
		name string
		in   string
		code int // 0: no answer
	}{
		{"words", "this is not JSON", mcp.PARSE_ERROR},
		{"cut short", `{"jsonrpc":"2.0","id":1`, mcp.PARSE_ERROR},
		{"two in a line", message(1, "ping", "") + message(2, "ping", ""), mcp.PARSE_ERROR},
		{"a batch", "[" + message(1, "ping", "") + "," + message(2, "ping", "") + "]", mcp.INVALID_REQUEST},
		{"an empty batch", " []", mcp.INVALID_REQUEST},
		{"half a batch", "[" + message(1, "ping", ""), mcp.PARSE_ERROR},
		{"a string", `"ping"`, mcp.PARSE_ERROR},
		{"not UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xffng\"}", mcp.PARSE_ERROR},
		{"bytes", "\x00\x01\x02", mcp.PARSE_ERROR},
		{"another version", `{"jsonrpc":"1.0","id":1,"method":"ping"}`, mcp.INVALID_REQUEST},
		{"no method", `{"jsonrpc":"2.0","id":1}`, mcp.METHOD_NOT_FOUND},
		{"an unknown method", message(1, "tools/steal", ""), mcp.METHOD_NOT_FOUND},
		{"an unknown tool", message(1, "tools/call", `"name":"steal"`), mcp.INVALID_PARAMS},
		{"parameters of another type", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}`, mcp.INVALID_REQUEST},
		{"an empty line", "", 0},
		{"an answer to nothing", `{"jsonrpc":"2.0","id":1,"result":{}}`, 0},
		{"an error to nothing", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`, 0},
		{"an unknown notification", message(nil, "notifications/steal", ""), 0},
		{"a cancellation of nothing", message(nil, "notifications/cancelled", `"requestId":99`), 0},
		{"deep nesting", `{"jsonrpc":"2.0","id":1,"method":"ping","params":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`, mcp.PARSE_ERROR},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := r.pipe(tc.in + "\r\n" + message(99, "ping", "")) // the last line has no end
			isPong := func(m rpc) bool { return m.ID == 99.0 && m.Error == nil }
			if !slices.ContainsFunc(got, isPong) {
				t.Errorf("got %+v, want the answer to ping among it", got)
			}
			got = slices.DeleteFunc(got, isPong) // which may have been faster
			switch {
			case tc.code == 0 && len(got) != 0:
				t.Errorf("got %+v, want no answer", got)
			case tc.code != 0 && (len(got) != 1 || got[0].Error == nil || got[0].Error.Code != tc.code):
				t.Errorf("got %+v, want the error %d", got, tc.code)
			}
		})
	}
}

func TestStdioCancelsACall(t *testing.T) {
	r := newRig(t, nowhere)
	began := make(chan struct{})
	r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		close(began)
		<-ctx.Done()
		return mcp.NewToolResultError("cancelled"), nil
	})
	c := r.openStdio(t.Context())
	c.send(message(7, "tools/call", `"name":"wait"`))
	<-began
	c.send(message(nil, "notifications/cancelled", `"requestId":7`))
	if got := c.next(); got.ID != 7.0 || !got.Result.IsError {
		t.Errorf("got %+v, want the cancelled call", got)
	}
}

// What a service issues while the program is told to stop is still to be
// stored: a call under way goes on for a while, and is cancelled then.
func TestStdioGivesCallsTheirTimeWhenItIsTold(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		want  string
	}{
		"a call that ends soon":    {time.Second, "done"},
		"a call that does not end": {time.Hour, "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nowhere)
				began := make(chan struct{})
				r.tool("wait", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
					close(began)
					select {
					case <-time.After(test.takes):
						return mcp.NewToolResultText("done"), nil
					case <-ctx.Done():
						return mcp.NewToolResultText("cancelled"), nil
					}
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				c := r.openStdio(ctx)
				c.send(message(7, "tools/call", `"name":"wait"`))
				<-began
				cancel(errors.New("a signal"))
				got := c.next()
				if text, err := json.Marshal(got.Result); got.ID != 7.0 || err != nil || !strings.Contains(string(text), test.want) {
					t.Errorf("the call under way: got %s, want it to be answered with %q", text, test.want)
				}
				if err := <-c.ended; err != nil {
					t.Errorf("got %v, want no error", err)
				}
			})
		})
	}
}

func TestStdioEndsAlsoWhenTheClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nowhere)
		ctx, cancel := context.WithCancel(t.Context())
		in, clientOut := io.Pipe()
		clientIn, out := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- r.ServeStdio(ctx, in, out) }()
		go func() { // until the server reads no more
			for i := 0; ; i++ {
				if _, err := io.WriteString(clientOut, message(i, "tools/list", "")+"\n"); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not read") {
			t.Errorf("got %v, want that the client does not read", err)
		}
		in.Close()
		clientIn.Close()
	})
}

func TestStdioEndsWithItsStreams(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		in   io.Reader
		out  io.Writer
	}{
		{"the input breaks", io.MultiReader(strings.NewReader(message(1, "ping", "")+"\n"), iotest.ErrReader(broken)), io.Discard},
		{"the output breaks", io.MultiReader(strings.NewReader(message(1, "ping", "")+"\n"), neverEnding{t.Context()}), failing{broken}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, nowhere)
			if err := r.ServeStdio(t.Context(), tc.in, tc.out); !errors.Is(err, broken) {
				t.Errorf("got %v, want %v", err, broken)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// neverEnding is an input without anything in it, until the test ends.
type neverEnding struct{ ctx context.Context }

func (n neverEnding) Read([]byte) (int, error) {
	<-n.ctx.Done()
	return 0, io.EOF
}

func TestStdioTakesMoreCallsThanRunAtOnce(t *testing.T) {
	r := newRig(t, nowhere)
	var in []string
	for i := range 200 {
		in = append(in, message(i, "tools/call", `"name":"list_credentials"`))
	}
	seen := map[string]bool{}
	for _, m := range r.pipe(strings.Join(in, "\n")) {
		seen[fmt.Sprint(m.ID)] = true
	}
	if len(seen) != 200 {
		t.Errorf("got %d answers, want 200", len(seen))
	}
}

// A panic outside of a tool is answered too.
func TestStdioAnswersAPanicWithAnID(t *testing.T) {
	r := newRig(t, nowhere)
	r.MCP().AddNotificationHandler("notifications/boom", func(context.Context, mcp.JSONRPCNotification) { panic("the inner life") })
	got := r.pipe(message(nil, "notifications/boom", "") + "\n" + message(2, "ping", ""))
	if len(got) != 1 || got[0].ID != 2.0 {
		t.Errorf("got %+v, want the answer to ping", got)
	}
	if !bugID.MatchString(r.written()) {
		t.Errorf("the panic is not in the log:\n%s", r.written())
	}
}

// Whatever a client writes, the server goes on, and every line that it writes
// is a message.
func FuzzStdio(f *testing.F) {
	for _, seed := range []string{
		"nonsense", "{}", message(1, "initialize", initialize), message(1, "tools/list", ""), modernMessage(1, "server/discover", ""),
		message(1, "tools/call", `"name":"list_credentials"`), message(1, "tools/call", `"name":"forget_credential","arguments":[]`),
		`{"jsonrpc":"2.0","id":{},"method":"ping"}`, message(nil, "notifications/cancelled", `"requestId":1`), "\x00\n\xff\r\n[]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newRig(t, nowhere)
		got := r.pipe(string(in) + "\n" + message(`"the last one"`, "ping", ""))
		if !slices.ContainsFunc(got, func(m rpc) bool { return m.ID == "the last one" }) {
			t.Errorf("got %+v, want the answer to ping", got)
		}
	})
}
