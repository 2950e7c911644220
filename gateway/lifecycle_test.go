package gateway_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

func TestForgetSaysWhetherTheKeyMayLive(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state credstore.State
		until time.Time
		want  bool
	}{
		{"active", credstore.StateActive, start.Add(time.Hour), true},
		{"without an end", credstore.StateActive, time.Time{}, true},
		{"pending", credstore.StatePending, time.Time{}, true},
		{"expired", credstore.StateActive, start.Add(-time.Hour), false},
		{"revoked", credstore.StateRevoked, start.Add(time.Hour), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{})
			k := lonaKey(lonaOrigin, "my-agent")
			f.put(t, credstore.Credential{
				Info: credstore.Info{Key: k, State: tt.state, ExpiresAt: tt.until}, Secret: credstore.NewSecret(token("my-agent", 1)),
			})

			got, err := f.Lifecycle.Forget(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}

			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if _, err := f.store.Get(t.Context(), k); !errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("got %v, want it gone", err)
			}
			if _, err := f.Lifecycle.Forget(t.Context(), k); !errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("forgetting it again: got %v, want ErrNotFound", err)
			}
		})
	}
}

func TestForgetWhatCannotBeRead(t *testing.T) {
	store := &failing{Store: credstore.NewMemory(frozen)}
	f := newFixture(t, setup{store: store})
	k := lonaKey(lonaOrigin, "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret(token("my-agent", 1))})
	store.get = &credstore.Error{Op: "read", Place: "file", Kind: credstore.ErrDamaged}

	mayLive, err := f.Lifecycle.Forget(t.Context(), k)

	if err != nil || !mayLive {
		t.Errorf("got %v (%v), want it forgotten, and that its key may live", mayLive, err)
	}
}

func TestForgottenSecretsAreStillMasked(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	if _, err := f.Lifecycle.Forget(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}

	got, err := f.Scrubber.Scrub(t.Context(), disguises["hex"](token("my-agent", 1)))

	if err != nil || got != "[redacted]" {
		t.Errorf("got %q (%v), want [redacted]", got, err)
	}
}

func TestRevokeAtLonaSaysWhatToDoInstead(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")

	err := f.Lifecycle.Revoke(t.Context(), r.Key)

	var e *gateway.UnsupportedError
	if !errors.As(err, &e) || e.Op != "revoke" || !strings.Contains(e.Instead, "Rotating") || !strings.Contains(e.Instead, "forgetting") {
		t.Errorf("got %v, want an UnsupportedError that names both ways", err)
	}
	if got, want := f.secret(t, r.Key), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want it unchanged", got)
	}
}

func TestRotateWhatIsNotThere(t *testing.T) {
	s := newService(t)
	f := at(t, s)

	_, err := f.Lifecycle.Rotate(t.Context(), lonaKey(s.URL, "nobody"))

	if !errors.Is(err, credstore.ErrNotFound) || len(s.seen("")) != 0 {
		t.Errorf("got %v after %d requests, want ErrNotFound after none", err, len(s.seen("")))
	}
}

func TestARotationThatFailsKeepsTheOldToken(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	s.on(invitePath, reply(403, `{"error":{"code":"invites_disabled","message":"not now"}}`))

	_, err := f.Lifecycle.Rotate(t.Context(), r.Key)

	if e := wantError(t, err, "invites_disabled"); e.Sent {
		t.Error("got Sent, want that nothing was done")
	}
	if got, want := f.secret(t, r.Key), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}
