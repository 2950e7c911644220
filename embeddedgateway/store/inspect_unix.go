//go:build unix

package store

import "golang.org/x/sys/unix"

// writable reports why files cannot be made in a folder.
func writable(folder string) error { return unix.Access(folder, unix.W_OK|unix.X_OK) }
