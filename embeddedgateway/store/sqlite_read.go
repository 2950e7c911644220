package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
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
	order []int // which argument each of its places is
	args  []driver.NamedValue
	row   []driver.Value
}

// place is an argument in a statement.
var place = regexp.MustCompile(`\$[0-9]+`)

// prepareRow prepares a statement. Its arguments become places without a name: to
// look a name up, for each of them in each run, is a good part of what a short
// statement costs.
func prepareRow(ctx context.Context, conn any, q string) (*rowStmt, error) {
	preparer, ok := conn.(driver.ConnPrepareContext)
	if !ok {
		return nil, fmt.Errorf("store: a connection is %T", conn)
	}
	s := &rowStmt{}
	q = place.ReplaceAllStringFunc(q, func(name string) string {
		n, _ := strconv.Atoi(name[1:])
		s.order = append(s.order, n-1)
		return "?"
	})
	s.args = make([]driver.NamedValue, len(s.order))
	var err error
	s.Stmt, err = preparer.PrepareContext(ctx, q)
	return s, err
}

// bind puts the arguments where they belong.
func (s *rowStmt) bind(args []any) error {
	for i, n := range s.order {
		if n >= len(args) {
			return fmt.Errorf("store: a statement wants argument %d of %d", n+1, len(args))
		}
		v, err := driver.DefaultParameterConverter.ConvertValue(args[n])
		if err != nil {
			return err
		}
		s.args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return nil
}

// exec runs the statement.
func (s *rowStmt) exec(ctx context.Context, args []any) (driver.Result, error) {
	stmt, ok := s.Stmt.(driver.StmtExecContext)
	if !ok {
		return nil, fmt.Errorf("store: a statement is %T", s.Stmt)
	}
	if err := s.bind(args); err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, s.args)
}

// get runs the statement and scans its first row. No row is [sql.ErrNoRows].
func (s *rowStmt) get(ctx context.Context, args, dest []any) error {
	found := false
	err := s.each(ctx, args, func() (scan []any, more bool) {
		found = true
		return dest, false
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
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
	return r.use(ctx, q, func(s *rowStmt) error { return s.get(ctx, args, dest) })
}

// each runs a statement. For each row next says where to scan it to, and whether
// the one behind it is wanted.
func (r *rowReader) each(ctx context.Context, q string, args []any, next func() (dest []any, more bool)) error {
	return r.use(ctx, q, func(s *rowStmt) error { return s.each(ctx, args, next) })
}

// use calls f with a statement that nobody else uses meanwhile.
func (r *rowReader) use(ctx context.Context, q string, f func(*rowStmt) error) error {
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
		if s, err = prepareRow(ctx, c.conn, q); err != nil {
			return err
		}
		c.stmts[q] = s
	}
	return f(s)
}

func (s *rowStmt) each(ctx context.Context, args []any, next func() (dest []any, more bool)) (err error) {
	stmt, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return fmt.Errorf("store: a statement is %T", s.Stmt)
	}
	if err := s.bind(args); err != nil {
		return err
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
		if err := assignAll(dest, s.row); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// assignAll puts the values of a row where they belong.
func assignAll[V any](dest []any, row []V) error {
	if len(dest) != len(row) {
		return fmt.Errorf("store: %d columns for %d values", len(row), len(dest))
	}
	for i, v := range row {
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
