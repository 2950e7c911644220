package embeddedgateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const (
	ltxRegisterPath     = "/v1/register"
	ltxRotatePath       = "/v1/keys/rotate"
	ltxMePath           = "/v1/me"
	ltxCapabilitiesPath = "/v1/capabilities"
	ltxBillingPath      = "/v1/billing"

	owner = "you@example.com"
)

// ltxRegister registers a pair, with what else is in the body.
func ltxRegister(t testing.TB, gw *gatewaytest.Gateway, agent, owner string, more map[string]any, h header) answer {
	t.Helper()
	body := map[string]any{"agent_name": agent, "owner_identifier": owner}
	for name, value := range more {
		body[name] = value
	}
	return postJSON(t, gw, ltxRegisterPath, body, h)
}

// ltxKey registers an agent and returns its key.
func ltxKey(t testing.TB, gw *gatewaytest.Gateway, agent string) string {
	t.Helper()
	a := ltxRegister(t, gw, agent, owner, nil, nil)
	ltxWant(t, a, http.StatusCreated, "")
	return a.at("api_key")
}

func ltxWith(t testing.TB, gw *gatewaytest.Gateway, method, path, key string) answer {
	t.Helper()
	return send(t, gw, method, path, "", header{"Authorization": "Bearer " + key})
}

func ltxWant(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.at("error_code") != code {
		t.Fatalf("got %d %q (%s), want %d %q", a.status, a.at("error_code"), a.body, status, code)
	}
	if code == "" {
		return
	}
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil || len(got) != 3 || got["status"] != "error" || got["message"] == "" {
		t.Errorf("got the error %s, want status, error_code and message", a.body)
	}
}

func ltxWorks(t testing.TB, gw *gatewaytest.Gateway, key string) bool {
	t.Helper()
	a := ltxWith(t, gw, http.MethodGet, ltxMePath, key)
	if a.status != http.StatusOK {
		ltxWant(t, a, http.StatusUnauthorized, "INVALID_API_KEY")
	}
	return a.status == http.StatusOK
}

// What an agent_id looks like (seed: a UUID), and a key.
var (
	uuidLike = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	ltxLike  = regexp.MustCompile(`^ltx_[a-zA-Z0-9]{43,}$`)
)

func TestLithtrixAnswersAsItsDocumentationShows(t *testing.T) {
	gw := gatewaytest.New(t)
	registered := replayAt(t, gw, "lithtrix", "register", "lithtrix.ai", nil)
	now := strings.NewReplacer("ltx_a3f9b2c1...", registered.at("api_key"))
	replayAt(t, gw, "lithtrix", "exists", "lithtrix.ai", nil)
	me := replayAt(t, gw, "lithtrix", "me", "lithtrix.ai", now)
	replayAt(t, gw, "lithtrix", "billing", "lithtrix.ai", now)
	replayAt(t, gw, "lithtrix", "capabilities", "lithtrix.ai", nil)
	rotated := replayAt(t, gw, "lithtrix", "rotate", "lithtrix.ai", now)
	for what, a := range map[string]answer{"me": me, "rotate": rotated} {
		if got, want := a.at("agent_id"), registered.at("agent_id"); got != want {
			t.Errorf("%s: got the agent_id %s, want %s", what, got, want)
		}
	}
	if rotated.at("api_key") == registered.at("api_key") {
		t.Error("rotation answered with the old key")
	}
}

func TestLithtrixRegistersAPairOnce(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "my-agent")
	ltxWant(t, ltxRegister(t, gw, "my-agent", owner, nil, nil), http.StatusConflict, "AGENT_ALREADY_EXISTS")
	if !ltxWorks(t, gw, key) {
		t.Error("the key does not work after the refusal")
	}
	// Another half of the pair is another agent.
	for _, pair := range [][2]string{{"my-agent", "me@example.com"}, {"your-agent", owner}, {"My-Agent", owner}, {"my", "-agent/" + owner}, {"my-agent", owner + "/"}} {
		ltxWant(t, ltxRegister(t, gw, pair[0], pair[1], nil, nil), http.StatusCreated, "")
	}
	gw.Restart(t)
	ltxWant(t, ltxRegister(t, gw, "my-agent", owner, nil, nil), http.StatusConflict, "AGENT_ALREADY_EXISTS")
	if !ltxWorks(t, gw, key) {
		t.Error("the key does not work after a restart")
	}
}

func TestLithtrixPairHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
	answers := race(64, func(i int) answer {
		return ltxRegister(t, gw, "my-agent", owner, nil, header{"X-Forwarded-For": fmt.Sprintf("203.0.113.%d", i)})
	})
	var won []answer
	for _, a := range answers {
		if a.status == http.StatusCreated {
			won = append(won, a)
		} else {
			ltxWant(t, a, http.StatusConflict, "AGENT_ALREADY_EXISTS")
		}
	}
	if len(won) != 1 {
		t.Fatalf("got %d winners, want 1", len(won))
	}
	me := ltxWith(t, gw, http.MethodGet, ltxMePath, won[0].at("api_key"))
	ltxWant(t, me, http.StatusOK, "")
	if got, want := me.at("agent_id"), won[0].at("agent_id"); got != want {
		t.Errorf("got the agent_id %s, want the winner's, %s", got, want)
	}
}

func TestLithtrixRegistrationsAreTenAnHourExactly(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
	from := func(ip string, i int) answer {
		t.Helper()
		return ltxRegister(t, gw, fmt.Sprintf("agent-%d", i), owner, nil, header{"X-Forwarded-For": ip})
	}
	for i := range 10 {
		ltxWant(t, from("203.0.113.7", i), http.StatusCreated, "")
		ltxWant(t, ltxRegister(t, gw, "no good", owner, nil, header{"X-Forwarded-For": "203.0.113.7"}), http.StatusBadRequest, "VALIDATION_ERROR") // costs nothing
	}
	a := from("203.0.113.7", 10)
	ltxWant(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	if got, want := a.header.Get("Retry-After"), "3600"; got != want {
		t.Errorf("got Retry-After %s, want %s", got, want)
	}
	gw.Restart(t)
	ltxWant(t, from("203.0.113.7", 10), http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	ltxWant(t, from("203.0.113.8", 10), http.StatusCreated, "")
	gw.Clock.Advance(time.Hour)
	ltxWant(t, from("203.0.113.7", 11), http.StatusCreated, "")
}

func TestLithtrixTerms(t *testing.T) {
	required := gatewaytest.Env(map[string]string{"LITHTRIX_REQUIRE_TERMS": "true"})
	for _, tt := range []struct {
		name             string
		more             map[string]any
		whenOff, whenReq int
	}{
		{"left out", nil, 201, 400},
		{"null", map[string]any{"agree_to_terms": nil}, 201, 400},
		{"false", map[string]any{"agree_to_terms": false}, 201, 400},
		{"true", map[string]any{"agree_to_terms": true}, 201, 201},
		{"a word", map[string]any{"agree_to_terms": "true"}, 400, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gw := gatewaytest.New(t)
			for round, want := range []int{tt.whenOff, tt.whenReq} {
				code := ""
				if want == 400 {
					code = "VALIDATION_ERROR"
				}
				for i := range 11 { // a refusal costs nothing
					a := ltxRegister(t, gw, fmt.Sprintf("agent-%d-%d", round, i), owner, tt.more, nil)
					ltxWant(t, a, want, code)
					if want == 201 {
						break
					}
				}
				gw.Restart(t, required)
			}
		})
	}
}

func TestLithtrixIgnoresNewerFields(t *testing.T) {
	gw := gatewaytest.New(t)
	ltxWant(t, ltxRegister(t, gw, "my-agent", owner, map[string]any{
		"referral_agent": "550e8400-e29b-41d4-a716-446655440000", "passport_public_key": "MCowBQYDK2VwAyEA",
		"recovery_public_key": []int{1}, "registration_source": map[string]any{"sdk": "x"}, "whatever": nil,
	}, nil), http.StatusCreated, "")
}

func TestLithtrixRefusesWrongFields(t *testing.T) {
	gw := gatewaytest.New(t)
	for name, body := range map[string]map[string]any{
		"no agent_name":         {"owner_identifier": owner},
		"no owner_identifier":   {"agent_name": "my-agent"},
		"a null agent_name":     {"agent_name": nil, "owner_identifier": owner},
		"names in another case": {"Agent_Name": "my-agent", "owner_identifier": owner},
		"a space":               {"agent_name": "my agent", "owner_identifier": owner},
		"a dot":                 {"agent_name": "my.agent", "owner_identifier": owner},
		"a long agent_name":     {"agent_name": strings.Repeat("a", 101), "owner_identifier": owner},
		"an empty owner":        {"agent_name": "my-agent", "owner_identifier": ""},
		"a long owner":          {"agent_name": "my-agent", "owner_identifier": strings.Repeat("ä", 256)},
		"a control character":   {"agent_name": "my-agent", "owner_identifier": "you\x1b[31m"},
		"a key as the name":     {"agent_name": "ltx_neverissuedneverissued", "owner_identifier": owner},
		"a key as the owner":    {"agent_name": "my-agent", "owner_identifier": "x ltx_neverissuedneverissued"},
	} {
		t.Run(name, func(t *testing.T) {
			ltxWant(t, postJSON(t, gw, ltxRegisterPath, body, nil), http.StatusBadRequest, "VALIDATION_ERROR")
		})
	}
	ltxWant(t, ltxRegister(t, gw, strings.Repeat("a", 100), strings.Repeat("ä", 255), nil, nil), http.StatusCreated, "")
}

func TestLithtrixRotates(t *testing.T) {
	gw := gatewaytest.New(t)
	other := ltxKey(t, gw, "other-agent")
	key := ltxKey(t, gw, "my-agent")
	for range 3 {
		a := ltxWith(t, gw, http.MethodPost, ltxRotatePath, key)
		ltxWant(t, a, http.StatusOK, "")
		if ltxWorks(t, gw, key) {
			t.Error("the old key works")
		}
		ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, key), http.StatusUnauthorized, "INVALID_API_KEY")
		if key = a.at("api_key"); !ltxWorks(t, gw, key) {
			t.Error("the new key does not work")
		}
	}
	if !ltxWorks(t, gw, other) {
		t.Error("the key of another agent has ended, too")
	}
}

func TestLithtrixRotationHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "my-agent")
	answers := race(32, func(int) answer { return ltxWith(t, gw, http.MethodPost, ltxRotatePath, key) })
	var won []answer
	for _, a := range answers {
		if a.status == http.StatusOK {
			won = append(won, a)
		} else {
			ltxWant(t, a, http.StatusUnauthorized, "INVALID_API_KEY")
		}
	}
	if len(won) != 1 || !ltxWorks(t, gw, won[0].at("api_key")) {
		t.Fatalf("got %d winners, want 1 with a key that works", len(won))
	}
}

func TestLithtrixRotationNeedsNoBody(t *testing.T) {
	const jsonType = "application/json"
	for _, b := range []struct {
		name, body, kind string
		status           int
	}{
		{"an empty object", "{}", jsonType, 200},
		{"unknown fields", `{"reason":"leaked"}`, jsonType, 200},
		{"no object", "[]", jsonType, 400},
		{"trailing data", "{} {}", jsonType, 400},
		{"duplicate keys", `{"a":1,"a":2}`, jsonType, 400},
		{"invalid UTF-8", "{\"a\":\"\xff\"}", jsonType, 400},
		{"nesting 1,000", `{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, jsonType, 400},
		{"65 KiB", `{"a":"` + strings.Repeat("z", 65<<10) + `"}`, jsonType, 413},
		{"a form", "a=1", "application/x-www-form-urlencoded", 415},
	} {
		t.Run(b.name, func(t *testing.T) {
			gw := gatewaytest.New(t)
			key := ltxKey(t, gw, "my-agent")
			a := send(t, gw, http.MethodPost, ltxRotatePath, b.body, header{"Authorization": "Bearer " + key, "Content-Type": b.kind})
			code := "VALIDATION_ERROR"
			if b.status == 200 {
				code = ""
			}
			ltxWant(t, a, b.status, code)
			if got, want := ltxWorks(t, gw, key), b.status != 200; got != want {
				t.Errorf("the old key works: %v, want %v", got, want)
			}
		})
	}
}

func TestLithtrixRotationTakesABodyOfNothing(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "my-agent")
	req, err := http.NewRequest(http.MethodPost, gw.URL+ltxRotatePath, io.MultiReader()) // sent in chunks: none
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got status %d, want 200", resp.StatusCode)
	}
}

func TestLithtrixRefusesAlikeWhateverIsWrongWithTheKey(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	key, lona := ltxKey(t, gw, "my-agent"), token(t, gw, "my-agent")
	var first []byte
	for name, h := range map[string]header{
		"no key":            nil,
		"an empty one":      {"Authorization": "Bearer"},
		"one that is wrong": {"Authorization": "Bearer " + key + "a"},
		"half of one":       {"Authorization": "Bearer " + key[:20]},
		"no scheme":         {"Authorization": key},
		"another scheme":    {"Authorization": "Basic " + key},
		"another header":    {"X-API-Key": key},
		"another service's": {"Authorization": "Bearer " + lona},
	} {
		for _, route := range [][2]string{{http.MethodGet, ltxMePath}, {http.MethodGet, ltxBillingPath}, {http.MethodPost, ltxRotatePath}} {
			t.Run(name+" at "+route[1], func(t *testing.T) {
				a := send(t, gw, route[0], route[1], "", h)
				ltxWant(t, a, http.StatusUnauthorized, "INVALID_API_KEY")
				if first == nil {
					first = a.body
				}
				if !bytes.Equal(a.body, first) {
					t.Errorf("got %s, want %s: the answers tell the cases apart", a.body, first)
				}
			})
		}
	}
	if !ltxWorks(t, gw, key) {
		t.Error("the key does not work")
	}
	ltxWant(t, send(t, gw, http.MethodGet, ltxMePath, "", header{"Authorization": "bearer  " + key}), http.StatusOK, "")
}

func TestLithtrixKeyIsGoodForSixtyRequestsAMinute(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(docTime.Truncate(time.Second)))
	key, other := ltxKey(t, gw, "my-agent"), ltxKey(t, gw, "other-agent")
	use := func(i int) answer {
		t.Helper()
		return ltxWith(t, gw, http.MethodGet, []string{ltxMePath, ltxBillingPath}[i%2], key)
	}
	for i := range 60 {
		ltxWant(t, use(i), http.StatusOK, "")
		gw.Clock.Advance(time.Second / 2)
	}
	limited := func(after int) {
		t.Helper()
		a := use(0)
		ltxWant(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		if got, want := a.header.Get("Retry-After"), strconv.Itoa(after); got != want {
			t.Errorf("got Retry-After %s, want %s", got, want)
		}
	}
	limited(30)
	ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, key), http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	ltxWant(t, ltxWith(t, gw, http.MethodGet, ltxMePath, other), http.StatusOK, "")
	ltxWant(t, send(t, gw, http.MethodGet, ltxCapabilitiesPath, "", nil), http.StatusOK, "")
	gw.Clock.Advance(30*time.Second - time.Microsecond)
	limited(1)
	gw.Clock.Advance(time.Microsecond)
	ltxWant(t, use(0), http.StatusOK, "") // the first of the sixty has left the window
	limited(1)
	gw.Restart(t) // the count is kept; a use counts until its second is over
	limited(1)
	gw.Clock.Advance(time.Minute + time.Second)
	ltxWant(t, use(0), http.StatusOK, "")
}

func TestLithtrixRotatesSixtyTimesAMinute(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "my-agent")
	for range 60 { // each with a key, and so a count, of its own
		a := ltxWith(t, gw, http.MethodPost, ltxRotatePath, key)
		ltxWant(t, a, http.StatusOK, "")
		key = a.at("api_key")
	}
	a := ltxWith(t, gw, http.MethodPost, ltxRotatePath, key)
	ltxWant(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
	if got := a.header.Get("Retry-After"); got != "60" {
		t.Errorf("got Retry-After %s, want 60", got)
	}
	ltxWant(t, ltxWith(t, gw, http.MethodGet, ltxMePath, key), http.StatusOK, "")
	gw.Clock.Advance(time.Minute)
	ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, key), http.StatusOK, "")
}

func TestLithtrixRequestsAtOnceAreSixty(t *testing.T) {
	gw := gatewaytest.New(t)
	key := ltxKey(t, gw, "my-agent")
	served := 0
	for _, a := range race(90, func(int) answer { return ltxWith(t, gw, http.MethodGet, ltxMePath, key) }) {
		if a.status == http.StatusOK {
			served++
		} else {
			ltxWant(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		}
	}
	if served != 60 {
		t.Errorf("got %d answers, want 60", served)
	}
}

func TestLithtrixKeepsAnAuditTrail(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(docTime))
	key := ltxKey(t, gw, "my-agent")
	ltxRegister(t, gw, "my-agent", owner, nil, nil)
	ltxWith(t, gw, http.MethodPost, ltxRotatePath, key)
	ltxWith(t, gw, http.MethodGet, ltxMePath, key)
	ltxWith(t, gw, http.MethodPost, ltxRotatePath, key)
	var got []string
	ids := map[string]bool{}
	for _, e := range gw.Audit(t) {
		got = append(got, fmt.Sprintf("%s %s agent=%s ip=%s %v x%d", e.Protocol, e.Name, e.Agent, e.IP, e.Refusal, e.Count))
		if e.KeyID != "" {
			ids[e.KeyID] = true
		}
	}
	want := []string{
		`lithtrix key_issued agent=my-agent/you@example.com ip=127.0.0.1 false x1`,
		`lithtrix refused:AGENT_ALREADY_EXISTS agent=my-agent/you@example.com ip=127.0.0.1 true x1`,
		`lithtrix key_rotated agent=my-agent/you@example.com ip=127.0.0.1 false x1`,
		`lithtrix refused:INVALID_API_KEY agent= ip=127.0.0.1 true x2`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	if len(ids) != 2 {
		t.Errorf("got the key ids %v, want one for each key", ids)
	}
}

func TestLithtrixSecretsAreInNoLogTrailOrDatabase(t *testing.T) {
	log := &syncBuffer{}
	gw := gatewaytest.New(t, gatewaytest.SQLite(), gatewaytest.Logger(log.logger()))
	const wrong = "ltx_neverissuedneverissuedneverissued"
	old := ltxKey(t, gw, "my-agent")
	key := ltxWith(t, gw, http.MethodPost, ltxRotatePath, old).at("api_key")
	ltxWith(t, gw, http.MethodGet, ltxMePath, wrong)
	ltxWith(t, gw, http.MethodGet, ltxMePath+"/"+key+"?api_key="+key, key)
	ltxRegister(t, gw, key, owner, nil, nil)
	ltxRegister(t, gw, "my-agent", key, nil, nil)
	send(t, gw, http.MethodPost, ltxRegisterPath, `{"agent_name":"`+key+`",}`, nil)
	send(t, gw, http.MethodPost, ltxRegisterPath, `{"`+key+`":1,"`+key+`":2}`, nil)

	secrets := append(gw.Secrets(), wrong)
	if len(secrets) != 3 {
		t.Errorf("got %d secrets, want two keys and a wrong one", len(secrets))
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
