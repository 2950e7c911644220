package embeddedgateway_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// doorAuth asks for a JWT with the signature of a time.
func doorAuth(t testing.TB, gw *gatewaytest.Gateway, agent doorAgent, timestamp string) answer {
	t.Helper()
	return doorAuthWith(t, gw, agent.id, timestamp, agent.sign("agentdoor:auth:"+agent.id+":"+timestamp))
}

func doorAuthWith(t testing.TB, gw *gatewaytest.Gateway, agentID, timestamp, signature string) answer {
	t.Helper()
	return postJSON(t, gw, doorAuthPath, map[string]any{"agent_id": agentID, "timestamp": timestamp, "signature": signature}, nil)
}

func doorWho(t testing.TB, gw *gatewaytest.Gateway, presented string) answer {
	t.Helper()
	return send(t, gw, http.MethodGet, doorWhoAmIPath, "", header{"Authorization": "Bearer " + presented})
}

// claimsOf reads a JWT without a library.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	said := map[string]any{}
	for _, part := range parts[:2] {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &said); err != nil {
			t.Fatal(err)
		}
	}
	return said
}

func TestAgentDoorJWTSaysWhoAndForHowLong(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(docTime), gatewaytest.Config(func(c *embeddedgateway.Config) { c.PublicURL = "https://door.example/" }))
	agent := doorRegister(t, gw, pair("one"))
	iat := docTime.Unix()
	want := map[string]any{
		"alg": "EdDSA", "typ": "JWT", "kid": published(t, gw)[0].KeyID,
		"sub": agent.id, "agent_id": agent.id, "public_key": agent.public(), "scopes": []any{"api.access"},
		"iat": float64(iat), "exp": float64(iat + 3600), "iss": "https://door.example", "aud": "agentdoor",
	}
	got := claimsOf(t, agent.token)
	if jti, _ := got["jti"].(string); len(jti) < 16 {
		t.Errorf("got the jti %q", jti)
	}
	delete(got, "jti")
	for name, value := range want {
		if fmt.Sprint(got[name]) != fmt.Sprint(value) {
			t.Errorf("got %s %v, want %v", name, got[name], value)
		}
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("got the names %v, want %v", g, w)
	}

	gw.Clock.Set(time.Unix(iat+3599, 0))
	wantDoor(t, doorWho(t, gw, agent.token), http.StatusOK, "")
	gw.Clock.Set(time.Unix(iat+3601, 0))
	wantDoor(t, doorWho(t, gw, agent.token), http.StatusUnauthorized, "unauthorized")
	wantDoor(t, doorWho(t, gw, agent.key), http.StatusOK, "")
	gw.Restart(t)
	a := doorAuth(t, gw, agent, gw.Clock.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
	wantDoor(t, a, http.StatusOK, "")
	if want := time.Unix(iat+3601+3600, 0).UTC().Format("2006-01-02T15:04:05.000Z"); a.at("expires_at") != want {
		t.Errorf("got expires_at %s, want %s", a.at("expires_at"), want)
	}
	wantDoor(t, doorWho(t, gw, a.at("token")), http.StatusOK, "")
}

func TestAgentDoorAuthGoesByTheTimeThatIsSigned(t *testing.T) {
	now := time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC)
	gw := gatewaytest.New(t, gatewaytest.At(now))
	agent := doorRegister(t, gw, pair("one"))
	for name, tt := range map[string]struct {
		timestamp string
		status    int
		code      string
	}{
		"now, as JavaScript spells it": {"2026-02-06T14:00:00.000Z", 200, ""},
		"now, as Python spells it":     {"2026-02-06T14:00:00.123456+00:00", 200, ""},
		"now, without a fraction":      {"2026-02-06T14:00:00Z", 200, ""},
		"now, elsewhere":               {"2026-02-06T09:00:01-05:00", 200, ""},
		"300 seconds ago":              {"2026-02-06T13:55:00Z", 200, ""},
		"in 300 seconds":               {"2026-02-06T14:05:00Z", 200, ""},
		"more than 300 seconds ago":    {"2026-02-06T13:54:59.999Z", 400, "timestamp_invalid"},
		"in more than 300 seconds":     {"2026-02-06T14:05:00.001Z", 400, "timestamp_invalid"},
		"long ago":                     {"0001-01-01T00:00:00Z", 400, "timestamp_invalid"},
		"in a long time":               {"9999-12-31T23:59:59Z", 400, "timestamp_invalid"},
		"without a zone":               {"2026-02-06T14:00:00", 400, "timestamp_invalid"},
		"a day":                        {"2026-02-06", 400, "timestamp_invalid"},
		"Unix time":                    {"1770386400", 400, "timestamp_invalid"},
		"with more behind":             {"2026-02-06T14:00:00Z:x", 400, "timestamp_invalid"},
		"none":                         {"", 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, doorAuth(t, gw, agent, tt.timestamp), tt.status, tt.code)
		})
	}
}

func TestAgentDoorAuthRefuses(t *testing.T) {
	now := time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC)
	gw := gatewaytest.New(t, gatewaytest.At(now), behind())
	agent, other := doorRegister(t, gw, pair("one")), doorRegister(t, gw, pair("two"))
	const at, later = "2026-02-06T14:00:00.000Z", "2026-02-06T14:00:01.000Z"
	message := "agentdoor:auth:" + agent.id + ":" + at
	for name, tt := range map[string]struct {
		id, timestamp, signature string
		status                   int
		code                     string
	}{
		"another key":            {agent.id, at, other.sign(message), 401, "invalid_signature"},
		"another time":           {agent.id, later, agent.sign(message), 401, "invalid_signature"},
		"the same time, else":    {agent.id, "2026-02-06T14:00:00Z", agent.sign(message), 401, "invalid_signature"},
		"another agent":          {other.id, at, agent.sign(message), 401, "invalid_signature"},
		"a challenge":            {agent.id, at, agent.sign("agentdoor:register:" + agent.id + ":1770386400:x"), 401, "invalid_signature"},
		"S that is not reduced":  {agent.id, at, unreduced(t, agent.sign(message)), 401, "invalid_signature"},
		"all zero":               {agent.id, at, base64.StdEncoding.EncodeToString(make([]byte, 64)), 401, "invalid_signature"},
		"unpadded":               {agent.id, at, strings.TrimRight(agent.sign(message), "="), 400, "invalid_request"},
		"URL-safe":               {agent.id, at, urlSafe(agent, message), 400, "invalid_request"},
		"with a line break":      {agent.id, at, agent.sign(message)[:44] + "\n" + agent.sign(message)[44:], 400, "invalid_request"},
		"bits behind its end":    {agent.id, at, looseEnd(agent.sign(message)), 400, "invalid_request"},
		"63 bytes":               {agent.id, at, base64.StdEncoding.EncodeToString(make([]byte, 63)), 400, "invalid_request"},
		"65 bytes":               {agent.id, at, base64.StdEncoding.EncodeToString(make([]byte, 65)), 400, "invalid_request"},
		"none":                   {agent.id, at, "", 400, "invalid_request"},
		"an agent that is not":   {"ag_V1StGXR8_Z5jdHi6B", at, agent.sign(message), 404, "agent_not_found"},
		"an agent_id that is no": {"my-agent", at, agent.sign(message), 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, doorAuthWith(t, gw, tt.id, tt.timestamp, tt.signature), tt.status, tt.code)
		})
	}
	wantDoor(t, doorAuth(t, gw, agent, at), http.StatusOK, "") // none of them has used it up
}

// unreduced adds the order of the group to S: the same number to whoever does
// not look (RFC 8032, 5.1.7).
func unreduced(t testing.TB, signature string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := raw[32:]
	slices.Reverse(s)
	new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	slices.Reverse(s)
	return base64.StdEncoding.EncodeToString(raw)
}

// urlSafe is a signature that is spelled otherwise in the URL-safe alphabet.
func urlSafe(agent doorAgent, message string) string {
	text := agent.sign(message)
	if !strings.ContainsAny(text, "+/") { // 88 characters, 2 of 64: hardly ever
		text = "+" + text[1:]
	}
	return strings.NewReplacer("+", "-", "/", "_").Replace(text)
}

// looseEnd sets bits that belong to no byte.
func looseEnd(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	trimmed := strings.TrimRight(text, "=")
	end := strings.IndexByte(alphabet, trimmed[len(trimmed)-1])
	return trimmed[:len(trimmed)-1] + string(alphabet[end+1]) + text[len(trimmed):]
}

func TestAgentDoorTakesASignatureOnce(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := doorRegister(t, gw, pair("one"))
	var at string
	for i := range 8 { // often enough that some look for it before any has stored it
		at = gw.Clock.Now().UTC().Add(5*time.Minute - time.Duration(i)*time.Second).Format("2006-01-02T15:04:05.000Z")
		served := 0
		for _, a := range race(64, func(int) answer { return doorAuth(t, gw, agent, at) }) {
			if a.status == http.StatusOK {
				served++
			} else {
				wantDoor(t, a, http.StatusBadRequest, "timestamp_invalid")
			}
		}
		if served != 1 {
			t.Errorf("got %d JWTs for one signature, want 1", served)
		}
	}
	gw.Restart(t)
	for range 6 { // as long as its time is good, and after it
		wantDoor(t, doorAuth(t, gw, agent, at), http.StatusBadRequest, "timestamp_invalid")
		gw.Clock.Advance(2 * time.Minute)
	}
}

func TestAgentDoorPublicKeys(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p := pair("one")
	for i := 0; !strings.ContainsAny(p.public(), "+/"); i++ {
		p = pair(fmt.Sprint("one", i))
	}
	good := p.public()
	point := func(text string) string {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != 32 {
			t.Fatalf("%q: %v", text, err)
		}
		return base64.StdEncoding.EncodeToString(raw)
	}
	zeros, effs := strings.Repeat("00", 30), strings.Repeat("ff", 30)
	for name, key := range map[string]string{
		"none":                         "",
		"as the documentation prints":  "cXVpY2sgYnJvd24gZm94IGp1bXBzIG92ZXIgdGhlIGxhenk=",
		"unpadded":                     strings.TrimRight(good, "="),
		"URL-safe":                     strings.NewReplacer("+", "-", "/", "_").Replace(good),
		"with a line break":            good[:20] + "\n" + good[20:],
		"with a space":                 good + " ",
		"bits behind its end":          looseEnd(good),
		"31 bytes":                     base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"33 bytes":                     base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"hexadecimal":                  strings.Repeat("ab", 32),
		"no point":                     point("02" + zeros + "00"),
		"order 1":                      point("01" + zeros + "00"),
		"order 2":                      point("ec" + effs + "7f"),
		"order 4":                      point("00" + zeros + "00"),
		"order 4, the other":           point("00" + zeros + "80"),
		"order 8":                      point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		"order 8, another":             point("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
		"order 8, a third":             point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
		"order 8, the last":            point("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
		"order 1 with a sign":          point("01" + zeros + "80"),
		"order 2 with a sign":          point("ec" + effs + "ff"),
		"order 4, not reduced":         point("ed" + effs + "7f"),
		"order 1, not reduced":         point("ee" + effs + "7f"),
		"y = 3 and p, not reduced":     point("f0" + effs + "7f"),
		"y = 18 and p, not reduced":    point("ff" + effs + "7f"),
		"y = 18 and p, the other sign": point("ff" + effs + "ff"),
	} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, doorBegin(t, gw, key, nil, nil), http.StatusBadRequest, "invalid_request")
		})
	}
	wantDoor(t, doorBegin(t, gw, good, nil, nil), http.StatusCreated, "")
}

// FuzzAgentDoorPublicKey looks for keys that are taken and should not be, by
// what they would be good for: a signature that nobody has made.
func FuzzAgentDoorPublicKey(f *testing.F) {
	for _, text := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	f.Fuzz(func(t *testing.T, key []byte) {
		if len(key) == 32 {
			made := ed25519.NewKeyFromSeed(key).Public().(ed25519.PublicKey)
			if !embeddedgateway.UsablePoint(made) {
				t.Errorf("the key of a pair is refused: %x", made)
			}
		}
		if !embeddedgateway.UsablePoint(key) {
			return
		}
		y := bytes.Clone(key)
		y[31] &= 0x7f
		slices.Reverse(y)
		if new(big.Int).SetBytes(y).Cmp(p) >= 0 {
			t.Errorf("a key that is not reduced is taken: %x", key)
		}
		forged := make([]byte, 64)
		forged[0] = 1 // R is the neutral point, S is 0
		for i := range 64 {
			if ed25519.Verify(key, fmt.Append(nil, i), forged) {
				t.Fatalf("a key is taken that verifies what nobody has signed: %x", key)
			}
		}
	})
}

func TestAgentDoorVerifyTakesCanonicalSignatures(t *testing.T) {
	gw := gatewaytest.New(t)
	p := pair("one")
	id, message := doorPending(t, gw, p, 1)
	wantDoor(t, doorVerify(t, gw, id, unreduced(t, p.sign(message))), http.StatusBadRequest, "invalid_signature")
	for _, wrong := range []string{strings.TrimRight(p.sign(message), "="), urlSafe(doorAgent{doorPair: p}, message), looseEnd(p.sign(message))} {
		wantDoor(t, doorVerify(t, gw, id, wrong), http.StatusBadRequest, "invalid_request")
	}
	wantDoor(t, doorVerify(t, gw, id, p.sign(message)), http.StatusOK, "")
}

func TestAgentDoorWhoAmITakesNothingElse(t *testing.T) {
	gw := gatewaytest.New(t, behind(), partner())
	agent := doorRegister(t, gw, pair("one"))
	s := embeddedgateway.SignerOf(gw.Embedded())
	claims := map[string]any{"agent_id": agent.id, "scopes": []string{"api.access"}, "public_key": agent.public()}
	of := func(g *embeddedgateway.Gateway, protocol string) string {
		token, _ := embeddedgateway.SignerOf(g).Sign(t, protocol, agent.id, claims)
		return token
	}
	if good := of(gw.Embedded(), "agentdoor"); doorWho(t, gw, good).status != http.StatusOK {
		t.Fatal("a JWT of the gateway's own is not taken: the test proves nothing")
	}
	elsewhere := gatewaytest.New(t)
	parts := strings.Split(agent.token, ".")
	key := published(t, gw)[0]
	public, err := base64.RawURLEncoding.DecodeString(key.X)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	hs256 := encode(`{"alg":"HS256","kid":"`+key.KeyID+`","typ":"JWT"}`) + "." + parts[1]
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(hs256))
	eddsa := func(h string) string {
		text := encode(h) + "." + parts[1]
		return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(agent.private, []byte(text)))
	}
	lona := token(t, gw, "my-agent")
	for name, value := range map[string]string{
		"nothing":                    "",
		"no credential":              "Bearer ",
		"no scheme":                  agent.key,
		"another scheme":             "Basic " + agent.key,
		"an unknown key":             "Bearer agk_test_" + strings.Repeat("x", 43),
		"half a key":                 "Bearer " + agent.key[:30],
		"a key with more behind":     "Bearer " + agent.key + " x",
		"another protocol's key":     "Bearer " + lona,
		"the claim of a public key":  "Bearer public-key:" + agent.public(),
		"a public key":               "Bearer " + agent.public(),
		"alg none":                   "Bearer " + encode(`{"alg":"none","kid":"`+key.KeyID+`"}`) + "." + parts[1] + ".",
		"HS256 under the public key": "Bearer " + hs256 + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"signed by the agent itself": "Bearer " + eddsa(`{"alg":"EdDSA","kid":"`+key.KeyID+`"}`),
		"with a key that it brings":  "Bearer " + eddsa(`{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+base64.RawURLEncoding.EncodeToString(agent.private.Public().(ed25519.PublicKey))+`"}}`),
		"of another gateway":         "Bearer " + of(elsewhere.Embedded(), "agentdoor"),
		"of another protocol":        "Bearer " + of(gw.Embedded(), "fluxra"),
		"changed":                    "Bearer " + parts[0] + "." + parts[1] + "A." + parts[2],
		"without a signature":        "Bearer " + parts[0] + "." + parts[1] + ".",
		"too long":                   "Bearer " + parts[0] + "." + strings.Repeat("A", 9<<10) + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, gw, http.MethodGet, doorWhoAmIPath, "", header{"Authorization": value})
			wantDoor(t, a, http.StatusUnauthorized, "unauthorized")
			if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("got WWW-Authenticate %q, want Bearer", got)
			}
		})
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		for _, presented := range []string{agent.key, agent.token} {
			wantDoor(t, send(t, gw, http.MethodGet, doorWhoAmIPath, "", header{"Authorization": scheme + presented}), http.StatusOK, "")
		}
	}
	if _, err := s.Verify("agentdoor", agent.token); err != nil {
		t.Errorf("the JWT that verify issued: %v", err)
	}
}

func TestAgentDoorSuspensionAndDeletionEndEverything(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	timestamp := func() string { gw.Clock.Advance(time.Second); return gw.Clock.Now().UTC().Format(time.RFC3339) }
	t.Run("suspended", func(t *testing.T) {
		agent, other := doorRegister(t, gw, pair("one")), doorRegister(t, gw, pair("two"))
		if err := gw.Embedded().Suspend(t.Context(), "agentdoor", agent.id); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			wantDoor(t, doorWho(t, gw, agent.key), http.StatusForbidden, "agent_inactive")
			wantDoor(t, doorWho(t, gw, agent.token), http.StatusForbidden, "agent_inactive")
			wantDoor(t, doorAuth(t, gw, agent, timestamp()), http.StatusForbidden, "agent_inactive")
			wantDoor(t, doorAuthWith(t, gw, agent.id, timestamp(), agent.sign("x")), http.StatusUnauthorized, "invalid_signature")
			a := doorBegin(t, gw, agent.public(), nil, nil)
			wantDoor(t, a, http.StatusConflict, "already_registered")
			gw.Restart(t)
		}
		wantDoor(t, doorWho(t, gw, other.key), http.StatusOK, "")
	})
	t.Run("deleted", func(t *testing.T) {
		agent := doorRegister(t, gw, pair("three"))
		if err := gw.Embedded().Delete(t.Context(), "agentdoor", agent.id); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			wantDoor(t, doorWho(t, gw, agent.token), http.StatusForbidden, "agent_inactive")
			wantDoor(t, doorWho(t, gw, agent.key), http.StatusForbidden, "agent_inactive")
			wantDoor(t, doorAuth(t, gw, agent, timestamp()), http.StatusNotFound, "agent_not_found")
			gw.Restart(t)
		}
		again := doorRegister(t, gw, pair("three"))
		wantDoor(t, doorWho(t, gw, again.token), http.StatusOK, "")
		wantDoor(t, doorWho(t, gw, agent.token), http.StatusForbidden, "agent_inactive")
		wantDoor(t, doorWho(t, gw, agent.key), http.StatusForbidden, "agent_inactive")
	})
}

func TestAgentDoorRequestsAreLimitedByAgent(t *testing.T) {
	gw := gatewaytest.New(t, behind(), doorEnv("AGENTDOOR_RATE_LIMIT", "5/10m"))
	p := pair("one")
	id, message := doorPending(t, gw, p, 1)
	a := doorVerify(t, gw, id, p.sign(message))
	if want := `"rate_limit":{"requests":5,"window":"10m"}`; !strings.Contains(string(a.body), want) {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if doc := send(t, gw, http.MethodGet, doorDiscoveryPath, "", nil); !strings.Contains(string(doc.body), `"default":"5/10m"`) {
		t.Errorf("got %s, want the limit", doc.body)
	}
	agent, other := doorAgent{p, id, a.at("api_key"), a.at("token")}, doorRegister(t, gw, pair("two"))
	for i := range 5 { // the key and the JWT count together
		wantDoor(t, doorWho(t, gw, []string{agent.key, agent.token}[i%2]), http.StatusOK, "")
		gw.Clock.Advance(time.Minute)
	}
	for _, presented := range []string{agent.key, agent.token} {
		a := doorWho(t, gw, presented)
		wantDoor(t, a, http.StatusTooManyRequests, "rate_limit_exceeded")
		if got := a.header.Get("Retry-After"); got != "300" || !strings.Contains(string(a.body), `"retry_after":300`) {
			t.Errorf("got Retry-After %q and %s, want 300", got, a.body)
		}
	}
	wantDoor(t, doorWho(t, gw, other.key), http.StatusOK, "")
	// JWTs have a count of their own, which nobody but the agent can use up.
	now := gw.Clock.Now().UTC()
	for i := range 5 {
		wantDoor(t, doorAuthWith(t, gw, agent.id, now.Format(time.RFC3339), other.sign("x")), http.StatusUnauthorized, "invalid_signature")
		wantDoor(t, doorAuth(t, gw, agent, now.Add(time.Duration(i)*time.Second).Format(time.RFC3339)), http.StatusOK, "")
	}
	wantDoor(t, doorAuth(t, gw, agent, now.Add(time.Minute).Format(time.RFC3339)), http.StatusTooManyRequests, "rate_limit_exceeded")
	// Nor does somebody who has one of its signatures.
	gw.Clock.Advance(10 * time.Minute)
	now = gw.Clock.Now().UTC()
	wantDoor(t, doorAuth(t, gw, agent, now.Format(time.RFC3339)), http.StatusOK, "")
	for range 5 {
		wantDoor(t, doorAuth(t, gw, agent, now.Format(time.RFC3339)), http.StatusBadRequest, "timestamp_invalid")
	}
	wantDoor(t, doorAuth(t, gw, agent, now.Add(time.Second).Format(time.RFC3339)), http.StatusOK, "")
	gw.Clock.Advance(5 * time.Minute)
	wantDoor(t, doorWho(t, gw, agent.key), http.StatusOK, "")
}

func TestAgentDoorScopesAreRequired(t *testing.T) {
	for name, tt := range map[string]struct {
		granted []string
		status  int
	}{
		"granted": {[]string{"weather.read", "forecast.read"}, 0}, "another": {[]string{"weather.read"}, 403},
		"a longer one": {[]string{"forecast.readwrite"}, 403}, "none": {nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			status, code := embeddedgateway.Requires(tt.granted, "forecast.read")
			if status != tt.status || status == 403 && code != "insufficient_scope" {
				t.Errorf("got %d %q, want %d", status, code, tt.status)
			}
		})
	}
}
