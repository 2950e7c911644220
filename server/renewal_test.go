package server_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
)

// aging is a server whose only token is due, at a service that answers a
// registration when it is told to.
type aging struct {
	*server.Server
	store  credstore.Store
	key    credstore.Key
	pauses chan time.Duration // what it idles for; it goes on at once
	asked  chan struct{}      // somebody registers
	answer chan struct{}      // closed: the service answers
}

func newAging(t *testing.T) *aging {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC) }
	a := &aging{
		store: credstore.NewMemory(now), pauses: make(chan time.Duration), asked: make(chan struct{}, 1), answer: make(chan struct{}),
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked <- struct{}{}
		select {
		case <-a.answer:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"data":{"token":"lona_partner_my-agent_abc123xyz457_SecretKeyHere124","expires_at":"2026-03-08T12:00:00.000Z"}}`)
	}))
	t.Cleanup(service.Close)
	vars := map[string]string{"LONA_GATEWAY_URL": service.URL, "LONA_AGENT_REGISTRATION_SECRET": settingSecret}
	c, err := gateway.New(gateway.Options{
		Store: a.store, Env: func(name string) string { return vars[name] }, Now: now,
		Idle: func(ctx context.Context, d time.Duration) error {
			select {
			case a.pauses <- d:
			case <-ctx.Done():
			}
			return ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.key = credstore.Key{Protocol: "lona", Origin: c.Lona.Origin(), Agent: "my-agent", Kind: credstore.KindToken}
	err = a.store.Put(t.Context(), credstore.Credential{Secret: credstore.NewSecret(storedToken), Info: credstore.Info{
		Key: a.key, State: credstore.StateActive, CreatedAt: now().Add(-29 * 24 * time.Hour), ExpiresAt: now().Add(24 * time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.Server, err = server.New(server.Config{Client: c, Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// renews waits until a renewal is under way.
func (a *aging) renews(t *testing.T) {
	t.Helper()
	if first := <-a.pauses; first < 30*time.Second {
		t.Errorf("it idles for %s at first", first)
	}
	<-a.asked
}

// renewed reports whether the new token is stored.
func (a *aging) renewed(t *testing.T) bool {
	t.Helper()
	c, err := a.store.Get(t.Context(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasSuffix(c.Secret.Reveal(), "SecretKeyHere124")
}

// TestARenewalUnderWayIsStoredBeforeTheProgramEnds tells a server to end before
// the service has answered.
func TestARenewalUnderWayIsStoredBeforeTheProgramEnds(t *testing.T) {
	for name, serve := range map[string]func(a *aging) (end func(), ended <-chan error){
		"the input ends": func(a *aging) (func(), <-chan error) {
			in, w := io.Pipe()
			ended := make(chan error, 1)
			go func() { ended <- a.ServeStdio(context.Background(), in, io.Discard) }()
			return func() { _ = w.Close() }, ended
		},
		"the program is stopped": func(a *aging) (func(), <-chan error) {
			in, _ := io.Pipe()
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- a.ServeStdio(ctx, in, io.Discard) }()
			return cancel, ended
		},
		"over HTTP": func(a *aging) (func(), <-chan error) {
			ended := make(chan error, 1)
			if _, err := a.Handler(server.HTTPConfig{Verify: func(string) (server.Principal, bool) { return server.Principal{}, true }}); err != nil {
				ended <- err
			}
			return func() { go func() { ended <- a.Drain(context.Background()) }() }, ended
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAging(t)
			end, ended := serve(a)
			a.renews(t)
			end()
			close(a.answer)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if !a.renewed(t) {
				t.Error("the server ended before the token was stored")
			}
			select {
			case pause := <-a.pauses:
				t.Errorf("it idles for %s more", pause)
			default:
			}
		})
	}
}
