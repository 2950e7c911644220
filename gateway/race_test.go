package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// turnstile is a store that tells when n callers have come for a lock.
type turnstile struct {
	credstore.Store
	left atomic.Int64
	all  chan struct{}
}

func newTurnstile(n int) *turnstile {
	s := &turnstile{Store: credstore.NewMemory(frozen), all: make(chan struct{})}
	s.left.Store(int64(n))
	return s
}

func (s *turnstile) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	if s.left.Add(-1) == 0 {
		close(s.all)
	}
	return s.Store.Lock(ctx, k)
}

// afterAll makes a service answer registrations only when everybody waits.
func afterAll(s *service, store *turnstile) {
	s.on(registerPath, func(w http.ResponseWriter, r *http.Request) {
		<-store.all
		s.lona(w, r)
	})
}

func TestManyAtOnceRegisterOnce(t *testing.T) {
	for _, n := range []int{2, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newService(t)
			store := newTurnstile(n)
			afterAll(s, store)
			// Two processes have a Client each.
			clients := []*fixture{}
			for range 2 {
				clients = append(clients, newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store}))
			}

			got := make([]gateway.Registration, n)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					var err error
					if got[i], err = clients[i%2].Lona.Register(t.Context(), named("my-agent")); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()

			if got := len(s.seen(registerPath)); got != 1 {
				t.Errorf("got %d registrations, want 1", got)
			}
			fresh := 0
			for _, r := range got {
				if !r.Reused {
					fresh++
				}
				if r.KeyID != "abc123xyz001" {
					t.Errorf("got the key id %q, want that of the one token", r.KeyID)
				}
			}
			if fresh != 1 {
				t.Errorf("%d callers were issued a token, want 1", fresh)
			}
			if got, want := clients[0].secret(t, lonaKey(s.URL, "my-agent")), token("my-agent", 1); got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
		})
	}
}

func TestManyStartsRegisterOnce(t *testing.T) {
	s := newService(t)
	store := newTurnstile(8)
	afterAll(s, store)
	var wg sync.WaitGroup
	for range 8 {
		f := newFixture(t, setup{store: store, env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_AGENT_ID": "my-agent"}})
		wg.Go(func() {
			if err := f.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	if got := len(s.seen(registerPath)); got != 1 {
		t.Errorf("got %d registrations, want 1", got)
	}
}

func TestDifferentAgentsDoNotWait(t *testing.T) {
	s := newService(t)
	store := newTurnstile(2)
	afterAll(s, store)
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
	var wg sync.WaitGroup
	for _, agent := range []string{"agent-1", "agent-2"} {
		wg.Go(func() { f.register(t, agent) })
	}
	wg.Wait()

	if got := len(s.seen(registerPath)); got != 2 {
		t.Errorf("got %d registrations, want 2", got)
	}
}

func TestARotationThatWasOvertakenIsRetriedWithTheNewToken(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	other := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: f.store})
	s.on("/api/v1/me", func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Api-Key") == token("my-agent", 1) {
			// Another process rotates while this request is on its way.
			other.register(t, "my-agent")
			reply(401, `{"error":{"code":"unauthorized","message":"revoked"}}`)(w, req)
			return
		}
		reply(200, `{"ok":true}`)(w, req)
	})

	got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "POST", Path: "/api/v1/me", Body: map[string]any{"a": 1}})
	if err != nil {
		t.Fatal(err)
	}

	if got.Status != 200 {
		t.Errorf("got the status %d, want 200", got.Status)
	}
	if sent := s.seen("/api/v1/me"); len(sent) != 2 || string(sent[1].Body) != `{"a":1}` {
		t.Errorf("got %d requests, want 2 with the same body", len(sent))
	}
}
