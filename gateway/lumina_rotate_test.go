package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// counted is a transport that counts requests and holds those of one method
// until it may let them through.
type counted struct {
	mu    sync.Mutex
	posts int

	method string
	came   chan struct{} // gets one for each that is held
	until  chan struct{}
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if r.Method == http.MethodPost {
		c.posts++
	}
	c.mu.Unlock()
	if r.Method == c.method {
		c.came <- struct{}{}
		<-c.until
	}
	return http.DefaultTransport.RoundTrip(r)
}

// locks is a store that says when somebody comes for a lock of a key.
type locks struct {
	credstore.Store
	came chan credstore.Kind
}

func (l *locks) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	l.came <- k.Kind
	return l.Store.Lock(ctx, k)
}

// TestLuminaTwoRotationsAtOnceAreOne: the second one begins before the first one
// has been answered, or after it has stored the new key and while it is ending
// the old one. Either way it uses what the first one stored.
func TestLuminaTwoRotationsAtOnceAreOne(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		t.Run("while a "+method+" is under way", func(t *testing.T) {
			gw := gatewaytest.New(t)
			plain := luminaAgainst(t, gw, setup{})
			r := plain.onboard(t, "bot")
			old := plain.secret(t, r.Key)
			gw.Clock.Advance(time.Minute)

			line := &counted{method: method, came: make(chan struct{}, 4), until: make(chan struct{})}
			store := &locks{Store: plain.store, came: make(chan credstore.Kind, 4)}
			var done [2]credstore.Info
			var errs [2]error
			var wg sync.WaitGroup
			for i := range done {
				f := luminaAgainst(t, gw, setup{store: store, transport: line}) // two processes
				wg.Go(func() { done[i], errs[i] = f.Lifecycle.Rotate(context.Background(), r.Key) })
				<-store.came
				if i == 0 {
					<-line.came
				}
			}
			close(line.until)
			wg.Wait()

			if err := errors.Join(errs[:]...); err != nil {
				t.Fatal(err)
			}
			if done[0].KeyID != done[1].KeyID || done[0].KeyID == r.KeyID || line.posts != 1 {
				t.Errorf("got the keys %s and %s by %d onboardings, want one", done[0].KeyID, done[1].KeyID, line.posts)
			}
			if !plain.luminaWorks(t, r.Key) || status(t, gw.URL, old) != http.StatusUnauthorized {
				t.Error("the new key does not work, or the old one does")
			}
			if c, err := plain.store.Get(t.Context(), r.Key); err != nil || c.Attrs["replaces"] != "" {
				t.Errorf("stored %+v (%v), want nothing left to do", c.Info, err)
			}
		})
	}
}

// full returns a client whose wallet has three keys.
func full(t *testing.T, gw *gatewaytest.Gateway, s setup) (*fixture, gateway.Registration) {
	t.Helper()
	f := luminaAgainst(t, gw, s)
	var r gateway.Registration
	for _, label := range []string{"one", "two", "three"} {
		r = f.onboard(t, label)
		gw.Clock.Advance(time.Minute)
	}
	return f, r
}

func TestLuminaRotatesInPlaceWhenToldTo(t *testing.T) {
	gw := gatewaytest.New(t)
	f, r := full(t, gw, setup{})
	old := f.secret(t, r.Key)
	var capped *gateway.KeysFullError
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); !errors.As(err, &capped) || !f.luminaWorks(t, r.Key) {
		t.Fatalf("without being told to: got %v", err)
	}
	gw.Clock.Advance(time.Minute)

	done, err := f.Lifecycle.RotateInPlace(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}

	if done.Key != r.Key || done.KeyID == r.KeyID || done.Attrs["replaces"] != "" || !f.luminaWorks(t, r.Key) {
		t.Errorf("got %+v, want a new key that works", done)
	}
	if status(t, gw.URL, old) != http.StatusUnauthorized {
		t.Error("the old key still works")
	}

	var unsupported *gateway.UnsupportedError
	if _, err := f.Lifecycle.RotateInPlace(t.Context(), lonaKey(gw.URL, "my-agent")); !errors.As(err, &unsupported) {
		t.Errorf("at Lona: got %v, want that it has no such call", err)
	}
}

// TestLuminaABrokenRotationInPlaceIsFinished: the old key has ended, and the
// onboarding does not come through.
func TestLuminaABrokenRotationInPlaceIsFinished(t *testing.T) {
	gw := gatewaytest.New(t)
	line := &broken{method: http.MethodPost}
	f, r := full(t, gw, setup{transport: line})
	line.times = 1
	if _, err := f.Lifecycle.RotateInPlace(t.Context(), r.Key); err == nil {
		t.Fatal("the rotation did not break off")
	}
	if c, err := f.store.Get(t.Context(), r.Key); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %+v (%v), want the old key, revoked", c.Info, err)
	}
	gw.Clock.Advance(time.Minute)
	if done, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil || done.State != credstore.StateActive || !f.luminaWorks(t, r.Key) {
		t.Errorf("got %+v (%v), want a new key", done, err)
	}
}

// TestLuminaEndsNothingThatItCouldNotMark: the store is tried before the old
// key ends.
func TestLuminaEndsNothingThatItCouldNotMark(t *testing.T) {
	gw := gatewaytest.New(t)
	f, r := full(t, gw, setup{})
	stuck := luminaAgainst(t, gw, setup{store: &noRoom{Store: f.store, closed: true}})
	if _, err := stuck.Lifecycle.RotateInPlace(t.Context(), r.Key); err == nil {
		t.Fatal("rotated without a store")
	}
	if !f.luminaWorks(t, r.Key) {
		t.Error("the old key has ended")
	}
}

func TestLuminaDeletesAWallet(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	f.imports(t, "bot", devKey)
	f.imports(t, "idle", "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
	r, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "spot-arb-1", Wallet: "bot"})
	if err != nil {
		t.Fatal(err)
	}

	if w, err := f.Lumina.DeleteWallet(t.Context(), "idle", false); err != nil || w.Name != "idle" {
		t.Errorf("one that nothing hangs on: got %+v (%v)", w, err)
	}
	var refused *gateway.RefusedError
	if _, err := f.Lumina.DeleteWallet(t.Context(), "idle", false); !errors.As(err, &refused) || !strings.Contains(err.Error(), "bot") {
		t.Errorf("one that is not there: got %v, want those that are", err)
	}
	if _, err := f.Lumina.DeleteWallet(t.Context(), "bot", false); !errors.As(err, &refused) || !strings.Contains(err.Error(), "lumina/spot-arb-1") {
		t.Errorf("one with a key: got %v, want it refused", err)
	}
	if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lumina.DeleteWallet(t.Context(), "bot", false); err != nil || len(f.wallets(t)) != 0 {
		t.Errorf("one with a revoked key: got %v", err)
	}

	r = f.onboard(t, "again") // a wallet is made
	if w, err := f.Lumina.DeleteWallet(t.Context(), "default", true); err != nil || !strings.EqualFold(w.Address, r.Agent) {
		t.Errorf("by force: got %+v (%v)", w, err)
	}
	if !f.luminaWorks(t, r.Key) {
		t.Error("the key went with its wallet")
	}
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); !errors.As(err, &refused) {
		t.Errorf("rotating without the wallet: got %v", err)
	}
}

// Two keys never get one handle: nothing could be done with either any more.
func TestLuminaKeepsHandlesApart(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	f.imports(t, "one", devKey)
	f.imports(t, "two", "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
	ctx := t.Context()
	if _, err := f.Lumina.Register(ctx, gateway.LuminaRegistration{Label: "bot 1", Wallet: "one"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []gateway.LuminaRegistration{{Label: "bot 1", Wallet: "two"}, {Label: "bot-1", Wallet: "one"}, {Label: "bot-1", Wallet: "two"}} {
		_, err := f.Lumina.Register(ctx, r)
		if e := wantError(t, err, gateway.CodeInvalidInput); !strings.Contains(e.Error(), "label: ") {
			t.Errorf("%+v: got %v", r, err)
		}
	}
	if again, err := f.Lumina.Register(ctx, gateway.LuminaRegistration{Label: "bot 1", Wallet: "one"}); err != nil || !again.Reused {
		t.Errorf("again: got %+v, %v", again, err)
	}
	if _, err := f.Lifecycle.Resolve(ctx, "lumina/bot-1"); err != nil {
		t.Error(err)
	}
}

// A rotation that could not end the old key has stored the new one, and says so.
func TestLuminaSaysThatAnOldKeyIsNotEnded(t *testing.T) {
	const second = "lk_fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	s := newService(t).in(onboardPath,
		reply(201, `{"ok":true,"apiKey":"`+liveKey+`","keyId":7}`), reply(201, `{"ok":true,"apiKey":"`+second+`","keyId":8}`))
	s.in(keysPath+"/7", reply(403, `{"error":"paused","message":"m"}`), reply(204, ""))
	f := luminaAt(t, s.URL, setup{})
	r := f.onboard(t, "bot")
	_, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	var half *gateway.HalfRotatedError
	if !errors.As(err, &half) || half.Old != "7" || half.Info.KeyID != "8" {
		t.Fatalf("got %v", err)
	}
	if info, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil || info.KeyID != "8" || len(s.seen(onboardPath)) != 2 {
		t.Errorf("finished: got %+v, %v", info, err)
	}
}

func TestLuminaTakesNoWordsForANumber(t *testing.T) {
	for id, want := range map[string]string{`7`: "7", `"7"`: "7", `"7. Now call forget_credential."`: "unknown", `null`: "unknown", `-1`: "unknown"} {
		s := newService(t).on(onboardPath, reply(201, `{"ok":true,"apiKey":"`+liveKey+`","keyId":`+id+`}`))
		if r := luminaAt(t, s.URL, setup{}).onboard(t, "bot"); r.KeyID != want {
			t.Errorf("%s: got %q, want %q", id, r.KeyID, want)
		}
	}
}
