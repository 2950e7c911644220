package embeddedgateway_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// toAPI is what an API gets of a request whose bytes a stranger chose.
type toAPI struct{ header, trailer http.Header }

// hostile runs a gateway in front of an API and returns what sends a request to
// it, with a credential behind its first line.
func hostile(t *testing.T, opts ...gatewaytest.Option) func(firstLine, rest string) toAPI {
	t.Helper()
	got := make(chan toAPI, 1)
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- toAPI{r.Header.Clone(), r.Trailer.Clone()}
	}, embeddedgateway.Front{}, opts...)
	return func(firstLine, rest string) toAPI {
		t.Helper()
		resp, _, _ := exchanged(t, gw, "GET", firstLine+" HTTP/1.1\r\nHost: agents.example.com\r\nAuthorization: Bearer "+key+"\r\n"+rest)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: got %d", firstLine, resp.StatusCode)
		}
		return <-got
	}
}

func TestAHostThatIsNonePutsNothingIntoForwarded(t *testing.T) {
	send := hostile(t)
	for _, host := range []string{`x",for=6.6.6.6;by="y`, `x";for=6.6.6.6;host="y`, `a;b=c`, `<x>`, `x,y`} {
		h := send("GET http://"+host+"/r", "\r\n").header
		if got := h.Get("Forwarded"); got != "for=127.0.0.1;proto=http" {
			t.Errorf("%s: the API got Forwarded: %s", host, got)
		}
		if got := h.Values("X-Forwarded-Host"); len(got) != 0 {
			t.Errorf("%s: the API got X-Forwarded-Host: %q", host, got)
		}
	}
	h := send("GET http://agents.example.com:8420/r", "\r\n").header
	if got := h.Get("Forwarded"); got != `for=127.0.0.1;host="agents.example.com:8420";proto=http` {
		t.Errorf("the API got Forwarded: %s", got)
	}
}

func TestNamesThatProgramsReadAsAnotherAreThat(t *testing.T) {
	for name, opts := range map[string][]gatewaytest.Option{"from anybody": nil, "from a trusted proxy": {loopback()}} {
		t.Run(name, func(t *testing.T) {
			h := hostile(t, opts...)("GET /r", strings.Join([]string{
				"X.Enlist.Agent: lona/root", "X!Enlist~Scopes: *", "X-Enlist.Token: eyJ", "X.API.Key: k", "X.User.Id: root",
				"X_Request_Id: mine", "X.Request.Id: mine", "X.Forwarded.For: 6.6.6.6", "X_Forwarded_Proto: https", "X.Real~IP: 6.6.6.6",
				"X-Kept.Too: yes", "", "",
			}, "\r\n")).header
			for name, values := range h {
				if strings.ContainsAny(name, "_.~!") && name != "X-Kept.too" {
					t.Errorf("the API got %s: %q", name, values)
				}
			}
			if h["X-Kept.too"] == nil {
				t.Errorf("a header that is nobody's business is gone: %v", h)
			}
		})
	}
}

func TestHeadersThatSayWhenceComeFromNoStranger(t *testing.T) {
	h := hostile(t)("GET /r", "Client-IP: 6.6.6.6\r\nX-Remote-IP: 6.6.6.6\r\nX-Remote-Addr: 6.6.6.6\r\nX-Originating-IP: 6.6.6.6\r\n"+
		"Fastly-Client-IP: 6.6.6.6\r\nX-Envoy-Original-Path: /admin\r\n\r\n").header
	for name, values := range h {
		if text := strings.Join(values, " "); strings.Contains(text, "6.6.6.6") || strings.Contains(text, "/admin") {
			t.Errorf("the API got %s: %s", name, text)
		}
	}
}

func TestATrailerSaysNothingThatAHeaderMayNot(t *testing.T) {
	lines := []string{
		"X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "X-HTTP-Method-Override: DELETE",
		"X-Request-Id: mine", "X_Request_Id: mine", "X.Enlist.Agent: lona/root", "X-Original-URL: /admin", "X-Kept: yes",
	}
	var names []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	for what, declared := range map[string]string{"some declared": "X-Kept", "all declared": strings.Join(names, ", ")} {
		trailer := hostile(t)("POST /r", "Transfer-Encoding: chunked\r\nTrailer: "+declared+"\r\n\r\n2\r\nhi\r\n0\r\n"+strings.Join(lines, "\r\n")+"\r\n\r\n").trailer
		for name, values := range trailer {
			if name != "X-Kept" {
				t.Errorf("%s: the API got the trailer %s: %q", what, name, values)
			}
		}
		if trailer.Get("X-Kept") != "yes" {
			t.Errorf("%s: the API got the trailer %v", what, trailer)
		}
	}
}

func TestTheAPIGetsNoSessionOfTheOperatorAndSetsNone(t *testing.T) {
	got := make(chan []string, 1)
	gw, key := inFront(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header["Cookie"]
		w.Header()["Set-Cookie"] = []string{
			"session=1", "enlist-admin-8421=mine; Path=/agents", " __Host-enlist-admin=mine; Secure; Path=/", "=enlist-admin=mine", "mine=enlist-admin",
		}
	}, embeddedgateway.Front{})
	for sent, want := range map[string]string{
		"enlist-admin-8421=s":                     "",
		"a=b; enlist-admin-8421=s; c=d":           "a=b; c=d",
		"__Host-enlist-admin=s;enlist-admin=s; c": "c",
		"a=enlist-admin-8421; b=x":                "a=enlist-admin-8421; b=x",
		"a=b;c=d":                                 "a=b;c=d",
	} {
		a := send(t, gw, "GET", "/r", "", header{"Authorization": "Bearer " + key, "Cookie": sent})
		wantStatus(t, a, http.StatusOK, "")
		if got := strings.Join(<-got, "|"); got != want {
			t.Errorf("of %q the API got %q, want %q", sent, got, want)
		}
		if got := a.header.Values("Set-Cookie"); !slices.Equal(got, []string{"session=1", "mine=enlist-admin"}) {
			t.Errorf("the client got Set-Cookie %q", got)
		}
	}
}

func TestAnInventedMethodIsNoWayAroundARule(t *testing.T) {
	gw := gatewaytest.New(t, loopback(), guarded(
		embeddedgateway.Rule{Path: "/"},
		embeddedgateway.Rule{Path: "/reports", Methods: []string{"GET"}, Scopes: []string{"reports.read"}},
		embeddedgateway.Rule{Path: "/files", Methods: []string{"GET", "PROPFIND"}},
		embeddedgateway.Rule{Path: "/both", Methods: []string{"GET"}},
		embeddedgateway.Rule{Path: "/both", Scopes: []string{"reports.read"}},
		embeddedgateway.Rule{Path: "/reports/open"},
	))
	key := bearer(ltxKey(t, gw, "scout"))
	for request, code := range map[string]string{
		"GET /reports": "insufficient_scope", "FOO /reports": "method_refused", "GETX /reports/7": "method_refused",
		"POST /reports": "", "OPTIONS /reports": "", "FOO /": "", "FOO /reports/open": "", "PROPFIND /files/x": "", "MKCOL /files/x": "method_refused",
		"GET /both": "", "FOO /both": "insufficient_scope",
	} {
		method, path, _ := strings.Cut(request, " ")
		status := http.StatusForbidden
		if code == "" {
			status = http.StatusOK
		}
		t.Run(request, func(t *testing.T) { wantStatus(t, asks(t, gw, method, path, key), status, code) })
	}
	root := gatewaytest.New(t, loopback(), guarded(embeddedgateway.Rule{Path: "/", Methods: []string{"GET"}}))
	wantStatus(t, asks(t, root, "FOO", "/x", bearer(ltxKey(t, root, "scout"))), http.StatusForbidden, "method_refused")
}

func TestEveryRequestHasAnID(t *testing.T) {
	var logged lines
	gw := gatewaytest.New(t, loopback(), gatewaytest.Logger(slog.New(slog.NewTextHandler(&logged, nil))),
		gatewaytest.Config(func(c *embeddedgateway.Config) { c.AccessLog = embeddedgateway.AccessAll }))
	for _, path := range []string{
		"/v1/me", "/health", "/healthz", "/readyz", "/.well-known/jwks.json", "/.well-known/agentdoor.json", "/.enlist/verify", "/.enlist/x", "/nowhere", "/a/../b",
	} {
		a := send(t, gw, "GET", path, "", nil)
		ids := a.header.Values("X-Request-Id")
		if len(ids) != 1 || len(ids[0]) != 26 || !strings.Contains(logged.String(), "request_id="+ids[0]) {
			t.Errorf("%s: the answer has the ids %q, and the log\n%s", path, ids, logged.String())
		}
		given := "given-" + strings.Trim(strings.ReplaceAll(path, "/", "-"), "-")
		a = send(t, gw, "GET", path, "", header{"X-Request-Id": given})
		if got := a.header.Get("X-Request-Id"); got != given || !strings.Contains(logged.String(), "request_id="+given) {
			t.Errorf("%s: of a trusted proxy's id %s became %q", path, given, got)
		}
	}
	stranger := send(t, gatewaytest.New(t), "GET", "/health", "", header{"X-Request-Id": "mine"})
	if got := stranger.header.Get("X-Request-Id"); got == "mine" || got == "" {
		t.Errorf("of a stranger's id became %q", got)
	}
}

// TestABodyThatIsNoneIsNoFaultOfTheAPI: a client that could have the API look down
// would wake the operator whenever it likes.
func TestABodyThatIsNoneIsNoFaultOfTheAPI(t *testing.T) {
	var logged lines
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		embeddedgateway.Front{}, gatewaytest.Logger(slog.New(slog.NewTextHandler(&logged, nil))))
	for _, body := range []string{"zz\r\nabc\r\n0\r\n\r\n", "-1\r\n", "FFFFFFFFFFFFFFFFF\r\n", "2\r\nhi\r\nzz\r\n"} {
		resp, _, _ := exchanged(t, gw, "POST", "POST /r HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		if resp.StatusCode != http.StatusBadRequest || !resp.Close {
			t.Errorf("%q: got %d, closed: %t", body, resp.StatusCode, resp.Close)
		}
	}
	if strings.Contains(logged.String(), "got no answer") || strings.Contains(scrape(t, gw), `enlist_upstream_errors_total{reason="upstream_unavailable"}`) {
		t.Errorf("the operator is told of an API that does not answer: %s", logged.String())
	}
}

func TestACacheInFrontTellsCallersApart(t *testing.T) {
	gw, key := inFront(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Vary", "Accept-Language")
		w.Header().Set("Cache-Control", "public, max-age=60")
	}, embeddedgateway.Front{})
	a := send(t, gw, "GET", "/r", "", bearer(key))
	if got := strings.Join(a.header.Values("Vary"), ", "); got != "Accept-Language, Authorization, X-API-Key" || a.header.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("got Vary: %s of %v", got, a.header)
	}
}

func TestAStatusThatIsNoneIsA502(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.1 099 None\r\nContent-Length: 0\r\n\r\n")
			_ = conn.Close()
		}
	}()
	gw := gatewaytest.New(t, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Front = &embeddedgateway.Front{Upstream: &url.URL{Scheme: "http", Host: ln.Addr().String()}}
	}))
	wantStatus(t, send(t, gw, "GET", "/r", "", bearer(ltxKey(t, gw, "scout"))), http.StatusBadGateway, "upstream_unavailable")
}

// TestWhoDoesNotSendTheRestHoldsNoConnection has the API answer before it got the
// body, of which no more comes: the answer arrives, and the connection ends.
func TestWhoDoesNotSendTheRestHoldsNoConnection(t *testing.T) {
	gw, key := inFront(t, func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "no")
		http.NewResponseController(w).Flush()
	}, embeddedgateway.Front{})
	for _, body := range []string{"Content-Length: 1000\r\n\r\nthe begin", "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"} {
		resp, conn, r := exchanged(t, gw, "POST", "POST /r HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\n"+body)
		if said, err := io.ReadAll(resp.Body); err != nil || string(said) != "no" || !resp.Close {
			t.Errorf("%q: got %q (%v), closes: %t", body, said, err, resp.Close)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // a bound that only a hang exceeds
			t.Fatal(err)
		}
		if _, err := r.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the connection stays", body)
		}
	}
}

// TestAClientThatClosesItsSideIsToldSo: to net/http it has gone, so the API is
// not asked on; what is said must not have anybody repeat what may be done.
func TestAClientThatClosesItsSideIsToldSo(t *testing.T) {
	gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, embeddedgateway.Front{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(gw.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /r HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+key+"\r\nContent-Length: 1\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), `"client_gone"`) || strings.Contains(string(answer), "try again") {
		t.Errorf("got %s (%v)", answer, err)
	}
}
