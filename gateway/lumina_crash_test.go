package gateway_test

import (
	"context"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// luminaCrash is Lumina, where a key that is lost takes a place of three.
func luminaCrash() crashCase {
	return crashCase{
		name: "lumina", setting: "LUMINA_API_URL", path: wire.LuminaKeysPath, kind: "key", live: 1,
		register: func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			r, err := f.Lumina.Register(ctx, gateway.LuminaRegistration{Label: agent})
			return r.Info, err
		},
		owner: func(f *fixture, _ string) string {
			wallets, err := f.Lumina.Wallets(context.Background())
			if err != nil || len(wallets) != 1 {
				return ""
			}
			return strings.ToLower(wallets[0].Address)
		},
	}
}
