package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// A batch ends when nobody waits any more, at this many parts, or after this
// long, whichever is first.
//
// It could be for all who wait. But then, under load, it soon is: all clients are in
// it, and while one processor writes for them the others have nothing to do; when it
// is over, all are answered, and nobody writes. Where it takes some of them only, the
// others read requests, check signatures and write answers meanwhile. Of 32 clients
// 8 to 16 at a time are the best. Of 256, ten at a time make 5 to 10 % fewer
// registrations than all at once, and 16 as many: one sync of the disk is for many
// commits anyway.
const (
	maxParts = 12
	maxHold  = 10 * time.Millisecond
)

// maxQueued is how many stand in line; more wait to get there.
const maxQueued = 1024

// yields is how often the writer lets others run before it takes it that nobody
// waits. Where processors are idle that takes no time; where they are not, those who
// are about to ask for a turn get there, and one commit is for more of them.
const yields = 4

// Several processes may write to one database, each with its own writer. SQLite
// has no queue for them: whoever finds the database free gets it. So a writer
// looks often for a time, and one that is busy leaves the database alone now
// and then, longer than the others take to look again. It does so only for a time
// after another one has written: it makes a fiftieth fewer commits for it. Who comes
// anew finds the moment between two batches, at the first of some hundred looks.
const (
	patience   = 5 * time.Second
	look       = time.Millisecond
	pauseEvery = 100 * time.Millisecond
	pause      = 2 * time.Millisecond
	pauses     = 100 // after each commit that another process was seen to have made
)

// stuck is when a part that still waits looks whether it waits for itself.
const stuck = 20 * time.Millisecond

// errUnfinished is the outcome of a callback that panicked or ended its
// goroutine. Nobody sees it: the goroutine does not come back.
var errUnfinished = errors.New("store: the callback did not return")

// writer makes SQLite, which has one writer at a time, a fast database with
// many. One goroutine begins a transaction, gives everybody who waits a turn in
// it, each inside a savepoint, and commits once for all. Nobody is told of
// success before that commit is on the disk, unless they need not know.
//
// A turn is run by the goroutine that asked for it, so that a panic and
// [runtime.Goexit] in a callback end what they would end anyway, and not the
// writer. Statements run under a context that never ends: an interrupt inside
// an INSERT would roll back the whole batch.
type writer struct {
	conn    *sql.Conn
	stmts   map[string]*rowStmt // of the connection under conn; used inside conn.Raw only
	explain func(error) error
	now     func() time.Time
	patient time.Duration // how long to wait for other processes
	longest time.Duration // how long a batch is open to others

	queue   chan *part
	back    chan struct{} // the part whose turn it was is through
	quit    chan struct{}
	stopped chan struct{}

	log *syncer // nil: a COMMIT syncs the log itself

	checkpoints *checkpointer
	batches     batchStats

	recent  *recent
	changes *changes

	version int64 // what SQLite said of others' commits; 0: nothing yet
	polite  int   // how many pauses are still to be made for them
}

// part is the Tx of one caller on its way through a batch.
type part struct {
	state atomic.Int32
	turn  chan struct{} // the writer: run now
	done  chan struct{} // it is over, err says how
	err   error

	passing bool // see [Store.TxPassing]
}

// The states of a part. Both sides leave waiting by compare-and-swap, so that
// a part is run or withdrawn, never both.
const (
	waiting int32 = iota
	taken
	withdrawn
)

func startWriter(ctx context.Context, path string, write *sql.DB, checkpoints *checkpointer, kept *recent, explain func(error) error, now func() time.Time) (*writer, error) {
	conn, err := write.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, checkpoints.db.Close())
	}
	behind, err := newSyncer(path)
	if err != nil {
		return nil, errors.Join(err, conn.Close(), checkpoints.db.Close())
	}
	w := &writer{
		conn: conn, stmts: make(map[string]*rowStmt), explain: explain, now: now, patient: patience, longest: maxHold,
		queue: make(chan *part, maxQueued), back: make(chan struct{}),
		quit: make(chan struct{}), stopped: make(chan struct{}),
		log: behind, checkpoints: checkpoints,
		recent: kept, changes: &changes{touched: map[int64]time.Time{}},
	}
	if kept.index != nil {
		if err := conn.Raw(w.changes.watch); err != nil {
			return nil, errors.Join(err, behind.stop(), conn.Close(), checkpoints.db.Close())
		}
	}
	settings := []string{
		"PRAGMA busy_timeout = 0", // begin waits itself
		// What a savepoint may have to bring back stays in memory. SQLite would put
		// it into a file when it is more than 64 KiB, which it soon is: in two and a
		// half times as many system calls as the commit itself takes.
		"PRAGMA temp_store = MEMORY",
	}
	if behind != nil {
		settings = append(settings, "PRAGMA synchronous = NORMAL")
	}
	for _, q := range settings {
		if err := w.exec(ctx, q); err != nil {
			return nil, errors.Join(err, behind.stop(), conn.Close(), checkpoints.db.Close())
		}
	}
	forever := context.WithoutCancel(ctx)
	go w.checkpoints.loop(forever)
	go w.loop(forever)
	return w, nil
}

// stop ends the intake, commits what is queued, and closes the connection.
func (w *writer) stop() error {
	close(w.quit)
	<-w.stopped
	errs := []error{w.log.stop(), w.checkpoints.stop()}
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// tx hands fn to the writer and returns when the batch it was in is over.
func (w *writer) tx(ctx context.Context, fn func(*Tx) error, passing bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &part{turn: make(chan struct{}, 1), done: make(chan struct{}), passing: passing}
	tired := time.NewTimer(stuck)
	defer tired.Stop()
	queue, canceled, stopped := w.queue, ctx.Done(), w.stopped
	for {
		var gone error
		select {
		case queue <- p:
			queue = nil // once
			continue
		case <-p.turn:
			w.run(ctx, p, fn)
			<-p.done
			return p.err
		case <-p.done:
			return p.err
		case <-tired.C:
			if !insideTurn() {
				continue
			}
			gone = ErrNested
		case <-canceled:
			gone, canceled = ctx.Err(), nil
		case <-stopped:
			gone, stopped = ErrClosed, nil
		}
		if p.state.CompareAndSwap(waiting, withdrawn) {
			return gone
		}
		// It was taken meanwhile: its outcome is the batch's.
	}
}

// run is a part's turn. Whatever fn does, the writer gets its turn back.
func (w *writer) run(ctx context.Context, p *part, fn func(*Tx) error) {
	t := &Tx{ctx: ctx, forever: context.WithoutCancel(ctx), q: w, explain: w.explain}
	p.err = errUnfinished
	defer func() {
		t.over = true
		w.back <- struct{}{}
	}()
	t.now = w.now()
	err := fn(t)
	if err == nil {
		err = t.ok(nil) // fn may have dropped a failure, but cannot undo it
	}
	p.err = err
}

// insideTurn reports whether the calling goroutine is inside run: a Tx would
// wait for itself.
func insideTurn() bool {
	pcs := make([]uintptr, 512)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "/store.(*writer).run") || strings.HasSuffix(f.Function, "/store.(*postgresDB).run") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (w *writer) loop(ctx context.Context) {
	defer close(w.stopped)
	hold := time.NewTimer(maxHold)
	defer hold.Stop()
	busy := time.NewTicker(pauseEvery)
	defer busy.Stop()
	for {
		select {
		case p := <-w.queue:
			w.batch(ctx, p, hold)
			select {
			case <-busy.C:
				w.giveWay()
			default:
			}
		case err := <-w.log.pending():
			w.log.ended(err)
		case <-w.checkpoints.rest:
			w.checkpoints.finish(ctx, w.conn)
		case <-w.quit:
			for {
				select {
				case p := <-w.queue:
					w.batch(ctx, p, hold)
				default:
					return
				}
			}
		}
	}
}

// giveWay leaves the database alone for a moment, if others want it.
func (w *writer) giveWay() {
	if w.recent.index != nil { // else nobody says whether there are others
		if w.polite == 0 {
			return
		}
		w.polite--
	}
	<-time.After(pause)
}

// batch runs p and who else waits in one transaction.
func (w *writer) batch(ctx context.Context, p *part, hold *time.Timer) {
	err := w.begin(ctx)
	begun := err == nil
	var alone func() bool
	if begun {
		alone = w.follow(ctx)
	}
	hold.Reset(w.longest)
	var parts []*part
	hurry := false
	for p != nil {
		if p.state.CompareAndSwap(waiting, taken) {
			parts, hurry = append(parts, p), hurry || p.passing
			if err == nil {
				err = w.one(ctx, p)
			}
		}
		// When the batch is lost, who had no turn yet gets it in another. When
		// none can be begun, nobody need wait as long again to hear that.
		if len(parts) == maxParts || begun && err != nil {
			break
		}
		p = w.next(hold, hurry)
	}
	if err == nil {
		err = w.log.broken()
	}
	if err == nil {
		err = w.exec(ctx, "COMMIT")
	}
	if err != nil {
		_ = w.exec(ctx, "ROLLBACK") // an error means that SQLite has done so itself
		err = fmt.Errorf("store: nothing was written: %w", err)
		alone = nil
	}
	if begun {
		w.recent.ended(w.changes, alone)
	}
	if err == nil {
		w.batches.add(len(parts))
	}
	w.tell(parts, err)
	w.checkpoints.look()
}

// follow tells who keeps rows that a transaction has begun. What it returns
// reports, when that is over, whether nobody else has committed since.
func (w *writer) follow(ctx context.Context) (alone func() bool) {
	if w.recent.index == nil {
		return nil
	}
	w.changes.reset()
	w.recent.begun()
	// SQLite counts the commits that this connection did not make.
	others := func() (n int64, err error) {
		err = w.row(ctx, "PRAGMA data_version", nil, []any{&n})
		return n, err
	}
	before, err := others()
	if err != nil {
		return nil
	}
	if w.version != 0 && before != w.version {
		w.polite = pauses
	}
	w.version = before
	return func() bool {
		after, err := others()
		return err == nil && after == before
	}
}

// begin begins a transaction when no other process has one.
func (w *writer) begin(ctx context.Context) error {
	return untilFree(ctx, w.patient, func() error { return w.exec(ctx, "BEGIN IMMEDIATE") })
}

// untilFree does something again as long as another process has the database,
// but no longer than that. It must have done nothing when it says so.
func untilFree(ctx context.Context, patient time.Duration, do func() error) error {
	err := do()
	if !isBusy(err) {
		return err
	}
	late := time.NewTimer(patient)
	defer late.Stop()
	for isBusy(err) {
		select {
		case <-ctx.Done():
			return err
		case <-late.C:
			return err
		case <-time.After(look):
		}
		err = do()
	}
	return err
}

// next returns a part that waits, unless there is none or it is time to commit.
// Those who wait for the disk are in no hurry while the log is synced for others.
func (w *writer) next(hold *time.Timer, hurry bool) *part {
	select {
	case <-hold.C:
		return nil
	default:
	}
	for range yields {
		select {
		case p := <-w.queue:
			return p
		default:
			runtime.Gosched()
		}
	}
	if synced := w.log.pending(); synced != nil && !hurry {
		select {
		case p := <-w.queue:
			return p
		case err := <-synced:
			w.log.ended(err)
			return w.next(hold, hurry)
		case <-hold.C:
		}
	}
	return nil
}

// one gives a part its turn. An error means that the whole batch is lost.
func (w *writer) one(ctx context.Context, p *part) error {
	if err := w.exec(ctx, "SAVEPOINT part"); err != nil {
		return err
	}
	p.turn <- struct{}{}
	<-w.back
	if p.err != nil {
		w.changes.undone()
		// SQLite ends a transaction itself when the disk is full or fails.
		// Then the savepoint is gone, and so is what the others did.
		if err := w.exec(ctx, "ROLLBACK TO part"); err != nil {
			return p.err
		}
	}
	return w.exec(ctx, "RELEASE part")
}

func (w *writer) exec(ctx context.Context, q string) error {
	_, err := w.execute(ctx, q, nil)
	return w.explain(err)
}

// prepared calls f with the statement for q. Every q is a constant of this package,
// so there are few. They run past database/sql, see [rowReader].
func (w *writer) prepared(ctx context.Context, q string, f func(*rowStmt) error) error {
	return w.conn.Raw(func(conn any) (err error) {
		s := w.stmts[q]
		if s == nil {
			if s, err = prepareRow(ctx, conn, q); err != nil {
				return err
			}
			w.stmts[q] = s
		}
		return f(s)
	})
}

// execute implements querier.
func (w *writer) execute(ctx context.Context, q string, args []any) (n int64, err error) {
	err = w.prepared(ctx, q, func(s *rowStmt) error {
		result, err := s.exec(ctx, args)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, err
}

// insert implements querier. (For RETURNING, SQLite makes a table of what comes back:
// that takes as long as to insert the row.)
func (w *writer) insert(ctx context.Context, q string, args []any) (id int64, err error) {
	err = w.prepared(ctx, q, func(s *rowStmt) error {
		result, err := s.exec(ctx, args)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err == nil && n == 0 {
			err = sql.ErrNoRows
		}
		if err != nil {
			return err
		}
		id, err = result.LastInsertId()
		return err
	})
	return id, err
}

// row implements querier.
func (w *writer) row(ctx context.Context, q string, args, dest []any) error {
	return w.prepared(ctx, q, func(s *rowStmt) error { return s.get(ctx, args, dest) })
}
