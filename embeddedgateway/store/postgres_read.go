package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// openShares makes the pool of the reads that requests share: one connection for
// each of their kinds, that of credentials being in use nearly always.
func (db *postgresDB) openShares(cfg *pgx.ConnConfig) {
	db.shares = stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(planOnce))
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

// fetch runs a statement that only reads, again if its connection is lost, past
// database/sql. each gets the values of a row, which are its own: numbers as
// int64, texts as string, bytes as []byte.
func (db *postgresDB) fetch(ctx context.Context, q string, args []any, each func(row []any) error) error {
	return db.persist(ctx, func() (again bool, err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangTime)
		defer cancel()
		conn, err := db.shares.Conn(ctx)
		if err != nil {
			return isLost(err), err
		}
		defer func() { release(conn, err) }()
		err = conn.Raw(func(driver any) error {
			c, ok := driver.(*stdlib.Conn)
			if !ok {
				return fmt.Errorf("store: a connection is %T", driver)
			}
			rows, err := c.Conn().Query(ctx, q, args...)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				row, err := values(rows)
				if err != nil {
					return err
				}
				if err := each(row); err != nil {
					return err
				}
			}
			return rows.Err()
		})
		return isLost(err), err
	})
}

// values returns the values of a row.
func values(rows pgx.Rows) ([]any, error) {
	fields, raw := rows.FieldDescriptions(), rows.RawValues()
	row := make([]any, len(raw))
	for i, v := range raw {
		var ok bool
		if row[i], ok = value(&fields[i], v); !ok {
			return rows.Values() // it is text where the URL of the database asks for that
		}
	}
	return row, nil
}

// value reads a value of the three types that there are. ok is false where it is
// not in the format that it is asked for in.
func value(f *pgconn.FieldDescription, raw []byte) (v any, ok bool) {
	compact := f.Format == pgtype.BinaryFormatCode
	switch {
	case f.DataTypeOID == pgtype.TextOID: // the same in both
		return string(raw), raw != nil
	case f.DataTypeOID == pgtype.ByteaOID && compact:
		return bytes.Clone(raw), raw != nil
	case f.DataTypeOID == pgtype.Int8OID && compact && len(raw) == 8:
		return int64(binary.BigEndian.Uint64(raw)), true //nolint:gosec // as the server wrote it
	}
	return nil, false
}
