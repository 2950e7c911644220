//go:build !linux && !darwin

package store_test

// limitFiles is for systems that have such a limit for a process.
func limitFiles(uint64) {}
