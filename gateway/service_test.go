package gateway_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// start is when every test begins.
var start = time.Date(2026, 2, 6, 13, 0, 0, 0, time.UTC)

func frozen() time.Time { return start }

// request is what a service saw of one request.
type request struct {
	Method, Path, Query string
	Header              http.Header
	Body                []byte
}

// fields returns the body as JSON fields.
func (r request) fields(t *testing.T) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(r.Body, &fields); err != nil {
		t.Fatalf("the body of %s %s is not a JSON object: %v", r.Method, r.Path, err)
	}
	return fields
}

// service is an HTTP server that notes what it is asked. Without a handler of
// the test's own for a path it answers as Lona does.
type service struct {
	URL string

	mu       sync.Mutex
	requests []request
	handlers map[string]http.HandlerFunc
	other    http.HandlerFunc // for a path without a handler; nil: lona
	tokens   int
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{handlers: make(map[string]http.HandlerFunc)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// newBenchService returns the URL of a server that answers with one body.
func newBenchService(b *testing.B, body string) string {
	b.Helper()
	srv := httptest.NewServer(reply(200, body))
	b.Cleanup(srv.Close)
	return srv.URL
}

// on sets the handler of a path.
func (s *service) on(path string, h http.HandlerFunc) *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
	return s
}

// in sets the handlers of the first calls of a path; the last one stays.
func (s *service) in(path string, hs ...http.HandlerFunc) *service {
	n := 0
	return s.on(path, func(w http.ResponseWriter, r *http.Request) {
		h := hs[min(n, len(hs)-1)]
		n++
		h(w, r)
	})
}

// otherwise sets the handler of every path without one.
func (s *service) otherwise(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = h
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.requests = append(s.requests, request{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Clone(), body})
	h, ok := s.handlers[r.URL.Path]
	if !ok && s.other != nil {
		h, ok = s.other, true
	}
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !ok {
		h = s.lona
	}
	h(w, r)
}

// seen returns the requests of a path; "" stands for all.
func (s *service) seen(path string) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []request
	for _, r := range s.requests {
		if path == "" || r.Path == path {
			out = append(out, r)
		}
	}
	return out
}

const (
	invitePath     = "/api/v1/agents/request-invite"
	registerPath   = "/api/v1/agents/register"
	strategiesPath = "/api/v1/strategies"
	inviteCode     = "lona_invite_AbCdEf1234567890AbCdEf"
)

// token returns the nth token that a service issues to an agent.
func token(agent string, n int) string {
	return fmt.Sprintf("lona_partner_%s_abc123xyz%03d_SecretKeyHere%019d", agent, n, n)
}

func (s *service) lona(w http.ResponseWriter, r *http.Request) {
	var in struct {
		AgentID   string `json:"agent_id"`
		AgentName string `json:"agent_name"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	switch r.URL.Path {
	case invitePath:
		reply(201, `{"data":{"invite_code":"`+inviteCode+`","expires_at":"2026-02-06T14:00:00.000Z"}}`)(w, r)
	case registerPath:
		s.mu.Lock()
		s.tokens++
		n := s.tokens
		s.mu.Unlock()
		reply(201, fmt.Sprintf(`{"data":{"token":%q,"partner_id":%q,"partner_name":%q,"permissions":["*"],"expires_at":"2026-03-08T12:34:56.789Z"}}`,
			token(in.AgentID, n), in.AgentID, in.AgentName))(w, r)
	case strategiesPath:
		reply(200, `{"data":[{"id":"s1","name":"One"}]}`)(w, r)
	default:
		reply(404, `{"error":{"code":"not_found","message":"no such route"}}`)(w, r)
	}
}

// reply returns a handler that answers with a body, as JSON if it looks so.
func reply(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if strings.HasPrefix(body, "{") || strings.HasPrefix(body, "[") {
			w.Header().Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// fixture is a client with all that a test looks at.
type fixture struct {
	home string
	*gateway.Client
	store credstore.Store
	log   *bytes.Buffer

	mu    sync.Mutex
	slept []time.Duration
}

// setup is what a test sets of a client.
type setup struct {
	env       map[string]string
	store     credstore.Store
	home      string
	transport http.RoundTripper
	timeout   time.Duration
	deadline  time.Duration
	now       func() time.Time
	idle      func(context.Context, time.Duration) error
	random    func() float64 // nil: 0, so that renewals are due at 80 %
}

func newFixture(t *testing.T, s setup) *fixture {
	t.Helper()
	f, err := tryFixture(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func tryFixture(s setup) (*fixture, error) {
	if s.now == nil {
		s.now = frozen
	}
	if s.store == nil {
		s.store = credstore.NewMemory(s.now)
	}
	if s.random == nil {
		s.random = func() float64 { return 0 }
	}
	f := &fixture{store: s.store, log: new(bytes.Buffer)}
	var err error
	f.Client, err = gateway.New(gateway.Options{
		Store: s.store, Home: s.home, Env: func(name string) string { return s.env[name] },
		Transport: s.transport, Timeout: s.timeout, Deadline: cmp.Or(s.deadline, 20*time.Second), Now: s.now,
		Sleep: func(ctx context.Context, d time.Duration) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.slept = append(f.slept, d)
			return ctx.Err()
		},
		Idle: s.idle, Random: s.random,
		Logger:  slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Version: "1.2.3",
	})
	return f, err
}

// at returns a client whose Lona is the service.
func at(t *testing.T, s *service) *fixture {
	t.Helper()
	return newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}})
}

func (f *fixture) register(t *testing.T, agent string) gateway.Registration {
	t.Helper()
	r, err := f.Lona.Register(t.Context(), named(agent))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func named(agent string) gateway.LonaRegistration {
	return gateway.LonaRegistration{AgentID: agent, AgentName: "My Autonomous Agent"}
}

// secret returns what is stored under a key.
func (f *fixture) secret(t *testing.T, k credstore.Key) string {
	t.Helper()
	c, err := f.store.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return c.Secret.Reveal()
}

func (f *fixture) put(t *testing.T, c credstore.Credential) {
	t.Helper()
	if c.State == "" {
		c.State = credstore.StateActive
	}
	if c.CreatedAt.IsZero() {
		c.CreatedAt = start
	}
	if err := f.store.Put(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func lonaKey(origin, agent string) credstore.Key {
	return credstore.Key{Protocol: "lona", Origin: origin, Agent: agent, Kind: credstore.KindToken}
}

// noSecret fails the test if a text gives one of the secrets away.
func noSecret(t *testing.T, what, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s holds a secret: %q", what, text)
		}
	}
}
