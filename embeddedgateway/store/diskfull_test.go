//go:build linux || darwin

package store_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limitFiles makes the system refuse to let a file grow larger than that, as a
// full disk does.
func limitFiles(size uint64) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	limit.Cur, limit.Max = size, size
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Println("setrlimit:", err)
	}
}

func TestNothingAcknowledgedIsLostWhenTheDiskFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	_, out, begin := start(t, "fill", path)
	begin()
	var acknowledged, failed []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "agent-") {
			acknowledged = append(acknowledged, lines.Text())
		} else {
			failed = append(failed, lines.Text())
		}
	}
	if len(acknowledged) == 0 || len(failed) < 8 {
		t.Errorf("got %d acknowledged and %q", len(acknowledged), failed)
	}
	for _, line := range failed {
		if !strings.Contains(line, "the disk") && !strings.HasPrefix(line, "close:") {
			t.Errorf("got %q, want that the disk failed or is full", line)
		}
	}
	s := open(t, path, time.Now)
	for _, name := range acknowledged {
		if _, err := s.Authenticate(t.Context(), "test", digest(name)); err != nil {
			t.Errorf("%s was acknowledged: got error %v", name, err)
		}
	}
	t.Logf("%d acknowledged, then %q", len(acknowledged), failed[0])
}

// TestBackupOntoAFullDiskLeavesNothing: neither a part of a file nor a change of
// the one that was there.
func TestBackupOntoAFullDiskLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "gateway.db"), filepath.Join(dir, "backup.db")
	fill(t, options(path), 2000)
	if err := os.WriteFile(to, []byte("the one before"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, begin := start(t, "backup", path, to)
	begin()
	said, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(said), "the disk") {
		t.Errorf("got %q, %v, want that the disk failed or is full", said, err)
	}
	if was, err := os.ReadFile(to); err != nil || string(was) != "the one before" {
		t.Errorf("the file that was there: got %d bytes, %v", len(was), err)
	}
	if got := within(t, dir); strings.Contains(got, ".backup") {
		t.Errorf("files are left over: %s", got)
	}
}
