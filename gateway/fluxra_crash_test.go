package gateway_test

import (
	"context"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// fluxraCrash is Fluxra, whose first answer alone cannot be made up for: the
// account is then known by nothing.
func fluxraCrash() crashCase {
	return crashCase{
		name: "fluxra", setting: "FLUXRA_API_URL", path: "/api/agents/{agent_id}", kind: "key", live: 1, account: "recovery",
		later: 55 * time.Minute,
		register: func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			r, err := f.Fluxra.Register(ctx, gateway.FluxraRegistration{AgentName: agent})
			return r.Info, err
		},
		orphan: func(stopped string) bool {
			return stopped == "after POST /api/auth/register is answered" || stopped == "before recovery_key is stored (active)"
		},
	}
}
