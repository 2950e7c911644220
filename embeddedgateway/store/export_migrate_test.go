package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// MigrateTo makes a database as a version of Enlist left it that knew no later
// migration.
func MigrateTo(ctx context.Context, o Options, version int64) (err error) {
	if o.URL != "" {
		cfg, _, err := parsePostgres(o.URL)
		if err != nil {
			return err
		}
		db := stdlib.OpenDB(*cfg)
		return errors.Join(migrateTo(ctx, db, migrator{dialect: goose.DialectPostgres, words: postgresWords()}, version), db.Close())
	}
	db, err := openPool(ctx, o.Path, 1, writerPragmas())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := claim(ctx, db); err != nil {
		return err
	}
	return migrateTo(ctx, db, migrator{dialect: goose.DialectSQLite3, words: sqliteWords()}, version)
}

func migrateTo(ctx context.Context, db *sql.DB, m migrator, version int64) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(m.dialect, db, ddl{files, m.words}, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}
