package embeddedgateway

import (
	"context"
	"net/http"
)

// isPreflight reports whether a request is how a browser asks whether the page of
// another origin may make a request, and no more than that: without a credential,
// a body and a wish for another protocol.
func (f *front) isPreflight(r *http.Request) bool {
	if r.Method != http.MethodOptions || r.ContentLength != 0 ||
		len(r.Header["Origin"]) != 1 || len(r.Header["Access-Control-Request-Method"]) != 1 || len(r.Header["Upgrade"]) != 0 {
		return false
	}
	for name := range r.Header {
		if f.secrets.has(name) {
			return false
		}
	}
	return true
}

// admitPreflight is [front.admit] for a preflight. Nobody has made it, so no limit
// and no scope has a say in it, and the API is told nothing of who makes it.
func (f *front) admitPreflight(ctx context.Context, r *http.Request, t target) (admission, error) {
	if _, err := f.check(r.Header, t); err != nil {
		c := &call{Request: r, protocol: keyring{}.name(), store: f.store, ip: clientIP(r, f.cfg.TrustedProxies)}
		return admission{}, f.record(ctx, c, err)
	}
	return admission{preflight: true}, nil
}

// name is whose request it is, "" if it is nobody's.
func (a admission) name() string {
	if a.preflight {
		return ""
	}
	return a.caller.String()
}
