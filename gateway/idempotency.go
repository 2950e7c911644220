package gateway

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// seedMark begins every seed. What a service issues does not begin so.
const seedMark = "enlist-begun-"

// newSeed returns 256 random bits that stand for a secret which was asked for and
// is not there yet. Nobody is sent them: they are what the idempotency key of the
// attempt is made from, so that it can be made again after a crash.
func newSeed() credstore.Secret {
	raw := make([]byte, sha256.Size)
	_, _ = rand.Read(raw) // it cannot fail
	return credstore.NewSecret(seedMark + base64.RawURLEncoding.EncodeToString(raw))
}

// isSeed reports whether a secret is one that no service has issued.
func isSeed(s credstore.Secret) bool { return strings.HasPrefix(s.Reveal(), seedMark) }

// issuedSecret returns the secret of a credential that a service has issued, which a
// seed is not.
func issuedSecret(c credstore.Credential) credstore.Secret {
	if isSeed(c.Secret) {
		return credstore.Secret{}
	}
	return c.Secret
}

// attempt returns a header with an idempotency key, or an empty one where no
// secret is held to make it from. As long as the same is held, the same call with
// the same parts is the same attempt, in this process or the next; and as soon as
// its answer is stored, the next one is another. The key tells a service nothing
// of the secret.
func (c *caller) attempt(k call, held credstore.Credential, parts ...string) http.Header {
	header := make(http.Header)
	if held.Secret.IsZero() {
		return header
	}
	mac := hmac.New(sha256.New, []byte(held.Secret.Reveal()))
	for _, part := range append([]string{"enlist idempotency key", k.protocol, k.origin, k.op}, parts...) {
		_, _ = io.WriteString(mac, part+"\x00")
	}
	key := hex.EncodeToString(mac.Sum(nil))
	c.scrub.learn(credstore.NewSecret(key)) // a service may repeat what it was sent
	// Not in its canonical form, in which net/http takes it for a leave to make the
	// request twice by itself: a service that ignores the key would issue twice.
	header[strings.ToLower(wire.IdempotencyHeader)] = []string{wire.FormatIdempotencyKey(key)}
	return header
}
