package embeddedgateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// registrant is an agent of some protocol: whether what it was issued works,
// and what it gets that registers it again.
type registrant struct {
	protocol, name string
	works          func() bool
	again          func() answer
}

// registrants registers an agent at each protocol whose agents can come back.
func registrants(t *testing.T, gw *gatewaytest.Gateway) []registrant {
	t.Helper()
	lona, ltx := token(t, gw, "my-agent"), ltxKey(t, gw, "my-agent")
	wallet := devWallet(t, 0)
	lumina, _ := keyOf(t, onboard(t, gw, wallet, 0))
	next := 0
	return []registrant{
		{
			"lona", "my-agent",
			func() bool { return strategies(t, gw, "my-agent", lona).status == http.StatusOK },
			func() answer { return withSecret(t, gw, "my-agent", partnerSecret, nil) },
		},
		{
			"lithtrix", "my-agent/" + owner,
			func() bool { return ltxWith(t, gw, http.MethodGet, ltxMePath, ltx).status == http.StatusOK },
			func() answer { return ltxRegister(t, gw, "my-agent", owner, nil, nil) },
		},
		{
			"lumina", strings.ToLower(wallet.Address()),
			func() bool {
				return send(t, gw, http.MethodGet, keysPath, "", header{"X-Api-Key": lumina}).status == http.StatusOK
			},
			func() answer { next++; return onboard(t, gw, wallet, next) },
		},
	}
}

func TestASuspendedAgentHasNothingAndGetsNothing(t *testing.T) {
	gw := gatewaytest.New(t, partner(), behind())
	want := map[string]int{"lona": http.StatusForbidden, "lithtrix": http.StatusConflict, "lumina": http.StatusForbidden}
	for _, r := range registrants(t, gw) {
		t.Run(r.protocol, func(t *testing.T) {
			if !r.works() {
				t.Fatal("what it was issued does not work")
			}
			for range 2 { // once more is no failure
				if err := gw.Embedded().Suspend(t.Context(), r.protocol, r.name); err != nil {
					t.Fatal(err)
				}
			}
			if e := last(t, gw); e.Name != "agent_suspended" || e.Protocol != r.protocol || e.Agent != r.name {
				t.Errorf("the audit trail ends with %+v, want the suspension", e)
			}
			if r.works() {
				t.Error("what it was issued still works")
			}
			if a := r.again(); a.status != want[r.protocol] {
				t.Errorf("registering again got %d (%s), want %d", a.status, a.body, want[r.protocol])
			}
			gw.Restart(t)
			if r.works() {
				t.Error("what it was issued works after a restart")
			}
		})
	}
}

func TestADeletedAgentIsForgotten(t *testing.T) {
	gw := gatewaytest.New(t, partner(), behind())
	for _, r := range registrants(t, gw) {
		t.Run(r.protocol, func(t *testing.T) {
			if err := gw.Embedded().Delete(t.Context(), r.protocol, r.name); err != nil {
				t.Fatal(err)
			}
			if e := last(t, gw); e.Name != "agent_deleted" || e.Protocol != r.protocol || e.Agent != r.name {
				t.Errorf("the audit trail ends with %+v, want the deletion", e)
			}
			if r.works() {
				t.Error("what it was issued still works")
			}
			if err := gw.Embedded().Delete(t.Context(), r.protocol, r.name); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("once more: got %v, want store.ErrNotFound", err)
			}
			if a := r.again(); a.status != http.StatusCreated {
				t.Errorf("registering again got %d (%s), want 201: the name is free", a.status, a.body)
			}
			if r.works() {
				t.Error("what it was issued works again")
			}
		})
	}
}

func TestSuspendAndDeleteKnowTheirAgents(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	token(t, gw, "my-agent")
	before := len(gw.Audit(t))
	for _, who := range [][2]string{{"lona", "your-agent"}, {"lumina", "my-agent"}, {"", ""}, {"lona", "my-agent/"}} {
		t.Run(fmt.Sprint(who), func(t *testing.T) {
			if err := gw.Embedded().Suspend(t.Context(), who[0], who[1]); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("suspend: got %v, want store.ErrNotFound", err)
			}
			if err := gw.Embedded().Delete(t.Context(), who[0], who[1]); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("delete: got %v, want store.ErrNotFound", err)
			}
		})
	}
	if got := len(gw.Audit(t)); got != before {
		t.Errorf("got %d events, want %d: nothing was done", got, before)
	}
}
