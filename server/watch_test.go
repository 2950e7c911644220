package server_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/server"
)

// watched is a rig whose looks for changes the test makes happen.
func watched(ticks chan time.Time) func(t *testing.T) *rig {
	return func(t *testing.T) *rig {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"data":{"token":"lona_partner_new-agent_abc123xyz456_AnotherSecret123","permissions":["*"],"expires_at":"2026-03-08T12:34:56.789Z"}}`))
		}))
		t.Cleanup(service.Close)
		return newRigWith(t, server.Config{
			Look: func() (<-chan time.Time, func()) { return ticks, func() {} },
		}, service.URL, "policy=")
	}
}

// told is closed, or sent to, for each time that a client hears that the list of
// the resources has changed.
func (c reader) told(t *testing.T) <-chan map[string]any {
	t.Helper()
	told, listens := make(chan map[string]any, 16), make(chan struct{}, 16)
	c.OnNotification(func(n mcp.JSONRPCNotification) {
		switch n.Method {
		case mcp.MethodNotificationResourcesListChanged:
			told <- n.Params.Meta
		case mcp.MethodNotificationSubscriptionsAcknowledged:
			listens <- struct{}{}
		}
	})
	if c.era != modern {
		return told
	}
	stop, err := c.ListenAsync(t.Context(), mcp.SubscriptionFilter{ResourcesListChanged: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	select {
	case <-listens:
	case <-time.After(patience):
		t.Fatal("the stream was not acknowledged")
	}
	return told
}

func heard(t *testing.T, told <-chan map[string]any, what string) map[string]any {
	t.Helper()
	select {
	case meta := <-told:
		return meta
	case <-time.After(patience):
		t.Fatalf("%s: nobody was told that the resources have changed", what)
	}
	return nil
}

func TestClientsAreToldOfNewAndForgottenCredentials(t *testing.T) {
	ticks := make(chan time.Time)
	readers(t, watched(ticks), func(t *testing.T, r *rig, c reader) {
		if c.name == "in process" {
			return // it is no session that could be told: enlist call, which ends after one call, is what uses it
		}
		told := c.told(t)
		if _, err := c.ListResources(t.Context(), mcp.ListResourcesRequest{}); err != nil {
			t.Fatal(err)
		}
		call := func(tool string, args map[string]any) {
			t.Helper()
			req := mcp.CallToolRequest{}
			req.Params.Name, req.Params.Arguments = tool, args
			if res, err := c.CallTool(t.Context(), req); err != nil || res.IsError {
				t.Fatalf("%s: got %+v, %v", tool, res, err)
			}
		}
		call("lona_register_agent", map[string]any{"agent_id": "new-agent", "agent_name": "New"})
		meta := heard(t, told, "registered")
		if c.era == modern && meta[mcp.MetaKeySubscriptionID] == nil {
			t.Errorf("got _meta %v, want the number of the listening request in it", meta)
		}
		if _, err := c.read(t, "enlist://credentials/lona/new-agent"); err != nil {
			t.Error(err)
		}
		// Another process.
		r.put("https://127.0.0.1:8443", "other")
		tick(t, ticks)
		heard(t, told, "by another process")
		// Nothing has changed.
		tick(t, ticks)
		tick(t, ticks)
		if len(told) != 0 {
			t.Error("told of a change that there was not")
		}
		k := credstore.Key{Protocol: "lona", Origin: "https://127.0.0.1:8443", Agent: "other", Kind: credstore.KindToken}
		if err := r.store.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		tick(t, ticks)
		heard(t, told, "forgotten")
	})
}

// tick has the rig look once.
func tick(t *testing.T, ticks chan<- time.Time) {
	t.Helper()
	select {
	case ticks <- time.Time{}:
	case <-time.After(patience):
		t.Fatal("nobody looks")
	}
}

// A client of the stateless era hears of nothing that it does not listen for.
func TestWhoDoesNotListenIsToldNothing(t *testing.T) {
	ticks := make(chan time.Time)
	r := watched(ticks)(t)
	c := r.openStdio(t.Context())
	c.send(modernMessage(1, "resources/list", ""))
	if got := c.next(); got.ID != 1.0 || got.Error != nil {
		t.Fatalf("list: got %+v", got)
	}
	r.put("https://127.0.0.1:8443", "other")
	tick(t, ticks)
	tick(t, ticks) // the first has been dealt with
	c.send(modernMessage(2, "resources/templates/list", ""))
	if got := c.next(); got.ID != 2.0 || got.Method != "" {
		t.Errorf("got %+v, want the answer and nothing before it", got)
	}
	// Who listens for nothing is answered at once.
	c.send(modernMessage(3, "subscriptions/listen", `"notifications":{}`))
	if got := c.next(); got.Method != "notifications/subscriptions/acknowledged" {
		t.Errorf("got %+v, want the acknowledgement", got)
	}
	if got := c.next(); got.ID != 3.0 || got.Error != nil {
		t.Errorf("got %+v, want the end of the stream", got)
	}
	// A stream can be cancelled, and another tells of what comes then.
	c.send(modernMessage(4, "subscriptions/listen", `"notifications":{"resourcesListChanged":true}`))
	if got := c.next(); got.Method != "notifications/subscriptions/acknowledged" {
		t.Errorf("got %+v, want the acknowledgement", got)
	}
	c.send(modernMessage(nil, "notifications/cancelled", `"requestId":4`))
	if got := c.next(); got.ID != 4.0 {
		t.Errorf("got %+v, want the end of the stream", got)
	}
	c.send(modernMessage(5, "subscriptions/listen", `"notifications":{"resourcesListChanged":true}`))
	c.next()
	r.put("https://127.0.0.1:8443", "third")
	tick(t, ticks)
	if got := c.next(); got.Method != mcp.MethodNotificationResourcesListChanged {
		t.Errorf("got %+v, want to be told", got)
	}
	c.in.Close()
	if got := c.next(); got.ID != 5.0 {
		t.Errorf("got %+v, want the end of the stream", got)
	}
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
}

// Nobody looks while nobody could be told.
func TestNobodyLooksForNobody(t *testing.T) {
	looking, stopped := make(chan struct{}, 8), make(chan struct{}, 8)
	r := newRigWith(t, server.Config{Look: func() (<-chan time.Time, func()) {
		looking <- struct{}{}
		return nil, func() { stopped <- struct{}{} }
	}}, nowhere)
	url := r.serve()
	if got := r.messages(r.modernPost(url, 1, "resources/list", "")); got[0].Error != nil {
		t.Fatalf("got %+v", got)
	}
	if len(looking) != 0 {
		t.Error("looks for a client that has gone")
	}
	s := r.openSSE(url)
	s.post(message(1, "initialize", initialize))
	s.next()
	s.post(message(2, "resources/list", ""))
	s.next()
	wait := func(c <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(patience):
			t.Error(what)
		}
	}
	wait(looking, "nobody looks for a client with a session")
	s.hangUp()
	wait(stopped, "looks on after the client has gone")
}
