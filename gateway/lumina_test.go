package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/eip191"
)

const (
	onboardPath = "/api/v1/agent/onboard"
	keysPath    = "/api/v1/agent/keys"

	// The first account that development chains hand out.
	devKey     = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
	devAddress = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
)

// luminaAt returns a client whose Lumina is at a URL.
func luminaAt(t *testing.T, url string, s setup) *fixture {
	t.Helper()
	s.env = map[string]string{"LUMINA_API_URL": url}
	return newFixture(t, s)
}

// luminaAgainst returns a client of a real gateway that goes by its clock.
func luminaAgainst(t *testing.T, gw *gatewaytest.Gateway, s setup) *fixture {
	t.Helper()
	s.now = gw.Clock.Now
	f := luminaAt(t, gw.URL, s)
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), gw.Secrets()...) })
	return f
}

func (f *fixture) onboard(t *testing.T, label string) gateway.Registration {
	t.Helper()
	r, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: label})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f *fixture) imports(t *testing.T, name, key string) gateway.Wallet {
	t.Helper()
	w, err := f.Lumina.ImportWallet(t.Context(), gateway.WalletImport{Name: name, File: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// luminaWorks reports whether the service takes a stored key.
func (f *fixture) luminaWorks(t *testing.T, k credstore.Key) bool {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get(keysPath))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status == http.StatusOK
}

func (f *fixture) wallets(t *testing.T) []gateway.Wallet {
	t.Helper()
	all, err := f.Lumina.Wallets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTranscriptOfLumina(t *testing.T) {
	at := time.Date(2026, 2, 6, 12, 54, 56, 0, time.UTC)
	f := luminaAt(t, "https://api.lumina.example", setup{now: func() time.Time { return at }, transport: replay(t,
		readExchange(t, "lumina/onboard.txtar"), readExchange(t, "lumina/keys.txtar"), readExchange(t, "lumina/revoke.txtar"),
	)})
	f.imports(t, "bot", devKey)

	r := f.onboard(t, "spot-arb-1")

	if want := (credstore.Key{
		Protocol: "lumina", Origin: "https://api.lumina.example", Agent: strings.ToLower(devAddress), Kind: "token", Label: "spot-arb-1",
	}); r.Key != want || r.KeyID != "41" || r.Reused || !r.CreatedAt.Equal(at) || r.Attrs["tier"] != "free" || r.Attrs["wallet"] != "bot" {
		t.Errorf("got %+v, want the key %+v", r, want)
	}
	if got, want := f.secret(t, r.Key), "lk_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got, want := f.Lifecycle.Handle(r.Key), "lumina/spot-arb-1"; got != want {
		t.Errorf("got the handle %s, want %s", got, want)
	}
	if !f.luminaWorks(t, r.Key) {
		t.Error("the key does not work")
	}
	if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	if c, err := f.store.Get(t.Context(), r.Key); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %+v, %v, want it revoked", c.Info, err)
	}
}

func TestLuminaWithoutAnAddressSaysSo(t *testing.T) {
	f := newFixture(t, setup{})
	_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{})
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Why, "LUMINA_API_URL") {
		t.Errorf("got %v, want an error that names LUMINA_API_URL", err)
	}
	if _, err := f.Lumina.ImportWallet(t.Context(), gateway.WalletImport{Name: "w", File: []byte(devKey)}); !errors.As(err, &refused) {
		t.Errorf("import: got %v", err)
	}
	if len(f.wallets(t)) != 0 {
		t.Error("a wallet was stored for nowhere")
	}
	if _, err := tryFixture(setup{env: map[string]string{"LUMINA_API_URL": "http://api.example"}}); err == nil || !strings.Contains(err.Error(), "LUMINA_API_URL") {
		t.Errorf("plain http: got %v", err)
	}
}

func TestLuminaMakesOneWalletAnOriginAndStoresItFirst(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{transport: lostRequests{}})
	if _, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{}); err == nil {
		t.Fatal("registered over a dead line")
	}
	made := f.wallets(t)
	if len(made) != 1 || made[0].Name != "default" || made[0].Origin != gw.URL {
		t.Fatalf("got the wallets %+v, want one that was stored before it signed", made)
	}
	again := luminaAgainst(t, gw, setup{store: f.store})
	r := again.onboard(t, "")
	if r.Agent != strings.ToLower(made[0].Address) || !again.luminaWorks(t, r.Key) {
		t.Errorf("got %+v, want a key of the wallet %+v", r, made[0])
	}
	elsewhere := gatewaytest.New(t)
	there := luminaAgainst(t, elsewhere, setup{store: f.store})
	if other := there.onboard(t, ""); other.Agent == r.Agent {
		t.Error("one wallet was used at two origins")
	}
	infos, err := f.Lifecycle.Resolve(t.Context(), "lumina/default")
	if err == nil {
		t.Errorf("a wallet has a handle: %+v", infos)
	}
}

type lostRequests struct{}

func (lostRequests) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrClosedPipe }

func TestLuminaOneKeyALabel(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	one, two := f.onboard(t, "spot-arb-1"), f.onboard(t, "funding rate ☂")
	again := f.onboard(t, "spot-arb-1")
	if !again.Reused || again.KeyID != one.KeyID || two.KeyID == one.KeyID || two.Agent != one.Agent {
		t.Errorf("got %+v, then %+v, then %+v", one, two, again)
	}
	// Both were signed within one frozen second: the second was signed again.
	if len(f.slept) != 1 || f.slept[0] != time.Second {
		t.Errorf("slept %v, want a second", f.slept)
	}
	if got := len(f.wallets(t)); got != 1 {
		t.Errorf("got %d wallets, want 1", got)
	}
}

func TestLuminaManyProcessesAtOnce(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
	f := luminaAgainst(t, gw, setup{})
	f.imports(t, "bot", devKey)
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = f.Lumina.Register(context.Background(), gateway.LuminaRegistration{Label: "same"})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	list, err := f.Lifecycle.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("stored %+v, %v, want a wallet and one key", list, err)
	}
}

func TestLuminaTheCapNamesTheKeysAndRevokesNone(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	one := f.onboard(t, "one")
	gw.Clock.Advance(time.Second)
	f.onboard(t, "two")
	gw.Clock.Advance(time.Second)
	lost := f.onboard(t, "three")
	gw.Clock.Advance(time.Second)
	if _, err := f.Lifecycle.Forget(t.Context(), lost.Key); err != nil {
		t.Fatal(err)
	}

	_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "four"})

	var full *gateway.KeysFullError
	if !errors.As(err, &full) || full.Err.Code != "cap_reached" || len(full.Keys) != 3 {
		t.Fatalf("got %v, want the three keys", err)
	}
	for _, k := range full.Keys {
		if (k.Label == "three") != (k.Stored == nil) || k.CreatedAt.IsZero() || k.KeyID == "" {
			t.Errorf("got the key %+v", k)
		}
	}
	if !f.luminaWorks(t, one.Key) {
		t.Error("a key was revoked that nobody had chosen")
	}
	_, err = f.Lifecycle.Rotate(t.Context(), one.Key)
	if !errors.As(err, &full) || !f.luminaWorks(t, one.Key) {
		t.Errorf("rotating at the cap: got %v, want the keys, and the old one alive", err)
	}

	gw.Clock.Advance(time.Minute)
	r, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "four", RevokeKeyID: lost.KeyID})
	if err != nil || !f.luminaWorks(t, r.Key) {
		t.Fatalf("after the choice: got %+v, %v", r, err)
	}
	gw.Clock.Advance(time.Minute)
	r, err = f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "five", RevokeKeyID: one.KeyID})
	if err != nil || !f.luminaWorks(t, r.Key) {
		t.Fatalf("after the choice of a stored one: got %+v, %v", r, err)
	}
	if c, err := f.store.Get(t.Context(), one.Key); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %+v, %v, want it marked", c.Info, err)
	}
}

func TestLuminaRotates(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	r := f.onboard(t, "bot")
	old := f.secret(t, r.Key)

	rotated, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}

	if rotated.KeyID == r.KeyID || rotated.Key != r.Key || rotated.Attrs["replaces"] != "" || !f.luminaWorks(t, r.Key) {
		t.Errorf("got %+v, want another key that works", rotated)
	}
	if status(t, gw.URL, old) != http.StatusUnauthorized {
		t.Error("the old key still works")
	}
	for range 3 { // each frees its place again
		gw.Clock.Advance(time.Minute)
		if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
}

// status asks for the keys with a key.
func status(t *testing.T, origin, key string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, origin+keysPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-api-key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// broken is a transport that breaks off what it is told to, after the service
// has acted or before.
type broken struct {
	mu     sync.Mutex
	method string
	after  bool
	times  int
}

func (b *broken) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	hit := r.Method == b.method && b.times > 0
	if hit {
		b.times--
	}
	b.mu.Unlock()
	if hit && !b.after {
		return nil, io.ErrClosedPipe
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if hit && err == nil {
		_ = resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

// TestLuminaABrokenRotationIsFinished: by rotating again, and by using the new key.
func TestLuminaABrokenRotationIsFinished(t *testing.T) {
	for n := range 4 {
		after, use := n%2 == 1, n > 1
		t.Run(fmt.Sprintf("acted %v, used %v", after, use), func(t *testing.T) {
			gw := gatewaytest.New(t)
			line := &broken{method: http.MethodDelete, after: after, times: 3}
			f := luminaAgainst(t, gw, setup{transport: line})
			r := f.onboard(t, "bot")
			old := f.secret(t, r.Key)
			if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
				t.Fatal("the rotation did not break off")
			}
			fresh, err := f.store.Get(t.Context(), r.Key)
			if err != nil || fresh.KeyID == r.KeyID || fresh.Attrs["replaces"] != r.KeyID {
				t.Fatalf("stored %+v, %v, want the new key, and which one it replaces", fresh.Info, err)
			}
			if !use {
				_, err = f.Lifecycle.Rotate(t.Context(), r.Key)
			} else if !f.luminaWorks(t, r.Key) {
				t.Error("the new key does not work")
			}
			done, getErr := f.store.Get(t.Context(), r.Key)
			if err != nil || getErr != nil || done.KeyID != fresh.KeyID || done.Attrs["replaces"] != "" {
				t.Errorf("got %+v, %v, want the same key, and nothing left to do", done.Info, err)
			}
			if status(t, gw.URL, old) != http.StatusUnauthorized {
				t.Error("the old key still works")
			}
		})
	}
}

func TestLuminaALostAnswerIsReportedNotRepeated(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{transport: &broken{method: http.MethodPost, after: true, times: 1}})
	_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "bot"})
	var e *gateway.Error
	if !errors.As(err, &e) || !e.Sent {
		t.Fatalf("got %v, want an error that says the service may have acted", err)
	}
	r := f.onboard(t, "bot") // the same second: signed again
	if !f.luminaWorks(t, r.Key) {
		t.Error("the key does not work")
	}
}

func TestLuminaRevokes(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	r := f.onboard(t, "bot")
	key := f.secret(t, r.Key)
	for range 2 { // the second has nothing to do
		if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
			t.Fatal(err)
		}
	}
	if status(t, gw.URL, key) != http.StatusUnauthorized {
		t.Error("the key still works")
	}
	again := f.onboard(t, "bot")
	if again.Reused || !f.luminaWorks(t, again.Key) {
		t.Errorf("got %+v, want a new key", again)
	}
	// One that somebody else has revoked has ended, too.
	other := luminaAgainst(t, gw, setup{})
	other.put(t, credstore.Credential{Info: again.Info, Secret: credstore.NewSecret(f.secret(t, again.Key))})
	for _, one := range []*fixture{f, other} {
		if err := one.Lifecycle.Revoke(t.Context(), again.Key); err != nil {
			t.Error(err)
		}
	}
}

func TestLuminaAKeyThatCannotBeStoredIsRevoked(t *testing.T) {
	gw := gatewaytest.New(t)
	full := &noRoom{Store: credstore.NewMemory(gw.Clock.Now)}
	f := luminaAgainst(t, gw, setup{store: full})
	f.imports(t, "bot", devKey)
	full.mu.Lock()
	full.closed = true
	full.mu.Unlock()

	_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{})

	var lost *gateway.NotStoredError
	if !errors.As(err, &lost) || !strings.Contains(lost.Remedy, "was revoked") {
		t.Fatalf("got %v, want that it was not stored", err)
	}
	events := gw.Audit(t)
	if got := events[len(events)-1].Name; got != "key_revoked" {
		t.Errorf("the audit trail ends with %q, want key_revoked", got)
	}
}

// noRoom is a store that takes nothing that was issued once it is closed.
type noRoom struct {
	credstore.Store
	mu     sync.Mutex
	closed bool
}

func (s *noRoom) Put(ctx context.Context, c credstore.Credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && c.State != credstore.StatePending {
		return credstore.ErrUnavailable
	}
	return s.Store.Put(ctx, c)
}

const liveKey = "lk_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// What live servers do otherwise than the protocol says.
func TestLuminaSurvivesLiveServers(t *testing.T) {
	onboarded := reply(201, `{"ok":true,"apiKey":"`+liveKey+`","keyId":7,"wallet":"0x","tier":"free","label":null,"createdAt":1770382496000}`)
	t.Run("numbers for times", func(t *testing.T) {
		s := newService(t).on(onboardPath, onboarded)
		if r := luminaAt(t, s.URL, setup{}).onboard(t, "bot"); r.KeyID != "7" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("key_limit_reached, and a list with revoked keys", func(t *testing.T) {
		s := newService(t).in(onboardPath, onboarded, reply(409, `{"error":"key_limit_reached","message":"Maximum 3 keys"}`))
		s.on(keysPath, reply(200, `{"ok":true,"keys":[{"keyId":7,"label":"bot","createdAt":1770382496000,"tier":"free"},
			{"keyId":8,"label":"dead","createdAt":1770382496000,"revokedAt":1770382497000},
			{"keyId":9,"label":null,"createdAt":"2026-02-06T12:54:56Z","revokedAt":null,"lastUsedAt":"2026-02-06T12:54:57Z"}]}`))
		f := luminaAt(t, s.URL, setup{})
		f.onboard(t, "bot")
		_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "more"})
		var full *gateway.KeysFullError
		if !errors.As(err, &full) || len(full.Keys) != 2 || full.Err.Code != "key_limit_reached" {
			t.Fatalf("got %v, want two keys", err)
		}
		at := time.Date(2026, 2, 6, 12, 54, 56, 0, time.UTC)
		if a, b := full.Keys[0], full.Keys[1]; !a.CreatedAt.Equal(at) || !b.CreatedAt.Equal(at) || !a.LastUsedAt.IsZero() ||
			!b.LastUsedAt.Equal(at.Add(time.Second)) || a.Stored == nil || b.Stored != nil || b.Label != "" {
			t.Errorf("got %+v", full.Keys)
		}
	})
	for name, tt := range map[string]struct {
		answer        http.HandlerFunc
		code, message string
		status        int
	}{
		"signature_mismatch":   {reply(401, `{"error":"signature_mismatch","message":"Recovered 0x1"}`), "signature_mismatch", "Recovered 0x1", 401},
		"rate_limited":         {reply(429, `{"error":"rate_limited"}`), "rate_limited", "", 429},
		"a bare sentence":      {reply(429, `Too many requests, please try again later.`), gateway.CodeHTTPStatus, "Too many requests, please try again later.", 429},
		"a sentence in JSON":   {reply(429, `{"error":"Too many requests"}`), gateway.CodeHTTPStatus, "Too many requests", 429},
		"500 for a bad body":   {reply(500, `<html><title>Internal Server Error</title></html>`), gateway.CodeHTTPStatus, "Internal Server Error", 500},
		"a code that is new":   {reply(403, `{"error":"geo_blocked","code":"geo_blocked","message":"Not here"}`), "geo_blocked", "Not here", 403},
		"no key in the answer": {reply(201, `{"ok":true}`), gateway.CodeBadAnswer, "", 201},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t).on(onboardPath, tt.answer)
			f := luminaAt(t, s.URL, setup{})
			_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{})
			var e *gateway.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Message != tt.message || e.Status != tt.status {
				t.Errorf("got %+v, want %s %q", err, tt.code, tt.message)
			}
			if got := len(s.seen(onboardPath)); got != 1 {
				t.Errorf("asked %d times, want once", got)
			}
		})
	}
	t.Run("a replay is signed again a second later, and not for ever", func(t *testing.T) {
		s := newService(t).on(onboardPath, reply(401, `{"error":"invalid_signature","code":"invalid_signature","message":"seen"}`))
		f := luminaAt(t, s.URL, setup{})
		f.imports(t, "bot", devKey)
		_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{})
		wantError(t, err, "invalid_signature")
		seen := s.seen(onboardPath)
		if len(seen) != 3 {
			t.Fatalf("asked %d times, want 3", len(seen))
		}
		for i, r := range seen {
			at := start.Unix() + int64(i)
			in := r.fields(t)
			sig, err := eip191.ParseSignature(in["signature"].(string))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%.0f", in["timestamp"]); got != strconv.FormatInt(at, 10) {
				t.Errorf("try %d: got the time %s, want %d", i, got, at)
			}
			signer, _ := sig.Recover(fmt.Sprintf("Lumina onboarding for %s at %d", devAddress, at))
			if signer != strings.ToLower(devAddress) || in["walletAddress"] != devAddress {
				t.Errorf("try %d: signed by %s, of %v", i, signer, in)
			}
		}
	})
	t.Run("an echo of the signature is masked", func(t *testing.T) {
		s := newService(t)
		s.on(onboardPath, func(w http.ResponseWriter, r *http.Request) {
			var in map[string]any
			_ = json.NewDecoder(r.Body).Decode(&in)
			reply(400, fmt.Sprintf(`{"error":"invalid_body","message":"bad: %s"}`, in["signature"]))(w, r)
		})
		_, err := luminaAt(t, s.URL, setup{}).Lumina.Register(t.Context(), gateway.LuminaRegistration{})
		if e := wantError(t, err, "invalid_body"); e.Message != "bad: [redacted]" {
			t.Errorf("got %q", e.Message)
		}
	})
}

func TestLuminaWallets(t *testing.T) {
	gw := gatewaytest.New(t)
	f := luminaAgainst(t, gw, setup{})
	w := f.imports(t, "bot", "0x"+devKey+"\n")
	if w.Address != devAddress || w.Origin != gw.URL {
		t.Errorf("imported %+v", w)
	}
	f.imports(t, "bot", devKey) // again is no harm
	_, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Wallet: "other"})
	if e := wantError(t, err, gateway.CodeInvalidInput); !strings.Contains(e.Error(), "bot") {
		t.Errorf("got %v, want it to name the wallet that is there", e)
	}
	const second = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
	var refused *gateway.RefusedError
	if _, err := f.Lumina.ImportWallet(t.Context(), gateway.WalletImport{Name: "bot", File: []byte(second)}); !errors.As(err, &refused) {
		t.Errorf("another wallet of the name: got %v", err)
	}
	f.imports(t, "bot-2", second)
	_, err = f.Lumina.Register(t.Context(), gateway.LuminaRegistration{})
	wantError(t, err, gateway.CodeInvalidInput) // which?
	if r, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Wallet: "bot-2"}); err != nil || r.Agent == strings.ToLower(devAddress) {
		t.Errorf("got %+v, %v", r, err)
	}
	there := luminaAt(t, "https://api.lumina.example", setup{store: f.store})
	shared := gateway.WalletImport{Name: "bot", File: []byte(devKey)}
	if _, err := there.Lumina.ImportWallet(t.Context(), shared); !errors.As(err, &refused) || !strings.Contains(refused.Why, gw.URL) {
		t.Errorf("a wallet of another origin: got %v", err)
	}
	shared.Shared = true
	if _, err := there.Lumina.ImportWallet(t.Context(), shared); err != nil {
		t.Error(err)
	}
	for name, in := range map[string]gateway.WalletImport{
		"no name": {File: []byte(devKey)}, "no key": {Name: "x", File: []byte("hello")}, "no keystore": {Name: "x", File: []byte("{}")},
	} {
		_, err := f.Lumina.ImportWallet(t.Context(), in)
		if e := wantError(t, err, gateway.CodeInvalidInput); strings.Contains(e.Error(), "hello") {
			t.Errorf("%s: got %v", name, e)
		}
	}
	if i, err := f.Lifecycle.Resolve(t.Context(), "lumina/bot"); err == nil {
		t.Errorf("a wallet has a handle: %+v", i)
	}
}

func TestLuminaRefusesBeforeItAsks(t *testing.T) {
	s := newService(t)
	f := luminaAt(t, s.URL, setup{})
	for name, r := range map[string]gateway.LuminaRegistration{
		"a long label": {Label: strings.Repeat("x", 51)}, "a control character": {Label: "a\nb"},
		"a wallet's name": {Wallet: "a/b"}, "a key's number": {RevokeKeyID: "../x"}, "zero": {RevokeKeyID: "0"},
	} {
		_, err := f.Lumina.Register(t.Context(), r)
		if e := wantError(t, err, gateway.CodeInvalidInput); strings.Contains(e.Error(), "xxx") {
			t.Errorf("%s: got %v", name, e)
		}
	}
	if len(s.seen("")) != 0 || len(f.wallets(t)) != 0 {
		t.Error("something was asked or made")
	}
	var refused *gateway.RefusedError
	if _, err := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{RevokeKeyID: "7"}); !errors.As(err, &refused) {
		t.Errorf("revoking with nothing stored: got %v", err)
	}
	r := credstore.Key{Protocol: "lumina", Origin: s.URL, Agent: "0x1", Kind: "token"}
	for _, in := range []gateway.Request{{Method: "POST", Path: onboardPath}, {Method: "DELETE", Path: keysPath + "/7"}} {
		if _, err := f.Lifecycle.Do(t.Context(), r, in); !errors.As(err, &refused) || refused.Tool == "" {
			t.Errorf("%s %s: got %v, want it refused", in.Method, in.Path, err)
		}
	}
}
