package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// crashing is a store whose nth Put, and each after it, fails, as where the
// process ends there.
type crashing struct {
	credstore.Store
	left int
}

func (c *crashing) Put(ctx context.Context, cred credstore.Credential) error {
	if c.left--; c.left < 0 {
		return errLocked
	}
	return c.Store.Put(ctx, cred)
}

func TestAgentDoorHealsAfterACrashAtEachStep(t *testing.T) {
	for n := range 6 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d := newDoor(t)
			disk := credstore.NewMemory(d.clock.now)
			_, err := d.client(t, setup{store: &crashing{disk, n}}).AgentDoor.Register(t.Context(), d.scout())
			if (err == nil) != (n == 5) {
				t.Errorf("got %v", err)
			}
			if err != nil && !errors.Is(err, credstore.ErrUnavailable) {
				t.Errorf("got %v, want the store's error", err)
			}
			if n == 0 && len(d.seen(doorRegister)) != 0 {
				t.Error("something was asked for with a key pair that is not stored")
			}
			f := d.client(t, setup{store: disk})

			done := f.enlist(t, d.scout())

			if got := f.doorWorks(t, done.Key); got != 200 {
				t.Errorf("got the status %d, want 200", got)
			}
			if len(d.agents) != 1 {
				t.Errorf("got %d agents, want 1", len(d.agents))
			}
			d.clock.advance(2 * time.Hour)
			if got := f.doorWorks(t, done.Key); got != 200 {
				t.Errorf("later: got the status %d, want 200", got)
			}
		})
	}
}

// lose makes a service do what it is asked for, and then something else than
// answer.
func lose(h, instead http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h(httptest.NewRecorder(), r)
		instead(w, r)
	}
}

func TestAnAnswerOfAgentDoorThatWasLost(t *testing.T) {
	for name, instead := range map[string]http.HandlerFunc{
		"cut off":       raw(""),
		"a bad gateway": reply(502, page),
		"a page":        reply(200, page),
		"no secrets":    reply(200, `{"agent_id":"ag_x","scopes_granted":[]}`),
		"not JSON":      reply(200, `{"agent_id`),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			d.on(doorVerify, lose(d.verify, instead))
			f := d.client(t, setup{})
			done := f.enlist(t, d.scout())
			if got := f.doorWorks(t, done.Key); got != 200 || len(d.seen(doorVerify)) != 1 {
				t.Errorf("got the status %d, want 200 after one registration", got)
			}
			if _, err := f.store.Get(t.Context(), of(done.Key, credstore.KindAPIKey)); !errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("an API key is stored that never came (%v)", err)
			}
		})
	}
}

func TestARequestToAgentDoorThatNeverArrived(t *testing.T) {
	d := newDoor(t)
	d.in(doorVerify, reply(502, page), d.verify) // nothing was done
	f := d.client(t, setup{})
	done := f.enlist(t, d.scout())
	if got := f.doorWorks(t, done.Key); got != 200 || len(d.seen(doorRegister)) != 2 {
		t.Errorf("got the status %d, want 200 after another challenge", got)
	}
}

func TestAChallengeThatIsOfNoUseIsAskedForOnceMore(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"expired":            reply(410, `{"error":"challenge_expired","message":"The registration challenge has expired."}`),
		"expired, in shouts": reply(410, `{"error":"CHALLENGE_EXPIRED"}`),
		"expired long ago":   reply(404, `{"error":"not_found","message":"No pending registration found"}`),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			d.in(doorVerify, first, d.verify)
			f := d.client(t, setup{})
			if got := f.doorWorks(t, f.enlist(t, d.scout()).Key); got != 200 || len(d.seen(doorRegister)) != 2 {
				t.Errorf("got the status %d after %d challenges, want 200 after 2", got, len(d.seen(doorRegister)))
			}
			again := newDoor(t)
			again.on(doorVerify, first)
			_, err := again.client(t, setup{}).AgentDoor.Register(t.Context(), again.scout())
			var e *gateway.Error
			if !errors.As(err, &e) || !e.Theirs || len(again.seen(doorRegister)) != 2 {
				t.Errorf("for ever: got %v after %d challenges, want the service's error after 2", err, len(again.seen(doorRegister)))
			}
		})
	}
}

// A second pending challenge of one key pair, verified by another process that
// has the same store by another way.
func TestADuplicateAgentIsTakenUp(t *testing.T) {
	for name, answer := range map[string]string{
		"without an agent_id": `{"error":"DUPLICATE_AGENT","message":"Agent already exists"}`,
		"as the page says":    `{"error":"already_registered","message":"m"}`,
		"with an agent_id":    `{"error":"Already_Registered","agent_id":"%s"}`,
		"as a page":           page,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			d.on(doorVerify, func(w http.ResponseWriter, r *http.Request) {
				d.verify(httptest.NewRecorder(), r)
				for _, id := range d.agents {
					answer = strings.Replace(answer, "%s", id, 1)
				}
				reply(409, answer)(w, r)
			})
			f := d.client(t, setup{})
			done := f.enlist(t, d.scout())
			if got := f.doorWorks(t, done.Key); got != 200 || len(d.agents) != 1 {
				t.Errorf("got the status %d, want 200", got)
			}
		})
	}
}

func TestATokenThatTheStoreHasNoRoomFor(t *testing.T) {
	d := newDoor(t)
	long := "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + strings.Repeat("Ab1_", 400) + ".c2ln"
	d.on(doorAuth, reply(200, `{"token":"`+long+`","expires_at":"2026-02-06T18:00:00.000Z"}`))
	d.on("/data", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+long {
			w.WriteHeader(401)
		}
	})
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.clock.advance(59 * time.Minute)
	for range 2 {
		if got := f.doorWorks(t, k); got != 200 {
			t.Errorf("got the status %d, want 200", got)
		}
	}
	if got := len(d.seen(doorAuth)); got != 1 {
		t.Errorf("asked for %d tokens, want 1 that is kept in memory", got)
	}
}

func TestAgentDoorErrorsComeAsTheyAre(t *testing.T) {
	for name, tt := range map[string]struct {
		path       string
		answer     http.HandlerFunc
		code       string
		status     int
		retryAfter time.Duration
	}{
		"a rate limit":         {doorRegister, reply(429, `{"error":"rate_limit_exceeded","message":"slow","retry_after":120}`), "rate_limit_exceeded", 429, 2 * time.Minute},
		"an invalid request":   {doorRegister, reply(400, `{"error":"invalid_request","message":"x402_wallet"}`), "invalid_request", 400, 0},
		"scopes":               {doorRegister, reply(400, `{"error":"invalid_scopes","message":"m","available_scopes":["a"]}`), "invalid_scopes", 400, 0},
		"to be paid":           {doorRegister, reply(402, `{"error":"payment_required","message":"pay"}`), "payment_required", 402, 0},
		"a page":               {doorRegister, reply(400, page), gateway.CodeHTTPStatus, 400, 0},
		"a wrong signature":    {doorVerify, reply(400, `{"error":"invalid_signature","message":"m"}`), "invalid_signature", 400, 0},
		"taken, and inactive":  {doorAuth, reply(403, `{"error":"agent_inactive","message":"suspended"}`), "agent_inactive", 403, 0},
		"an unknown code":      {doorVerify, reply(418, `{"error":"TEAPOT","message":"m"}`), "TEAPOT", 418, 0},
		"no such door":         {doorDiscovery, reply(404, `Cannot GET /`), gateway.CodeHTTPStatus, 404, 0},
		"nothing but a page":   {doorDiscovery, reply(200, page), gateway.CodeBadAnswer, 200, 0},
		"a document too large": {doorDiscovery, flood, gateway.CodeTooLarge, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			if tt.path == doorAuth {
				d.on(doorRegister, reply(409, `{"error":"already_registered","agent_id":"ag_1"}`))
			}
			d.on(tt.path, tt.answer)
			_, err := d.client(t, setup{}).AgentDoor.Register(t.Context(), d.scout())
			var e *gateway.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Status != tt.status || e.RetryAfter != tt.retryAfter {
				t.Errorf("got %v (%+v), want %s with %d", err, e, tt.code, tt.status)
			}
		})
	}
}

// Where the clocks are further apart than is believed, a token looks as if it
// had ended before it began.
func TestATokenThatEndedBeforeItWasIssuedIsUsed(t *testing.T) {
	d := newDoor(t)
	d.on(doorAuth, reply(200, `{"token":"eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl","expires_at":"2026-02-06T08:00:00.000Z"}`))
	d.on("/data", reply(200, `{}`))
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.clock.advance(2 * time.Hour)
	for range 3 {
		if got := f.doorWorks(t, k); got != 200 {
			t.Errorf("got the status %d, want 200", got)
		}
	}
	if got := len(d.seen(doorAuth)); got != 1 {
		t.Errorf("asked for %d tokens, want 1", got)
	}
}
