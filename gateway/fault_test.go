package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// hang answers nothing until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// flood answers with 64 MiB, or as much as anybody reads of it.
func flood(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	block := strings.Repeat(" ", 1<<16)
	for range 1 << 10 {
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// raw answers with these bytes and closes the connection.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = rw.WriteString(text)
		_ = rw.Flush()
		_ = conn.Close()
	}
}

// drip sends an endless answer byte by byte, as fast as it is read.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

const page = "<!DOCTYPE html><html><head><title>502 Bad\nGateway</title><script>x</script></head><body><h1>nginx</h1></body></html>"

// faults is what a service does instead of answering, and what comes of it
// when it does so at each try.
var faults = []struct {
	name    string
	do      http.HandlerFunc
	code    string
	status  int
	message string
	lost    bool // a registration may have been made
	retried bool // where it is idempotent
}{
	{name: "slow", do: hang, code: gateway.CodeTimeout, lost: true},
	{name: "a page", do: reply(200, page), code: gateway.CodeBadAnswer},
	{name: "an error page", do: reply(502, page), code: gateway.CodeHTTPStatus, status: 502, message: "502 Bad Gateway", lost: true, retried: true},
	{name: "an error in plain text", do: reply(403, "go\x1b[31m away\u202e\r\n"), code: gateway.CodeHTTPStatus, status: 403, message: "go away"},
	{name: "64 MiB", do: flood, code: gateway.CodeTooLarge},
	{name: "invalid JSON", do: reply(201, `{"data":{"tok`), code: gateway.CodeBadAnswer},
	{name: "other JSON", do: reply(201, `["data"]`), code: gateway.CodeBadAnswer},
	{name: "wrong types", do: reply(201, `{"data":{"token":7,"invite_code":[]}}`), code: gateway.CodeBadAnswer},
	{name: "nothing", do: reply(204, ""), code: gateway.CodeBadAnswer},
	{name: "429 without Retry-After", do: reply(429, `{"error":{"code":"rate_limited","message":"slow down"}}`), code: "rate_limited", status: 429, message: "slow down"},
	{name: "429 with a long Retry-After", do: reply(429, `{"error":"RATE","message":"later"}`, "Retry-After", "3600"), code: "RATE", status: 429, message: "later"},
	{name: "500", do: reply(500, `{"error":{"code":"internal","message":"oops"}}`), code: "internal", status: 500, message: "oops", lost: true, retried: true},
	{name: "an unknown code", do: reply(418, `{"error":{"code":"TEAPOT.short","message":"and stout"},"x":1}`), code: "TEAPOT.short", status: 418, message: "and stout"},
	{name: "closed without an answer", do: raw(""), code: gateway.CodeUnreachable, lost: true, retried: true},
	{name: "not HTTP", do: raw("SSH-2.0-OpenSSH_9.2\r\n"), code: gateway.CodeUnreachable, lost: true, retried: true},
	{name: "closed in the middle", do: raw("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"data\""), code: gateway.CodeBadAnswer, lost: true},
	{name: "a length that is too long", do: raw("HTTP/1.1 201 Created\r\nContent-Length: 9999999999\r\n\r\n{}"), code: gateway.CodeBadAnswer, lost: true},
	{name: "a compression that is none", do: raw("HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"), code: gateway.CodeBadAnswer, lost: true},
	{name: "1,000 headers", do: raw("HTTP/1.1 201 Created\r\n" + strings.Repeat("X-Filler: "+strings.Repeat("x", 300)+"\r\n", 1000) + "Content-Length: 2\r\n\r\n{}"), code: gateway.CodeUnreachable, lost: true, retried: true},
}

func TestFaultsAtTheInvite(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on(invitePath, tt.do)
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, timeout: patience(tt.code)})

			_, err := f.Lona.Register(t.Context(), named("my-agent"))

			e := wantError(t, err, tt.code)
			wantOutcome(t, f, e, tt.status, tt.message, false)
			if got, want := e.Op, "request an invite"; got != want {
				t.Errorf("got Op %q, want %q", got, want)
			}
			want := 1
			if tt.retried {
				want = 3
			}
			if got := len(s.seen(invitePath)); got != want {
				t.Errorf("asked %d times for an invite, want %d", got, want)
			}
			if got := len(s.seen(registerPath)); got != 0 {
				t.Errorf("got %d registrations, want none", got)
			}
		})
	}
}

func TestFaultsAtTheRegistration(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on(registerPath, tt.do)
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, timeout: patience(tt.code)})

			_, err := f.Lona.Register(t.Context(), named("my-agent"))

			e := wantError(t, err, tt.code)
			issued := e.Status < 300 // a success that cannot be read
			wantOutcome(t, f, e, tt.status, tt.message, tt.lost || issued)
			// Once more with a new invite where the answer was lost, and never
			// the same request twice.
			want := 1
			if tt.lost {
				want = 2
			}
			if got := len(s.seen(registerPath)); got != want {
				t.Errorf("registered %d times, want %d", got, want)
			}
			if got := len(s.seen(invitePath)); got != want {
				t.Errorf("asked %d times for an invite, want %d", got, want)
			}
		})
	}
}

// patience is short where a service never answers, and long enough for a busy
// machine otherwise.
func patience(code string) time.Duration {
	if code == gateway.CodeTimeout {
		return 30 * time.Millisecond
	}
	return 10 * time.Second
}

// wantOutcome wants an error of a registration at Lona, and in the store what
// is known then.
func wantOutcome(t *testing.T, f *fixture, e *gateway.Error, status int, message string, sent bool) {
	t.Helper()
	wantSaid(t, e, status, message, sent)
	stored, err := f.store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !sent && len(stored) != 0 {
		t.Errorf("stored %v, want nothing", stored)
	}
	// Where a token may have been issued, just that is known.
	if sent && (len(stored) != 1 || stored[0].State != credstore.StatePending || !strings.HasPrefix(f.secret(t, stored[0].Key), "enlist-begun-")) {
		t.Errorf("stored %v, want one that is pending and without a token", stored)
	}
}

func wantSaid(t *testing.T, e *gateway.Error, status int, message string, sent bool) {
	t.Helper()
	if e.Status != status && (status != 0 || e.Status >= 300) {
		t.Errorf("got the status %d, want %d", e.Status, status)
	}
	if e.Message != message {
		t.Errorf("got the message %q, want %q", e.Message, message)
	}
	if e.Sent != sent {
		t.Errorf("got Sent %v, want %v (%v)", e.Sent, sent, e)
	}
	noSecret(t, "the error", e.Error(), inviteCode, "lona_partner_my-agent_abc")
}

func TestADripEnds(t *testing.T) {
	s := newService(t).on(invitePath, drip)
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, timeout: 30 * time.Millisecond})

	_, err := f.Lona.Register(t.Context(), named("my-agent"))

	wantError(t, err, gateway.CodeTimeout)
}

func TestADeadlineEndsAllTries(t *testing.T) {
	s := newService(t).on(registerPath, hang)
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, deadline: 500 * time.Millisecond})

	_, err := f.Lona.Register(t.Context(), named("my-agent"))

	e := wantError(t, err, gateway.CodeTimeout)
	if !e.Sent || len(s.seen(registerPath)) != 1 {
		t.Errorf("got Sent %v after %d tries, want true after 1", e.Sent, len(s.seen(registerPath)))
	}
}

func TestWhoeverAskedGivesUp(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	s.on(registerPath, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		hang(w, r)
	})

	_, err := f.Lona.Register(ctx, named("my-agent"))

	e := wantError(t, err, gateway.CodeCancelled)
	if !e.Sent || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want an error that says so and may have been sent", err)
	}
}

func TestAGatewayThatIsDown(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": url}})

	_, err = f.Lona.Register(t.Context(), named("my-agent"))

	e := wantError(t, err, gateway.CodeUnreachable)
	if e.Sent || !strings.Contains(e.Error(), "refused") {
		t.Errorf("got %v (Sent %v), want that the connection was refused", e, e.Sent)
	}
	if got, want := len(f.slept), 2; got != want {
		t.Errorf("paused %d times, want %d", got, want)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, path := range []string{invitePath, registerPath, strategiesPath} {
			t.Run(fmt.Sprintf("%d at %s", status, path), func(t *testing.T) {
				s, other := newService(t), newService(t)
				f := at(t, s)
				r := f.register(t, "first-agent")
				s.on(path, reply(status, "", "Location", other.URL+"/x?token=1234"))

				var err error
				if path == strategiesPath {
					_, err = f.Lona.Strategies(t.Context(), r.Key)
				} else {
					_, err = f.Lona.Register(t.Context(), named("my-agent"))
				}

				e := wantError(t, err, gateway.CodeRedirect)
				if e.Status != status || e.Sent || !strings.Contains(e.Error(), other.URL) || strings.Contains(e.Error(), "1234") {
					t.Errorf("got %v, want an error that names the other origin only", e)
				}
				if got := other.seen(""); len(got) != 0 {
					t.Errorf("the other host saw %v, want nothing", got)
				}
			})
		}
	}
}

func TestAServiceThatRecovers(t *testing.T) {
	ok := newService(t).lona // what Lona answers
	for _, tt := range []struct {
		name              string
		path              string
		first             http.HandlerFunc
		invites, register int
		wait              time.Duration // at least; 0: any
	}{
		{"500 at the invite", invitePath, reply(500, "oops"), 2, 1, 0},
		{"503 at the invite, with a time", invitePath, reply(503, "", "Retry-After", "3"), 2, 1, 3 * time.Second},
		{"429 at the invite, with a time", invitePath, reply(429, "", "Retry-After", "2"), 2, 1, 2 * time.Second},
		{"429 at the invite, with a date", invitePath, reply(429, "", "Retry-After", start.Add(4*time.Second).Format(http.TimeFormat)), 2, 1, 4 * time.Second},
		{"429 at the registration, with a time", registerPath, reply(429, "", "Retry-After", "1"), 1, 2, time.Second},
		{"500 at the registration", registerPath, reply(500, "oops"), 2, 2, 0},
		{"a lost answer at the registration", registerPath, raw(""), 2, 2, 0},
		{"half an answer at the registration", registerPath, raw("HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"data\""), 2, 2, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			s.in(tt.path, tt.first, ok)
			f := at(t, s)

			r := f.register(t, "my-agent")

			if r.Reused || !strings.HasPrefix(f.secret(t, r.Key), "lona_partner_my-agent_") {
				t.Errorf("got %+v, want a new token", r)
			}
			if i, r := len(s.seen(invitePath)), len(s.seen(registerPath)); i != tt.invites || r != tt.register {
				t.Errorf("got %d invites and %d registrations, want %d and %d", i, r, tt.invites, tt.register)
			}
			if len(f.slept) != 1 || f.slept[0] < tt.wait || f.slept[0] > 5*time.Second {
				t.Errorf("paused %v, want once at least %v", f.slept, tt.wait)
			}
		})
	}
}

func TestRetryAfterIsReported(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"3600":                          time.Hour,
		"99999999999999999999":          365 * 24 * time.Hour,
		"-5":                            0,
		"soon":                          0,
		"NaN":                           0,
		"Fri, 06 Feb 2026 15:00:00 GMT": 2 * time.Hour,
		"Fri, 06 Feb 2009 15:00:00 GMT": 0,
	} {
		t.Run(value, func(t *testing.T) {
			s := newService(t).on(invitePath, reply(429, `{"error":{"code":"rate_limited","message":"m"}}`, "Retry-After", value))
			f := at(t, s)

			_, err := f.Lona.Register(t.Context(), named("my-agent"))

			if got := wantError(t, err, "rate_limited").RetryAfter; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestOnlyTheTokenMustBeRight(t *testing.T) {
	s := newService(t).on(registerPath, reply(200,
		`{"data":{"token":"`+token("my-agent", 5)+`","partner_id":"My-Agent","permissions":"all","expires_at":"tomorrow","extra":{}},"meta":1}`))
	f := at(t, s)

	r := f.register(t, "my-agent")

	if got, want := f.secret(t, r.Key), token("my-agent", 5); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	if !r.ExpiresAt.IsZero() || r.Attrs["partner_id"] != "My-Agent" {
		t.Errorf("got %+v, want no expiry and the service's own name", r)
	}
}

func TestAttributesGiveWayToTheToken(t *testing.T) {
	s := newService(t)
	s.on(registerPath, reply(201, `{"data":{"token":"`+token("my-agent", 1)+`","expires_at":"0000-01-01T00:00:00Z","permissions":[`+strings.Repeat(`"`+strings.Repeat("p", 64)+`",`, 31)+`"p"]}}`))
	f := at(t, s)

	r, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{
		AgentID: "my-agent", AgentName: strings.Repeat("😀", 100), Source: strings.Repeat("😀", 64), UserID: "user-7",
	})
	if err != nil {
		t.Fatal(err)
	}

	equalAttrs(t, r.Attrs, map[string]string{"user_id": "user-7"})
	if got, want := f.secret(t, r.Key), token("my-agent", 1); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
		t.Error(err)
	}
	if got, want := s.seen(registerPath)[1].fields(t)["agent_name"], "my-agent"; got != want {
		t.Errorf("registered again as %q, want %q", got, want)
	}
}

func TestTokensThatCouldNotBeUsed(t *testing.T) {
	for name, issued := range map[string]string{
		"empty":              "",
		"short":              "lona_partner_ab",
		"with a newline":     token("my-agent", 1) + `\nX-Admin: yes`,
		"with a space":       token("my-agent", 1) + " x",
		"with a NUL":         token("my-agent", 1) + `\u0000`,
		"in another script":  "lona_partner_агент_abc123xyz456_secret",
		"of more than 4 KiB": "lona_partner_" + strings.Repeat("a", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t).on(registerPath, reply(201, `{"data":{"token":"`+issued+`"}}`))
			f := at(t, s)

			_, err := f.Lona.Register(t.Context(), named("my-agent"))

			e := wantError(t, err, gateway.CodeBadAnswer)
			wantOutcome(t, f, e, 0, "", true)
		})
	}
}
