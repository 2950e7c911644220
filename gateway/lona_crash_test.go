package gateway_test

import (
	"context"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// lonaCrash is Lona by invites.
func lonaCrash() crashCase {
	return crashCase{
		// The stricter of the two policies: who may have lost an answer cannot
		// send the token in it.
		gw:   []gatewaytest.Option{gatewaytest.Env(map[string]string{"AGENT_INVITE_REBIND": "proof"})},
		name: "lona", setting: "LONA_GATEWAY_URL", path: strategiesPath, kind: "token", live: 1,
		register: func(ctx context.Context, f *fixture, _ *gatewaytest.Gateway, agent string) (credstore.Info, error) {
			r, err := f.Lona.Register(ctx, named(agent))
			return r.Info, err
		},
	}
}

// lonaSecretCrash is Lona by the registration secret.
func lonaSecretCrash() crashCase {
	const secret = "1f0e2d3c4b5a69788796a5b4c3d2e1f0"
	c := lonaCrash()
	c.name = "lona by secret"
	c.env = map[string]string{"LONA_AGENT_REGISTRATION_SECRET": secret}
	c.gw = []gatewaytest.Option{gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret})}
	return c
}
