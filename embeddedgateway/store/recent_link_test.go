//go:build unix

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// TestWhatIsKeptBehindALink: a database may be named by a symbolic link. SQLite's
// other files are beside the file itself; what was left beside the link by a
// process that was killed before the file was moved never changes again, and who
// looked at that would keep a revoked key for ever.
func TestWhatIsKeptBehindALink(t *testing.T) {
	for name, left := range map[string]bool{"link": false, "link with old files beside it": true} {
		t.Run(name, func(t *testing.T) {
			file, link := filepath.Join(t.TempDir(), "file.db"), filepath.Join(t.TempDir(), "gateway.db")
			other := open(t, file, time.Now)
			a, c := enrolled(t, other, "a")
			if err := os.Symlink(file, link); err != nil {
				t.Fatal(err)
			}
			if left {
				shm, err := os.ReadFile(file + "-shm")
				if err == nil {
					err = os.WriteFile(link+"-shm", shm, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, link, time.Now)
			for range 2 {
				if _, err := s.Authenticate(t.Context(), "p", c.Hash); err != nil {
					t.Fatal(err)
				}
			}
			if kept, _, _ := s.Kept(); kept != 1 {
				t.Fatalf("%d rows are kept, want one: this test would see nothing", kept)
			}
			if err := other.Tx(t.Context(), func(tx *store.Tx) error { _, err := tx.RevokeAll(a.ID, "token"); return err }); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Authenticate(t.Context(), "p", c.Hash); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a credential that was revoked is found (%v)", err)
			}
		})
	}
}

// TestRestoreBehindALink: what a link leads to is replaced, not the link.
func TestRestoreBehindALink(t *testing.T) {
	folder := t.TempDir()
	file, link, backup := filepath.Join(folder, "file.db"), filepath.Join(t.TempDir(), "gateway.db"), filepath.Join(folder, "backup.db")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	s := open(t, file, time.Now)
	_, c := enrolled(t, s, "a")
	if _, err := store.Backup(t.Context(), link, backup, false); err != nil {
		t.Fatal(err)
	}
	restore := func() error {
		_, err := store.Restore(t.Context(), store.Restoring{
			From: backup, Path: link, Mark: "mark", Verify: func([]byte) error { return nil }, Now: time.Now,
		})
		return err
	}
	if err := restore(); !errors.Is(err, store.ErrInUse) {
		t.Errorf("while it is open: %v, want ErrInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link leads to %q (%v), want %s", to, err, file)
	}
	if _, err := open(t, file, time.Now).Authenticate(t.Context(), "p", c.Hash); err != nil {
		t.Errorf("the credential of the backup: %v", err)
	}
}
