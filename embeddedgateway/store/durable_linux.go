package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncLog puts what was written to a file on the disk, with its size where that
// is needed to read it. (The time of the change, which Sync brings along, would
// cost as much again.)
func syncLog(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sync %s: %w", f.Name(), err)
		}
		return nil
	}
}

// syncDatabase is syncLog for a file that somebody else has written and will sync
// again. If the disk fails here they are told so, too: Linux tells everybody who has
// the file open.
func syncDatabase(f *os.File) error { return syncLog(f) }
