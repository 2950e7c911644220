// Package gateway is the client half: it registers an agent at a service,
// stores what it is issued, and makes requests with it.
//
// Nothing in here returns a secret or anything that contains one. Registering
// and rotating return a [credstore.Info]; a credential is used by handing a
// [Request] to [Lifecycle.Do], which makes it. So whoever sits on top of this
// package, the model's tools above all, can name a credential but never hold
// one.
package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Protocol is how credentials of one protocol are used. What else a protocol
// can do is said by the interfaces it also implements.
type Protocol interface {
	// Wire describes the protocol.
	Wire() wire.Protocol
	// Origin returns the origin of the service that is used unless a
	// credential names another: the protocol's own, or what the user set.
	Origin() string
	// Kind returns the kind of credential that a handle names: the one that
	// requests are made with. Other kinds, such as a key pair or a recovery
	// key, stand behind it and have no handle.
	Kind() credstore.Kind
	// Authorize adds the credential to a request. It is called with a request
	// to the credential's own origin only.
	Authorize(ctx context.Context, k credstore.Key, req *http.Request) error
}

// Rotator is a Protocol that can replace a credential by a new one.
type Rotator interface {
	Protocol
	// Rotate replaces the credential at the service and in the store. It takes
	// the credential's lock; the loser of a race returns what the winner stored.
	Rotate(ctx context.Context, k credstore.Key) (credstore.Info, error)
}

// InPlaceRotator is a Rotator whose service has only so many places for keys.
type InPlaceRotator interface {
	Rotator
	// RotateInPlace is Rotate, but that the old credential ends before there is
	// a new one: only a person may say so.
	RotateInPlace(ctx context.Context, k credstore.Key) (credstore.Info, error)
}

// Revoker is a Protocol that can end a credential at the service.
type Revoker interface {
	Protocol
	// Revoke ends the credential at the service and marks it in the store. It
	// takes the credential's lock.
	Revoke(ctx context.Context, k credstore.Key) error
}

// Renewer is a Protocol whose credentials are renewed without anybody asking for
// it: when they are used, before what is sent expires, and once after the service
// refused one.
type Renewer interface {
	Protocol
	// Renew takes the credential's lock and renews what Authorize sends. Where
	// somebody else has done so meanwhile, or there is no need, it does nothing.
	Renew(ctx context.Context, k credstore.Key) error
	// Due returns from when on what Authorize sends with a credential is to be
	// renewed; the zero time: it does not expire, or is not renewed by itself. It
	// asks nobody: stored is what the store lists, with what stands behind i.
	Due(ctx context.Context, i credstore.Info, stored []credstore.Info) time.Time
}

// Dependent is a Protocol that stores more behind a handle than the credential
// itself, such as a recovery key. Forgetting forgets it all.
type Dependent interface {
	Protocol
	// Dependents returns the keys of what stands behind a credential, whether
	// or not it is stored.
	Dependents(k credstore.Key) []credstore.Key
}

// Reserver is a Protocol whose services may name routes themselves that issue
// or end a credential.
type Reserver interface {
	Protocol
	// Reserved returns those that the service at the origin of k named. k may
	// be a credential of another protocol. It is asked only where one of its own
	// is stored, or k is one.
	Reserved(ctx context.Context, k credstore.Key) ([]wire.Route, error)
}

// Starter is a Protocol with something to do when the program starts.
type Starter interface {
	Protocol
	// Start takes over and registers what the user's settings ask for.
	Start(ctx context.Context) error
}

// Discoverer is a Protocol that a service can be seen to speak.
type Discoverer interface {
	Protocol
	// Discover looks at a service by GET requests and returns what speaks for
	// the protocol there; nil: nothing does. An error says that the service did
	// not answer.
	Discover(ctx context.Context, s *Site) (*Discovery, error)
}

// Healer is a Protocol that can bring to an end what a process left half-done.
type Healer interface {
	Protocol
	// Heal finishes an operation whose process ended in the middle, or whose
	// answer was lost, or finds out that there is nothing to finish; then it takes
	// it out of the journal. It takes the credential's lock, and does nothing if
	// somebody else was faster. An error says why it is as it was.
	Heal(ctx context.Context, u Unfinished) error
}

// Registration is the outcome of registering.
type Registration struct {
	credstore.Info
	// Reused says that nothing was issued: the credential was in the store
	// already, or another process stored it while this one waited.
	Reused bool
}
