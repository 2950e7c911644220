package server_test

import (
	"fmt"
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
