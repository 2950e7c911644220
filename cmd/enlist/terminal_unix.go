//go:build !windows

package main

import "os"

// sequences has a terminal understand the sequences that colour text: all do
// whose TERM says so.
func sequences(*os.File) bool { return true }
