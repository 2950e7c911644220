package main

import (
	"os"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// TestNothingLeaked looks for every secret that any gateway of the whole suite
// issued in everything that was written. It must run after the suite, and by
// itself: .ci/run does that.
func TestNothingLeaked(t *testing.T) {
	if os.Getenv("ENLIST_LEAK_SCAN") == "" {
		return // the suite is still writing
	}
	report, err := leakscan.Scan(os.Getenv(leakscan.Variable))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d secrets, %d files, %d bytes", report.Secrets, report.Files, report.Bytes)
	if report.Secrets < 100 || report.Files < 100 {
		t.Error("fewer than a hundred secrets or files: the suite was not recorded")
	}
	for _, f := range report.Found {
		t.Error(f)
	}
}

// keepForScan keeps what a program has left in a folder for the scan of the
// whole suite.
func keepForScan(t *testing.T, dir string) {
	t.Helper()
	record, err := leakscan.New(os.Getenv(leakscan.Variable))
	if err != nil {
		t.Fatal(err)
	}
	if err := record.Keep(t.Name(), dir); err != nil {
		t.Error(err)
	}
}
