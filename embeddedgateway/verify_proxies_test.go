package embeddedgateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// manualBlock returns the first block of the manual in a language: what people
// copy is what is tested.
func manualBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "cmd", "enlist", "docs", "gateway.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n```"+language+"\n")
	block, _, ended := strings.Cut(rest, "\n```\n")
	if !ok || !ended {
		t.Fatalf("the manual has no block in %s", language)
	}
	return block
}

// realAPI is an API that answers with what it got.
type realAPI struct {
	Method, URI string
	Header      http.Header
	Body        string
}

func serveAPI(t *testing.T) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the API: %v", err)
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(realAPI{r.Method, r.RequestURI, r.Header, string(body)}); err != nil {
			t.Errorf("the API: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// realProxy is how to run a program of others with a configuration of the manual.
type realProxy struct {
	program  string
	language string                                    // of the block in the manual
	config   func(dir, block, addr string) string      // the whole file, for an address to listen on
	command  func(program, dir, file string) *exec.Cmd // runs it in the foreground
	ready    string                                    // is in a line of its log when it listens
}

func realProxies() []realProxy {
	return []realProxy{
		{
			program: "nginx", language: "nginx", ready: "start worker process",
			config: func(dir, block, addr string) string {
				temp := ""
				for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
					temp += fmt.Sprintf("%s_temp_path %s;\n", name, filepath.Join(dir, name))
				}
				return "daemon off; error_log stderr notice; pid " + filepath.Join(dir, "nginx.pid") + "; worker_processes 1;\n" +
					"events { worker_connections 64; }\nhttp {\naccess_log off;\n" + temp +
					strings.Replace(block, "listen 80;", "listen "+addr+";", 1) + "}\n"
			},
			command: func(program, dir, file string) *exec.Cmd {
				return exec.Command(program, "-e", "stderr", "-p", dir, "-c", file)
			},
		},
		{
			program: "caddy", language: "caddy", ready: "serving initial configuration",
			config: func(_, block, addr string) string {
				_, port, _ := net.SplitHostPort(addr)
				return "{\n\tadmin off\n\tauto_https off\n\thttp_port " + port + "\n\tdefault_bind 127.0.0.1\n}\n" + block + "\n"
			},
			command: func(program, dir, file string) *exec.Cmd {
				c := exec.Command(program, "run", "--config", file, "--adapter", "caddyfile")
				c.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
				return c
			},
		},
	}
}

// start runs the proxy before the gateway and the API, and returns its address.
// Nobody can tell it to take any free port and say which, so it is given one that
// was free a moment ago, and another one when that is taken.
func (p realProxy) start(t *testing.T, gateway, api string) (addr string) {
	t.Helper()
	program, err := exec.LookPath(p.program)
	if err != nil {
		if program = filepath.Join("/usr/sbin", p.program); !exists(program) {
			t.Skipf("there is no %s here", p.program)
		}
	}
	block := strings.NewReplacer("127.0.0.1:8420", gateway, "127.0.0.1:3000", api).Replace(manualBlock(t, p.language))
	var log string
	for range 5 {
		addr = freeAddr(t)
		if log = p.run(t, program, block, addr); log == "" {
			return addr
		}
	}
	t.Fatalf("%s does not start: %s", p.program, log)
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// run starts the program and waits until it is ready. It returns what it said if
// it ends before.
func (p realProxy) run(t *testing.T, program, block, addr string) (log string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, p.program+".conf")
	if err := os.WriteFile(file, []byte(p.config(dir, block, addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.command(program, dir, file)
	c.WaitDelay = 5 * time.Second
	out, in := io.Pipe()
	c.Stdout, c.Stderr = in, in
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := c.Wait()
		in.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if log += lines.Text() + "\n"; strings.Contains(lines.Text(), p.ready) {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			t.Cleanup(func() {
				_ = c.Process.Signal(syscall.SIGTERM)
				<-ended
			})
			return ""
		}
	}
	return log + fmt.Sprint(<-ended)
}

// through makes a request of an agent, through the proxy, with exactly these
// headers.
func through(t *testing.T, addr, method, uri, body string, h http.Header) (answer, realAPI) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.URL.Opaque, req.Header = "api.example.com", uri, h
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got realAPI
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("the API answered %s: %v", text, err)
		}
	}
	return answer{resp.StatusCode, resp.Header, text}, got
}

func TestRealProxiesAskTheGateway(t *testing.T) {
	for _, p := range realProxies() {
		t.Run(p.program, func(t *testing.T) {
			t.Parallel()
			gw := fronted(t, embeddedgateway.Rule{Path: "/reports", Methods: []string{"POST"}, Scopes: []string{"messages:write"}},
				embeddedgateway.Rule{Path: "/closed", Scopes: []string{"nobody"}})
			addr := p.start(t, strings.TrimPrefix(gw.URL, "http://"), serveAPI(t))
			all := members(t, gw)
			for _, m := range all {
				t.Run(m.name, func(t *testing.T) { wantThrough(t, gw, addr, m) })
			}
			t.Run("refusals", func(t *testing.T) { wantRefusedThrough(t, gw, addr, all) })
			t.Run("limits", func(t *testing.T) { wantLimitsThrough(t, gw, addr, p, all[1], all[0]) })
			t.Run("spoofing", func(t *testing.T) { wantNoSpoofing(t, addr, all[1]) })
		})
	}
}

func TestRealProxiesLetNothingPassWithoutTheGateway(t *testing.T) {
	for _, p := range realProxies() {
		t.Run(p.program, func(t *testing.T) {
			t.Parallel()
			addr := p.start(t, freeAddr(t), serveAPI(t))
			a, got := through(t, addr, http.MethodGet, "/", "", http.Header{"X-Enlist-Agent": {"lona/root"}})
			if a.status/100 != 5 || got.Method != "" {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
}

// headersOf is the credential of a member.
func headersOf(m member, more http.Header) http.Header {
	h := http.Header{}
	for name, value := range m.header {
		h.Set(name, value)
	}
	for name, values := range more {
		h[name] = values
	}
	return h
}

// wantThrough checks that the API gets the request of a member, and what it is
// told of them.
func wantThrough(t *testing.T, gw *gatewaytest.Gateway, addr string, m member) {
	t.Helper()
	method, body := http.MethodGet, ""
	if m.protocol == "fluxra" { // has the scope
		method, body = http.MethodPost, "some text"
	}
	a, got := through(t, addr, method, "/reports/7?q=%2e%2e&r=1", body, headersOf(m, http.Header{"Accept": {"text/plain"}}))
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	if got.Method != method || got.URI != "/reports/7?q=%2e%2e&r=1" || got.Body != body || got.Header.Get("Accept") != "text/plain" {
		t.Errorf("the API got %+v", got)
	}
	if agent := got.Header.Get("X-Enlist-Agent"); agent != m.protocol+"/"+m.agent {
		t.Errorf("the API is told of %q", agent)
	}
	if scopes := got.Header.Get("X-Enlist-Scopes"); scopes != m.scopes {
		t.Errorf("the API is told of the scopes %q, want %q", scopes, m.scopes)
	}
	if said := verifyAssertion(t, gw, got.Header.Get("X-Enlist-Token")); said["key_id"] != got.Header.Get("X-Enlist-Key-Id") || said["sub"] != m.protocol+"/"+m.agent {
		t.Errorf("the API is told %v in the token, and %v", said, got.Header)
	}
	for name, values := range got.Header {
		if text := strings.Join(values, ","); strings.Contains(text, m.secret) || text != "" && text == m.header["Authorization"] {
			t.Errorf("the API got the credential, in %s", name)
		}
	}
	if got.Header.Get("X-User-Id") != "" {
		t.Errorf("the API got X-User-Id")
	}
}

// wantRefusedThrough checks that the client gets a refusal as the gateway says it.
func wantRefusedThrough(t *testing.T, gw *gatewaytest.Gateway, addr string, all []member) {
	t.Helper()
	lona, ltx, lumina := all[0], all[1], all[8]
	for _, tc := range []struct {
		name, method, uri string
		header            http.Header
		status            int
		code              string
	}{
		{"no credential", "GET", "/", http.Header{}, 401, "no_credential"},
		{"an unknown one", "GET", "/", http.Header{"Authorization": {"Bearer ltx_aaaaaaaaaaaaaaaaaaaa"}}, 401, "INVALID_API_KEY"},
		{"a scope is lacking", "POST", "/reports", headersOf(ltx, nil), 403, "insufficient_scope"},
		{"a scope is lacking to Lumina", "POST", "/reports/7?a=b", headersOf(lumina, nil), 403, "insufficient_scope"},
		{"two credentials", "GET", "/", headersOf(ltx, headersOf(lona, nil)), 400, "two_credentials"},
		{"dots", "GET", "/a/../closed", headersOf(lona, nil), 400, "invalid_path"},
		{"an encoded slash", "GET", "/a%2fb", headersOf(lona, nil), 400, "invalid_path"},
		{"two slashes", "GET", "/a//closed", headersOf(lona, nil), 400, "invalid_path"},
		{"an overridden method", "GET", "/", headersOf(ltx, http.Header{"X-Http-Method-Override": {"POST"}}), 400, "method_override"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, _ := through(t, addr, tc.method, tc.uri, "", tc.header)
			wantStatus(t, a, tc.status, tc.code)
			if got := a.header.Values("WWW-Authenticate"); (len(got) == 1) != (tc.status == 401) && tc.status != 403 {
				t.Errorf("got WWW-Authenticate %q with %d", got, a.status)
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("got a body of %s", got)
			}
		})
	}
	t.Run("revoked", func(t *testing.T) {
		for range 100 {
			if a, _ := through(t, addr, http.MethodGet, "/", "", headersOf(ltx, nil)); a.status != http.StatusOK {
				t.Fatalf("before: got %d %s", a.status, a.body)
			}
		}
		if err := gw.Embedded().Suspend(t.Context(), lumina.protocol, lumina.agent); err != nil {
			t.Fatal(err)
		}
		if a, _ := through(t, addr, http.MethodGet, "/", "", headersOf(lumina, nil)); a.status != http.StatusUnauthorized {
			t.Errorf("got %d %s on the very next request", a.status, a.body)
		}
	})
}

// wantLimitsThrough checks that clients learn of their limits, also of those that
// they have used up.
func wantLimitsThrough(t *testing.T, gw *gatewaytest.Gateway, addr string, p realProxy, few, none member) {
	t.Helper()
	embeddedgateway.Meter(gw.Embedded(), func(c embeddedgateway.Caller) (http.Header, time.Duration) {
		if c.Protocol == none.protocol {
			return http.Header{"Ratelimit": {`"agent";r=0;t=7`}, "Ratelimit-Policy": {`"agent";q=9;w=60`}}, 7 * time.Second
		}
		return http.Header{"Ratelimit": {`"agent";r=8;t=7`}, "Ratelimit-Policy": {`"agent";q=9;w=60`}}, 0
	})
	t.Cleanup(func() {
		embeddedgateway.Meter(gw.Embedded(), func(embeddedgateway.Caller) (http.Header, time.Duration) { return nil, 0 })
	})
	a, _ := through(t, addr, http.MethodGet, "/", "", headersOf(none, nil))
	wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
	got := fmt.Sprint(a.header["Retry-After"], a.header["Ratelimit"], a.header["Ratelimit-Policy"])
	if want := `[7] ["agent";r=0;t=7] ["agent";q=9;w=60]`; got != want {
		t.Errorf("a refusal says %s, want %s", got, want)
	}
	a, _ = through(t, addr, http.MethodGet, "/", "", headersOf(few, nil))
	wantStatus(t, a, http.StatusOK, "")
	if p.program == "caddy" {
		return // has no way for them
	}
	got = fmt.Sprint(a.header["Ratelimit"], a.header["Ratelimit-Policy"])
	if want := `["agent";r=8;t=7] ["agent";q=9;w=60]`; got != want {
		t.Errorf("an answer says %s, want %s", got, want)
	}
	a, _ = through(t, addr, http.MethodPost, "/reports", "", headersOf(few, nil))
	wantStatus(t, a, http.StatusForbidden, "insufficient_scope")
	if got := fmt.Sprint(a.header["Ratelimit"]); got != `["agent";r=8;t=7]` {
		t.Errorf("a refusal for want of a scope says %s", got)
	}
}

// wantNoSpoofing checks that nothing of what a client says of itself gets to the
// API.
func wantNoSpoofing(t *testing.T, addr string, m member) {
	t.Helper()
	for _, tc := range []struct {
		name   string
		header http.Header
		status int
	}{
		{"as they are", http.Header{"X-Enlist-Agent": {"lona/root"}, "X-Enlist-Scopes": {"*"}, "X-Enlist-Protocol": {"lona"}, "X-Enlist-Key-Id": {"root"}, "X-Enlist-Token": {"root"}}, 200},
		{"in lower case", http.Header{"x-enlist-agent": {"lona/root"}, "x-enlist-scopes": {"*"}}, 200},
		{"twice", http.Header{"X-Enlist-Agent": {"lona/root", "lona/root"}}, 200},
		{"with underscores", http.Header{"X_Enlist_Agent": {"lona/root"}, "x_enlist_scopes": {"root"}, "X-Enlist_Agent": {"root"}, "X_Enlist-Agent": {"root"}}, 200},
		{"of the connection", http.Header{"Connection": {"X-Enlist-Agent, X-Enlist-Scopes, x-enlist-token"}, "X-Enlist-Agent": {"lona/root"}}, 200},
		{"as another request", http.Header{"X-Original-Uri": {"/"}, "X-Original-Method": {"GET"}}, 200},
		{"by a name that there is not", http.Header{"X-Enlist-Role": {"root"}, "X-Enlist-Refusal": {"root"}}, 0},
		{"as another request to Caddy", http.Header{"X-Forwarded-Uri": {"/"}, "X-Forwarded-Method": {"GET"}}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, got := through(t, addr, http.MethodGet, "/a", "", headersOf(m, tc.header))
			if tc.status == 0 && a.status == http.StatusBadRequest {
				return // nginx cannot remove what it does not know: the gateway refuses it
			}
			if a.status != http.StatusOK {
				t.Fatalf("got %d %s, want %d", a.status, a.body, tc.status)
			}
			if agent := got.Header["X-Enlist-Agent"]; fmt.Sprint(agent) != fmt.Sprint([]string{m.protocol + "/" + m.agent}) {
				t.Errorf("the API is told of %q", agent)
			}
			text, err := json.Marshal(got.Header)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("root")) || bytes.Contains(text, []byte(`"*"`)) {
				t.Errorf("the API got %s", text)
			}
			a, _ = through(t, addr, http.MethodPost, "/reports", "", headersOf(m, tc.header))
			if a.status != http.StatusForbidden && a.status != http.StatusBadRequest {
				t.Errorf("a POST without its scope: got %d %s", a.status, a.body)
			}
		})
	}
}

// TestRecordedProxiesAskTheGateway: these are not run here; what they send is
// taken from their documentation.
func TestRecordedProxiesAskTheGateway(t *testing.T) {
	for _, name := range []string{"traefik", "envoy"} {
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(filepath.Join("testdata", "verify", name+".txtar"))
			if err != nil {
				t.Fatal(err)
			}
			recorded := strings.ReplaceAll(string(archive.Files[0].Data), "\n", "\r\n")
			gw := fronted(t, embeddedgateway.Rule{Path: "/reports", Methods: []string{"POST"}, Scopes: []string{"messages:write"}})
			bot := fluxNew(t, gw, "")
			ask := func(credential string) answer {
				return sendBytes(t, gw, strings.Replace(recorded, "CREDENTIAL", credential, 1))
			}

			a := ask(bot.key)
			wantStatus(t, a, http.StatusOK, "")
			if got := a.header.Values("X-Enlist-Agent"); fmt.Sprint(got) != "[fluxra/"+bot.id+"]" {
				t.Errorf("the API is told of %q", got)
			}
			verifyAssertion(t, gw, a.header.Get("X-Enlist-Token"))
			wantStatus(t, ask(ltxKey(t, gw, "scout")), http.StatusForbidden, "insufficient_scope")
			wantStatus(t, ask("nothing"), http.StatusUnauthorized, "unknown_credential")
			if event := last(t, gw); event.IP != "198.51.100.9" {
				t.Errorf("the audit trail names %s, want the client", event.IP)
			}
			other := strings.Replace(recorded, "/reports/7", "/reports/../reports/7", 1)
			wantStatus(t, sendBytes(t, gw, strings.Replace(other, "CREDENTIAL", bot.key, 1)), http.StatusBadRequest, "invalid_path")
		})
	}
}

// sendBytes sends a request byte by byte.
func sendBytes(t *testing.T, gw *gatewaytest.Gateway, request string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(gw.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}
