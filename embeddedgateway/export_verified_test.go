package embeddedgateway

import "github.com/go-jose/go-jose/v4/jwt"

// MaxVerified is how many tokens a Verified remembers at most.
const MaxVerified = maxVerified

// Verified remembers tokens.
type Verified struct{ v verified }

// Put remembers a token.
func (v *Verified) Put(token string) { v.v.put(token, jwt.Claims{}, new(int)) }

// Has reports whether a token is remembered.
func (v *Verified) Has(token string) bool {
	_, ok := v.v.get(token, new(int))
	return ok
}

// Len is how many are remembered.
func (v *Verified) Len() int { return len(v.v.newer) + len(v.v.old) }
