package embeddedgateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// echo is an API that answers each message of a WebSocket with the same, and
// says when a connection has ended.
func echo(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"talk"}})
		if err != nil {
			ended <- err
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err == nil {
				err = c.Write(r.Context(), kind, message)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}
}

// talk opens a WebSocket and has one message echoed.
func talk(t testing.TB, url, key string) *websocket.Conn {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + key}}, Subprotocols: []string{"talk"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	if resp.Header.Get("X-Request-Id") == "" || c.Subprotocol() != "talk" {
		t.Errorf("got the header %v and the subprotocol %q", resp.Header, c.Subprotocol())
	}
	say(t, c, "hello")
	return c
}

func say(t testing.TB, c *websocket.Conn, message string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != message {
		t.Fatalf("got %d bytes (%v), want %d, as they were sent", len(got), err, len(message))
	}
}

func TestWebSocketsGoBothWays(t *testing.T) {
	ended := make(chan error, 1)
	gw, key := inFront(t, echo(ended), embeddedgateway.Front{Timeout: 100 * time.Millisecond})
	c := talk(t, gw.URL+"/talk?room=1", key)
	c.SetReadLimit(1 << 20)
	say(t, c, strings.Repeat("long", 1<<17))
	for range 100 {
		say(t, c, "again")
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the API heard %v, want that the client said bye", err)
	}
	_, resp, err := websocket.Dial(t.Context(), gw.URL+"/talk", nil)
	if err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a credential: got %v", err)
	}
}

func TestAWebSocketEndsWithItsCredential(t *testing.T) {
	for name, end := range map[string]func(*gatewaytest.Gateway, string) error{
		"revoked": func(gw *gatewaytest.Gateway, key string) error {
			ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, key), http.StatusOK, "")
			return nil
		},
		"suspended": func(gw *gatewaytest.Gateway, _ string) error {
			return gw.Embedded().Suspend(t.Context(), "lithtrix", "scout/"+owner)
		},
		"deleted": func(gw *gatewaytest.Gateway, _ string) error {
			return gw.Embedded().Delete(t.Context(), "lithtrix", "scout/"+owner)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 2)
			gw, key := inFront(t, echo(ended), embeddedgateway.Front{})
			other := ltxKey(t, gw, "other")
			c, stays := talk(t, gw.URL, key), talk(t, gw.URL, other)
			embeddedgateway.Recheck(gw.Embedded())
			say(t, c, "still here")
			if err := end(gw, key); err != nil {
				t.Fatal(err)
			}
			embeddedgateway.Recheck(gw.Embedded())
			if _, _, err := c.Read(t.Context()); err == nil {
				t.Error("the client hears more")
			}
			if err := <-ended; err == nil {
				t.Error("the API hears more")
			}
			say(t, stays, "not I")
		})
	}
}

func TestAWebSocketOutlivesADatabaseThatIsAwayForAWhile(t *testing.T) {
	gw, key := inFront(t, echo(make(chan error, 1)), embeddedgateway.Front{})
	c := talk(t, gw.URL, key)
	away, leave := context.WithCancel(t.Context())
	leave()
	for range 3 {
		for range embeddedgateway.MaxUnknown - 1 {
			embeddedgateway.RecheckFor(away, gw.Embedded())
		}
		say(t, c, "still here")
		embeddedgateway.Recheck(gw.Embedded())
	}
	for range embeddedgateway.MaxUnknown {
		embeddedgateway.RecheckFor(away, gw.Embedded())
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the client hears more, and nobody can say whether it may")
	}
}

func TestOnlyWebSocketsAreUpgraded(t *testing.T) {
	got := make(chan string, 1)
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Upgrade") + r.Header.Get("Connection")
		if r.URL.Path == "/switch" { // nobody asked for it
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			conn.Close()
		}
	}, embeddedgateway.Front{})
	for _, tt := range []struct {
		line, upgrade string
		status        int
	}{
		{"GET /r", "h2c", http.StatusOK},
		{"GET /r", "tcp", http.StatusOK},
		{"POST /r", "websocket", http.StatusOK},
		{"GET /switch", "h2c", http.StatusBadGateway},
	} {
		resp, _, _ := exchanged(t, gw, "GET", tt.line+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nConnection: Upgrade\r\nUpgrade: "+tt.upgrade+"\r\n\r\n")
		if resp.StatusCode != tt.status {
			t.Errorf("%s to %s: got %d, want %d", tt.line, tt.upgrade, resp.StatusCode, tt.status)
		}
		if got := <-got; got != "" {
			t.Errorf("%s to %s: the API was asked to upgrade: %s", tt.line, tt.upgrade, got)
		}
	}
}

// events is an API that sends what comes by a channel, until that is closed or
// the client leaves.
func events(text <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		if length := r.URL.Query().Get("length"); length != "" {
			w.Header().Set("Content-Length", length)
		}
		w.WriteHeader(http.StatusOK)
		c := http.NewResponseController(w)
		for {
			c.Flush()
			select {
			case part, more := <-text:
				if !more {
					return
				}
				io.WriteString(w, part)
			case <-r.Context().Done():
				return
			}
		}
	}
}

// listen makes a request whose answer is read by the caller.
func listen(t testing.TB, client *http.Client, url, key string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestEachPartOfAnAnswerComesAtOnce(t *testing.T) {
	for _, query := range []string{"?type=text/event-stream", "?type=text/plain", "?type=text/plain&length=16"} {
		text := make(chan string)
		gw, key := inFront(t, events(text), embeddedgateway.Front{})
		resp := listen(t, gw.Client(), gw.URL+"/events"+query, key) // before there is any of it
		r := bufio.NewReader(resp.Body)
		for i := range 2 {
			want := fmt.Sprintf("data: %d\n", i)
			text <- want
			if got, err := r.ReadString('\n'); err != nil || got != want {
				t.Fatalf("%s: got %q (%v), want %q", query, got, err, want)
			}
		}
		close(text)
		if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
			t.Errorf("%s: got %q more (%v)", query, rest, err)
		}
	}
}

// Both at once: the API answers each part before there is the next one.
func TestEachPartOfABodyGoesAtOnce(t *testing.T) {
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		for body := bufio.NewReader(r.Body); ; {
			part, err := body.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, strings.ToUpper(part))
			c.Flush()
		}
	}, embeddedgateway.Front{MaxBody: 100})
	body, send := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, gw.URL+"/r", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	go io.WriteString(send, "one\n")
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for _, next := range []string{"two\n", "three\n", ""} {
		if got, err := r.ReadString('\n'); err != nil || got != strings.ToUpper(got) || got == "" {
			t.Fatalf("got %q (%v)", got, err)
		}
		if next != "" {
			go io.WriteString(send, next)
		}
	}
	send.Close()
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("got %q more (%v)", rest, err)
	}
}

func TestAStreamEndsWithItsCredential(t *testing.T) {
	gw, key := inFront(t, events(nil), embeddedgateway.Front{})
	resp := listen(t, gw.Client(), gw.URL+"/events?type=text/plain", key)
	ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, key), http.StatusOK, "")
	embeddedgateway.Recheck(gw.Embedded())
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer came to its end, want it cut off")
	}
}

// The deadlines of the listener are over at once here: answers of the API have
// their own.
func TestTheListenersDeadlinesDoNotCutTheAPIOff(t *testing.T) {
	text := make(chan string)
	gw, key := inFront(t, events(text), embeddedgateway.Front{})
	s := httptest.NewUnstartedServer(gw.Embedded().Handler())
	s.Config.WriteTimeout = time.Nanosecond
	s.Start()
	t.Cleanup(s.Close)
	client := s.Client()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Error("a route of a protocol answers after the deadline: this test shows nothing")
	}
	resp := listen(t, client, s.URL+"/events?type=text/plain", key)
	text <- "all of it"
	close(text)
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "all of it" {
		t.Errorf("got %q (%v)", body, err)
	}
}

func TestARevokedKeyIsRefusedOnTheVeryNextRequest(t *testing.T) {
	reached := 0
	gw, key := inFront(t, func(http.ResponseWriter, *http.Request) { reached++ }, embeddedgateway.Front{})
	for range 20 {
		wantStatus(t, send(t, gw, "GET", "/r", "", bearer(key)), http.StatusOK, "")
		next := ltxWith(t, gw, http.MethodPost, ltxRotatePath, key).at("api_key")
		if a := send(t, gw, "GET", "/r", "", bearer(key)); a.status != http.StatusUnauthorized {
			t.Fatalf("got %d", a.status)
		}
		key = next
	}
	if reached != 20 {
		t.Errorf("the API was reached %d times, want 20", reached)
	}
}

// served runs a gateway on a listener, as enlist gateway does. stop begins its
// end, and ended says when it has come.
func served(t *testing.T, gw *gatewaytest.Gateway, patience time.Duration) (url string, stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	done := make(chan error, 1)
	go func() { done <- embeddedgateway.ServeFor(ctx, gw.Embedded(), ln, patience) }()
	return "http://" + ln.Addr().String(), stop, done
}

func TestARequestToASlowAPIIsAnsweredAtTheEnd(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		io.WriteString(w, "at last")
	}, embeddedgateway.Front{})
	url, stop, ended := served(t, gw, time.Minute)
	go func() {
		<-begun
		stop()
		for { // until nobody is let in any more
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				break
			}
			conn.Close()
		}
		close(finish)
	}()
	resp := listen(t, http.DefaultClient, url+"/r", key)
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "at last" {
		t.Errorf("got %q (%v)", body, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhatLastsEndsWithTheGateway(t *testing.T) {
	gone := make(chan error, 2)
	talks, streams := echo(gone), events(nil)
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/talk" {
			talks(w, r)
			return
		}
		streams(w, r)
		gone <- errors.New("the stream ended")
	}, embeddedgateway.Front{})
	url, stop, ended := served(t, gw, time.Hour) // it is not waited for
	c := talk(t, url+"/talk", key)
	resp := listen(t, http.DefaultClient, url+"/events?type=text/event-stream", key)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the WebSocket goes on")
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream came to its end, want it cut off")
	}
	<-gone
	<-gone
}

func TestLimitsHoldBehindTheProxy(t *testing.T) {
	reached := 0
	gw, key := inFront(t, func(w http.ResponseWriter, _ *http.Request) {
		reached++
		w.Header().Set("RateLimit", `"theirs";r=1`)
	}, embeddedgateway.Front{KeyLimit: perMinute(2)})
	for _, want := range []string{`"key";r=1;t=60`, `"key";r=0;t=60`} {
		a := send(t, gw, "GET", "/r", "", bearer(key))
		wantStatus(t, a, http.StatusOK, "")
		if got := a.header.Values("RateLimit"); len(got) != 1 || got[0] != want {
			t.Errorf("got RateLimit: %q, want %s", got, want)
		}
	}
	gw.Clock.Advance(10 * time.Second)
	a := send(t, gw, "GET", "/r", "", bearer(key))
	wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
	if a.header.Get("Retry-After") != "50" || a.header.Get("RateLimit") != `"key";r=0;t=50` || a.header.Get("RateLimit-Policy") != `"key";q=2;w=60` {
		t.Errorf("got %v", a.header)
	}
	if reached != 2 {
		t.Errorf("the API was reached %d times, want 2", reached)
	}
}
