//go:build unix

package main

import (
	"os"
	"syscall"
)

// forwarded lists the signals that a program which runs under this one gets.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}
}

// exitCodeOf returns the exit code of a program that has ended, for one that a
// signal ended as shells do.
func exitCodeOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignal + int(status.Signal())
	}
	return state.ExitCode()
}
