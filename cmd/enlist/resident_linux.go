package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseCode gives the program's code and its constants (texts, tables, what the
// runtime knows of functions and types) back to the system: most of what has run or
// was read by then is for the start only. A client starts a server a window, and
// they wait for days. What is mapped counts as resident, and code is among the last
// that the system takes where memory is short; given back, it stays in the page
// cache, and what is needed again is mapped again, which takes a moment.
//
// Nothing depends on it, so nothing is said where it cannot be done. What has been
// written to, by a loader that put addresses in or by a debugger, would be lost: that
// stays.
func releaseCode() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uint64 // of the mapping that the lines are about; 0: it stays
	for line := range strings.Lines(string(maps)) {
		// from-to perms offset dev inode path, and then lines of what it has.
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			from, to = 0, 0
			if (fields[1] == "r-xp" || fields[1] == "r--p") && strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+program) {
				from, to = span(fields[0])
			}
		case to > from && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED)
		}
	}
}

// span reads the two addresses of a mapping; 0, 0: they are none.
func span(text string) (from, to uint64) {
	first, last, _ := strings.Cut(text, "-")
	from, fromErr := strconv.ParseUint(first, 16, 64)
	to, toErr := strconv.ParseUint(last, 16, 64)
	if fromErr != nil || toErr != nil {
		return 0, 0
	}
	return from, to
}
