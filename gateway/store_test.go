package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// failing is a store whose parts fail when told to. What it does not fail
// goes to the real one.
type failing struct {
	credstore.Store
	get, put, list, lock error
	issued               error // of a Put with a secret
	puts                 int
	before               func() // a Put with a secret
}

// fromService reports whether a credential has a secret that a service issued. A
// pending one may have a seed instead.
func fromService(c credstore.Credential) bool {
	return !c.Secret.IsZero() && !strings.HasPrefix(c.Secret.Reveal(), "enlist-begun-")
}

func (f *failing) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	if f.get != nil {
		return credstore.Credential{}, f.get
	}
	return f.Store.Get(ctx, k)
}

func (f *failing) Put(ctx context.Context, c credstore.Credential) error {
	if f.put != nil {
		return f.put
	}
	if fromService(c) {
		f.puts++
		if f.before != nil {
			f.before()
		}
		if f.issued != nil {
			return f.issued
		}
	}
	return f.Store.Put(ctx, c)
}

func (f *failing) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	if f.list != nil {
		return nil, f.list
	}
	return f.Store.List(ctx, protocol)
}

func (f *failing) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	if f.lock != nil {
		return nil, f.lock
	}
	return f.Store.Lock(ctx, k)
}

var errLocked = &credstore.Error{
	Op: "write", Place: "keyring", Kind: credstore.ErrUnavailable, Remedy: "unlock it",
}

func TestAStoreThatTakesNoToken(t *testing.T) {
	s := newService(t)
	store := &failing{Store: credstore.NewMemory(frozen), issued: errLocked}
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})

	r, err := f.Lona.Register(t.Context(), named("my-agent"))

	var e *gateway.NotStoredError
	if !errors.As(err, &e) || !errors.Is(err, credstore.ErrUnavailable) || r.Agent != "" {
		t.Fatalf("got %+v and %v, want nothing and a NotStoredError", r, err)
	}
	for _, want := range []string{"my-agent", "could not be stored", "unlock it", "register once more", "agent_exists", "another agent_id"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("got %q, want it to say %q", e, want)
		}
	}
	noSecret(t, "the error", e.Error(), token("my-agent", 1))
	if got, want := store.puts, 2; got != want {
		t.Errorf("tried to store %d times, want %d", got, want)
	}

	// Until it ends, this process has the token that may be asked for.
	store.issued = nil
	f.register(t, "my-agent")
	if got, want := s.seen(registerPath)[1].Header.Get("X-Api-Key"), token("my-agent", 1); got != want {
		t.Errorf("sent the proof %q, want %q", got, want)
	}
}

func TestATokenThatCannotBeTakenOver(t *testing.T) {
	store := &failing{Store: credstore.NewMemory(frozen), put: errLocked}
	f := newFixture(t, setup{store: store, env: map[string]string{"LONA_API_KEY": token("my-agent", 1), "LONA_USER_ID": "my-agent"}})

	err := f.Start(t.Context())

	if !errors.Is(err, credstore.ErrUnavailable) || !strings.Contains(err.Error(), "LONA_API_KEY") {
		t.Errorf("got %v, want the store's error and the name of the setting", err)
	}
	noSecret(t, "the error", err.Error(), token("my-agent", 1))
}

func TestAStoreThatFailsBeforeAnythingIsSent(t *testing.T) {
	for name, store := range map[string]*failing{
		"locked":        {get: errLocked},
		"no lock":       {lock: errLocked},
		"read-only":     {put: errLocked},
		"damaged entry": {get: &credstore.Error{Op: "read", Place: "file", Kind: credstore.ErrDamaged}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			store.Store = credstore.NewMemory(frozen)
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})

			_, err := f.Lona.Register(t.Context(), named("my-agent"))

			var e *credstore.Error
			if !errors.As(err, &e) {
				t.Errorf("got %v, want the store's own error", err)
			}
			if got := len(s.seen("")); got != 0 {
				t.Errorf("got %d requests, want none", got)
			}
		})
	}
}

func TestATokenIsStoredThoughNobodyWaits(t *testing.T) {
	s := newService(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newFixture(t, setup{
		env:   map[string]string{"LONA_GATEWAY_URL": s.URL},
		store: &cancelling{Store: credstore.NewMemory(frozen), cancel: cancel},
	})

	if _, err := f.Lona.Register(ctx, named("my-agent")); err != nil {
		t.Fatal(err)
	}

	if got, want := f.secret(t, lonaKey(s.URL, "my-agent")), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

// cancelling is a store whose user gives up just before a token is written.
type cancelling struct {
	credstore.Store
	cancel context.CancelFunc
}

func (c *cancelling) Put(ctx context.Context, cred credstore.Credential) error {
	if fromService(cred) {
		c.cancel()
	}
	return c.Store.Put(ctx, cred)
}

func TestAWorkingTokenIsKeptWhenTheStoreCannotBeWritten(t *testing.T) {
	s := newService(t)
	store := &failing{Store: credstore.NewMemory(frozen)}
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
	r := f.register(t, "my-agent")
	before := len(s.seen(""))
	store.put = errLocked

	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); !errors.Is(err, credstore.ErrUnavailable) {
		t.Errorf("rotate: got %v, want the store's error", err)
	}
	if _, err := f.Lona.Register(t.Context(), named("my-agent")); !errors.Is(err, credstore.ErrUnavailable) {
		t.Errorf("register: got %v, want the store's error", err)
	}

	if got := len(s.seen("")); got != before {
		t.Errorf("got %d requests, want none", got-before)
	}
	if got, want := f.secret(t, r.Key), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestAPendingCredentialIsNothingUsable(t *testing.T) {
	s := newService(t)
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_AGENT_ID": "my-agent"}})
	k := lonaKey(s.URL, "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k, State: credstore.StatePending}}) // as a crash leaves it

	_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "GET", Path: "/"})
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Why, "did not come to an end") || refused.Tool != "lona_register_agent" {
		t.Errorf("a request: got %v, want that there is no token and what to do", err)
	}
	if _, err := f.Lona.Strategies(t.Context(), k); !errors.As(err, &refused) {
		t.Errorf("the strategies: got %v, want a RefusedError", err)
	}
	var unclear *gateway.ResolveError
	if got, err := f.Lifecycle.Resolve(t.Context(), ""); !errors.As(err, &unclear) {
		t.Errorf("the only usable: got %v (%v), want none", got, err)
	}
	if got := len(s.seen("")); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}

	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	if got, want := f.secret(t, k), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got := s.seen(registerPath)[0].Header.Values("X-Api-Key"); len(got) != 0 {
		t.Errorf("sent the proof %q, want none", got)
	}
}

func TestWhatComesInThePlaceOfAPendingCredentialIsMasked(t *testing.T) {
	f := newFixture(t, setup{})
	k := lonaKey(lonaOrigin, "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k, State: credstore.StatePending}})
	if _, err := f.Scrubber.Scrub(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(opaque)}) // by another process

	got, err := f.Scrubber.Scrub(t.Context(), opaque)

	if err != nil || got != "[redacted]" {
		t.Errorf("got %q (%v), want it masked", got, err)
	}
}

func TestATokenIsStoredBeforeTheStoreIsLookedThrough(t *testing.T) {
	s := newService(t).on(registerPath, reply(201,
		`{"data":{"token":"`+token("my-agent", 5)+`","partner_id":"Mine","permissions":["read"],"expires_at":"never"}}`))
	store := &failing{Store: credstore.NewMemory(frozen), list: errLocked}
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
	early := ""
	store.before = func() { early = f.log.String() }

	r := f.register(t, "my-agent")

	equalAttrs(t, r.Attrs, map[string]string{
		"user_id": "my-agent", "agent_name": "My Autonomous Agent", "source": "enlist", "permissions": "read", "partner_id": "Mine",
	})
	const warning = "did not say when the token expires"
	if strings.Contains(early, warning) || !strings.Contains(f.log.String(), warning) {
		t.Errorf("logged before the token was stored: %s\nand in all: %s\nwant the warning afterwards", early, f.log)
	}
}

// silent is a store that answers nothing until the caller gives up.
type silent struct{ credstore.Store }

func (silent) List(ctx context.Context, _ string) ([]credstore.Info, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWordsDoNotWaitForALockedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, setup{store: silent{credstore.NewMemory(frozen)}})
		before := time.Now()

		got := f.Scrubber.Said(t.Context(), "words")

		if took := time.Since(before); took > 2*time.Second || !strings.Contains(got, "withheld") {
			t.Errorf("got %q after %v, want that they are withheld after two seconds", got, took)
		}
	})
}
