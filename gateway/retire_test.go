package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// TestRetireProvesItself: the service is seen to refuse the key before it is
// deleted here, and nothing that stood behind it stays.
func TestRetireProvesItself(t *testing.T) {
	gw := gatewaytest.New(t)
	for name, registered := range map[string]func(*testing.T, *fixture) credstore.Key{
		"lumina": func(t *testing.T, f *fixture) credstore.Key { return f.onboard(t, "bot").Key },
		"fluxra": func(t *testing.T, f *fixture) credstore.Key {
			r, err := f.Fluxra.Register(t.Context(), gateway.FluxraRegistration{AgentName: "weather-bot"})
			if err != nil {
				t.Fatal(err)
			}
			return r.Key
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, setup{now: gw.Clock.Now, env: map[string]string{"LUMINA_API_URL": gw.URL, "FLUXRA_API_URL": gw.URL}})
			k := registered(t, f)
			c, err := f.store.Get(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}

			got, err := f.Lifecycle.Retire(t.Context(), k)

			if err != nil || !got.Proved || got.BehindLives != (name == "fluxra") {
				t.Errorf("got %+v (%v), want it proved", got, err)
			}
			var refused *gateway.Error
			p := protocolOf(t, f, name).(gateway.Trier)
			if err := p.Try(t.Context(), c); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
				t.Errorf("the old key: got %v, want a 401", err)
			}
			if left, err := f.Lifecycle.Behind(t.Context(), k); err != nil || len(left) != 0 {
				t.Errorf("left: %+v (%v), want nothing", left, err)
			}
			noSecret(t, "the log", f.log.String(), c.Secret.Reveal())
		})
	}
}

func protocolOf(t *testing.T, f *fixture, name string) gateway.Protocol {
	t.Helper()
	for _, p := range f.All() {
		if p.Wire().Name == name {
			return p
		}
	}
	t.Fatalf("there is no protocol %s", name)
	return nil
}

// revoking is a protocol whose service can be told to end a key, and does what
// the test wants.
type revoking struct {
	bearer
	revoke func(context.Context, credstore.Key) error
	try    error
}

func (r *revoking) Revoke(ctx context.Context, k credstore.Key) error {
	if r.revoke != nil {
		return r.revoke(ctx, k)
	}
	c, err := r.store.Get(ctx, k)
	if err != nil {
		return err
	}
	c.State = credstore.StateRevoked
	return r.store.Put(ctx, c)
}

func (r *revoking) Try(context.Context, credstore.Credential) error { return r.try }

// TestRetireDeletesNothingThatIsNotProved goes through what may come between.
func TestRetireDeletesNothingThatIsNotProved(t *testing.T) {
	refused := &gateway.Error{Status: http.StatusUnauthorized}
	unreachable := &gateway.Error{Code: gateway.CodeUnreachable}
	for _, tt := range []struct {
		name   string
		secret string
		revoke func(context.Context, credstore.Key) error
		try    error
		want   string
	}{
		{name: "the service cannot be reached", secret: "secret-0123456789", revoke: func(context.Context, credstore.Key) error { return unreachable }, want: "unreachable"},
		{name: "it still takes the key", secret: "secret-0123456789", want: "still accepts it"},
		{name: "it cannot be reached afterwards", secret: "secret-0123456789", try: unreachable, want: "could not be seen to refuse it"},
		{name: "it answers otherwise", secret: "secret-0123456789", try: &gateway.Error{Status: http.StatusForbidden}, want: "could not be seen to refuse it"},
		{name: "another one took its place", secret: "secret-0123456789", revoke: func(context.Context, credstore.Key) error { return nil }, try: refused, want: "took its place"},
		{name: "there is no secret", try: refused, want: "no secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{})
			p := &revoking{bearer: bearer{store: f.store, origin: "http://127.0.0.1:1"}, revoke: tt.revoke, try: tt.try}
			f.With(p)
			k := credstore.Key{Protocol: "bearer", Origin: p.origin, Agent: "a", Kind: "api_key"}
			f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(tt.secret)})

			_, err := f.Lifecycle.Retire(t.Context(), k)

			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := f.store.Get(t.Context(), k); err != nil {
				t.Errorf("got %v, want it still stored", err)
			}
		})
	}
}

// TestRetireWhereNoServiceCanEndAKey: what has expired needs no service.
func TestRetireWhereNoServiceCanEndAKey(t *testing.T) {
	f := newFixture(t, setup{})
	k := lonaKey("http://127.0.0.1:1", "my-agent")
	for left, gone := range map[time.Duration]bool{time.Hour: false, -time.Hour: true} {
		f.put(t, credstore.Credential{Info: credstore.Info{Key: k, ExpiresAt: start.Add(left)}, Secret: credstore.NewSecret(token("my-agent", 1))})

		got, err := f.Lifecycle.Retire(t.Context(), k)

		var e *gateway.UnsupportedError
		if errors.As(err, &e) == gone || got.Proved {
			t.Errorf("%s before its end: got %+v (%v), want it deleted: %v", left, got, err, gone)
		}
		if _, err := f.store.Get(t.Context(), k); errors.Is(err, credstore.ErrNotFound) != gone {
			t.Errorf("%s before its end: got %v, want it deleted: %v", left, err, gone)
		}
	}
}

// TestRevealToIsNoted: a person gets the secret, and the trail says so.
func TestRevealToIsNoted(t *testing.T) {
	f := newFixture(t, setup{})
	k := lonaKey("http://127.0.0.1:1", "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(token("my-agent", 1))})
	var out strings.Builder

	err := f.Lifecycle.RevealTo(gateway.WithCaller(t.Context(), gateway.Caller{Kind: gateway.CallerPerson, Name: "enlist show"}), k, &out)

	if err != nil || out.String() != token("my-agent", 1)+"\n" {
		t.Errorf("got %d bytes (%v), want the token and a newline", out.Len(), err)
	}
	trail, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10)
	if err != nil || len(trail) != 1 || trail[0].Action != gateway.ActReveal || trail[0].Client != "enlist show" || trail[0].Outcome != gateway.OutcomeDone {
		t.Errorf("got %+v (%v), want one event of it", trail, err)
	}
	// A seed is no secret of the service's, and proves whose attempt it was.
	for _, seed := range []string{"", "enlist-begun-" + strings.Repeat("s", 43)} {
		f.put(t, credstore.Credential{Info: credstore.Info{Key: k, State: credstore.StatePending}, Secret: credstore.NewSecret(seed)})
		var refused *gateway.RefusedError
		if err := f.Lifecycle.RevealTo(t.Context(), k, &out); !errors.As(err, &refused) {
			t.Errorf("got %v, want that there is none", err)
		}
	}
	if strings.Contains(out.String(), "enlist-begun-") {
		t.Error("a seed was shown")
	}
}
