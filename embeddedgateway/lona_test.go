package embeddedgateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestLonaRegistersByInvite(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Strategies(wire.LonaStrategy{ID: "s1", Name: "Momentum"}))
	a := withInvite(t, gw, "my-agent", invited(t, gw, "my-agent"), nil)
	wantStatus(t, a, http.StatusCreated, "")
	key := a.at("data", "token")
	if agent, _, ok := wire.ParseLonaToken(key); !ok || agent != "my-agent" {
		t.Errorf("the token cannot be taken apart: %q, %v", agent, ok)
	}
	a = strategies(t, gw, "my-agent", key)
	wantStatus(t, a, http.StatusOK, "")
	if got, want := string(a.body), `{"data":[{"id":"s1","name":"Momentum"}]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a = send(t, gw, http.MethodHead, strategiesPath, "", header{"X-API-Key": key, "X-User-Id": "my-agent"})
	if a.status != http.StatusOK || len(a.body) != 0 {
		t.Errorf("HEAD got %d with %d bytes, want 200 with none", a.status, len(a.body))
	}
}

func TestLonaInviteIsGoodOnce(t *testing.T) {
	const invalid = "invalid_invite"
	tests := map[string]func(*testing.T, *gatewaytest.Gateway) answer{
		"unknown": func(t *testing.T, gw *gatewaytest.Gateway) answer {
			return withInvite(t, gw, "my-agent", "lona_invite_"+strings.Repeat("a", 52), nil)
		},
		"malformed": func(t *testing.T, gw *gatewaytest.Gateway) answer {
			return withInvite(t, gw, "my-agent", "x", nil)
		},
		"used": func(t *testing.T, gw *gatewaytest.Gateway) answer {
			code := invited(t, gw, "my-agent")
			wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "")
			return withInvite(t, gw, "my-agent", code, nil)
		},
		"expired": func(t *testing.T, gw *gatewaytest.Gateway) answer {
			code := invited(t, gw, "my-agent")
			gw.Clock.Advance(time.Hour)
			return withInvite(t, gw, "my-agent", code, nil)
		},
		"another agent's": func(t *testing.T, gw *gatewaytest.Gateway) answer {
			return withInvite(t, gw, "other-agent", invited(t, gw, "my-agent"), nil)
		},
	}
	var first []byte
	for name, refused := range tests {
		t.Run(name, func(t *testing.T) {
			a := refused(t, gatewaytest.New(t))
			wantStatus(t, a, http.StatusUnauthorized, invalid)
			if first == nil {
				first = a.body
			}
			if !bytes.Equal(a.body, first) {
				t.Errorf("got %s, want %s: the answers tell the cases apart", a.body, first)
			}
		})
	}
	t.Run("good until its last moment", func(t *testing.T) {
		gw := gatewaytest.New(t)
		code := invited(t, gw, "my-agent")
		gw.Clock.Advance(time.Hour - time.Millisecond)
		wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "")
	})
	t.Run("good after another one for the same agent", func(t *testing.T) {
		gw := gatewaytest.New(t)
		code := invited(t, gw, "my-agent")
		invited(t, gw, "my-agent")
		wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "")
	})
	t.Run("good after a try for another agent", func(t *testing.T) {
		gw := gatewaytest.New(t)
		code := invited(t, gw, "my-agent")
		wantStatus(t, withInvite(t, gw, "other-agent", code, nil), http.StatusUnauthorized, invalid)
		wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "")
	})
}

func TestLonaInviteHasOneWinner(t *testing.T) {
	gw := gatewaytest.New(t)
	code := invited(t, gw, "my-agent")
	answers := race(64, func(int) answer { return withInvite(t, gw, "my-agent", code, nil) })
	var won []answer
	for _, a := range answers {
		if a.status == http.StatusCreated {
			won = append(won, a)
		} else {
			wantStatus(t, a, http.StatusUnauthorized, "invalid_invite")
		}
	}
	if len(won) != 1 {
		t.Fatalf("got %d winners, want 1", len(won))
	}
	wantStatus(t, strategies(t, gw, "my-agent", won[0].at("data", "token")), http.StatusOK, "")
}

func TestLonaRegistrationsAtOnceLeaveOneToken(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	answers := race(32, func(int) answer { return withSecret(t, gw, "my-agent", partnerSecret, nil) })
	good := 0
	for _, a := range answers {
		wantStatus(t, a, http.StatusCreated, "")
		if strategies(t, gw, "my-agent", a.at("data", "token")).status == http.StatusOK {
			good++
		}
	}
	if good != 1 {
		t.Errorf("got %d good tokens, want 1", good)
	}
}

func TestLonaRegistersBySecret(t *testing.T) {
	const older = "0ld-but-not-yet-retired-secret"
	set := gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret + " , " + older})
	wrong := func(t *testing.T, gw *gatewaytest.Gateway, secret string) {
		t.Helper()
		wantStatus(t, withSecret(t, gw, "my-agent", secret, nil), http.StatusUnauthorized, "invalid_registration_secret")
	}
	t.Run("without a limit", func(t *testing.T) {
		gw := gatewaytest.New(t, set)
		for i := range 40 {
			token(t, gw, fmt.Sprintf("agent-%d", i))
		}
	})
	t.Run("with any of the list", func(t *testing.T) {
		gw := gatewaytest.New(t, set)
		wantStatus(t, withSecret(t, gw, "my-agent", older, nil), http.StatusCreated, "")
	})
	t.Run("not with a wrong one", func(t *testing.T) {
		gw := gatewaytest.New(t, set)
		for _, secret := range []string{"x", partnerSecret + "0", partnerSecret[1:], partnerSecret + "," + older, partnerSecret + " , " + older, ","} {
			wrong(t, gw, secret)
		}
	})
	t.Run("not when none is set", func(t *testing.T) {
		gw := gatewaytest.New(t)
		wrong(t, gw, partnerSecret)
	})
	t.Run("with a wrong one often enough to be limited, the right one still works", func(t *testing.T) {
		gw := gatewaytest.New(t, set)
		for range 10 {
			wrong(t, gw, "guess")
		}
		a := withSecret(t, gw, "my-agent", "guess", nil)
		wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
		if got, want := a.header.Get("Retry-After"), "3600"; got != want {
			t.Errorf("got Retry-After %s, want %s", got, want)
		}
		token(t, gw, "my-agent")
		gw.Clock.Advance(time.Hour)
		wrong(t, gw, "guess")
	})
	t.Run("it decides alone beside an invite", func(t *testing.T) {
		gw := gatewaytest.New(t, set)
		code := invited(t, gw, "my-agent")
		a := withInvite(t, gw, "my-agent", code, header{"X-Agent-Registration-Secret": "stale"})
		wantStatus(t, a, http.StatusUnauthorized, "invalid_registration_secret")
		a = withInvite(t, gw, "my-agent", code, header{"X-Agent-Registration-Secret": partnerSecret})
		wantStatus(t, a, http.StatusCreated, "")
		wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "") // the invite is unspent
	})
	t.Run("neither it nor an invite is a bad request", func(t *testing.T) {
		wantStatus(t, withInvite(t, gatewaytest.New(t), "my-agent", "", nil), http.StatusBadRequest, "invalid_request")
	})
}

func TestLonaRotatesByRegisteringAgain(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	old := token(t, gw, "my-agent")
	other := token(t, gw, "other-agent")
	if got, want := last(t, gw).Name, "token_issued"; got != want {
		t.Errorf("got the event %q, want %q", got, want)
	}
	fresh := token(t, gw, "my-agent")
	if got, want := last(t, gw).Name, "token_rotated"; got != want {
		t.Errorf("got the event %q, want %q", got, want)
	}
	wantStatus(t, strategies(t, gw, "my-agent", old), http.StatusUnauthorized, "unauthorized")
	wantStatus(t, strategies(t, gw, "my-agent", fresh), http.StatusOK, "")
	wantStatus(t, strategies(t, gw, "other-agent", other), http.StatusOK, "")
}

func TestLonaRebind(t *testing.T) {
	rebind := func(policy string) gatewaytest.Option {
		return gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret, "AGENT_INVITE_REBIND": policy})
	}
	const proof, open = true, false
	for name, tt := range map[string]struct {
		opts []gatewaytest.Option
		want bool
	}{
		"embedded: open":           {[]gatewaytest.Option{partner()}, open},
		"standalone: proof":        {[]gatewaytest.Option{partner(), gatewaytest.Standalone()}, proof},
		"proof when it is said":    {[]gatewaytest.Option{rebind("proof")}, proof},
		"open where it is allowed": {[]gatewaytest.Option{rebind("open"), gatewaytest.Standalone()}, open},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, tt.opts...)
			key := token(t, gw, "my-agent")
			code := invited(t, gw, "my-agent")
			a := withInvite(t, gw, "my-agent", code, nil)
			if tt.want == open {
				wantStatus(t, a, http.StatusCreated, "")
				return
			}
			wantStatus(t, a, http.StatusConflict, "agent_exists")
			wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusOK, "")
			wantStatus(t, withInvite(t, gw, "my-agent", code, header{"X-API-Key": key}), http.StatusCreated, "") // the invite is unspent
			wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusUnauthorized, "unauthorized")
		})
	}
}

func TestLonaProofIsTheLastToken(t *testing.T) {
	const month = 30 * 24 * time.Hour
	setUp := func(t *testing.T) (gw *gatewaytest.Gateway, key string) {
		gw = gatewaytest.New(t, partner(), gatewaytest.Standalone())
		return gw, token(t, gw, "my-agent")
	}
	try := func(t *testing.T, gw *gatewaytest.Gateway, key string) answer {
		t.Helper()
		return withInvite(t, gw, "my-agent", invited(t, gw, "my-agent"), header{"X-API-Key": key})
	}
	t.Run("an expired one is good", func(t *testing.T) {
		gw, key := setUp(t)
		gw.Clock.Advance(month)
		wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusUnauthorized, "unauthorized")
		wantStatus(t, try(t, gw, key), http.StatusCreated, "")
	})
	t.Run("a rotated one is not", func(t *testing.T) {
		gw, key := setUp(t)
		token(t, gw, "my-agent")
		wantStatus(t, try(t, gw, key), http.StatusConflict, "agent_exists")
	})
	t.Run("one that had expired when it was rotated is not", func(t *testing.T) {
		gw, key := setUp(t)
		gw.Clock.Advance(month)
		token(t, gw, "my-agent")
		wantStatus(t, try(t, gw, key), http.StatusConflict, "agent_exists")
	})
	t.Run("another agent's is not", func(t *testing.T) {
		gw, _ := setUp(t)
		wantStatus(t, try(t, gw, token(t, gw, "other-agent")), http.StatusConflict, "agent_exists")
	})
	t.Run("an unknown one is not", func(t *testing.T) {
		gw, key := setUp(t)
		wantStatus(t, try(t, gw, key+"a"), http.StatusConflict, "agent_exists")
	})
	t.Run("an agent that never had one needs none", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.Standalone())
		wantStatus(t, try(t, gw, ""), http.StatusCreated, "")
	})
	t.Run("the registration secret needs none", func(t *testing.T) {
		gw, _ := setUp(t)
		token(t, gw, "my-agent")
	})
	t.Run("two strangers at once: one gets in", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.Standalone())
		codes := []string{invited(t, gw, "my-agent"), invited(t, gw, "my-agent"), invited(t, gw, "my-agent")}
		won := 0
		for _, a := range race(len(codes), func(i int) answer { return withInvite(t, gw, "my-agent", codes[i], nil) }) {
			if a.status == http.StatusCreated {
				won++
			} else {
				wantStatus(t, a, http.StatusConflict, "agent_exists")
			}
		}
		if won != 1 {
			t.Errorf("got %d registrations, want 1", won)
		}
	})
}

func TestLonaKillSwitch(t *testing.T) {
	off := gatewaytest.Env(map[string]string{"AGENT_INVITE_ENABLED": "false", "AGENT_REGISTRATION_SECRET": partnerSecret})
	gw := gatewaytest.New(t, partner())
	key := token(t, gw, "my-agent")
	code := invited(t, gw, "other-agent")
	invited(t, gw, "other-agent")
	invited(t, gw, "other-agent")
	wantStatus(t, requestInvite(t, gw, "other-agent"), http.StatusTooManyRequests, "rate_limited")
	gw.Restart(t, off)
	for range 5 { // it is judged before the limit
		wantStatus(t, requestInvite(t, gw, "other-agent"), http.StatusForbidden, "invites_disabled")
	}
	wantStatus(t, withInvite(t, gw, "other-agent", code, nil), http.StatusForbidden, "invites_disabled")
	wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusOK, "")
	token(t, gw, "other-agent")
	gw.Restart(t, partner())
	wantStatus(t, withInvite(t, gw, "other-agent", code, nil), http.StatusCreated, "")
}

func TestLonaTokenLife(t *testing.T) {
	gateways := map[string]*gatewaytest.Gateway{}
	with := func(ttl, most string) *gatewaytest.Gateway {
		of := ttl + " " + most
		if gateways[of] == nil {
			gateways[of] = gatewaytest.New(t, gatewaytest.Env(map[string]string{
				"AGENT_REGISTRATION_SECRET": partnerSecret, "AGENT_TOKEN_TTL_DAYS": ttl, "AGENT_TOKEN_MAX_TTL_DAYS": most,
			}))
		}
		return gateways[of]
	}
	for name, tt := range map[string]struct {
		ttl, most string
		ask       any
		days      int // 0: refused
	}{
		"30 days":                       {"", "", nil, 30},
		"null is the default":           {"", "", json.RawMessage("null"), 30},
		"what is asked for":             {"", "", 7, 7},
		"one day":                       {"", "", 1, 1},
		"more than the most":            {"", "", 31, 30},
		"far more than the most":        {"", "", int64(1) << 53, 30},
		"another default":               {"10", "20", nil, 10},
		"more than another default":     {"10", "20", 15, 15},
		"more than another most":        {"10", "20", 21, 20},
		"a default over the most":       {"60", "", nil, 30},
		"zero":                          {"", "", 0, 0},
		"negative":                      {"", "", -1, 0},
		"a fraction":                    {"", "", 1.5, 0},
		"a string":                      {"", "", "30", 0},
		"a number that is no int":       {"", "", json.RawMessage("99999999999999999999"), 0},
		"true":                          {"", "", true, 0},
		"zero where another most holds": {"10", "20", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			gw := with(tt.ttl, tt.most)
			gw.Clock.Set(docTime)
			more := map[string]any{}
			if tt.ask != nil {
				more["expires_in_days"] = tt.ask
			}
			a := withSecret(t, gw, "my-agent", partnerSecret, more)
			if tt.days == 0 {
				wantStatus(t, a, http.StatusBadRequest, "invalid_request")
				return
			}
			wantStatus(t, a, http.StatusCreated, "")
			life := time.Duration(tt.days) * 24 * time.Hour
			if got, want := a.at("data", "expires_at"), docTime.Add(life).Format("2006-01-02T15:04:05.000Z"); got != want {
				t.Errorf("got expires_at %s, want %s", got, want)
			}
			key := a.at("data", "token")
			gw.Clock.Advance(life - time.Millisecond)
			wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusOK, "")
			gw.Clock.Advance(time.Millisecond)
			wantStatus(t, strategies(t, gw, "my-agent", key), http.StatusUnauthorized, "unauthorized")
		})
	}
}

func TestLonaPermissionsAreTheConfiguredOnes(t *testing.T) {
	for name, tt := range map[string]struct{ value, want string }{
		"all":  {"", `"permissions":["*"]`},
		"some": {"strategies:read, backtests:write", `"permissions":["strategies:read","backtests:write"]`},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_DEFAULT_PERMISSIONS": tt.value}))
			a := withInvite(t, gw, "my-agent", invited(t, gw, "my-agent"), nil)
			if !bytes.Contains(a.body, []byte(tt.want)) {
				t.Errorf("got %s, want %s in it", a.body, tt.want)
			}
		})
	}
}

func TestLonaStrategiesNeedTheTokenAndItsAgent(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	key := token(t, gw, "my-agent")
	token(t, gw, "other-agent")
	var first []byte
	for name, h := range map[string]header{
		"nothing":        {},
		"no token":       {"X-User-Id": "my-agent"},
		"no user":        {"X-API-Key": key},
		"another user":   {"X-API-Key": key, "X-User-Id": "other-agent"},
		"another case":   {"X-API-Key": key, "X-User-Id": "My-Agent"},
		"a wrong token":  {"X-API-Key": key[:len(key)-1], "X-User-Id": "my-agent"},
		"a longer token": {"X-API-Key": key + "a", "X-User-Id": "my-agent"},
		"as a bearer":    {"Authorization": "Bearer " + key, "X-User-Id": "my-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, gw, http.MethodGet, strategiesPath, "", h)
			wantStatus(t, a, http.StatusUnauthorized, "unauthorized")
			if first == nil {
				first = a.body
			}
			if !bytes.Equal(a.body, first) {
				t.Errorf("got %s, want %s: the answers tell the cases apart", a.body, first)
			}
		})
	}
	t.Run("a token in the URL", func(t *testing.T) {
		a := send(t, gw, http.MethodGet, strategiesPath+"?api_key="+key+"&X-API-Key="+key, "", header{"X-User-Id": "my-agent"})
		wantStatus(t, a, http.StatusUnauthorized, "unauthorized")
	})
	t.Run("two users", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodGet, gw.URL+strategiesPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["X-Api-Key"] = []string{key}
		req.Header["X-User-Id"] = []string{"my-agent", "other-agent"}
		resp, err := gw.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("got status %d, want 401", resp.StatusCode)
		}
	})
}

func TestLonaRefusesWrongFieldsWithoutSpendingALimit(t *testing.T) {
	gw := gatewaytest.New(t)
	for name, body := range map[string]map[string]any{
		"no agent_id":               {"agent_name": "A"},
		"no agent_name":             {"agent_id": "my-agent"},
		"a null agent_id":           {"agent_id": nil, "agent_name": "A"},
		"names in another case":     {"Agent_ID": "my-agent", "agent_name": "A"},
		"an agent_id of one letter": {"agent_id": "a", "agent_name": "A"},
		"a slash":                   {"agent_id": "my/agent", "agent_name": "A"},
		"a newline":                 {"agent_id": "my-agent\n", "agent_name": "A"},
		"another script":            {"agent_id": "агент", "agent_name": "A"},
		"10,000 characters":         {"agent_id": strings.Repeat("a", 10_000), "agent_name": "A"},
		"a long agent_name":         {"agent_id": "my-agent", "agent_name": strings.Repeat("ä", 101)},
		"a control character":       {"agent_id": "my-agent", "agent_name": "A\x1b[31m"},
		"a long source":             {"agent_id": "my-agent", "agent_name": "A", "source": strings.Repeat("s", 65)},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, postJSON(t, gw, invitePath, body, nil), http.StatusBadRequest, "invalid_request")
			wantStatus(t, postJSON(t, gw, registerPath, body, nil), http.StatusBadRequest, "invalid_request")
		})
	}
	a := postJSON(t, gw, invitePath, map[string]any{
		"agent_id": "my-agent", "agent_name": strings.Repeat("ä", 100), "source": strings.Repeat("s", 64), "unknown": map[string]any{"x": []int{1}},
	}, nil)
	wantStatus(t, a, http.StatusCreated, "")
	invited(t, gw, "my-agent")
	invited(t, gw, "my-agent")
}

func TestLonaKeepsAnAuditTrail(t *testing.T) {
	gw := gatewaytest.New(t, partner(), gatewaytest.At(docTime))
	a := withInvite(t, gw, "my-agent", invited(t, gw, "my-agent"), nil)
	_, keyID, _ := wire.ParseLonaToken(a.at("data", "token"))
	gw.Clock.Advance(time.Minute)
	key := token(t, gw, "my-agent")
	_, fresh, _ := wire.ParseLonaToken(key)
	strategies(t, gw, "other-agent", key)
	strategies(t, gw, "other-agent", key)
	var got []string
	for _, e := range gw.Audit(t) {
		got = append(got, fmt.Sprintf("%s %s %s agent=%s key=%s ip=%s %q %v x%d",
			e.At.UTC().Format(time.RFC3339Nano), e.Protocol, e.Name, e.Agent, e.KeyID, e.IP, e.Detail, e.Refusal, e.Count))
	}
	want := []string{
		`2026-02-06T12:34:56.789Z lona invite_issued agent=my-agent key= ip=127.0.0.1 "" false x1`,
		`2026-02-06T12:34:56.789Z lona token_issued agent=my-agent key=` + keyID + ` ip=127.0.0.1 "by invite" false x1`,
		`2026-02-06T12:35:56.789Z lona token_rotated agent=my-agent key=` + fresh + ` ip=127.0.0.1 "by registration secret" false x1`,
		`2026-02-06T12:35:56.789Z lona refused:unauthorized agent=my-agent key=` + fresh + ` ip=127.0.0.1 "" true x2`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestLonaSecretsAreInNoLogTrailOrDatabase(t *testing.T) {
	log := &syncBuffer{}
	gw := gatewaytest.New(t, gatewaytest.SQLite(), partner(), gatewaytest.Standalone(), gatewaytest.Logger(log.logger()))
	key := token(t, gw, "my-agent")
	code := invited(t, gw, "my-agent")
	wrong := []string{"wrong-registration-secret", "lona_invite_neverissuedneverissued", "lona_partner_my-agent_abcdefabcdef_neverissuedneverissued"}
	withSecret(t, gw, "my-agent", wrong[0], nil)
	withInvite(t, gw, "my-agent", wrong[1], nil)
	withInvite(t, gw, "my-agent", code, header{"X-API-Key": wrong[2]})
	strategies(t, gw, "my-agent", wrong[2])
	strategies(t, gw, wrong[2], key)
	gw.Clock.Advance(time.Minute) // else the refusals are one, and say only what they have in common
	strategies(t, gw, "my-agent", "lona_partner_"+wrong[1]+"_abcdefabcdef_x")
	// In the wrong places.
	withInvite(t, gw, code, key, nil)
	withInvite(t, gw, wrong[1], "x", nil)
	requestInvite(t, gw, code)
	withSecret(t, gw, "my-agent", partnerSecret, map[string]any{"agent_name": key})
	withSecret(t, gw, "my-agent", partnerSecret, map[string]any{"source": "x " + wrong[1]})
	send(t, gw, http.MethodGet, strategiesPath+"/"+key+"?token="+key, "", nil)
	send(t, gw, http.MethodPost, registerPath, `{"agent_id":"`+key+`",}`, nil)
	send(t, gw, http.MethodPost, registerPath, `{"`+key+`":1,"`+key+`":2}`, nil)

	secrets := append(gw.Secrets(), wrong...)
	if len(secrets) != 6 {
		t.Errorf("got %d secrets, want the partner's, a token, an invite and three wrong ones", len(secrets))
	}
	for _, e := range gw.Audit(t) {
		wantNone(t, "the audit trail", fmt.Appendf(nil, "%+v", e), secrets...)
	}
	gw.Restart(t) // what is only in the log of the database is there too
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

// race calls f n times at once.
func race(n int, f func(i int) answer) []answer {
	answers := make([]answer, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			answers[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return answers
}
