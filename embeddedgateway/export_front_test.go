package embeddedgateway

import (
	"context"
	"net/http"
	"time"
)

// Strip removes from a header what must not come from outside.
func Strip(h http.Header) { strip(h) }

// PlainPath decodes a path that every API reads alike.
func PlainPath(escaped string) (string, bool) { return plainPath(escaped) }

// Secret reports whether a header carries a credential.
func Secret(name string) bool { return secretHeaders().has(name) }

// Refuse answers with an error.
func Refuse(g *Gateway, w http.ResponseWriter, r *http.Request, err error) { g.front.refuse(w, r, err) }

// Entrances lists the protocols whose credentials open the API, and where agents
// register.
func Entrances(g *Gateway) map[string]string {
	list := map[string]string{}
	for _, p := range g.front.protocols {
		list[p.name()] = p.entrance()
	}
	return list
}

// Meter has the requests to the API counted: left is what the client is told. A
// retryAfter that is not 0 refuses the request.
func Meter(g *Gateway, count func(Caller) (left http.Header, retryAfter time.Duration)) {
	g.front.usage = func(_ context.Context, c Caller) (http.Header, error) {
		left, wait := count(c)
		if wait > 0 {
			return nil, &problem{kind: kindLimited, message: "too many requests", header: left, retryAfter: wait}
		}
		return left, nil
	}
}

// Ask counts a request of a caller as the proxy does, which may wait for other
// replicas.
func Ask(ctx context.Context, g *Gateway, c Caller) error {
	_, err := g.limits.count(ctx, c)
	return err
}

// Alone has a replica believe that nobody else is there, as after a while.
func Alone(g *Gateway) {
	g.usage.warm.Store(true)
	g.usage.others.Store(0)
}
