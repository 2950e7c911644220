package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

const mailToken = "evt_0123456789AbCdEf0123456789AbCdEf"

func TestFluxraVerifiesAnEmail(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	_, err := f.Fluxra.VerifyEmail(t.Context(), r.Key, "evt_something-else-0000000000")
	wantError(t, err, "INVALID_TOKEN")
	info, err := f.Fluxra.VerifyEmail(t.Context(), credstore.Key{}, " "+mailToken+"\n")
	if err != nil || info.Key != r.Key {
		t.Fatalf("got %+v, %v", info, err)
	}
	if again := f.enrol(t); again.Mail != gateway.FluxraVerified || !again.MailEnds.IsZero() {
		t.Errorf("got %+v, want it verified", again)
	}
	for _, bad := range []string{"", "short", "two words here", "evt_\x00aaaaaaaaaaaaaa"} {
		_, err := f.Fluxra.VerifyEmail(t.Context(), credstore.Key{}, bad)
		wantError(t, err, gateway.CodeInvalidInput)
	}
	s.loses("POST /api/auth/verify-email", 1)
	_, err = f.Fluxra.VerifyEmail(t.Context(), r.Key, mailToken)
	if e := wantError(t, err, gateway.CodeUnreachable); !e.Sent {
		t.Errorf("got %+v, want that it may be verified", e)
	}
	wantError(t, f.Fluxra.ResendVerification(t.Context(), r.Key, "no"), gateway.CodeInvalidInput)
}

func TestFluxraReplacesTheRecoveryKey(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	before := f.item(t, r.Key, credstore.KindRecovery).Secret.Reveal()
	got, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode)
	if err != nil || got.Incomplete || got.Key != r.Key || got.KeyID != r.KeyID {
		t.Fatalf("got %+v, %v", got, err)
	}
	if after := f.item(t, r.Key, credstore.KindRecovery).Secret.Reveal(); after == before || after != s.accounts[s.any()] {
		t.Error("the new recovery key is not in the place of the old one")
	}
	if got.Attrs["email_state"] != "verified" {
		t.Errorf("got %v, want the email known to be verified", got.Attrs)
	}
	s.clock.advance(time.Minute)
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
		t.Errorf("the new recovery key does not work: %v", err)
	}
}

func TestFluxraRecoversAnAccountThatIsNotStored(t *testing.T) {
	s := newFluxra(t)
	s.client(nil).enrol(t)
	f := s.client(nil) // another machine
	s.on(keyCall, 1, reply(503, "upstream"))
	got, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode)
	if err != nil || !got.Incomplete || got.Agent != s.any() || got.State != credstore.StatePending {
		t.Fatalf("got %+v, %v", got, err)
	}
	s.clock.advance(time.Minute)
	if _, err := f.Lifecycle.Rotate(t.Context(), got.Key); err != nil {
		t.Fatal(err)
	}
	if f.me(t, got.Key) != 200 || f.Lifecycle.Handle(got.Key) != "fluxra/"+s.any() {
		t.Errorf("got the handle %s", f.Lifecycle.Handle(got.Key))
	}
	fresh := s.client(nil)
	if got, err := fresh.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode); err != nil || got.Incomplete || fresh.me(t, got.Key) != 200 {
		t.Errorf("at once: got %+v, %v", got, err)
	}
}

func TestFluxraRecoveryGoesWrong(t *testing.T) {
	s := newFluxra(t)
	store := &refuser{credstore.NewMemory(s.clock.now), ""}
	f := s.client(store)
	r := f.enrol(t)
	_, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", "000000")
	wantError(t, err, "INVALID_TOKEN")
	for _, bad := range []string{"12345", "1234567", "12345a", "１２３４５６"} {
		_, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", bad)
		if e := wantError(t, err, gateway.CodeInvalidInput); strings.Contains(e.Error(), bad) {
			t.Errorf("%v repeats what was given", e)
		}
	}
	// A store that takes nothing: no code is used up.
	store.kind = credstore.KindRecovery
	calls := s.count("POST /api/auth/recovery/verify")
	if _, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode); !errors.Is(err, errStopped) || s.count("POST /api/auth/recovery/verify") != calls {
		t.Errorf("got %v after %d more calls, want none", err, s.count("POST /api/auth/recovery/verify")-calls)
	}
	// One of an email that is not known here: the key waits in memory.
	var not *gateway.NotStoredError
	if _, err := f.Fluxra.RecoverVerify(t.Context(), "new@example.com", fluxraCode); !errors.As(err, &not) {
		t.Errorf("got %v", err)
	}
	store.kind = ""
	s.clock.advance(time.Minute)
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
		t.Errorf("what waited in memory was not used: %v", err)
	}
	s.loses("POST /api/auth/recovery/verify", 1)
	_, err = f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode)
	if e := wantError(t, err, gateway.CodeUnreachable); !e.Sent {
		t.Errorf("got %+v", e)
	}
}

func TestFluxraNeverRepeatsACode(t *testing.T) {
	for _, body := range []string{
		`{"error":{"code":"CODE_ALREADY_USED","message":"code 271828 was used"}}`, `{"error":{"code":"BAD_271828","message":"271 828, 271-828"}}`, `the code 271828 is wrong`,
	} {
		s := newFluxra(t)
		s.on("POST /api/auth/recovery/verify", 1, reply(409, body))
		_, err := s.client(nil).Fluxra.RecoverVerify(t.Context(), "bot@example.com", fluxraCode)
		var e *gateway.Error
		if !errors.As(err, &e) || e.Status != 409 || e.Message == "" {
			t.Fatalf("got %v", err)
		}
		for _, spelling := range []string{"271828", "271 828", "271-828"} {
			noSecret(t, "the error", fmt.Sprintf("%+v %v", *e, err), spelling)
		}
	}
}

// What live services do differently.
func TestFluxraDeviations(t *testing.T) {
	const id = "agt_00000000000000000000000000000099"
	for name, tt := range map[string]struct {
		call, answer string
		status       int
		check        func(t *testing.T, f *fixture, r gateway.FluxraRegistered)
	}{
		"200 for a registration, without a word on the email": {
			"POST /api/auth/register", `{"agent_id":"` + id + `","recovery_key":"rk_0123456789abcdef0123456789abcdef","x":{"y":[1]}}`, 200,
			func(t *testing.T, _ *fixture, r gateway.FluxraRegistered) {
				if r.Mail != gateway.FluxraNoMail {
					t.Errorf("got the mail %q", r.Mail)
				}
			},
		},
		"no mail, and nulls": {
			"POST /api/auth/register", `{"agent_id":"` + id + `","recovery_key":"rk_0123456789abcdef0123456789abcdef","email_verification_sent":false,"email_verification_expires_at":null}`, 201,
			func(t *testing.T, _ *fixture, r gateway.FluxraRegistered) {
				if r.Mail != gateway.FluxraNotSent || !r.MailEnds.IsZero() {
					t.Errorf("got the mail %q", r.Mail)
				}
			},
		},
		"times with fractions": {
			"POST /api/auth/register", `{"agent_id":"` + id + `","recovery_key":"rk_0123456789abcdef0123456789abcdef","created_at":"2026-04-03T20:00:00.123456Z","email_verification_sent":true,"email_verification_expires_at":"2026-04-03T21:00:00.5+00:00"}`, 201,
			func(t *testing.T, _ *fixture, r gateway.FluxraRegistered) {
				if r.MailEnds.Unix() != time.Date(2026, 4, 3, 21, 0, 0, 0, time.UTC).Unix() {
					t.Errorf("got %s", r.MailEnds)
				}
			},
		},
		"an API key that expires, with a fraction": {
			keyCall, `{"key_id":"aky_1","api_key":"sk_0123456789abcdef0123456789abcdef","scopes":"messages:read","expires_at":"2027-04-03T20:00:00.123Z","created_at":7}`, 200,
			func(t *testing.T, _ *fixture, r gateway.FluxraRegistered) {
				if r.ExpiresAt.Year() != 2027 {
					t.Errorf("got %+v", r.Info)
				}
			},
		},
		"an API key without an id": {
			keyCall, `{"api_key":"sk_0123456789abcdef0123456789abcdef","key_id":{"a":1}}`, 200,
			func(t *testing.T, f *fixture, r gateway.FluxraRegistered) {
				if r.KeyID != "" || r.State != credstore.StateActive {
					t.Errorf("got %+v", r.Info)
				}
				if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
					t.Errorf("the id that the token came with was not used: %v", err)
				}
			},
		},
		"expires_in in a string":  {tokenCall, token2("\"1800\""), 200, lives(30 * time.Minute)},
		"expires_in as a float":   {tokenCall, token2("1800.5"), 201, lives(30*time.Minute + 500*time.Millisecond)},
		"expires_in left out":     {tokenCall, token2("null"), 200, lives(time.Hour)},
		"expires_in out of sense": {tokenCall, token2("-5"), 200, lives(time.Hour)},
		"expires_in for ever":     {tokenCall, token2("1e300"), 200, lives(365 * 24 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFluxra(t)
			f := s.client(nil)
			s.accounts[id] = "rk_0123456789abcdef0123456789abcdef"
			k := &fluxraKey{id: "aky_1", secret: "sk_0123456789abcdef0123456789abcdef"}
			s.keys[id] = []*fluxraKey{k}
			if tt.call == keyCall { // the only account is to be this one
				body := `{"agent_id":"` + id + `","recovery_key":"rk_0123456789abcdef0123456789abcdef"}`
				s.do = replies(map[string]string{"POST /api/auth/register": body, keyCall: tt.answer}, tt.status)
			} else {
				s.on(tt.call, 1, reply(tt.status, tt.answer))
			}
			tt.check(t, f, f.enrol(t))
		})
	}
}

func token2(expires string) string {
	return `{"access_token":"eyJhbGciOiJFZERTQSJ9.cGF5bG9hZA.c2lnbmF0dXJl","token_type":"bearer","expires_in":` + expires + `,"extra":[]}`
}

// lives checks how long the access token of a registration lives.
func lives(want time.Duration) func(*testing.T, *fixture, gateway.FluxraRegistered) {
	return func(t *testing.T, f *fixture, r gateway.FluxraRegistered) {
		t.Helper()
		if got := f.item(t, r.Key, credstore.KindAccess).ExpiresAt.Sub(start); got != want {
			t.Errorf("it lives %s, want %s", got, want)
		}
	}
}

func TestFluxraPassesErrorsOnAsTheyCame(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		code, said string
	}{
		{"plain text of something before the service", "upstream connect error\n", 403, gateway.CodeHTTPStatus, "upstream connect error"},
		{"a page", "<html><title>403 Forbidden</title></html>", 403, gateway.CodeHTTPStatus, "403 Forbidden"},
		{"a code that nobody knows", `{"error":{"code":"AGENT_QUOTA","message":"too many agents"}}`, 402, "AGENT_QUOTA", "too many agents"},
		{"a code that is only a word", `{"error":"nope"}`, 400, "nope", ""},
		{"an unreadable success", `<html>`, 200, gateway.CodeBadAnswer, ""},
		{"a success without a key", `{"agent_id":"agt_1"}`, 201, gateway.CodeBadAnswer, ""},
		{"an agent_id that is a path", `{"agent_id":"../x","recovery_key":"rk_0123456789abcdef0123456789abcdef"}`, 201, gateway.CodeBadAnswer, ""},
	} {
		s := newFluxra(t)
		s.on("POST /api/auth/register", 9, reply(tt.status, tt.body))
		_, err := s.client(nil).Fluxra.Register(t.Context(), weather())
		if e := wantError(t, err, tt.code); e.Status != tt.status || e.Message != tt.said || e.Sent != (tt.status < 300) {
			t.Errorf("%s: got %+v", tt.name, e)
		}
	}
}
