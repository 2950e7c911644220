package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// migrationLock is the advisory lock of who changes the tables ("ENLS").
const migrationLock = 1162759251

// migrate brings the tables up to date. Of several that start at once, one does
// so and the others wait for it.
func (db *postgresDB) migrate(ctx context.Context, cfg pgx.ConnConfig) (err error) {
	pool := stdlib.OpenDB(cfg)
	defer func() { err = errors.Join(err, pool.Close()) }()
	return db.persist(ctx, func() (again bool, err error) {
		err = db.migrateOnce(ctx, pool)
		return isLost(err), err
	})
}

func (db *postgresDB) migrateOnce(ctx context.Context, pool *sql.DB) (err error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	wait, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if _, err := conn.ExecContext(wait, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return fmt.Errorf("wait for others that change its tables: %w", err)
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock)
		if !isLost(unlock) { // else the lock went with the connection
			err = errors.Join(err, unlock)
		}
	}()
	if err := (migrator{goose.DialectPostgres, postgresWords(), db.log}).up(ctx, pool); err != nil {
		return err
	}
	return conn.Raw(func(of any) error {
		c, ok := of.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("store: a connection is %T", of)
		}
		return db.countOn(ctx, c.Conn())
	})
}
