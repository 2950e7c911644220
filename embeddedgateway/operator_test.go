package embeddedgateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// search returns what an operator finds, as "protocol/agent".
func search(t testing.TB, gw *gatewaytest.Gateway, q embeddedgateway.AgentQuery) (found []string) {
	t.Helper()
	page, err := gw.Embedded().Agents(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range page.Agents {
		found = append(found, a.Protocol+"/"+a.Agent)
	}
	return found
}

// shown is an agent as an operator sees it.
func shown(t testing.TB, gw *gatewaytest.Gateway, protocol, agent string) embeddedgateway.AgentDetail {
	t.Helper()
	d, err := gw.Embedded().Agent(t.Context(), protocol, agent)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnAgentIsFoundByWhatItSaysOfItself(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	token(t, gw, "my-agent")
	ltxKey(t, gw, "scout")
	id, message := doorPendingAs(t, gw, pair("one"), map[string]any{"name": "Door Bot", "owner": "ops@example.com", "n": 7, "evil": "a\x00b"})
	wantDoor(t, doorVerify(t, gw, id, pair("one").sign(message)), http.StatusOK, "")
	flux := postJSON(t, gw, "/api/auth/register", map[string]any{
		"agent_name": "Flux-Bot", "metadata": map[string]any{"owner": "Érik"},
	}, nil)
	ltx := shown(t, gw, "lithtrix", "scout/"+owner)
	for text, want := range map[string]string{
		"MY-A": "lona/my-agent", "scout": "lithtrix/scout/" + owner, strings.ToUpper(owner): "lithtrix/scout/" + owner,
		ltx.Attrs["agent_id"]: "lithtrix/scout/" + owner,
		"door b":              "agentdoor/" + id, "OPS@": "agentdoor/" + id, strings.ToLower(id): "agentdoor/" + id,
		"éri": "fluxra/" + flux.at("agent_id"), "flux-": "fluxra/" + flux.at("agent_id"),
	} {
		if got := search(t, gw, embeddedgateway.AgentQuery{Search: text}); !slices.Equal(got, []string{want}) {
			t.Errorf("%q: found %q, want %s", text, got, want)
		}
	}
	if d := shown(t, gw, "agentdoor", id); d.Name != "Door Bot" || d.Owner != "ops@example.com" || d.Email != "" || len(d.Keys) != 1 {
		t.Errorf("got %+v", d)
	}
	for _, q := range []embeddedgateway.AgentQuery{{Limit: -1}, {Limit: 501}, {State: "asleep"}, {After: "x"}, {After: "x", Search: "y"}, {Protocol: "\x00"}} {
		if _, err := gw.Embedded().Agents(t.Context(), q); !errors.Is(err, embeddedgateway.ErrQuery) {
			t.Errorf("%+v: got error %v, want %v", q, err, embeddedgateway.ErrQuery)
		}
	}
}

// doorPendingAs is doorPending with metadata.
func doorPendingAs(t testing.TB, gw *gatewaytest.Gateway, p doorPair, metadata map[string]any) (agentID, message string) {
	t.Helper()
	a := doorBegin(t, gw, p.public(), map[string]any{"metadata": metadata}, nil)
	wantDoor(t, a, http.StatusCreated, "")
	return a.at("agent_id"), a.at("challenge", "message")
}

// TestAVerifiedEmailIsTheOperatorsToRead: it is shown and found, whole and in any
// case, and lies in the database encrypted only.
func TestAVerifiedEmailIsTheOperatorsToRead(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, "Operator-Test@Example.com")
	if d := shown(t, gw, "fluxra", agent.id); d.Email != "" {
		t.Errorf("got the email %q before it is verified", d.Email)
	}
	wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), http.StatusOK, "")
	if d := shown(t, gw, "fluxra", agent.id); d.Email != "operator-test@example.com" {
		t.Errorf("got the email %q", d.Email)
	}
	for text, want := range map[string]int{"operator-test@example.com": 1, "OPERATOR-TEST@example.COM": 1, "operator-test@": 0, "other@example.com": 0} {
		for _, protocol := range []string{"", "fluxra"} {
			if got := search(t, gw, embeddedgateway.AgentQuery{Search: text, Protocol: protocol}); len(got) != want {
				t.Errorf("%q: found %q, want %d", text, got, want)
			}
		}
		if got := search(t, gw, embeddedgateway.AgentQuery{Search: text, Protocol: "lona"}); len(got) > 0 {
			t.Errorf("%q: found %q at Lona", text, got)
		}
		if got := search(t, gw, embeddedgateway.AgentQuery{Search: text, State: "suspended"}); len(got) > 0 {
			t.Errorf("%q: found %q, which is not suspended", text, got)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(gw.Database + suffix)
		if err == nil && bytes.Contains(bytes.ToLower(raw), []byte("operator-test")) {
			t.Errorf("the address is in %s", gw.Database+suffix)
		}
	}
}

func TestAKeyThatTheOperatorEndsIsDeadWithItsTokens(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	ctx := embeddedgateway.WithActor(t.Context(), "by the test")
	revoke := func(protocol, agent, keyID string, want bool) {
		t.Helper()
		if got, err := gw.Embedded().RevokeKey(ctx, protocol, agent, keyID); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", protocol, got, err, want)
		}
		if e := last(t, gw); want && (e.Name != "key_revoked" || e.KeyID != keyID || e.Agent != agent || e.Detail != "by the test") {
			t.Errorf("%s: the audit trail ends with %+v", protocol, e)
		}
	}
	t.Run("lona", func(t *testing.T) {
		secret := token(t, gw, "my-agent")
		key := shown(t, gw, "lona", "my-agent").Keys[0]
		revoke("lona", "my-agent", key.KeyID, true)
		if a := strategies(t, gw, "my-agent", secret); a.status != http.StatusUnauthorized {
			t.Errorf("its token got %d", a.status)
		}
		revoke("lona", "my-agent", key.KeyID, false)
		if got := shown(t, gw, "lona", "my-agent").Keys[0]; got.State != "revoked" || got.RevokedAt.IsZero() {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("fluxra", func(t *testing.T) {
		agent := fluxNew(t, gw, "")
		other := agent.withKey(t, gw, nil)
		revoke("fluxra", agent.id, agent.keyID, true)
		agent.wantJWT(t, gw, "the JWT of the key", http.StatusUnauthorized, "UNAUTHORIZED")
		other.wantJWT(t, gw, "the JWT of another key", http.StatusOK, "")
	})
	t.Run("agentdoor", func(t *testing.T) {
		agent := doorRegister(t, gw, pair("one"))
		wantDoor(t, doorWho(t, gw, agent.token), http.StatusOK, "")
		d := shown(t, gw, "agentdoor", agent.id)
		revoke("agentdoor", agent.id, d.Keys[0].KeyID, true)
		for what, secret := range map[string]string{"key": agent.key, "JWT": agent.token} {
			if a := doorWho(t, gw, secret); a.status != http.StatusUnauthorized {
				t.Errorf("its %s got %d", what, a.status)
			}
		}
		// At the same moment: no clock has a say in it.
		a := doorAuth(t, gw, agent, gw.Clock.Now().UTC().Format(time.RFC3339))
		wantDoor(t, a, http.StatusOK, "")
		wantDoor(t, doorWho(t, gw, a.at("token")), http.StatusOK, "")
	})
	agent := doorRegister(t, gw, pair("two"))
	for _, c := range [][3]string{
		{"lona", "my-agent", "nonsense"},
		{"lona", "nobody", "k"},
		{"nowhere", "my-agent", "k"},
		{"agentdoor", agent.id, agent.public()}, // the claim of a public key is no key
	} {
		if _, err := gw.Embedded().RevokeKey(ctx, c[0], c[1], c[2]); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: got error %v, want store.ErrNotFound", c, err)
		}
	}
}

func TestASuspendedAgentMayComeBackWithoutItsKeys(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	ctx := embeddedgateway.WithActor(t.Context(), "by the test")
	away := func(t *testing.T, protocol, agent string) {
		t.Helper()
		if err := gw.Embedded().Suspend(ctx, protocol, agent); err != nil {
			t.Fatal(err)
		}
		gw.Clock.Advance(time.Minute)
		for range 2 { // once more is no failure
			if err := gw.Embedded().Resume(ctx, protocol, agent); err != nil {
				t.Fatal(err)
			}
		}
		if e := last(t, gw); e.Name != "agent_resumed" || e.Agent != agent || e.Detail != "by the test" {
			t.Errorf("the audit trail ends with %+v", e)
		}
		if d := shown(t, gw, protocol, agent); d.State != "active" || slices.ContainsFunc(d.Keys, func(k embeddedgateway.KeyInfo) bool { return k.State == "active" }) {
			t.Errorf("got %+v", d)
		}
	}
	for _, r := range registrants(t, gw) {
		t.Run(r.protocol, func(t *testing.T) {
			away(t, r.protocol, r.name)
			if r.works() {
				t.Error("what it was issued works again")
			}
			want := map[string]int{"lona": http.StatusCreated, "lumina": http.StatusCreated, "lithtrix": http.StatusConflict}[r.protocol]
			if a := r.again(); a.status != want {
				t.Errorf("registering again got %d (%s), want %d", a.status, a.body, want)
			}
		})
	}
	t.Run("agentdoor", func(t *testing.T) {
		agent := doorRegister(t, gw, pair("one"))
		away(t, "agentdoor", agent.id)
		for what, secret := range map[string]string{"key": agent.key, "JWT": agent.token} {
			if a := doorWho(t, gw, secret); a.status != http.StatusUnauthorized {
				t.Errorf("its %s got %d", what, a.status)
			}
		}
		a := doorAuth(t, gw, agent, gw.Clock.Now().UTC().Format(time.RFC3339))
		wantDoor(t, a, http.StatusOK, "")
		wantDoor(t, doorWho(t, gw, a.at("token")), http.StatusOK, "")
		gw.Restart(t)
		wantDoor(t, doorWho(t, gw, a.at("token")), http.StatusOK, "")
		if a := doorWho(t, gw, agent.token); a.status != http.StatusUnauthorized {
			t.Errorf("its JWT got %d after a restart", a.status)
		}
	})
	t.Run("fluxra", func(t *testing.T) {
		agent := fluxNew(t, gw, fluxBot)
		wantStatus(t, verifyBy(t, gw, lastToken(t, gw)), http.StatusOK, "")
		away(t, "fluxra", agent.id)
		agent.wantJWT(t, gw, "its JWT", http.StatusUnauthorized, "UNAUTHORIZED")
		if a := agent.makeKey(t, gw, nil); a.status != http.StatusUnauthorized {
			t.Errorf("its recovery key got %d", a.status)
		}
		wantStatus(t, askCode(t, gw, fluxBot), http.StatusOK, "")
		a := recoverBy(t, gw, fluxBot, lastCode(t, gw))
		wantStatus(t, a, http.StatusOK, "")
		agent.recovery = a.at("recovery_key")
		wantStatus(t, agent.makeKey(t, gw, nil), http.StatusCreated, "")
	})
	if err := gw.Embedded().Resume(ctx, "lona", "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got error %v, want store.ErrNotFound", err)
	}
}

func TestAnOperatorSeesLimitsAndInvites(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := doorRegister(t, gw, pair("one"))
	for range 3 {
		wantDoor(t, doorWho(t, gw, agent.key), http.StatusOK, "")
	}
	limits := shown(t, gw, "agentdoor", agent.id).Limits
	want := embeddedgateway.LimitInfo{Name: "requests of the agent", Limit: 1000, Per: time.Hour, Used: 3}
	if !slices.Contains(limits, want) {
		t.Errorf("got %+v, want %+v among them", limits, want)
	}
	code := invited(t, gw, "my-agent")
	gw.Clock.Advance(time.Minute)
	invited(t, gw, "other")
	wantStatus(t, withInvite(t, gw, "my-agent", code, nil), http.StatusCreated, "")
	states := func() (got []string) {
		page, err := gw.Embedded().Invites(t.Context(), embeddedgateway.InviteQuery{})
		if err != nil || page.Next != "" {
			t.Fatalf("got %+v, %v", page, err)
		}
		for _, i := range page.Invites {
			got = append(got, i.Protocol+"/"+i.Agent+" "+i.State)
		}
		return got
	}
	if got := states(); !slices.Equal(got, []string{"lona/other open", "lona/my-agent used"}) {
		t.Errorf("got %q", got)
	}
	gw.Clock.Advance(2 * time.Hour)
	if got := states(); len(got) == 0 || got[0] != "lona/other expired" {
		t.Errorf("got %q", got)
	}
}

func TestNumbers(t *testing.T) {
	gw := gatewaytest.New(t, partner(), gatewaytest.At(docTime.Truncate(time.Minute).Add(30*time.Second)))
	numbers := func() embeddedgateway.Numbers {
		t.Helper()
		n, err := gw.Embedded().Numbers(t.Context())
		if err != nil || len(n.Minutes) != 60 || len(n.Protocols) != 5 {
			t.Fatalf("got %+v, %v", n, err)
		}
		return n
	}
	of := func(n embeddedgateway.Numbers, protocol string) embeddedgateway.ProtocolNumbers {
		return n.Protocols[slices.IndexFunc(n.Protocols, func(p embeddedgateway.ProtocolNumbers) bool { return p.Protocol == protocol })]
	}
	token(t, gw, "one")
	if got := of(numbers(), "lona"); got.Agents != 1 || got.Active != 1 {
		t.Errorf("got %+v", got)
	}
	token(t, gw, "two")
	if got := of(numbers(), "lona"); got.Agents != 1 {
		t.Errorf("got %+v: it was counted again at once", got)
	}
	gw.Clock.Advance(time.Minute)
	doorRegister(t, gw, pair("one"))
	fluxNew(t, gw, fluxBot)
	strategies(t, gw, "one", "nonsense")
	if err := gw.Embedded().Suspend(t.Context(), "lona", "two"); err != nil {
		t.Fatal(err)
	}
	n := numbers()
	for protocol, want := range map[string]embeddedgateway.ProtocolNumbers{
		"lona":      {Protocol: "lona", Agents: 2, Suspended: 1, Active: 1},
		"agentdoor": {Protocol: "agentdoor", Agents: 1, Active: 1},
		"fluxra":    {Protocol: "fluxra", Agents: 1, Active: 2},
		"lumina":    {Protocol: "lumina"},
	} {
		if got := of(n, protocol); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	before, now := n.Minutes[58], n.Minutes[59]
	if before.Registered != 2 || now.Registered != 2 || now.Refused != 1 || now.Requests < 5 || n.Mail != 1 {
		t.Errorf("got %+v, %+v and %d letters", before, now, n.Mail)
	}
	gw.Clock.Advance(5 * time.Minute)
	if later := numbers(); fmt.Sprint(later.Minutes[53:55]) != fmt.Sprint([]embeddedgateway.MinuteNumbers{before, now}) {
		t.Errorf("five minutes later: got %+v, want %+v", later.Minutes[53:55], []embeddedgateway.MinuteNumbers{before, now})
	}
	gw.Clock.Advance(2 * time.Hour)
	for _, m := range numbers().Minutes {
		if m.Registered+m.Refused+m.Requests > 0 {
			t.Errorf("two hours later: got %+v", m)
		}
	}
}
