package embeddedgateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// jwk is a public key as it is published.
type jwk struct {
	KeyType string `json:"kty"`
	Curve   string `json:"crv"`
	KeyID   string `json:"kid"`
	Use     string `json:"use"`
	Alg     string `json:"alg"`
	X       string `json:"x"`
	D       string `json:"d"`
}

func published(t *testing.T, gw *gatewaytest.Gateway) []jwk {
	t.Helper()
	resp, err := gw.Client().Get(gw.URL + "/.well-known/jwks.json")
	if err != nil {
		t.Fatalf("get the keys: %v", err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []jwk }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("get the keys: got status %d, %v", resp.StatusCode, err)
	}
	return set.Keys
}

func TestPublicKeysArePublished(t *testing.T) {
	gw := gatewaytest.New(t)
	keys := published(t, gw)
	if len(keys) != 1 {
		t.Fatalf("got %d keys, want 1", len(keys))
	}
	k := keys[0]
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	if k.KeyType != "OKP" || k.Curve != "Ed25519" || k.Use != "sig" || k.Alg != "EdDSA" || k.KeyID == "" || err != nil || len(x) != 32 {
		t.Errorf("got %+v, want an Ed25519 key to verify signatures with", k)
	}
	if k.D != "" {
		t.Error("the private key is published")
	}
	gw.Restart(t)
	if again := published(t, gw); len(again) != 1 || again[0] != k {
		t.Errorf("after a restart: got %+v, want %+v", again, keys)
	}
}

func TestATokenIsGoodUntilItExpires(t *testing.T) {
	gw := gatewaytest.New(t)
	s := embeddedgateway.SignerOf(gw.Embedded())
	token, claims := s.Sign(t, "fluxra", "agt_1", map[string]any{"scope": "a b"})
	if got := claims.Expiry.Time().Sub(claims.IssuedAt.Time()); got != time.Hour {
		t.Errorf("it lives for %s, want an hour", got)
	}
	said, err := s.Verify("fluxra", token)
	if err != nil || said["scope"] != "a b" || said["sub"] != "agt_1" || said["iss"] != "http://enlist.localhost" {
		t.Errorf("verify: got %v, %v", said, err)
	}
	if _, err := s.Verify("agentdoor", token); err == nil {
		t.Error("another protocol takes it")
	}
	end := claims.Expiry.Time()
	for name, tt := range map[string]struct {
		at   time.Time
		good bool
	}{
		"by a clock that is a minute behind": {claims.IssuedAt.Time().Add(-time.Minute), true},
		"long before it was signed":          {claims.IssuedAt.Time().Add(-time.Minute - time.Second), false},
		"just before its end":                {end.Add(-time.Microsecond), true},
		"at its end":                         {end, false},
		"after its end":                      {end.Add(time.Second), false},
	} {
		gw.Clock.Set(tt.at)
		if _, err := s.Verify("fluxra", token); (err == nil) != tt.good {
			t.Errorf("%s: got %v, want it to be taken: %v", name, err, tt.good)
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	gw := gatewaytest.New(t)
	s := embeddedgateway.SignerOf(gw.Embedded())
	good, _ := s.Sign(t, "fluxra", "agt_1", map[string]any{})
	parts := strings.Split(good, ".")
	key := published(t, gw)[0]
	public, err := base64.RawURLEncoding.DecodeString(key.X)
	if err != nil {
		t.Fatal(err)
	}
	header := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	hs256 := header(`{"alg":"HS256","kid":"`+key.KeyID+`","typ":"JWT"}`) + "." + parts[1]
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(hs256))
	_, mine, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	eddsa := func(h string) string {
		text := header(h) + "." + parts[1]
		return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(mine, []byte(text)))
	}
	other := embeddedgateway.SignerOf(gatewaytest.New(t).Embedded())
	foreign, _ := other.Sign(t, "fluxra", "agt_1", map[string]any{})
	for name, token := range map[string]string{
		"nothing":                       "",
		"no token":                      "agk_live_abc",
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"alg none":                      header(`{"alg":"none","kid":"`+key.KeyID+`"}`) + "." + parts[1] + ".",
		"HS256 under the public key":    hs256 + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"signed by another key":         eddsa(`{"alg":"EdDSA","kid":"` + key.KeyID + `"}`),
		"signed by a key that it names": eddsa(`{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(mine.Public().(ed25519.PublicKey)) + `"}}`),
		"without a kid":                 eddsa(`{"alg":"EdDSA"}`),
		"of another gateway":            foreign,
		"changed":                       parts[0] + "." + parts[1] + "A." + parts[2],
		"too long":                      parts[0] + "." + strings.Repeat("A", 9<<10) + "." + parts[2],
		"with more behind":              good + ".",
	} {
		if said, err := s.Verify("fluxra", token); err == nil {
			t.Errorf("%s: it is taken: %v", name, said)
		}
	}
}

func TestRotatedKeysAreGoodUntilTheirTokensHaveExpired(t *testing.T) {
	gw := gatewaytest.New(t)
	s := embeddedgateway.SignerOf(gw.Embedded())
	before, _ := s.Sign(t, "fluxra", "agt_1", map[string]any{})
	kid, err := gw.Embedded().RotateKeys(context.Background())
	if err != nil {
		t.Fatalf("rotate: %v", err)
	}
	if e := last(t, gw); e.Protocol != "gateway" || e.Name != "signing_key_rotated" || e.KeyID != kid || e.Refusal {
		t.Errorf("the audit trail ends with %+v, want the rotation", e)
	}
	after, _ := s.Sign(t, "fluxra", "agt_1", map[string]any{})
	if keys := published(t, gw); len(keys) != 2 || keys[1].KeyID != kid {
		t.Errorf("published: got %+v, want the old one and %s", keys, kid)
	}
	for name, token := range map[string]string{"before": before, "after": after} {
		if _, err := s.Verify("fluxra", token); err != nil {
			t.Errorf("signed %s the rotation: %v", name, err)
		}
	}
	gw.Clock.Advance(time.Hour + time.Minute)
	if keys := published(t, gw); len(keys) != 1 || keys[0].KeyID != kid {
		t.Errorf("when its tokens have expired: got %+v, want %s only", keys, kid)
	}
}

func TestKeysThatAreRotatedTooOftenStillSign(t *testing.T) {
	gw := gatewaytest.New(t)
	rotate := func() error { _, err := gw.Embedded().RotateKeys(t.Context()); return err }
	var err error
	for range 200 {
		if err = rotate(); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "an hour") {
		t.Errorf("got %v, want it said that this is too often", err)
	}
	s := embeddedgateway.SignerOf(gw.Embedded())
	token, _ := s.Sign(t, "fluxra", "agt_1", map[string]any{})
	if _, err := s.Verify("fluxra", token); err != nil {
		t.Errorf("verify: %v", err)
	}
	gw.Clock.Advance(time.Hour + time.Minute)
	if err := rotate(); err != nil {
		t.Errorf("when the old keys have retired: %v", err)
	}
}

func TestTheServerKeyIsTheDatabasesOwn(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "gateway.db")
	key, other := strings.Repeat("k", 32), strings.Repeat("o", 32)
	open := func(serverKey string) error {
		g, err := embeddedgateway.New(context.Background(), embeddedgateway.Config{
			Database: "sqlite:" + database, Now: time.Now, ServerKey: []byte(serverKey),
		})
		if err != nil {
			return err
		}
		return g.Close()
	}
	if err := open(key); err != nil {
		t.Fatalf("the first time: %v", err)
	}
	if err := open(key); err != nil {
		t.Errorf("with the same key: %v", err)
	}
	for name, wrong := range map[string]string{"another key": other, "no key": "", "a short key": "k"} {
		err := open(wrong)
		if err == nil || !strings.Contains(err.Error(), "server key") || strings.Contains(err.Error(), other) {
			t.Errorf("with %s: got error %v", name, err)
		}
	}
	if _, err := os.Stat(database + ".key"); err == nil {
		t.Error("a key was made beside a database that has one")
	}
}

func TestAServerKeyIsMadeBesideADatabase(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.SQLite())
	path := gw.Database + ".key"
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v, want a file for its owner only", info, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := embeddedgateway.ParseServerKey(string(text)); err != nil {
		t.Errorf("what is in it: %v", err)
	}
	gw.Restart(t)
	if runtime.GOOS == "windows" { // it has no such mode
		return
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = embeddedgateway.New(context.Background(), embeddedgateway.Config{Database: "sqlite:" + gw.Database, Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), strings.TrimSpace(string(text))) {
		t.Errorf("where others may read it: got %v, want an error that says what to do", err)
	}
}

func TestGatewaysThatBeginAtOnceShareTheirKeys(t *testing.T) {
	database := filepath.Join(t.TempDir(), "gateway.db")
	gateways, errs := make([]*embeddedgateway.Gateway, 8), make([]error, 8)
	var all sync.WaitGroup
	for i := range gateways {
		all.Go(func() {
			gateways[i], errs[i] = embeddedgateway.New(context.Background(), embeddedgateway.Config{Database: "sqlite:" + database, Now: time.Now})
		})
	}
	all.Wait()
	for i, g := range gateways {
		if errs[i] != nil {
			t.Fatalf("gateway %d: %v", i, errs[i])
		}
		defer g.Close()
	}
	if files, err := filepath.Glob(filepath.Join(filepath.Dir(database), ".server-key-*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	keys, err := gateways[0].Keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Fatalf("got %+v, %v, want one signing key", keys, err)
	}
	first := embeddedgateway.SignerOf(gateways[0])
	before, _ := first.Sign(t, "fluxra", "agt_1", map[string]any{})
	if _, err := gateways[7].RotateKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, _ := first.Sign(t, "fluxra", "agt_1", map[string]any{})
	if claimsOf(t, before)["kid"] == claimsOf(t, after)["kid"] {
		t.Error("a gateway signs with the old key after another one has rotated it")
	}
	for i, g := range gateways {
		for name, token := range map[string]string{"before": before, "after": after} {
			if _, err := embeddedgateway.SignerOf(g).Verify("fluxra", token); err != nil {
				t.Errorf("gateway %d, a token from %s the rotation: %v", i, name, err)
			}
		}
	}
}

func TestParseServerKey(t *testing.T) {
	raw := []byte(strings.Repeat("\xff", 32))
	for _, good := range []string{
		base64.StdEncoding.EncodeToString(raw) + "\n", base64.RawURLEncoding.EncodeToString(raw), strings.Repeat("ff", 32),
	} {
		if key, err := embeddedgateway.ParseServerKey(good); err != nil || string(key) != string(raw) {
			t.Errorf("%q: got %x, %v", good, key, err)
		}
	}
	for _, bad := range []string{"", "ff", strings.Repeat("ff", 31), "not a key, and it is a secret all the same"} {
		_, err := embeddedgateway.ParseServerKey(bad)
		if err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: got error %v", bad, err)
		}
	}
}
