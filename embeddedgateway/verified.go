package embeddedgateway

import (
	"crypto/sha256"
	"reflect"
	"sync"

	"github.com/go-jose/go-jose/v4/jwt"
)

// maxVerified is how many tokens a [verified] remembers at most: some 20 MiB.
const maxVerified = 1 << 15

// verified remembers what tokens say whose signature was found good, because to
// find that costs more than all else about a request. Nothing that may change
// is remembered: whether a token has expired, whether its agent, its key or the
// token itself has ended is looked up each time, by who asked for it. The keys
// that sign retire no sooner than their last token.
//
// What it remembers lies in two halves, as in a [keyLimit]: only tokens that are
// ours come in, and those that nobody uses any more go.
type verified struct {
	mu         sync.Mutex
	newer, old map[[32]byte]verifiedToken
}

// verifiedToken is what a token says.
type verifiedToken struct {
	claims jwt.Claims
	extra  reflect.Value // what the pointer pointed to that it was read into
}

// get reads what a token says beyond its claims into extra, a pointer of the type
// that the token was verified with. The lists in it are shared: nobody changes
// them.
func (v *verified) get(token string, extra any) (jwt.Claims, bool) {
	hash := sha256.Sum256([]byte(token))
	v.mu.Lock()
	s, ok := v.newer[hash]
	if !ok {
		if s, ok = v.old[hash]; ok {
			v.keep(hash, s)
		}
	}
	v.mu.Unlock()
	if !ok {
		return jwt.Claims{}, false
	}
	to := reflect.ValueOf(extra).Elem()
	if to.Type() != s.extra.Type() {
		return jwt.Claims{}, false
	}
	to.Set(s.extra)
	return s.claims, true
}

// put remembers what a token says whose signature is good.
func (v *verified) put(token string, claims jwt.Claims, extra any) {
	from := reflect.ValueOf(extra).Elem()
	kept := reflect.New(from.Type()).Elem()
	kept.Set(from) // the caller may change its own
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keep(sha256.Sum256([]byte(token)), verifiedToken{claims, kept})
}

func (v *verified) keep(hash [32]byte, s verifiedToken) {
	if v.newer == nil || len(v.newer) >= maxVerified/2 {
		v.newer, v.old = map[[32]byte]verifiedToken{}, v.newer
	}
	v.newer[hash] = s
}
