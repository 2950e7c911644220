package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"

	"github.com/pressly/goose/v3"
)

// looksAtOnce is how often a migration looks for its turn between two rests.
const looksAtOnce = 32

// migrateSQLite brings the tables of a file up to date while others write to it.
func migrateSQLite(ctx context.Context, d driver.Driver, path string, log *slog.Logger) (err error) {
	db := sql.OpenDB(migrationDriver{d, dsnOf(path, writerPragmas())})
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	return migrator{goose.DialectSQLite3, sqliteWords(), log}.up(ctx, db)
}

// migrationDriver is the driver of SQLite with another wait for a transaction.
// The driver's own looks ten times a second, while a gateway that is busy leaves
// the database alone for two milliseconds of a hundred, and other writers for
// some microseconds only.
type migrationDriver struct {
	sqlite driver.Driver
	dsn    string
}

func (d migrationDriver) Driver() driver.Driver { return d.sqlite }

func (d migrationDriver) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := d.sqlite.Open(d.dsn)
	if err != nil {
		return nil, err
	}
	conn := opened.(sqliteConn)
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 0", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return migrationConn{conn}, nil
}

// sqliteConn is what a migration uses of the driver's connection.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
}

type migrationConn struct{ sqliteConn }

// BeginTx implements [driver.ConnBeginTx].
func (c migrationConn) BeginTx(ctx context.Context, o driver.TxOptions) (tx driver.Tx, err error) {
	err = untilFree(ctx, lockTimeout, func() (err error) {
		for range looksAtOnce {
			if tx, err = c.sqliteConn.BeginTx(ctx, o); !isBusy(err) {
				break
			}
		}
		return err
	})
	return tx, err
}
