package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseCode gives the program's code back to the system: most of what has run
// by then runs at the start only. A client starts a server a window, and they
// wait for days. Code that is mapped counts as resident, and is among the last
// that the system takes where memory is short; given back, it stays in the page
// cache, and what runs again is mapped again, which takes a moment.
//
// Nothing depends on it, so nothing is said where it cannot be done. Code is
// never written to: there is nothing in it that could be lost.
func releaseCode() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		// from-to perms offset dev inode path
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "r-xp" || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+program) {
			continue
		}
		first, last, _ := strings.Cut(fields[0], "-")
		from, fromErr := strconv.ParseUint(first, 16, 64)
		to, toErr := strconv.ParseUint(last, 16, 64)
		if fromErr == nil && toErr == nil {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED)
		}
	}
}
