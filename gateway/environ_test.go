package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

func TestEnvironOfEachProtocol(t *testing.T) {
	origin := "http://127.0.0.1:1"
	secret := "Secret-Key-0123456789-0123456789"
	tests := []struct {
		name string
		cred credstore.Info
		want []string
	}{
		{"lona", credstore.Info{
			Key: lonaKey(origin, "my-agent"), Attrs: map[string]string{"user_id": "somebody"},
		}, []string{"LONA_AGENT_ID=my-agent", "LONA_API_KEY=" + secret, "LONA_GATEWAY_URL=" + origin, "LONA_USER_ID=somebody"}},
		{"lithtrix", credstore.Info{
			Key: credstore.Key{Protocol: "lithtrix", Origin: origin, Agent: "my-agent", Kind: credstore.KindToken},
		}, []string{"LITHTRIX_API_KEY=" + secret, "LITHTRIX_API_URL=" + origin}},
		{"lumina", credstore.Info{
			Key: credstore.Key{Protocol: "lumina", Origin: origin, Agent: "0xf39f", Kind: credstore.KindToken, Label: "bot"},
		}, []string{"LUMINA_API_KEY=" + secret, "LUMINA_API_URL=" + origin}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{})
			f.put(t, credstore.Credential{Info: tt.cred, Secret: credstore.NewSecret(secret)})

			got, err := f.Lifecycle.Environ(t.Context(), tt.cred.Key, nil)
			if err != nil {
				t.Fatal(err)
			}

			if slices.Sort(got); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			noSecret(t, "the log", f.log.String(), secret)
		})
	}
}

func TestEnvironLeavesOutWhatIsEnlists(t *testing.T) {
	f := newFixture(t, setup{})
	k := lonaKey("http://127.0.0.1:1", "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: k}, Secret: credstore.NewSecret("Secret-Key-0123456789")})
	base := []string{
		"PATH=/bin", "ENLIST_PASSPHRASE=x", "ENLIST_HOME=/h", "enlist_store=file", "AGENT_REGISTRATION_SECRET=x",
		"LONA_AGENT_REGISTRATION_SECRET=x", "LONA_API_KEY=stale", "Lona_Api_Key=stale", "LITHTRIX_API_KEY=mine", "=C:=C:\\dir", "EMPTY=",
	}
	before := slices.Clone(base)

	got, err := f.Lifecycle.Environ(t.Context(), k, base)
	if err != nil {
		t.Fatal(err)
	}

	want := []string{"PATH=/bin", "LITHTRIX_API_KEY=mine", "=C:=C:\\dir", "EMPTY="}
	if len(got) != len(want)+4 || !slices.Equal(got[:len(want)], want) {
		t.Errorf("got %q, want %q and the four of Lona", got, want)
	}
	if !slices.Equal(base, before) {
		t.Error("what was passed in was changed")
	}
}

func TestEnvironRefusesWhatDoesNotWork(t *testing.T) {
	k := lonaKey("http://127.0.0.1:1", "my-agent")
	fixed := credstore.Key{Protocol: "lithtrix", Origin: "http://127.0.0.1:1", Agent: "my-agent", Kind: "api_key"}
	secret := credstore.NewSecret("Secret-Key-0123456789")
	tests := []struct {
		name string
		cred credstore.Credential
		want string
	}{
		{"expired", credstore.Credential{Info: credstore.Info{Key: fixed, ExpiresAt: start.Add(-time.Second)}, Secret: secret}, "expired: rotate it"},
		{"revoked", credstore.Credential{Info: credstore.Info{Key: k, State: credstore.StateRevoked}, Secret: secret}, "revoked: register"},
		{"pending", credstore.Credential{Info: credstore.Info{Key: k, State: credstore.StatePending}}, "pending: register"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, setup{})
			f.put(t, tt.cred)
			got, err := f.Lifecycle.Environ(t.Context(), tt.cred.Key, nil)
			var refused *gateway.RefusedError
			if got != nil || !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q (%v), want a refusal with %q", got, err, tt.want)
			}
		})
	}
	f := newFixture(t, setup{})
	if _, err := f.Lifecycle.Environ(t.Context(), k, nil); !errors.Is(err, credstore.ErrNotFound) {
		t.Errorf("got %v, want that nothing is stored", err)
	}
}

// exporter is a bearer whose tokens expire and are for programs too.
type exporter struct{ bearer }

func (e *exporter) Renew(ctx context.Context, k credstore.Key) error {
	if err := e.bearer.Renew(ctx, k); err != nil {
		return err
	}
	c, err := e.store.Get(ctx, k)
	if err != nil {
		return err
	}
	c.ExpiresAt = start.Add(time.Hour)
	return e.store.Put(ctx, c)
}

func (e *exporter) Environ(ctx context.Context, k credstore.Key) ([]gateway.Variable, error) {
	c, err := e.store.Get(ctx, k)
	return []gateway.Variable{{Name: "BEARER_TOKEN", Value: c.Secret}, {Name: "BEARER_URL"}}, err
}

// TestEnvironRenewsFirst shows it with a protocol that can.
func TestEnvironRenewsFirst(t *testing.T) {
	for name, left := range map[string]time.Duration{"expiring": time.Minute, "expired": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, setup{})
			b := &exporter{bearer{store: f.store, origin: "http://127.0.0.1:1"}}
			f.With(b)
			k := credstore.Key{Protocol: "bearer", Origin: b.origin, Agent: "a", Kind: "api_key"}
			f.put(t, credstore.Credential{
				Info:   credstore.Info{Key: k, CreatedAt: start.Add(-time.Hour), ExpiresAt: start.Add(left)},
				Secret: credstore.NewSecret("old-secret-0123456789"),
			})

			got, err := f.Lifecycle.Environ(t.Context(), k, []string{"BEARER_URL=stale"})

			if err != nil || b.renews != 1 || !slices.Equal(got, []string{"BEARER_TOKEN=" + f.secret(t, k)}) {
				t.Errorf("got %q after %d renewals (%v), want the renewed token", got, b.renews, err)
			}
		})
	}
}
