package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// openShares makes the pool of the reads that requests share. It has one connection:
// what one says of what is kept means nothing to another.
func (db *postgresDB) openShares(cfg *pgx.ConnConfig) {
	db.shares = stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		if err := planOnce(ctx, conn); err != nil {
			return err
		}
		return db.watched(ctx, conn)
	}))
	db.shares.SetMaxOpenConns(shareConns)
	db.shares.SetMaxIdleConns(shareConns)
}

// planOnce makes the server keep the plan of a statement. These find rows by an
// index, whatever their arguments are; to plan them anew each time, as the server
// does where it takes that for cheaper, costs as much as to run them. What speaks
// the protocol and has no such setting does as it thinks best.
func planOnce(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan")
	if hasCode(err, "42704", "22023", "0A000") { // unknown, or not with this value, or not at all
		return nil
	}
	return err
}

// statement is one that only reads, for a server that counts changes and for another.
type statement struct{ counting, plain string }

// eachRow gets a row of a statement, and over which connection it came: 0 where the
// server does not count changes.
type eachRow func(conn uint64, fields []pgconn.FieldDescription, row [][]byte) error

// fetch runs a statement that only reads, again if its connection is lost, past
// database/sql and what of the driver is for everybody: it is what most of the work
// for a request is. args are in the format that PostgreSQL calls binary, and so is
// what each gets, of one row and until it returns.
func (db *postgresDB) fetch(ctx context.Context, q statement, args [][]byte, each eachRow) error {
	return db.persist(ctx, func() (again bool, err error) {
		// Whoever asked may go; others wait too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangTime)
		defer cancel()
		conn, err := db.shares.Conn(ctx)
		if err != nil {
			return db.passes(err), err
		}
		defer func() { _ = conn.Close() }()
		err = conn.Raw(func(of any) error {
			c, ok := of.(*stdlib.Conn)
			if !ok {
				return fmt.Errorf("store: a connection is %T", of)
			}
			if err := query(ctx, c.Conn(), q, args, each); err != nil {
				return &unusable{err, connOf(c.Conn().PgConn()) != 0 && hasCode(err, "42P01", "42501")}
			}
			return nil
		})
		if u, ok := errors.AsType[*unusable](err); ok {
			return u.uncounted || db.passes(u.error), u.error
		}
		return db.passes(err), err
	})
}

// query runs a statement on a connection. After an error that is not to be used any
// more.
func query(ctx context.Context, c *pgx.Conn, q statement, args [][]byte, each eachRow) error {
	server := c.PgConn()
	text, conn := q.plain, connOf(server)
	if conn != 0 {
		text = q.counting
	}
	prepared, err := c.Prepare(ctx, text, text)
	if err != nil {
		return err
	}
	compact := []int16{pgtype.BinaryFormatCode}
	result := server.ExecStatement(ctx, prepared, args, compact, compact)
	for result.NextRow() && err == nil {
		err = each(conn, result.FieldDescriptions(), result.Values())
	}
	_, ended := result.Close()
	return errors.Join(err, ended)
}

// unusable is an error after which a connection is not used again: its server may
// not be the one that writes any more, or have other tables than those that a
// statement was prepared for.
type unusable struct {
	error

	uncounted bool // the table with the count may not be there, or not be read, any more
}

// Is implements the interface of [errors.Is].
func (*unusable) Is(target error) bool { return target == driver.ErrBadConn }

// values returns the values of a row.
func values(fields []pgconn.FieldDescription, raw [][]byte) ([]any, error) {
	row := make([]any, len(raw))
	for i, v := range raw {
		switch t := fields[i].DataTypeOID; {
		case (t == pgtype.TextOID || t == pgtype.VarcharOID) && v != nil:
			row[i] = string(v)
		case t == pgtype.ByteaOID && v != nil:
			row[i] = bytes.Clone(v)
		case t == pgtype.Int8OID && len(v) == 8:
			row[i] = int64(binary.BigEndian.Uint64(v)) //nolint:gosec // as the server wrote it
		default:
			return nil, fmt.Errorf("store: column %s is of the type %d", fields[i].Name, t)
		}
	}
	return row, nil
}

// arrayOf is a list of one dimension as an argument in the binary format: how many
// dimensions, whether any is NULL, the type, how many and from which index on, and
// each with its length.
func arrayOf[P ~string | ~[]byte](list []P) []byte {
	size, of := 20, pgtype.TextOID
	for _, p := range list {
		size += 4 + len(p)
		if _, ok := any(p).([]byte); ok {
			of = pgtype.ByteaOID
		}
	}
	b := make([]byte, 0, size)
	for _, n := range []int{1, 0, of, len(list), 1} {
		b = binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // a few
	}
	for _, p := range list {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...) //nolint:gosec // a few
	}
	return b
}
