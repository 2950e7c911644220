package embeddedgateway

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// jwksPath is where anybody finds the public keys (RFC 7517).
	jwksPath = "/.well-known/jwks.json"

	signingKind = "signing-key"
	firstKey    = "signing-key-first" // there is one when the first signing key was made

	tokenType   = "JWT"       // the typ of the tokens that agents are given
	tokenLife   = time.Hour   // of every one of them
	tokenLeeway = time.Minute // clocks of several replicas differ
	maxToken    = 8 << 10     // bytes
	maxKeys     = 100         // signing keys at once
)

// errBadToken: a token is none of ours, was changed, or has expired.
var errBadToken = errors.New("the token is not valid")

// signer makes and verifies JSON Web Tokens (RFC 7519), signed with Ed25519
// (RFC 8037). The keys lie sealed in the database, so that they survive a
// restart and are those of all replicas; it is asked each time, so that a key
// that was rotated by another process is used from then on. Its randomness is
// the system's, as the vault's is.
type signer struct {
	vault  *vault
	now    func() time.Time
	issuer string
	store  *store.Store // set when the gateway has opened it

	mu     sync.Mutex
	opened map[string]signingKey // by kid: to open one costs more than to sign

	seen    verified
	metrics *metrics
}

// signingKey is a key that tokens are verified with, and signed by the newest.
type signingKey struct {
	kid     string
	private ed25519.PrivateKey
	tokens  jose.Signer // of [tokenType]; safe for concurrent use
	retired bool
}

// keys returns the keys that are good now, the oldest first.
func (s *signer) keys(ctx context.Context) ([]signingKey, error) {
	list, err := s.store.Sealed(ctx, signingKind, maxKeys)
	if err != nil {
		return nil, fmt.Errorf("read the signing keys: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]signingKey, 0, len(list))
	for _, sealed := range list {
		key, ok := s.opened[sealed.Name]
		if !ok {
			if key, err = s.open(sealed); err != nil {
				return nil, err
			}
			s.opened[sealed.Name] = key
		}
		key.retired = !sealed.ExpiresAt.IsZero()
		keys = append(keys, key)
	}
	return keys, nil
}

// open decrypts a key.
func (s *signer) open(sealed store.Sealed) (key signingKey, err error) {
	seed, err := s.vault.open(signingKind, sealed.Name, sealed.Data)
	if err != nil {
		return key, err
	}
	key = signingKey{kid: sealed.Name, private: ed25519.NewKeyFromSeed(seed)}
	key.tokens, err = key.signer(tokenType)
	return key, err
}

// begin makes the first key, where there is none.
func (s *signer) begin(ctx context.Context) error {
	kid, sealed, err := s.newKey()
	if err != nil {
		return err
	}
	err = s.store.Tx(ctx, func(tx *store.Tx) error {
		if err := tx.Seal(store.Sealed{Kind: firstKey, Name: "made", Data: []byte{}}); err != nil {
			return err // another process has made it
		}
		return tx.Seal(store.Sealed{Kind: signingKind, Name: kid, Data: sealed})
	})
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}

// newKey makes a key and encrypts it.
func (s *signer) newKey() (kid string, sealed []byte, err error) {
	if kid, err = (minter{rand.Reader}).keyID(); err != nil {
		return "", nil, err
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return "", nil, fmt.Errorf("read random bytes: %w", err)
	}
	sealed, err = s.vault.seal(signingKind, kid, seed)
	return kid, sealed, err
}

// rotate makes a new key for everything that is signed from now on. The keys
// before it are good until the last token that they signed has expired.
func (s *signer) rotate(ctx context.Context) (kid string, err error) {
	keys, err := s.keys(ctx)
	if err != nil {
		return "", err
	}
	if len(keys) >= maxKeys { // one more would not be read, and nothing could be signed
		return "", fmt.Errorf("there are %d keys already: try again in an hour, when the old ones have retired", len(keys))
	}
	kid, sealed, err := s.newKey()
	if err != nil {
		return "", err
	}
	err = s.store.Tx(ctx, func(tx *store.Tx) error {
		if err := tx.Seal(store.Sealed{Kind: signingKind, Name: kid, Data: sealed}); err != nil {
			return err
		}
		if err := tx.Outdate(signingKind, kid, tx.Now().Add(tokenLife+tokenLeeway)); err != nil {
			return err
		}
		return tx.Audit(store.Event{Protocol: keyring{}.name(), Name: "signing_key_rotated", KeyID: kid})
	})
	return kid, err
}

// sign makes a token of a protocol about a subject. What extra holds is added to
// it. The claims that it returns are those that every token has: iss, sub, aud,
// iat, exp and jti; aud is the protocol, so that no other one takes it.
func (s *signer) sign(ctx context.Context, protocol, subject string, extra any) (token string, claims jwt.Claims, err error) {
	key, err := s.current(ctx)
	if err != nil {
		return "", claims, err
	}
	id, err := newTokenID()
	if err != nil {
		return "", claims, err
	}
	now := s.now().UTC().Truncate(time.Second) // as it is written
	claims = jwt.Claims{
		Issuer: s.issuer, Subject: subject, Audience: jwt.Audience{protocol}, ID: id,
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(tokenLife)),
	}
	payload, err := joined(claims, extra)
	if err != nil {
		return "", claims, fmt.Errorf("sign a token: %w", err)
	}
	signed, err := key.tokens.Sign(payload)
	if err != nil {
		return "", claims, fmt.Errorf("sign a token: %w", err)
	}
	token, err = signed.CompactSerialize()
	if err != nil {
		return "", claims, fmt.Errorf("sign a token: %w", err)
	}
	return token, claims, nil
}

// joined writes two objects as one. They have no name in common. (The builder of
// go-jose makes both of them to maps and back: longer than the signature takes.)
func joined(a, b any) ([]byte, error) {
	head, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	tail, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if len(head) <= len("{}") || head[len(head)-1] != '}' || tail[0] != '{' {
		return nil, fmt.Errorf("the claims of a token are %T and %T", a, b)
	}
	if string(tail) == "{}" {
		return head, nil
	}
	return append(append(head[:len(head)-1], ','), tail[1:]...), nil
}

// current returns the key that tokens are signed with.
func (s *signer) current(ctx context.Context) (signingKey, error) {
	keys, err := s.keys(ctx)
	if err != nil {
		return signingKey{}, err
	}
	for _, key := range slices.Backward(keys) {
		if !key.retired {
			return key, nil
		}
	}
	return signingKey{}, errors.New("there is no key to sign with: run enlist gateway keys rotate")
}

// signer signs tokens of a type by the key.
func (k signingKey) signer(typ jose.ContentType) (jose.Signer, error) {
	by, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: k.private, KeyID: k.kid},
	}, (&jose.SignerOptions{}).WithType(typ))
	if err != nil {
		return nil, fmt.Errorf("sign a token: %w", err)
	}
	return by, nil
}

// newTokenID returns the jti of a token.
func newTokenID() (string, error) { return minter{rand.Reader}.text(16) }

// verify checks a token of a protocol and reads what it says beyond the claims
// that every one has into extra, a pointer. It is errBadToken unless a key of
// this gateway has signed it with EdDSA, for this protocol and not as a token of
// another type, and it has not expired. Whether its subject may still use it is the protocol's to say.
func (s *signer) verify(ctx context.Context, protocol, token string, extra any) (claims jwt.Claims, err error) {
	defer func() { s.metrics.token(protocol, err) }()
	if len(token) > maxToken {
		return claims, errBadToken
	}
	claims, ok := s.seen.get(token, extra)
	if !ok {
		if claims, err = s.read(ctx, token, extra); err != nil {
			return jwt.Claims{}, err
		}
	}
	// A replica whose clock is ahead may have signed it a moment from now. At
	// its end it is over to the second (RFC 7519, 4.1.4).
	now := s.now()
	err = claims.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{protocol}, Time: now}, tokenLeeway)
	if err != nil || claims.Expiry == nil || !now.Before(claims.Expiry.Time()) || claims.ID == "" || claims.Subject == "" {
		return jwt.Claims{}, errBadToken
	}
	if !ok {
		s.seen.put(token, claims, extra)
	}
	return claims, nil
}

// read checks the signature of a token and reads what it says. What that is
// worth is not judged.
func (s *signer) read(ctx context.Context, token string, extra any) (claims jwt.Claims, err error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(parsed.Headers) != 1 || parsed.Headers[0].ExtraHeaders[jose.HeaderType] != tokenType {
		return claims, errBadToken
	}
	keys, err := s.keys(ctx)
	if err != nil {
		return claims, err
	}
	for _, key := range keys {
		if key.kid != parsed.Headers[0].KeyID {
			continue
		}
		if err := parsed.Claims(key.private.Public(), &claims, extra); err != nil {
			return jwt.Claims{}, errBadToken
		}
		return claims, nil
	}
	return claims, errBadToken
}

// RotateKeys makes a new key for the tokens that are signed from now on, in
// every process over the same database, and returns its id. Tokens that are out
// already stay good until they expire.
func (g *Gateway) RotateKeys(ctx context.Context) (kid string, err error) {
	if kid, err = g.signer.rotate(ctx); err != nil {
		return "", fmt.Errorf("rotate the signing keys: %w", err)
	}
	g.cfg.Logger.InfoContext(ctx, "signing key rotated", "kid", kid)
	return kid, nil
}

// Key is a key that tokens are signed with, or were until another came.
type Key struct {
	ID      string // the kid of its tokens
	Made    time.Time
	Retires time.Time // when the last token that it signed has expired; zero: it signs
}

// Keys returns the keys whose tokens are good, the oldest first.
func (g *Gateway) Keys(ctx context.Context) ([]Key, error) {
	list, err := g.store.Sealed(ctx, signingKind, maxKeys)
	if err != nil {
		return nil, fmt.Errorf("read the signing keys: %w", err)
	}
	keys := make([]Key, 0, len(list))
	for _, s := range list {
		keys = append(keys, Key{ID: s.Name, Made: s.CreatedAt, Retires: s.ExpiresAt})
	}
	return keys, nil
}

// keyring is what the gateway itself serves beside the protocols: the public
// keys that its tokens are verified with.
type keyring struct{ signer *signer }

func (keyring) name() string { return "gateway" }

func (k keyring) routes() []route { return []route{get(jwksPath, k.jwks)} }

// refuse implements protocol.
func (keyring) refuse(p *problem) (int, any) {
	return p.kind.status(), map[string]any{"error": map[string]string{"code": p.event(), "message": p.message}}
}

// jwks answers the public keys.
func (k keyring) jwks(ctx context.Context, _ *call) (answered, error) {
	keys, err := k.signer.keys(ctx)
	if err != nil {
		return answered{}, err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: key.private.Public(), KeyID: key.kid, Algorithm: string(jose.EdDSA), Use: "sig",
		})
	}
	// Short enough that who verifies by a copy learns of a new key in time.
	return answered{status: http.StatusOK, body: set, header: http.Header{"Cache-Control": {"public, max-age=60"}}}, nil
}
