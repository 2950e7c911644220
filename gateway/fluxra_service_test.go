package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// tick is a clock that tests set forward.
type tick struct {
	mu sync.Mutex
	at time.Time
}

func (c *tick) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *tick) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fluxraKey is an API key as the service has it.
type fluxraKey struct {
	id, name, secret string
	revoked          bool
}

// fluxraService is a Fluxra that takes nothing but what its documents say, and
// notes what it issues. do stands in for its answer to a call, or is told of
// it and returns false.
type fluxraService struct {
	*httptest.Server
	t     *testing.T
	clock *tick

	mu       sync.Mutex
	n        int
	accounts map[string]string // agent_id: recovery key
	names    map[string]string // agent_id: agent_name
	keys     map[string][]*fluxraKey
	tokens   map[string]*fluxraKey // those that are good, with the key that each was had with
	ends     map[string]time.Time
	secrets  []string
	calls    []string
	do       func(call string, w http.ResponseWriter, r *http.Request) bool
	after    func(call string, w http.ResponseWriter) bool // after it has acted; true: answers itself
}

func newFluxra(t *testing.T) *fluxraService {
	t.Helper()
	s := &fluxraService{
		t: t, clock: &tick{at: start}, accounts: make(map[string]string), names: make(map[string]string),
		keys: make(map[string][]*fluxraKey), tokens: make(map[string]*fluxraKey), ends: make(map[string]time.Time),
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// client returns a client of the service, and sees that it logs no secret.
func (s *fluxraService) client(store credstore.Store) *fixture {
	s.t.Helper()
	if store == nil {
		store = credstore.NewMemory(s.clock.now)
	}
	f := newFixture(s.t, setup{env: map[string]string{"FLUXRA_API_URL": s.URL}, store: store, now: s.clock.now})
	s.t.Cleanup(func() { noSecret(s.t, "the log", f.log.String(), s.issued()...) })
	return f
}

func (s *fluxraService) issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{"evt_0123456789AbCdEf0123456789AbCdEf", fluxraCode}, s.secrets...)
}

// count returns how often a call was made.
func (s *fluxraService) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c == call {
			n++
		}
	}
	return n
}

// alive returns the ids of the API keys that work.
func (s *fluxraService) alive() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, keys := range s.keys {
		for _, k := range keys {
			if !k.revoked {
				ids = append(ids, k.id)
			}
		}
	}
	return ids
}

// killTokens ends every access token, killKeys every API key, and
// killRecovery every recovery key.
func (s *fluxraService) killTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

func (s *fluxraService) killKeys() {
	s.killTokens()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, keys := range s.keys {
		for _, k := range keys {
			k.revoked = true
		}
	}
}

func (s *fluxraService) killRecovery() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.accounts {
		s.accounts[id] = "rk_nobody-has-this-one-0000000000"
	}
}

// on sets what stands in for the first n answers to a call.
func (s *fluxraService) on(call string, n int, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do = func(c string, w http.ResponseWriter, r *http.Request) bool {
		if c != call || n == 0 {
			return false
		}
		n--
		h(w, r)
		return true
	}
}

// loses has the first n answers to a call lost after it has acted.
func (s *fluxraService) loses(call string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = func(c string, w http.ResponseWriter) bool {
		if c != call || n == 0 {
			return false
		}
		n--
		raw("")(w, nil)
		return true
	}
}

const fluxraCode = "271828"

var (
	fluxraAgent = regexp.MustCompile(`^/api/agents/(agt_[0-9a-f]{32})$`)
	fluxraOne   = regexp.MustCompile(`^/api/agents/(agt_[0-9a-f]{32})/keys/(aky_\w+)$`)
)

func (s *fluxraService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := r.Method + " " + r.URL.Path
	if m := fluxraOne.FindStringSubmatch(r.URL.Path); m != nil {
		call = r.Method + " key"
	} else if fluxraAgent.MatchString(r.URL.Path) {
		call = r.Method + " agent"
	}
	s.calls = append(s.calls, call)
	if s.do != nil && s.do(call, w, r) {
		return
	}
	status, body := s.answer(call, r)
	if s.after != nil && s.after(call, w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_ = json.NewEncoder(w).Encode(body)
	}
}

func refuse(status int, code string) (int, any) {
	return status, map[string]any{"error": map[string]any{"code": code, "message": "the service's words on " + code}}
}

// next returns a text that is new each time.
func (s *fluxraService) next(prefix string) string {
	s.n++
	return fmt.Sprintf("%s%032x", prefix, s.n)
}

func (s *fluxraService) secret(prefix string) string {
	v := s.next(prefix)
	s.secrets = append(s.secrets, v)
	return v
}

func (s *fluxraService) answer(call string, r *http.Request) (int, any) {
	var in map[string]any
	if r.Method == http.MethodPost && call != "POST /api/auth/logout" {
		if r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&in) != nil {
			return refuse(400, "INVALID_REQUEST")
		}
	}
	stamp := s.clock.now().UTC().Format(time.RFC3339)
	switch call {
	case "POST /api/auth/register":
		id := s.next("agt_")
		s.accounts[id] = s.secret("rk_")
		s.names[id], _ = in["agent_name"].(string)
		out := map[string]any{
			"agent_id": id, "agent_name": in["agent_name"], "recovery_key": s.accounts[id], "created_at": stamp, "warning": "Save it.",
		}
		if in["email"] != nil {
			out["email_verification_sent"], out["email_verification_expires_at"] = true, s.clock.now().UTC().Add(time.Hour).Format(time.RFC3339)
		}
		return 201, out
	case "POST agent", "DELETE key":
		return s.manage(call, r, in, stamp)
	case "GET agent":
		return s.list(r)
	case "POST /api/auth/token", "POST /api/auth/refresh", "POST /api/auth/logout", "GET /api/me":
		return s.session(call, r, in, stamp)
	case "POST /api/auth/verify-email":
		if in["token"] != "evt_0123456789AbCdEf0123456789AbCdEf" {
			return refuse(401, "INVALID_TOKEN")
		}
		return 200, map[string]any{"agent_id": s.any(), "email_verified": true, "message": "Email verified successfully."}
	case "POST /api/auth/verification/resend":
		return 200, map[string]any{"message": "If an account …"}
	case "POST /api/auth/recovery/request":
		return 200, map[string]any{"agent_id": "", "email": in["email"], "code_expires_at": stamp, "message": "If …"}
	case "POST /api/auth/recovery/verify":
		if in["code"] != fluxraCode {
			return refuse(401, "INVALID_TOKEN")
		}
		id := s.any()
		s.accounts[id] = s.secret("rk_")
		return 200, map[string]any{"agent_id": id, "recovery_key": s.accounts[id], "message": "reset"}
	}
	return refuse(404, "NOT_FOUND")
}

// any returns the agent_id of the only account.
func (s *fluxraService) any() string {
	for id := range s.accounts {
		return id
	}
	return ""
}

// user reads a Basic header.
func user(r *http.Request) (id, secret string) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Basic "))
	if err != nil || !strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") {
		return "", ""
	}
	id, secret, _ = strings.Cut(string(text), ":")
	return id, secret
}

// manage makes and deletes API keys, with the recovery key and nothing else.
func (s *fluxraService) manage(call string, r *http.Request, in map[string]any, stamp string) (int, any) {
	id, secret := user(r)
	if secret == "" || s.accounts[id] != secret || !strings.HasPrefix(r.URL.Path, "/api/agents/"+id) {
		return refuse(401, "UNAUTHORIZED")
	}
	if call == "DELETE key" {
		for _, k := range s.keys[id] {
			if k.id == fluxraOne.FindStringSubmatch(r.URL.Path)[2] && !k.revoked {
				k.revoked = true
				return 204, nil
			}
		}
		return refuse(404, "NOT_FOUND")
	}
	name, _ := in["name"].(string)
	if name == "" {
		return refuse(400, "INVALID_KEY_NAME")
	}
	k := &fluxraKey{id: s.next("aky_"), name: name, secret: s.secret("sk_")}
	s.keys[id] = append(s.keys[id], k)
	return 201, map[string]any{
		"key_id": k.id, "name": name, "api_key": k.secret, "scopes": []string{"messages:read"}, "expires_at": nil, "created_at": stamp,
	}
}

// bearerOf returns the key behind a request's access token, or nil.
func (s *fluxraService) bearerOf(r *http.Request) (string, *fluxraKey) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if k := s.tokens[token]; k != nil && s.clock.now().Before(s.ends[token]) {
		return token, k
	}
	return token, nil
}

func (s *fluxraService) list(r *http.Request) (int, any) {
	if _, k := s.bearerOf(r); k == nil {
		return refuse(401, "UNAUTHORIZED")
	}
	list := []any{}
	for _, k := range s.keys[fluxraAgent.FindStringSubmatch(r.URL.Path)[1]] {
		revoked := any(nil)
		if k.revoked {
			revoked = "2026-02-06T13:00:00Z"
		}
		list = append(list, map[string]any{"key_id": k.id, "name": k.name, "revoked_at": revoked})
	}
	return 200, map[string]any{"keys": list, "next_cursor": nil, "has_more": false}
}

// session is about access tokens.
func (s *fluxraService) session(call string, r *http.Request, in map[string]any, stamp string) (int, any) {
	token, k := s.bearerOf(r)
	if call == "POST /api/auth/token" {
		id, secret := user(r)
		for _, have := range s.keys[id] {
			if have.secret == secret && !have.revoked {
				k = have
			}
		}
		if in["grant_type"] != "client_credentials" {
			return refuse(400, "INVALID_REQUEST")
		}
	}
	if k == nil || k.revoked && call == "POST /api/auth/refresh" {
		return refuse(401, "UNAUTHORIZED")
	}
	switch call {
	case "GET /api/me":
		return 200, map[string]any{"ok": true}
	case "POST /api/auth/logout":
		delete(s.tokens, token)
		return 200, map[string]any{"message": "Token revoked successfully.", "revoked_at": stamp}
	}
	delete(s.tokens, token)
	next := "eyJhbGciOiJFZERTQSJ9." + s.next("payload") + ".c2lnbmF0dXJl"
	s.secrets = append(s.secrets, next)
	s.tokens[next], s.ends[next] = k, s.clock.now().Add(time.Hour)
	out := map[string]any{"access_token": next, "token_type": "Bearer", "expires_in": 3600, "scope": "messages:read"}
	if call == "POST /api/auth/token" {
		out["key_id"] = k.id
	}
	return 200, out
}

func weather() gateway.FluxraRegistration {
	return gateway.FluxraRegistration{AgentName: "weather-bot", Email: "bot@example.com"}
}

// enrol registers the weather bot.
func (f *fixture) enrol(t *testing.T) gateway.FluxraRegistered {
	t.Helper()
	r, err := f.Fluxra.Register(t.Context(), weather())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// me makes a request with a credential and returns its status.
func (f *fixture) me(t *testing.T, k credstore.Key) int {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get("/api/me"))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// item returns another item of an account.
func (f *fixture) item(t *testing.T, k credstore.Key, kind credstore.Kind) credstore.Credential {
	t.Helper()
	k.Kind = kind
	c, err := f.store.Get(t.Context(), k)
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return c
}

// replies returns what answers each call with a text of its own.
func replies(texts map[string]string, status int) func(string, http.ResponseWriter, *http.Request) bool {
	return func(call string, w http.ResponseWriter, r *http.Request) bool {
		text, ok := texts[call]
		if ok {
			reply(status, text)(w, r)
		}
		return ok
	}
}
