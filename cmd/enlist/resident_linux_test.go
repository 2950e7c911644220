package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

var residentFile = regexp.MustCompile(`RssFile:\s+(\d+) kB`)

// What is given back is not resident any more, and runs all the same.
func TestReleasedCodeRunsAgain(t *testing.T) {
	inFiles := func() int {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		kib, err := strconv.Atoi(residentFile.FindStringSubmatch(string(status))[1])
		if err != nil {
			t.Fatal(err)
		}
		return kib
	}
	inFiles() // so that it is mapped
	before := inFiles()
	releaseCode()
	if after := inFiles(); after > before-1024 {
		t.Errorf("%d KiB of files were resident and %d are, want a MiB less at least", before, after)
	}
}
