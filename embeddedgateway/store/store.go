// Package store keeps what a registration gateway must not forget: agents,
// credentials, tickets, rate counts, audit events, and what is sealed.
//
// These six nouns are all there is. A protocol is made of them without a
// table of its own: an invite, a challenge, a verification token and a seen
// signature are all a [Ticket], which is used once before it expires.
//
// # Secrets
//
// Of a secret only its hash comes in here; what must be read again comes
// encrypted, as [Sealed]. Whatever else is stored (names, attributes, the Data
// of a ticket, the Detail of an event) is public, and callers must treat it so.
//
// # Transactions
//
// Everything is written by [Store.Tx]. What its callback did is on the disk
// when Tx returns nil, and undone when it returns anything else. Many Tx that
// wait at the same time share one COMMIT, so that hundreds of registrations
// cost one sync of the disk; a failure of one leaves the others alone.
//
// A callback does nothing but call its Tx: no I/O, no cryptography, no other
// Tx, because everyone else waits for it. It may be run again where a database
// asks for that, so it begins by resetting what it captured.
//
// # Times
//
// Every time comes from Options.Now. They are kept in UTC, to the microsecond;
// the zero [time.Time] stands for never.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// The errors of a store. Those of the first group are answers, not failures: a
// callback that gets one may go on and have its work committed. After any other
// error the Tx is undone, even if its callback returns nil.
var (
	// ErrNotFound: there is no such thing, or it may not be used any more.
	ErrNotFound = errors.New("not found")
	// ErrExists: there is something with the same hash already.
	ErrExists = errors.New("exists already")
	// ErrCap: the agent has as many active credentials as it may have.
	ErrCap = errors.New("too many active credentials")

	// ErrNested: a Tx was begun inside the callback of another.
	ErrNested = errors.New("store: a Tx inside the callback of a Tx")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: closed")
	// ErrText: a string is not valid UTF-8 or contains a NUL character, which
	// not every database can keep.
	ErrText = errors.New("store: text that is not valid UTF-8 or contains NUL")
	// ErrUnavailable: the database could not be reached, or was too busy, for
	// some seconds. It may be there again later.
	ErrUnavailable = errors.New("store: the database is not available")
)

// Options says how to open a store.
type Options struct {
	// Path is the SQLite file. It is created, readable by its owner only, if
	// it is not there; its folder must exist. Two more files are kept beside
	// it while it is open, and two that are only ever locked.
	Path string
	// URL is a PostgreSQL database, as postgres://USER@HOST/DATABASE, with what
	// else its driver takes (sslmode, sslrootcert, a list of hosts, and
	// pool_max_conns: connections at most, 16 by default). Give it or Path.
	URL string
	// Now is the clock.
	Now func() time.Time
	// Terms says what an agent is found by beside its name and its display name.
	// It depends on nothing but the agent. Nil: nothing.
	Terms func(Agent) []string
	// Logger is told about migrations and about trouble that no caller can be
	// told; nil discards that.
	Logger *slog.Logger
	// Audited is told of every event of the audit trail when it is on the disk;
	// nil: nobody is.
	Audited func(Event)

	copies bool // a copy goes on that was begun; nobody else may open it then
}

// Store is an open database. Its methods may be called by many goroutines, and
// several processes may have the same database open.
type Store struct {
	db      dialect
	shared  *postgresDB // whose reads requests share; nil: they read on their own
	rows    *rowReader  // reads rows faster than the pool; nil: the pool does
	recent  *recent     // rows that need not be read again
	now     func() time.Time
	terms   func(Agent) []string
	audited func(Event)
	stats   stats
	closed  atomic.Bool
	close   func() error
}

// Open opens the database, creates it if it is not there, and brings its tables
// up to date. It refuses a database that a newer version has written.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Now == nil {
		return nil, errors.New("store: Options.Now is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Terms == nil {
		o.Terms = func(Agent) []string { return nil }
	}
	now := func() time.Time { return o.Now().UTC().Truncate(time.Microsecond) }
	s := &Store{now: now, terms: o.Terms, recent: &recent{}}
	name := o.Path
	if o.URL == "" {
		db, err := openSQLite(ctx, o.Path, now, o.Logger)
		if err != nil {
			return nil, fmt.Errorf("open database %s: %w", name, err)
		}
		s.db, s.rows, s.recent = db, db.rows, db.recent
	} else {
		db, err := openPostgres(ctx, o.URL, now, o.Logger)
		if err != nil {
			return nil, fmt.Errorf("open the database: %w", err)
		}
		s.db, s.shared, name = db, db, db.name
	}
	s.audited = o.Audited
	s.close = sync.OnceValue(s.db.close)
	if err := s.admit(ctx, o); err != nil {
		return nil, fmt.Errorf("open database %s: %w", name, errors.Join(err, s.Close()))
	}
	return s, nil
}

// Close commits what has been handed to Tx and closes the database. Later calls
// of every other method return [ErrClosed]. It must not be called by the callback
// of a Tx, for which it waits.
func (s *Store) Close() error {
	s.closed.Store(true)
	return s.close()
}

// Tx runs fn in a transaction. When it returns nil, what fn wrote is on the
// disk; when it returns an error, or fn panics or ends its goroutine, nothing
// of it is. fn runs on the caller's goroutine. The end of ctx is noticed while
// waiting and between the calls of fn; it never cuts a commit short.
func (s *Store) Tx(ctx context.Context, fn func(*Tx) error) error {
	return s.counted(ctx, fn, s.db.tx)
}

// counted runs fn by run, with a Tx that knows what agents are found by, and
// counts that and the events of the audit trail.
func (s *Store) counted(ctx context.Context, fn func(*Tx) error, run func(context.Context, func(*Tx) error) error) error {
	var events []Event
	err := run(ctx, func(t *Tx) error {
		t.more = s.terms
		err := fn(t)
		if err == nil {
			err = t.flush()
		}
		events = t.events
		return err
	})
	s.stats.ended(err)
	if err == nil && s.audited != nil {
		for _, e := range events {
			s.audited(e)
		}
	}
	return err
}

// TxPassing is Tx for what is worth nothing by itself, such as a challenge or the
// count of a try. When it returns nil, everybody sees what fn wrote, and it outlasts
// this process; but a machine that loses its power in the next moment may lose it,
// unless another Tx has returned nil meanwhile: what is committed later is not on the
// disk without what was before.
func (s *Store) TxPassing(ctx context.Context, fn func(*Tx) error) error {
	return s.counted(ctx, fn, s.db.passing)
}

// TxEachPassing is [Store.TxPassing] for such a callback as [Store.TxEach] is for.
func (s *Store) TxEachPassing(ctx context.Context, fn func(*Tx) error) error {
	return s.counted(ctx, fn, s.db.eachPassing)
}

// TxEach is Tx for a callback whose statements are right one by one, whatever
// others do between them: counting, adding to the trail, deleting what has
// expired. Where many change the same row at once, it spares a database that
// serves several gateways from refusing all but one of them.
func (s *Store) TxEach(ctx context.Context, fn func(*Tx) error) error {
	return s.counted(ctx, fn, s.db.each)
}

// readable reports whether the read pool may be asked something.
func (s *Store) readable(ctx context.Context, args []any) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkText(args)
}

// readError is what to tell of an error of the read pool.
func (s *Store) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows), errors.Is(err, ErrNotFound):
		return ErrNotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case s.closed.Load():
		return ErrClosed
	}
	return s.db.explain(err)
}

// keep returns a row that may be kept, by read where it is not.
func keep[K comparable, V any](ctx context.Context, s *Store, in *rows[K, V], key K, id func(V) int64, read func() (V, error)) (V, error) {
	if err := s.readable(ctx, nil); err != nil {
		return *new(V), err
	}
	return remembered(s.recent, in, key, id, read)
}

// read runs one statement of the read pool for a single row. The database does
// not get the caller's context: watching it would cost more than the statement.
func (s *Store) read(ctx context.Context, q string, args []any, dest ...any) error {
	if err := s.readable(ctx, args); err != nil {
		return err
	}
	if s.rows != nil {
		return s.readError(s.rows.get(context.WithoutCancel(ctx), q, args, dest))
	}
	// By its text: what the driver prepares itself it prepares anew when the
	// tables have changed. (On a connection on which somebody else has prepared the
	// same text, the driver would take that one, for ever.)
	return s.readError(s.db.persist(ctx, func() (bool, error) {
		err := s.db.reader().QueryRowContext(context.WithoutCancel(ctx), q, args...).Scan(dest...)
		return s.db.passes(err), err
	}))
}

// asker is what rows are asked of: the pool, or a prepared statement.
type asker func(ctx context.Context, args ...any) (*sql.Rows, error)

// asks is a statement that is not prepared.
func (s *Store) asks(q string) asker {
	return func(ctx context.Context, args ...any) (*sql.Rows, error) {
		return s.db.reader().QueryContext(ctx, q, args...)
	}
}

// collect returns the rows of a statement of the read pool. dest says where to
// scan one to.
func collect[V any](ctx context.Context, s *Store, ask asker, args []any, dest func(*V) []any) (list []V, err error) {
	if err := s.readable(ctx, args); err != nil {
		return nil, err
	}
	err = s.db.persist(ctx, func() (again bool, err error) {
		list = nil
		rows, err := ask(context.WithoutCancel(ctx), args...)
		if err != nil {
			return s.db.passes(err), err
		}
		defer rows.Close()
		for rows.Next() {
			var v V
			if err := rows.Scan(dest(&v)...); err != nil {
				return false, err
			}
			list = append(list, v)
		}
		return s.db.passes(rows.Err()), rows.Err()
	})
	if err != nil {
		return nil, s.readError(err)
	}
	return list, nil
}

// listed is collect for a statement whose text never changes, so that it stays
// prepared where rows are read fast.
func listed[V any](ctx context.Context, s *Store, q string, args []any, dest func(*V) []any) (list []V, err error) {
	if s.rows == nil {
		return collect(ctx, s, s.asks(q), args, dest)
	}
	if err := s.readable(ctx, args); err != nil {
		return nil, err
	}
	err = s.rows.each(context.WithoutCancel(ctx), q, args, func() ([]any, bool) {
		list = append(list, *new(V))
		return dest(&list[len(list)-1]), true
	})
	if err != nil {
		return nil, s.readError(err)
	}
	return list, nil
}

// Tx is a transaction. It is valid inside its callback only, and for one
// goroutine at a time.
type Tx struct {
	ctx     context.Context // the caller's: looked at between statements
	forever context.Context // what the database gets: it does not end
	q       querier
	explain func(error) error
	now     time.Time
	locked  Agent                // the agent whose row was locked last
	more    func(Agent) []string // Options.Terms
	events  []Event              // what was added to the trail
	touched map[int64]time.Time  // on a server: which credentials were noted as used
	err     error                // the first failure; every later call returns it
	over    bool
}

// Now returns the time of the transaction. It does not change in its course.
func (t *Tx) Now() time.Time { return t.now }

// fail makes err the outcome of the transaction.
func (t *Tx) fail(err error) error {
	if t.err == nil {
		t.err = err
	}
	return t.err
}

// ok reports whether another statement may be run.
func (t *Tx) ok(args []any) error {
	if t.over {
		return errors.New("store: a Tx was used after its callback")
	}
	if t.err != nil {
		return t.err
	}
	if err := t.ctx.Err(); err != nil {
		return t.fail(err)
	}
	if err := checkText(args); err != nil {
		return t.fail(err)
	}
	return nil
}

// exec runs a statement and returns how many rows it changed.
func (t *Tx) exec(q string, args ...any) (n int64, err error) {
	if err := t.ok(args); err != nil {
		return 0, err
	}
	if n, err = t.q.execute(t.forever, q, args); err != nil {
		return 0, t.fail(t.explain(err))
	}
	return n, nil
}

// insert runs a statement that inserts one row or none, and returns its id. No row is
// [ErrNotFound].
func (t *Tx) insert(q string, args ...any) (id int64, err error) {
	if err := t.ok(args); err != nil {
		return 0, err
	}
	id, err = t.q.insert(t.forever, q, args)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrNotFound
	}
	if err != nil {
		return 0, t.fail(t.explain(err))
	}
	return id, nil
}

// get runs a statement and scans its first row. No row is [ErrNotFound].
func (t *Tx) get(q string, args []any, dest ...any) error {
	if err := t.ok(args); err != nil {
		return err
	}
	err := t.q.row(t.forever, q, args, dest)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return t.fail(t.explain(err))
	}
	return nil
}
