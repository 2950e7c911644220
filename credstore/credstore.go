// Package credstore keeps credentials at rest: in the OS keyring, in an
// encrypted file, or in memory.
//
// A [Credential] is a [Secret] and what may be said of it in public, its
// [Info]. Listing never touches a secret. A [Store] is shared by every process
// of the user: Put is durable when it returns, and [Store.Lock] is a lock of
// the kernel that ends with its process.
package credstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what a secret is for. A service may issue several kinds to one agent.
type Kind string

// The kinds of secret.
const (
	// KindToken is a token that is sent with every request, as Lona's is.
	KindToken Kind = "token"
	// KindWallet is the private key of a wallet, which signs and is never sent.
	// Its Key names no agent: Agent is what the wallet is called here.
	KindWallet Kind = "wallet"
	// KindKeyPair is the private key of a key pair that is an agent's identity
	// at one service. It signs and is never sent.
	KindKeyPair Kind = "key_pair"
	// KindAPIKey is a long-lived key that stands behind another credential, or
	// that short-lived ones are had with.
	KindAPIKey Kind = "api_key"
	// KindAccess is such a short-lived token.
	KindAccess Kind = "access_token"
	// KindRecovery is what other keys are had with when nothing else is left.
	KindRecovery Kind = "recovery_key"
)

// Key names a credential. Its fields are not secret.
type Key struct {
	Protocol string // the protocol's name: "lona"
	Origin   string // scheme, host and port of the service that issued it, in ASCII: "https://gateway.lona.agency"
	Agent    string // who it was issued to, as the service says it
	Kind     Kind
	Label    string // tells two credentials of one agent apart; usually ""
}

// State is what is known of a credential.
type State string

// The states of a credential.
const (
	StatePending  State = "pending"  // in the store, but the service's side is not confirmed
	StateActive   State = "active"   // usable
	StateExpiring State = "expiring" // usable, in the last fifth of its life
	StateExpired  State = "expired"  // past its expiry
	StateRevoked  State = "revoked"  // the service said, or was told, that it is dead
	StateLost     State = "lost"     // the index knows of it, its secret is gone
)

// Info is what may be said of a credential in public: it goes into the index,
// to the model and onto the screen.
type Info struct {
	Key
	State     State // as stored: pending, active, revoked or lost
	KeyID     string
	CreatedAt time.Time
	ExpiresAt time.Time         // zero: it does not expire
	Attrs     map[string]string // what the protocol keeps beside the secret, such as a user id
}

// StateAt returns the state at a time: expiring and expired follow from
// ExpiresAt, the others are as stored.
func (i Info) StateAt(now time.Time) State {
	if i.State != StateActive || i.ExpiresAt.IsZero() {
		return i.State
	}
	left := i.ExpiresAt.Sub(now)
	switch {
	case left <= 0:
		return StateExpired
	case left < i.ExpiresAt.Sub(i.CreatedAt)/5:
		return StateExpiring
	}
	return StateActive
}

// UsableAt reports whether a service can be expected to accept the credential.
func (i Info) UsableAt(now time.Time) bool {
	s := i.StateAt(now)
	return s == StateActive || s == StateExpiring
}

// Credential is a secret and what may be said of it.
type Credential struct {
	Info
	Secret Secret
}

// Store keeps credentials. Every implementation passes the suite in
// credstoretest. An error of one wraps one of the errors below where one
// fits; its text names the remedy and never holds a secret.
type Store interface {
	// Get returns the credential, or [ErrNotFound].
	Get(ctx context.Context, k Key) (Credential, error)
	// Put stores the credential in the place of the one with the same Key. It
	// is durable when Put returns; when Put fails, the former one is intact. (A
	// keyring that never answers may still do what it was told: then the one
	// or the other is there, whole, and Get and List say which.) Times are
	// kept to the millisecond; without a CreatedAt it is now.
	Put(ctx context.Context, c Credential) error
	// Delete removes the credential, or returns [ErrNotFound].
	Delete(ctx context.Context, k Key) error
	// List returns what is stored for a protocol, or everything for "", sorted
	// by protocol, origin, agent, kind and label.
	List(ctx context.Context, protocol string) ([]Info, error)
	// Lock waits until no other holder, in whatever process, has the lock of k.
	// Locks are not reentrant.
	Lock(ctx context.Context, k Key) (unlock func(), err error)
	// Backend names where secrets go: "keyring", "file" or "memory"; "auto"
	// before the first write has chosen one.
	Backend(ctx context.Context) (string, error)
}

// The errors of a Store.
var (
	// ErrNotFound: there is no such credential.
	ErrNotFound = errors.New("no such credential")
	// ErrUnavailable: the backend is missing, locked, slow or refuses. What is
	// stored is unharmed.
	ErrUnavailable = errors.New("credential store unavailable")
	// ErrDamaged: what is stored cannot be read or is not what was asked for.
	ErrDamaged = errors.New("credential store damaged")
	// ErrPassphrase: an archive does not open with the passphrase that was given.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrTooLarge: the backend cannot hold a secret of this size.
	ErrTooLarge = errors.New("secret too large for the credential store")
)

// Error is a failure of a Store with what can be done about it.
type Error struct {
	Op     string // what was being done: "read", "write", "delete", "list", "lock", "open"
	Place  string // where: "keyring", or a path
	Kind   error  // one of the errors above, or nil
	Cause  error  // what the system said; never holds a secret
	Remedy string // one sentence: what a person can do
}

// Error implements error: what failed, why, and the remedy.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s %s", e.Op, e.Place)
	if e.Kind != nil {
		text += ": " + e.Kind.Error()
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}
