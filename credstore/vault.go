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
	// empty list; errNoItem: it cannot say, because no list was made yet.
	all(ctx context.Context) ([]Info, error)
	// names returns whose items the vault says that it has, without looking at
	// more of them than it must.
	names(ctx context.Context) (names, error)
}

// recorder is a vault that must be told which keys it has items for, since it
// cannot find out by itself.
type recorder interface {
	// record adds keys to the vault's own list and takes others off it. When
	// it fails, it may have done so with some of them.
	record(ctx context.Context, add, drop []Key) error
	// rewrite adds keys, and writes over what of the list cannot be read.
	rewrite(ctx context.Context, add []Key) error
}

var (
	// errNoItem: the vault has no item for the key.
	errNoItem = errors.New("no such item")
	// errUnknown: the vault was asked to write and never answered, or stopped
	// answering before it said what came of it.
	errUnknown = errors.New("whether it was done is not known yet")
)
