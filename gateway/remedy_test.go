package gateway_test

import (
	"context"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// What is said to help a credential that has ended, or whose secret is gone, does
// help when it is followed to the letter.
func TestTheRemedyOfWhatIsGoneWorks(t *testing.T) {
	for protocol, register := range map[string]func(ctx context.Context, f *fixture, gw *gatewaytest.Gateway, name string) (gateway.Registration, error){
		"lona": func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, name string) (gateway.Registration, error) {
			return f.Lona.Register(ctx, named(name))
		},
		"agentdoor": func(ctx context.Context, f *fixture, gw *gatewaytest.Gateway, name string) (gateway.Registration, error) {
			r, err := f.AgentDoor.Register(ctx, gateway.AgentDoorRegistration{ServiceURL: gw.URL, AgentName: name})
			return r.Registration, err
		},
		"fluxra": func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, name string) (gateway.Registration, error) {
			r, err := f.Fluxra.Register(ctx, gateway.FluxraRegistration{AgentName: name})
			return r.Registration, err
		},
		"lithtrix": func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, name string) (gateway.Registration, error) {
			r := pair(name, "me@example.com")
			r.AgreeToTerms = new(true)
			return f.Lithtrix.Register(ctx, r)
		},
		"lumina": func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, name string) (gateway.Registration, error) {
			return f.Lumina.Register(ctx, gateway.LuminaRegistration{Label: name})
		},
	} {
		for _, state := range []credstore.State{credstore.StateRevoked, credstore.StateLost} {
			t.Run(protocol+" "+string(state), func(t *testing.T) {
				gw := gatewaytest.New(t)
				f := against(t, gw, setup{env: map[string]string{"LITHTRIX_API_URL": gw.URL, "FLUXRA_API_URL": gw.URL, "LUMINA_API_URL": gw.URL}})
				r, err := register(t.Context(), f, gw, "my-agent")
				if err != nil {
					t.Fatal(err)
				}
				c, err := f.store.Get(t.Context(), r.Key)
				if err != nil {
					t.Fatal(err)
				}
				c.State = state
				s := f.Lifecycle.Standing(t.Context(), c.Info)
				if s.Now != state || s.Reason == "" {
					t.Errorf("it stands %+v", s)
				}
				if state == credstore.StateLost {
					err = f.store.Delete(t.Context(), r.Key)
				} else {
					err = f.store.Put(t.Context(), c)
				}
				if err != nil {
					t.Fatal(err)
				}

				name := "my-agent"
				if strings.Contains(s.Remedy, "another agent_name") {
					name = "other-agent"
				} else if !strings.HasPrefix(s.Remedy, "Register the agent again") {
					t.Fatalf("the remedy is %q", s.Remedy)
				}
				again, err := register(t.Context(), f, gw, name)
				if err != nil || again.State != credstore.StateActive || again.Reused {
					t.Errorf("following %q: got %+v, %v", s.Remedy, again, err)
				}
			})
		}
	}
}
