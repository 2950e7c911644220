package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// TestAnotherStoreLeavesTheLocks: a process that closes a descriptor of a file
// loses all its locks on it. So a store that is opened and closed, or not even
// opened, must not take the locks of another one on the same database with it:
// SQLite in other processes would take that one for gone.
func TestAnotherStoreLeavesTheLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	enrolled(t, open(t, path, time.Now), "a")
	want := locks(t, path) + locks(t, path+"-shm")
	if !strings.Contains(want, "POSIX") {
		t.Fatal("the database has no locks: this test would see nothing")
	}
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{Path: path, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		if got := locks(t, path) + locks(t, path+"-shm"); got != want {
			t.Errorf("with another store there are the locks\n%swant\n%s", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := locks(t, path) + locks(t, path+"-shm"); got != want {
			t.Errorf("after another store there are the locks\n%swant\n%s", got, want)
		}
	}
}

// locks are this process's POSIX locks on a file, as proc_locks(5) has them.
func locks(t *testing.T, path string) (found string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf(":%d", info.Sys().(*syscall.Stat_t).Ino) //nolint:forcetypeassert // it is, on Linux
	all, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		_, lock, _ := strings.Cut(line, ": ")
		f := strings.Fields(lock)
		if len(f) == 7 && f[0] == "POSIX" && f[3] == fmt.Sprint(os.Getpid()) && strings.HasSuffix(f[4], file) {
			found += lock
		}
	}
	return found
}
