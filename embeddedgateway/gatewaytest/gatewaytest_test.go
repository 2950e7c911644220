package gatewaytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const partnerSecret = "a-registration-secret-for-tests"

func register(t *testing.T, gw *gatewaytest.Gateway) (token, expiresAt string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, gw.URL+"/api/v1/agents/register", strings.NewReader(`{"agent_id":"my-agent","agent_name":"A"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Agent-Registration-Secret", partnerSecret)
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct {
		Data struct {
			Token     string `json:"token"`
			ExpiresAt string `json:"expires_at"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("got %d, %v", resp.StatusCode, err)
	}
	return body.Data.Token, body.Data.ExpiresAt
}

func TestGatewayRunsByItsClockAndOutlivesARestart(t *testing.T) {
	begin := time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)
	gw := gatewaytest.New(t, gatewaytest.At(begin), gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret}))
	first, _ := register(t, gw)
	gw.Clock.Advance(24 * time.Hour)
	url := gw.URL
	gw.Restart(t)
	if gw.URL != url {
		t.Errorf("got the URL %s after a restart, want %s", gw.URL, url)
	}
	second, expiresAt := register(t, gw)
	if want := "2026-03-09T12:00:00.000Z"; expiresAt != want {
		t.Errorf("got expires_at %s, want %s", expiresAt, want)
	}
	if got, want := gw.Secrets(), []string{partnerSecret, first, second}; !slices.Equal(got, want) {
		t.Errorf("got %d secrets, want %d: the configured one and both tokens", len(got), len(want))
	}
	var names []string
	for _, e := range gw.Audit(t) {
		names = append(names, e.Name)
	}
	if want := []string{"token_issued", "token_rotated"}; !slices.Equal(names, want) {
		t.Errorf("got the events %v, want %v", names, want)
	}
}

func TestGatewayBeginsAtTheRealTime(t *testing.T) {
	before := time.Now()
	gw := gatewaytest.New(t)
	if now := gw.Clock.Now(); now.Before(before) || now.After(time.Now()) {
		t.Errorf("the clock stands at %s, want now", now)
	}
}

func TestRecordFindsSecretsByNameAndByLooks(t *testing.T) {
	const odd = `{"a":[{"api_key":"agk_live_1","name":"x"}],"token":"t-1","token_type":"Bearer","expires_in":3600,"scopes":["a"],"recovery_key":"",` +
		`"message":"your code is lona_invite_0123456789abcdef."}`
	for name, tt := range map[string]struct {
		contentType, body string
		want              []string
	}{
		"JSON":             {"application/json", odd, []string{"agk_live_1", "lona_invite_0123456789abcdef", "t-1"}},
		"JSON and charset": {"application/json; charset=utf-8", odd, []string{"agk_live_1", "lona_invite_0123456789abcdef", "t-1"}},
		"not really JSON":  {"application/json", `{"token":`, nil},
		"something else":   {"text/plain", odd, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			h := gatewaytest.Record(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				w.WriteHeader(http.StatusTeapot)
				fmt.Fprint(w, tt.body)
			}), func(secret string) { got = append(got, secret) })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if body, _ := io.ReadAll(w.Result().Body); w.Code != http.StatusTeapot || string(body) != tt.body {
				t.Errorf("got %d %q: Record has changed the answer", w.Code, body)
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
