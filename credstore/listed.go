package credstore

import (
	"context"
	"path/filepath"
)

// Listed returns what the index of a home lists, for who only wants to offer
// names: it looks into that one file and mends nothing, asks no keyring and no
// person, and makes no folder. Where there is no index it is empty.
func Listed(ctx context.Context, home string) (infos []Info, err error) {
	on := realSystem()
	x := &index{on: on.files, path: filepath.Join(home, "index.db"), pragmas: on.pragmas}
	if home == "" || !x.exists() {
		return nil, nil
	}
	defer func() {
		if closeErr := x.close(); err == nil {
			err = closeErr
		}
	}()
	rows, err := x.list(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.phase != adding {
			infos = append(infos, r.Info)
		}
	}
	return infos, nil
}
