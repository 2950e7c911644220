package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// Migration is a step that brings the tables of a database from one version to
// the next.
type Migration struct {
	Version int64
	Name    string // what it is about, such as "label"
	Applied bool
}

// Migrations returns all migrations of this version of Enlist, in their order,
// and which of them a database has had. It changes nothing: of a SQLite
// database that is not there, none is applied. A database that is newer is an
// error.
func Migrations(ctx context.Context, o Options) ([]Migration, error) {
	all, err := knownMigrations()
	if err != nil {
		return nil, err
	}
	applied, name, explain := appliedTo, o.Path, advise
	if o.URL != "" {
		cfg, _, err := parsePostgres(o.URL)
		if err != nil {
			return nil, err
		}
		applied, name, explain = appliedToPostgres, nameOf(cfg), advisePostgres
	}
	has, err := applied(ctx, o)
	if err == nil {
		err = newer(has, all[len(all)-1].Version)
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", name, explain(err))
	}
	for i := range all {
		all[i].Applied = all[i].Version <= has
	}
	return all, nil
}

// Migrate applies the migrations that a database lacks, and returns those. A
// gateway that has the database open serves on meanwhile.
func Migrate(ctx context.Context, o Options) (applied []Migration, err error) {
	before, err := Migrations(ctx, o)
	if err != nil {
		return nil, err
	}
	s, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	for _, m := range before {
		if !m.Applied {
			m.Applied = true
			applied = append(applied, m)
		}
	}
	return applied, nil
}

// newer refuses a database of a version that this one does not know.
func newer(has, knows int64) error {
	if has <= knows {
		return nil
	}
	return fmt.Errorf("it was written by a newer version of Enlist (its tables are at version %d, this one knows %d); "+
		"use that version, or another database", has, knows)
}

// knownMigrations reads the names of the embedded files.
func knownMigrations() ([]Migration, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, f := range files {
		number, name, ok := strings.Cut(strings.TrimSuffix(path.Base(f), ".sql"), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil || !ok {
			return nil, fmt.Errorf("the name of the migration %s is not NUMBER_NAME.sql", f)
		}
		all = append(all, Migration{Version: version, Name: strings.ReplaceAll(name, "_", " ")})
	}
	return all, nil
}

// appliedTo returns the version that a database is at, 0 for none.
func appliedTo(ctx context.Context, o Options) (has int64, err error) {
	file, err := located(o.Path)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	use, err := share(ctx, file)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, use.end()) }()
	db, err := openPool(ctx, file, 1, readerPragmas())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := ours(ctx, db); err != nil {
		return 0, err
	}
	return versionOf(ctx, db)
}

// appliedToPostgres is appliedTo for PostgreSQL.
func appliedToPostgres(ctx context.Context, o Options) (has int64, err error) {
	cfg, _, err := parsePostgres(o.URL)
	if err != nil {
		return 0, err
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	return versionIn(ctx, db, true)
}

// versionOf returns the version that a SQLite database is at.
func versionOf(ctx context.Context, db *sql.DB) (int64, error) { return versionIn(ctx, db, false) }

// versionIn reads the version of a database from the table that goose keeps.
func versionIn(ctx context.Context, db *sql.DB, postgres bool) (version int64, err error) {
	there, err := hasTable(ctx, db, postgres, "goose_db_version")
	if err != nil || !there {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&version)
	return version, err
}
