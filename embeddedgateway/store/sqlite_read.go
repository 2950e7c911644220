package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// rowReader reads from SQLite past database/sql, whose pool, rows and
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
	found := false
	err := r.each(ctx, q, args, func() (scan []any, more bool) {
		found = true
		return dest, false
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// each runs a statement. For each row next says where to scan it to, and whether
// the one behind it is wanted.
func (r *rowReader) each(ctx context.Context, q string, args []any, next func() (dest []any, more bool)) error {
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
		if s, err = c.prepare(ctx, q); err != nil {
			return err
		}
	}
	return s.each(ctx, args, next)
}

func (c *rowConn) prepare(ctx context.Context, q string) (*rowStmt, error) {
	conn, ok := c.conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, fmt.Errorf("store: a connection is %T", c.conn)
	}
	stmt, err := conn.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	s := &rowStmt{Stmt: stmt}
	c.stmts[q] = s
	return s, nil
}

func (s *rowStmt) each(ctx context.Context, args []any, next func() (dest []any, more bool)) (err error) {
	stmt, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return fmt.Errorf("store: a statement is %T", s.Stmt)
	}
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	rows, err := stmt.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		dest, more := next()
		if len(dest) != len(s.row) {
			return fmt.Errorf("store: %d columns for %d values", len(s.row), len(dest))
		}
		for i, v := range s.row {
			if err := assign(dest[i], v); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
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
