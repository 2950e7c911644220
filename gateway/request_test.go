package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

func get(path string) gateway.Request { return gateway.Request{Method: "GET", Path: path} }

func TestDoMakesTheRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		give gateway.Request
		path string // as it is sent
		body string
		kind string
	}{
		{"a plain path", gateway.Request{Method: "get", Path: "/v1/things"}, "/v1/things", "", ""},
		{"a query", gateway.Request{Method: "GET", Path: "/q", Query: map[string]string{"b": "x y&z", "a": "#"}}, "/q?a=%23&b=x+y%26z", "", ""},
		{"an escaped path", get("/a%20b/c%3Fd/ä;v=1"), "/a%20b/c%3Fd/%C3%A4;v=1", "", ""},
		{"a path with a percent sign", get("/100%25"), "/100%25", "", ""},
		{"an object", gateway.Request{Method: "POST", Path: "/x", Body: map[string]any{"a": []int{1}}}, "/x", `{"a":[1]}`, "application/json"},
		{"raw JSON", gateway.Request{Method: "PUT", Path: "/x", Body: json.RawMessage(`{"b":2, "a":1}`)}, "/x", `{"b":2, "a":1}`, "application/json"},
		{"bytes", gateway.Request{Method: "PUT", Path: "/x", Body: []byte(`[]`)}, "/x", `[]`, "application/json"},
		{"a text that is JSON", gateway.Request{Method: "PATCH", Path: "/x", Body: `{"a":1}`}, "/x", `{"a":1}`, "application/json"},
		{"a text", gateway.Request{Method: "POST", Path: "/x", Body: "hello"}, "/x", "hello", "text/plain; charset=utf-8"},
		{"a text of a kind", gateway.Request{Method: "POST", Path: "/x", Body: "a=1", Header: map[string]string{"content-type": "application/x-www-form-urlencoded"}}, "/x", "a=1", "application/x-www-form-urlencoded"},
		{"no body", gateway.Request{Method: "DELETE", Path: "/x"}, "/x", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			r := f.register(t, "my-agent")

			if _, err := f.Lifecycle.Do(t.Context(), r.Key, tt.give); err != nil {
				t.Fatal(err)
			}

			sent := s.seen("")[2]
			target := sent.Path
			if sent.Query != "" {
				target += "?" + sent.Query
			}
			if got, want := sent.Method+" "+target, strings.ToUpper(tt.give.Method)+" "+tt.path; got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
			if string(sent.Body) != tt.body || sent.Header.Get("Content-Type") != tt.kind {
				t.Errorf("sent %q as %q, want %q as %q", sent.Body, sent.Header.Get("Content-Type"), tt.body, tt.kind)
			}
			if sent.Header.Get("X-Api-Key") != token("my-agent", 1) || sent.Header.Get("X-User-Id") != "my-agent" {
				t.Errorf("sent the headers %v, want the credential in them", sent.Header)
			}
		})
	}
}

func TestDoReturnsTheAnswer(t *testing.T) {
	s := newService(t).on("/x", reply(404, `{"a":1}`,
		"Etag", `"v1"`, "Link", "<https://other.example/2>; rel=next", "X-RateLimit-Remaining", "3", "RateLimit-Policy", "10;w=60",
		"Set-Cookie", "session=1", "X-Powered-By", "x", "Server", "y"))
	f := at(t, s)
	r := f.register(t, "my-agent")

	got, err := f.Lifecycle.Do(t.Context(), r.Key, get("/x"))
	if err != nil {
		t.Fatal(err)
	}

	if got.Status != 404 || string(got.Body) != `{"a":1}` || got.Truncated || got.Binary != "" {
		t.Errorf("got %+v", got)
	}
	var names []string
	for name := range got.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"Content-Length", "Content-Type", "Etag", "Link", "Ratelimit-Policy", "X-Ratelimit-Remaining"}
	if !slices.Equal(names, want) {
		t.Errorf("got the headers %v, want %v", names, want)
	}
}

func TestDoRefusesPaths(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	before := len(s.seen(""))
	for _, path := range []string{
		"", "x", "x/y", "//example.com/x", "https://example.com/x", "/\\example.com", "/a//b", "/..", "/a/../b", "/a/./b", "/.",
		"/a/%2e%2e/b", "/a/%2E/b", "/a/.%2e/b", "/a/..;/b", "/a/..%3b/b", "/a/.. /b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a%252fb",
		"/a%25252fb", "/a/%252e%252e/b", "/%252e%252e", "/a?b=c", "/a#b", "/a\nb", "/a%0ab", "/a\x00", "/a%00", "/a%7f", "/a\u0085b", "/a%", "/a%zz", "/a%c0%af",
		"/a%ff", "/a\xff", "/．．/b", "/a／b", "/a%EF%BC%8Fb", "/" + strings.Repeat("a", 5000), "/a" + strings.Repeat("%25", 30) + "2fb",
		" /a", "\t/a", "/%2525252525252f",
	} {
		_, err := f.Lifecycle.Do(t.Context(), r.Key, get(path))

		var e *gateway.RefusedError
		if !errors.As(err, &e) {
			t.Errorf("%q: got %v, want a RefusedError", path, err)
		}
	}
	if got := len(s.seen("")) - before; got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

func TestDoRefusesWhatIssuesAKey(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	before := len(s.seen(""))
	for _, path := range []string{
		"/api/v1/agents/register", "/api/v1/agents/request-invite", "/API/v1/Agents/REGISTER", "/api/v1/agents/register/",
		"/api/v1/agents/re%67ister", "/api/v1/agents/re%2567ister", "/%61pi/v1/agents/register", "/api/v1/agents/register;a=b",
		"/api;x/v1/agents/register", "/api/v1/agents/register.json", "/api/v1/agents/register%20", "/api/v1/agents/register.",
		"/api/v1/agents/regiſter", "/api/v1/agents/register%3fa=b", "/api/v1/agents/register%23", "/api/v1/agents/regi%C5%BFter",
	} {
		for _, method := range []string{"POST", "GET", "OPTIONS"} {
			_, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: method, Path: path})

			var e *gateway.RefusedError
			if !errors.As(err, &e) || e.Tool != "lona_register_agent" {
				t.Errorf("%s %q: got %v, want a RefusedError that names lona_register_agent", method, path, err)
			}
		}
	}
	if got := len(s.seen("")) - before; got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
	for _, path := range []string{"/api/v1/agents", "/api/v1/agents/registered", "/api/v1/agents/register/x", "/v2/api/v1/agents/register"} {
		if _, err := f.Lifecycle.Do(t.Context(), r.Key, get(path)); err != nil {
			t.Errorf("%q: got %v, want it sent", path, err)
		}
	}
}

func TestReservedRoutes(t *testing.T) {
	routes := []wire.Route{
		{Method: "DELETE", Path: "/api/v1/agent/keys/*"}, {Method: "POST", Path: "/api/agents/*"}, {Path: "/v1/keys*"}, {Path: "/AgentDoor/*"},
	}
	for _, tt := range []struct {
		method, path string
		want         bool
	}{
		{"DELETE", "/api/v1/agent/keys/7", true},
		{"GET", "/api/v1/agent/keys/7", false},
		{"GET", "/api/v1/agent/keys", false},
		{"POST", "/api/agents/agt_1", true},
		{"GET", "/api/agents/agt_1", false},
		{"GET", "/v1/keys", true},
		{"POST", "/v1/keys/rotate", true},
		{"GET", "/v1/keynotes", false},
		{"POST", "/agentdoor/register", true},
		{"GET", "/agentdoor/", true},
		{"GET", "/agentdoors", false},
	} {
		if got := gateway.Reserved(routes, tt.method, tt.path); got != tt.want {
			t.Errorf("%s %s: got %v, want %v", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestDoRefusesMethodsHeadersAndBodies(t *testing.T) {
	header := func(name, value string) gateway.Request {
		return gateway.Request{Method: "GET", Path: "/x", Header: map[string]string{name: value}}
	}
	many := make(map[string]string)
	for i := range 100 {
		many["X-"+strings.Repeat("a", i+1)] = "1"
	}
	tests := map[string]gateway.Request{
		"no method":            {Path: "/x"},
		"TRACE":                {Method: "TRACE", Path: "/x"},
		"CONNECT":              {Method: "CONNECT", Path: "/x"},
		"two methods":          {Method: "GET /y HTTP/1.1\r\n", Path: "/x"},
		"a body with GET":      {Method: "GET", Path: "/x", Body: "a"},
		"a large body":         {Method: "POST", Path: "/x", Body: strings.Repeat("a", 1<<20+1)},
		"a body of functions":  {Method: "POST", Path: "/x", Body: func() {}},
		"a long query":         {Method: "GET", Path: "/x", Query: map[string]string{"a": strings.Repeat("a", 5000)}},
		"another method":       {Method: "POST", Path: "/x", Query: map[string]string{"_method": "DELETE"}},
		"a name with a colon":  header("X:Y", "1"),
		"a name with a space":  header("X Y", "1"),
		"no name":              header("", "1"),
		"a value with a line":  header("X-Y", "1\r\nX-Admin: 1"),
		"a value with a NUL":   header("X-Y", "1\x00"),
		"a long value":         header("X-Y", strings.Repeat("a", 3000)),
		"many headers":         {Method: "GET", Path: "/x", Header: many},
		"the same name twice":  {Method: "GET", Path: "/x", Header: map[string]string{"X-Y": "1", "x-y": "2"}},
		"a name in the script": header("Хост", "1"),
	}
	for _, name := range []string{
		"X-API-Key", "x-user-id", "X_Api_Key", "X-Agent-Registration-Secret", "Authorization", "Cookie", "Host", "Connection", "Keep-Alive", "TE",
		"Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP",
		"Accept-Encoding", "Range", "If-Range", "Content-Length", "X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-Url", "Expect",
	} {
		tests[name] = header(name, "1")
	}
	for name, give := range tests {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			r := f.register(t, "my-agent")

			_, err := f.Lifecycle.Do(t.Context(), r.Key, give)

			var e *gateway.RefusedError
			if !errors.As(err, &e) || !strings.HasSuffix(e.Error(), ".") {
				t.Errorf("got %v, want a RefusedError with a sentence", err)
			}
			if got := len(s.seen("")); got != 2 {
				t.Errorf("got %d requests, want those of the registration only", got)
			}
		})
	}
}

func TestDoPassesOtherHeadersOn(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")

	_, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "GET", Path: "/x", Header: map[string]string{
		"Accept": "text/csv", "idempotency-key": "7", "If-None-Match": `"v1"`, "X-Request-Id": "abc",
	}})
	if err != nil {
		t.Fatal(err)
	}

	sent := s.seen("/x")[0].Header
	for name, want := range map[string]string{"Accept": "text/csv", "Idempotency-Key": "7", "If-None-Match": `"v1"`, "X-Request-Id": "abc"} {
		if got := sent.Get(name); got != want {
			t.Errorf("sent %s %q, want %q", name, got, want)
		}
	}
}

func TestDoFollowsRedirectsWithinTheOrigin(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	s.on("/a", reply(302, "", "Location", "/b?c=d#e")).on("/b", reply(307, "", "Location", s.URL+"/c")).on("/c", reply(200, "here"))
	s.on("/loop", reply(302, "", "Location", "/loop"))
	s.on("/issue", reply(302, "", "Location", invitePath))
	s.on("/dots", reply(302, "", "Location", "/x/%2e%2e%2fy"))
	invites := len(s.seen(invitePath))

	got, err := f.Lifecycle.Do(t.Context(), r.Key, get("/a"))
	if err != nil || got.Status != 200 || string(got.Body) != "here" {
		t.Errorf("got %+v (%v), want the page at the end", got, err)
	}
	if sent := s.seen("/b")[0]; sent.Query != "c=d" || sent.Header.Get("X-Api-Key") == "" {
		t.Errorf("sent %+v, want the query and the credential", sent)
	}

	for _, tt := range []struct {
		method, path string
		calls        int
	}{{"GET", "/loop", 6}, {"POST", "/a", 1}, {"GET", "/issue", 1}, {"HEAD", "/dots", 1}} {
		before := len(s.seen(""))
		got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: tt.method, Path: tt.path})
		if err != nil || got.Status != 302 || got.Header["Location"] == nil {
			t.Errorf("%s %s: got %+v (%v), want the redirect itself", tt.method, tt.path, got, err)
		}
		if got := len(s.seen("")) - before; got != tt.calls {
			t.Errorf("%s %s: got %d requests, want %d", tt.method, tt.path, got, tt.calls)
		}
	}
	if got := len(s.seen(invitePath)); got != invites {
		t.Errorf("a redirect led to an invite")
	}
}

func TestDoTakesNothingToAnotherOrigin(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
		s, other := newService(t), newService(t)
		f := at(t, s)
		r := f.register(t, "my-agent")
		for _, to := range []string{other.URL + "/x", strings.Replace(other.URL, "http:", "", 1) + "/x", "https://127.0.0.1:1/x"} {
			s.on("/x", reply(302, "", "Location", to))

			_, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: method, Path: "/x"})

			e := wantError(t, err, gateway.CodeRedirect)
			if want := method == "POST" || method == "DELETE"; e.Sent != want {
				t.Errorf("%s: got Sent %v, want %v", method, e.Sent, want)
			}
		}
		if got := other.seen(""); len(got) != 0 {
			t.Errorf("%s: the other host saw %v, want nothing", method, got)
		}
	}
}

func TestDoHidesALocationElsewhere(t *testing.T) {
	s := newService(t).on("/x", reply(201, "", "Location", "https://other.example/x?key=1"))
	f := at(t, s)
	r := f.register(t, "my-agent")

	got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "POST", Path: "/x"})

	if err != nil || got.Status != 201 || got.Header["Location"] != nil {
		t.Errorf("got %+v (%v), want no Location", got, err)
	}
}

func TestDoCapsTheAnswer(t *testing.T) {
	const limit = 256 << 10
	secret := token("my-agent", 1)
	for _, tt := range []struct {
		name      string
		body      string
		truncated bool
	}{
		{"at the limit", strings.Repeat("a", limit), false},
		{"over it", strings.Repeat("a", limit+1), true},
		{"far over it", strings.Repeat("ä", 1<<20), true},
		{"a secret across it", strings.Repeat("a", limit-20) + secret + strings.Repeat("b", 1<<20), true},
		{"a secret across what is read", strings.Repeat("a", limit+512-20) + secret + strings.Repeat("b", 1<<20), true},
		{"secrets that make room", strings.Repeat(secret+" ", 10_000), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on("/x", reply(200, tt.body))
			f := at(t, s)
			r := f.register(t, "my-agent")

			got, err := f.Lifecycle.Do(t.Context(), r.Key, get("/x"))
			if err != nil {
				t.Fatal(err)
			}

			if got.Truncated != tt.truncated || len(got.Body) > limit || len(got.Body) < limit/3 {
				t.Errorf("got %d bytes, truncated %v, want truncated %v", len(got.Body), got.Truncated, tt.truncated)
			}
			if strings.Contains(string(got.Body), "SecretKey") || strings.Contains(string(got.Body), "abc123") {
				t.Errorf("got part of a secret: %q", got.Body[len(got.Body)-200:])
			}
		})
	}
}

func TestDoDescribesBinaries(t *testing.T) {
	png := "\x89PNG\r\n\x1a\n" + strings.Repeat("\x00\xff", 50)
	for _, tt := range []struct{ name, body, want string }{
		{"an image", png, "image/png, 108 bytes"},
		{"a large one", png + strings.Repeat("\x00", 1<<20), "image/png, more than 262656 bytes"},
		{"zeros in a text", "a\x00b", "application/octet-stream, 3 bytes"},
		{"text in another encoding", "caf\xe9", "text/plain, 4 bytes"},
		{"UTF-8", "café", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on("/x", reply(200, tt.body, "Content-Type", "text/html; charset=x"))
			f := at(t, s)
			r := f.register(t, "my-agent")

			got, err := f.Lifecycle.Do(t.Context(), r.Key, get("/x"))

			if err != nil || got.Binary != tt.want || (len(got.Body) != 0) != (tt.want == "") {
				t.Errorf("got %q and %q (%v), want %q", got.Binary, got.Body, err, tt.want)
			}
		})
	}
}

func TestDoRetriesWhatIsSafe(t *testing.T) {
	for _, tt := range []struct {
		method string
		first  http.HandlerFunc
		calls  int
		status int // 0: no answer
	}{
		{"GET", reply(503, ""), 2, 200},
		{"HEAD", reply(500, ""), 2, 200},
		{"GET", raw(""), 2, 200},
		{"GET", reply(429, "", "Retry-After", "1"), 2, 200},
		{"GET", reply(429, ""), 1, 429},
		{"GET", reply(501, ""), 1, 501},
		{"POST", reply(503, ""), 1, 503},
		{"DELETE", reply(500, ""), 1, 500},
		{"POST", reply(429, "", "Retry-After", "1"), 2, 200},
		{"POST", raw(""), 1, 0},
	} {
		s := newService(t).in("/x", tt.first, reply(200, ""))
		f := at(t, s)
		r := f.register(t, "my-agent")

		got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: tt.method, Path: "/x"})

		if tt.status == 0 {
			if e := wantError(t, err, gateway.CodeUnreachable); !e.Sent {
				t.Errorf("%s: got Sent false, want true", tt.method)
			}
		} else if err != nil || got.Status != tt.status {
			t.Errorf("%s: got %d (%v), want %d", tt.method, got.Status, err, tt.status)
		}
		if got := len(s.seen("/x")); got != tt.calls {
			t.Errorf("%s: got %d requests, want %d", tt.method, got, tt.calls)
		}
	}
}

func TestDoReportsARefusedCredential(t *testing.T) {
	s := newService(t).on("/x", reply(401, `{"error":{"code":"unauthorized"}}`))
	f := at(t, s)
	r := f.register(t, "my-agent")

	got, err := f.Lifecycle.Do(t.Context(), r.Key, get("/x"))

	if err != nil || got.Status != 401 || len(s.seen("/x")) != 1 {
		t.Errorf("got %d (%v) after %d requests, want 401 after one", got.Status, err, len(s.seen("/x")))
	}
	// It stays what it was: the last token is the proof of who the agent is.
	c, err := f.store.Get(t.Context(), r.Key)
	if err != nil || c.State != credstore.StateActive {
		t.Errorf("got the state %q (%v), want it unchanged", c.State, err)
	}
}

func TestDoWithoutACredential(t *testing.T) {
	s := newService(t)
	f := at(t, s)

	_, err := f.Lifecycle.Do(t.Context(), lonaKey(s.URL, "nobody"), get("/x"))
	if !errors.Is(err, credstore.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	k := lonaKey(s.URL, "nobody")
	k.Protocol = "gopher"
	if _, err = f.Lifecycle.Do(t.Context(), k, get("/x")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want that the protocol is not known", err)
	}
	if got := len(s.seen("")); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}

func TestDoSendsNothingInPlainHTTP(t *testing.T) {
	f := newFixture(t, setup{})
	k := lonaKey("http://gateway.example.com", "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(token("my-agent", 1))})

	_, err := f.Lifecycle.Do(t.Context(), k, get("/x"))

	wantError(t, err, gateway.CodeInsecure)
}

// bearer is a protocol with all the abilities there are: its tokens are
// renewed and revoked.
type bearer struct {
	store  credstore.Store
	origin string
	renews int
}

func (*bearer) Wire() wire.Protocol {
	return wire.Protocol{
		Name: "bearer", Headers: []string{"X-Bearer"},
		Reserved: []wire.Route{{Method: "DELETE", Path: "/keys/*", Tool: "revoke_credential"}},
	}
}
func (b *bearer) Origin() string     { return b.origin }
func (*bearer) Kind() credstore.Kind { return "api_key" }
func (b *bearer) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	c, err := b.store.Get(ctx, k)
	req.Header.Set("Authorization", "Bearer "+c.Secret.Reveal())
	return err
}

func (b *bearer) Renew(ctx context.Context, k credstore.Key) error {
	b.renews++
	c, err := b.store.Get(ctx, k)
	if err != nil {
		return err
	}
	c.Secret = credstore.NewSecret("renewed-0123456789")
	return b.store.Put(ctx, c)
}

func (b *bearer) Due(_ context.Context, i credstore.Info, _ []credstore.Info) time.Time {
	return i.ExpiresAt
}

func (b *bearer) Revoke(ctx context.Context, k credstore.Key) error {
	c, err := b.store.Get(ctx, k)
	if err != nil {
		return err
	}
	c.State = credstore.StateRevoked
	return b.store.Put(ctx, c)
}

func TestAProtocolWithMoreAbilities(t *testing.T) {
	s := newService(t).on("/x", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer renewed-0123456789" {
			reply(401, "")(w, r)
			return
		}
		reply(200, "renewed-0123456789")(w, r)
	})
	f := at(t, s)
	b := &bearer{store: f.Store(), origin: s.URL}
	f.With(b)
	k := credstore.Key{Protocol: "bearer", Origin: s.URL, Agent: "ag_1", Kind: "api_key", Label: "scout"}
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret("old-0123456789abcdef")})
	recovery := k
	recovery.Kind = "recovery_key"
	f.put(t, credstore.Credential{Info: credstore.Info{Key: recovery}, Secret: credstore.NewSecret("rk-0123456789abcdef")})

	i, err := f.Lifecycle.Resolve(t.Context(), "bearer/scout")
	if err != nil || i.Key != k {
		t.Fatalf("got %+v (%v), want the key by its label", i, err)
	}
	got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
	if err != nil || got.Status != 200 || string(got.Body) != "[redacted]" || b.renews != 1 {
		t.Errorf("got %d %q (%v) after %d renewals", got.Status, got.Body, err, b.renews)
	}
	lona := f.register(t, "my-agent")
	var refused *gateway.RefusedError
	for _, k := range []credstore.Key{k, lona.Key} { // both live at this origin
		_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "DELETE", Path: "/keys/7"})
		if !errors.As(err, &refused) || refused.Tool != "revoke_credential" {
			t.Errorf("got %v, want a RefusedError that names revoke_credential", err)
		}
		_, err = f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "GET", Path: "/x", Header: map[string]string{"X-Bearer": "1"}})
		if !errors.As(err, &refused) {
			t.Errorf("got %v, want a RefusedError", err)
		}
	}
	var unsupported *gateway.UnsupportedError
	if _, err := f.Lifecycle.Rotate(t.Context(), k); !errors.As(err, &unsupported) || unsupported.Op != "rotate" {
		t.Errorf("got %v, want an UnsupportedError", err)
	}
	if err := f.Lifecycle.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
	if i, err := f.Lifecycle.Resolve(t.Context(), "bearer/scout"); err != nil || i.State != credstore.StateRevoked {
		t.Errorf("got %+v (%v), want it revoked", i, err)
	}
}
