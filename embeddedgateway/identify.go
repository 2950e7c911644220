package embeddedgateway

import (
	"context"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// authorizationHeader is the one header of credentials that also says of what kind
// they are.
const authorizationHeader = "Authorization"

const (
	codeNoCredential      = "no_credential" //nolint:gosec // a code, not a credential
	codeUnknownCredential = "unknown_credential"
	codeTwoCredentials    = "two_credentials"
)

// identifier is a protocol whose credentials open the API behind the gateway.
// Every protocol is one.
type identifier interface {
	protocol
	// entrance is the path at which registering begins.
	entrance() string
	// issues reports whether a credential is of the protocol, by its looks.
	issues(p presented) bool
	// identify returns who presents a credential that the protocol issues, as
	// its own routes would take it. What they say of one that may not be used,
	// it says too. It reads the database once where the credential is a key that
	// is good, and notes in the call whom it is about.
	identify(ctx context.Context, c *call, p presented) (Caller, error)
}

// presented is the credential that a request presents.
type presented struct {
	secret   string // as it came
	header   string // that it came in
	user     string // whose it is said to be: by X-User-Id, or beside it in Basic
	basic    bool
	audience string // of a JSON Web Token of the kind that agents are given; not verified
}

// identify returns who makes a request. Which protocol is asked goes by the
// credential, never by the path.
func (f *front) identify(ctx context.Context, c *call) (Caller, error) {
	p, err := f.present(c.Request)
	if err != nil {
		return Caller{}, err
	}
	for _, protocol := range f.protocols {
		if protocol.issues(p) {
			c.protocol = protocol.name()
			return protocol.identify(ctx, c, p)
		}
	}
	return Caller{}, unauthorized(codeUnknownCredential, "the credential is of no kind that is issued here, or in the header of another kind")
}

// present returns the one credential of a request. Of two it cannot be said which
// one counts, here and at the API; so that is refused, whatever they are.
func (f *front) present(r *http.Request) (p presented, err error) {
	n, value, user := 0, "", r.Header[wire.LonaUserHeader]
	for _, name := range f.presentedIn {
		if values := r.Header[name]; len(values) > 0 {
			n += len(values)
			p.header, value = name, values[0]
		}
	}
	two := refusal(kindInvalid, codeTwoCredentials, "the request has more than one credential: send one")
	if n > 1 || len(user) > 1 {
		return p, two
	}
	switch {
	case p.header != authorizationHeader:
		p.secret = value
		if len(user) == 1 {
			p.user = user[0]
		}
	case len(value) > len("Bearer ") && strings.EqualFold(value[:len("Bearer ")], "Bearer "):
		p.secret = strings.TrimLeft(value[len("Bearer "):], " ")
	default:
		p.user, p.secret, p.basic = r.BasicAuth()
	}
	switch {
	case p.secret == "":
		return p, unauthorized(codeNoCredential, "the API is open to registered agents: register, and send the credential in the header that the protocol has for it")
	case strings.ContainsAny(p.secret, ", \t"), p.basic && secretLike(p.user):
		return p, two // as a proxy joins two headers of one name
	}
	p.audience = audienceOf(p.secret)
	return p, nil
}

// presentedIn lists the headers that credentials come in, as [http.Header] has
// them. X-User-Id is none: it says whose the one in X-API-Key is.
func presentedIn() []string {
	var names []string
	for _, name := range secretHeaders() {
		if name = http.CanonicalHeaderKey(name); name != wire.LonaUserHeader {
			names = append(names, name)
		}
	}
	return names
}

// secretLike reports whether a name is none but a secret.
func secretLike(name string) bool { return wire.Mask(name) != name }

// audienceOf returns the protocol that a JSON Web Token says it is for, "" for
// anything else and for a token of another type.
func audienceOf(secret string) string {
	if !strings.HasPrefix(secret, "eyJ") || len(secret) > maxToken {
		return ""
	}
	token, err := jwt.ParseSigned(secret, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(token.Headers) != 1 || token.Headers[0].ExtraHeaders[jose.HeaderType] != tokenType {
		return ""
	}
	var claims jwt.Claims
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil || len(claims.Audience) != 1 {
		return ""
	}
	return claims.Audience[0]
}
