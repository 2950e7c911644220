package embeddedgateway

import (
	"fmt"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// limiter is a protocol that limits how often its agents may ask.
type limiter interface {
	// limitsOf says how much of its limits an agent has used up. keys are its
	// credentials.
	limitsOf(a store.Agent, keys []store.Credential) []LimitInfo
}

// limitsOf returns the limits of an agent, its protocol's and those of the API
// behind the gateway, as far as this process knows the counts.
func (g *Gateway) limitsOf(a store.Agent, keys []store.Credential) []LimitInfo {
	list := []LimitInfo{}
	for _, p := range g.served {
		if l, ok := p.(limiter); ok && p.name() == a.Protocol {
			list = append(list, l.limitsOf(a, keys)...)
		}
	}
	open := map[string]int64{}
	for _, c := range keys {
		if c.RevokedAt.IsZero() {
			open[c.KeyID] = c.ID
		}
	}
	return append(list, g.limits.info(a.ID, open)...)
}

// info is a limit as an operator sees it.
func (k *keyLimit) info(name string, id int64) LimitInfo {
	return LimitInfo{Name: name, Limit: k.n, Per: k.per, Used: k.used(id)}
}

// perKey returns a limit of each key that is not revoked.
func perKey(keys []store.Credential, limit func(store.Credential) *keyLimit) (list []LimitInfo) {
	for _, c := range keys {
		if c.RevokedAt.IsZero() {
			list = append(list, limit(c).info(fmt.Sprintf("requests with the key %s", c.KeyID), c.ID))
		}
	}
	return list
}
