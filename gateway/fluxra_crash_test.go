package gateway_test

import (
	"context"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// fluxraCrash is Fluxra.
func fluxraCrash() crashCase {
	return crashCase{
		name: "fluxra", setting: "FLUXRA_API_URL", path: "/api/agents/{agent_id}", kind: "key", live: 1, account: "recovery",
		later: 55 * time.Minute,
		register: func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			r, err := f.Fluxra.Register(ctx, gateway.FluxraRegistration{AgentName: agent})
			return r.Info, err
		},
	}
}
