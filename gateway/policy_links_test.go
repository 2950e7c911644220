//go:build unix

package gateway_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// A policy that is kept elsewhere, on a disk that is not there for now, refuses as
// it did: it does not end.
func TestALinkToAPolicyThatIsGoneRefuses(t *testing.T) {
	home, elsewhere := t.TempDir(), t.TempDir()
	f := newFixture(t, setup{home: home})
	path := writePolicy(t, elsewhere, `write = "deny"`)
	if err := os.Symlink(path, filepath.Join(home, gateway.PolicyFile)); err != nil {
		t.Fatal(err)
	}
	ctx := gateway.WithCaller(t.Context(), script)
	write := gateway.Act{Action: gateway.ActWrite, Key: lonaKey(lonaOrigin, "a"), Method: "POST", Path: "/"}
	for _, step := range []func() error{func() error { return nil }, func() error { return os.Remove(path) }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if got := ruling(f.Permit(ctx, write)); got != "no" {
			t.Errorf("got %s, want a refusal", got)
		}
	}
}

// What the policy keeps from a service is kept from it in the background, too.
func TestNothingIsRenewedWhereThePolicyAdmitsNothing(t *testing.T) {
	for _, r := range renewings() {
		for _, text := range []string{`services = ["lumina"]`, `origins = ["https://api.example.com"]`, "not a policy"} {
			gw := r.gateway(t)
			store := credstore.NewMemory(gw.Clock.Now)
			r.join(t, r.fixture(t, gw, setup{store: store}), gw.Gateway)
			gw.forget(0)
			home := t.TempDir()
			writePolicy(t, home, text)
			end := gw.Clock.Now().Add(r.life - time.Second)
			r.fixture(t, gw, setup{store: store, home: home, idle: func(_ context.Context, d time.Duration) error {
				gw.Clock.Advance(d)
				if gw.Clock.Now().After(end) {
					return errEnough
				}
				return nil
			}}).Lifecycle.Keep(t.Context())
			if got, _ := gw.counted(); got != 0 {
				t.Errorf("%s with %s: got %d renewals, want none", r.name, text, got)
			}
		}
	}
}
