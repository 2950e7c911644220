package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const slowRequest = `"name":"send_request","arguments":{"method":"GET","path":"/slow"}`

// slow is a service that sends the beginning of an answer and the rest when it
// is told to. It says when it has begun and when the client is gone.
func slow(t *testing.T) (url string, began, gone chan struct{}, rest chan struct{}) {
	began, gone, rest = make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, strings.Repeat("a", 1000))
		_ = http.NewResponseController(w).Flush()
		close(began)
		select {
		case <-rest:
			_, _ = fmt.Fprint(w, r.Header.Get("X-API-Key"))
		case <-r.Context().Done():
			close(gone)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, began, gone, rest
}

// reported checks notifications of progress until one says that a thousand
// bytes have come.
func (r *rig) reported(next func() rpc) {
	r.t.Helper()
	for n := 1; ; n++ {
		select {
		case r.ticks <- time.Time{}:
		case <-time.After(patience):
			r.t.Fatal("nobody listens to the clock")
		}
		got := next()
		said, _ := got.Params["message"].(string)
		if got.Method != "notifications/progress" || got.Params["progressToken"] != "p" || got.Params["progress"] != float64(n) || !strings.HasSuffix(said, " bytes of the answer so far") {
			r.t.Fatalf("got %+v, want progress %d", got, n)
		}
		if strings.HasPrefix(said, "1000 ") {
			return
		}
	}
}

func TestASlowAnswerIsReported(t *testing.T) {
	const asking = slowRequest + `,"_meta":{"progressToken":"p"}`
	check := func(t *testing.T, got rpc) {
		t.Helper()
		if got.ID == nil || got.Result.IsError || got.Result.StructuredContent["body"] != strings.Repeat("a", 1000)+"lona_partner_my-agent_…" {
			t.Errorf("got %+v, want the whole answer", got)
		}
	}
	t.Run("stdio", func(t *testing.T) {
		url, _, _, rest := slow(t)
		r := newRig(t, url)
		c := r.openStdio(t.Context())
		c.send(message(0, "initialize", initialize))
		c.next()
		c.send(message(1, "tools/call", asking))
		r.reported(c.next)
		close(rest)
		check(t, c.next())
	})
	t.Run("SSE", func(t *testing.T) {
		url, _, _, rest := slow(t)
		r := newRig(t, url)
		s := r.openSSE(r.serve())
		s.post(message(0, "initialize", initialize))
		s.next()
		s.post(message(1, "tools/call", asking))
		r.reported(s.next)
		close(rest)
		check(t, s.next())
	})
	for name, post := range map[string]func(*rig, string) *http.Response{
		"streamable HTTP": func(r *rig, url string) *http.Response {
			return r.request(http.MethodPost, url+"/mcp", message(1, "tools/call", asking), r.session(url))
		},
		"no sessions": func(r *rig, url string) *http.Response {
			body := strings.Replace(modernMessage(1, "tools/call", slowRequest), `"_meta":{`, `"_meta":{"progressToken":"p",`, 1)
			return r.request(http.MethodPost, url+"/mcp", body, map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "send_request"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _, _, rest := slow(t)
			r := newRig(t, url)
			server := r.serve()
			answered := async(func() *http.Response { return post(r, server) })
			// There is nothing to read before the first notification.
			select {
			case r.ticks <- time.Time{}:
			case <-time.After(patience):
				t.Fatal("nobody listens to the clock")
			}
			resp := <-answered
			events := &sse{rig: r, scanner: bufio.NewScanner(io.TeeReader(resp.Body, record{r}))}
			if got := events.next(); got.Method != "notifications/progress" || got.Params["progressToken"] != "p" || got.Params["progress"] != 1.0 {
				t.Errorf("got %+v, want progress", got)
			}
			close(rest)
			check(t, events.next())
		})
	}
	t.Run("nobody asks", func(t *testing.T) {
		url, began, _, rest := slow(t)
		r := newRig(t, url)
		c := r.openStdio(t.Context())
		c.send(message(0, "initialize", initialize))
		c.next()
		c.send(message(1, "tools/call", slowRequest))
		<-began
		select {
		case r.ticks <- time.Time{}:
			t.Error("somebody listens to the clock")
		default:
		}
		close(rest)
		check(t, c.next())
	})
}

// A client that gives up ends the request itself, and not only its call.
func TestStdioCancelsARequest(t *testing.T) {
	url, began, gone, _ := slow(t)
	r := newRig(t, url)
	c := r.openStdio(t.Context())
	c.send(message(0, "initialize", initialize))
	c.next()
	c.send(message(7, "tools/call", slowRequest))
	<-began
	c.send(message(nil, "notifications/cancelled", `"requestId":7`))
	if got := c.next(); got.ID != 7.0 || !got.Result.IsError || got.Result.StructuredContent["code"] != "cancelled" {
		t.Errorf("got %+v, want the cancelled call", got)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the request to the service goes on")
	}
}

// TestAClientOverHTTPCancelsARequest in the way of its transport: it says so, or
// where there are no sessions it hangs up.
func TestAClientOverHTTPCancelsARequest(t *testing.T) {
	cancelled := message(nil, "notifications/cancelled", `"requestId":7`)
	for name, cancel := range map[string]func(t *testing.T, r *rig, url string, began chan struct{}){
		"SSE": func(_ *testing.T, r *rig, url string, began chan struct{}) {
			s := r.openSSE(url)
			s.post(message(0, "initialize", initialize))
			s.next()
			s.post(message(7, "tools/call", slowRequest))
			<-began
			s.post(cancelled)
		},
		"streamable HTTP": func(t *testing.T, r *rig, url string, began chan struct{}) {
			session := r.session(url)
			answered := async(func() rpc {
				return r.messages(r.request(http.MethodPost, url+"/mcp", message(7, "tools/call", slowRequest), session))[0]
			})
			<-began
			r.request(http.MethodPost, url+"/mcp", cancelled, session)
			if got := <-answered; !got.Result.IsError || got.Result.StructuredContent["code"] != "cancelled" {
				t.Errorf("got %+v, want the cancelled call", got)
			}
		},
		"no sessions": func(t *testing.T, _ *rig, url string, began chan struct{}) {
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/mcp", strings.NewReader(modernMessage(7, "tools/call", slowRequest)))
			if err != nil {
				t.Fatal(err)
			}
			for field, value := range map[string]string{
				"Authorization": "Bearer " + bearer, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
				"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "send_request",
			} {
				req.Header.Set(field, value)
			}
			failed := async(func() error {
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					resp.Body.Close()
				}
				return err
			})
			<-began
			hangUp()
			if err := <-failed; err == nil {
				t.Error("the answer came all the same")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			service, began, gone, _ := slow(t)
			r := newRig(t, service)
			cancel(t, r, r.serve(), began)
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("the request to the service goes on")
			}
		})
	}
}
