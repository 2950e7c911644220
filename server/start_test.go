package server_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
)

// A registration whose answer was lost is finished when the next server starts,
// before anybody asks for the credential.
func TestStartFinishesWhatWasLeftHalfDone(t *testing.T) {
	var answers atomic.Bool
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !answers.Load() {
			panic(http.ErrAbortHandler) // it has acted, and nobody hears of it
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"data":{"token":"lona_partner_lost-agent_abc123xyz456_AnotherSecret123","permissions":["*"],"expires_at":"2026-03-08T12:34:56.789Z"}}`))
	}))
	t.Cleanup(service.Close)
	now := func() time.Time { return time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC) }
	vars := map[string]string{"LONA_GATEWAY_URL": service.URL, "LONA_AGENT_REGISTRATION_SECRET": settingSecret}
	store := credstore.NewMemory(now)
	c, err := gateway.New(gateway.Options{Store: store, Env: func(name string) string { return vars[name] }, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lona.Register(t.Context(), gateway.LonaRegistration{AgentID: "lost-agent", AgentName: "Lost", Source: "test"}); err == nil {
		t.Fatal("a registration without an answer: got no error")
	}
	if got, err := c.Lifecycle.Standings(t.Context()); err != nil || len(got) != 1 || got[0].Now != credstore.StatePending {
		t.Fatalf("before: got %+v (%v), want it pending", got, err)
	}
	answers.Store(true)
	s, err := server.New(server.Config{Client: c, Now: now})
	if err != nil {
		t.Fatal(err)
	}

	s.Start(t.Context())
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}

	if got, err := c.Lifecycle.Standings(t.Context()); err != nil || len(got) != 1 || got[0].Now != credstore.StateActive {
		t.Errorf("got %+v (%v), want it active", got, err)
	}
}
