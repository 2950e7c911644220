package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// copiedTables are the tables that [Copy] copies, those before that others refer
// to. Each has a key named id.
func copiedTables() []string {
	return []string{"agents", "agent_terms", "credentials", "tickets", "counters", "events", "sealed", "usages", "leases"}
}

// progressTable says in a database how far a copy into it has come. While it is
// there, no gateway opens the database.
const progressTable = "copy_progress"

// ErrUnfinished means that a copy into a database was begun and not finished.
var ErrUnfinished = errors.New("a copy into this database was broken off: run it again, which finishes it, or use another database")

// Copying says what is to be copied.
type Copying struct {
	From, To Options
	// Mark is the kind of the sealed thing that tells one database from
	// another. Verify gets that of From, nil if it has none, before anything is
	// written, and refuses what must not be copied.
	Mark   string
	Verify func(mark []byte) error
	// Each is told of every batch that is on the disk of To. Nil: nobody is.
	Each func(table string, rows int64)
}

// Copied says what was copied.
type Copied struct {
	Tables  []CopiedTable
	Resumed bool // an earlier copy had begun
}

// CopiedTable is one table, which is the same in both databases.
type CopiedTable struct {
	Name     string
	Rows     int64
	Checksum string // of all rows, in hexadecimal
}

// Copy copies a database into another that is empty, whichever kinds they are:
// every row, with its id. Nobody else may have either open. What it has copied
// stays if it is broken off, and when it is called again it goes on from there.
// At the end it reads both databases and compares them.
func Copy(ctx context.Context, c Copying) (done Copied, err error) {
	for _, o := range []*Options{&c.From, &c.To} {
		if o.Logger == nil {
			o.Logger = slog.New(slog.DiscardHandler)
		}
	}
	if c.From.URL == "" && c.To.URL == "" && sameFile(c.From.Path, c.To.Path) {
		return done, fmt.Errorf("%s is both the source and the target", c.From.Path)
	}
	from, err := openSource(ctx, c.From)
	if err != nil {
		return done, fmt.Errorf("copy from: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	mark, err := from.mark(ctx, c.Mark)
	if err != nil {
		return done, err
	}
	if err := c.Verify(mark); err != nil {
		return done, err
	}
	to, err := openTarget(ctx, c.To)
	if err != nil {
		return done, fmt.Errorf("copy to: %w", err)
	}
	defer func() { err = errors.Join(err, to.close()) }()
	tables, err := matchTables(ctx, from, to)
	if err != nil {
		return done, err
	}
	if done.Resumed, err = beginCopy(ctx, to, tables, fmt.Sprintf("%x", mark)); err != nil {
		return done, to.explain(err)
	}
	for _, t := range tables {
		if err := copyRows(ctx, from, to, t, c.Each); err != nil {
			return done, fmt.Errorf("copy the table %s: %w", t.name, err)
		}
	}
	if done.Tables, err = compareTables(ctx, from, to, tables); err != nil {
		return done, err
	}
	return done, to.explain(finishCopy(ctx, to, tables))
}

// beginCopy prepares the target, or reports that an earlier copy has.
func beginCopy(ctx context.Context, to *end, tables []table, mark string) (resumed bool, err error) {
	there, err := to.has(ctx, progressTable)
	if err != nil {
		return false, err
	}
	if there {
		var other string
		err := to.q.QueryRowContext(ctx, "SELECT source FROM "+progressTable+" LIMIT 1").Scan(&other)
		if err == nil && other != mark {
			err = errors.New("a copy of another database into it was broken off: finish that one, or use another database")
		}
		return true, err
	}
	for _, t := range tables {
		var n int
		if err := to.q.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+t.name+" LIMIT 1) AS first").Scan(&n); err != nil {
			return false, err
		}
		if n > 0 {
			return false, fmt.Errorf("it has data already, in %s: name a database that is empty", t.name)
		}
	}
	return false, to.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "CREATE TABLE "+progressTable+
			" (name TEXT PRIMARY KEY, last BIGINT NOT NULL, done BIGINT NOT NULL, source TEXT NOT NULL)")
		for _, t := range tables {
			if err == nil {
				_, err = tx.ExecContext(ctx, "INSERT INTO "+progressTable+" (name, last, done, source) VALUES ($1, $2, 0, $3)",
					t.name, int64(beforeAll), mark)
			}
		}
		return err
	})
}

// finishCopy has the target give new ids behind those that were copied, and
// lets gateways open it.
func finishCopy(ctx context.Context, to *end, tables []table) error {
	return to.transact(ctx, func(tx *sql.Tx) error {
		for _, t := range tables {
			if !to.postgres { // SQLite looks for the largest itself
				continue
			}
			if _, err := tx.ExecContext(ctx, t.renumbering(), t.name); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "DROP TABLE "+progressTable)
		return err
	})
}

// compareTables reads both databases and reports what differs.
func compareTables(ctx context.Context, from, to *end, tables []table) (list []CopiedTable, err error) {
	var wrong []string
	for _, t := range tables {
		a, err := sumOf(ctx, from, t)
		if err != nil {
			return nil, err
		}
		b, err := sumOf(ctx, to, t)
		if err != nil {
			return nil, err
		}
		if a != b {
			wrong = append(wrong, fmt.Sprintf("%s (%d rows there, %d here)", t.name, a.rows, b.rows))
		}
		list = append(list, CopiedTable{Name: t.name, Rows: a.rows, Checksum: a.String()})
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("the copy is not the same as its source in %s: a gateway wrote to the source after the copy was begun. "+
			"Copy once more, into a database that is empty", strings.Join(wrong, ", "))
	}
	return list, nil
}

// patience of a copy with the statements of a server that is busy.
const copyTime = 10 * time.Minute
