package embeddedgateway_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	invitePath     = "/api/v1/agents/request-invite"
	registerPath   = "/api/v1/agents/register"
	strategiesPath = "/api/v1/strategies"

	// partnerSecret is what trusted partners register with in these tests.
	partnerSecret = "5e1f0c7a9b3d482e6f7081920a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
)

// partner lets trusted partners register.
func partner() gatewaytest.Option {
	return gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret})
}

// answer is what the gateway answered, read without the wire types.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// at returns the string at a path of names in the JSON body, or "".
func (a answer) at(names ...string) string {
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		return ""
	}
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, _ := v.(string)
	return s
}

func (a answer) code() string { return a.at("error", "code") }

// header pairs names and values.
type header map[string]string

// send makes a request. A body that is not empty is said to be JSON unless the
// header says something else; a header with an empty value is left out.
func send(t testing.TB, gw *gatewaytest.Gateway, method, path, body string, h header) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, gw.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range h {
		req.Header.Del(name)
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

func postJSON(t testing.TB, gw *gatewaytest.Gateway, path string, body map[string]any, h header) answer {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, gw, http.MethodPost, path, string(text), h)
}

func requestInvite(t testing.TB, gw *gatewaytest.Gateway, agent string) answer {
	t.Helper()
	return postJSON(t, gw, invitePath, map[string]any{"agent_id": agent, "agent_name": "An Agent", "source": "test"}, nil)
}

// invited returns an invite code for an agent.
func invited(t testing.TB, gw *gatewaytest.Gateway, agent string) string {
	t.Helper()
	a := requestInvite(t, gw, agent)
	wantStatus(t, a, http.StatusCreated, "")
	return a.at("data", "invite_code")
}

// withInvite registers by an invite.
func withInvite(t testing.TB, gw *gatewaytest.Gateway, agent, code string, h header) answer {
	t.Helper()
	return postJSON(t, gw, registerPath, map[string]any{"agent_id": agent, "agent_name": "An Agent", "invite_code": code}, h)
}

// withSecret registers by a registration secret.
func withSecret(t testing.TB, gw *gatewaytest.Gateway, agent, secret string, more map[string]any) answer {
	t.Helper()
	body := map[string]any{"agent_id": agent, "agent_name": "An Agent"}
	for name, value := range more {
		body[name] = value
	}
	return postJSON(t, gw, registerPath, body, header{"X-Agent-Registration-Secret": secret})
}

// token registers an agent by the partner's secret and returns its token.
func token(t testing.TB, gw *gatewaytest.Gateway, agent string) string {
	t.Helper()
	a := withSecret(t, gw, agent, partnerSecret, nil)
	wantStatus(t, a, http.StatusCreated, "")
	return a.at("data", "token")
}

func strategies(t testing.TB, gw *gatewaytest.Gateway, agent, key string) answer {
	t.Helper()
	return send(t, gw, http.MethodGet, strategiesPath, "", header{"X-API-Key": key, "X-User-Id": agent})
}

func wantStatus(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.code() != code {
		t.Fatalf("got %d %q (%s), want %d %q", a.status, a.code(), a.body, status, code)
	}
}

// last returns the newest event of the audit trail.
func last(t testing.TB, gw *gatewaytest.Gateway) store.Event {
	t.Helper()
	events := gw.Audit(t)
	if len(events) == 0 {
		t.Fatal("the audit trail is empty")
	}
	return events[len(events)-1]
}

// wantNone fails if a text holds a secret.
func wantNone(t testing.TB, what string, text []byte, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("%s holds the secret %s", what, s)
		}
	}
}
