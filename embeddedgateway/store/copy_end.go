package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// copyLock is the advisory lock of a copy from or into a database of PostgreSQL
// ("ENLC").
const copyLock = 1162759235

// leaveTime is how long a server may take to notice that a connection was closed.
const leaveTime = 2 * time.Second

// asking is what statements are run on.
type asking interface {
	QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

// end is one of the two databases of a copy, which nobody else has open.
type end struct {
	db       *sql.DB
	q        asking // the connection, or the transaction that all is read in
	postgres bool
	explain  func(error) error // says which database it was
	undo     []func() error    // what closes it, the last first
}

func (e *end) close() error {
	var errs []error
	for i := len(e.undo) - 1; i >= 0; i-- {
		errs = append(errs, e.undo[i]())
	}
	return errors.Join(errs...)
}

// transact runs fn in a transaction. One that has begun to commit is not broken
// off.
func (e *end) transact(ctx context.Context, fn func(*sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tx, err := e.db.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // when it is committed, this does nothing
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// openSource opens the database that is copied, for one transaction that reads.
func openSource(ctx context.Context, o Options) (_ *end, err error) {
	if o.URL == "" {
		if _, err := os.Stat(o.Path); err != nil {
			return nil, err
		}
	}
	list, err := Migrations(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if !m.Applied {
			return nil, errors.New("its tables are not those of this version: back it up, and run enlist gateway migrate on it")
		}
	}
	e, err := openEnd(ctx, o, readerPragmas())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if there, err := e.has(ctx, progressTable); err != nil || there {
		return nil, e.explain(errors.Join(err, ErrUnfinished))
	}
	if !e.postgres {
		return e, nil // nobody else writes
	}
	tx, err := e.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, e.explain(err)
	}
	e.q = tx
	e.undo = append(e.undo, tx.Rollback)
	return e, nil
}

// openTarget opens the database that is copied into, and makes its tables.
func openTarget(ctx context.Context, o Options) (*end, error) {
	o.copies = true
	if _, err := Migrate(ctx, o); err != nil {
		return nil, err
	}
	return openEnd(ctx, o, []pragma{
		{"busy_timeout", "5000", "5000"},
		{"journal_mode", "WAL", "wal"},
		{"synchronous", "FULL", "2"},
		{"fullfsync", "1", "1"},
		{"foreign_keys", "1", "1"},
		{"cache_size", "-65536", ""},
	})
}

func openEnd(ctx context.Context, o Options, pragmas []pragma) (*end, error) {
	if o.URL != "" {
		return openPostgresEnd(ctx, o)
	}
	path, err := located(o.Path)
	if err != nil {
		return nil, err
	}
	e := &end{explain: func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("database %s: %w", path, advise(err))
	}}
	use, err := exclude(path)
	if err != nil {
		return nil, e.explain(err)
	}
	e.undo = append(e.undo, use.end)
	if e.db, err = openPool(ctx, path, 1, pragmas); err != nil {
		return nil, e.explain(errors.Join(err, e.close()))
	}
	e.undo = append(e.undo, e.db.Close)
	e.q = e.db
	return e, nil
}

func openPostgresEnd(ctx context.Context, o Options) (_ *end, err error) {
	cfg, _, err := parsePostgres(o.URL)
	if err != nil {
		return nil, err
	}
	named := &postgresDB{name: nameOf(cfg)}
	e := &end{postgres: true, explain: named.explain}
	cfg.RuntimeParams["application_name"] = "enlist-copy"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(copyTime.Milliseconds(), 10)
	e.db = stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(durable))
	e.undo = append(e.undo, e.db.Close)
	e.q = e.db
	defer func() {
		if err != nil {
			err = errors.Join(e.explain(err), e.close())
		}
	}()
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	e.undo = append(e.undo, conn.Close)
	return e, excludePostgres(ctx, conn)
}

// excludePostgres keeps gateways from opening a database of PostgreSQL for as
// long as a connection lasts. It is [ErrInUse] if one has it open: it looks for
// the connections of the same user, too, because a gateway holds no lock, which
// it would lose whenever the server restarts.
func excludePostgres(ctx context.Context, conn *sql.Conn) error {
	late := time.NewTimer(leaveTime)
	defer late.Stop()
	for got := false; ; {
		if !got {
			err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", copyLock).Scan(&got)
			if err != nil {
				return err
			}
		}
		var n int
		err := conn.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()
				AND (usename = current_user OR application_name = 'enlist')`).Scan(&n)
		if err != nil || got && n == 0 {
			return err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("it has %d other connections of its user: %w", n, ErrInUse)
		}
	}
}

// admitPostgres reports why a gateway may not open a database of PostgreSQL now.
func admitPostgres(ctx context.Context, pool *sql.DB) (err error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var free bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock_shared($1)", copyLock).Scan(&free); err != nil {
		return err
	}
	if !free {
		return errors.New("it is being copied: try again when that is done")
	}
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock_shared($1)", copyLock); err != nil {
		return err
	}
	return ownSessions(ctx, conn, pool)
}

// ownSessions reports if two connections are one session of the server, as with a
// pooler that lends them for a transaction each. What is prepared in one, and
// locked for its time, would be another's.
func ownSessions(ctx context.Context, conn *sql.Conn, pool *sql.DB) error {
	const who = "SELECT pg_backend_pid()"
	var one, other int64
	if err := conn.QueryRowContext(ctx, who).Scan(&one); err != nil {
		return err
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	if err := tx.QueryRowContext(ctx, who).Scan(&other); err != nil {
		return err
	}
	if one == other && one > 0 {
		return errPooler
	}
	return nil
}

// nameOf is a database in errors: without user and password.
func nameOf(cfg *pgx.ConnConfig) string {
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database
}

// listTables is a statement for the tables of a database.
func listTables(postgres bool) string {
	if postgres {
		return "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema() ORDER BY 1"
	}
	return `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY 1`
}

func (e *end) tables(ctx context.Context) (names []string, err error) {
	return tablesOf(ctx, e.q, e.postgres)
}

func (e *end) has(ctx context.Context, table string) (bool, error) {
	return hasTable(ctx, e.q, e.postgres, table)
}

func tablesOf(ctx context.Context, q asking, postgres bool) (names []string, err error) {
	rows, err := q.QueryContext(ctx, listTables(postgres))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

func hasTable(ctx context.Context, q asking, postgres bool, table string) (bool, error) {
	names, err := tablesOf(ctx, q, postgres)
	for _, name := range names {
		if name == table {
			return true, err
		}
	}
	return false, err
}

// mark returns what tells the database from others, nil if it has nothing.
func (e *end) mark(ctx context.Context, kind string) (mark []byte, err error) {
	err = e.q.QueryRowContext(ctx, "SELECT data FROM sealed WHERE kind = $1 ORDER BY id LIMIT 1", kind).Scan(&mark)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return mark, e.explain(err)
}

// admit refuses a database that a copy has not filled yet, or is at.
func (s *Store) admit(ctx context.Context, o Options) error {
	if o.copies {
		return nil
	}
	postgres := o.URL != ""
	if postgres {
		if err := admitPostgres(ctx, s.db.reader()); err != nil {
			return s.db.explain(err)
		}
	}
	unfinished, err := hasTable(ctx, s.db.reader(), postgres, progressTable)
	if err == nil && unfinished {
		return ErrUnfinished
	}
	return s.db.explain(err)
}
