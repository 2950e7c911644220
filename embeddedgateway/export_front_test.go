package embeddedgateway

import (
	"net/http"
	"slices"
)

// Strip removes from a header what must not come from outside.
func Strip(h http.Header) { strip(h) }

// PlainPath decodes a path that every API reads alike.
func PlainPath(escaped string) (string, bool) { return plainPath(escaped) }

// CredentialHeaders are the names of headers that carry credentials, lower case.
func CredentialHeaders() []string { return slices.Clone(credentialHeaders[:]) }

// Entrances lists the protocols whose credentials open the API, and where agents
// register.
func Entrances(g *Gateway) map[string]string {
	list := map[string]string{}
	for _, p := range g.front.protocols {
		list[p.name()] = p.entrance()
	}
	return list
}
