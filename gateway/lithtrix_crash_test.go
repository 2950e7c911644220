package gateway_test

import (
	"context"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// lithtrixCrash is Lithtrix where the person has agreed to the terms, which must
// be sent again when the registration is finished.
func lithtrixCrash() crashCase {
	return crashCase{
		name: "lithtrix", setting: "LITHTRIX_API_URL", path: ltxMePath, kind: "key", live: 1,
		gw: []gatewaytest.Option{gatewaytest.Env(map[string]string{"LITHTRIX_REQUIRE_TERMS": "true"})},
		register: func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			agreed := true
			r := pair(agent, owner)
			r.AgreeToTerms = &agreed
			done, err := f.Lithtrix.Register(ctx, r)
			return done.Info, err
		},
	}
}
