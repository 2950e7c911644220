package embeddedgateway_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// attempter is an operation that takes an Idempotency-Key.
type attempter struct {
	name, protocol string
	ok             int // the status of a success
	// begin returns what makes the attempt of an agent, from an address.
	begin func(t *testing.T, gw *gatewaytest.Gateway, agent string) func(key, ip string) answer
	// works reports whether the secret of an answer is good.
	works func(t *testing.T, gw *gatewaytest.Gateway, agent string, a answer) bool
	// moveOn has something else issued in the place of what an answer has.
	moveOn func(t *testing.T, gw *gatewaytest.Gateway, agent string, a answer)
	// over is how an attempt is answered that is not the one before: where it is
	// a success it is another agent.
	over     int
	overCode string
	// suspended is how one is whose agent is suspended.
	suspended     int
	suspendedCode string
	invalid       string // the code of a request that is wrong
	reused        string
	id            []string // where an answer says which agent it is
}

func named(key, ip string) header { return header{"Idempotency-Key": key, "X-Forwarded-For": ip} }

func attempters() []attempter {
	return []attempter{
		{
			name: "lona", protocol: "lona", ok: 201, over: 409, overCode: "agent_exists", suspended: 403, suspendedCode: "agent_suspended",
			invalid: "invalid_request", reused: "idempotency_key_reused", id: []string{"data", "partner_id"},
			begin: func(t *testing.T, gw *gatewaytest.Gateway, agent string) func(key, ip string) answer {
				return func(key, ip string) answer {
					a := postJSON(t, gw, "/api/v1/agents/request-invite", map[string]any{"agent_id": agent, "agent_name": "A"}, header{"X-Forwarded-For": ip})
					wantStatus(t, a, 201, "")
					return withInvite(t, gw, agent, a.at("data", "invite_code"), named(key, ip))
				}
			},
			works: func(t *testing.T, gw *gatewaytest.Gateway, agent string, a answer) bool {
				return strategies(t, gw, agent, a.at("data", "token")).status == 200
			},
			moveOn: func(t *testing.T, gw *gatewaytest.Gateway, agent string, a answer) {
				wantStatus(t, withInvite(t, gw, agent, invited(t, gw, agent), header{"X-API-Key": a.at("data", "token")}), 201, "")
			},
		},
		{
			name: "lithtrix", protocol: "lithtrix", ok: 201, over: 409, overCode: "AGENT_ALREADY_EXISTS", suspended: 409, suspendedCode: "AGENT_ALREADY_EXISTS",
			invalid: "VALIDATION_ERROR", reused: "IDEMPOTENCY_KEY_REUSED", id: []string{"agent_id"},
			begin: func(t *testing.T, gw *gatewaytest.Gateway, agent string) func(key, ip string) answer {
				return func(key, ip string) answer { return ltxRegister(t, gw, agent, owner, nil, named(key, ip)) }
			},
			works: ltxAnswerWorks,
			moveOn: func(t *testing.T, gw *gatewaytest.Gateway, _ string, a answer) {
				ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, a.at("api_key")), 200, "")
			},
		},
		{
			name: "lithtrix rotation", protocol: "lithtrix", ok: 200, over: 401, overCode: "INVALID_API_KEY", suspended: 401, suspendedCode: "INVALID_API_KEY",
			invalid: "VALIDATION_ERROR", reused: "IDEMPOTENCY_KEY_REUSED", id: []string{"agent_id"},
			begin: func(t *testing.T, gw *gatewaytest.Gateway, agent string) func(key, ip string) answer {
				old := ltxKey(t, gw, agent)
				return func(key, ip string) answer {
					h := named(key, ip)
					h["Authorization"] = "Bearer " + old
					return send(t, gw, http.MethodPost, ltxRotatePath, "", h)
				}
			},
			works: ltxAnswerWorks,
			moveOn: func(t *testing.T, gw *gatewaytest.Gateway, _ string, a answer) {
				ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, a.at("api_key")), 200, "")
			},
		},
		{
			name: "fluxra", protocol: "fluxra", ok: 201, over: 201, suspended: 403, suspendedCode: "FORBIDDEN",
			invalid: "INVALID_REQUEST", reused: "IDEMPOTENCY_KEY_REUSED", id: []string{"agent_id"},
			begin: func(t *testing.T, gw *gatewaytest.Gateway, agent string) func(key, ip string) answer {
				return func(key, ip string) answer {
					return postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": agent, "email": agent + "@example.com"}, named(key, ip))
				}
			},
			works: func(t *testing.T, gw *gatewaytest.Gateway, _ string, a answer) bool {
				return fluxAgent{id: a.at("agent_id"), recovery: a.at("recovery_key")}.makeKey(t, gw, nil).status == 201
			},
			moveOn: func(t *testing.T, gw *gatewaytest.Gateway, agent string, _ answer) {
				wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), 200, "")
				wantStatus(t, askCode(t, gw, agent+"@example.com"), 200, "")
				wantStatus(t, recoverBy(t, gw, agent+"@example.com", lastCode(t, gw)), 200, "")
			},
		},
	}
}

func ltxAnswerWorks(t *testing.T, gw *gatewaytest.Gateway, _ string, a answer) bool {
	return ltxWorks(t, gw, a.at("api_key"))
}

// says is the code of a refusal of whichever protocol.
func says(a answer) string {
	if code := a.at("error_code"); code != "" {
		return code
	}
	return a.code()
}

const attemptKey = "5f0c6b0e8f0d4d1c9d6ad4c7d8c0b1a25f0c6b0e8f0d4d1c9d6ad4c7d8c0b1a2"

func quoted(key string) string { return `"` + key + `"` }

// attempts runs a test for every operation at a gateway of its own.
func attempts(t *testing.T, f func(t *testing.T, gw *gatewaytest.Gateway, op attempter)) {
	t.Helper()
	for _, op := range attempters() {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			gw := gatewaytest.New(t, gatewaytest.Standalone(), gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
			f(t, gw, op)
		})
	}
}

// wantOver checks that an attempt is not taken for the one that was answered
// with before, which is as good as it was.
func (op attempter) wantOver(t *testing.T, what string, a, before answer) {
	t.Helper()
	if a.status != op.over || says(a) != op.overCode {
		t.Errorf("%s: got %d %s, want %d %q", what, a.status, a.body, op.over, op.overCode)
	}
	if a.status < 300 && a.at(op.id...) == before.at(op.id...) {
		t.Errorf("%s: got the agent %s, want another one", what, a.at(op.id...))
	}
}

func TestTheSameAttemptGetsWhatWasLost(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		try := op.begin(t, gw, "my-agent")
		first := try(quoted(attemptKey), "203.0.113.1")
		if first.status != op.ok || !op.works(t, gw, "my-agent", first) {
			t.Fatalf("got %d %s", first.status, first.body)
		}
		for i, wait := range []time.Duration{0, 24*time.Hour - time.Microsecond, 24*time.Hour - time.Microsecond} {
			gw.Clock.Advance(wait)
			gw.Restart(t)
			again := try(" "+quoted(attemptKey), fmt.Sprintf("203.0.113.%d", i+2))
			if again.status != op.ok || !op.works(t, gw, "my-agent", again) {
				t.Fatalf("again, after %v: got %d %s, want a secret that works", wait, again.status, again.body)
			}
			if op.works(t, gw, "my-agent", first) {
				t.Errorf("after %v: the secret before still works", wait)
			}
			if got, want := again.at(op.id...), first.at(op.id...); got != want || got == "" {
				t.Errorf("got the agent %q, want %q", got, want)
			}
			first = again
		}
		told := 0
		for _, e := range gw.Audit(t) {
			if strings.Contains(e.Detail, "the same attempt again") && !e.Refusal {
				told++
			}
			wantNone(t, "the audit trail", fmt.Append(nil, e), attemptKey)
		}
		if told != 3 {
			t.Errorf("the audit trail names %d repeated attempts, want 3", told)
		}
	})
}

func TestAnAttemptIsOver(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		for agent, end := range map[string]func(try func(key, ip string) answer, first answer) answer{
			"another-key": func(try func(key, ip string) answer, _ answer) answer {
				return try(quoted(strings.ToUpper(attemptKey)), "203.0.113.2")
			},
			"no-key": func(try func(key, ip string) answer, _ answer) answer { return try("", "203.0.113.3") },
			"after-a-day": func(try func(key, ip string) answer, _ answer) answer {
				gw.Clock.Advance(24 * time.Hour)
				return try(quoted(attemptKey+"after-a-day"), "203.0.113.4")
			},
			"after-another": func(try func(key, ip string) answer, first answer) answer {
				op.moveOn(t, gw, "after-another", first)
				return try(quoted(attemptKey+"after-another"), "203.0.113.5")
			},
		} {
			try := op.begin(t, gw, agent)
			first := try(quoted(attemptKey+agent), "203.0.113.1")
			if first.status != op.ok {
				t.Fatalf("%s: got %d %s", agent, first.status, first.body)
			}
			op.wantOver(t, agent, end(try, first), first)
			if got := op.works(t, gw, agent, first); got != (agent != "after-another") {
				t.Errorf("%s: what was issued first works: %v", agent, got)
			}
			gw.Clock.Advance(time.Hour) // the limits
		}
	})
}

func TestTheSameAttemptAtOnceLeavesOneSecret(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		try := op.begin(t, gw, "my-agent")
		answers := race(16, func(i int) answer { return try(quoted(attemptKey), fmt.Sprintf("203.0.113.%d", i)) })
		good := 0
		for _, a := range answers {
			if a.status != op.ok || a.at(op.id...) != answers[0].at(op.id...) {
				t.Fatalf("got %d %s, want the same agent for all", a.status, a.body)
			}
			if op.works(t, gw, "my-agent", a) {
				good++
			}
		}
		if good != 1 {
			t.Errorf("%d secrets work, want 1", good)
		}
	})
}

func TestAnAttemptIsOneAgents(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		mine := op.begin(t, gw, "my-agent")(quoted(attemptKey), "203.0.113.1")
		try := op.begin(t, gw, "your-agent")
		if a := try(quoted(attemptKey), "203.0.113.2"); a.status != 409 || says(a) != op.reused {
			t.Errorf("got %d %s, want 409 %s", a.status, a.body, op.reused)
		}
		if !op.works(t, gw, "my-agent", mine) {
			t.Error("what the first one was issued works no more")
		}
		// Nothing was done, so the other one can go on.
		if a := try(quoted(strings.ToUpper(attemptKey)), "203.0.113.2"); a.status != op.ok || !op.works(t, gw, "your-agent", a) {
			t.Errorf("with another key: got %d %s", a.status, a.body)
		}
	})
}

func TestAFluxraAttemptIsForOneEmail(t *testing.T) {
	gw := gatewaytest.New(t)
	register := func(email string) answer {
		return postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": "my-agent", "email": email},
			header{"Idempotency-Key": quoted(attemptKey)})
	}
	first := register("bot@example.com")
	for _, email := range []string{"other@example.com", ""} {
		wantStatus(t, register(email), 409, "IDEMPOTENCY_KEY_REUSED")
	}
	again := register("Bot@Example.com")
	if again.status != 201 || again.at("agent_id") != first.at("agent_id") {
		t.Errorf("in other letters: got %d %s, want the same agent", again.status, again.body)
	}
	wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), 200, "")
}

func TestARepeatedFluxraRegistrationEndsEveryKey(t *testing.T) {
	gw := gatewaytest.New(t)
	register := func() answer {
		return postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": "my-agent"}, header{"Idempotency-Key": quoted(attemptKey)})
	}
	first := register()
	agent := fluxAgent{id: first.at("agent_id"), recovery: first.at("recovery_key")}.withKey(t, gw, nil)
	register()
	agent.wantJWT(t, gw, "the token of an ended key", 401, "UNAUTHORIZED")
	wantStatus(t, agent.token(t, gw), 401, "UNAUTHORIZED")
}

func TestAnIdempotencyKeyThatCannotBeReadIsRefused(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		try := op.begin(t, gw, "my-agent")
		for i, key := range []string{
			attemptKey, `"short"`, quoted(strings.Repeat("x", 256)), `"` + attemptKey, quoted(attemptKey) + ";a=1",
			quoted(attemptKey) + ", " + quoted(attemptKey), quoted(attemptKey + "ä"), quoted(attemptKey + `\n`), `""`, "?1",
		} {
			a := try(key, fmt.Sprintf("203.0.113.%d", i/2)) // refused at no cost
			if a.status != 400 || says(a) != op.invalid || strings.Contains(string(a.body), attemptKey) {
				t.Errorf("%s: got %d %s, want 400 %s", key, a.status, a.body, op.invalid)
			}
		}
		if a := try(quoted(attemptKey), "203.0.113.99"); a.status != op.ok {
			t.Errorf("got %d %s after what was refused", a.status, a.body)
		}
	})
}

func TestMalformedKeysCostNothing(t *testing.T) {
	gw := gatewaytest.New(t)
	for range 20 {
		wantStatus(t, postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": "my-agent"}, header{"Idempotency-Key": "x"}), 400, "INVALID_REQUEST")
		ltxWant(t, ltxRegister(t, gw, "my-agent", owner, nil, header{"Idempotency-Key": "x"}), 400, "VALIDATION_ERROR")
	}
	wantStatus(t, fluxRegister(t, gw, ""), 201, "")
	ltxKey(t, gw, "my-agent")
}

func TestTwoIdempotencyKeysAreRefused(t *testing.T) {
	gw := gatewaytest.New(t)
	req, err := http.NewRequest(http.MethodPost, gw.URL+"/api/auth/register", strings.NewReader(`{"agent_name":"my-agent"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for range 2 {
		req.Header.Add("Idempotency-Key", quoted(attemptKey))
	}
	resp, err := gw.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d, want 400", resp.StatusCode)
	}
}

func TestRepeatedAttemptsCountAgainstTheLimits(t *testing.T) {
	gw := gatewaytest.New(t)
	for i := range 11 {
		want := 201
		if i == 10 {
			want = 429
		}
		for _, a := range []answer{
			ltxRegister(t, gw, "my-agent", owner, nil, header{"Idempotency-Key": quoted(attemptKey)}),
			postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": "my-agent"}, header{"Idempotency-Key": quoted(attemptKey)}),
		} {
			if a.status != want {
				t.Errorf("attempt %d: got %d %s, want %d", i+1, a.status, a.body, want)
			}
		}
	}
}

func TestASuspendedAgentGetsNothingByTheSameAttempt(t *testing.T) {
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		try := op.begin(t, gw, "my-agent")
		first := try(quoted(attemptKey), "203.0.113.1")
		name := first.at(op.id...)
		if op.protocol == "lithtrix" {
			name = "my-agent/" + owner
		}
		if err := gw.Embedded().Suspend(t.Context(), op.protocol, name); err != nil {
			t.Fatal(err)
		}
		issued := len(gw.Secrets())
		a := try(quoted(attemptKey), "203.0.113.2")
		if a.status != op.suspended || says(a) != op.suspendedCode {
			t.Errorf("got %d %s, want %d %s", a.status, a.body, op.suspended, op.suspendedCode)
		}
		if got := len(gw.Secrets()); got != issued && op.protocol != "lona" { // which issues invites
			t.Errorf("got %d secrets after the suspension", got-issued)
		}
		if err := gw.Embedded().Delete(t.Context(), op.protocol, name); err != nil {
			t.Fatal(err)
		}
		if a := try(quoted(attemptKey), "203.0.113.3"); op.ok == 201 && (a.status != 201 || !op.works(t, gw, "my-agent", a)) {
			t.Errorf("when it is deleted: got %d %s, want a new agent", a.status, a.body)
		}
	})
}

func TestAnOldKeyOfLithtrixIsGoodForItsOwnRotationOnly(t *testing.T) {
	gw := gatewaytest.New(t)
	old := ltxKey(t, gw, "my-agent")
	other := ltxKey(t, gw, "your-agent")
	with := func(method, path, key string) answer {
		return send(t, gw, method, path, "", header{"Authorization": "Bearer " + key, "Idempotency-Key": quoted(attemptKey)})
	}
	first := with(http.MethodPost, ltxRotatePath, old)
	ltxWant(t, first, 200, "")
	for _, path := range []string{ltxMePath, ltxBillingPath} {
		ltxWant(t, with(http.MethodGet, path, old), 401, "INVALID_API_KEY")
	}
	// Of another agent, also when it was rotated.
	ltxWant(t, ltxWith(t, gw, http.MethodPost, ltxRotatePath, other), 200, "")
	ltxWant(t, with(http.MethodPost, ltxRotatePath, other), 401, "INVALID_API_KEY")
	// Nor does it use up the turns of its agent.
	for range 60 {
		ltxWant(t, send(t, gw, http.MethodPost, ltxRotatePath, "", header{
			"Authorization": "Bearer " + other, "Idempotency-Key": quoted(strings.ToUpper(attemptKey)),
		}), 401, "INVALID_API_KEY")
	}
	if !ltxWorks(t, gw, first.at("api_key")) {
		t.Error("the new key does not work")
	}
	ltxWant(t, with(http.MethodPost, ltxRotatePath, old), 200, "")
}

func TestIdempotencyKeysAreNotStored(t *testing.T) {
	log := &syncBuffer{}
	attempts(t, func(t *testing.T, gw *gatewaytest.Gateway, op attempter) {
		gw.Restart(t, gatewaytest.SQLite(), gatewaytest.Logger(log.logger()))
		try := op.begin(t, gw, "my-agent")
		try(quoted(attemptKey), "203.0.113.1")
		try(quoted(attemptKey), "203.0.113.2")
		try(attemptKey, "203.0.113.3")
		wantNone(t, "the log", log.bytes(), attemptKey)
		for _, suffix := range []string{"", "-wal"} {
			text, err := os.ReadFile(filepath.Clean(gw.Database + suffix))
			if err != nil {
				t.Fatal(err)
			}
			wantNone(t, "the database", text, attemptKey)
		}
	})
}
