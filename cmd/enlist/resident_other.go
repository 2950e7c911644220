//go:build !linux

package main

// releaseCode does nothing here.
func releaseCode() {}
