package gateway_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// keyIDs returns the keyIds of the wallet's active keys.
func (f *fixture) keyIDs(t *testing.T, k credstore.Key) string {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get(keysPath))
	if err != nil || r.Status != http.StatusOK {
		t.Fatalf("got %d, %v", r.Status, err)
	}
	return string(r.Body)
}

// TestLuminaRevokesOnlyAKeyThatItLostItself: the answer to a rotation is lost,
// and there are other keys of the wallet that are stored elsewhere.
func TestLuminaRevokesOnlyAKeyThatItLostItself(t *testing.T) {
	for name, tt := range map[string]struct {
		label string        // of the other machine's key; "": it has none
		later time.Duration // when that is made
		left  int           // active keys in the end
		told  bool          // that one may have been lost
	}{
		"alone":                       {left: 1},
		"another label":               {label: "other", left: 2},
		"the same label, later":       {label: "bot", later: 10 * time.Minute, left: 2},
		"the same label at that time": {label: "bot", later: time.Second, left: 3, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.At(start))
			line := &broken{method: http.MethodPost, after: true}
			f := luminaAgainst(t, gw, setup{transport: line})
			f.imports(t, "w", devKey)
			r := f.onboard(t, "bot")
			gw.Clock.Advance(10 * time.Minute)
			line.times = 1
			if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
				t.Fatal("the answer was not lost")
			}
			gw.Clock.Advance(tt.later)
			if tt.label != "" {
				there := luminaAgainst(t, gw, setup{})
				there.imports(t, "w", devKey)
				there.onboard(t, tt.label)
			}
			gw.Clock.Advance(time.Minute)

			list := f.keyIDs(t, r.Key) // the use finds out

			if got := strings.Count(list, `"keyId"`); got != tt.left || !strings.Contains(list, r.KeyID) {
				t.Errorf("got %s, want %d keys, the stored one among them", list, tt.left)
			}
			s, err := f.Lifecycle.Standings(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range s {
				if one.Key == r.Key && (one.Now != credstore.StateActive || strings.Contains(one.Reason, "lost on its way") != tt.told) {
					t.Errorf("it stands %+v", one)
				}
			}
			if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
				t.Errorf("got %+v unfinished (%v)", open, err)
			}
		})
	}
}

// TestLuminaFindsPlaceWhereAKeyWasLost: two lost keys and the stored one fill the
// wallet.
func TestLuminaFindsPlaceWhereAKeyWasLost(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(start))
	line := &broken{method: http.MethodPost, after: true}
	f := luminaAgainst(t, gw, setup{transport: line})
	r := f.onboard(t, "bot")
	for range 2 {
		gw.Clock.Advance(time.Minute)
		line.times = 1
		// With a lost line nothing can be looked for before: the list is not asked.
		if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
			t.Fatal("the answer was not lost")
		}
	}
	gw.Clock.Advance(time.Minute)
	info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil || info.KeyID == r.KeyID {
		t.Fatalf("got %+v, %v", info, err)
	}
	if list := f.keyIDs(t, r.Key); strings.Count(list, `"keyId"`) != 1 || !strings.Contains(list, info.KeyID) {
		t.Errorf("got %s, want the new key alone", list)
	}
}

// TestARevocationThatCouldNotBeMarked is brought to an end by the next use.
func TestARevocationThatCouldNotBeMarked(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(start))
	store := &noRoom{Store: credstore.NewMemory(gw.Clock.Now)}
	f := luminaAgainst(t, gw, setup{store: store})
	r := f.onboard(t, "bot")
	store.closed = true
	if err := f.Lifecycle.Revoke(t.Context(), r.Key); !errors.Is(err, credstore.ErrUnavailable) {
		t.Fatalf("got %v, want the store's error", err)
	}
	store.closed = false
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 1 || open[0].Action != gateway.ActRevoke {
		t.Fatalf("got %+v unfinished (%v), want the revocation", open, err)
	}
	if _, err := f.Lifecycle.Do(t.Context(), r.Key, get(keysPath)); err != nil {
		t.Error(err)
	}
	if c, err := f.store.Get(t.Context(), r.Key); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %+v, %v, want it revoked", c.Info, err)
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v unfinished (%v)", open, err)
	}
}
