package embeddedgateway_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

var (
	mailToken = regexp.MustCompile(`evt_[a-z0-9]{43,}`)
	mailCode  = regexp.MustCompile(`(?m)^    ([0-9]{6})$`)
)

func letters(t testing.TB, gw *gatewaytest.Gateway) []embeddedgateway.Letter {
	t.Helper()
	return embeddedgateway.Letters(t, gw.Embedded())
}

func suspend(t testing.TB, gw *gatewaytest.Gateway, agent string) {
	t.Helper()
	if err := gw.Embedded().Suspend(context.Background(), "fluxra", agent); err != nil {
		t.Fatalf("suspend: %v", err)
	}
}

func remove(t testing.TB, gw *gatewaytest.Gateway, agent string) {
	t.Helper()
	if err := gw.Embedded().Delete(context.Background(), "fluxra", agent); err != nil {
		t.Fatalf("delete: %v", err)
	}
}

// lastLetter is the newest letter.
func lastLetter(t testing.TB, gw *gatewaytest.Gateway) embeddedgateway.Letter {
	t.Helper()
	list := letters(t, gw)
	if len(list) == 0 {
		t.Fatal("there is no letter")
	}
	return list[len(list)-1]
}

// lastToken is the verification token in the newest letter.
func lastToken(t testing.TB, gw *gatewaytest.Gateway) string {
	t.Helper()
	token := mailToken.FindString(lastLetter(t, gw).Text)
	if token == "" {
		t.Fatal("the newest letter has no token")
	}
	gw.Issued(token)
	return token
}

// lastCode is the recovery code in the newest letter.
func lastCode(t testing.TB, gw *gatewaytest.Gateway) string {
	t.Helper()
	found := mailCode.FindStringSubmatch(lastLetter(t, gw).Text)
	if found == nil {
		t.Fatal("the newest letter has no code")
	}
	return found[1]
}

// wrongOf is a code that is not code.
func wrongOf(code string) string {
	return fmt.Sprintf("%c%s", '0'+('9'-code[0]), code[1:])
}

func verifyBy(t testing.TB, gw *gatewaytest.Gateway, token string) answer {
	t.Helper()
	return postJSON(t, gw, "/api/auth/verify-email", map[string]any{"token": token}, nil)
}

func verifyLink(t testing.TB, gw *gatewaytest.Gateway, method, token, accept string) answer {
	t.Helper()
	return send(t, gw, method, "/api/auth/verify-email?token="+token, "", header{"Accept": accept})
}

func resend(t testing.TB, gw *gatewaytest.Gateway, email string) answer {
	t.Helper()
	return postJSON(t, gw, "/api/auth/verification/resend", map[string]any{"email": email}, nil)
}

func askCode(t testing.TB, gw *gatewaytest.Gateway, email string) answer {
	t.Helper()
	return postJSON(t, gw, "/api/auth/recovery/request", map[string]any{"email": email}, nil)
}

func recoverBy(t testing.TB, gw *gatewaytest.Gateway, email, code string) answer {
	t.Helper()
	return postJSON(t, gw, "/api/auth/recovery/verify", map[string]any{"email": email, "code": code}, nil)
}

// fluxVerified registers an agent with an email and verifies it.
func fluxVerified(t testing.TB, gw *gatewaytest.Gateway, email string) fluxAgent {
	t.Helper()
	agent := fluxNew(t, gw, email)
	wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), http.StatusOK, "")
	return agent
}

func TestFluxraVerifiesAnEmailOnce(t *testing.T) {
	for name, verify := range map[string]func(*gatewaytest.Gateway, string) answer{
		"POST": func(gw *gatewaytest.Gateway, token string) answer { return verifyBy(t, gw, token) },
		"GET": func(gw *gatewaytest.Gateway, token string) answer {
			return verifyLink(t, gw, http.MethodGet, token, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t)
			agent := fluxNew(t, gw, fluxBot)
			token := lastToken(t, gw)
			gw.Restart(t)
			for _, wrong := range []string{token + "a", token[:20], "evt_", agent.key, "%00"} {
				wantStatus(t, verify(gw, wrong), http.StatusUnauthorized, "INVALID_TOKEN")
			}
			wantStatus(t, verify(gw, ""), map[string]int{"POST": 400, "GET": 400}[name], "INVALID_REQUEST")
			gw.Clock.Advance(time.Hour - time.Microsecond)
			a := verify(gw, token)
			wantStatus(t, a, http.StatusOK, "")
			if a.at("agent_id") != agent.id {
				t.Errorf("got %s, want the agent %s", a.body, agent.id)
			}
			wantStatus(t, verify(gw, token), http.StatusUnauthorized, "INVALID_TOKEN")

			gw.Clock.Advance(time.Hour)
			fluxNew(t, gw, "other@example.com")
			late := lastToken(t, gw)
			gw.Clock.Advance(time.Hour)
			a = verify(gw, late)
			wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
			if a.header.Get("WWW-Authenticate") == "" {
				t.Error("a 401 without WWW-Authenticate")
			}
		})
	}
}

func TestFluxraVerificationHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	won := 0
	for _, a := range race(64, func(i int) answer {
		if i%2 == 0 {
			return verifyLink(t, gw, http.MethodGet, token, "")
		}
		return verifyBy(t, gw, token)
	}) {
		if a.status == http.StatusOK {
			won++
		} else {
			wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
		}
	}
	if won != 1 {
		t.Errorf("got %d winners, want 1", won)
	}
}

func TestFluxraEmailIsVerifiedForOneAgent(t *testing.T) {
	gw := gatewaytest.New(t)
	var tokens, ids []string
	for range 5 { // registering is open to all of them, and each gets a letter
		a := fluxRegister(t, gw, fluxBot)
		wantStatus(t, a, http.StatusCreated, "")
		tokens, ids = append(tokens, lastToken(t, gw)), append(ids, a.at("agent_id"))
	}
	winner := ""
	for i, a := range race(5, func(i int) answer { return verifyBy(t, gw, tokens[i]) }) {
		if a.status == http.StatusOK {
			if winner != "" {
				t.Error("a second agent has verified the address")
			}
			winner = ids[i]
			continue
		}
		wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
		if !strings.Contains(a.at("error", "message"), "another agent") {
			t.Errorf("got %s: it does not say why", a.body)
		}
	}
	askCode(t, gw, "BOT@Example.com")
	l := lastLetter(t, gw)
	if l.To != fluxBot || !strings.Contains(l.Text, winner) {
		t.Errorf("got a letter to %s, want one about %s to the address that was verified", l.To, winner)
	}
	// When the agent goes, the address is free.
	remove(t, gw, winner)
	wantStatus(t, recoverBy(t, gw, fluxBot, lastCode(t, gw)), http.StatusUnauthorized, "INVALID_TOKEN")
	i := (slices.Index(ids, winner) + 1) % len(ids)
	wantStatus(t, verifyBy(t, gw, tokens[i]), http.StatusOK, "")
}

func TestFluxraEmailOfASuspendedAgentVerifiesAndRecoversNothing(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxRegister(t, gw, fluxBot)
	agent := fluxVerified(t, gw, "other@example.com")
	waiting := fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	askCode(t, gw, "other@example.com")
	code := lastCode(t, gw)
	for _, a := range []fluxAgent{agent, waiting} {
		suspend(t, gw, a.id)
	}
	before := len(letters(t, gw))
	wantStatus(t, verifyBy(t, gw, token), http.StatusUnauthorized, "INVALID_TOKEN")
	wantStatus(t, recoverBy(t, gw, "other@example.com", code), http.StatusUnauthorized, "INVALID_TOKEN")
	wantStatus(t, resend(t, gw, fluxBot), http.StatusOK, "")
	wantStatus(t, askCode(t, gw, "other@example.com"), http.StatusOK, "")
	if got := len(letters(t, gw)); got != before {
		t.Errorf("got %d new letters, want none", got-before)
	}
}

func TestFluxraResendsToWhoIsUnverified(t *testing.T) {
	gw := gatewaytest.New(t)
	first := fluxNew(t, gw, fluxBot)
	old := lastToken(t, gw)
	wantStatus(t, resend(t, gw, fluxBot), http.StatusOK, "")
	token := lastToken(t, gw)
	if token == old || len(letters(t, gw)) != 2 {
		t.Fatal("got no new letter")
	}
	wantStatus(t, verifyBy(t, gw, old), http.StatusUnauthorized, "INVALID_TOKEN") // the new one is in its place
	second := fluxNew(t, gw, fluxBot)
	gw.Clock.Advance(2 * time.Hour)
	wantStatus(t, resend(t, gw, fluxBot), http.StatusOK, "")
	if l := lastLetter(t, gw); !strings.Contains(l.Text, second.id) || strings.Contains(l.Text, first.id) {
		t.Errorf("got %s, want a letter about the agent that registered last", l.Text)
	}
	wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), http.StatusOK, "")
	before := len(letters(t, gw))
	wantStatus(t, resend(t, gw, fluxBot), http.StatusOK, "")
	if got := len(letters(t, gw)); got != before {
		t.Error("a letter went to an address that is verified")
	}
	fluxNew(t, gw, fluxBot) // which could not verify it any more
	before = len(letters(t, gw))
	wantStatus(t, resend(t, gw, fluxBot), http.StatusOK, "")
	if got := len(letters(t, gw)); got != before {
		t.Error("a letter went to an address that is verified for another agent")
	}
}

// what a stranger can see of an answer.
func seen(t *testing.T, a answer) string {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(a.body, &body); err != nil {
		t.Fatalf("the body %q is not JSON: %v", a.body, err)
	}
	h := a.header.Clone()
	h.Del("Date")
	h.Del("X-Request-Id") // drawn for each
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lines = append(lines, name+": "+strings.Join(h[name], ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(body)) {
		if name == "email" {
			body[name] = "…"
		}
		lines = append(lines, fmt.Sprintf("%s=%v", name, body[name]))
	}
	return fmt.Sprintf("%d\n%s", a.status, strings.Join(lines, "\n"))
}

// counting counts the random bytes that are drawn: as many as secrets are made
// and letters enclosed.
type counting struct{ n atomic.Int64 }

// Read implements [io.Reader].
func (c *counting) Read(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return rand.Read(b)
}

func TestFluxraTellsNobodyWhetherAnEmailIsKnown(t *testing.T) {
	emails := []string{"nobody@example.com", "waits1@example.com", "known1@example.com", "gone01@example.com", "halted@example.com"}
	for path, gets := range map[string]string{"/api/auth/verification/resend": emails[1], "/api/auth/recovery/request": emails[2]} {
		t.Run(path, func(t *testing.T) {
			drawn := &counting{}
			gw := gatewaytest.New(t, gatewaytest.At(fluxTime), gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")),
				gatewaytest.Config(func(c *embeddedgateway.Config) { c.Rand = drawn }))
			fluxNew(t, gw, emails[1])
			fluxVerified(t, gw, emails[2])
			remove(t, gw, fluxVerified(t, gw, emails[3]).id)
			suspend(t, gw, fluxVerified(t, gw, emails[4]).id)
			var first string
			for i, email := range emails {
				before, events, bytes := len(letters(t, gw)), len(gw.Audit(t)), drawn.n.Load()
				said := ""
				for range 4 { // three are taken, the fourth is one too many
					a := postJSON(t, gw, path, map[string]any{"email": email}, header{"X-Forwarded-For": fmt.Sprintf("203.0.113.%d", i)})
					said += seen(t, a) + "\n"
				}
				// What is left behind: an event for each, and random bytes for
				// what was made, used or not.
				said += fmt.Sprintf("%d events, %d random bytes", len(gw.Audit(t))-events, drawn.n.Load()-bytes)
				want := 0
				if email == gets {
					want = 3
				}
				if got := len(letters(t, gw)) - before; got != want {
					t.Errorf("%s: got %d letters, want %d", email, got, want)
				}
				if i == 0 {
					first = said
				}
				if said != first {
					t.Errorf("%s: got\n%s\nwant, as for %s,\n%s", email, said, emails[0], first)
				}
			}
			if !strings.HasPrefix(first, "200\n") || !strings.Contains(first, "\n429\n") {
				t.Errorf("got\n%s\nwant three answers and a refusal", first)
			}
		})
	}
}

func TestFluxraWrongCodesAreAlikeForAllEmails(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxNew(t, gw, "waits@example.com")
	fluxVerified(t, gw, fluxBot)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	want := seen(t, recoverBy(t, gw, "nobody@example.com", code))
	for email, c := range map[string]string{"waits@example.com": code, fluxBot: wrongOf(code)} {
		if got := seen(t, recoverBy(t, gw, email, c)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", email, got, want)
		}
	}
	if !strings.HasPrefix(want, "401\n") || !strings.Contains(want, "INVALID_TOKEN") {
		t.Errorf("got %s, want 401 INVALID_TOKEN", want)
	}
}

func TestFluxraCodesAreNotGuessedAtDayAfterDay(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxVerified(t, gw, fluxBot)
	other := fluxVerified(t, gw, "other@example.com")
	for range 3 {
		askCode(t, gw, fluxBot)
		code := lastCode(t, gw)
		for range 5 {
			wantStatus(t, recoverBy(t, gw, fluxBot, wrongOf(code)), http.StatusUnauthorized, "INVALID_TOKEN")
		}
		gw.Clock.Advance(time.Hour)
	}
	before := len(letters(t, gw))
	known, unknown := askCode(t, gw, fluxBot), askCode(t, gw, "nobody@example.com")
	if known.status != http.StatusOK || known.status != unknown.status || len(letters(t, gw)) != before {
		t.Errorf("got %d and %d, and %d new letters, want what anybody gets, and no letter",
			known.status, unknown.status, len(letters(t, gw))-before)
	}
	askCode(t, gw, "other@example.com")
	if a := recoverBy(t, gw, "other@example.com", lastCode(t, gw)); a.at("agent_id") != other.id {
		t.Errorf("another email: got %s", a.body)
	}
	gw.Clock.Advance(24 * time.Hour)
	askCode(t, gw, fluxBot)
	wantStatus(t, recoverBy(t, gw, fluxBot, lastCode(t, gw)), http.StatusOK, "")
}

func TestFluxraACodeThatIsOutDoesNotOutliveTheGuesses(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxVerified(t, gw, fluxBot)
	for n := range 3 {
		askCode(t, gw, fluxBot)
		for range 5 - n/2 { // 14 in all
			wantStatus(t, recoverBy(t, gw, fluxBot, wrongOf(lastCode(t, gw))), http.StatusUnauthorized, "INVALID_TOKEN")
		}
	}
	gw.Clock.Advance(time.Hour)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	wantStatus(t, recoverBy(t, gw, fluxBot, wrongOf(code)), http.StatusUnauthorized, "INVALID_TOKEN") // the 15th
	wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusUnauthorized, "INVALID_TOKEN")
}

func TestFluxraRegisteringWritesToAnAddressAFewTimesAnHour(t *testing.T) {
	gw := gatewaytest.New(t, delivering(), behind())
	register := func(n int, email string) (sent bool) {
		t.Helper()
		a := postJSON(t, gw, "/api/auth/register", map[string]any{"agent_name": "weather-bot", "email": email}, from(n))
		wantStatus(t, a, http.StatusCreated, "")
		var body struct {
			Sent bool `json:"email_verification_sent"`
		}
		if err := json.Unmarshal(a.body, &body); err != nil {
			t.Fatal(err)
		}
		return body.Sent
	}
	for n := range 7 {
		if got, want := register(n, fluxBot), n < 5; got != want {
			t.Errorf("letter %d: got sent %v, want %v", n+1, got, want)
		}
	}
	if got := len(letters(t, gw)); got != 5 {
		t.Errorf("got %d letters, want 5", got)
	}
	if !register(8, "other@example.com") {
		t.Error("another address gets none")
	}
	gw.Clock.Advance(time.Hour)
	if !register(9, fluxBot) {
		t.Error("an hour later it gets none")
	}
}

func TestFluxraLettersAreLimitedByAddressAndEmail(t *testing.T) {
	for name, ask := range map[string]func(testing.TB, *gatewaytest.Gateway, string) answer{"resend": resend, "recovery": askCode} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.At(fluxTime.Add(500*time.Millisecond)))
			want := func(a answer, status int, ipLeft, emailLeft string) {
				t.Helper()
				code := ""
				if status != http.StatusOK {
					code = "RATE_LIMIT_EXCEEDED"
				}
				wantStatus(t, a, status, code)
				for h, v := range map[string]string{
					"X-RateLimit-IP-Limit": "5", "X-RateLimit-Email-Limit": "3",
					"X-RateLimit-IP-Remaining": ipLeft, "X-RateLimit-Email-Remaining": emailLeft,
				} {
					if got := a.header.Get(h); got != v {
						t.Errorf("got %s %q, want %q", h, got, v)
					}
				}
				if got, w := a.header.Get("X-RateLimit-IP-Reset"), fmt.Sprint(fluxTime.Add(time.Hour).Unix()+1); got != w {
					t.Errorf("got X-RateLimit-IP-Reset %q, want %q", got, w)
				}
			}
			want(ask(t, gw, "a@example.com"), 200, "4", "2")
			gw.Clock.Advance(10 * time.Minute)
			want(ask(t, gw, "A@example.com"), 200, "3", "1") // the same mailbox
			want(ask(t, gw, "a@example.com"), 200, "2", "0")
			a := ask(t, gw, "a@example.com")
			want(a, 429, "2", "0") // what is refused does not count
			if got := a.header.Get("Retry-After"); got != "3000" {
				t.Errorf("got Retry-After %q, want 3000", got)
			}
			gw.Restart(t)
			wantStatus(t, ask(t, gw, "no address"), http.StatusBadRequest, "INVALID_EMAIL") // nor does a mistake
			want(ask(t, gw, "b@example.com"), 200, "1", "2")
			want(ask(t, gw, "c@example.com"), 200, "0", "2")
			a = ask(t, gw, "d@example.com")
			want(a, 429, "0", "3")
			if got := a.header.Get("Retry-After"); got != "3000" {
				t.Errorf("got Retry-After %q, want 3000", got)
			}
			gw.Clock.Advance(50 * time.Minute)
			wantStatus(t, ask(t, gw, "d@example.com"), http.StatusOK, "")
			wantStatus(t, ask(t, gw, "d@example.com"), http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
		})
	}
}

func TestFluxraRecovers(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxVerified(t, gw, fluxBot)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	gw.Restart(t)
	gw.Clock.Advance(15*time.Minute - time.Microsecond)
	a := recoverBy(t, gw, "Bot@Example.COM", code)
	wantStatus(t, a, http.StatusOK, "")
	if a.at("agent_id") != agent.id {
		t.Errorf("got %s, want the agent %s", a.body, agent.id)
	}
	wantStatus(t, agent.makeKey(t, gw, nil), http.StatusUnauthorized, "UNAUTHORIZED")
	wantStatus(t, agent.token(t, gw), http.StatusOK, "") // API keys stay
	recovered := agent
	recovered.recovery = a.at("recovery_key")
	wantStatus(t, recovered.makeKey(t, gw, nil), http.StatusCreated, "")
	gw.Clock.Advance(-time.Second)
	wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusConflict, "CODE_ALREADY_USED")
	gw.Clock.Advance(time.Second + time.Microsecond)
	wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusUnauthorized, "INVALID_TOKEN") // expired, used or not

	askCode(t, gw, fluxBot)
	code = lastCode(t, gw)
	gw.Clock.Advance(15 * time.Minute)
	wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusUnauthorized, "INVALID_TOKEN")
	wantStatus(t, recovered.makeKey(t, gw, nil), http.StatusCreated, "")
}

func TestFluxraRecoveryCodeHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxVerified(t, gw, fluxBot)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	var keys []string
	for _, a := range race(64, func(int) answer { return recoverBy(t, gw, fluxBot, code) }) {
		if a.status == http.StatusOK {
			keys = append(keys, a.at("recovery_key"))
		} else {
			wantStatus(t, a, http.StatusConflict, "CODE_ALREADY_USED")
		}
	}
	if len(keys) != 1 {
		t.Fatalf("got %d winners, want 1", len(keys))
	}
	agent.recovery = keys[0]
	wantStatus(t, agent.makeKey(t, gw, nil), http.StatusCreated, "")
}

func TestFluxraRecoveryLeavesNoWayInToTheOldKey(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxVerified(t, gw, fluxBot)
	var ids []string
	for range 64 {
		ids = append(ids, agent.makeKey(t, gw, nil).at("key_id"))
	}
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	for i, a := range race(129, func(i int) answer {
		switch {
		case i == 64:
			return recoverBy(t, gw, fluxBot, code)
		case i%2 == 0:
			return agent.makeKey(t, gw, nil)
		}
		return agent.deleteKey(t, gw, ids[i/2])
	}) {
		switch {
		case i == 64:
			wantStatus(t, a, http.StatusOK, "")
		case a.status >= 300:
			wantStatus(t, a, http.StatusUnauthorized, "UNAUTHORIZED")
		}
	}
	over := false
	for _, e := range gw.Audit(t) {
		if over && !e.Refusal {
			t.Errorf("after the recovery: %s by the old key", e.Name)
		}
		over = over || e.Name == "recovery_key_reset"
	}
}

func TestFluxraCodeIsVoidAfterFiveTries(t *testing.T) {
	for _, atOnce := range []bool{false, true} {
		gw := gatewaytest.New(t)
		fluxVerified(t, gw, fluxBot)
		askCode(t, gw, fluxBot)
		code := lastCode(t, gw)
		try := func(int) answer { return recoverBy(t, gw, fluxBot, wrongOf(code)) }
		for range 4 {
			wantStatus(t, try(0), http.StatusUnauthorized, "INVALID_TOKEN")
		}
		for _, malformed := range []string{"", "12345", "1234567", "12345a", "１２３４５６"} { // no tries
			wantStatus(t, recoverBy(t, gw, fluxBot, malformed), http.StatusBadRequest, "INVALID_REQUEST")
		}
		if !atOnce {
			wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusOK, "") // the fifth is right
			askCode(t, gw, fluxBot)
			code = lastCode(t, gw)
			for range 5 {
				wantStatus(t, try(0), http.StatusUnauthorized, "INVALID_TOKEN")
			}
		} else {
			race(16, try)
		}
		gw.Restart(t)
		wantStatus(t, recoverBy(t, gw, fluxBot, code), http.StatusUnauthorized, "INVALID_TOKEN")
	}
}

func TestFluxraWrongCodesAreAHundredAnHourFromAnAddress(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	agent := fluxVerified(t, gw, fluxBot)
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	try := func(email, code string, n int) answer {
		return postJSON(t, gw, "/api/auth/recovery/verify", map[string]any{"email": email, "code": code}, from(n))
	}
	wantStatus(t, try(fluxBot, code, 1), http.StatusOK, "")
	for range 20 { // what was right once is no guess
		wantStatus(t, try(fluxBot, code, 1), http.StatusConflict, "CODE_ALREADY_USED")
	}
	askCode(t, gw, fluxBot)
	code = lastCode(t, gw)
	refused := 0
	for i, a := range race(128, func(i int) answer { return try([]string{"nobody@example.com", "other@example.com"}[i%2], "123456", 1) }) {
		if a.status == http.StatusTooManyRequests {
			wantStatus(t, a, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED")
			if got := a.header.Get("Retry-After"); got != "3600" {
				t.Errorf("answer %d: got Retry-After %q, want 3600", i, got)
			}
			refused++
		} else {
			wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
		}
	}
	if refused != 128-100 {
		t.Errorf("%d wrong codes were refused unread, want %d", refused, 128-100)
	}
	gw.Restart(t)
	// Whatever comes from there is not looked at, and so voids no code.
	want := seen(t, try("nobody@example.com", code, 1))
	for _, c := range []string{code, wrongOf(code), wrongOf(code), wrongOf(code), wrongOf(code), wrongOf(code)} {
		if got := seen(t, try(fluxBot, c, 1)); got != want || !strings.HasPrefix(got, "429\n") {
			t.Errorf("got\n%s\nwant, as for an email that is nobody's,\n%s", got, want)
		}
	}
	a := try(fluxBot, code, 2)
	wantStatus(t, a, http.StatusOK, "")
	if a.at("agent_id") != agent.id {
		t.Errorf("got %s, want the agent %s", a.body, agent.id)
	}
	gw.Clock.Advance(time.Hour)
	wantStatus(t, try(fluxBot, code, 1), http.StatusUnauthorized, "INVALID_TOKEN")
}

func TestFluxraCodesAreForOneAccountAndTheNewestCounts(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxVerified(t, gw, fluxBot)
	fluxVerified(t, gw, "other@example.com")
	askCode(t, gw, fluxBot)
	first := lastCode(t, gw)
	wantStatus(t, recoverBy(t, gw, "other@example.com", first), http.StatusUnauthorized, "INVALID_TOKEN")
	askCode(t, gw, fluxBot)
	second := lastCode(t, gw)
	if first != second { // which they are once in a million runs
		wantStatus(t, recoverBy(t, gw, fluxBot, first), http.StatusUnauthorized, "INVALID_TOKEN")
	}
	wantStatus(t, recoverBy(t, gw, fluxBot, second), http.StatusOK, "")
}

func TestFluxraUnverifiedEmailRecoversNothing(t *testing.T) {
	gw := gatewaytest.New(t)
	fluxNew(t, gw, fluxBot)
	before := len(letters(t, gw))
	wantStatus(t, askCode(t, gw, fluxBot), http.StatusOK, "")
	if got := len(letters(t, gw)); got != before {
		t.Error("a recovery code went to an address that is not verified")
	}
}

func TestFluxraAddresses(t *testing.T) {
	for given, want := range map[string]string{
		"bot@example.com": "bot@example.com", "Bot+1.x@EXAMPLE.com": "bot+1.x@example.com", "b@localhost": "b@localhost",
		"": "", "bot": "", "@example.com": "", "bot@": "", "bot@@example.com": "", "a@b@c.d": "",
		"Bot <bot@example.com>": "", "<bot@example.com>": "", "bot@example.com (bot)": "", "bot@example.com, a@b.c": "",
		" bot@example.com": "", "bot@example.com\r\nBcc:a@b.c": "", `"a b"@example.com`: "", `"ab"@example.com`: "",
		"bot@[127.0.0.1]": "", ".bot@example.com": "", "b..t@example.com": "", "bot@example..com": "",
		"bot@exämple.com": "", "\u212aot@example.com": "", "bot@example.com\x00": "", "bot\xff@example.com": "",
		strings.Repeat("a", 65) + "@example.com": "", "a@" + strings.Repeat("b.", 130) + "com": "",
	} {
		got, ok := embeddedgateway.FluxraAddress(given)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", given, got, ok, want)
		}
	}
	gw := gatewaytest.New(t)
	for _, ask := range []func(testing.TB, *gatewaytest.Gateway, string) answer{resend, askCode} {
		wantStatus(t, ask(t, gw, ""), http.StatusBadRequest, "INVALID_REQUEST")
		wantStatus(t, ask(t, gw, "Bot <bot@example.com>"), http.StatusBadRequest, "INVALID_EMAIL")
	}
	wantStatus(t, recoverBy(t, gw, "bot", "123456"), http.StatusBadRequest, "INVALID_EMAIL")
}

func TestFluxraLinkIsForTheURLThatIsReachedFromOutside(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Config(func(c *embeddedgateway.Config) { c.PublicURL = "https://agents.example.com/" }))
	fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	link := "https://agents.example.com/api/auth/verify-email?token=" + token
	if l := lastLetter(t, gw); !strings.Contains(l.Text, "\n    "+link+"\n") || !strings.Contains(l.HTML, `href="`+link+`"`) {
		t.Errorf("got %s\n%s, want the link %s", l.Text, l.HTML, link)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	a := send(t, gw, http.MethodGet, u.RequestURI(), "", nil)
	wantStatus(t, a, http.StatusOK, "")
}
