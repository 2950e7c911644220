package embeddedgateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// inFront runs a gateway in front of an API, and registers an agent.
func inFront(t testing.TB, api http.HandlerFunc, front embeddedgateway.Front, opts ...gatewaytest.Option) (gw *gatewaytest.Gateway, key string) {
	t.Helper()
	upstream := httptest.NewServer(api)
	t.Cleanup(upstream.Close)
	u, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	if front.Upstream == nil {
		front.Upstream = u
	} else {
		front.Upstream = u.JoinPath(front.Upstream.Path)
	}
	gw = gatewaytest.New(t, append(opts, gatewaytest.Config(func(c *embeddedgateway.Config) { c.Front = &front }))...)
	return gw, ltxKey(t, gw, "scout")
}

// hello is an API that says so.
func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// exchanged sends the bytes of a request and reads one answer, to a request of a
// method. The connection is closed with the test.
func exchanged(t testing.TB, gw *gatewaytest.Gateway, method, text string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(gw.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return resp, conn, r
}

func TestTheAPIGetsPathAndQueryByteForByte(t *testing.T) {
	got := make(chan string, 1)
	api := func(w http.ResponseWriter, r *http.Request) { got <- r.Method + " " + r.RequestURI }
	gw, key := inFront(t, api, embeddedgateway.Front{})
	based, basedKey := inFront(t, api, embeddedgateway.Front{Upstream: &url.URL{Path: "/v2/"}})
	for _, uri := range []string{
		"/", "/?", "/reports", "/reports/", "/reports?", "/r?a=1&b=2", "/r?a=1;b=%zz&&=x", "/r?x=%2F%2e&y=a+b%20c", "/caf%C3%A9/caf%c3%a9",
		"/a(b)!*'$,:@=+&c", "/a%20b", "/r?q=\"<>|{}", "/r?q=a#b", "/v1x", "/api", "/healthzz", "/.well-known/security.txt", "/r?http://x/../y",
	} {
		for _, method := range []string{"GET", "DELETE", "PROPFIND"} {
			for _, at := range []struct {
				gw        *gatewaytest.Gateway
				key, base string
			}{{gw, key, ""}, {based, basedKey, "/v2"}} {
				resp, _, _ := exchanged(t, at.gw, method, method+" "+uri+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+at.key+"\r\n\r\n")
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s %s: got %d", method, uri, resp.StatusCode)
					continue
				}
				if got, want := <-got, method+" "+at.base+uri; got != want {
					t.Errorf("the API got %s, want %s", got, want)
				}
			}
		}
	}
}

func TestTheGatewaysOwnPathsAreNotTheAPIs(t *testing.T) {
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the API got %s", r.RequestURI) }, embeddedgateway.Front{})
	for _, path := range []string{
		"/healthz", "/readyz", "/.enlist", "/.enlist/", "/.enlist/x", "/.well-known/jwks.json", "/v1/me", "/v1/nothing", "/agentdoor/x",
		"/a/../healthz", "//healthz", "/%68ealthz/", "/x/./y", "/a//b", "/a%2fb", "/a;b",
	} {
		resp, _, _ := exchanged(t, gw, "GET", "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+key+"\r\n\r\n")
		if strings.Contains(path, "me") || strings.Contains(path, "jwks") {
			continue // it is there, in its protocol
		}
		if resp.StatusCode/100 == 3 || resp.StatusCode == http.StatusInternalServerError {
			t.Errorf("%s: got %d", path, resp.StatusCode)
		}
	}
}

func TestTheAPIIsToldByTheGatewayOnly(t *testing.T) {
	got := make(chan http.Header, 1)
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set("Host", r.Host)
		got <- h
	}, embeddedgateway.Front{}, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret}))
	lona := token(t, gw, "trader")
	for _, credential := range []string{"Authorization: Bearer " + key, "X-API-Key: " + lona + "\r\nX-User-Id: trader"} {
		exchanged(t, gw, "POST", "POST /r HTTP/1.1\r\nHost: agents.example.com\r\n"+credential+"\r\n"+strings.Join([]string{
			"X-Enlist-Agent: lona/root", "x_enlist_agent: lona/root", "X-Enlist_Scopes: *", "X_ENLIST-TOKEN: eyJ", "X-Enlist-Anything: 1",
			"X-Forwarded-For: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https",
			"X-Forwarded-Prefix: /evil", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "X-Original-URL: /admin",
			"X-Rewrite-Url: /admin", "X-Request-ID: mine", "Connection: close, X-Enlist-Agent, X-Kept-Not, X-Forwarded-For, X-Request-Id",
			"X-Kept-Not: hop", "Keep-Alive: 5", "Proxy-Authorization: Basic eDp5", "TE: trailers", "X-Kept: yes", "Cookie: a=b",
			"Accept-Encoding: br", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Content-Length: 2", "", "hi",
		}, "\r\n"))
		h := <-got
		protocol, agent := "lithtrix", "lithtrix/scout/"+owner
		if strings.HasPrefix(credential, "X-API-Key") {
			protocol, agent = "lona", "lona/trader"
		}
		for name, want := range map[string]string{
			"X-Enlist-Protocol": protocol, "X-Enlist-Agent": agent, "X-Kept": "yes", "Cookie": "a=b", "Accept-Encoding": "br",
			"Te": "trailers", "Content-Length": "2", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "agents.example.com",
			"X-Forwarded-Proto": "http", "Forwarded": `for=127.0.0.1;host="agents.example.com";proto=http`,
		} {
			if got := h.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("the API got %s: %q, want %q", name, got, want)
			}
		}
		if strings.HasPrefix(h.Get("Host"), "agents") || h.Get("Host") == "" {
			t.Errorf("the API got the Host %q, want its own", h.Get("Host"))
		}
		if got := h.Get("X-Request-Id"); got == "mine" || got == "" {
			t.Errorf("the API got the X-Request-Id %q, want one of the gateway", got)
		}
		allowed := []string{"X-Enlist-Protocol", "X-Enlist-Agent", "X-Enlist-Scopes", "X-Enlist-Key-Id", "X-Enlist-Token"}
		for name, values := range h {
			folded := strings.ReplaceAll(strings.ToLower(name), "_", "-")
			if strings.HasPrefix(folded, "x-enlist-") && !slices.Contains(allowed, name) ||
				slices.Contains([]string{
					"authorization", "x-api-key", "x-user-id", "keep-alive", "upgrade", "http2-settings-not", "x-kept-not", "proxy-authorization",
					"x-real-ip", "true-client-ip", "x-original-url", "x-rewrite-url", "x-forwarded-prefix", "connection", "user-agent",
				}, folded) {
				t.Errorf("the API got %s: %q", name, values)
			}
			if strings.Contains(strings.Join(values, " "), "6.6.6.6") || len(values) != 1 {
				t.Errorf("the API got %s: %q", name, values)
			}
			wantNone(t, "what the API got", []byte(strings.Join(values, " ")), key, lona)
		}
	}
}

func TestATrustedProxyIsBelieved(t *testing.T) {
	got := make(chan http.Header, 1)
	api := func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }
	for name, tt := range map[string]struct {
		trusted string
		sent    header
		want    header
	}{
		"one proxy": {
			"127.0.0.0/8",
			header{"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "agents.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443", "X-Request-Id": "ab-12"},
			header{
				"X-Forwarded-For": "192.0.2.7, 127.0.0.1", "X-Forwarded-Host": "agents.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443",
				"Forwarded": `for=192.0.2.7;host="agents.example.com";proto=https, for=127.0.0.1`, "X-Request-Id": "ab-12",
			},
		},
		"what a stranger wrote before is dropped": {
			"127.0.0.0/8,10.0.0.0/8",
			header{"X-Forwarded-For": "6.6.6.6, 2001:db8::1, 10.1.1.1:80"},
			header{"X-Forwarded-For": "2001:db8::1, 10.1.1.1, 127.0.0.1", "X-Forwarded-Proto": "http"},
		},
		"what cannot be read is dropped": {
			"127.0.0.0/8",
			header{
				"X-Forwarded-For": "unknown", "X-Forwarded-Host": `x";proto=https`, "X-Forwarded-Proto": "gopher", "X-Forwarded-Uri": "/admin", "X-Forwarded-Method": "DELETE",
				"X-Original-Uri": "/admin",
			},
			header{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Uri": "", "X-Forwarded-Method": "", "X-Original-Uri": ""},
		},
		"nobody is trusted": {
			"192.0.2.0/24",
			header{"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"},
			header{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Port": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var networks []netip.Prefix
			for text := range strings.SplitSeq(tt.trusted, ",") {
				networks = append(networks, netip.MustParsePrefix(text))
			}
			gw, key := inFront(t, api, embeddedgateway.Front{}, gatewaytest.TrustedProxies(networks...))
			h := bearer(key)
			for name, value := range tt.sent {
				h[name] = value
			}
			wantStatus(t, send(t, gw, "GET", "/r", "", h), http.StatusOK, "")
			sent := <-got
			for name, want := range tt.want {
				if got := sent.Get(name); got != want {
					t.Errorf("the API got %s: %s, want %s", name, got, want)
				}
			}
		})
	}
}

func TestARequestHasOneID(t *testing.T) {
	got := make(chan string, 1)
	var logged lines
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("X-Request-Id")
		w.Header().Set("X-Request-Id", "the API's own")
	}, embeddedgateway.Front{}, loopback(), gatewaytest.Logger(log))
	own := regexp.MustCompile(`^[A-Z2-7]{26}$`)
	for _, tt := range []struct {
		given string
		kept  bool
	}{
		{"4f3c-22:x/y=", true},
		{"", false},
		{"with space", false},
		{"quote\"", false},
		{strings.Repeat("x", 129), false},
		{key, false}, // somebody pasted into the wrong field
	} {
		h := bearer(key)
		h["X-Request-Id"] = tt.given
		a := send(t, gw, "GET", "/r", "", h)
		wantStatus(t, a, http.StatusOK, "")
		sent := <-got
		if back := a.header.Values("X-Request-Id"); len(back) != 1 || back[0] != sent {
			t.Errorf("the client got the ids %q, the API %q", back, sent)
		}
		if tt.kept != (sent == tt.given) || !tt.kept && !own.MatchString(sent) {
			t.Errorf("%q was given: the API got %q", tt.given, sent)
		}
		if !strings.Contains(logged.String(), sent) {
			t.Errorf("the log does not have the id %q", sent)
		}
	}
	if id := send(t, gw, "GET", "/r", "", nil).header.Get("X-Request-Id"); !own.MatchString(id) {
		t.Errorf("a refusal has the id %q", id)
	}
	wantNone(t, "the log", []byte(logged.String()), key)
}

func TestTheClientGetsTheAnswerAsItIs(t *testing.T) {
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "http://elsewhere.example/x?y", http.StatusTemporaryRedirect)
			return
		}
		h["X-Enlist-Agent"], h["X_enlist_token"] = []string{"lona/root"}, []string{"x"}
		h.Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Set-Cookie", "a=b")
		h.Add("Set-Cookie", "c=d")
		h.Set("Content-Encoding", "br")
		h.Set("Connection", "X-Hop")
		h.Set("X-Hop", "1")
		h.Set("Trailer", "X-Sum, X-Enlist-Scopes")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "body of "+r.Method)
		h.Set("X-Sum", "42")
		h.Set("X-Enlist-Scopes", "*")
		h.Set(http.TrailerPrefix+"X-Late", "43")
		h.Set(http.TrailerPrefix+"X-Enlist-Late", "*")
	}, embeddedgateway.Front{})

	var early []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		early = append(early, fmt.Sprint(code, h["Link"], h["X-Enlist-Agent"], h["X_enlist_token"]))
		return nil
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", gw.URL+"/r", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := gw.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusTeapot || string(body) != "body of GET" {
		t.Errorf("got %d %q (%v)", resp.StatusCode, body, err)
	}
	if got, want := fmt.Sprint(early), "[103[</style.css>; rel=preload][][]]"; strings.ReplaceAll(got, " [", "[") != want {
		t.Errorf("got %s before the answer, want %s", got, want)
	}
	if got := resp.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"a=b", "c=d"}) || resp.Header.Get("Content-Encoding") != "br" {
		t.Errorf("got %v", resp.Header)
	}
	if got, want := resp.Trailer, (http.Header{"X-Sum": {"42"}, "X-Late": {"43"}}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got the trailers %v, want %v", got, want)
	}
	for name := range resp.Header {
		if strings.Contains(strings.ToLower(name), "enlist") || name == "X-Hop" {
			t.Errorf("the client got %s", name)
		}
	}
	a := send(t, gw, "HEAD", "/r", "", bearer(key))
	if a.status != http.StatusTeapot || len(a.body) != 0 {
		t.Errorf("HEAD: got %d %q", a.status, a.body)
	}
	if a := send(t, gw, "GET", "/moved", "", bearer(key)); a.status != http.StatusTemporaryRedirect || a.header.Get("Location") != "http://elsewhere.example/x?y" {
		t.Errorf("got %d to %q", a.status, a.header.Get("Location"))
	}
}

func TestTheAPIGetsTheBodyAndItsTrailers(t *testing.T) {
	type sent struct {
		body    string
		length  int64
		trailer http.Header
	}
	got := make(chan sent, 1)
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- sent{string(body), r.ContentLength, r.Trailer}
	}, embeddedgateway.Front{MaxBody: 1 << 20})
	long := strings.Repeat("x", 1<<20)
	wantStatus(t, send(t, gw, "PUT", "/r", long, bearer(key)), http.StatusOK, "")
	if s := <-got; s.body != long || s.length != 1<<20 {
		t.Errorf("the API got %d bytes of %d", len(s.body), s.length)
	}
	resp, _, _ := exchanged(t, gw, "POST", "POST /r HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+
		"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Enlist-Agent, Authorization\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Enlist-Agent: lona/root\r\nX_Enlist_Key_Id: 1\r\nAuthorization: Bearer x\r\n\r\n")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("got %d", resp.StatusCode)
	}
	if s := <-got; s.body != "hello" || s.length != -1 || fmt.Sprint(s.trailer) != "map[X-Sum:[42]]" {
		t.Errorf("the API got %+v", s)
	}
}

func TestRefusalsOfTheProxy(t *testing.T) {
	stuck := make(chan struct{})
	var log lines
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stuck":
			<-stuck
		case "/dead":
			panic(http.ErrAbortHandler)
		default:
			io.Copy(io.Discard, r.Body)
		}
	}, embeddedgateway.Front{MaxBody: 100, Timeout: 100 * time.Millisecond, AgentLimit: perMinute(1000)},
		gatewaytest.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	t.Cleanup(func() { close(stuck) })
	lengthless := struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 101))}
	for _, tt := range []struct {
		path   string
		body   io.Reader
		status int
		code   string
	}{
		{"/r", strings.NewReader(strings.Repeat("x", 100)), http.StatusOK, ""},
		{"/r", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 100))}, http.StatusOK, ""},
		{"/r", strings.NewReader(strings.Repeat("x", 101)), http.StatusRequestEntityTooLarge, "too_large"},
		{"/r", lengthless, http.StatusRequestEntityTooLarge, "too_large"},
		{"/r", bytes.NewReader(make([]byte, 1<<20)), http.StatusRequestEntityTooLarge, "too_large"},
		{"/stuck", nil, http.StatusGatewayTimeout, "upstream_timeout"},
		{"/stuck", strings.NewReader("x"), http.StatusGatewayTimeout, "upstream_timeout"},
		{"/dead", nil, http.StatusBadGateway, "upstream_unavailable"},
		{"/r", nil, http.StatusOK, ""},
	} {
		req, err := http.NewRequest("POST", gw.URL+tt.path, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := gw.Client().Do(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.path, err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		a := answer{resp.StatusCode, resp.Header, text}
		wantStatus(t, a, tt.status, tt.code)
		if a.header.Get("X-Request-Id") == "" || a.header.Get("RateLimit") == "" {
			t.Errorf("%s: got %v", tt.path, a.header)
		}
		wantNone(t, "an answer", a.body, "127.0.0.1", "dial", "EOF", "httputil")
	}
	wantNone(t, "the log", []byte(log.String()), key)
}

func TestNewRefusesAnAPIThatIsNoURLOfOne(t *testing.T) {
	for name, tt := range map[string]struct {
		front embeddedgateway.Front
		want  string
	}{
		"another scheme":   {embeddedgateway.Front{Upstream: &url.URL{Scheme: "ftp", Host: "hunter2"}}, "upstream.url"},
		"no host":          {embeddedgateway.Front{Upstream: &url.URL{Scheme: "http", Path: "/hunter2"}}, "upstream.url"},
		"a password":       {embeddedgateway.Front{Upstream: &url.URL{Scheme: "http", Host: "h", User: url.UserPassword("u", "hunter2")}}, "upstream.url"},
		"a query":          {embeddedgateway.Front{Upstream: &url.URL{Scheme: "http", Host: "h", RawQuery: "key=hunter2"}}, "upstream.url"},
		"a negative body":  {embeddedgateway.Front{MaxBody: -1}, "upstream.max_body"},
		"a negative time":  {embeddedgateway.Front{Timeout: -1}, "upstream.timeout"},
		"several mistakes": {embeddedgateway.Front{MaxBody: -1, KeyLimit: embeddedgateway.Rate{N: -1}}, "limits.key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.Front = &tt.front
			g, err := embeddedgateway.New(t.Context(), cfg)
			if err == nil {
				g.Close()
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want %q in it, and not the value", err, tt.want)
			}
		})
	}
}

func TestAnAPIThatIsDownIsA502(t *testing.T) {
	gw, key := inFront(t, hello, embeddedgateway.Front{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	gw.Restart(t, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Front = &embeddedgateway.Front{Upstream: &url.URL{Scheme: "http", Host: ln.Addr().String()}}
	}))
	for _, body := range []string{"", "{}", strings.Repeat("x", 1<<20)} {
		a := send(t, gw, "POST", "/r", body, bearer(key))
		wantStatus(t, a, http.StatusBadGateway, "upstream_unavailable")
		wantNone(t, "the answer", a.body, "127.0.0.1", "refused")
	}
}

func TestAClientThatLeavesEndsTheRequest(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(gone)
	}, embeddedgateway.Front{})
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", gw.URL+"/r", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	go func() {
		<-begun
		leave()
	}()
	if resp, err := gw.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Error("got an answer")
	}
	<-gone
}

func TestAClientThatDoesNotSendOnIsRefused(t *testing.T) {
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) },
		embeddedgateway.Front{Timeout: 100 * time.Millisecond})
	resp, _, _ := exchanged(t, gw, "POST", "POST /r HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nContent-Length: 10\r\n\r\nhalf")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, answer{resp.StatusCode, resp.Header, body}, http.StatusRequestTimeout, "request_timeout")
	if !resp.Close {
		t.Error("the connection is to be used again, with half a request in it")
	}
}

func TestABodyIsSentWhenTheAPIWantsIt(t *testing.T) {
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	}, embeddedgateway.Front{MaxBody: 100})
	ask := func(path string, length int) (*http.Response, net.Conn, *bufio.Reader) {
		return exchanged(t, gw, "POST", fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", path, key, length))
	}
	for path, want := range map[string]int{"/no": http.StatusForbidden, "/large": http.StatusRequestEntityTooLarge} {
		length := 5
		if path == "/large" {
			length = 101
		}
		if resp, _, _ := ask(path, length); resp.StatusCode != want || !resp.Close {
			t.Errorf("%s: got %d, close %t, want %d, and the connection closed", path, resp.StatusCode, resp.Close, want)
		}
	}
	resp, conn, r := ask("/yes", 5)
	if resp.StatusCode != http.StatusContinue {
		t.Fatalf("got %d, want 100", resp.StatusCode)
	}
	io.WriteString(conn, "hello")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusContinue { // the API's and the gateway's are two
		if resp, err = http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		t.Errorf("got %q (%v)", body, err)
	}
}
