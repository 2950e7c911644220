package gateway_test

import (
	"context"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agentDoorCrash is AgentDoor, where the key pair is all that cannot be had again.
func agentDoorCrash() crashCase {
	return crashCase{
		name: "agentdoor", setting: "AGENTDOOR_URL", path: wire.AgentDoorWhoAmIPath, kind: "public-key", live: 1,
		later: 55 * time.Minute,
		register: func(ctx context.Context, f *fixture, gw *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			r, err := f.AgentDoor.Register(ctx, gateway.AgentDoorRegistration{ServiceURL: gw.URL, AgentName: agent})
			return r.Info, err
		},
	}
}
