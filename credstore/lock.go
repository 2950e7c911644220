package credstore

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// lockRetry is how often a lock that another process holds is tried again.
const lockRetry = 5 * time.Millisecond

// locks are locks with names, each a file that the kernel locks: they hold
// between processes and end with the process. Files are never deleted: whoever
// deletes one that another process is about to lock gives the lock away twice.
type locks struct {
	on  files
	dir string // "": only between goroutines

	mu    sync.Mutex
	gates map[string]*gate
}

// gate lets one goroutine of this process through to the file, so that not all
// of them try the file again and again.
type gate struct {
	open  chan struct{} // holds an element while somebody has the gate
	users int           // who has it and who waits for it
}

func newLocks(on files, dir string) *locks {
	return &locks{on: on, dir: dir, gates: make(map[string]*gate)}
}

// acquire waits for the lock; waits is called once if somebody else has it.
// unlock may be called more than once.
func (l *locks) acquire(ctx context.Context, name string, waits func()) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wait := sync.OnceFunc(waits)
	leave, ok := l.enter(name)
	if !ok {
		wait()
		if leave, err = l.queue(ctx, name); err != nil {
			return nil, err
		}
	}
	f, ok, err := l.tryFile(name)
	if err == nil && !ok {
		wait()
		ok, err = f.TryLockContext(ctx, lockRetry)
	}
	return l.release(f, leave, ok, err)
}

// try takes the lock if nobody has it.
func (l *locks) try(name string) (unlock func(), ok bool) {
	leave, ok := l.enter(name)
	if !ok {
		return nil, false
	}
	f, ok, err := l.tryFile(name)
	unlock, err = l.release(f, leave, ok, err)
	return unlock, err == nil
}

// lockKey takes the lock of a key for a caller of [Store.Lock].
func lockKey(ctx context.Context, l *locks, logger *slog.Logger, k Key) (unlock func(), err error) {
	unlock, err = l.acquire(ctx, id(k)[:32], func() {
		logger.InfoContext(ctx, "waiting for another enlist process or call",
			"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
	})
	if err == nil {
		return unlock, nil
	}
	remedy := diskRemedy(err, l.dir)
	if ctx.Err() != nil {
		remedy = "another enlist process or call is using the credential; try again when it is done"
	}
	return nil, &Error{Op: "lock", Place: "credential", Kind: ErrUnavailable, Cause: err, Remedy: remedy}
}

// release returns what undoes both halves of the lock; if the file was not
// locked it leaves the gate at once.
func (l *locks) release(f *flock.Flock, leave func(), ok bool, err error) (func(), error) {
	if err == nil && !ok {
		err = context.DeadlineExceeded
	}
	if err != nil {
		leave()
		return nil, err
	}
	return sync.OnceFunc(func() {
		if f != nil {
			_ = f.Unlock() // closing the file would end the lock anyway
		}
		leave()
	}), nil
}

func (l *locks) tryFile(name string) (*flock.Flock, bool, error) {
	if l.dir == "" {
		return nil, true, nil
	}
	if err := l.on.Mkdir(l.dir); err != nil {
		return nil, false, err
	}
	f := flock.New(filepath.Join(l.dir, name+".lock"), flock.SetPermissions(0o600))
	ok, err := f.TryLock()
	return f, ok, err
}

// enter takes the gate if nobody has it.
func (l *locks) enter(name string) (leave func(), ok bool) {
	g := l.use(name)
	select {
	case g.open <- struct{}{}:
		return func() { <-g.open; l.drop(name) }, true
	default:
		l.drop(name)
		return nil, false
	}
}

// queue waits for the gate.
func (l *locks) queue(ctx context.Context, name string) (leave func(), err error) {
	g := l.use(name)
	select {
	case g.open <- struct{}{}:
		return func() { <-g.open; l.drop(name) }, nil
	case <-ctx.Done():
		l.drop(name)
		return nil, ctx.Err()
	}
}

func (l *locks) use(name string) *gate {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gates[name]
	if g == nil {
		g = &gate{open: make(chan struct{}, 1)}
		l.gates[name] = g
	}
	g.users++
	return g
}

func (l *locks) drop(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gates[name]
	if g.users--; g.users == 0 {
		delete(l.gates, name)
	}
}
