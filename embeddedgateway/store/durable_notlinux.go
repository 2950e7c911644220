//go:build !linux

package store

import "os"

// syncLog puts what was written to a file on the disk.
func syncLog(f *os.File) error { return f.Sync() }

// syncDatabase does nothing: where a disk's failure is told once, to whoever syncs
// first, that must be SQLite, who has written the file.
func syncDatabase(*os.File) error { return nil }
