package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/pressly/goose/v3"
)

// dialect is everything that differs between databases. All the statements of
// this package are the same for each: $1 for arguments, ON CONFLICT, RETURNING,
// integers for times and truth, JSON as text.
type dialect interface {
	// tx is [Store.Tx].
	tx(ctx context.Context, fn func(*Tx) error) error
	// each is [Store.TxEach].
	each(ctx context.Context, fn func(*Tx) error) error
	// passing is [Store.TxPassing].
	passing(ctx context.Context, fn func(*Tx) error) error
	// eachPassing is [Store.TxEachPassing].
	eachPassing(ctx context.Context, fn func(*Tx) error) error
	// persist does something that only reads, and does it again as long as it
	// says that its error may pass.
	persist(ctx context.Context, do func() (again bool, err error)) error
	// passes reports whether an error of a read may pass.
	passes(err error) bool
	// reader is a pool for statements that only read. It sees what was
	// committed before the statement began.
	reader() *sql.DB
	// explain puts what can be done about it into an error of the driver.
	explain(err error) error
	close() error
}

// migrator applies the migrations.
type migrator struct {
	dialect goose.Dialect
	words   *strings.Replacer
	log     *slog.Logger
}

// up brings the tables up to date. The caller sees to it that nobody else does
// so at the same time. It refuses a database of a newer version.
func (m migrator) up(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(m.dialect, db, ddl{files, m.words},
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(m.log))
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if err := newer(has, knows); err != nil {
		return err
	}
	done, err := p.Up(ctx)
	if err != nil {
		return err
	}
	if len(done) > 0 {
		m.log.InfoContext(ctx, "database migrated", "from", has, "to", knows)
	}
	return nil
}

// querier is what a Tx needs of a database.
type querier interface {
	// execute runs a statement and returns how many rows it changed.
	execute(ctx context.Context, q string, args []any) (int64, error)
	// row runs a statement and scans its first row. No row is [sql.ErrNoRows].
	row(ctx context.Context, q string, args, dest []any) error
	// insert runs a statement that inserts one row or none, and returns its id. No
	// row is [sql.ErrNoRows].
	insert(ctx context.Context, q string, args []any) (id int64, err error)
}

// sqlTx is the querier of database/sql.
type sqlTx struct{ *sql.Tx }

func (t sqlTx) execute(ctx context.Context, q string, args []any) (int64, error) {
	r, err := t.ExecContext(ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t sqlTx) row(ctx context.Context, q string, args, dest []any) error {
	return t.QueryRowContext(ctx, q, args...).Scan(dest...)
}

func (t sqlTx) insert(ctx context.Context, q string, args []any) (id int64, err error) {
	err = t.row(ctx, q+" RETURNING id", args, []any{&id})
	return id, err
}

//go:embed migrations/*.sql
var migrations embed.FS

// ddl is the migrations spelled for one database. (goose can replace words
// too, but takes them from the environment of the process.)
type ddl struct {
	fs.FS
	words *strings.Replacer
}

// Open implements [fs.FS].
func (d ddl) Open(name string) (fs.File, error) {
	f, err := d.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	text, err := fs.ReadFile(d.FS, name)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return spelled{f, strings.NewReader(d.words.Replace(string(text)))}, nil
}

// spelled is a file of a ddl.
type spelled struct {
	fs.File
	text *strings.Reader
}

// Read implements [fs.File].
func (s spelled) Read(b []byte) (int, error) { return s.text.Read(b) }

// checkText returns [ErrText] for arguments that not every database can keep.
// PostgreSQL would refuse them; SQLite would keep them, and give back something
// else to some readers.
func checkText(args []any) error {
	for _, a := range args {
		if s, ok := a.(string); ok && !validText(s) {
			return ErrText
		}
	}
	return nil
}

func validText(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// micros is how a time is kept: microseconds since 1970, 0 for never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// stamp scans what micros made.
type stamp struct{ to *time.Time }

// Scan implements [sql.Scanner].
func (s stamp) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("store: a time is kept as %T", v)
	}
	*s.to = fromMicros(n)
	return nil
}

// truth scans 0 or 1.
type truth struct{ to *bool }

// Scan implements [sql.Scanner].
func (t truth) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("store: a truth is kept as %T", v)
	}
	*t.to = n == 1
	return nil
}

// digest scans a hash.
type digest struct{ to *[32]byte }

// Scan implements [sql.Scanner].
func (d digest) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(d.to) {
		return fmt.Errorf("store: a hash is kept as %T of another size", v)
	}
	copy(d.to[:], b)
	return nil
}

// pairs keeps a map as JSON.
type pairs struct{ to *map[string]string }

// Value implements [driver.Valuer].
func (p pairs) Value() (driver.Value, error) {
	if len(*p.to) == 0 {
		return "", nil
	}
	for k, v := range *p.to {
		if !validText(k) || !validText(v) {
			return nil, ErrText
		}
	}
	b := make([]byte, 0, 512)
	for i, k := range slices.Sorted(maps.Keys(*p.to)) {
		b = append(b, "{,"[min(i, 1)])
		b = append(jsonText(b, k), ':')
		b = jsonText(b, (*p.to)[k])
	}
	return string(append(b, '}')), nil
}

// jsonText appends valid text as JSON. encoding/json takes three times as long.
func jsonText(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, text)
	return b
}

// Scan implements [sql.Scanner].
func (p pairs) Scan(v any) error {
	// Without a backslash the words stand there as they are, between quotes.
	s, ok := v.(string)
	if !ok || len(s) < 4 || s[:2] != `{"` || s[len(s)-2:] != `"}` || strings.Contains(s, `\`) {
		return scanJSON(v, p.to)
	}
	words := strings.Split(s[1:len(s)-1], `"`) // each other one is between the quotes
	m := make(map[string]string, len(words)/4)
	for i := 1; i+2 < len(words); i += 4 {
		if words[i+1] != ":" || i > 1 && words[i-1] != "," {
			return scanJSON(v, p.to)
		}
		m[words[i]] = words[i+2]
	}
	if len(words)%4 != 1 {
		return scanJSON(v, p.to)
	}
	*p.to = m
	return nil
}

// list keeps a list of words as JSON.
type list struct{ to *[]string }

// Value implements [driver.Valuer].
func (l list) Value() (driver.Value, error) {
	if len(*l.to) == 0 {
		return "", nil
	}
	for _, s := range *l.to {
		if !validText(s) {
			return nil, ErrText
		}
	}
	b := []byte{}
	for i, s := range *l.to {
		b = jsonText(append(b, "[,"[min(i, 1)]), s)
	}
	return string(append(b, ']')), nil
}

// Scan implements [sql.Scanner].
func (l list) Scan(v any) error {
	// Without a backslash the words stand there as they are, and every request
	// reads some.
	if s, ok := v.(string); ok && len(s) > 4 && s[:2] == `["` && s[len(s)-2:] == `"]` && !strings.Contains(s, `\`) {
		*l.to = strings.Split(s[2:len(s)-2], `","`)
		return nil
	}
	return scanJSON(v, l.to)
}

func scanJSON[T any](v any, to *T) error {
	var zero T
	*to = zero
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("store: JSON is kept as %T", v)
	}
	if s == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(s), to); err != nil {
		return fmt.Errorf("store: what is kept as JSON is not: %w", err)
	}
	return nil
}
