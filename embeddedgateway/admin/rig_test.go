package admin_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// operatorToken is the operator's token in these tests.
const operatorToken = "enlist_admin_of_a_test_0123456789abcdefghij"

// rig is a gateway with its operator's page on a listener of its own.
type rig struct {
	t      *testing.T
	gw     *gatewaytest.Gateway
	server *httptest.Server
	url    string
	token  atomic.Pointer[string] // the operator's token; nil: it cannot be read
	page   atomic.Pointer[http.Handler]
	change func(*admin.Config)
	ips    int
}

func newRig(t *testing.T, change func(*admin.Config), opts ...gatewaytest.Option) *rig {
	t.Helper()
	// The page is on loopback, where the tests are: as a proxy they can be anybody.
	opts = append(opts, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
	r := &rig{t: t, gw: gatewaytest.New(t, opts...), change: change}
	r.setToken(operatorToken)
	r.open()
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		(*r.page.Load()).ServeHTTP(w, req)
	}))
	t.Cleanup(r.server.Close)
	r.url = r.server.URL
	return r
}

func (r *rig) setToken(token string) { r.token.Store(&token) }

// open makes the page of the gateway as it now runs.
func (r *rig) open() {
	r.t.Helper()
	c := admin.Config{Gateway: r.gw.Embedded(), Tokens: r.tokens, Now: r.gw.Clock.Now, PublicURL: r.gw.URL}
	if r.change != nil {
		r.change(&c)
	}
	h, err := admin.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.page.Store(&h)
}

func (r *rig) tokens() ([][32]byte, error) {
	token := r.token.Load()
	if token == nil {
		return nil, errors.New("the file is gone")
	}
	return [][32]byte{sha256.Sum256([]byte(*token))}, nil
}

// answer is what the page answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// browser asks as a browser does, without its window: it keeps a cookie.
type browser struct {
	*rig
	cookie *http.Cookie
	header map[string]string // sent with all; an empty value is not
}

func (r *rig) browser() *browser { return &browser{rig: r, header: map[string]string{}} }

func (b *browser) ask(method, path string, form url.Values) answer {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, b.url+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != nil {
		req.AddCookie(b.cookie)
	}
	for name, value := range b.header {
		switch {
		case name == "Host":
			req.Host = value
		case value != "":
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		b.cookie = c
		if c.MaxAge < 0 {
			b.cookie = nil
		}
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *browser) get(path string) answer { b.t.Helper(); return b.ask(http.MethodGet, path, nil) }

// signIn begins a session.
func (b *browser) signIn() *browser {
	b.t.Helper()
	b.want(b.ask(http.MethodPost, "/sign-in", url.Values{"token": {operatorToken}}), http.StatusSeeOther)
	if b.cookie == nil {
		b.t.Fatal("no session was begun")
	}
	return b
}

// want fails unless an answer has a status.
func (b *browser) want(a answer, status int) answer {
	b.t.Helper()
	if a.status != status {
		b.t.Fatalf("got %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// csrf is what the forms of the session carry.
func (b *browser) csrf() string {
	b.t.Helper()
	found := csrfField.FindStringSubmatch(b.want(b.get("/agents"), http.StatusOK).body)
	if found == nil {
		b.t.Fatal("the page has no form")
	}
	return found[1]
}

// do sends a form as a page of the session does.
func (b *browser) do(path string, pairs ...string) answer {
	b.t.Helper()
	form := url.Values{"csrf": {b.csrf()}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return b.ask(http.MethodPost, path, form)
}

// call asks the gateway itself, each time as somebody else.
func (r *rig) call(path string, body map[string]any, header ...string) map[string]any {
	r.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	method := http.MethodPost
	if body == nil {
		method, text = http.MethodGet, nil
	}
	req, err := http.NewRequest(method, r.gw.URL+path, strings.NewReader(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.ips++
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("203.0.%d.%d", 113+r.ips/200, 1+r.ips%200))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.gw.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]any{}
	_ = json.NewDecoder(resp.Body).Decode(&out) // a refusal may have no body
	out["status"] = resp.StatusCode
	return out
}

// lithtrix registers an agent at Lithtrix, and returns its id and its key.
func (r *rig) lithtrix(name, owner string) (id, key string) {
	r.t.Helper()
	a := r.call("/v1/register", map[string]any{"agent_name": name, "owner_identifier": owner})
	id, _ = a["agent_id"].(string)
	key, _ = a["api_key"].(string)
	if id == "" || key == "" {
		r.t.Fatalf("register at Lithtrix: %v", a)
	}
	return name + "/" + owner, key // what the gateway knows it by
}

// fluxra registers an agent at Fluxra, with an email to which a letter waits.
func (r *rig) fluxra(name, email string) (id string) {
	r.t.Helper()
	a := r.call("/api/auth/register", map[string]any{"agent_name": name, "email": email})
	id, _ = a["agent_id"].(string)
	if id == "" {
		r.t.Fatalf("register at Fluxra: %v", a)
	}
	return id
}

// lona has an invite made and, if it is to be used, registers by it.
func (r *rig) lona(id, name string, use bool) {
	r.t.Helper()
	a := r.call("/api/v1/agents/request-invite", map[string]any{"agent_id": id, "agent_name": name})
	data, _ := a["data"].(map[string]any)
	code, _ := data["invite_code"].(string)
	if code == "" {
		r.t.Fatalf("ask Lona for an invite: %v", a)
	}
	if !use {
		return
	}
	if a = r.call("/api/v1/agents/register", map[string]any{"agent_id": id, "agent_name": name, "invite_code": code}); a["status"] != http.StatusCreated && a["status"] != http.StatusOK {
		r.t.Fatalf("register at Lona: %v", a)
	}
}

// keyOf returns the id of an agent's newest key.
func (r *rig) keyOf(protocol, agent string) string {
	r.t.Helper()
	d, err := r.gw.Embedded().Agent(context.Background(), protocol, agent)
	if err != nil || len(d.Keys) == 0 {
		r.t.Fatalf("the keys of %s: %v, %v", agent, d.Keys, err)
	}
	return d.Keys[0].KeyID
}

// agentURL is the page of an agent.
func agentURL(protocol, agent string) string {
	return "/agent?" + url.Values{"protocol": {protocol}, "agent": {agent}}.Encode()
}

// populate has a gateway look lived in: agents of three protocols, refusals,
// letters, invites, some of it a while ago.
func (r *rig) populate() (agent string) {
	r.t.Helper()
	names := []string{"Weather Scout", "Invoice Reader", "Night Watch", "Ticket Triage", "Price Hawk", "Translator", "Harbour Pilot", "Ledger Bot"}
	for i := range 48 {
		name := names[i%len(names)]
		if i%3 == 0 {
			r.lithtrix(fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), i), fmt.Sprintf("team-%d@example.com", i%5))
		}
		if i%5 == 0 {
			r.lona(fmt.Sprintf("agent-%d", i), name, i%2 == 0)
		}
		if i%7 == 0 {
			r.fluxra(fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), i), fmt.Sprintf("bot-%d@example.com", i))
		}
		for range (i * i) % 11 {
			r.call("/v1/me", nil, "Authorization", "Bearer ltx_wrong")
		}
		r.gw.Clock.Advance(time.Minute)
	}
	agent, key := r.lithtrix("harbour-pilot", "harbour@example.com")
	for range 17 {
		r.call("/v1/me", nil, "Authorization", "Bearer "+key)
	}
	id, _ := r.lithtrix("a-rather-long-name-of-an-agent-that-nobody-could-read-aloud-in-one-go", "somebody.with.a.long.address@a.rather.long.domain.example.com")
	if err := r.gw.Embedded().Suspend(context.Background(), "lithtrix", id); err != nil {
		r.t.Fatal(err)
	}
	r.gw.Clock.Advance(30 * time.Second)
	return agent
}
