package embeddedgateway

import (
	"context"
	"net/http"
	"strings"
)

// verifyPath is where the proxy of somebody else asks whether a request may go
// to the API. Nothing below it goes anywhere else.
const verifyPath = "/.enlist/verify"

// The headers in which proxies say what the request is that they ask about.
const (
	originalMethod  = "X-Original-Method" // nginx, as it is configured for auth_request
	originalURI     = "X-Original-Uri"
	forwardedMethod = "X-Forwarded-Method" // Caddy's forward_auth, Traefik's ForwardAuth
	forwardedURI    = "X-Forwarded-Uri"
)

// refusalHeader repeats the body of a refusal: nginx drops the body of what
// auth_request was answered, and can put this one in its place.
const refusalHeader = "X-Enlist-Refusal"

// verifier answers at [verifyPath]: 200 with the headers for the API, or a
// refusal that the proxy passes on.
type verifier struct{ *front }

// claims reports whether an escaped path is the verifier's.
func (verifier) claims(path string) bool {
	rest, ok := strings.CutPrefix(path, verifyPath)
	return ok && (rest == "" || rest[0] == '/')
}

// ServeHTTP implements [http.Handler]. It takes every method: Envoy asks with
// that of the request. It reads no body.
func (v verifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	a, err := v.verify(ctx, r)
	if err == nil {
		noteCaller(w, a.caller.Protocol, a.caller.Agent, a.caller.KeyID)
		copyHeader(w.Header(), a.limits)
		copyHeader(w.Header(), a.header)
		reply(w, http.StatusOK, nil)
		return
	}
	status, body := v.spell(w.Header(), r, err)
	w.Header().Set(refusalHeader, string(body))
	reply(w, status, body)
}

// verify decides on the request that a proxy asks about.
func (v verifier) verify(ctx context.Context, r *http.Request) (admission, error) {
	t, err := v.asked(r)
	if err != nil {
		c := &call{Request: r, protocol: keyring{}.name(), store: v.store, ip: clientIP(r, v.cfg.TrustedProxies)}
		return admission{}, v.record(ctx, c, err)
	}
	return v.admit(ctx, r, t)
}

// asked returns the method and the path of the request that a proxy asks about.
// Whoever else may say what the request is may say what they like: only proxies
// that are trusted are answered, and only those that say it in one way.
func (v verifier) asked(r *http.Request) (target, error) {
	if peer, ok := parseIP(r.RemoteAddr); !ok || !isTrusted(peer, v.cfg.TrustedProxies) {
		return target{}, refusal(kindForbidden, "untrusted_proxy",
			"only a trusted proxy may ask here: name the address of this one in the gateway's trusted_proxies (ENLIST_TRUSTED_PROXIES)")
	}
	for name := range r.Header {
		if v.hidden(name) {
			return target{}, refusal(kindInvalid, "spoofed_header", "a header has a name that only the gateway may set, or is read as one that it must not: "+
				"the proxy is to remove what begins with X-Enlist-, also with underscores")
		}
	}
	var found []target
	if path := strings.TrimPrefix(r.URL.EscapedPath(), verifyPath); path != "" {
		found = append(found, target{r.Method, path}) // Envoy puts its prefix before the path
	}
	for _, names := range [...][2]string{{originalMethod, originalURI}, {forwardedMethod, forwardedURI}} {
		methods, uris := r.Header[names[0]], r.Header[names[1]]
		if len(methods)+len(uris) == 0 {
			continue
		}
		if len(methods) != 1 || len(uris) != 1 {
			return target{}, badOriginal()
		}
		path, _, _ := strings.Cut(uris[0], "?")
		found = append(found, target{methods[0], path})
	}
	if len(found) != 1 {
		return target{}, badOriginal()
	}
	return found[0], nil
}

func badOriginal() *problem {
	return refusal(kindInvalid, "original_request", "the proxy is to say once, and in one way, what the request is: "+
		"by "+originalMethod+" and X-Original-URI, by "+forwardedMethod+" and "+forwardedURI+", or by its own method and a path behind "+verifyPath)
}

// hidden reports whether a header passes by proxies that remove or replace others
// of its meaning: with an underscore or the like for a dash, or of a name that the gateway
// may have one day. Those that it has, proxies replace.
func (v verifier) hidden(name string) bool {
	switch name {
	case protocolHeader, agentHeader, scopesHeader, keyIDHeader, assertedHeader:
		return false
	}
	return ours(name) || !plainName(name) && v.secrets.has(name)
}
