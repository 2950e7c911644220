//go:build !unix

package store

import "path/filepath"

// walFile is nothing where SQLite's shared memory is not looked at: there every
// row is read from the database.
type walFile struct{}

func claimWALIndex(string) (*walFile, error) { return &walFile{}, nil }

func (*walFile) view(string) (*walIndex, error) {
	return nil, nil //nolint:nilnil // nothing to look at is no failure
}

func (*walFile) release() error { return nil }

// sync leaves it to SQLite to sync the database.
func (*walFile) sync() error { return nil }

// located is where the file of a database is. SQLite keeps its other files beside
// the name that it is given.
func located(path string) (string, error) { return filepath.Abs(path) }

// mayOpen leaves it to SQLite to say why it cannot open a file.
func mayOpen(string) error { return nil }
