package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

const (
	refreshCall = "POST /api/auth/refresh"
	tokenCall   = "POST /api/auth/token"
	keyCall     = "POST agent"
	deleteCall  = "DELETE key"
	logoutCall  = "POST /api/auth/logout"
)

// What is not as it was is healed by the next key in line, and only a 401 of
// one leads to the next.
func TestFluxraHeals(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		after                   time.Duration
		breaks                  func(*fluxraService)
		refreshed, taken, keyed int // beyond those of registering
		status                  int
	}{
		{name: "a fresh token", status: 200},
		{name: "79 % of its life", after: 47 * time.Minute, status: 200},
		{name: "81 % of its life", after: 49 * time.Minute, refreshed: 1, status: 200},
		{name: "an expired token", after: 2 * time.Hour, taken: 1, status: 200},
		{name: "a token that the service refuses", breaks: (*fluxraService).killTokens, taken: 1, status: 200},
		{name: "refused while it is due", after: 49 * time.Minute, breaks: (*fluxraService).killTokens, refreshed: 1, taken: 1, status: 200},
		{name: "a dead API key", breaks: (*fluxraService).killKeys, taken: 2, keyed: 1, status: 200},
		{name: "a dead API key while a token is due", after: 49 * time.Minute, breaks: (*fluxraService).killKeys, refreshed: 1, taken: 2, keyed: 1, status: 200},
		{
			name: "a refresh whose answer is lost", after: 49 * time.Minute, refreshed: 1, taken: 1, status: 200,
			breaks: func(s *fluxraService) { s.loses(refreshCall, 1) },
		},
		{
			name: "a refresh that fails at the service", after: 49 * time.Minute, refreshed: 1, taken: 1, status: 200,
			breaks: func(s *fluxraService) { s.on(refreshCall, 1, reply(500, "oops")) },
		},
		{
			name: "a refresh that is limited", after: 49 * time.Minute, refreshed: 1, status: 200,
			breaks: func(s *fluxraService) { s.on(refreshCall, 1, reply(429, `{"error":{"code":"RATE_LIMIT_EXCEEDED"}}`)) },
		},
		{
			name: "no refresh at all, in plain text", after: 49 * time.Minute, refreshed: 1, taken: 1, status: 200,
			breaks: func(s *fluxraService) { s.on(refreshCall, 1, reply(404, "404 page not found")) },
		},
		{
			name: "a service that is half out of order", after: 49 * time.Minute, refreshed: 1, taken: 3, status: 200,
			breaks: func(s *fluxraService) {
				s.do = func(call string, w http.ResponseWriter, r *http.Request) bool {
					broken := strings.HasPrefix(call, "POST /api/auth")
					if broken {
						reply(503, "upstream")(w, r)
					}
					return broken
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newFluxra(t)
			f := s.client(nil)
			r := f.enrol(t)
			s.clock.advance(tt.after)
			if tt.breaks != nil {
				tt.breaks(s)
			}
			if got := f.me(t, r.Key); got != tt.status {
				t.Errorf("got the status %d, want %d", got, tt.status)
			}
			got := fmt.Sprint(s.count(refreshCall), s.count(tokenCall)-1, s.count(keyCall)-1)
			if want := fmt.Sprint(tt.refreshed, tt.taken, tt.keyed); got != want {
				t.Errorf("refreshed, taken and made: got %s, want %s", got, want)
			}
			if got := s.alive(); len(got) != 1 {
				t.Errorf("the keys %v live, want one", got)
			}
		})
	}
}

func TestFluxraNeedsAPersonOnlyWhenAllElseFails(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	s.killRecovery()
	if got := f.me(t, r.Key); got != 200 {
		t.Errorf("got the status %d, want the recovery key not to matter", got)
	}
	s.killKeys()
	s.clock.advance(2 * time.Hour)
	_, err := f.Lifecycle.Do(t.Context(), r.Key, get("/api/me"))
	e := wantError(t, err, gateway.CodeRecovery)
	if e.Status != 401 || e.Sent || !strings.Contains(e.Message, "UNAUTHORIZED") {
		t.Errorf("got %+v", e)
	}
	if c, _ := f.store.Get(t.Context(), r.Key); c.Attrs["asked"] != "" || c.State != credstore.StateActive {
		t.Errorf("left %+v", c.Info)
	}
	_, err = f.Lifecycle.Rotate(t.Context(), r.Key)
	wantError(t, err, gateway.CodeRecovery)
	if _, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode); err != nil {
		t.Fatal(err)
	}
	if got := f.me(t, r.Key); got != 200 {
		t.Errorf("recovered: got the status %d", got)
	}
}

// crowd is a store that holds the first lock of a key back until n callers
// have come for it.
type crowd struct {
	credstore.Store
	mu   sync.Mutex
	left int
	all  chan struct{}
}

func (s *crowd) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	s.mu.Lock()
	if s.left--; s.left == 0 {
		close(s.all)
	}
	s.mu.Unlock()
	unlock, err := s.Store.Lock(ctx, k)
	<-s.all
	return unlock, err
}

func TestFluxraRenewsOnceForMany(t *testing.T) {
	for _, tt := range []struct {
		name   string
		breaks func(*fluxraService)
		want   string // refreshed, taken, made
	}{
		{"an expired token", func(s *fluxraService) { s.clock.advance(2 * time.Hour) }, "0 1 0"},
		{"a token that is due", func(s *fluxraService) { s.clock.advance(50 * time.Minute) }, "1 0 0"},
		{"a token that is refused", (*fluxraService).killTokens, "0 1 0"},
		{"a key that is refused", (*fluxraService).killKeys, "0 2 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newFluxra(t)
			inner := credstore.NewMemory(s.clock.now)
			r := s.client(inner).enrol(t)
			tt.breaks(s)
			store := &crowd{Store: inner, left: 20, all: make(chan struct{})}
			clients := []*fixture{s.client(store), s.client(store)}
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if res, err := clients[i%2].Lifecycle.Do(context.Background(), r.Key, get("/api/me")); err != nil || res.Status != 200 {
						t.Errorf("got %d, %v", res.Status, err)
					}
				})
			}
			wg.Wait()
			if got := fmt.Sprint(s.count(refreshCall), s.count(tokenCall)-1, s.count(keyCall)-1); got != tt.want {
				t.Errorf("refreshed, taken and made: got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestFluxraRotates(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	old := f.item(t, r.Key, credstore.KindAccess).Secret.Reveal()
	s.clock.advance(time.Minute)
	info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil || info.KeyID == r.KeyID || info.Attrs["replaces"] != "" {
		t.Fatalf("got %+v, %v", info, err)
	}
	if got := s.alive(); len(got) != 1 || got[0] != info.KeyID {
		t.Errorf("the keys %v live, want %s", got, info.KeyID)
	}
	if s.tokens[old] != nil {
		t.Error("the access token of the old key is still good")
	}
	if f.me(t, r.Key) != 200 {
		t.Error("the new key does not work")
	}
}

func TestFluxraSaysThatAnOldKeyIsNotDeletedAndDeletesItLater(t *testing.T) {
	for name, again := range map[string]func(*fixture, credstore.Key) error{
		"rotating": func(f *fixture, k credstore.Key) error {
			_, err := f.Lifecycle.Rotate(context.Background(), k)
			return err
		},
		"revoking": func(f *fixture, k credstore.Key) error { return f.Lifecycle.Revoke(context.Background(), k) },
		"using": func(f *fixture, k credstore.Key) error {
			_, err := f.Lifecycle.Do(context.Background(), k, get("/api/me"))
			return err
		},
	} {
		s := newFluxra(t)
		f := s.client(nil)
		r := f.enrol(t)
		s.clock.advance(time.Minute)
		// A page about a path that is not served does not say that the key is gone.
		s.on(deleteCall, 1, reply(404, "404 page not found"))
		_, err := f.Lifecycle.Rotate(t.Context(), r.Key)
		var half *gateway.HalfRotatedError
		if !errors.As(err, &half) || half.Old != r.KeyID || half.Info.KeyID == r.KeyID {
			t.Fatalf("%s: got %v", name, err)
		}
		if got := s.alive(); len(got) != 2 {
			t.Errorf("%s: the keys %v live, want both", name, got)
		}
		s.clock.advance(time.Minute)
		if err := again(f, r.Key); err != nil {
			t.Fatal(err)
		}
		want := 1
		if name == "revoking" {
			want = 0
		}
		if got := s.alive(); len(got) != want {
			t.Errorf("%s: the keys %v live, want %d", name, got, want)
		}
	}
}

func TestFluxraFindsAKeyWhoseAnswerWasLost(t *testing.T) {
	for _, then := range []string{"use", "rotate", "revoke"} {
		s := newFluxra(t)
		f := s.client(nil)
		r := f.enrol(t)
		s.clock.advance(time.Minute)
		s.loses(keyCall, 1)
		_, err := f.Lifecycle.Rotate(t.Context(), r.Key)
		if e := wantError(t, err, gateway.CodeUnreachable); !e.Sent {
			t.Errorf("%s: got %+v", then, e)
		}
		if got := s.alive(); len(got) != 2 {
			t.Errorf("%s: the keys %v live, want both", then, got)
		}
		s.clock.advance(time.Minute)
		want := 1
		switch then {
		case "use":
			if got := f.me(t, r.Key); got != 200 {
				t.Errorf("using it: got the status %d", got)
			}
		case "rotate":
			if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
				t.Error(err)
			}
		case "revoke":
			want = 0
			if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
				t.Error(err)
			}
		}
		if got := s.alive(); len(got) != want {
			t.Errorf("%s: the keys %v live, want %d", then, got, want)
		}
	}
}

func TestFluxraRevokesAndForgets(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	ctx := t.Context()
	for range 2 {
		if err := f.Lifecycle.Revoke(ctx, r.Key); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.alive()) != 0 || len(s.tokens) != 0 || s.count(deleteCall) != 1 || s.count(logoutCall) != 1 {
		t.Errorf("left the keys %v and %d tokens after %v", s.alive(), len(s.tokens), s.calls)
	}
	_, err := f.Lifecycle.Do(ctx, r.Key, get("/api/me"))
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) || s.count("GET /api/me") != 0 {
		t.Errorf("got %v, want that what was revoked does not come back", err)
	}
	if again := f.enrol(t); again.Reused || f.me(t, r.Key) != 200 || s.count("POST /api/auth/register") != 1 {
		t.Errorf("registered again: got %+v, want another key of the same account", again)
	}
	// One that somebody else has deleted is as good as revoked.
	s.killKeys()
	if err := f.Lifecycle.Revoke(ctx, r.Key); err != nil {
		t.Error(err)
	}
	if mayLive, err := f.Lifecycle.Forget(ctx, r.Key); err != nil || !mayLive {
		t.Errorf("forgot: got %v, %v, want that the recovery key may live", mayLive, err)
	}
	if all, _ := f.Lifecycle.List(ctx); len(all) != 0 {
		t.Errorf("left %+v", all)
	}
}

func TestFluxraUsesTheRecoveryKeyForNothingElse(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	k := r.Key
	k.Kind = credstore.KindRecovery
	if err := f.store.Delete(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, 50 * time.Minute, 3 * time.Hour} {
		s.clock.advance(after)
		if got := f.me(t, r.Key); got != 200 {
			t.Errorf("got the status %d", got)
		}
	}
	_, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	wantError(t, err, gateway.CodeRecovery)
	wantError(t, f.Lifecycle.Revoke(t.Context(), r.Key), gateway.CodeRecovery)
	if f.me(t, r.Key) != 200 {
		t.Error("what could not be revoked does not work")
	}
}

func TestFluxrasRoutesAreNotForPlainRequests(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	for _, req := range []gateway.Request{
		{Method: "POST", Path: "/api/auth/refresh"},
		{Method: "POST", Path: "/api/auth/logout"},
		{Method: "POST", Path: "/api/auth/token"},
		{Method: "GET", Path: "/api/auth/verify-email"},
		{Method: "POST", Path: "/api/agents/agt_1"},
		{Method: "DELETE", Path: "/api/agents/agt_1/keys/aky_1"},
		{Method: "GET", Path: "/api/me", Header: map[string]string{"authorization": "Basic eA=="}},
	} {
		_, err := f.Lifecycle.Do(t.Context(), r.Key, req)
		var refused *gateway.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s %s: got %v", req.Method, req.Path, err)
		}
	}
}

func TestAProgramGetsFluxrasKeys(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	s.clock.advance(2 * time.Hour)
	env, err := f.Lifecycle.Environ(t.Context(), r.Key, []string{"PATH=/bin", "ENLIST_PASSPHRASE=x"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PATH=/bin", "FLUXRA_ACCESS_TOKEN=" + f.item(t, r.Key, credstore.KindAccess).Secret.Reveal(), "FLUXRA_AGENT_ID=" + s.any(),
		"FLUXRA_API_KEY=" + f.secret(t, r.Key), "FLUXRA_API_URL=" + s.URL,
	}
	if !slices.Equal(env, want) {
		t.Errorf("got %q, want %q", env, want)
	}
	if s.count(tokenCall) != 2 {
		t.Error("the access token was not renewed for it")
	}
}

// A rotation that is broken off after any write leaves a key that works, and
// the next one leaves no other.
func TestFluxraFinishesARotationThatStopped(t *testing.T) {
	for writes := range 5 {
		s := newFluxra(t)
		inner := credstore.NewMemory(s.clock.now)
		r := s.client(inner).enrol(t)
		s.clock.advance(time.Minute)
		_, err := s.client(&stopper{inner, writes}).Lifecycle.Rotate(t.Context(), r.Key)
		if err == nil && writes < 2 {
			t.Fatalf("%d writes: rotated", writes)
		}
		s.clock.advance(time.Minute)
		f := s.client(inner) // the process after
		if got := f.me(t, r.Key); got != 200 {
			t.Errorf("%d writes: got the status %d", writes, got)
		}
		info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
		if err != nil || f.me(t, r.Key) != 200 {
			t.Errorf("%d writes: got %v", writes, err)
		}
		if got := s.alive(); len(got) != 1 || got[0] != info.KeyID {
			t.Errorf("%d writes: the keys %v live, want only %s", writes, got, info.KeyID)
		}
	}
}

// damager is a store that cannot read one kind of its items until it is
// written anew.
type damager struct {
	credstore.Store
	kind credstore.Kind
}

func (s *damager) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	if k.Kind == s.kind {
		return credstore.Credential{}, &credstore.Error{Op: "read", Place: "memory", Kind: credstore.ErrDamaged}
	}
	return s.Store.Get(ctx, k)
}

func (s *damager) Put(ctx context.Context, c credstore.Credential) error {
	if c.Kind == s.kind && fromService(c) {
		s.kind = ""
	}
	return s.Store.Put(ctx, c)
}

func TestFluxraReplacesAKeyThatIsDamaged(t *testing.T) {
	for _, kind := range []credstore.Kind{credstore.KindAPIKey, credstore.KindAccess} {
		s := newFluxra(t)
		inner := credstore.NewMemory(s.clock.now)
		r := s.client(inner).enrol(t)
		s.clock.advance(time.Minute)
		f := s.client(&damager{inner, kind})
		f.enrol(t)
		if got := f.me(t, r.Key); got != 200 || s.count("POST /api/auth/register") != 1 {
			t.Errorf("%s: got the status %d after %v", kind, got, s.calls)
		}
	}
	s := newFluxra(t)
	inner := credstore.NewMemory(s.clock.now)
	s.client(inner).enrol(t)
	f := s.client(&damager{inner, credstore.KindRecovery})
	if _, err := f.Fluxra.Register(t.Context(), weather()); !errors.Is(err, credstore.ErrDamaged) {
		t.Errorf("got %v, want that no other account is made in its place", err)
	}
}

func TestFluxraDoesWithoutAListOfKeys(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	s.clock.advance(time.Minute)
	s.loses(keyCall, 1)
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
		t.Fatal("rotated over a dead line")
	}
	s.on("GET agent", 9, reply(404, "404 page not found"))
	s.clock.advance(time.Minute)
	info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil || info.Attrs["asked"] != "" || f.me(t, r.Key) != 200 || !strings.Contains(f.log.String(), "may live that never arrived") {
		t.Errorf("got %+v, %v", info, err)
	}
}
