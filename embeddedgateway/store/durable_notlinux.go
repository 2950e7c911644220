//go:build !linux

package store

import "os"

// syncLog puts what was written to a file on the disk.
func syncLog(f *os.File) error { return f.Sync() }
