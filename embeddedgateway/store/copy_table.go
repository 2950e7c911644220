package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"
)

const (
	// copyRowsAtOnce is how many rows are copied in a transaction at most, and
	// copyArguments how many values: SQLite takes 32,766.
	copyRowsAtOnce = 500
	copyArguments  = 32_000
	// beforeAll is an id before all others.
	beforeAll = math.MinInt64
)

// table is a table that both databases have.
type table struct {
	name    string
	columns []string // "id" is the first, the others are sorted
	kinds   []kind   // of the columns
}

// kind is what a column holds.
type kind int

const (
	holdsNumbers kind = iota
	holdsText
	holdsBytes
)

// kindOf tells what a column holds from the name that the driver has for that.
func kindOf(database string) (kind, bool) {
	switch strings.ToUpper(database) {
	case "INTEGER", "BIGINT", "INT8":
		return holdsNumbers, true
	case "TEXT":
		return holdsText, true
	case "BLOB", "BYTEA":
		return holdsBytes, true
	}
	return 0, false
}

// matchTables returns the tables to copy. It refuses databases that do not have
// the same, and one that has any besides.
func matchTables(ctx context.Context, from, to *end) (tables []table, err error) {
	for _, e := range []*end{from, to} {
		all, err := e.tables(ctx)
		if err != nil {
			return nil, e.explain(err)
		}
		for _, name := range all {
			if !slices.Contains(copiedTables(), name) && name != progressTable && name != changesTable && name != "goose_db_version" {
				return nil, e.explain(fmt.Errorf("it has a table that is not Enlist's: %s", name))
			}
		}
	}
	for _, name := range copiedTables() {
		a, err := describe(ctx, from, name)
		if err != nil {
			return nil, from.explain(err)
		}
		b, err := describe(ctx, to, name)
		if err != nil {
			return nil, to.explain(err)
		}
		if !slices.Equal(a.columns, b.columns) || !slices.Equal(a.kinds, b.kinds) {
			return nil, fmt.Errorf("the table %s is not the same in both databases: %v and %v", name, a.columns, b.columns)
		}
		tables = append(tables, a)
	}
	return tables, nil
}

// describe reads what columns a table has.
func describe(ctx context.Context, e *end, name string) (table, error) {
	t := table{name: name}
	rows, err := e.q.QueryContext(ctx, "SELECT * FROM "+name+" WHERE 1 = 0")
	if err != nil {
		return t, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return t, err
	}
	slices.SortFunc(types, func(a, b *sql.ColumnType) int {
		if a.Name() == "id" || b.Name() == "id" {
			return strings.Compare(strings.TrimPrefix(a.Name(), "id"), strings.TrimPrefix(b.Name(), "id"))
		}
		return strings.Compare(a.Name(), b.Name())
	})
	for _, c := range types {
		k, known := kindOf(c.DatabaseTypeName())
		if !known {
			return t, fmt.Errorf("the column %s of %s is of a type that is not copied: %s", c.Name(), name, c.DatabaseTypeName())
		}
		t.columns, t.kinds = append(t.columns, c.Name()), append(t.kinds, k)
	}
	if len(t.columns) == 0 || t.columns[0] != "id" {
		return t, fmt.Errorf("the table %s has no id", name)
	}
	return t, rows.Err()
}

// row is where a row of the table is scanned to.
func (t table) row() []any {
	row := make([]any, len(t.kinds))
	for i, k := range t.kinds {
		switch k {
		case holdsNumbers:
			row[i] = new(int64)
		case holdsText:
			row[i] = new(string)
		case holdsBytes:
			row[i] = new([]byte)
		}
	}
	return row
}

// selected is the statement that reads the table, without its condition.
func (t table) selected() string {
	return "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.name
}

// renumbering is the statement of PostgreSQL that has new rows numbered behind
// those that are there. Its argument is the table's name.
func (t table) renumbering() string {
	return "SELECT setval(pg_get_serial_sequence($1, 'id'), (SELECT coalesce(max(id), 0) + 1 FROM " + t.name + "), false)"
}

// copyRows copies what of a table is not copied yet.
func copyRows(ctx context.Context, from, to *end, t table, each func(string, int64)) error {
	var last, done int64
	err := to.q.QueryRowContext(ctx, "SELECT last, done FROM "+progressTable+" WHERE name = $1", t.name).Scan(&last, &done)
	if err != nil {
		return to.explain(err)
	}
	size := min(copyRowsAtOnce, copyArguments/len(t.columns))
	for {
		args, lastRead, err := readBatch(ctx, from, t, last, size)
		if err != nil {
			return from.explain(err)
		}
		n := len(args) / len(t.columns)
		if n == 0 {
			return nil
		}
		last, done = lastRead, done+int64(n)
		err = to.transact(ctx, func(tx *sql.Tx) error {
			if err := t.insert(ctx, tx, args, to.postgres); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "UPDATE "+progressTable+" SET last = $1, done = $2 WHERE name = $3", last, done, t.name)
			return err
		})
		if err != nil {
			return to.explain(err)
		}
		if each != nil {
			each(t.name, done)
		}
	}
}

// readBatch reads the rows behind an id, all their values one after another.
func readBatch(ctx context.Context, from *end, t table, last int64, size int) (args []any, to int64, err error) {
	rows, err := from.q.QueryContext(ctx, t.selected()+" WHERE id > $1 ORDER BY id LIMIT $2", last, int64(size))
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		row := t.row()
		if err := rows.Scan(row...); err != nil {
			return nil, 0, fmt.Errorf("%s behind id %d: %w", t.name, last, err)
		}
		for i, v := range row {
			switch v := v.(type) {
			case *int64:
				args = append(args, *v)
			case *string:
				if !validText(*v) {
					return nil, 0, fmt.Errorf("%s of %s with id %d: %w", t.columns[i], t.name, *row[0].(*int64), ErrText)
				}
				args = append(args, *v)
			case *[]byte:
				args = append(args, append([]byte{}, *v...)) // never nil, which would be NULL
			}
		}
		last = *row[0].(*int64)
	}
	return args, last, rows.Err()
}

// insert writes rows: all in one statement where each costs a round trip, else
// one by one, by a statement that is parsed once.
func (t table) insert(ctx context.Context, tx *sql.Tx, args []any, together bool) error {
	if together {
		_, err := tx.ExecContext(ctx, t.insertion(len(args)/len(t.columns)), args...)
		return err
	}
	one, err := tx.PrepareContext(ctx, t.insertion(1))
	if err != nil {
		return err
	}
	for row := range slices.Chunk(args, len(t.columns)) {
		if _, err := one.ExecContext(ctx, row...); err != nil {
			return errors.Join(err, one.Close())
		}
	}
	return one.Close()
}

// insertion is the statement that writes so many rows.
func (t table) insertion(rows int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + t.name + " (" + strings.Join(t.columns, ", ") + ") VALUES ")
	for i := range rows {
		for j := range t.columns {
			switch {
			case j > 0:
				b.WriteString(", ")
			case i > 0:
				b.WriteString("), (")
			default:
				b.WriteString("(")
			}
			fmt.Fprintf(&b, "$%d", i*len(t.columns)+j+1)
		}
	}
	b.WriteString(")")
	return b.String()
}

// sum is the checksum of rows in any order: those of the single rows, added.
type sum struct {
	rows int64
	of   [4]uint64
}

// String implements [fmt.Stringer].
func (s sum) String() string {
	var b []byte
	for _, n := range s.of {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return hex.EncodeToString(b)
}

// sumOf reads a whole table.
func sumOf(ctx context.Context, e *end, t table) (s sum, err error) {
	rows, err := e.q.QueryContext(ctx, t.selected())
	if err != nil {
		return s, e.explain(err)
	}
	defer rows.Close()
	row, h := t.row(), sha256.New()
	for rows.Next() {
		if err := rows.Scan(row...); err != nil {
			return s, e.explain(err)
		}
		h.Reset()
		for i, v := range row {
			addValue(h, t.columns[i], v)
		}
		one := h.Sum(nil)
		for i := range s.of {
			s.of[i] += binary.BigEndian.Uint64(one[8*i:])
		}
		s.rows++
	}
	return s, e.explain(errors.Join(rows.Err(), rows.Close()))
}

// addValue adds a value to the checksum of its row, so that it is told from
// every other value of every other column.
func addValue(h hash.Hash, column string, v any) {
	write := func(b []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = h.Write(b)
	}
	write([]byte(column))
	switch v := v.(type) {
	case *int64:
		write(binary.BigEndian.AppendUint64(nil, uint64(*v))) //nolint:gosec // bits, not a quantity
	case *string:
		write([]byte(*v))
	case *[]byte:
		write(*v)
	}
}
