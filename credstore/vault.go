package credstore

import (
	"context"
	"errors"
)

// vault keeps envelopes, one a key. Whoever writes holds the store's write
// lock. What it returns is an [Error], except for errNoItem.
type vault interface {
	// get returns the envelope of k, or errNoItem.
	get(ctx context.Context, k Key) ([]byte, error)
	// put is durable when it returns; when it fails the former item is intact,
	// unless the error is errUnknown.
	put(ctx context.Context, k Key, data []byte) error
	// remove removes the envelope of k, or returns errNoItem.
	remove(ctx context.Context, k Key) error
	// place says where the items are, for errors.
	place() string
}

// lister is a vault that can say what it holds.
type lister interface {
	// all returns every credential's Info, in no order. Nothing there is an
	// empty list.
	all(ctx context.Context) ([]Info, error)
}

var (
	// errNoItem: the vault has no item for the key.
	errNoItem = errors.New("no such item")
	// errUnknown: the vault was asked to write and never answered.
	errUnknown = errors.New("whether it was done is not known yet")
)
