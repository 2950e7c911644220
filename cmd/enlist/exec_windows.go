package main

import "os"

// forwarded lists the signals that a program which runs under this one gets.
// The console sends Ctrl+C to both; taking it here keeps this one alive until
// the other has ended.
func forwarded() []os.Signal { return []os.Signal{os.Interrupt} }

// exitCodeOf returns the exit code of a program that has ended.
func exitCodeOf(state *os.ProcessState) int { return state.ExitCode() }
