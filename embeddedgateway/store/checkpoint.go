package store

import (
	"context"
	"database/sql"
	"log/slog"
	"time"
)

const (
	// checkpointFrames is how many pages in the write-ahead log are worth
	// moving into the database. Pages that are changed again and again, as those
	// of the last rows are, are moved once for all of it.
	checkpointFrames = 4000
	// checkpointPause is how long the log is left alone after a look at it.
	checkpointPause = 10 * time.Millisecond
	// largeLog is how many pages (of 4 KiB) the log may have before it is worth
	// letting everybody wait; restartTries is how many milliseconds at most.
	largeLog     = 8192
	restartTries = 100
)

// checkpointer moves what was committed from the write-ahead log into the
// database, on a connection of its own: done inside a COMMIT, as SQLite would,
// it makes everybody wait for 14 to 30 ms.
type checkpointer struct {
	db      *sql.DB
	sync    func() error // of the database
	log     *slog.Logger
	dirty   chan struct{} // something was committed
	rest    chan struct{} // little is left: the writer may finish it
	quit    chan struct{}
	stopped chan struct{}
}

func newCheckpointer(db *sql.DB, sync func() error, log *slog.Logger) *checkpointer {
	return &checkpointer{
		db: db, sync: sync, log: log,
		dirty: make(chan struct{}, 1), rest: make(chan struct{}, 1),
		quit: make(chan struct{}), stopped: make(chan struct{}),
	}
}

func (c *checkpointer) stop() error {
	close(c.quit)
	<-c.stopped
	return c.db.Close()
}

// look makes the checkpointer look at the log soon.
func (c *checkpointer) look() { offer(c.dirty) }

func offer(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (c *checkpointer) loop(ctx context.Context) {
	defer close(c.stopped)
	for {
		select {
		case <-c.quit:
			return
		case <-c.dirty:
		}
		c.once(ctx)
		select {
		case <-c.quit:
			return
		case <-time.After(checkpointPause):
		}
	}
}

// once moves the log's pages if there are many. Meanwhile more are written, so
// it rarely gets all; but only a log of which all are moved starts again from
// its beginning. So it asks the writer to move the last few. SQLite syncs the
// database then, and not before all are moved: by that time most of it is to be
// on the disk, or nobody could write for as long as that takes (8 to 30 ms).
func (c *checkpointer) once(ctx context.Context) {
	_, pages, moved, err := checkpoint(ctx, c.db, "NOOP")
	if err == nil && pages-moved >= checkpointFrames {
		_, _, _, err = checkpoint(ctx, c.db, "PASSIVE")
		if err == nil {
			err = c.sync()
		}
		offer(c.rest)
	}
	c.report(ctx, err)
}

// finish moves the last pages on the writer's connection while it does not
// write. Other processes may; if the log has become large, finish looks for a
// moment in which none does.
func (c *checkpointer) finish(ctx context.Context, conn *sql.Conn) {
	for range restartTries {
		busy, pages, _, err := checkpoint(ctx, conn, "RESTART")
		if err != nil || !busy || pages < largeLog {
			c.report(ctx, err)
			return
		}
		<-time.After(look)
	}
}

func (c *checkpointer) report(ctx context.Context, err error) {
	if err != nil {
		c.log.WarnContext(ctx, "the database's write-ahead log could not be moved into it", "error", err)
	}
}

// checkpoint moves pages from the log into the database and returns how many
// the log has and how many of them are moved.
func checkpoint(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}, mode string,
) (busy bool, pages, moved int, err error) {
	err = db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &moved)
	return busy, pages, moved, err
}
