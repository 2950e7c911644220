package main

import (
	"encoding/binary"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// releaseCode gives the program's code and its constants (texts, tables, what the
// runtime knows of functions and types) back to the system: most of what has run or
// was read by then is for the start only. A client starts a server a window, and they
// wait for days. What is mapped counts as resident, and code is among the last that
// the system takes where memory is short; given back, it stays in the page cache, and
// what is needed again is mapped again, which takes a moment.
//
// Nothing depends on it, so nothing is said where it cannot be done. What has been
// written to, by a loader that put addresses in or by a debugger, would be lost: that
// stays.
func releaseCode() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	pages, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return
	}
	defer func() { _ = pages.Close() }()
	for line := range strings.Lines(string(maps)) {
		// from-to perms offset dev inode path
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "r-xp" && fields[1] != "r--p" || !strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+program) {
			continue
		}
		if from, length := span(fields[0]); from > 0 && length > 0 && unwritten(pages, from, length) {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(length), syscall.MADV_DONTNEED)
		}
	}
}

// What proc(5) says of a page in /proc/pid/pagemap, eight bytes a page. The file smaps
// tells the same, but counts the pages of all other mappings as well, for milliseconds
// that a client waits.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61
)

// unwritten reports whether all pages of a mapping are as they are in the file.
func unwritten(pages io.ReaderAt, from, length int64) bool {
	size := int64(os.Getpagesize())
	entries := make([]byte, length/size*8)
	if _, err := pages.ReadAt(entries, from/size*8); err != nil {
		return false
	}
	for ; len(entries) > 0; entries = entries[8:] {
		if page := binary.NativeEndian.Uint64(entries); page&(pagePresent|pageSwapped) != 0 && page&pageOfFile == 0 {
			return false
		}
	}
	return true
}

// span reads where a mapping begins and how long it is; 0, 0: the text says neither.
func span(text string) (from, length int64) {
	first, last, _ := strings.Cut(text, "-")
	from, fromErr := strconv.ParseInt(first, 16, 64)
	to, toErr := strconv.ParseInt(last, 16, 64)
	if fromErr != nil || toErr != nil {
		return 0, 0
	}
	return from, to - from
}
