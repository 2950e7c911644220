package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
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

// heldBack is a network that keeps the next onboarding to itself, as if its
// process had been killed, and delivers it later.
type heldBack struct {
	hold bool
	late *http.Request
	at   func() // called once before the next onboarding; nil: it is not
}

func (h *heldBack) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && h.hold {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		h.hold, h.late = false, r.Clone(context.Background())
		h.late.Body = io.NopCloser(bytes.NewReader(body))
		return nil, io.ErrUnexpectedEOF
	}
	if at := h.at; r.Method == http.MethodPost && at != nil {
		h.at = nil
		at()
	}
	return http.DefaultTransport.RoundTrip(r)
}

// deliver delivers it, to nobody who hears the answer.
func (h *heldBack) deliver(t *testing.T) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(h.late)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// TestLuminaARequestThatArrivesLate: the process has gone, its onboarding is on its
// way yet, and reaches the service when another process has looked for a lost key.
// It must not leave a key that nobody has.
func TestLuminaARequestThatArrivesLate(t *testing.T) {
	for name, tt := range map[string]struct {
		registering bool
		healed      time.Duration // when the next process finds it
		meanwhile   bool          // it arrives after the list and before that one onboards
		arrives     time.Duration // after that one
		rotated     bool          // the key is another one in the end
	}{
		"a rotation":                            {healed: time.Second, rotated: true},
		"a rotation, found at the last moment":  {healed: 299 * time.Second, arrives: time.Second, rotated: true},
		"a rotation that nobody takes any more": {healed: 700 * time.Second},
		"a rotation, meanwhile":                 {healed: time.Second, meanwhile: true, rotated: true},
		"a rotation, minutes later, meanwhile":  {healed: 4 * time.Minute, meanwhile: true, rotated: true},
		"a registration":                        {registering: true, healed: time.Second},
		"a registration, meanwhile":             {registering: true, healed: time.Second, meanwhile: true},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.At(start))
			line := &heldBack{}
			f := luminaAgainst(t, gw, setup{transport: line})
			f.imports(t, "w", devKey)
			var old gateway.Registration
			if !tt.registering {
				old = f.onboard(t, "bot")
				gw.Clock.Advance(10 * time.Minute)
			}
			line.hold = true
			var err error
			if tt.registering {
				_, err = f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "bot"})
			} else {
				_, err = f.Lifecycle.Rotate(t.Context(), old.Key)
			}
			if err == nil || line.late == nil {
				t.Fatalf("nothing was held back: %v", err)
			}
			gw.Clock.Advance(tt.healed)
			if tt.meanwhile {
				line.at = func() { line.deliver(t) }
			}

			if err := f.Lifecycle.Heal(t.Context()); err != nil {
				t.Fatal(err)
			}

			if !tt.meanwhile {
				gw.Clock.Advance(tt.arrives)
				line.deliver(t)
			}
			gw.Clock.Advance(time.Minute)
			stored := f.onboard(t, "bot")
			if list := f.keyIDs(t, stored.Key); !stored.Reused || strings.Count(list, `"keyId"`) != 1 || !strings.Contains(list, stored.KeyID) {
				t.Errorf("got %s, want the key that is stored, %s, and no other (reused %v)", list, stored.KeyID, stored.Reused)
			}
			if got := !tt.registering && stored.KeyID != old.KeyID; got != tt.rotated {
				t.Errorf("rotated: %v, want %v", got, tt.rotated)
			}
			if stored.Attrs["asked"] != "" || stored.Attrs["replaces"] != "" {
				t.Errorf("stored %+v, want nothing left to do", stored.Info)
			}
			if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
				t.Errorf("got %+v unfinished (%v)", open, err)
			}
		})
	}
}

// TestLuminaARequestThatMayArriveWhereThereIsNoPlace is left alone: the old key is
// as it was, nobody asks for more, and the note of it stays for the next rotation.
func TestLuminaARequestThatMayArriveWhereThereIsNoPlace(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(start))
	line := &heldBack{}
	f := luminaAgainst(t, gw, setup{transport: line})
	f.imports(t, "w", devKey)
	old := f.onboard(t, "bot")
	gw.Clock.Advance(time.Minute)
	line.hold = true
	if _, err := f.Lifecycle.Rotate(t.Context(), old.Key); err == nil {
		t.Fatal("nothing was held back")
	}
	gw.Clock.Advance(time.Second)
	other := f.onboard(t, "two")
	gw.Clock.Advance(time.Second)
	f.onboard(t, "three")

	if err := f.Lifecycle.Heal(t.Context()); err != nil {
		t.Error(err)
	}

	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v unfinished (%v)", open, err)
	}
	if list := f.keyIDs(t, old.Key); strings.Count(list, `"keyId"`) != 3 || !strings.Contains(list, old.KeyID) {
		t.Errorf("got %s, want the three keys", list)
	}
	if err := f.Lifecycle.Revoke(t.Context(), other.Key); err != nil {
		t.Fatal(err)
	}
	line.deliver(t) // into the place that is free now
	gw.Clock.Advance(time.Second)
	info, err := f.Lifecycle.Rotate(t.Context(), old.Key)
	if err != nil || info.KeyID == old.KeyID || info.Attrs["asked"] != "" {
		t.Fatalf("got %+v, %v", info, err)
	}
	if list := f.keyIDs(t, old.Key); strings.Count(list, `"keyId"`) != 2 || !strings.Contains(list, info.KeyID) {
		t.Errorf("got %s, want the new key and that of another label", list)
	}
}
