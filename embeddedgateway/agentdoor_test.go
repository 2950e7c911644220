package embeddedgateway_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const (
	doorDiscoveryPath = "/.well-known/agentdoor.json"
	doorRegisterPath  = "/agentdoor/register"
	doorVerifyPath    = "/agentdoor/register/verify"
	doorAuthPath      = "/agentdoor/auth"
	doorHealthPath    = "/agentdoor/health"
	doorWhoAmIPath    = "/whoami"
)

// What AgentDoor issues looks like this.
var (
	doorIDLike    = regexp.MustCompile(`^ag_[A-Za-z0-9_-]{21}$`)
	doorNonceLike = regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`)
	doorLiveLike  = regexp.MustCompile(`^agk_live_[A-Za-z0-9_-]{43}$`)
	doorTestLike  = regexp.MustCompile(`^agk_test_[A-Za-z0-9_-]{43}$`)
	jwtLike       = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}$`)
)

// doorPair is an agent's key pair.
type doorPair struct{ private ed25519.PrivateKey }

// pair returns the key pair of that name.
func pair(name string) doorPair {
	seed := sha256.Sum256([]byte(name))
	return doorPair{ed25519.NewKeyFromSeed(seed[:])}
}

func (p doorPair) public() string {
	return base64.StdEncoding.EncodeToString(p.private.Public().(ed25519.PublicKey))
}

func (p doorPair) sign(message string) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(p.private, []byte(message)))
}

// doorEnv configures AgentDoor; name and value by turns.
func doorEnv(vars ...string) gatewaytest.Option {
	env := map[string]string{}
	for i := 0; i < len(vars); i += 2 {
		env[vars[i]] = vars[i+1]
	}
	return gatewaytest.Env(env)
}

// weather are the scopes of the documentation's examples.
const weather = `[{"id":"weather.read","description":"Read the weather","price":"$0.001/req","rate_limit":"100/1h"},{"id":"forecast.read","description":"Read the forecast"}]`

// doorBegin asks for a challenge, with what else is in the body.
func doorBegin(t testing.TB, gw *gatewaytest.Gateway, public string, more map[string]any, h header) answer {
	t.Helper()
	body := map[string]any{"public_key": public, "scopes_requested": []string{"api.access"}}
	maps.Copy(body, more)
	return postJSON(t, gw, doorRegisterPath, body, h)
}

// doorPending asks for a challenge and returns it, from an address of its own.
func doorPending(t testing.TB, gw *gatewaytest.Gateway, p doorPair, n int) (agentID, message string) {
	t.Helper()
	a := doorBegin(t, gw, p.public(), nil, from(n))
	wantDoor(t, a, http.StatusCreated, "")
	return a.at("agent_id"), a.at("challenge", "message")
}

func doorVerify(t testing.TB, gw *gatewaytest.Gateway, agentID, signature string) answer {
	t.Helper()
	return postJSON(t, gw, doorVerifyPath, map[string]any{"agent_id": agentID, "signature": signature}, nil)
}

// doorAgent is an agent that is registered.
type doorAgent struct {
	doorPair
	id, key, token string
}

// doorRegister registers a key pair.
func doorRegister(t testing.TB, gw *gatewaytest.Gateway, p doorPair) doorAgent {
	t.Helper()
	id, message := doorPending(t, gw, p, 1)
	a := doorVerify(t, gw, id, p.sign(message))
	wantDoor(t, a, http.StatusOK, "")
	return doorAgent{p, id, a.at("api_key"), a.at("token")}
}

func wantDoor(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.at("error") != code {
		t.Fatalf("got %d %q (%s), want %d %q", a.status, a.at("error"), a.body, status, code)
	}
	if code == "" {
		return
	}
	more := map[string]string{"invalid_scopes": "available_scopes", "already_registered": "agent_id", "rate_limit_exceeded": "retry_after"}[code]
	want := []string{"error", "message"}
	if more != "" {
		want = append(want, more)
	}
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) || got["message"] == "" {
		t.Errorf("got the error %s, want %v", a.body, want)
	}
}

func TestAgentDoorAnswersAsItsDocumentationShows(t *testing.T) {
	at := gatewaytest.At(time.Unix(1704067200, 0))
	x402 := `{"payment_address":"0x742d35Cc6634C0532925a3b844Bc9e7595f0bEb","network":"base","currency":"USDC"}`
	vars := []string{
		"AGENTDOOR_SERVICE_NAME", "Weather API", "AGENTDOOR_SERVICE_DESCRIPTION", "Forecasts for agents", "AGENTDOOR_SCOPES", weather,
	}
	const docID, docSignature = "ag_V1StGXR8_Z5jdHi6B", "YSBzaWduYXR1cmUgb2Ygc2l4dHktZm91ciBieXRlcyBzdGFuZHMgaGVyZSB3aGVuIHRoZSB0ZXN0IGlzIHJ1bg=="
	seed, err := hex.DecodeString("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60") // RFC 8032, 7.1, test 1
	if err != nil {
		t.Fatal(err)
	}
	p := doorPair{ed25519.NewKeyFromSeed(seed)}
	run := func(t *testing.T, gw *gatewaytest.Gateway, name string, now ...string) answer {
		t.Helper()
		return replayAt(t, gw, "agentdoor", name, "api.example.com", strings.NewReplacer(now...))
	}
	t.Run("without x402", func(t *testing.T) {
		gw := gatewaytest.New(t, at, doorEnv(vars...), gatewaytest.Standalone())
		run(t, gw, "register-as-printed")
		run(t, gw, "verify-as-printed")
		run(t, gw, "errors-scopes")
		run(t, gw, "errors-not-found")
		a := run(t, gw, "register")
		id := a.at("agent_id")
		run(t, gw, "errors-signature", docID, id)
		gw.Clock.Advance(5 * time.Minute)
		run(t, gw, "errors-expired", docID, id)
		run(t, gw, "errors-not-found", docID, id)
		gw.Clock.Advance(-5 * time.Minute)
		for range 9 {
			run(t, gw, "register")
		}
		a = run(t, gw, "errors-limit")
		if got := a.header.Get("Retry-After"); got != "3600" {
			t.Errorf("got Retry-After %q, want 3600", got)
		}
	})
	t.Run("with x402", func(t *testing.T) {
		gw := gatewaytest.New(t, at, doorEnv(append(vars, "AGENTDOOR_X402", x402)...), gatewaytest.Standalone())
		a := run(t, gw, "discovery")
		for name, want := range map[string]string{"Cache-Control": "public, max-age=3600", "X-AgentDoor-Version": "1.0"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("got %s %q, want %q", name, got, want)
			}
		}
		run(t, gw, "errors-x402-wallet")
		a = run(t, gw, "register-x402")
		id := a.at("agent_id")
		verified := run(t, gw, "verify", docID, id, docSignature, p.sign(a.at("challenge", "message")))
		if got := verified.at("agent_id"); got != id {
			t.Errorf("got the agent_id %s, want %s", got, id)
		}
		if a = run(t, gw, "errors-registered"); a.at("agent_id") != id {
			t.Errorf("got the agent_id %s, want %s", a.at("agent_id"), id)
		}
		run(t, gw, "auth", docID, id, docSignature, p.sign("agentdoor:auth:"+id+":2024-01-01T00:00:00.000Z"))
	})
}

func TestAgentDoorTellsAnybodyThatItIsThere(t *testing.T) {
	gw := gatewaytest.New(t)
	a := send(t, gw, http.MethodGet, doorHealthPath, "", nil)
	wantDoor(t, a, http.StatusOK, "")
	if got, want := string(a.body), `{"status":"healthy"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a = send(t, gw, http.MethodGet, doorDiscoveryPath, "", nil)
	wantDoor(t, a, http.StatusOK, "")
	var doc struct {
		Name       string                                 `json:"service_name"`
		RateLimits struct{ Registration, Default string } `json:"rate_limits"`
		Companions map[string]any                         `json:"companion_protocols"`
		Payment    map[string]any
		Available  []map[string]any `json:"scopes_available"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Name == "" || len(doc.Available) != 1 || doc.Available[0]["id"] != "api.access" || doc.Available[0]["description"] == "" {
		t.Errorf("got %s, want a name and the one scope api.access", a.body)
	}
	if doc.Companions == nil || doc.Payment != nil || doc.RateLimits.Registration != "10/1h" || doc.RateLimits.Default != "1000/1h" {
		t.Errorf("got %s", a.body)
	}
	if events := gw.Audit(t); len(events) != 0 {
		t.Errorf("the audit trail has %v, want nothing", events)
	}
}

func TestAgentDoorRegisters(t *testing.T) {
	for name, tt := range map[string]struct {
		opts []gatewaytest.Option
		like *regexp.Regexp
	}{
		"where strangers come":              {[]gatewaytest.Option{gatewaytest.Standalone()}, doorLiveLike},
		"elsewhere":                         {nil, doorTestLike},
		"elsewhere, and it is meant":        {[]gatewaytest.Option{doorEnv("AGENTDOOR_TEST_KEYS", "false")}, doorLiveLike},
		"where strangers come to try it on": {[]gatewaytest.Option{gatewaytest.Standalone(), doorEnv("AGENTDOOR_TEST_KEYS", "true")}, doorTestLike},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, append(tt.opts, behind())...)
			agent := doorRegister(t, gw, pair("one"))
			if !doorIDLike.MatchString(agent.id) || !tt.like.MatchString(agent.key) || !jwtLike.MatchString(agent.token) {
				t.Errorf("got %s, %s and %s", agent.id, agent.key, agent.token)
			}
			other := doorRegister(t, gw, pair("two"))
			if other.id == agent.id || other.key == agent.key {
				t.Error("two agents have the same agent_id or key")
			}
			for _, presented := range []string{agent.key, agent.token} {
				a := doorWho(t, gw, presented)
				wantDoor(t, a, http.StatusOK, "")
				if want := `{"agent_id":"` + agent.id + `","scopes":["api.access"]}`; string(a.body) != want {
					t.Errorf("got %s, want %s", a.body, want)
				}
			}
			if secrets := gw.Secrets(); !slices.Contains(secrets, agent.key) || !slices.Contains(secrets, agent.token) {
				t.Error("the gateway does not remember what it has issued")
			}
		})
	}
}

func TestAgentDoorChallengeIsGoodOnce(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p := pair("one")
	id, message := doorPending(t, gw, p, 1)
	if at := fmt.Sprintf("agentdoor:register:%s:%d:", id, gw.Clock.Now().Unix()); !strings.HasPrefix(message, at) || !doorNonceLike.MatchString(message[len(at):]) {
		t.Errorf("got the message %q", message)
	}
	gw.Restart(t) // it survives
	gw.Clock.Advance(4 * time.Minute)
	wantDoor(t, doorVerify(t, gw, id, p.sign(message)), http.StatusOK, "")
	for range 2 {
		wantDoor(t, doorVerify(t, gw, id, p.sign(message)), http.StatusNotFound, "not_found")
	}
	gw.Clock.Advance(10 * time.Minute)
	wantDoor(t, doorVerify(t, gw, id, p.sign(message)), http.StatusNotFound, "not_found")
}

func TestAgentDoorChallengeHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p := pair("one")
	id, message := doorPending(t, gw, p, 1)
	wantOneDoor(t, gw, "not_found", http.StatusNotFound, race(64, func(int) answer { return doorVerify(t, gw, id, p.sign(message)) }))
}

func TestAgentDoorKeyHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p := pair("one")
	var ids, messages [64]string
	for i := range ids {
		ids[i], messages[i] = doorPending(t, gw, p, i)
	}
	answers := race(64, func(i int) answer { return doorVerify(t, gw, ids[i], p.sign(messages[i])) })
	winner := wantOneDoor(t, gw, "already_registered", http.StatusConflict, answers)
	for i, a := range answers {
		if got := a.at("agent_id"); got != winner {
			t.Errorf("answer %d has the agent_id %q, want the winner's, %s", i, got, winner)
		}
	}
	// The others say it again, until they expire; registering says it too.
	for i, id := range ids {
		if id != winner {
			a := doorVerify(t, gw, id, p.sign(messages[i]))
			wantDoor(t, a, http.StatusConflict, "already_registered")
		}
	}
	gw.Restart(t)
	a := doorBegin(t, gw, p.public(), nil, from(99))
	wantDoor(t, a, http.StatusConflict, "already_registered")
	if got := a.at("agent_id"); got != winner {
		t.Errorf("got the agent_id %q, want %s", got, winner)
	}
}

// wantOneDoor checks that one answer is a registration whose API key works, and
// that the others are refusals.
func wantOneDoor(t *testing.T, gw *gatewaytest.Gateway, code string, status int, answers []answer) (agentID string) {
	t.Helper()
	var won []answer
	for _, a := range answers {
		if a.status == http.StatusOK {
			won = append(won, a)
		} else {
			wantDoor(t, a, status, code)
		}
	}
	if len(won) != 1 {
		t.Fatalf("got %d winners, want 1", len(won))
	}
	wantDoor(t, doorWho(t, gw, won[0].at("api_key")), http.StatusOK, "")
	return won[0].at("agent_id")
}

func TestAgentDoorChallengeExpires(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p := pair("one")
	a := doorBegin(t, gw, p.public(), nil, nil)
	id, message := a.at("agent_id"), a.at("challenge", "message")
	end := gw.Clock.Now().UTC().Truncate(time.Millisecond).Add(5 * time.Minute)
	if got, want := a.at("challenge", "expires_at"), end.Format("2006-01-02T15:04:05.000Z"); got != want {
		t.Errorf("got expires_at %s, want %s", got, want)
	}
	last, lastMessage := doorPending(t, gw, pair("two"), 2)
	gw.Clock.Set(end.Add(-time.Millisecond))
	wantDoor(t, doorVerify(t, gw, last, pair("two").sign(lastMessage)), http.StatusOK, "")
	gw.Clock.Set(end)
	gw.Restart(t)
	told := 0
	for _, a := range race(16, func(int) answer { return doorVerify(t, gw, id, p.sign(message)) }) {
		if a.status == http.StatusGone {
			wantDoor(t, a, http.StatusGone, "challenge_expired")
			told++
		} else {
			wantDoor(t, a, http.StatusNotFound, "not_found")
		}
	}
	if told != 1 {
		t.Errorf("was told %d times that it has expired, want once", told)
	}
	if agent := doorRegister(t, gw, p); agent.id == id {
		t.Error("the same agent_id was given twice")
	}
}

// The database writes side by side what has names side by side: whoever comes later
// has the larger one, and of those who come at once no two have the same.
func TestAgentDoorNamesAgentsInTheOrderInWhichTheyCome(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	before := ""
	for n := range 8 {
		first, _ := doorPending(t, gw, pair("one"), 2*n)
		second, _ := doorPending(t, gw, pair("two"), 2*n+1)
		const when = len("ag_") + 9
		if first[:when] != second[:when] || first[when:] == second[when:] {
			t.Fatalf("got %s and %s in one millisecond, want them to differ in their last 12 characters only", first, second)
		}
		if min(first, second) <= before {
			t.Fatalf("got %s and %s a moment after %s, want larger ones", first, second, before)
		}
		before = max(first, second)
		gw.Clock.Advance(time.Millisecond << (4 * n)) // up to three days
	}
}

func TestAgentDoorChallengeTakesFiveWrongSignatures(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	p, other := pair("one"), pair("two")
	id, message := doorPending(t, gw, p, 1)
	void, voidMessage := doorPending(t, gw, p, 1)
	for _, wrong := range []string{
		other.sign(message), p.sign(voidMessage), p.sign(message + "\n"), p.sign("agentdoor:auth:" + id + ":2026-02-06T14:00:00.000Z"),
	} {
		wantDoor(t, doorVerify(t, gw, id, wrong), http.StatusBadRequest, "invalid_signature")
	}
	counted := 0
	for _, a := range race(64, func(int) answer { return doorVerify(t, gw, void, other.sign(voidMessage)) }) {
		if a.status == http.StatusBadRequest {
			wantDoor(t, a, http.StatusBadRequest, "invalid_signature")
			counted++
		} else {
			wantDoor(t, a, http.StatusNotFound, "not_found")
		}
	}
	if counted != 5 {
		t.Errorf("%d wrong signatures were judged, want 5", counted)
	}
	wantDoor(t, doorVerify(t, gw, void, p.sign(voidMessage)), http.StatusNotFound, "not_found")
	wantDoor(t, doorVerify(t, gw, id, p.sign(message)), http.StatusOK, "")
}

func TestAgentDoorRegistrationsAreTenAnHour(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	for i := range 10 {
		if i == 5 { // what is refused because the key is taken counts
			agent, message := doorPending(t, gw, pair("taken"), 7)
			wantDoor(t, doorVerify(t, gw, agent, pair("taken").sign(message)), http.StatusOK, "")
			continue
		}
		if i == 6 {
			wantDoor(t, doorBegin(t, gw, pair("taken").public(), nil, from(7)), http.StatusConflict, "already_registered")
			continue
		}
		doorPending(t, gw, pair(fmt.Sprint(i)), 7)
		wantDoor(t, doorBegin(t, gw, "", nil, from(7)), http.StatusBadRequest, "invalid_request") // costs nothing
		wantDoor(t, doorBegin(t, gw, pair("x").public(), map[string]any{"scopes_requested": []string{"x"}}, from(7)), http.StatusBadRequest, "invalid_scopes")
	}
	gw.Restart(t)
	a := doorBegin(t, gw, pair("eleven").public(), nil, from(7))
	wantDoor(t, a, http.StatusTooManyRequests, "rate_limit_exceeded")
	if got := a.header.Get("Retry-After"); got != "3600" || !strings.Contains(string(a.body), `"retry_after":3600`) {
		t.Errorf("got Retry-After %q and %s, want 3600", got, a.body)
	}
	doorPending(t, gw, pair("eleven"), 8)
	gw.Clock.Advance(time.Hour)
	doorPending(t, gw, pair("eleven"), 7)
}

func TestAgentDoorScopes(t *testing.T) {
	gw := gatewaytest.New(t, behind(), doorEnv("AGENTDOOR_SCOPES", weather))
	p := pair("one")
	for name, scopes := range map[string]any{"none": []string{}, "null": nil} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, doorBegin(t, gw, p.public(), map[string]any{"scopes_requested": scopes}, nil), http.StatusBadRequest, "invalid_request")
		})
	}
	for name, scopes := range map[string]any{
		"unknown": []string{"weather.write"}, "one of them unknown": []string{"weather.read", "x"}, "an empty one": []string{""},
		"the default one": []string{"api.access"}, "another case": []string{"Weather.Read"}, "null in it": []any{nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := doorBegin(t, gw, p.public(), map[string]any{"scopes_requested": scopes}, nil)
			wantDoor(t, a, http.StatusBadRequest, "invalid_scopes")
			if want := `"available_scopes":["weather.read","forecast.read"]`; !strings.Contains(string(a.body), want) {
				t.Errorf("got %s, want %s", a.body, want)
			}
		})
	}
	a := doorBegin(t, gw, p.public(), map[string]any{"scopes_requested": []string{"forecast.read", "forecast.read", "forecast.read"}}, nil)
	a = doorVerify(t, gw, a.at("agent_id"), p.sign(a.at("challenge", "message")))
	wantDoor(t, a, http.StatusOK, "")
	if want := `"scopes_granted":["forecast.read"]`; !strings.Contains(string(a.body), want) {
		t.Errorf("got %s, want %s", a.body, want)
	}
	if got, want := claimsOf(t, a.at("token"))["scopes"], "[forecast.read]"; fmt.Sprint(got) != want {
		t.Errorf("got the scopes %v in the JWT, want %s", got, want)
	}
	for _, presented := range []string{a.at("api_key"), a.at("token")} {
		if who := doorWho(t, gw, presented); !strings.Contains(string(who.body), `"scopes":["forecast.read"]`) {
			t.Errorf("got %s, want the one scope", who.body)
		}
	}
}

func TestAgentDoorRefusesWrongFields(t *testing.T) {
	gw := gatewaytest.New(t)
	p := pair("one")
	for name, more := range map[string]map[string]any{
		"no public_key":         {"public_key": nil},
		"metadata of a list":    {"metadata": []string{"a"}},
		"metadata of text":      {"metadata": "a"},
		"large metadata":        {"metadata": map[string]any{"a": strings.Repeat("a", 4<<10)}},
		"a key in metadata":     {"metadata": map[string]any{"a": []string{"agk_live_neverissuedneverissued"}}},
		"a key of another one":  {"metadata": map[string]any{"lona_invite_neverissuedneverissued": 1}},
		"a key as the wallet":   {"x402_wallet": "agk_test_neverissuedneverissued"},
		"a wallet with a space": {"x402_wallet": "0x 12"},
		"a wallet with a NUL":   {"x402_wallet": "0x\x00"},
		"a long wallet":         {"x402_wallet": strings.Repeat("a", 129)},
		"a number as wallet":    {"x402_wallet": 12},
		"scopes in a text":      {"scopes_requested": "api.access"},
	} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, doorBegin(t, gw, p.public(), more, nil), http.StatusBadRequest, "invalid_request")
		})
	}
	for name, more := range map[string]map[string]any{
		"everything": {"x402_wallet": strings.Repeat("a", 128), "metadata": map[string]any{"name": "A\x00", "n": 1.5, "deep": []any{map[string]any{}}}, "unknown": 1},
		"nulls":      {"x402_wallet": nil, "metadata": nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := doorBegin(t, gw, p.public(), more, nil)
			wantDoor(t, a, http.StatusCreated, "")
			if name == "everything" {
				wantDoor(t, doorVerify(t, gw, a.at("agent_id"), p.sign(a.at("challenge", "message"))), http.StatusOK, "")
				p = pair("two")
			}
		})
	}
	for name, body := range map[string]map[string]any{
		"no agent_id":         {"signature": p.sign("x")},
		"a wrong agent_id":    {"agent_id": "x", "signature": p.sign("x")},
		"an agent_id of NULs": {"agent_id": "ag_\x00", "signature": p.sign("x")},
		"no signature":        {"agent_id": "ag_V1StGXR8_Z5jdHi6B"},
	} {
		t.Run(name, func(t *testing.T) {
			wantDoor(t, postJSON(t, gw, doorVerifyPath, body, nil), http.StatusBadRequest, "invalid_request")
		})
	}
}

func TestAgentDoorSettingsThatAreWrong(t *testing.T) {
	const name, scopes, rate, x402, test = "AGENTDOOR_SERVICE_NAME", "AGENTDOOR_SCOPES", "AGENTDOOR_RATE_LIMIT", "AGENTDOOR_X402", "AGENTDOOR_TEST_KEYS"
	for what, v := range map[string][2]string{
		"a name of two lines":         {name, "a\nb"},
		"a long name":                 {name, strings.Repeat("a", 201)},
		"scopes that are no JSON":     {scopes, "api.access"},
		"scopes that are no list":     {scopes, `{"id":"a","description":"b"}`},
		"no scopes":                   {scopes, `[]`},
		"a scope without an id":       {scopes, `[{"description":"b"}]`},
		"a scope with a space":        {scopes, `[{"id":"a b","description":"b"}]`},
		"a scope with a newline":      {scopes, `[{"id":"a\nb","description":"b"}]`},
		"a scope without description": {scopes, `[{"id":"a"}]`},
		"a scope twice":               {scopes, `[{"id":"a","description":"b"},{"id":"a","description":"c"}]`},
		"a scope with what is not":    {scopes, `[{"id":"a","description":"b","cost":"1"}]`},
		"a scope with a wrong limit":  {scopes, `[{"id":"a","description":"b","rate_limit":"much"}]`},
		"a limit without a window":    {rate, "1000"},
		"a limit of nothing":          {rate, "0/1h"},
		"a limit of too much":         {rate, "100001/1h"},
		"a window that is too long":   {rate, "10/25h"},
		"a window of nothing":         {rate, "10/0s"},
		"a window with a space":       {rate, "10/ 1h"},
		"x402 that is no JSON":        {x402, "base"},
		"x402 without an address":     {x402, `{"network":"base","currency":"USDC"}`},
		"x402 without a network":      {x402, `{"payment_address":"0x1","currency":"USDC"}`},
		"x402 without a currency":     {x402, `{"payment_address":"0x1","network":"base"}`},
		"keys that are no switch":     {test, "perhaps"},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := config(t)
			cfg.Env = func(n string) string { return map[string]string{v[0]: v[1]}[n] }
			g, err := embeddedgateway.New(t.Context(), cfg)
			if err == nil {
				g.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "agentdoor") || !strings.Contains(err.Error(), v[0]) {
				t.Errorf("got %v, want an error that names %s", err, v[0])
			}
		})
	}
}

func TestAgentDoorKeepsAnAuditTrail(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(docTime))
	agent := doorRegister(t, gw, pair("one"))
	doorBegin(t, gw, agent.public(), nil, nil)
	doorVerify(t, gw, agent.id, agent.sign("x"))
	doorAuth(t, gw, agent, "2026-02-06T12:34:56Z")
	doorAuth(t, gw, agent, "2026-02-06T12:34:56Z")
	doorWho(t, gw, "agk_live_"+strings.Repeat("x", 43))
	var got []string
	ids := map[string]bool{}
	for _, e := range gw.Audit(t) {
		got = append(got, fmt.Sprintf("%s agent=%v ip=%s %v x%d %s", e.Name, e.Agent == agent.id, e.IP, e.Refusal, e.Count, e.Detail))
		if e.KeyID != "" {
			ids[e.KeyID] = true
		}
	}
	want := []string{
		`challenge_issued agent=true ip=127.0.0.1 false x1 `,
		`key_issued agent=true ip=127.0.0.1 false x1 `,
		`token_issued agent=true ip=127.0.0.1 false x1 at registration`,
		`refused:already_registered agent=true ip=127.0.0.1 true x1 `,
		`refused:not_found agent=true ip=127.0.0.1 true x1 `,
		`token_issued agent=true ip=127.0.0.1 false x1 by signature`,
		`refused:timestamp_invalid agent=true ip=127.0.0.1 true x1 `,
		`refused:unauthorized agent=false ip=127.0.0.1 true x1 `,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if len(ids) != 3 {
		t.Errorf("got the key ids %v, want one for the key and one for each JWT", ids)
	}
}

func TestAgentDoorSecretsAreInNoLogTrailOrDatabase(t *testing.T) {
	log := &syncBuffer{}
	gw := gatewaytest.New(t, gatewaytest.SQLite(), gatewaytest.Logger(log.logger()))
	const wrong = "agk_live_neverissuedneverissuedneverissued"
	agent := doorRegister(t, gw, pair("one"))
	again := doorAuth(t, gw, agent, gw.Clock.Now().Format(time.RFC3339))
	wantDoor(t, again, http.StatusOK, "")
	doorWho(t, gw, wrong)
	for _, secret := range []string{agent.key, agent.token} {
		send(t, gw, http.MethodGet, doorWhoAmIPath+"/"+secret+"?api_key="+secret, "", nil)
		send(t, gw, http.MethodGet, "/agentdoor/"+secret, "", nil)
		doorVerify(t, gw, secret, secret)
		doorVerify(t, gw, "ag_"+secret[:40], pair("one").sign("x"))
		doorBegin(t, gw, secret, map[string]any{"metadata": map[string]any{secret: secret}, "x402_wallet": secret}, nil)
		doorBegin(t, gw, pair("two").public(), map[string]any{"scopes_requested": []string{secret}}, nil)
		send(t, gw, http.MethodPost, doorAuthPath, `{"`+secret+`":1,"`+secret+`":2}`, nil)
	}
	secrets := append(gw.Secrets(), wrong)
	if len(secrets) != 4 {
		t.Errorf("got %d secrets, want a key, two JWTs and a wrong key", len(secrets))
	}
	for _, e := range gw.Audit(t) {
		wantNone(t, "the audit trail", fmt.Appendf(nil, "%+v", e), secrets...)
	}
	gw.Restart(t)
	wantNone(t, "the log", log.bytes(), secrets...)
	files, err := filepath.Glob(gw.Database + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no database: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wantNone(t, filepath.Base(file), text, secrets...)
	}
}
