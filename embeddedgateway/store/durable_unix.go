//go:build unix

package store

import (
	"fmt"
	"os"
)

// openLog opens a database's write-ahead log, for nothing but to sync it: SQLite
// has no locks on it that closing it would end.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the write-ahead log: %w", err)
	}
	return f, nil
}
