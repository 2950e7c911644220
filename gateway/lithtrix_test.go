package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

const (
	ltxRegisterPath = "/v1/register"
	ltxRotatePath   = "/v1/keys/rotate"
	ltxMePath       = "/v1/me"

	owner = "you@example.com"
)

// ltxKey returns the nth key that a service of these tests issues.
func ltxKey(n int) string { return fmt.Sprintf("ltx_SecretKeyHere%020d", n) }

func ltxIssued(status, n int) http.HandlerFunc {
	return reply(status, `{"api_key":"`+ltxKey(n)+`","agent_id":"550e8400-e29b-41d4-a716-446655440000","message":"Store this key securely."}`)
}

func ltxRefused(status int, code string) http.HandlerFunc {
	return reply(status, `{"status":"error","error_code":"`+code+`","message":"no"}`)
}

// newLithtrix returns a service that issues key 1 to whoever registers and
// key 2 to whoever rotates.
func newLithtrix(t *testing.T) *service {
	t.Helper()
	return newService(t).on(ltxRegisterPath, ltxIssued(201, 1)).on(ltxRotatePath, ltxIssued(200, 2))
}

func ltxSetup(url string) setup {
	return setup{env: map[string]string{"LITHTRIX_API_URL": url}}
}

func pair(agent, owner string) gateway.LithtrixRegistration {
	return gateway.LithtrixRegistration{AgentName: agent, OwnerIdentifier: owner}
}

func (f *fixture) ltxRegister(t *testing.T, r gateway.LithtrixRegistration) gateway.Registration {
	t.Helper()
	got, err := f.Lithtrix.Register(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func ltxCredKey(origin, agent, label string) credstore.Key {
	return credstore.Key{Protocol: "lithtrix", Origin: origin, Agent: agent, Kind: credstore.KindToken, Label: label}
}

func TestTranscriptOfLithtrix(t *testing.T) {
	f := newFixture(t, setup{transport: replay(t,
		readExchange(t, "lithtrix/register.txtar"),
		readExchange(t, "lithtrix/me.txtar"),
		readExchange(t, "lithtrix/billing.txtar"),
		readExchange(t, "lithtrix/rotate.txtar"),
	)})
	r := f.ltxRegister(t, pair("my-agent", owner))
	if want := ltxCredKey("https://lithtrix.ai", "my-agent", ""); r.Key != want || r.Reused || r.State != credstore.StateActive {
		t.Errorf("got %+v, want a new credential under %+v", r, want)
	}
	equalAttrs(t, r.Attrs, map[string]string{"owner_identifier": owner, "agent_id": "550e8400-e29b-41d4-a716-446655440000"})
	if got, want := f.secret(t, r.Key), "ltx_a3f9b2c1..."; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	for _, path := range []string{ltxMePath, "/v1/billing"} {
		got, err := f.Lifecycle.Do(t.Context(), r.Key, get(path))
		if err != nil || got.Status != 200 {
			t.Errorf("%s: got %+v, %v", path, got, err)
		}
	}
	rotated, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.secret(t, r.Key), "ltx_d4e8c7b6..."; got != want || rotated.KeyID == r.KeyID {
		t.Errorf("stored %q with the key id %s, want %q with another one", got, rotated.KeyID, want)
	}
	equalAttrs(t, rotated.Attrs, r.Attrs)
}

func TestTranscriptOfLithtrixWhereThePairIsKnown(t *testing.T) {
	f := newFixture(t, setup{transport: replay(t, readExchange(t, "lithtrix/exists.txtar"))})
	_, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
	if e := wantError(t, err, "AGENT_ALREADY_EXISTS"); e.Status != 409 || e.Sent || e.Message == "" {
		t.Errorf("got %+v", e)
	}
}

func TestLithtrixTermsAreThePersons(t *testing.T) {
	yes, no := true, false
	for name, tt := range map[string]struct {
		give *bool
		want any
	}{"not said": {nil, nil}, "agreed": {&yes, true}, "not agreed": {&no, false}} {
		t.Run(name, func(t *testing.T) {
			s := newLithtrix(t)
			f := newFixture(t, ltxSetup(s.URL))
			r := pair("my-agent", owner)
			r.AgreeToTerms = tt.give
			f.ltxRegister(t, r)
			got, sent := s.seen(ltxRegisterPath)[0].fields(t)["agree_to_terms"]
			if got != tt.want || sent != (tt.give != nil) {
				t.Errorf("sent %v (%v), want %v", got, sent, tt.want)
			}
		})
	}
}

func TestLithtrixReusesWhatIsStored(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	first := f.ltxRegister(t, pair("my-agent", owner))
	labelled := pair("my-agent", owner)
	labelled.Label = "another"
	for _, r := range []gateway.LithtrixRegistration{pair("my-agent", owner), labelled} {
		if got := f.ltxRegister(t, r); !got.Reused || got.Key != first.Key {
			t.Errorf("got %+v, want the stored credential", got)
		}
	}
	if got := len(s.seen("")); got != 1 {
		t.Errorf("got %d requests, want 1", got)
	}
	noSecret(t, "the log", f.log.String(), ltxKey(1))
}

func TestLithtrixReusesWhatAnotherProcessStoredBeforeThe409(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	stored := credstore.Credential{
		Info:   credstore.Info{Key: ltxCredKey(s.URL, "my-agent", "theirs"), Attrs: map[string]string{"owner_identifier": owner}},
		Secret: credstore.NewSecret(ltxKey(7)),
	}
	s.on(ltxRegisterPath, func(w http.ResponseWriter, r *http.Request) {
		f.put(t, stored)
		ltxRefused(409, "AGENT_ALREADY_EXISTS")(w, r)
	})
	if got := f.ltxRegister(t, pair("my-agent", owner)); !got.Reused || got.Key != stored.Key {
		t.Errorf("got %+v, want what the other process stored", got)
	}
}

func TestLithtrixA409WithoutAUsableKeyIsAnError(t *testing.T) {
	for _, state := range []credstore.State{"", credstore.StateRevoked, credstore.StatePending} {
		t.Run(string(state), func(t *testing.T) {
			s := newLithtrix(t).on(ltxRegisterPath, ltxRefused(409, "AGENT_ALREADY_EXISTS"))
			f := newFixture(t, ltxSetup(s.URL))
			if state != "" {
				f.put(t, credstore.Credential{
					Info:   credstore.Info{Key: ltxCredKey(s.URL, "my-agent", ""), State: state, Attrs: map[string]string{"owner_identifier": owner}},
					Secret: credstore.NewSecret(ltxKey(7)),
				})
			}
			_, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
			if e := wantError(t, err, "AGENT_ALREADY_EXISTS"); e.Sent || len(s.seen("")) != 1 {
				t.Errorf("got %+v after %d requests", e, len(s.seen("")))
			}
		})
	}
}

func TestLithtrixAnotherIdentityNeedsALabel(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	mine := f.ltxRegister(t, pair("my-agent", owner))
	with := func(agent, owner, label string) gateway.LithtrixRegistration {
		r := pair(agent, owner)
		r.Label = label
		return r
	}
	refused := func(r gateway.LithtrixRegistration) {
		t.Helper()
		before := len(s.seen(""))
		_, err := f.Lithtrix.Register(t.Context(), r)
		e := wantError(t, err, gateway.CodeInvalidInput)
		if !strings.Contains(e.Error(), "label") || strings.Contains(e.Error(), "example.com") || len(s.seen("")) != before {
			t.Errorf("got %v after %d requests, want an error that asks for a label, after none", e, len(s.seen(""))-before)
		}
	}
	refused(pair("my-agent", "me@example.com"))
	refused(with("my-agent", "me@example.com", "my-agent"))
	refused(with("other-agent", owner, "my-agent"))

	theirs := f.ltxRegister(t, with("my-agent", "me@example.com", "für mich"))
	if got, want := theirs.Key, ltxCredKey(s.URL, "my-agent", "f-r-mich"); got != want || theirs.Reused {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := f.Lifecycle.Handle(theirs.Key), "lithtrix/f-r-mich"; got != want {
		t.Errorf("got the handle %s, want %s", got, want)
	}
	refused(with("third-agent", owner, "f-r-mich"))
	refused(pair("f-r-mich", owner))
	if got := f.ltxRegister(t, pair("my-agent", "me@example.com")); !got.Reused || got.Key != theirs.Key {
		t.Errorf("got %+v, want the labelled one", got)
	}
	if _, err := f.Lifecycle.Rotate(t.Context(), theirs.Key); err != nil {
		t.Fatal(err)
	}
	if f.secret(t, mine.Key) != ltxKey(1) || f.secret(t, theirs.Key) != ltxKey(2) {
		t.Error("the rotation of one identity has changed the other's key")
	}
}

func TestLithtrixRefusesBeforeAnyRequest(t *testing.T) {
	for _, tt := range []struct {
		name  string
		give  gateway.LithtrixRegistration
		field string
	}{
		{"no agent_name", pair("", owner), "agent_name"},
		{"agent_name with a space", pair("my agent", owner), "agent_name"},
		{"agent_name with a dot", pair("my.agent", owner), "agent_name"},
		{"agent_name of 10,000 characters", pair(strings.Repeat("a", 10_000), owner), "agent_name"},
		{"no owner", pair("my-agent", ""), "owner_identifier"},
		{"owner with a newline", pair("my-agent", "you\n"), "owner_identifier"},
		{"owner too long", pair("my-agent", strings.Repeat("ä", 256)), "owner_identifier"},
		{"label too long", gateway.LithtrixRegistration{AgentName: "a", OwnerIdentifier: "b", Label: strings.Repeat("l", 101)}, "label"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLithtrix(t)
			f := newFixture(t, ltxSetup(s.URL))
			_, err := f.Lithtrix.Register(t.Context(), tt.give)
			e := wantError(t, err, gateway.CodeInvalidInput)
			if !strings.Contains(e.Error(), tt.field) || len(e.Error()) > 300 || len(s.seen("")) != 0 {
				t.Errorf("got %q after %d requests, want a short text that names %s, after none", e, len(s.seen("")), tt.field)
			}
		})
	}
	if _, err := tryFixture(ltxSetup("http://lithtrix.ai")); err == nil || !strings.Contains(err.Error(), "LITHTRIX_API_URL") {
		t.Errorf("plain http: got %v, want an error that names LITHTRIX_API_URL", err)
	}
}

func TestLithtrixAuthorizeRefusesAnotherOriginAndWhatIsNoKey(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	r := f.ltxRegister(t, pair("my-agent", owner))
	for url, k := range map[string]credstore.Key{"https://example.com/": r.Key, s.URL + "/v1/me": ltxCredKey(s.URL, "broken", "")} {
		f.put(t, credstore.Credential{Info: credstore.Info{Key: ltxCredKey(s.URL, "broken", "")}, Secret: credstore.NewSecret("ltx_a\nX-Admin: 1")})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Lithtrix.Authorize(t.Context(), k, req); err == nil || len(req.Header) != 0 {
			t.Errorf("%s: got %v and the headers %v, want an error and none", url, err, req.Header)
		}
	}
}

func TestLithtrixFaultsAtTheRegistration(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t).on(ltxRegisterPath, tt.do)
			set := ltxSetup(s.URL)
			set.timeout = patience(tt.code)
			f := newFixture(t, set)
			_, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
			e := wantError(t, err, tt.code)
			wantSaid(t, e, tt.status, tt.message, tt.lost || e.Status < 300)
			stored, err := f.store.List(t.Context(), "")
			if err != nil || !e.Sent && len(stored) != 0 {
				t.Errorf("stored %v, %v, want nothing", stored, err)
			}
			if e.Sent && (len(stored) != 1 || stored[0].State != credstore.StatePending || !strings.HasPrefix(f.secret(t, stored[0].Key), "enlist-begun-")) {
				t.Errorf("stored %v, want that it was begun", stored)
			}
			want := 1
			if tt.lost {
				want = 2
			}
			if got := len(s.seen(ltxRegisterPath)); got != want {
				t.Errorf("registered %d times, want %d", got, want)
			}
		})
	}
}

func TestLithtrixALostAnswerToARegistration(t *testing.T) {
	for name, tt := range map[string]struct {
		second http.HandlerFunc
		code   string
	}{
		"nothing had happened": {ltxIssued(201, 5), ""},
		"it had happened":      {ltxRefused(409, "AGENT_ALREADY_EXISTS"), "AGENT_ALREADY_EXISTS"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t).in(ltxRegisterPath, raw(""), tt.second)
			f := newFixture(t, ltxSetup(s.URL))
			r, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
			if tt.code == "" {
				if err != nil || f.secret(t, r.Key) != ltxKey(5) {
					t.Errorf("got %+v, %v, want the key of the second answer", r, err)
				}
				return
			}
			if e := wantError(t, err, tt.code); !e.Sent || !strings.Contains(e.Error(), "second try") {
				t.Errorf("got %v (Sent %v), want an error that says what was lost", e, e.Sent)
			}
		})
	}
}

func TestLithtrixALostAnswerToARotationIsFoundOut(t *testing.T) {
	me := reply(200, `{"agent_id":"x","agent_name":"my-agent","owner_identifier":"you@example.com","tier":"free"}`)
	for _, tt := range []struct {
		name       string
		lost       http.HandlerFunc
		me         http.HandlerFunc
		code       string
		sent       bool
		state      credstore.State
		meRequests int
	}{
		{"it had not happened", raw(""), me, gateway.CodeUnreachable, false, credstore.StateActive, 1},
		{"a 500 and it had not", reply(500, "oops"), me, gateway.CodeHTTPStatus, false, credstore.StateActive, 1},
		{"it had happened", raw(""), ltxRefused(401, "INVALID_API_KEY"), gateway.CodeKeyLost, true, credstore.StateRevoked, 1},
		{"half an answer, and it had", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"api"), ltxRefused(401, "INVALID_API_KEY"), gateway.CodeKeyLost, true, credstore.StateRevoked, 1},
		{"a page, and it had", reply(200, page), ltxRefused(401, "INVALID_API_KEY"), gateway.CodeKeyLost, true, credstore.StateRevoked, 1},
		{"a key that cannot be used, and it had", reply(200, `{"api_key":"ltx_ a b c d e f g h"}`), ltxRefused(401, "INVALID_API_KEY"), gateway.CodeKeyLost, true, credstore.StateRevoked, 1},
		{"not found out: down", raw(""), raw(""), gateway.CodeUnreachable, true, credstore.StateActive, 1},
		{"not found out: a proxy's 401", raw(""), reply(401, page), gateway.CodeUnreachable, true, credstore.StateActive, 1},
		{"not found out: 429", raw(""), ltxRefused(429, "RATE_LIMIT_EXCEEDED"), gateway.CodeUnreachable, true, credstore.StateActive, 1},
		{"not found out: a page", raw(""), reply(200, page), gateway.CodeUnreachable, true, credstore.StateActive, 1},
		{"refused: nothing to find out", ltxRefused(401, "INVALID_API_KEY"), me, "INVALID_API_KEY", false, credstore.StateActive, 0},
		{"limited: nothing to find out", ltxRefused(429, "RATE_LIMIT_EXCEEDED"), me, "RATE_LIMIT_EXCEEDED", false, credstore.StateActive, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLithtrix(t)
			f := newFixture(t, ltxSetup(s.URL))
			r := f.ltxRegister(t, pair("my-agent", owner))
			// A service that does not know the attempt refuses the dead key.
			s.in(ltxRotatePath, tt.lost, ltxRefused(401, "INVALID_API_KEY")).on(ltxMePath, tt.me)

			_, err := f.Lifecycle.Rotate(t.Context(), r.Key)

			e := wantError(t, err, tt.code)
			if e.Sent != tt.sent {
				t.Errorf("got Sent %v, want %v (%v)", e.Sent, tt.sent, e)
			}
			asked := s.seen(ltxMePath)
			rotations := 1
			if tt.code == gateway.CodeKeyLost {
				rotations = 2
			}
			if len(asked) != tt.meRequests || len(s.seen(ltxRotatePath)) != rotations {
				t.Fatalf("got %d rotations and %d questions, want %d and %d", len(s.seen(ltxRotatePath)), len(asked), rotations, tt.meRequests)
			}
			if tt.meRequests > 0 && (asked[0].Method != http.MethodGet || asked[0].Header.Get("Authorization") != "Bearer "+ltxKey(1)) {
				t.Errorf("asked with %+v, want a GET with the old key", asked[0])
			}
			c, err := f.store.Get(t.Context(), r.Key)
			if err != nil || c.State != tt.state || c.Secret.Reveal() != ltxKey(1) {
				t.Errorf("stored %+v, %v, want the old key, %s", c.Info, err, tt.state)
			}
			noSecret(t, "the error", e.Error(), ltxKey(1))
		})
	}
}

func TestLithtrixFindsOutThoughNobodyWaits(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	r := f.ltxRegister(t, pair("my-agent", owner))
	ctx, cancel := context.WithCancel(t.Context())
	s.in(ltxRotatePath, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		hang(w, r)
	}, ltxRefused(401, "INVALID_API_KEY")).on(ltxMePath, ltxRefused(401, "INVALID_API_KEY"))
	_, err := f.Lifecycle.Rotate(ctx, r.Key)
	wantError(t, err, gateway.CodeKeyLost)
	if c, err := f.store.Get(t.Context(), r.Key); err != nil || c.State != credstore.StateRevoked {
		t.Errorf("stored %+v, %v, want the old key, revoked", c.Info, err)
	}
}

// lockedBy locks the store when the service rotates a key: before that Enlist
// sees whether it can be written.
func lockedBy(s *service, store *failing) {
	s.on(ltxRotatePath, func(w http.ResponseWriter, r *http.Request) {
		store.issued = errLocked
		ltxIssued(200, 2)(w, r)
	})
}

func TestLithtrixAKeyThatIsNotStoredWaitsInMemory(t *testing.T) {
	s := newLithtrix(t)
	store := &failing{Store: credstore.NewMemory(frozen), issued: errLocked}
	set := ltxSetup(s.URL)
	set.store = store
	f := newFixture(t, set)
	k := ltxCredKey(s.URL, "my-agent", "")
	notStored := func(err error) {
		t.Helper()
		var e *gateway.NotStoredError
		if !errors.As(err, &e) || !strings.Contains(e.Error(), "in memory") {
			t.Fatalf("got %v, want a NotStoredError that says where the key is", err)
		}
		noSecret(t, "the error", err.Error(), ltxKey(1), ltxKey(2))
	}
	_, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
	notStored(err)
	_, err = f.Lithtrix.Register(t.Context(), pair("my-agent", "me@example.com"))
	wantError(t, err, gateway.CodeInvalidInput) // else it would take the place of the one that waits
	store.issued = nil
	if r := f.ltxRegister(t, pair("my-agent", owner)); r.Reused || f.secret(t, k) != ltxKey(1) {
		t.Errorf("got %+v, want the key that waited", r)
	}

	lockedBy(s, store)
	_, err = f.Lifecycle.Rotate(t.Context(), k)
	notStored(err)
	if f.secret(t, k) != ltxKey(1) {
		t.Error("the old key was forgotten before the new one was stored")
	}
	store.issued = nil
	if _, err = f.Lifecycle.Rotate(t.Context(), k); err != nil || f.secret(t, k) != ltxKey(2) {
		t.Errorf("got %v, want the key that waited", err)
	}
	if got := len(s.seen("")); got != 2 {
		t.Errorf("got %d requests, want one registration and one rotation", got)
	}
}

func TestWhatIsForgottenDoesNotComeBackFromMemory(t *testing.T) {
	s := newLithtrix(t)
	store := &failing{Store: credstore.NewMemory(frozen)}
	set := ltxSetup(s.URL)
	set.store = store
	f := newFixture(t, set)
	k := f.ltxRegister(t, pair("my-agent", owner)).Key
	lockedBy(s, store)
	var waits *gateway.NotStoredError
	if _, err := f.Lifecycle.Rotate(t.Context(), k); !errors.As(err, &waits) {
		t.Fatalf("got %v, want a key that waits in memory", err)
	}
	store.issued = nil
	if _, err := f.Lifecycle.Forget(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	before := len(s.seen(ltxRegisterPath))
	_, err := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
	if got := len(s.seen(ltxRegisterPath)); got != before+1 {
		t.Errorf("got %d requests and %v, want that the service is asked", got-before, err)
	}
}

func TestARegistrationIsNotBegunWhereItCouldNotBeStored(t *testing.T) {
	gw := gatewaytest.New(t)
	store := &failing{Store: credstore.NewMemory(gw.Clock.Now)}
	set := ltxSetup(gw.URL)
	set.env["LUMINA_API_URL"] = gw.URL
	set.store, set.now = store, gw.Clock.Now
	f := newFixture(t, set)
	f.imports(t, "bot", devKey)
	store.put = errLocked
	_, lithtrix := f.Lithtrix.Register(t.Context(), pair("my-agent", owner))
	_, lumina := f.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "bot"})
	for name, err := range map[string]error{"lithtrix": lithtrix, "lumina": lumina} {
		if !errors.Is(err, credstore.ErrUnavailable) {
			t.Errorf("%s: got %v, want what the store says", name, err)
		}
	}
	if events := gw.Audit(t); len(events) != 0 {
		t.Errorf("got %v, want that no service was asked for anything", events)
	}
}

func TestLithtrixManyAtOnceRegisterAndRotateOnce(t *testing.T) {
	gw := gatewaytest.New(t)
	store := newTurnstile(20)
	set := ltxSetup(gw.URL)
	set.store, set.now = store, gw.Clock.Now
	set.transport = &held{until: store.all}
	f := newFixture(t, set)
	ids := make([]string, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = f.ltxRegister(t, pair("my-agent", owner)).KeyID })
	}
	wg.Wait()
	k := ltxCredKey(gw.URL, "my-agent", "")
	all := newTurnstile(20)
	all.Store = store.Store
	set.store, set.transport = all, &held{until: all.all}
	f = newFixture(t, set)
	rotated := make([]string, 20)
	for i := range rotated {
		wg.Go(func() {
			info, err := f.Lithtrix.Rotate(t.Context(), k) // it takes one lock
			if err != nil {
				t.Error(err)
			}
			rotated[i] = info.KeyID
		})
	}
	wg.Wait()
	for i := range ids {
		if ids[i] != ids[0] || rotated[i] != rotated[0] || ids[0] == rotated[0] {
			t.Fatalf("got the key ids %v and then %v, want one for all and then another", ids, rotated)
		}
	}
	if got := len(gw.Secrets()); got != 2 {
		t.Errorf("the gateway issued %d keys, want 2", got)
	}
	if got, err := f.Lifecycle.Do(t.Context(), k, get(ltxMePath)); err != nil || got.Status != 200 {
		t.Errorf("got %+v, %v, want that the key works", got, err)
	}
	noSecret(t, "the log", f.log.String(), gw.Secrets()...)
}

// losing is a transport that loses the answers of a path, before or after the
// service has acted.
type losing struct {
	path string
	acts bool
	left int
}

func (l *losing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != l.path || l.left == 0 {
		return http.DefaultTransport.RoundTrip(r)
	}
	l.left--
	if l.acts {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return nil, io.ErrUnexpectedEOF
}

func TestLithtrixLosesAnswersOfTheRealGateway(t *testing.T) {
	for _, acts := range []bool{false, true} {
		t.Run(fmt.Sprintf("acts %v", acts), func(t *testing.T) {
			gw := gatewaytest.New(t)
			lose := &losing{path: ltxRegisterPath, acts: acts, left: 1}
			set := ltxSetup(gw.URL)
			set.transport, set.now = lose, gw.Clock.Now
			f := newFixture(t, set)
			r := f.ltxRegister(t, pair("my-agent", owner))

			lose.path, lose.left = ltxRotatePath, 1
			rotated, err := f.Lifecycle.Rotate(t.Context(), r.Key)
			if acts {
				if err != nil || rotated.KeyID == r.KeyID {
					t.Errorf("got %+v, %v, want another key", rotated, err)
				}
			} else if e := wantError(t, err, gateway.CodeUnreachable); e.Sent || f.secret(t, r.Key) == "" {
				t.Errorf("got %+v, want that nothing was done", e)
			}
			if got, err := f.Lifecycle.Do(t.Context(), r.Key, get(ltxMePath)); err != nil || got.Status != 200 {
				t.Errorf("got %+v, %v, want that the stored key works", got, err)
			}
			noSecret(t, "the log", f.log.String(), gw.Secrets()...)
		})
	}
}

func TestLithtrixAtAServiceThatWantsTheTerms(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"LITHTRIX_REQUIRE_TERMS": "true"}))
	f := newFixture(t, ltxSetup(gw.URL))
	r := pair("my-agent", owner)
	_, err := f.Lithtrix.Register(t.Context(), r)
	if e := wantError(t, err, "VALIDATION_ERROR"); e.Status != 400 || !strings.Contains(e.Message, "agree_to_terms") {
		t.Errorf("got %+v", e)
	}
	yes := true
	r.AgreeToTerms = &yes
	f.ltxRegister(t, r)
}

func TestLithtrixHasNoCallToRevoke(t *testing.T) {
	s := newLithtrix(t)
	f := newFixture(t, ltxSetup(s.URL))
	r := f.ltxRegister(t, pair("my-agent", owner))
	var e *gateway.UnsupportedError
	if err := f.Lifecycle.Revoke(t.Context(), r.Key); !errors.As(err, &e) || !strings.Contains(e.Instead, "Rotating") {
		t.Errorf("got %v, want an UnsupportedError that names rotation", err)
	}
	for _, path := range []string{ltxRegisterPath, ltxRotatePath, "/v1/keys", "/v1/keys/anything"} {
		var refused *gateway.RefusedError
		if _, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "POST", Path: path}); !errors.As(err, &refused) || refused.Tool == "" {
			t.Errorf("%s: got %v, want it refused, and the tool named", path, err)
		}
	}
}
