package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// rowReader reads single rows from SQLite past database/sql, whose pool, rows and
// conversions cost more than SQLite itself takes to find a row: every request
// that is authenticated makes one or more of these reads. Each sees what was
// committed before it began, as those of the pool do.
type rowReader struct {
	free   chan *rowConn // those that nobody uses
	size   int
	closed chan struct{}
}

// rowConn is a connection, for one goroutine at a time.
type rowConn struct {
	conn  driver.Conn
	stmts map[string]*rowStmt
}

// rowStmt is a prepared statement, and room for its arguments and a row.
type rowStmt struct {
	driver.Stmt
	args []driver.NamedValue
	row  []driver.Value
}

// newRowReader opens connections of a driver.
func newRowReader(d driver.Driver, dsn string, size int) (*rowReader, error) {
	r := &rowReader{free: make(chan *rowConn, size), closed: make(chan struct{})}
	for range size {
		conn, err := d.Open(dsn)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.free <- &rowConn{conn: conn, stmts: map[string]*rowStmt{}}
		r.size++
	}
	return r, nil
}

// close closes the connections when those who read are done. It is called once.
func (r *rowReader) close() error {
	close(r.closed)
	var errs []error
	for range r.size {
		c := <-r.free
		for _, s := range c.stmts {
			errs = append(errs, s.Close())
		}
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}

// get runs a statement and scans its first row. No row is [sql.ErrNoRows].
func (r *rowReader) get(ctx context.Context, q string, args, dest []any) error {
	var c *rowConn
	select {
	case c = <-r.free:
	case <-r.closed:
		return ErrClosed
	}
	defer func() { r.free <- c }()
	s := c.stmts[q]
	if s == nil {
		var err error
		if s, err = c.prepare(ctx, q, len(args), len(dest)); err != nil {
			return err
		}
	}
	return s.get(ctx, args, dest)
}

func (c *rowConn) prepare(ctx context.Context, q string, args, columns int) (*rowStmt, error) {
	conn, ok := c.conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, fmt.Errorf("store: a connection is %T", c.conn)
	}
	stmt, err := conn.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	s := &rowStmt{stmt, make([]driver.NamedValue, args), make([]driver.Value, columns)}
	c.stmts[q] = s
	return s, nil
}

func (s *rowStmt) get(ctx context.Context, args, dest []any) (err error) {
	stmt, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok || len(args) != len(s.args) || len(dest) != len(s.row) {
		return fmt.Errorf("store: a statement of %d arguments and %d columns got %d and %d", len(s.args), len(s.row), len(args), len(dest))
	}
	for i, a := range args {
		s.args[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	rows, err := stmt.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	switch err := rows.Next(s.row); {
	case errors.Is(err, io.EOF):
		return sql.ErrNoRows
	case err != nil:
		return err
	}
	for i, v := range s.row {
		if err := assign(dest[i], v); err != nil {
			return err
		}
	}
	return nil
}

// assign puts a value of a row where [sql.Row.Scan] would.
func assign(dest any, v driver.Value) error {
	switch dest := dest.(type) {
	case sql.Scanner:
		return dest.Scan(v)
	case *string:
		if s, ok := v.(string); ok {
			*dest = s
			return nil
		}
	case *int64:
		if n, ok := v.(int64); ok {
			*dest = n
			return nil
		}
	case *int:
		if n, ok := v.(int64); ok {
			*dest = int(n)
			return nil
		}
	case *[]byte:
		if b, ok := v.([]byte); ok {
			*dest = b
			return nil
		}
	}
	return fmt.Errorf("store: a %T does not go into a %T", v, dest)
}
