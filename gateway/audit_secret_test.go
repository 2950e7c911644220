package gateway_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// A secret that somebody puts where a name or a path belongs is in no trail, also
// where the call is refused before anything was looked at.
func TestTheTrailOfARefusedCallHoldsNoSecret(t *testing.T) {
	const secret = "q7Zr+Kx2/Wm9dTn4=Vb8sLe1"
	home := t.TempDir()
	writePolicy(t, home, `write = "deny"`)
	first := newFixture(t, setup{home: home})
	first.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey(lonaOrigin, "my-agent")}, Secret: credstore.NewSecret(secret)})
	for name, path := range map[string]string{"plain": "/a/" + secret, "escaped": "/a/" + url.QueryEscape(secret)} {
		f := newFixture(t, setup{home: home, store: first.store}) // it has read nothing yet
		ctx := gateway.WithCaller(t.Context(), gateway.Caller{Kind: gateway.CallerModel, Name: "client " + secret, Version: secret})
		_, err := f.Lifecycle.Do(ctx, lonaKey(lonaOrigin, "my-agent"), gateway.Request{Method: "POST", Path: path})
		if ruling(err) != "no" {
			t.Fatalf("%s: got %v, want a refusal", name, err)
		}
		events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10)
		if err != nil || len(events) == 0 {
			t.Fatalf("%s: got %v (%v), want the refusal", name, events, err)
		}
		noSecret(t, name, fmt.Sprint(events), secret, url.QueryEscape(secret))
	}
}
