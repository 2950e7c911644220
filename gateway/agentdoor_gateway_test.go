package gateway_test

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// doorAgainst returns a client of a real gateway that goes by its clock.
func doorAgainst(t *testing.T, gw *gatewaytest.Gateway, store credstore.Store) *fixture {
	t.Helper()
	f := newFixture(t, setup{store: store, now: gw.Clock.Now})
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), gw.Secrets()...) })
	return f
}

func scoutAt(gw *gatewaytest.Gateway) gateway.AgentDoorRegistration {
	return gateway.AgentDoorRegistration{ServiceURL: gw.URL, AgentName: "scout"}
}

// who returns the status of the route that says whose a credential is.
func (f *fixture) who(t *testing.T, k credstore.Key) int {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get(wire.AgentDoorWhoAmIPath))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

func TestAgentDoorAtARealGateway(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{
		"AGENTDOOR_SCOPES": `[{"id":"weather.read","description":"d"},{"id":"history.read","description":"d","price":"$0.01/call"}]`,
	}))
	store := credstore.NewMemory(gw.Clock.Now)
	f := doorAgainst(t, gw, store)

	done := f.enlist(t, scoutAt(gw))

	if got := gateway.Permissions(done.Info); !slices.Equal(got, []string{"weather.read"}) || done.RateLimit != "1000/1h" {
		t.Errorf("got %+v, want what costs nothing", done)
	}
	if got := f.who(t, done.Key); got != http.StatusOK {
		t.Errorf("got the status %d, want 200", got)
	}
	for range 3 {
		gw.Clock.Advance(55 * time.Minute)
		if got := f.who(t, done.Key); got != http.StatusOK {
			t.Errorf("later: got the status %d, want 200", got)
		}
	}
	if err := f.Renew(t, done.Key); err != nil { // the same time again: another one is signed
		t.Error(err)
	}
	for _, behind := range f.AgentDoor.Dependents(done.Key) { // as a crash after verify leaves it
		if err := store.Delete(t.Context(), behind); err != nil {
			t.Fatal(err)
		}
	}
	c, err := store.Get(t.Context(), done.Key)
	if err != nil {
		t.Fatal(err)
	}
	c.State, c.Attrs = credstore.StatePending, nil
	f.put(t, c)
	again := doorAgainst(t, gw, store)
	if healed := again.enlist(t, scoutAt(gw)); healed.Attrs["agent_id"] != done.Attrs["agent_id"] || again.who(t, done.Key) != http.StatusOK {
		t.Errorf("after a crash: got %+v, want the same agent", healed)
	}
}

func TestManyRenewOnceAtARealGateway(t *testing.T) {
	gw := gatewaytest.New(t)
	store := credstore.NewMemory(gw.Clock.Now)
	clients := []*fixture{doorAgainst(t, gw, store), doorAgainst(t, gw, store)}
	k := clients[0].enlist(t, scoutAt(gw)).Key
	gw.Clock.Advance(2 * time.Hour)
	before := len(gw.Secrets())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if got := clients[i%2].who(t, k); got != http.StatusOK {
				t.Errorf("got the status %d, want 200", got)
			}
		})
	}
	wg.Wait()
	if got := len(gw.Secrets()) - before; got != 1 {
		t.Errorf("got %d new tokens, want 1", got)
	}
}

func TestASuspendedAndADeletedAgentOfAgentDoor(t *testing.T) {
	gw := gatewaytest.New(t)
	f := doorAgainst(t, gw, nil)
	done := f.enlist(t, scoutAt(gw))
	if err := gw.Embedded().Suspend(t.Context(), wire.AgentDoorName, done.Attrs["agent_id"]); err != nil {
		t.Fatal(err)
	}
	if got := f.who(t, done.Key); got == http.StatusOK {
		t.Error("a suspended agent is let in")
	}
	if err := f.Renew(t, done.Key); !gatewaySays(err, wire.AgentDoorAgentInactive) {
		t.Errorf("got %v, want that the agent is inactive", err)
	}
	if c, err := f.store.Get(t.Context(), done.Key); err != nil || c.State != credstore.StateActive {
		t.Errorf("stored %v (%v), want what may be active again", c.State, err)
	}
	if err := gw.Embedded().Delete(t.Context(), wire.AgentDoorName, done.Attrs["agent_id"]); err != nil {
		t.Fatal(err)
	}
	if err := f.Renew(t, done.Key); !gatewaySays(err, wire.AgentDoorAgentNotFound) {
		t.Errorf("got %v, want that the agent is not known", err)
	}
	if anew := f.enlist(t, scoutAt(gw)); anew.Reused || anew.Attrs["agent_id"] == done.Attrs["agent_id"] || f.who(t, anew.Key) != http.StatusOK {
		t.Errorf("got %+v, want another registration", anew)
	}
}

// gatewaySays reports whether a service answered with a code.
func gatewaySays(err error, code string) bool {
	var e *gateway.Error
	return errors.As(err, &e) && e.Theirs && e.Code == code
}
