package tools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

const (
	// hostileLimit is far more than any tool may take at a service like these.
	hostileLimit = 25 * time.Second
	// hostileSteps is more than any tool makes requests.
	hostileSteps = 12
)

// manner is how a hostile service answers.
type manner struct {
	name string
	// answer is what it does. honest is what the real gateway does; elsewhere is
	// the URL of a server that no request may reach.
	answer func(honest http.Handler, elsewhere string) http.HandlerFunc
	// hangs: nothing ends it but the time of a request.
	hangs bool
	// status is that of an answer which is one to somebody who wants no more than
	// that; 0: it is none.
	status int
}

func manners() []manner {
	static := func(h http.HandlerFunc) func(http.Handler, string) http.HandlerFunc {
		return func(http.Handler, string) http.HandlerFunc { return h }
	}
	return []manner{
		{name: "drips bytes", answer: static(drip), hangs: true},
		{name: "closes in the body", answer: static(wire200("Content-Length: 100\r\n\r\n{\"data\":", false))},
		{name: "says too long a length", answer: static(wire200("Content-Length: 99999999999\r\n\r\n{}", true)), hangs: true},
		{name: "says too short a length", answer: static(wire200("Connection: close\r\nContent-Length: 2\r\n\r\n{}{\"data\":{}}HTTP/1.1 200 OK\r\n\r\n", false)), status: 200},
		{name: "redirects to another host", answer: func(_ http.Handler, elsewhere string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			}
		}},
		{name: "echoes the headers into the body", answer: static(echo), status: 200},
		{name: "sets 1,000 long headers", answer: static(wire200(strings.Repeat("X-Filler: "+strings.Repeat("x", 300)+"\r\n", 1000)+"Content-Length: 2\r\n\r\n{}", false))},
		{name: "sets 1,000 headers", answer: static(manyHeaders), status: 200},
		{name: "sends 64 MiB", answer: static(func(w http.ResponseWriter, _ *http.Request) { flood(w) }), status: 200},
		{name: "says 401 forever", answer: static(refusing(http.StatusUnauthorized, "")), status: 401},
		{name: "issues tokens with newlines", answer: newlines, status: 200},
	}
}

func drip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	drop := time.NewTicker(5 * time.Millisecond)
	defer drop.Stop()
	for {
		if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-drop.C:
		case <-r.Context().Done():
			return
		}
	}
}

// wire200 answers with these bytes, and then closes the connection or leaves it
// open until the client goes.
func wire200(rest string, open bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + rest)
		_ = rw.Flush()
		if open {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// echo puts what it was sent into its answer, as all that it could be.
func echo(w http.ResponseWriter, r *http.Request) {
	said := map[string]any{}
	for name, values := range r.Header {
		said[name] = values[0]
		said["x-"+name] = strings.TrimPrefix(values[0], "Bearer ")
		w.Header().Set("X-Echo-"+name, values[0])
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"headers": said, "error": said, "data": []any{said}})
}

func manyHeaders(w http.ResponseWriter, _ *http.Request) {
	for n := range 1000 {
		w.Header().Set(fmt.Sprintf("X-Filler-%d", n), "x")
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// newlines has the real gateway answer, and puts a line into each secret that
// it issues, as would make another header of it.
func newlines(honest http.Handler, _ string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		body := regexp.MustCompile(`"(token|invite_code|api_key|apiKey|access_token|recovery_key)":"([^"]{4})`).
			ReplaceAll(rec.Body.Bytes(), []byte(`"$1":"$2\nX-Admin: yes`))
		header := maps.Clone(rec.Header())
		delete(header, "Content-Length")
		maps.Copy(w.Header(), header)
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	}
}

// use is one way of using a tool.
type use struct {
	tool, at string // at: the protocol, where the tool has several
	// registers: it needs a credential of at.
	registers bool
	args      func(origin, agent string) args
	// shows: it shows whatever the service says.
	shows bool
	// takes is the request from which on a success is one for it, whatever stands
	// in it; 0: none.
	takes int
	// offline: it may be done without any service; refused: a gateway that is not
	// hostile refuses it too.
	offline, refused bool
	// enough is the number of requests that must go well; 0: all.
	enough int
}

func (u use) name() string { return strings.TrimSpace(u.tool + " " + u.at) }

// hostileUses are all tools, those that several protocols have with each.
func hostileUses() []use {
	email := func(more args) func(string, string) args {
		return func(_, agent string) args {
			out := args{"email": agent + "@example.com"}
			maps.Copy(out, more)
			return out
		}
	}
	uses := []use{
		{tool: "list_credentials", at: "lona", registers: true, offline: true, args: func(string, string) args { return args{} }},
		{tool: "discover_service", shows: true, enough: 1, args: func(origin, _ string) args { return args{"url": origin} }},
		{tool: "lona_list_strategies", at: "lona", registers: true, takes: 1, args: credential("lona", nil)},
		{tool: "fluxra_verify_email", at: "by token", takes: 1, refused: true, args: func(string, string) args { return args{"token": fluxraMailed} }},
		{tool: "fluxra_verify_email", at: "by mail", args: email(nil), takes: 1},
		{tool: "fluxra_recover_account", at: "by mail", args: email(nil), takes: 1},
		{tool: "fluxra_recover_account", at: "by code", refused: true, args: email(args{"code": fluxraDigits})},
	}
	// Those that renew, and one that does not.
	paths := map[string]string{"lona": "/api/v1/strategies", "lithtrix": "", "agentdoor": "/whoami", "fluxra": "/health", "lumina": ""}
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		uses = append(uses, use{tool: p + "_register_agent", args: registration(p)})
		if paths[p] != "" {
			uses = append(uses, use{tool: "send_request", at: p, registers: true, shows: true, args: credential(p, args{"method": "GET", "path": paths[p]})})
		}
	}
	return append(uses,
		use{tool: "forget_credential", at: "fluxra", registers: true, offline: true, args: credential("fluxra", nil)},
		use{tool: "rotate_credential", at: "lona", registers: true, args: credential("lona", nil)},
		use{tool: "rotate_credential", at: "lithtrix", registers: true, args: credential("lithtrix", nil)},
		// That the old token is ended as well is a courtesy.
		use{tool: "rotate_credential", at: "fluxra", registers: true, takes: 3, enough: 3, args: credential("fluxra", nil)},
		use{tool: "rotate_credential", at: "lumina", registers: true, takes: 3, args: credential("lumina", nil)},
		use{tool: "revoke_credential", at: "fluxra", registers: true, takes: 1, enough: 1, args: credential("fluxra", nil)},
		use{tool: "revoke_credential", at: "lumina", registers: true, takes: 1, args: credential("lumina", nil)},
	)
}

func credential(protocol string, more args) func(string, string) args {
	return func(_, agent string) args {
		out := args{"credential": protocol + "/" + agent}
		maps.Copy(out, more)
		return out
	}
}

func registration(protocol string) func(origin, agent string) args {
	return func(origin, agent string) args {
		return map[string]args{
			"lona":      {"agent_id": agent, "agent_name": "An Agent"},
			"lithtrix":  {"agent_name": agent, "owner_identifier": "me@example.com"},
			"agentdoor": {"service_url": origin, "agent_name": agent},
			"fluxra":    {"agent_name": agent},
			"lumina":    {"label": agent},
		}[protocol]
	}
}

// front is a service that is the real gateway at first, and hostile from a
// request on.
type front struct {
	*httptest.Server
	honest, hostile http.Handler

	mu   sync.Mutex
	from int // the first hostile request; 0: none is
	n    int
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.n++
	hostile := f.from > 0 && f.n >= f.from
	f.mu.Unlock()
	if hostile {
		f.hostile.ServeHTTP(w, r)
		return
	}
	f.honest.ServeHTTP(w, r)
}

// turn makes it hostile from the nth request from now on; 0: not at all.
func (f *front) turn(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.n = n, 0
}

// met reports whether anybody has met it hostile.
func (f *front) met() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.from > 0 && f.n >= f.from
}

// hosts is where connections were made to.
type hosts struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (h *hosts) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	h.mu.Lock()
	h.seen[addr] = true
	h.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func TestToolsAtAHostileService(t *testing.T) {
	var named []string
	for _, u := range hostileUses() {
		named = append(named, u.tool)
	}
	for _, tool := range tools.All(tools.Deps{}) {
		if !slices.Contains(named, tool.Tool.Name) {
			t.Errorf("%s is never used at a hostile service", tool.Tool.Name)
		}
	}
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")))
	t.Run("when", func(t *testing.T) { // the gateway ends after them all
		for i, m := range manners() {
			for j, u := range hostileUses() {
				number := 100*i + j
				t.Run("it "+m.name+" "+u.name(), func(t *testing.T) {
					t.Parallel()
					newSiege(t, gw, m, number).hold(u)
				})
			}
		}
	})
}

// siege is an agent at a service that turns hostile.
type siege struct {
	t      *testing.T
	m      manner
	gw     *gatewaytest.Gateway
	number int // no other has it
	front  *front
	store  credstore.Store
	hosts  *hosts
	other  *httptest.Server

	mu    sync.Mutex
	n     int // how often it has been tried
	calls int // that reached other
}

func newSiege(t *testing.T, gw *gatewaytest.Gateway, m manner, number int) *siege {
	t.Helper()
	s := &siege{
		t: t, m: m, gw: gw, number: number, hosts: &hosts{seen: map[string]bool{}},
		store: credstore.NewMemory(gw.Clock.Now),
	}
	s.other = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls++
	}))
	t.Cleanup(s.other.Close)
	to, err := url.Parse(gw.URL)
	if err != nil {
		t.Fatal(err)
	}
	honest := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.SetURL(to)
		// An address of its own each time: the gateway counts registrations.
		r.Out.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", s.n, s.number/200, s.number%200+1))
	}}
	s.front = &front{honest: honest, hostile: m.answer(honest, s.other.URL)}
	s.front.Server = httptest.NewServer(s.front)
	t.Cleanup(func() {
		s.front.CloseClientConnections()
		s.front.Close()
	})
	return s
}

// rig returns a model with the agent's store.
func (s *siege) rig(timeout time.Duration) *rig {
	s.t.Helper()
	env := map[string]string{}
	for _, name := range []string{"LITHTRIX_API_URL", "AGENTDOOR_URL", "FLUXRA_API_URL", "LUMINA_API_URL"} {
		env[name] = s.front.URL
	}
	return newRig(s.t, s.front.URL, options{
		env: env, clock: s.gw.Clock, timeout: timeout, transport: gateway.NewTransport(s.hosts.dial),
		store: func(credstore.Store) credstore.Store { return s.store },
	})
}

// hold uses a tool at the service, which turns hostile at its first request, at
// its second, and so on, until the tool makes no more.
func (s *siege) hold(u use) {
	t := s.t
	t.Helper()
	before := s.rig(20 * time.Second)
	r := before
	if s.m.hangs {
		r = s.rig(100 * time.Millisecond)
	}
	for n := 1; n <= hostileSteps; n++ {
		agent := fmt.Sprintf("agent-%d-%d", s.number, n)
		s.begin(n)
		if u.registers {
			call[any](before, u.at+"_register_agent", registration(u.at)(s.front.URL, agent))
		}
		s.front.turn(n)
		ctx, cancel := context.WithTimeout(t.Context(), hostileLimit)
		res := r.rawCtx(ctx, u.tool, u.args(s.front.URL, agent))
		if ctx.Err() != nil {
			t.Errorf("request %d: it did not end", n)
		}
		cancel()
		met := s.front.met()
		switch {
		case res.IsError:
			s.clear(u, n, decode[tools.Failure](t, res), met)
		case met && !s.fine(u, n):
			t.Errorf("request %d: got %s, want a failure", n, textOf(res))
		}
		s.nowhereElse(r)
		if !met || t.Failed() {
			return
		}
	}
	t.Errorf("it makes more than %d requests", hostileSteps)
}

// begin begins anew, with nothing stored.
func (s *siege) begin(n int) {
	s.t.Helper()
	s.mu.Lock()
	s.n = n
	s.mu.Unlock()
	s.front.turn(0)
	infos, err := s.store.List(s.t.Context(), "")
	for _, i := range infos {
		err = errors.Join(err, s.store.Delete(s.t.Context(), i.Key))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// fine reports whether a use may go well at a service that is hostile from the
// nth request on.
func (s *siege) fine(u use, n int) bool {
	return u.offline || u.enough > 0 && n > u.enough ||
		u.shows && s.m.status != 0 || u.takes > 0 && n >= u.takes && s.m.status == http.StatusOK
}

// noise is what only a programmer reads.
var noise = regexp.MustCompile(`\.go:\d|goroutine|0x[0-9a-f]{6}|invalid character|unexpected EOF|\bEOF\b|net/http|http2?: |json: |context (deadline|canceled)|` +
	`(read|write|dial) tcp|%!|<nil>|panic|cannot unmarshal|malformed|reset by peer|\bnil\b`)

// clear checks that a failure says what there is to say.
func (s *siege) clear(u use, n int, f tools.Failure, met bool) {
	t := s.t
	t.Helper()
	if f.Code == "" || f.WhatHappened == "" || f.WhatIsStored == "" || f.NextStep == "" {
		t.Errorf("request %d: got %+v, want code, what_happened, what_is_stored and next_step", n, f)
	}
	if f.Code == tools.CodeInternal || f.Code == tools.CodeInvalidArguments {
		t.Errorf("request %d: got %+v, which says nothing of the service", n, f)
	}
	for _, ours := range []string{f.WhatHappened, f.WhatIsStored, f.NextStep} {
		if found := noise.FindString(ours); found != "" || strings.Contains(ours, hostileClean) || strings.Contains(ours, s.other.URL) {
			t.Errorf("request %d: %q has %q, or the service's words", n, ours, found)
		}
	}
	// A busy machine takes too long for an honest answer, too.
	if !met && !s.m.hangs && !u.refused {
		t.Errorf("request %d: it failed before the service was hostile: %+v", n, f)
	}
}

// nowhereElse checks that the service alone got anything, and that the model
// got no secret.
func (s *siege) nowhereElse(r *rig) {
	t := s.t
	t.Helper()
	s.hosts.mu.Lock()
	for host := range s.hosts.seen {
		if "http://"+host != s.front.URL {
			t.Errorf("there was a connection to %s, want %s only", host, s.front.URL)
		}
	}
	s.hosts.mu.Unlock()
	s.mu.Lock()
	if s.calls != 0 {
		t.Errorf("the other host was asked %d times", s.calls)
	}
	s.mu.Unlock()
	secrets := s.gw.Secrets()
	infos, err := s.store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		c, err := s.store.Get(t.Context(), i.Key)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, c.Secret.Reveal())
		if bytes.ContainsAny([]byte(c.Secret.Reveal()), "\r\n") && i.Kind != credstore.KindKeyPair {
			t.Errorf("a secret with a line in it is stored as %s", i.Kind)
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 8 })
	r.saysNone(secrets...)
}
