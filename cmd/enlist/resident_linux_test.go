package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
)

// What is given back, code and constants, is not resident any more, and serves all
// the same.
func TestReleasedCodeRunsAgain(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// resident is how many KiB of the program are, by how they are mapped.
	resident := func() map[string]int {
		maps, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		found, how := map[string]int{}, ""
		for line := range strings.Lines(string(maps)) {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 4 && strings.Contains(fields[0], "-"):
				how = ""
				if fields[len(fields)-1] == program {
					how = fields[1]
				}
			case how != "" && fields[0] == "Rss:":
				kib, err := strconv.Atoi(fields[1])
				if err != nil {
					t.Fatal(err)
				}
				found[how] += kib
			}
		}
		return found
	}
	touch(t, program)
	before := resident()
	releaseCode()
	after := resident()
	for _, how := range []string{"r-xp", "r--p"} {
		if after[how] > before[how]-1024 {
			t.Errorf("%d KiB of the program were mapped %s and %d are, want a MiB less at least", before[how], how, after[how])
		}
	}
}

// touch has all of the program mapped that is not written to: the kernel does so where
// it reads the memory of a process.
func touch(t *testing.T, program string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[5] != program || !strings.HasPrefix(fields[1], "r-") {
			continue
		}
		from, length := span(fields[0])
		if _, err := io.Copy(io.Discard, io.NewSectionReader(memory, from, length)); err != nil {
			t.Fatal(err)
		}
	}
}
