package embeddedgateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	secretBytes = 32 // 256 bits
	keyIDLen    = 12 // letters and digits: 60 bits, public
)

// minter makes what must not be guessed.
type minter struct{ rand io.Reader }

// secret returns 256 random bits as 52 lower-case letters and digits. There is
// no separator among them, so that a token can be taken apart again.
func (m minter) secret() (string, error) { return m.text(secretBytes) }

// keyID returns 12 lower-case letters and digits that name a credential in
// public. They are drawn apart from its secret and say nothing about it.
func (m minter) keyID() (string, error) {
	text, err := m.text(8)
	if err != nil {
		return "", err
	}
	return text[:keyIDLen], nil
}

// uuid returns a random UUID (version 4): a name, not a secret.
func (m minter) uuid() (string, error) {
	raw := make([]byte, 16)
	if _, err := io.ReadFull(m.rand, raw); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:]), nil
}

// urlSafe returns n random bytes as letters, digits, dashes and underscores.
func (m minter) urlSafe(n int) (string, error) {
	raw := make([]byte, n)
	if _, err := io.ReadFull(m.rand, raw); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

func (m minter) text(n int) (string, error) {
	raw := make([]byte, n)
	if _, err := io.ReadFull(m.rand, raw); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	const lower = "abcdefghijklmnopqrstuvwxyz234567"
	return base32.NewEncoding(lower).WithPadding(base32.NoPadding).EncodeToString(raw), nil
}

// digest is what is stored of a secret. One round is enough: what has 256
// random bits cannot be searched for.
func digest(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// authenticate returns the usable credential of a protocol that a client
// presents, or [store.ErrNotFound]: it looks up the digest, so how long it takes
// says nothing about a stored secret.
func authenticate(ctx context.Context, s *store.Store, protocol, presented string) (store.Credential, error) {
	want := digest(presented)
	cred, err := s.Authenticate(ctx, protocol, want)
	if err != nil {
		return store.Credential{}, err
	}
	if subtle.ConstantTimeCompare(cred.Hash[:], want[:]) != 1 {
		return store.Credential{}, store.ErrNotFound
	}
	return cred, nil
}

// recognise is authenticate for a protocol that says more of a credential that
// may not be used any more than that it may not: it returns that one, too.
func recognise(ctx context.Context, s *store.Store, protocol, presented string) (store.Credential, error) {
	want := digest(presented)
	cred, err := s.Credential(ctx, protocol, want)
	if err == nil && subtle.ConstantTimeCompare(cred.Hash[:], want[:]) != 1 {
		return store.Credential{}, store.ErrNotFound
	}
	return cred, err
}

// rotate issues a credential in the place of all of the same kind that its
// agent has, expired ones included, and says how many it ended. The agent's row
// is to be locked, as [store.Tx.EnsureAgent] does.
func rotate(tx *store.Tx, c store.Credential) (issued store.Credential, ended int, err error) {
	ended, err = tx.RevokeAll(c.AgentID, c.Kind)
	if err != nil {
		return store.Credential{}, 0, err
	}
	issued, err = tx.Issue(c, 0)
	return issued, ended, err
}

// secretSet is a few secrets that an operator set. Any of them is right, so that
// an old and a new one can overlap.
type secretSet [][32]byte

func newSecretSet(secrets []string) secretSet {
	var set secretSet
	for _, s := range secrets {
		set = append(set, digest(s))
	}
	return set
}

// has reports whether a secret is in the set. It compares with every one of
// them, in constant time.
func (s secretSet) has(presented string) bool {
	given, found := digest(presented), 0
	for _, want := range s {
		found |= subtle.ConstantTimeCompare(given[:], want[:])
	}
	return found == 1
}
