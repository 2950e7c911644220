package gateway

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver of the journal

	"github.com/enlist-mcp/enlist/credstore"
)

// journal is what Enlist knows of its own doings, in one SQLite database in the
// data folder, journal.db, that every process of the user shares: the operations
// that have not come to an end, and the audit trail. It never holds a secret.
//
// An operation that makes a service issue, replace or end a secret is written
// down before anything is sent (its intent), once the secret is in the store
// (received), and is taken out when it is done (confirmed); each step is durable
// when it returns. So whoever holds the credential's lock and finds an operation
// of it here knows that its process has ended in the middle.
//
// Nothing is opened or made before the first use. Without a folder the journal
// is in memory and ends with the process, as the store does then.
type journal struct {
	path string // "": in memory
	now  func() time.Time
	kept int64 // how many events are kept

	mu sync.Mutex
	db *sql.DB // nil: not open
	// quick is the same database, with commits that outlive the process, but not
	// always the machine: for what is noted after the fact.
	quick  *sql.DB
	opened fs.FileInfo // the file that they have open
	left   []*sql.DB   // what was moved away, and may still be in use
	// fault fails what is about to be written; tests set it.
	fault func(step string) error
}

// Phase is how far an operation has come.
type Phase string

// The phases. A confirmed operation is in the journal no more.
const (
	PhaseIntent   Phase = "intent"   // the service may have been asked
	PhaseReceived Phase = "received" // a secret that it issued is in the store
)

// Unfinished is an operation in the journal that has not come to an end.
type Unfinished struct {
	Key    credstore.Key
	Action Action
	Phase  Phase
	Begun  time.Time
	// Code says how the operation ended that did not come to an end: a code of
	// an [Error]; "": the process ended.
	Code string
}

const (
	journalFile    = "journal.db"
	journalVersion = 1
	// auditKept is how many events are kept, at least; older ones are dropped, a
	// hundredth of that at a time.
	auditKept = 100_000
)

// journalSchema makes the database. Later versions may add to it.
const journalSchema = `
CREATE TABLE operations (
	protocol TEXT NOT NULL,
	origin TEXT NOT NULL,
	agent TEXT NOT NULL,
	kind TEXT NOT NULL,
	label TEXT NOT NULL,
	action TEXT NOT NULL,
	phase TEXT NOT NULL,
	begun_at INTEGER NOT NULL,
	code TEXT NOT NULL,
	PRIMARY KEY (protocol, origin, agent, kind, label)
) STRICT, WITHOUT ROWID;
CREATE TABLE registrations (at INTEGER NOT NULL) STRICT;
CREATE INDEX registrations_at ON registrations (at);
CREATE TABLE events (
	id INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	client TEXT NOT NULL,
	version TEXT NOT NULL,
	action TEXT NOT NULL,
	protocol TEXT NOT NULL,
	origin TEXT NOT NULL,
	agent TEXT NOT NULL,
	kind TEXT NOT NULL,
	label TEXT NOT NULL,
	method TEXT NOT NULL,
	path TEXT NOT NULL,
	status INTEGER NOT NULL,
	outcome TEXT NOT NULL,
	code TEXT NOT NULL,
	token_name TEXT NOT NULL DEFAULT ''
) STRICT;
`

// journalColumns adds what a journal has not that was made before there were
// tokens with names. It stays at its version: those who do not know the column
// leave it out.
const journalColumns = `ALTER TABLE events ADD COLUMN token_name TEXT NOT NULL DEFAULT '';`

func newJournal(home string, now func() time.Time) *journal {
	j := &journal{now: now, kept: auditKept}
	if home != "" {
		j.path = filepath.Join(home, journalFile)
	}
	return j
}

// Close closes the database, if it is open. The journal can be used on.
func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.path == "" {
		return nil
	}
	if j.db != nil {
		j.leave()
	}
	var errs []error
	for _, db := range j.left {
		errs = append(errs, db.Close())
	}
	j.left = nil
	return errors.Join(errs...)
}

// leave has the database opened anew when it is used next.
func (j *journal) leave() {
	j.left = append(j.left, j.quick, j.db)
	j.db, j.quick, j.opened = nil, nil, nil
}

// moved reports whether the file that is open is no longer the journal: a person
// may move it away at any time, and what is written from then on must be where
// other processes look for it.
func (j *journal) moved() bool {
	if j.path == "" {
		return false
	}
	stat, err := os.Stat(j.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(stat, j.opened)
}

// empty reports whether there is nothing to read, without opening anything.
func (j *journal) empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.path == "" {
		return j.db == nil
	}
	_, err := os.Stat(j.path)
	return errors.Is(err, fs.ErrNotExist)
}

// open opens the database, which is made at the first use.
func (j *journal) open(ctx context.Context) (db, quick *sql.DB, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.db != nil && !j.moved() {
		return j.db, j.quick, nil
	}
	if j.db != nil {
		j.leave()
	}
	var opened fs.FileInfo
	if j.path != "" {
		if opened, err = touch(j.path); err != nil {
			return nil, nil, j.problem(err)
		}
	}
	if db, err = sql.Open("sqlite", j.dsn("FULL")); err != nil {
		return nil, nil, j.problem(err)
	}
	db.SetMaxOpenConns(1)
	if err = credstore.Patiently(ctx, func() error { return prepareJournal(ctx, db) }); err != nil {
		_ = db.Close()
		return nil, nil, j.problem(err)
	}
	quick = db
	if j.path != "" {
		if quick, err = sql.Open("sqlite", j.dsn("NORMAL")); err != nil {
			_ = db.Close()
			return nil, nil, j.problem(err)
		}
		quick.SetMaxOpenConns(1)
	}
	j.db, j.quick, j.opened = db, quick, opened
	return db, quick, nil
}

// touch makes an empty file that only the user can read, unless there is one, and
// returns which it is. SQLite gives the files beside it the same mode.
func touch(path string) (fs.FileInfo, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	return stat, errors.Join(err, f.Close())
}

// dsn is the name of the database for the driver: many processes, and commits
// that are as durable as SQLite's setting for that says.
func (j *journal) dsn(synchronous string) string {
	if j.path == "" {
		return ":memory:"
	}
	path := filepath.ToSlash(j.path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: fmt.Sprintf("_txlock=immediate&_dqs=0&_pragma=busy_timeout(%d)", credstore.BusyMillis) +
		"&_pragma=journal_mode(WAL)&_pragma=trusted_schema(0)&_pragma=synchronous(" + synchronous + ")"}
	return u.String()
}

// errJournalNewer: the journal is of a later version.
var errJournalNewer = errors.New("the journal was written by a later version")

// prepareJournal makes the tables, or adds what they have not, unless another
// process was faster.
func prepareJournal(ctx context.Context, db *sql.DB) error {
	missing, err := journalMissing(ctx, db)
	if err != nil || missing == "" {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if missing, err = journalMissing(ctx, tx); err != nil || missing == "" {
		return err
	}
	if _, err := tx.ExecContext(ctx, missing); err != nil {
		return err
	}
	return tx.Commit()
}

// journalMissing returns the statements that make the journal what this version
// needs; "": it is.
func journalMissing(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
},
) (string, error) {
	var version int
	if err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return "", err
	}
	switch {
	case version > journalVersion:
		return "", errJournalNewer
	case version < journalVersion:
		return journalSchema + fmt.Sprintf("PRAGMA user_version = %d;", journalVersion), nil
	}
	var there int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM pragma_table_info('events') WHERE name = 'token_name'`).Scan(&there)
	if err != nil || there > 0 {
		return "", err
	}
	return journalColumns, nil
}

// problem returns the error for a journal that cannot be used, with the remedy.
func (j *journal) problem(err error) error {
	if err == nil {
		return nil
	}
	var known *credstore.Error
	if errors.As(err, &known) {
		return err
	}
	kind, remedy := credstore.ErrUnavailable, fmt.Sprintf("look at the folder %s and its disk", filepath.Dir(j.path))
	switch {
	case errors.Is(err, errJournalNewer):
		remedy = "update Enlist"
	case JournalDamaged(err):
		kind, remedy = credstore.ErrDamaged, "enlist doctor --repair moves it aside and begins another; it holds no secret"
	}
	return &credstore.Error{Op: "use", Place: "journal", Kind: kind, Cause: err, Remedy: remedy}
}

// write runs statements in one transaction, which is durable when it returns.
func (j *journal) write(ctx context.Context, step string, f func(*sql.Tx) error) error {
	db, _, err := j.open(ctx)
	if err != nil {
		return err
	}
	return j.transact(ctx, db, step, f)
}

func (j *journal) transact(ctx context.Context, db *sql.DB, step string, f func(*sql.Tx) error) error {
	if j.fault != nil {
		if err := j.fault(step); err != nil {
			return j.problem(err)
		}
	}
	var tx *sql.Tx
	err := credstore.Patiently(ctx, func() (err error) {
		tx, err = db.BeginTx(ctx, nil)
		return err
	})
	if err != nil {
		return j.problem(err)
	}
	defer func() { _ = tx.Rollback() }()
	if err := f(tx); err != nil {
		return j.problem(err)
	}
	return j.problem(tx.Commit())
}

const operationKey = ` WHERE protocol = $1 AND origin = $2 AND agent = $3 AND kind = $4 AND label = $5`

func keyArgs(k credstore.Key) []any {
	return []any{k.Protocol, k.Origin, k.Agent, string(k.Kind), k.Label}
}

// unfinished returns the operations that have not come to an end: those of a
// credential, or all of them for none. Some may be under way; whoever wants to
// know takes the credential's lock first.
func (j *journal) unfinished(ctx context.Context, of ...credstore.Key) ([]Unfinished, error) {
	if j.empty() {
		return nil, nil
	}
	db, _, err := j.open(ctx)
	if err != nil {
		return nil, err
	}
	query, args := `SELECT protocol, origin, agent, kind, label, action, phase, begun_at, code FROM operations`, []any(nil)
	if len(of) == 1 {
		query, args = query+operationKey, keyArgs(of[0])
	}
	var rows *sql.Rows
	err = credstore.Patiently(ctx, func() (err error) {
		rows, err = db.QueryContext(ctx, query+` ORDER BY begun_at`, args...)
		return err
	})
	if err != nil {
		return nil, j.problem(err)
	}
	defer rows.Close()
	var all []Unfinished
	for rows.Next() {
		var u Unfinished
		var begun int64
		if err := rows.Scan(&u.Key.Protocol, &u.Key.Origin, &u.Key.Agent, &u.Key.Kind, &u.Key.Label, &u.Action, &u.Phase, &begun, &u.Code); err != nil {
			return nil, j.problem(err)
		}
		u.Begun = time.UnixMilli(begun).UTC()
		all = append(all, u)
	}
	return all, j.problem(rows.Err())
}
