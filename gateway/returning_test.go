package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// interrupting is a store where somebody is faster: before the nth lock is taken
// something else happens.
type interrupting struct {
	credstore.Store
	nth    int
	before func()
}

func (i *interrupting) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	if i.nth--; i.nth == 0 {
		i.before()
	}
	return i.Store.Lock(ctx, k)
}

// What a person has forgotten does not come back because something that was
// under way went on: neither here, nor as a registration at the service.
func TestWhatIsForgottenStaysForgotten(t *testing.T) {
	dueLona := func(t *testing.T, f *fixture, s *service) credstore.Key {
		i := credstore.Info{
			Key: lonaKey(s.URL, "my-agent"), State: credstore.StateActive,
			CreatedAt: start.Add(-9 * time.Hour), ExpiresAt: start.Add(time.Hour),
		}
		f.put(t, credstore.Credential{Info: i, Secret: credstore.NewSecret(token("my-agent", 9))})
		return i.Key
	}
	for _, tt := range []struct {
		name string
		does func(t *testing.T, f *fixture, k credstore.Key) error
	}{
		{"a renewal", func(t *testing.T, f *fixture, k credstore.Key) error { return f.Lona.Renew(t.Context(), k) }},
		{"a rotation", func(t *testing.T, f *fixture, k credstore.Key) error {
			_, err := f.Lifecycle.Rotate(t.Context(), k)
			return err
		}},
		{"a request", func(t *testing.T, f *fixture, k credstore.Key) error {
			_, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			store := &interrupting{Store: credstore.NewMemory(frozen)}
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
			k := dueLona(t, f, s)
			store.nth, store.before = 1, func() {
				if err := store.Delete(t.Context(), k); err != nil {
					t.Error(err)
				}
			}

			err := tt.does(t, f, k)

			if !errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("got %v, want that there is no such credential", err)
			}
			gone(t, f, s, k, 0)
		})
	}
}

// gone wants a credential not to be stored, and so many registrations.
func gone(t *testing.T, f *fixture, s *service, k credstore.Key, registrations int) {
	t.Helper()
	if c, err := f.store.Get(t.Context(), k); !errors.Is(err, credstore.ErrNotFound) {
		t.Errorf("it is stored again, as %s (%v)", c.State, err)
	}
	if got := len(s.seen(registerPath)); got != registrations {
		t.Errorf("got %d registrations, want %d", got, registrations)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("unfinished is %v (%v)", open, err)
	}
}

func TestHealingBringsNothingForgottenBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		forget func(t *testing.T, f *fixture, s *service, k credstore.Key)
	}{
		{"forgotten while the service is asked", func(t *testing.T, f *fixture, s *service, k credstore.Key) {
			s.on(strategiesPath, func(w http.ResponseWriter, r *http.Request) {
				if _, err := f.Lifecycle.Forget(context.WithoutCancel(r.Context()), k); err != nil {
					t.Error(err)
				}
				reply(401, `{"error":{"code":"unauthorized"}}`)(w, r)
			})
		}},
		{"forgotten, and the journal could not be written", func(t *testing.T, f *fixture, _ *service, k credstore.Key) {
			f.OnJournal(func(step string) error {
				if step == "confirmed" {
					return errors.New("the disk is full")
				}
				return nil
			})
			if _, err := f.Lifecycle.Forget(t.Context(), k); err != nil {
				t.Error(err)
			}
			f.OnJournal(nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			k := f.register(t, "my-agent").Key
			s.on(registerPath, reply(503, ""))
			if _, err := f.Lifecycle.Rotate(t.Context(), k); err == nil {
				t.Fatal("want a rotation whose outcome is not known")
			}
			if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 1 {
				t.Fatalf("unfinished is %v (%v), want the rotation", open, err)
			}
			tt.forget(t, f, s, k)
			before := len(s.seen(registerPath))

			err := f.Lifecycle.Heal(t.Context())
			if err != nil {
				t.Error(err)
			}
			gone(t, f, s, k, before)
		})
	}
}

// The first lock shows that nobody is at it, and is let go of.
func TestHealingRegistersNothingForgottenAtLithtrix(t *testing.T) {
	s := newLithtrix(t).on(ltxRegisterPath, raw(""))
	store := &interrupting{Store: credstore.NewMemory(frozen)}
	set := ltxSetup(s.URL)
	set.store = store
	f := newFixture(t, set)
	if _, err := f.Lithtrix.Register(t.Context(), pair("my-agent", "me@example.com")); err == nil {
		t.Fatal("the answer was not lost")
	}
	s.on(ltxRegisterPath, ltxIssued(201, 1))
	k, before := ltxCredKey(s.URL, "my-agent", ""), len(s.seen(ltxRegisterPath))
	store.nth, store.before = 2, func() {
		if err := store.Delete(t.Context(), k); err != nil {
			t.Error(err)
		}
	}

	if err := f.Lifecycle.Heal(t.Context()); err != nil {
		t.Error(err)
	}

	if got := len(s.seen(ltxRegisterPath)); got != before {
		t.Errorf("got %d registrations, want %d", got, before)
	}
	gone(t, f, s, k, 0)
}

// An operation that was not finished says nothing of what is imported in its
// place: a revocation of the old key must not end the new one.
func TestWhatIsImportedIsNotEndedByAnOldOperation(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(start))
	line := &broken{method: http.MethodDelete, after: true}
	here := luminaAgainst(t, gw, setup{transport: line})
	here.imports(t, "w", devKey)
	k := here.onboard(t, "bot").Key
	gw.Clock.Advance(10 * time.Minute)
	line.times = 9
	if err := here.Lifecycle.Revoke(t.Context(), k); err == nil {
		t.Fatal("the answer was not lost")
	}
	line.times = 0
	gw.Clock.Advance(10 * time.Minute)
	there := luminaAgainst(t, gw, setup{})
	there.imports(t, "w", devKey)
	there.onboard(t, "bot")
	var file bytes.Buffer
	passphrase := credstore.NewSecret("correct horse battery staple")
	if _, err := there.Lifecycle.Export(t.Context(), &file, passphrase, k); err != nil {
		t.Fatal(err)
	}

	done, err := here.Lifecycle.Import(t.Context(), &file, passphrase, true)

	if err != nil || len(done) != 1 || done[0].Outcome != credstore.OutcomeReplaced {
		t.Fatalf("got %v (%v), want it replaced", done, err)
	}
	if !here.luminaWorks(t, k) {
		t.Error("what was imported has been ended")
	}
	c, err := here.store.Get(t.Context(), k)
	if err != nil || c.State != credstore.StateActive {
		t.Errorf("it is %s (%v), want it active", c.State, err)
	}
}
