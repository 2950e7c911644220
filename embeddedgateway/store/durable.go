package store

import (
	"fmt"
	"os"
)

// syncer puts the write-ahead log on the disk behind the writer, who goes on
// meanwhile: a COMMIT that waited for the disk itself would keep everybody from the
// database for so long. Parts are told that they are on the disk when a sync that
// began after their COMMIT is over, as SQLite's own synchronous=FULL would have it: a
// log is good up to its last whole commit, and one sync is for all of it. What the
// log must not be outrun by, SQLite sees to itself (synchronous=NORMAL): whoever moves
// its pages into the database, or begins it anew, syncs first.
//
// When the disk fails, nobody knows what is on it: a second sync may succeed because
// the system has forgotten the first. So nothing is written any more until the
// database is opened again.
//
// All but loop is for the writer's goroutine, and does nothing where there is no
// syncer.
type syncer struct {
	file    *os.File
	sync    func(*os.File) error
	todo    chan []*part
	result  chan error // of the sync that is under way
	under   bool
	owed    []*part // those that were committed while it was
	failed  error
	stopped chan struct{}
}

// newSyncer opens the log of a database that is open. It is nil where SQLite is
// to sync each COMMIT itself.
func newSyncer(path string) (*syncer, error) {
	file, err := openLog(path + "-wal")
	if err != nil || file == nil {
		return nil, err
	}
	s := &syncer{
		file: file, sync: syncLog,
		todo: make(chan []*part, 1), result: make(chan error, 1), stopped: make(chan struct{}),
	}
	go s.loop()
	return s, nil
}

func (s *syncer) loop() {
	defer close(s.stopped)
	for parts := range s.todo {
		err := s.sync(s.file)
		if err != nil {
			err = fmt.Errorf("store: whether it was written is not known, and nothing more is until the database is opened again: "+
				"the disk failed; look at it and at the system's log: %w", err)
		}
		s.result <- err
		finish(parts, err)
	}
}

// finish tells parts of which all but this is over.
func finish(parts []*part, err error) {
	for _, p := range parts {
		p.err = err
		close(p.done)
	}
}

// stop waits for what is under way.
func (s *syncer) stop() error {
	if s == nil {
		return nil
	}
	for s.under {
		s.ended(<-s.result)
	}
	close(s.todo)
	<-s.stopped
	return s.file.Close()
}

// owe has parts told when what was committed until now is on the disk.
func (s *syncer) owe(parts []*part) {
	s.owed = append(s.owed, parts...)
	s.begin()
}

func (s *syncer) begin() {
	if s.under || len(s.owed) == 0 {
		return
	}
	s.under = true
	s.todo <- s.owed
	s.owed = nil
}

// pending delivers the result of the sync that is under way, which is to be given to
// ended; it is nil where none is.
func (s *syncer) pending() <-chan error {
	if s == nil || !s.under {
		return nil
	}
	return s.result
}

// ended takes the result of a sync, and begins the next one where it is owed.
func (s *syncer) ended(err error) {
	s.under = false
	if err == nil {
		s.begin()
		return
	}
	s.failed = err
	finish(s.owed, err)
	s.owed = nil
}

// broken reports why nothing may be written any more.
func (s *syncer) broken() error {
	if s == nil {
		return nil
	}
	select {
	case err := <-s.pending():
		s.ended(err)
	default:
	}
	return s.failed
}

// tell tells the parts of a batch that is over how it was: those that wait for the
// disk when it has it.
func (w *writer) tell(parts []*part, err error) {
	var wait []*part
	for _, p := range parts {
		if p.err == nil {
			p.err = err
		}
		if p.err == nil && !p.passing && w.log != nil {
			wait = append(wait, p)
			continue
		}
		close(p.done)
	}
	if len(wait) > 0 {
		w.log.owe(wait)
	}
}
