package store

import (
	"context"
	"errors"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// MigrateTo makes a SQLite database as a version of Enlist left it that knew no
// later migration.
func MigrateTo(ctx context.Context, path string, version int64) (err error) {
	db, err := openPool(ctx, path, 1, writerPragmas())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := claim(ctx, db); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, ddl{files, sqliteWords()}, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}
