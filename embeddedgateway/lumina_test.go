package embeddedgateway_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/eip191"
)

const (
	onboardPath = "/api/v1/agent/onboard"
	keysPath    = "/api/v1/agent/keys"
)

// devWallet returns one of the accounts that development chains hand out.
func devWallet(t testing.TB, n int) eip191.Wallet {
	t.Helper()
	w, err := eip191.ParseKey([]string{
		"ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
		"59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
	}[n])
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// behind has the tests name their clients' addresses.
func behind() gatewaytest.Option {
	return gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8"))
}

// onboarding is a request to onboard, signed.
func onboarding(t testing.TB, w eip191.Wallet, address string, at int64) map[string]any {
	t.Helper()
	sig, err := w.Sign(fmt.Sprintf("Lumina onboarding for %s at %d", address, at))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"walletAddress": address, "signature": sig, "timestamp": at}
}

// onboard asks for a key, from an address of its own, at a second of its own.
func onboard(t testing.TB, gw *gatewaytest.Gateway, w eip191.Wallet, n int) answer {
	t.Helper()
	return postJSON(t, gw, onboardPath, onboarding(t, w, w.Address(), gw.Clock.Now().Unix()+int64(n)), from(n))
}

func from(n int) header { return header{"X-Forwarded-For": fmt.Sprintf("203.0.113.%d", n)} }

func wantLumina(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.at("code") != code || a.at("error") != code {
		t.Fatalf("got %d %q (%s), want %d %q", a.status, a.at("code"), a.body, status, code)
	}
}

// keyOf returns what an onboarding issued.
func keyOf(t testing.TB, a answer) (key string, id int64) {
	t.Helper()
	wantLumina(t, a, http.StatusCreated, "")
	var out struct {
		KeyID int64 `json:"keyId"`
	}
	if err := json.Unmarshal(a.body, &out); err != nil || out.KeyID < 1 || out.KeyID >= 1<<53 {
		t.Fatalf("got %s, %v: want a keyId that every client can hold", a.body, err)
	}
	if !regexp.MustCompile(`^lk_[0-9a-f]{64}$`).MatchString(a.at("apiKey")) {
		t.Fatalf("got the key %q", a.at("apiKey"))
	}
	return a.at("apiKey"), out.KeyID
}

type listed struct {
	OK     bool   `json:"ok"`
	Wallet string `json:"wallet"`
	Keys   []struct {
		KeyID      int64   `json:"keyId"`
		Label      *string `json:"label"`
		CreatedAt  string  `json:"createdAt"`
		LastUsedAt *string `json:"lastUsedAt"`
		Tier       string  `json:"tier"`
	} `json:"keys"`
}

func keysWith(t testing.TB, gw *gatewaytest.Gateway, key string) listed {
	t.Helper()
	a := send(t, gw, http.MethodGet, keysPath, "", header{"x-api-key": key})
	wantLumina(t, a, http.StatusOK, "")
	var out listed
	if err := json.Unmarshal(a.body, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func revokeKey(t testing.TB, gw *gatewaytest.Gateway, key string, id any) answer {
	t.Helper()
	return send(t, gw, http.MethodDelete, fmt.Sprint(keysPath, "/", id), "", header{"x-api-key": key})
}

func TestLuminaTakesEverySpellingThatIsRight(t *testing.T) {
	w := devWallet(t, 0)
	address := w.Address()
	for name, spelled := range map[string]string{
		"checksum": address, "lower case": strings.ToLower(address), "upper case": "0x" + strings.ToUpper(address[2:]),
	} {
		for _, v := range []byte{27, 0} {
			t.Run(fmt.Sprintf("%s, v from %d", name, v), func(t *testing.T) {
				gw := gatewaytest.New(t)
				body := onboarding(t, w, spelled, gw.Clock.Now().Unix())
				raw, _ := hex.DecodeString(body["signature"].(string)[2:])
				raw[64] = raw[64] - 27 + v
				body["signature"] = "0x" + strings.ToUpper(hex.EncodeToString(raw))
				a := postJSON(t, gw, onboardPath, body, nil)
				key, _ := keyOf(t, a)
				if got, want := a.at("wallet"), strings.ToLower(address); got != want {
					t.Errorf("got the wallet %s, want %s", got, want)
				}
				if got := keysWith(t, gw, key); got.Wallet != strings.ToLower(address) || len(got.Keys) != 1 || got.Keys[0].Label != nil {
					t.Errorf("listed %+v", got)
				}
			})
		}
	}
}

func TestLuminaRefuses(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w, other := devWallet(t, 0), devWallet(t, 1)
	now := gw.Clock.Now().Unix()
	with := func(changes map[string]any) map[string]any {
		body := onboarding(t, w, w.Address(), now)
		for name, value := range changes {
			body[name] = value
			if value == nil {
				delete(body, name)
			}
		}
		return body
	}
	signature := with(nil)["signature"].(string)
	wrongSum := strings.Replace(w.Address(), "0xf39F", "0xF39F", 1)
	for i, tt := range []struct {
		name   string
		body   map[string]any
		status int
		code   string
	}{
		{"a wrong checksum", onboarding(t, w, wrongSum, now), 400, "invalid_body"},
		{"a message with another spelling", with(map[string]any{"walletAddress": strings.ToLower(w.Address())}), 401, "invalid_signature"},
		{"another signer", func() map[string]any { b := onboarding(t, other, w.Address(), now); return b }(), 401, "invalid_signature"},
		{"another's address", with(map[string]any{"walletAddress": other.Address()}), 401, "invalid_signature"},
		{"another time", with(map[string]any{"timestamp": now + 1}), 401, "invalid_signature"},
		{"the high s", with(map[string]any{"signature": highS(signature)}), 401, "invalid_signature"},
		{"v 2", with(map[string]any{"signature": signature[:130] + "02"}), 401, "invalid_signature"},
		{"the other v", with(map[string]any{"signature": flipV(signature)}), 401, "invalid_signature"},
		{"zeros", with(map[string]any{"signature": "0x" + strings.Repeat("0", 130)}), 401, "invalid_signature"},
		{"64 bytes", with(map[string]any{"signature": signature[:130]}), 400, "invalid_body"},
		{"66 bytes", with(map[string]any{"signature": signature + "00"}), 400, "invalid_body"},
		{"no 0x", with(map[string]any{"signature": signature[2:]}), 400, "invalid_body"},
		{"no signature", with(map[string]any{"signature": nil}), 400, "invalid_body"},
		{"no timestamp", with(map[string]any{"timestamp": nil}), 400, "invalid_body"},
		{"a timestamp as text", with(map[string]any{"timestamp": fmt.Sprint(now)}), 400, "invalid_body"},
		{"a fraction", with(map[string]any{"timestamp": float64(now) + 0.5}), 400, "invalid_body"},
		{"milliseconds", with(map[string]any{"timestamp": now * 1000}), 400, "stale_timestamp"},
		{"the distant past", with(map[string]any{"timestamp": int64(-1 << 63)}), 400, "stale_timestamp"},
		{"the distant future", with(map[string]any{"timestamp": int64(1<<63 - 1)}), 400, "stale_timestamp"},
		{"stale", onboarding(t, w, w.Address(), now-301), 400, "stale_timestamp"},
		{"early", onboarding(t, w, w.Address(), now+301), 400, "stale_timestamp"},
		{"a long label", with(map[string]any{"label": strings.Repeat("x", 51)}), 400, "invalid_body"},
		{"a label that is a key", with(map[string]any{"label": "lk_" + strings.Repeat("a", 64)}), 400, "invalid_body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantLumina(t, postJSON(t, gw, onboardPath, tt.body, from(i)), tt.status, tt.code)
			if e := last(t, gw); !e.Refusal || e.Protocol != "lumina" {
				t.Errorf("the audit trail ends with %+v, want a refusal", e)
			}
		})
	}
	t.Run("nothing of them was stored, and the right one is good still", func(t *testing.T) {
		keyOf(t, postJSON(t, gw, onboardPath, with(nil), from(99)))
	})
	for _, off := range []int64{-300, 300} {
		keyOf(t, postJSON(t, gw, onboardPath, onboarding(t, w, w.Address(), now+off), from(100)))
	}
}

func highS(signature string) string {
	raw, _ := hex.DecodeString(signature[2:])
	n, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	n.Sub(n, new(big.Int).SetBytes(raw[32:64])).FillBytes(raw[32:64])
	return flipV("0x" + hex.EncodeToString(raw))
}

func flipV(signature string) string {
	raw, _ := hex.DecodeString(signature[2:])
	raw[64] = 27 + 28 - raw[64]
	return "0x" + hex.EncodeToString(raw)
}

func TestLuminaTakesASignatureOnce(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w := devWallet(t, 0)
	body := onboarding(t, w, w.Address(), gw.Clock.Now().Unix()+300)
	_, id := keyOf(t, postJSON(t, gw, onboardPath, body, from(1)))
	if e := last(t, gw); e.Name != "key_issued" || e.Agent != strings.ToLower(w.Address()) || e.KeyID != fmt.Sprint(id) || e.IP != "203.0.113.1" || e.Refusal {
		t.Errorf("the audit trail ends with %+v, want the key", e)
	}
	respelled := map[string]any{}
	for name, value := range body {
		respelled[name] = value
	}
	raw, _ := hex.DecodeString(body["signature"].(string)[2:])
	raw[64] -= 27
	respelled["signature"] = "0x" + strings.ToUpper(hex.EncodeToString(raw))
	for _, b := range []map[string]any{body, respelled} {
		wantLumina(t, postJSON(t, gw, onboardPath, b, from(2)), 401, "invalid_signature")
	}
	gw.Restart(t)
	gw.Clock.Advance(600 * time.Second) // its last moment
	wantLumina(t, postJSON(t, gw, onboardPath, body, from(3)), 401, "invalid_signature")
	gw.Clock.Advance(time.Second)
	wantLumina(t, postJSON(t, gw, onboardPath, body, from(3)), 400, "stale_timestamp")
}

func TestLuminaASignatureOutlivesItsWallet(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w := devWallet(t, 0)
	body := onboarding(t, w, w.Address(), gw.Clock.Now().Unix())
	keyOf(t, postJSON(t, gw, onboardPath, body, from(1)))
	if err := gw.Embedded().Delete(t.Context(), "lumina", strings.ToLower(w.Address())); err != nil {
		t.Fatal(err)
	}
	wantLumina(t, postJSON(t, gw, onboardPath, body, from(2)), 401, "invalid_signature")
	keyOf(t, postJSON(t, gw, onboardPath, onboarding(t, w, w.Address(), gw.Clock.Now().Unix()+1), from(3)))
}

func TestLuminaASignatureAtOnceHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w := devWallet(t, 0)
	body := onboarding(t, w, w.Address(), gw.Clock.Now().Unix())
	won := 0
	for _, a := range race(64, func(i int) answer { return postJSON(t, gw, onboardPath, body, from(i)) }) {
		if a.status == http.StatusCreated {
			won++
		} else {
			wantLumina(t, a, 401, "invalid_signature")
		}
	}
	if won != 1 {
		t.Errorf("got %d winners, want 1", won)
	}
}

func TestLuminaCapIsThreeAtOnce(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w := devWallet(t, 0)
	var key string
	won := 0
	for _, a := range race(64, func(i int) answer { return onboard(t, gw, w, i) }) {
		if a.status == http.StatusCreated {
			key, _ = keyOf(t, a)
			won++
		} else {
			wantLumina(t, a, 409, "cap_reached")
		}
	}
	if won != 3 {
		t.Errorf("got %d keys, want 3", won)
	}
	if got := keysWith(t, gw, key); len(got.Keys) != 3 {
		t.Errorf("listed %+v, want three", got)
	}
	keyOf(t, onboard(t, gw, devWallet(t, 1), 65)) // another wallet's keys are its own
}

func TestLuminaASignatureThatMetTheCapIsGoodWhenThereIsRoom(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	w := devWallet(t, 0)
	var key string
	var id int64
	for i := range 3 {
		key, id = keyOf(t, onboard(t, gw, w, i))
	}
	wantLumina(t, onboard(t, gw, w, 4), 409, "cap_reached")
	wantStatus(t, revokeKey(t, gw, key, id), http.StatusNoContent, "")
	keyOf(t, onboard(t, gw, w, 4))
	wantLumina(t, onboard(t, gw, w, 5), 409, "cap_reached")
}

func TestLuminaOnboardsAreTenAnHourRefusedOnesToo(t *testing.T) {
	gw := gatewaytest.New(t)
	w := devWallet(t, 0)
	at := func(n int64) map[string]any { return onboarding(t, w, w.Address(), gw.Clock.Now().Unix()+n) }
	postJSON(t, gw, onboardPath, map[string]any{"walletAddress": "0x1"}, nil) // its form is wrong: it costs nothing
	for i := range int64(3) {
		keyOf(t, postJSON(t, gw, onboardPath, at(i), nil))
	}
	wantLumina(t, postJSON(t, gw, onboardPath, at(4), nil), 409, "cap_reached")
	wantLumina(t, postJSON(t, gw, onboardPath, at(-1000), nil), 400, "stale_timestamp")
	for range 5 {
		wantLumina(t, postJSON(t, gw, onboardPath, at(0), nil), 401, "invalid_signature")
	}
	a := postJSON(t, gw, onboardPath, at(5), nil)
	wantLumina(t, a, 429, "rate_limit")
	if got, want := a.header.Get("Retry-After"), "3600"; got != want {
		t.Errorf("got Retry-After %s, want %s", got, want)
	}
	gw.Restart(t)
	wantLumina(t, postJSON(t, gw, onboardPath, at(5), nil), 429, "rate_limit")
	wantLumina(t, postJSON(t, gw, onboardPath, at(5), nil), 429, "rate_limit")
	gw.Clock.Advance(time.Hour)
	wantLumina(t, postJSON(t, gw, onboardPath, at(-1000), nil), 400, "stale_timestamp")
	for range 9 {
		wantLumina(t, postJSON(t, gw, onboardPath, at(5), nil), 409, "cap_reached")
	}
	wantLumina(t, postJSON(t, gw, onboardPath, at(5), nil), 429, "rate_limit")
}

func TestLuminaListsAndRevokes(t *testing.T) {
	gw := gatewaytest.New(t, behind(), gatewaytest.At(docTime))
	w := devWallet(t, 0)
	body := onboarding(t, w, w.Address(), gw.Clock.Now().Unix())
	body["label"] = "spot-arb-1"
	one, oneID := keyOf(t, postJSON(t, gw, onboardPath, body, from(1)))
	two, twoID := keyOf(t, onboard(t, gw, w, 2))
	foreign, foreignID := keyOf(t, onboard(t, gw, devWallet(t, 1), 3))
	gw.Clock.Advance(time.Minute)

	got := keysWith(t, gw, one)
	if len(got.Keys) != 2 || !got.OK {
		t.Fatalf("listed %+v, want two keys", got)
	}
	first, second := got.Keys[0], got.Keys[1]
	if first.KeyID != oneID || *first.Label != "spot-arb-1" || first.CreatedAt != "2026-02-06T12:34:56.789Z" || first.Tier != "free" ||
		first.LastUsedAt == nil || *first.LastUsedAt != "2026-02-06T12:35:56.789Z" {
		t.Errorf("listed %+v", first)
	}
	if second.KeyID != twoID || second.Label != nil || second.LastUsedAt != nil {
		t.Errorf("listed %+v, want one that was never used", second)
	}
	for _, id := range []any{foreignID, oneID + 1_000_003, 1, "9999999999999999"} {
		wantLumina(t, revokeKey(t, gw, one, id), 404, "key_not_found")
	}
	for _, id := range []any{"x", "-1", "0", "01", "1.0", "1e3", "99999999999999999999", "%20"} {
		gw.Clock.Advance(time.Minute)
		wantLumina(t, revokeKey(t, gw, one, id), 400, "invalid_id")
	}
	a := revokeKey(t, gw, one, twoID)
	if a.status != http.StatusNoContent || len(a.body) != 0 || a.header.Get("Content-Type") != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %q, want 204 and no body", a.status, a.header, a.body)
	}
	if e := last(t, gw); e.Name != "key_revoked" || e.KeyID != fmt.Sprint(twoID) || e.Agent != strings.ToLower(w.Address()) {
		t.Errorf("the audit trail ends with %+v", e)
	}
	wantLumina(t, send(t, gw, http.MethodGet, keysPath, "", header{"x-api-key": two}), 401, "invalid_api_key")
	a = revokeKey(t, gw, one, twoID)
	if a.status != http.StatusOK || string(a.body) != `{"ok":true,"alreadyRevoked":true}` {
		t.Errorf("revoked again: got %d %s", a.status, a.body)
	}
	wantStatus(t, revokeKey(t, gw, one, oneID), http.StatusNoContent, "") // itself
	wantLumina(t, revokeKey(t, gw, one, oneID), 401, "invalid_api_key")
	if got := keysWith(t, gw, foreign); len(got.Keys) != 1 {
		t.Errorf("listed %+v, want the other wallet's one", got)
	}
}

func TestLuminaRevokesOnceAtOnce(t *testing.T) {
	gw := gatewaytest.New(t, behind(), gatewaytest.Env(map[string]string{"LUMINA_PAID_WALLETS": devWallet(t, 0).Address()}))
	key, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 1))
	_, id := keyOf(t, onboard(t, gw, devWallet(t, 0), 2))
	first := 0
	for _, a := range race(64, func(int) answer { return revokeKey(t, gw, key, id) }) {
		if a.status == http.StatusNoContent {
			first++
		} else if a.status != http.StatusOK {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	if first != 1 {
		t.Errorf("got 204 %d times, want once", first)
	}
}

func TestLuminaTakesKeysFromTheHeaderOnly(t *testing.T) {
	gw := gatewaytest.New(t)
	key, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 0))
	for name, tt := range map[string]struct {
		path string
		h    header
		code string
	}{
		"none":         {keysPath, nil, "missing_api_key"},
		"in the URL":   {keysPath + "?x-api-key=" + key + "&apiKey=" + key, nil, "missing_api_key"},
		"as a bearer":  {keysPath, header{"Authorization": "Bearer " + key}, "missing_api_key"},
		"unknown":      {keysPath, header{"x-api-key": "lk_" + strings.Repeat("0", 64)}, "invalid_api_key"},
		"upper case":   {keysPath, header{"x-api-key": strings.ToUpper(key)}, "invalid_api_key"},
		"Lona's shape": {keysPath, header{"x-api-key": "lona_partner_a1_abc123xyz456_SecretKeyHere"}, "invalid_api_key"},
	} {
		t.Run(name, func(t *testing.T) {
			wantLumina(t, send(t, gw, http.MethodGet, tt.path, "", tt.h), 401, tt.code)
		})
	}
}

func TestLuminaKeysHaveTheirOwnMinute(t *testing.T) {
	paid := devWallet(t, 1)
	gw := gatewaytest.New(t, behind(), gatewaytest.Env(map[string]string{"LUMINA_PAID_WALLETS": strings.ToLower(paid.Address())}))
	one, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 1))
	two, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 2))
	a := onboard(t, gw, paid, 3)
	fast, _ := keyOf(t, a)
	if a.at("tier") != "paid" {
		t.Errorf("got the tier %q, want paid", a.at("tier"))
	}
	for key, limit := range map[string]int{one: 10, two: 10, fast: 100} {
		good := 0
		for _, a := range race(limit+20, func(int) answer { return send(t, gw, http.MethodGet, keysPath, "", header{"x-api-key": key}) }) {
			if a.status == http.StatusOK {
				good++
				continue
			}
			wantLumina(t, a, 429, "rate_limit")
			if got := a.header.Get("Retry-After"); got != "60" {
				t.Errorf("got Retry-After %s, want 60", got)
			}
		}
		if good != limit {
			t.Errorf("got %d answers, want %d", good, limit)
		}
	}
	gw.Clock.Advance(time.Minute)
	keysWith(t, gw, one)
}

func TestLuminaLastUseSurvivesARestart(t *testing.T) {
	gw := gatewaytest.New(t, behind(), gatewaytest.At(docTime))
	one, oneID := keyOf(t, onboard(t, gw, devWallet(t, 0), 1))
	two, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 2))
	keysWith(t, gw, one)
	gw.Restart(t)
	gw.Clock.Advance(time.Hour)
	for _, k := range keysWith(t, gw, two).Keys {
		if k.KeyID == oneID && (k.LastUsedAt == nil || *k.LastUsedAt != "2026-02-06T12:34:56.789Z") {
			t.Errorf("listed %+v, want its use before the restart", k)
		}
	}
}

func TestLuminaSettingsThatAreWrong(t *testing.T) {
	_, err := embeddedgateway.New(t.Context(), embeddedgateway.Config{
		Database: "sqlite:" + t.TempDir() + "/gateway.db", Now: time.Now,
		Env: func(name string) string { return map[string]string{"LUMINA_PAID_WALLETS": "0x12"}[name] },
	})
	if err == nil || !strings.Contains(err.Error(), "LUMINA_PAID_WALLETS") {
		t.Errorf("got %v, want an error that names the variable", err)
	}
}

// The transcripts have one wallet's life at one moment.
func TestLuminaAnswersAsItsDocumentationShows(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(time.Date(2026, 2, 6, 12, 54, 56, 0, time.UTC)))
	made := replayLumina(t, gw, "onboard", "", 0)
	key, id := keyOf(t, made)
	replayLumina(t, gw, "keys", key, id)
	replayLumina(t, gw, "revoke", key, id)
	other, _ := keyOf(t, onboard(t, gw, devWallet(t, 0), 1))
	replayLumina(t, gw, "revoke-again", other, id)
}

// replayLumina sends the request of a transcript with a key and a keyId in the
// place of its own, and checks that the answer is the transcript's but for those.
func replayLumina(t *testing.T, gw *gatewaytest.Gateway, name, key string, id int64) answer {
	t.Helper()
	archive, err := txtar.ParseFile("../gateway/wire/testdata/lumina/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(archive.Files[0].Data), "\n\n")
	lines := strings.Split(head, "\n")
	h := header{}
	for _, line := range lines[2:] {
		field, value, _ := strings.Cut(line, ": ")
		if field == "X-Api-Key" {
			value = key
		}
		h[field] = value
	}
	first := strings.Fields(lines[0])
	got := send(t, gw, first[0], strings.Replace(first[1], "/41", fmt.Sprint("/", id), 1), body, h)
	want := readAnswer(t, strings.NewReader(string(archive.Files[1].Data)))
	if got.status != want.status || got.header.Get("Content-Type") != want.header.Get("Content-Type") {
		t.Fatalf("got %d %q (%s), want %d %q", got.status, got.header.Get("Content-Type"), got.body, want.status, want.header.Get("Content-Type"))
	}
	if want.status == http.StatusNoContent {
		return got
	}
	text := regexp.MustCompile(`"keyId": ?\d+`).ReplaceAllString(string(got.body), `"keyId": 41`)
	text = regexp.MustCompile(`lk_[0-9a-f]{64}`).ReplaceAllString(text, "lk_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")
	var g, w any
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(want.body, &w); err != nil {
		t.Fatal(err)
	}
	alike(t, "body", g, w)
	return got
}
