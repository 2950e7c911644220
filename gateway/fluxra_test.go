package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The secrets in the transcripts.
const (
	docAgentID  = "agt_0123456789abcdef0123456789abcdef"
	docRecovery = "rk_AbCdEf0123456789AbCdEf0123456789AbCdEf01234"
	docReset    = "rk_ZyXwVu9876543210ZyXwVu9876543210ZyXwVu98765"
	docAPIKey   = "sk_0123456789AbCdEf0123456789AbCdEf0123456789A"
)

func TestTranscriptOfFluxra(t *testing.T) {
	clock := &tick{at: time.Date(2026, 4, 3, 20, 0, 0, 0, time.UTC)}
	var all []exchange
	for _, name := range []string{
		"register", "create-key", "token", "verify-email", "resend", "refresh", "delete-key", "logout", "recovery-request",
	} {
		all = append(all, readExchange(t, "fluxra/"+name+".txtar"))
	}
	f := newFixture(t, setup{now: clock.now, transport: replay(t, all...)})
	f.Fluxra.TagKeys("")
	ctx := t.Context()

	r, err := f.Fluxra.Register(ctx, gateway.FluxraRegistration{
		AgentName: "weather-bot", Email: "bot@example.com",
		Metadata: wire.FluxraMetadata{Description: "Weather assistant", Owner: "Lensy Inc.", Version: "1.0.0"},
	})
	if err != nil {
		t.Fatal(err)
	}

	want := credstore.Key{Protocol: "fluxra", Origin: "https://chat.tryfluxra.com", Agent: "weather-bot", Kind: credstore.KindAPIKey}
	if r.Key != want || r.KeyID != "aky_0123456789abcdef" || r.Reused || r.State != credstore.StateActive || !r.ExpiresAt.IsZero() {
		t.Errorf("got %+v, want the key %+v", r, want)
	}
	if r.Mail != gateway.FluxraSent || !r.MailEnds.Equal(time.Date(2026, 4, 3, 21, 0, 0, 0, time.UTC)) {
		t.Errorf("got the mail %q until %s", r.Mail, r.MailEnds)
	}
	if got := gateway.Permissions(r.Info); !slices.Equal(got, wire.FluxraScopes()) {
		t.Errorf("got the permissions %v", got)
	}
	if got := f.item(t, r.Key, credstore.KindRecovery); got.Secret.Reveal() != docRecovery || got.Attrs["agent_id"] != docAgentID {
		t.Errorf("stored the recovery key %+v", got)
	}
	if f.secret(t, r.Key) != docAPIKey || f.Lifecycle.Handle(r.Key) != "fluxra/weather-bot" {
		t.Errorf("stored another API key, or as %s", f.Lifecycle.Handle(r.Key))
	}
	token := f.item(t, r.Key, credstore.KindAccess)
	if !strings.HasSuffix(token.Secret.Reveal(), ".c2lnbmF0dXJlLW9uZQ") || !token.ExpiresAt.Equal(clock.at.Add(time.Hour)) {
		t.Errorf("stored the access token %+v", token)
	}
	info, err := f.Fluxra.VerifyEmail(ctx, credstore.Key{}, "https://chat.tryfluxra.com/api/auth/verify-email?token=evt_0123456789AbCdEf0123456789AbCdEf0123456789A")
	if err != nil || info.Key != r.Key || info.Attrs["email_state"] != "verified" {
		t.Errorf("verified: got %+v, %v", info, err)
	}
	if err := f.Fluxra.ResendVerification(ctx, credstore.Key{}, "bot@example.com"); err != nil {
		t.Error(err)
	}
	clock.advance(50 * time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://chat.tryfluxra.com/api/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Fluxra.Authorize(ctx, r.Key, req); err != nil || !strings.HasSuffix(req.Header.Get("Authorization"), ".c2lnbmF0dXJlLXR3bw") {
		t.Errorf("authorized with %q, %v, want the refreshed token", req.Header.Get("Authorization"), err)
	}
	if err := f.Lifecycle.Revoke(ctx, r.Key); err != nil {
		t.Error(err)
	}
	asked, err := f.Fluxra.RecoverRequest(ctx, "bot@example.com")
	if err != nil || asked.Left != 2 || !asked.Ends.Equal(time.Date(2026, 4, 3, 20, 15, 0, 0, time.UTC)) {
		t.Errorf("asked for a code: got %+v, %v", asked, err)
	}
}

func TestTranscriptOfFluxrasRecovery(t *testing.T) {
	at := time.Date(2026, 4, 3, 20, 0, 0, 0, time.UTC)
	f := newFixture(t, setup{now: func() time.Time { return at }, transport: replay(t,
		readExchange(t, "fluxra/recovery-verify.txtar"), readExchange(t, "fluxra/token.txtar"),
		readExchange(t, "fluxra/list-keys.txtar"), // for the key that was asked for
		readExchange(t, "fluxra/list-keys.txtar"),
	)})
	k := credstore.Key{Protocol: "fluxra", Origin: "https://chat.tryfluxra.com", Agent: "weather-bot", Kind: credstore.KindAPIKey}
	f.put(t, credstore.Credential{Secret: credstore.NewSecret(docAPIKey), Info: credstore.Info{
		Key: k, KeyID: "aky_0123456789abcdef", Attrs: map[string]string{"agent_id": docAgentID, "asked": "enlist-20260403-200000"},
	}})

	r, err := f.Fluxra.RecoverVerify(t.Context(), "bot@example.com", "123456")
	if err != nil || r.Incomplete || r.Key != k {
		t.Fatalf("got %+v, %v", r, err)
	}
	if got := f.item(t, k, credstore.KindRecovery).Secret.Reveal(); got != docReset {
		t.Errorf("stored the recovery key %q", got)
	}
	res, err := f.Lifecycle.Do(t.Context(), k, get("/api/agents/"+docAgentID))
	if err != nil || res.Status != 200 || !strings.Contains(string(res.Body), "enlist-20260403-200000") {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestFluxraRegistersOnce(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	again := f.enrol(t)
	if !again.Reused || again.KeyID != r.KeyID || again.Mail != gateway.FluxraSent || len(s.calls) != 3 {
		t.Errorf("got %+v after %v", again, s.calls)
	}
	if got := f.me(t, r.Key); got != 200 {
		t.Errorf("got the status %d", got)
	}
	_, err := f.Fluxra.Register(t.Context(), gateway.FluxraRegistration{AgentName: "weather-bot", Email: "other@example.com"})
	if e := wantError(t, err, gateway.CodeInvalidInput); !strings.Contains(e.Error(), "label") {
		t.Errorf("got %v, want it to ask for a label", err)
	}
	other, err := f.Fluxra.Register(t.Context(), gateway.FluxraRegistration{AgentName: "weather-bot", Email: "other@example.com", Label: "second"})
	if err != nil || other.Reused || f.Lifecycle.Handle(other.Key) != "fluxra/second" {
		t.Errorf("got %+v, %v", other, err)
	}
	_, err = f.Fluxra.Register(t.Context(), gateway.FluxraRegistration{AgentName: "second"})
	wantError(t, err, gateway.CodeInvalidInput)
	for _, bad := range []gateway.FluxraRegistration{
		{AgentName: "ab"},
		{AgentName: "a_b"},
		{AgentName: "weather-bot", Email: "no"},
		{AgentName: "abc", Label: strings.Repeat("x", 101)},
		{AgentName: "abc", Metadata: wire.FluxraMetadata{Owner: "a\nb"}},
	} {
		_, err := f.Fluxra.Register(t.Context(), bad)
		wantError(t, err, gateway.CodeInvalidInput)
	}
}

// stopper is a store that stops working after so many writes, as a process
// that is killed there would.
type stopper struct {
	credstore.Store
	left int
}

var errStopped = errors.New("stopped")

func (s *stopper) Put(ctx context.Context, c credstore.Credential) error {
	if s.left == 0 {
		return errStopped
	}
	s.left--
	return s.Store.Put(ctx, c)
}

// A registration that is broken off after any write goes on from there, and
// ends with one key that works and none that nobody has.
func TestFluxraGoesOnWhereARegistrationStopped(t *testing.T) {
	for writes := range 6 {
		s := newFluxra(t)
		inner := credstore.NewMemory(s.clock.now)
		if _, err := s.client(&stopper{inner, writes}).Fluxra.Register(t.Context(), weather()); err == nil && writes < 4 {
			t.Fatalf("%d writes: registered", writes)
		}
		s.clock.advance(time.Minute)
		f := s.client(inner) // the process after

		r := f.enrol(t)

		if got := f.me(t, r.Key); got != 200 {
			t.Errorf("%d writes: got the status %d", writes, got)
		}
		if got := s.alive(); len(got) != 1 || got[0] != r.KeyID {
			t.Errorf("%d writes: the keys %v live, want only %s", writes, got, r.KeyID)
		}
		accounts := 1
		if writes == 1 { // the recovery key itself was lost
			accounts = 2
		}
		if got := s.count("POST /api/auth/register"); got != accounts {
			t.Errorf("%d writes: registered %d times, want %d", writes, got, accounts)
		}
		if c, _ := f.store.Get(t.Context(), r.Key); c.Attrs["asked"] != "" || c.Attrs["replaces"] != "" {
			t.Errorf("%d writes: left %v", writes, c.Attrs)
		}
	}
}

// refuser is a store that takes nothing of a kind while it is told so.
type refuser struct {
	credstore.Store
	kind credstore.Kind // "": takes all
}

func (s *refuser) Put(ctx context.Context, c credstore.Credential) error {
	if c.Kind == s.kind && fromService(c) {
		return errStopped
	}
	return s.Store.Put(ctx, c)
}

func TestFluxraKeepsInMemoryWhatTheStoreRefuses(t *testing.T) {
	for _, kind := range []credstore.Kind{credstore.KindRecovery, credstore.KindAPIKey} {
		s := newFluxra(t)
		store := &refuser{credstore.NewMemory(s.clock.now), kind}
		f := s.client(store)
		_, err := f.Fluxra.Register(t.Context(), weather())
		var not *gateway.NotStoredError
		if !errors.As(err, &not) {
			t.Fatalf("%s: got %v", kind, err)
		}
		if _, err := f.Fluxra.Register(t.Context(), weather()); !errors.As(err, &not) {
			t.Errorf("%s, still refusing: got %v", kind, err)
		}
		store.kind = ""
		r := f.enrol(t)
		if f.me(t, r.Key) != 200 || s.count("POST /api/auth/register") != 1 || s.count("POST agent") != 1 {
			t.Errorf("%s: got %v", kind, s.calls)
		}
	}
}

func TestFluxraUsesAnAccessTokenThatIsNotStored(t *testing.T) {
	s := newFluxra(t)
	store := &refuser{credstore.NewMemory(s.clock.now), credstore.KindAccess}
	f := s.client(store)
	r := f.enrol(t)
	for range 3 {
		if got := f.me(t, r.Key); got != 200 {
			t.Errorf("got the status %d", got)
		}
	}
	if got := s.count("POST /api/auth/token"); got != 1 {
		t.Errorf("took %d tokens, want 1", got)
	}
	long := "eyJhbGciOiJFZERTQSJ9." + strings.Repeat("a", 2600) + ".c2ln"
	s.on("POST /api/auth/refresh", 1, reply(200, `{"access_token":"`+long+`","expires_in":3600}`))
	store.kind = ""
	s.clock.advance(55 * time.Minute)
	s.tokens[long], s.ends[long] = s.keys[s.any()][0], s.clock.now().Add(time.Hour)
	if got := f.me(t, r.Key); got != 200 {
		t.Errorf("got the status %d with a long token", got)
	}
	k := r.Key
	k.Kind = credstore.KindAccess
	if _, err := f.store.Get(t.Context(), k); !errors.Is(err, credstore.ErrNotFound) {
		t.Errorf("got %v, want a token of 2,600 bytes not kept", err)
	}
}

func TestFluxraSaysThatALostRegistrationMayHaveLeftAnAccount(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	s.loses("POST /api/auth/register", 1)
	_, err := f.Fluxra.Register(t.Context(), weather())
	if e := wantError(t, err, gateway.CodeUnreachable); !e.Sent || e.Op != "register" {
		t.Errorf("got %+v", e)
	}
	if got := s.count("POST /api/auth/register"); got != 1 {
		t.Errorf("registered %d times, want no second time by itself", got)
	}
	info, err := f.Lifecycle.Resolve(t.Context(), "fluxra/weather-bot")
	if err != nil || info.State != credstore.StatePending {
		t.Errorf("got %+v, %v, want it pending", info, err)
	}
	_, err = f.Lifecycle.Do(t.Context(), info.Key, get("/api/me"))
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) || refused.Tool != "fluxra_register_agent" {
		t.Errorf("got %v", err)
	}
	if r := f.enrol(t); r.Reused || f.me(t, r.Key) != 200 || len(s.accounts) != 2 {
		t.Errorf("registered again: got %+v, %d accounts", r, len(s.accounts))
	}
	if !strings.Contains(f.log.String(), "may be left at the service") {
		t.Error("the log does not say that an account may be left")
	}
}

func TestFluxraWithdrawsARegistrationThatWasRefused(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	s.on("POST /api/auth/register", 9, reply(400, `{"error":{"code":"INVALID_AGENT_NAME","message":"taken"}}`))
	_, err := f.Fluxra.Register(t.Context(), weather())
	if e := wantError(t, err, "INVALID_AGENT_NAME"); e.Sent || !e.Theirs {
		t.Errorf("got %+v", e)
	}
	if all, _ := f.Lifecycle.List(t.Context()); len(all) != 0 {
		t.Errorf("left %+v", all)
	}
}

func TestManyAtOnceRegisterAtFluxraOnce(t *testing.T) {
	s := newFluxra(t)
	store := credstore.NewMemory(s.clock.now)
	clients := []*fixture{s.client(store), s.client(store)}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := clients[i%2].Fluxra.Register(context.Background(), weather()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.count("POST /api/auth/register") != 1 || s.count("POST agent") != 1 || s.count("POST /api/auth/token") != 1 {
		t.Errorf("got %v", s.calls)
	}
}
