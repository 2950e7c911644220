package gateway_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// fluxraAgainst returns a client of a real gateway that goes by its clock.
func fluxraAgainst(t *testing.T, gw *gatewaytest.Gateway, s setup) *fixture {
	t.Helper()
	s.env, s.now = map[string]string{"FLUXRA_API_URL": gw.URL}, gw.Clock.Now
	f := newFixture(t, s)
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), gw.Secrets()...) })
	return f
}

// fluxraWorks reports whether the gateway takes the access token.
func (f *fixture) fluxraWorks(t *testing.T, k credstore.Key) bool {
	t.Helper()
	c, err := f.store.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Lifecycle.Do(t.Context(), k, get("/api/agents/"+c.Attrs["agent_id"]))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status == http.StatusOK
}

// mailed returns what the last letter of a gateway's outbox has of a pattern.
func mailed(t *testing.T, gw *gatewaytest.Gateway, pattern string) string {
	t.Helper()
	letters, err := gw.Embedded().Outbox(t.Context())
	if err != nil || len(letters) == 0 {
		t.Fatalf("got %d letters, %v", len(letters), err)
	}
	found := regexp.MustCompile(pattern).FindString(letters[len(letters)-1].Text)
	if found == "" {
		t.Fatalf("the letter %q has no %s", letters[len(letters)-1].Subject, pattern)
	}
	return found
}

func TestFluxraAgainstARealGateway(t *testing.T) {
	gw := gatewaytest.New(t)
	f := fluxraAgainst(t, gw, setup{})
	r := f.enrol(t)
	if r.Reused || r.Mail != gateway.FluxraNotSent || r.KeyID == "" || len(gateway.Permissions(r.Info)) != 4 || !f.fluxraWorks(t, r.Key) {
		t.Fatalf("got %+v", r)
	}
	first := f.item(t, r.Key, credstore.KindAccess)
	for _, later := range []time.Duration{50 * time.Minute, 2 * time.Hour} {
		gw.Clock.Advance(later)
		if !f.fluxraWorks(t, r.Key) {
			t.Errorf("after %s more it does not work", later)
		}
	}
	if now := f.item(t, r.Key, credstore.KindAccess); now.KeyID == first.KeyID {
		t.Error("the access token is still the first")
	}
	info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil || info.KeyID == r.KeyID || info.Attrs["replaces"] != "" || !f.fluxraWorks(t, r.Key) {
		t.Errorf("rotated: got %+v, %v", info, err)
	}
	if err := f.Lifecycle.Revoke(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	if again := f.enrol(t); again.Reused || again.Attrs["agent_id"] != r.Attrs["agent_id"] || !f.fluxraWorks(t, r.Key) {
		t.Errorf("registered again: got %+v, want another key of the same account", again)
	}
}

func TestFluxrasMailAtARealGateway(t *testing.T) {
	gw := gatewaytest.New(t)
	f := fluxraAgainst(t, gw, setup{})
	r := f.enrol(t)
	ctx := t.Context()
	_, err := f.Fluxra.VerifyEmail(ctx, r.Key, "evt_0123456789AbCdEf0123456789AbCdEf0123456789A")
	wantError(t, err, "INVALID_TOKEN")
	gw.Clock.Advance(2 * time.Hour) // the first link has expired
	if err := f.Fluxra.ResendVerification(ctx, r.Key, "bot@example.com"); err != nil {
		t.Fatal(err)
	}
	link := mailed(t, gw, `http\S+/api/auth/verify-email\?token=\S+`)
	gw.Issued(link[strings.Index(link, "evt_"):])
	if info, err := f.Fluxra.VerifyEmail(ctx, credstore.Key{}, link); err != nil || info.Key != r.Key {
		t.Fatalf("got %+v, %v", info, err)
	}
	_, err = f.Fluxra.VerifyEmail(ctx, r.Key, link)
	wantError(t, err, "INVALID_TOKEN")

	gw.Clock.Advance(time.Minute)
	asked, err := f.Fluxra.RecoverRequest(ctx, "bot@example.com")
	if err != nil || asked.Left < 0 || !asked.Ends.After(gw.Clock.Now()) {
		t.Fatalf("got %+v, %v", asked, err)
	}
	code := mailed(t, gw, `\b[0-9]{6}\b`)
	other := fluxraAgainst(t, gw, setup{}) // a machine that knows nothing of it
	got, err := other.Fluxra.RecoverVerify(ctx, "bot@example.com", code)
	if err != nil || got.Incomplete || !other.fluxraWorks(t, got.Key) {
		t.Fatalf("got %+v, %v", got, err)
	}
	_, err = f.Fluxra.RecoverVerify(ctx, "bot@example.com", code)
	e := wantError(t, err, "CODE_ALREADY_USED")
	noSecret(t, "the error", e.Error(), code)
	noSecret(t, "the log", f.log.String()+other.log.String(), " "+code, code+" ")
	// The first machine has a key that works and a recovery key that does not.
	if !f.fluxraWorks(t, r.Key) {
		t.Error("the API key of before does not work")
	}
	_, err = f.Lifecycle.Rotate(ctx, r.Key)
	wantError(t, err, gateway.CodeRecovery)
}

// The answer to each step is lost once, before or after a real gateway has
// acted on it. Whatever that was, the account ends with one key, which works.
func TestFluxraLosesAnswersOfARealGateway(t *testing.T) {
	for _, path := range []string{"/api/auth/register", "", "/api/auth/token", "/api/auth/refresh"} {
		for _, acts := range []bool{false, true} {
			gw := gatewaytest.New(t)
			lose := &losing{path: path, acts: acts, left: 1}
			f := fluxraAgainst(t, gw, setup{transport: lose})
			if path == "" { // that of the first key: it is known when there is an account
				lose.left = 0
				r := f.enrol(t)
				gw.Clock.Advance(time.Minute)
				lose.path, lose.left = "/api/agents/"+r.Attrs["agent_id"], 1
				if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
					t.Errorf("acts %v: rotated over a dead line", acts)
				}
			} else if _, err := f.Fluxra.Register(t.Context(), weather()); err == nil && path == "/api/auth/register" {
				t.Errorf("acts %v: registered over a dead line", acts)
			}
			gw.Clock.Advance(50 * time.Minute)
			r := f.enrol(t)
			gw.Clock.Advance(50 * time.Minute)
			if !f.fluxraWorks(t, r.Key) {
				t.Errorf("%s, acts %v: it does not work", lose.path, acts)
			}
			info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
			if err != nil || info.Attrs["asked"] != "" || info.Attrs["replaces"] != "" || !f.fluxraWorks(t, r.Key) {
				t.Errorf("%s, acts %v: got %+v, %v", lose.path, acts, info, err)
			}
		}
	}
}

func TestManyAtOnceRenewOnceAtARealGateway(t *testing.T) {
	gw := gatewaytest.New(t)
	f := fluxraAgainst(t, gw, setup{})
	r := f.enrol(t)
	gw.Clock.Advance(50 * time.Minute)
	before := len(gw.Audit(t))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := f.Lifecycle.Do(context.Background(), r.Key, get("/api/agents/"+r.Attrs["agent_id"]))
			if err != nil || res.Status != http.StatusOK {
				t.Errorf("got %d, %v", res.Status, err)
			}
		})
	}
	wg.Wait()
	if got := len(gw.Audit(t)) - before; got != 1 {
		t.Errorf("got %d more events, want one renewal: %+v", got, gw.Audit(t))
	}
}
