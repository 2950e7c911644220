//go:build !unix

package store

// writable does not know: the start will tell.
func writable(string) error { return nil }
