package embeddedgateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agent is how one is registered and used by Enlist's own client.
type agent struct {
	protocol string
	register func(ctx context.Context, c *gateway.Client, url, name string) (gateway.Registration, error)
	use      string // a path that wants the credential
	rotates  bool
	revokes  bool
}

func agentsOfAll() []agent {
	return []agent{
		{
			protocol: wire.AgentDoorName, use: wire.AgentDoorWhoAmIPath,
			register: func(ctx context.Context, c *gateway.Client, url, name string) (gateway.Registration, error) {
				r, err := c.AgentDoor.Register(ctx, gateway.AgentDoorRegistration{ServiceURL: url, AgentName: name})
				return r.Registration, err
			},
		},
		{
			protocol: wire.FluxraName, use: wire.FluxraAgentsPath, rotates: true, revokes: true,
			register: func(ctx context.Context, c *gateway.Client, _, name string) (gateway.Registration, error) {
				r, err := c.Fluxra.Register(ctx, gateway.FluxraRegistration{AgentName: name})
				return r.Registration, err
			},
		},
		{
			protocol: wire.LithtrixName, use: wire.LithtrixMePath, rotates: true,
			register: func(ctx context.Context, c *gateway.Client, _, name string) (gateway.Registration, error) {
				return c.Lithtrix.Register(ctx, gateway.LithtrixRegistration{AgentName: name, OwnerIdentifier: "me@example.com"})
			},
		},
		{
			protocol: wire.LonaName, use: strategiesPath, rotates: true,
			register: func(ctx context.Context, c *gateway.Client, _, name string) (gateway.Registration, error) {
				return c.Lona.Register(ctx, gateway.LonaRegistration{AgentID: name, AgentName: name})
			},
		},
		{
			protocol: wire.LuminaName, use: wire.LuminaKeysPath, rotates: true, revokes: true,
			register: func(ctx context.Context, c *gateway.Client, _, name string) (gateway.Registration, error) {
				return c.Lumina.Register(ctx, gateway.LuminaRegistration{Label: name})
			},
		},
	}
}

// rehearsal is a client of Enlist's at a gateway that fails on purpose. It waits
// by moving the gateway's clock.
type rehearsal struct {
	gw *gatewaytest.Gateway
	*gateway.Client
	agent
}

// tries repeats what a program would: again an hour later, until it works. Every
// error must be one that says what happened.
func (r *rehearsal) tries(t *testing.T, what string, f func() error) {
	t.Helper()
	var last error
	for range 40 {
		if last = f(); last == nil {
			return
		}
		honest(t, what, last)
		r.gw.Clock.Advance(time.Hour)
	}
	t.Fatalf("%s does not work after 40 tries: %v", what, last)
}

// honest checks that an error is one of those that the client has words for.
func honest(t *testing.T, what string, err error) {
	t.Helper()
	var service *gateway.Error
	var local *gateway.LocalError
	var stored *gateway.NotStoredError
	if !errors.As(err, &service) && !errors.As(err, &local) && !errors.As(err, &stored) {
		t.Errorf("%s: %T is no error that says what happened: %v", what, err, err)
	}
}

// works uses a credential.
func (r *rehearsal) works(t *testing.T, k credstore.Key) error {
	t.Helper()
	path := r.use
	if r.protocol == wire.FluxraName {
		for _, info := range r.list(t) {
			if info.Key == k {
				path += "/" + info.Attrs["agent_id"]
			}
		}
	}
	got, err := r.Lifecycle.Do(t.Context(), k, gateway.Request{Method: http.MethodGet, Path: path})
	if err == nil && got.Status != http.StatusOK {
		return fmt.Errorf("got %d: %w", got.Status, &gateway.Error{Status: got.Status, Code: "status"})
	}
	return err
}

func (r *rehearsal) list(t *testing.T) []credstore.Info {
	t.Helper()
	list, err := r.Lifecycle.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestEnlistsClientSurvivesChaos registers, uses, rotates and revokes where
// every other request fails. Nothing that was registered is lost: when the
// gateway is calm again, each agent is the one that it was and usable.
func TestEnlistsClientSurvivesChaos(t *testing.T) {
	for i, a := range agentsOfAll() {
		t.Run(a.protocol, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			gw := gatewaytest.New(t, chaos(embeddedgateway.Chaos{
				Reject: 0.25, Delay: 0.2, Limit: 0.2, Drop: 0.25, Seed: uint64(i + 1),
			}), gatewaytest.Logger(slog.New(slog.NewTextHandler(&log, nil))))
			r := &rehearsal{gw: gw, agent: a}
			r.Client = client(t, gw, credstore.NewMemory(gw.Clock.Now), t.TempDir())
			agents := 6
			if a.protocol == wire.LuminaName {
				agents = 2 // a wallet has three keys at most, and rotating needs one of them
			}
			keys := map[string]credstore.Key{}
			for n := range agents {
				name := fmt.Sprintf("agent-%d", n)
				var got gateway.Registration
				r.tries(t, "registering "+name, func() (err error) {
					got, err = a.register(t.Context(), r.Client, gw.URL, name)
					return err
				})
				keys[name] = got.Key
				for range 5 {
					r.tries(t, "using "+name, func() error { return r.works(t, got.Key) })
				}
				if a.rotates {
					r.tries(t, "rotating "+name, func() error {
						_, err := r.Lifecycle.Rotate(t.Context(), got.Key)
						return err
					})
				}
			}
			if a.revokes {
				k := keys["agent-0"]
				delete(keys, "agent-0")
				r.tries(t, "revoking agent-0", func() error { return r.Lifecycle.Revoke(t.Context(), k) })
				if err := r.works(t, k); err == nil {
					t.Error("agent-0 works, and is revoked")
				}
			}
			faults := strings.Count(log.String(), "fault=")
			gw.Restart(t, calm())
			if err := r.Lifecycle.Heal(t.Context()); err != nil {
				t.Errorf("heal: %v", err)
			}
			gw.Clock.Advance(time.Hour)
			for name, k := range keys {
				if err := r.works(t, k); err != nil {
					t.Errorf("%s does not work: %v", name, err)
				}
				again, err := a.register(t.Context(), r.Client, gw.URL, name)
				if err != nil || again.Key != k {
					t.Errorf("%s is not the agent that it was: %v (%v)", name, again.Key, err)
				}
				if a.revokes {
					if err := r.Lifecycle.Revoke(t.Context(), k); err != nil {
						t.Errorf("revoking %s: %v", name, err)
					}
				}
				gw.Clock.Advance(time.Hour)
			}
			if faults < 10 {
				t.Errorf("there were only %d faults: nothing was tried", faults)
			}
		})
	}
}

// client is Enlist's client half, at a gateway and by its clock.
func client(t *testing.T, gw *gatewaytest.Gateway, store credstore.Store, home string) *gateway.Client {
	t.Helper()
	origins := map[string]string{}
	for _, p := range wire.Protocols() {
		origins[p.Name] = gw.URL
	}
	c, err := gateway.New(gateway.Options{
		Store: store, Home: home, Origins: origins, Now: gw.Clock.Now,
		Sleep: func(_ context.Context, d time.Duration) error {
			gw.Clock.Advance(d)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
