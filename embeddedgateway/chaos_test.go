package embeddedgateway_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// chaos makes a gateway fail on purpose. Nobody waits.
func chaos(c embeddedgateway.Chaos) gatewaytest.Option {
	return gatewaytest.Config(func(cfg *embeddedgateway.Config) {
		if c.Pause == nil {
			c.Pause = func(context.Context, time.Duration) error { return nil }
		}
		cfg.Chaos = &c
	})
}

// calm ends it.
func calm() gatewaytest.Option {
	return gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Chaos = nil })
}

func TestParseChaos(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=0",
		embeddedgateway.ChaosForm: "reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=7",
		"reject=0.2":              "reject=20%,delay=0%:2s,limit=0%,drop=0%,seed=0",
		"delay=100%:150ms, seed=18446744073709551615": "reject=0%,delay=100%:150ms,limit=0%,drop=0%,seed=18446744073709551615",
		"delay=1%":        "reject=0%,delay=1%:2s,limit=0%,drop=0%,seed=0",
		"drop=0,limit=1":  "reject=0%,delay=0%:2s,limit=100%,drop=0%,seed=0",
		"reject=101%":     "!reject is not between 0% and 100%",
		"reject=NaN":      "!reject is not between",
		"drop=-1%":        "!drop is not between",
		"drop=often":      "!want how often, such as 5% or 0.05",
		"delay=5%:soon":   "!delay=5%:soon: want how often and how long",
		"delay=5%:-1s":    "!want how often and how long",
		"delay=5%:1h":     "!a delay is at most 8s",
		"seed=-1":         "!seed=-1: want a whole number",
		"loss=5%":         "!\"loss\" is none of reject, delay, limit, drop and seed",
		"drop":            "!want each of them once",
		"drop=1%,drop=2%": "!want each of them once",
		"drop=1%,":        "!want each of them once",
	} {
		c, err := embeddedgateway.ParseChaos(text)
		if said, wrong := strings.CutPrefix(want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), said) {
				t.Errorf("%q: got %v, %v; want an error with %q", text, c, err, said)
			}
			continue
		}
		if err != nil || c.String() != want {
			t.Errorf("%q: got %s (%v), want %s", text, c, err, want)
		}
	}
}

func TestNewRefusesChaosThatCannotBe(t *testing.T) {
	cfg := config(t)
	cfg.Chaos = &embeddedgateway.Chaos{Drop: 2}
	if g, err := embeddedgateway.New(t.Context(), cfg); err == nil {
		g.Close()
		t.Error("got a gateway that drops 200 % of its answers")
	}
}

func TestChaosLimits(t *testing.T) {
	var log strings.Builder
	gw := gatewaytest.New(t, chaos(embeddedgateway.Chaos{Limit: 1, Delay: 1, Seed: 1}), gatewaytest.Logger(slog.New(slog.NewTextHandler(&log, nil))))

	a := requestInvite(t, gw, "my-agent")

	wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Errorf("got Retry-After %q, want 1", got)
	}
	if got := a.header.Get(embeddedgateway.ChaosHeader); got != "delay,limit" {
		t.Errorf("got %s %q, want what was done", embeddedgateway.ChaosHeader, got)
	}
	for _, line := range []string{"this is a rehearsal", "seed=1", "fault=limit protocol=lona method=POST path=" + invitePath} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log does not say %q:\n%s", line, &log)
		}
	}
	for _, path := range []string{"/health", "/agentdoor/health", "/.well-known/jwks.json"} {
		if a := send(t, gw, http.MethodGet, path, "", nil); a.status != http.StatusOK || a.header.Get(embeddedgateway.ChaosHeader) != "" {
			t.Errorf("%s: got %d %v, want it to be calm", path, a.status, a.header)
		}
	}
	gw.Restart(t, calm())
	for range 3 {
		wantStatus(t, requestInvite(t, gw, "my-agent"), http.StatusCreated, "") // it counted for nothing
	}
}

func TestChaosDelays(t *testing.T) {
	var waited []time.Duration
	gw := gatewaytest.New(t, chaos(embeddedgateway.Chaos{Delay: 1, Wait: 3 * time.Second, Pause: func(_ context.Context, d time.Duration) error {
		waited = append(waited, d)
		return nil
	}}))

	a := requestInvite(t, gw, "my-agent")

	wantStatus(t, a, http.StatusCreated, "")
	if got := a.header.Get(embeddedgateway.ChaosHeader); got != "delay" || !slices.Equal(waited, []time.Duration{3 * time.Second}) {
		t.Errorf("got %q after %v, want a delay of 3 s", got, waited)
	}
	wantStatus(t, requestInvite(t, gw, "-"), http.StatusBadRequest, "invalid_request")
}

// The proof that chaos rejects is as good as before.
func TestChaosRejectsProofs(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	clock := gw.Clock.Now()
	code := invited(t, gw, "my-agent")
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pending := postJSON(t, gw, wire.AgentDoorRegisterPath, map[string]any{
		"public_key": base64.StdEncoding.EncodeToString(public), "scopes_requested": []string{"api.access"},
	}, nil)
	wallet, err := eip191.ParseKey(strings.Repeat("4a", 32))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wallet.Sign(wire.LuminaMessage(wallet.Address(), clock.Unix()))
	if err != nil {
		t.Fatal(err)
	}
	proofs := []struct {
		name   string
		path   string
		body   map[string]any
		status int
		code   string
		good   int
	}{
		{"agentdoor", wire.AgentDoorVerifyPath, map[string]any{
			"agent_id":  pending.at("agent_id"),
			"signature": base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(pending.at("challenge", "message")))),
		}, 400, "invalid_signature", 200},
		{"lona", registerPath, map[string]any{"agent_id": "my-agent", "agent_name": "A", "invite_code": code}, 401, "invalid_invite", 201},
		{"lumina", wire.LuminaOnboardPath, map[string]any{
			"walletAddress": wallet.Address(), "signature": signature, "timestamp": clock.Unix(),
		}, 401, "invalid_signature", 201},
	}
	gw.Restart(t, chaos(embeddedgateway.Chaos{Reject: 1}))
	for _, p := range proofs {
		a := postJSON(t, gw, p.path, p.body, nil)
		if got := fmt.Sprint(a.at("error"), a.code(), a.at("code")); a.status != p.status || !strings.Contains(got, p.code) ||
			a.header.Get(embeddedgateway.ChaosHeader) != "reject" {
			t.Errorf("%s: got %d %s, want %d %s", p.name, a.status, a.body, p.status, p.code)
		}
		if a := postJSON(t, gw, p.path, map[string]any{}, nil); a.status != http.StatusBadRequest || a.header.Get(embeddedgateway.ChaosHeader) != "" {
			t.Errorf("%s: got %d %s for a body that proves nothing", p.name, a.status, a.body)
		}
	}
	for _, path := range []string{wire.FluxraVerifyEmailPath, wire.FluxraRecoveryVerifyPath} {
		a := postJSON(t, gw, path, map[string]any{"token": "evt_x", "email": "a@example.com", "code": "123456"}, nil)
		if a.status != http.StatusUnauthorized || a.code() != "INVALID_TOKEN" || a.header.Get(embeddedgateway.ChaosHeader) != "reject" {
			t.Errorf("%s: got %d %s %v", path, a.status, a.body, a.header)
		}
	}
	// What is no proof stays as it is.
	wantStatus(t, withSecret(t, gw, "other", partnerSecret, nil), http.StatusCreated, "")
	a := postJSON(t, gw, wire.LithtrixRegisterPath, map[string]any{"agent_name": "a", "owner_identifier": "b"}, nil)
	wantStatus(t, a, http.StatusCreated, "")

	gw.Restart(t, calm())
	for _, p := range proofs {
		if a := postJSON(t, gw, p.path, p.body, nil); a.status != p.good {
			t.Errorf("%s: got %d %s afterwards, want %d", p.name, a.status, a.body, p.good)
		}
	}
}

// What is dropped was done.
func TestChaosDrops(t *testing.T) {
	gw := gatewaytest.New(t, chaos(embeddedgateway.Chaos{Drop: 1}))
	inside := &http.Client{Transport: &http.Transport{DialContext: gw.Embedded().DialContext, DisableKeepAlives: true}}
	for name, how := range map[string]struct {
		client *http.Client
		url    string
	}{"listener": {gw.Client(), gw.URL}, "inprocess": {inside, embeddedgateway.Origin}} {
		body := fmt.Sprintf(`{"agent_name":%q,"owner_identifier":"me"}`, name)
		resp, err := how.client.Post(how.url+wire.LithtrixRegisterPath, "application/json", strings.NewReader(body))
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: got %s, want no answer", name, resp.Status)
		}
	}
	a := postJSON(t, gw, wire.LithtrixRegisterPath, map[string]any{}, nil)
	if a.status != http.StatusBadRequest {
		t.Errorf("got %d: a refusal is not dropped", a.status)
	}
	gw.Restart(t, calm())
	for _, name := range []string{"listener", "inprocess"} {
		a := postJSON(t, gw, wire.LithtrixRegisterPath, map[string]any{"agent_name": name, "owner_identifier": "me"}, nil)
		if a.status != http.StatusConflict {
			t.Errorf("%s: got %d %s, want the agent to be registered", name, a.status, a.body)
		}
	}
}

func TestASeedRepeatsChaos(t *testing.T) {
	run := func(seed uint64, elsewhere bool) (fates []string) {
		gw := gatewaytest.New(t, chaos(embeddedgateway.Chaos{Limit: 0.4, Delay: 0.4, Seed: seed}))
		for range 40 {
			a := send(t, gw, http.MethodGet, strategiesPath, "", nil)
			fates = append(fates, fmt.Sprint(a.status, a.header.Get(embeddedgateway.ChaosHeader)))
			send(t, gw, http.MethodGet, wire.LithtrixMePath, "", nil)
			if elsewhere { // what comes elsewhere does not matter
				send(t, gw, http.MethodGet, wire.LithtrixCapabilitiesPath, "", nil)
			}
		}
		return fates
	}
	first := run(7, false)
	if !slices.Equal(first, run(7, true)) {
		t.Error("the same seed has struck others")
	}
	if slices.Equal(first, run(8, false)) {
		t.Error("another seed has struck the same")
	}
	for _, fate := range []string{"401", "401delay", "429limit", "429delay,limit"} {
		if !slices.Contains(first, fate) {
			t.Errorf("nothing of %v was %q", first, fate)
		}
	}
	var log strings.Builder
	gatewaytest.New(t, chaos(embeddedgateway.DefaultChaos()), gatewaytest.Logger(slog.New(slog.NewTextHandler(&log, nil))))
	if !strings.Contains(log.String(), "seed=") || strings.Contains(log.String(), "seed=0") {
		t.Errorf("the log does not say which seed was drawn:\n%s", &log)
	}
}
