package server

import (
	"context"
	"errors"
	"sync"
)

// work counts what is under way, so that it can be waited for.
type work struct {
	mu    sync.Mutex
	n     int
	stop  bool
	ended chan struct{} // closed when stop is set and n is 0
}

func newWork() *work { return &work{ended: make(chan struct{})} }

// begin counts one more. The function that it returns, which may be called
// more than once, says that this one has ended.
func (w *work) begin() (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.n--
		w.settle()
	})
}

// stopping reports whether nothing new should begin.
func (w *work) stopping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stop
}

// finish lets nothing new begin, and returns what is closed when all has ended.
func (w *work) finish() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stop {
		w.stop = true
		w.settle()
	}
	return w.ended
}

// settle closes ended when its time has come. Something may still begin after
// that, which was let in before; it is not waited for.
func (w *work) settle() {
	if !w.stop || w.n > 0 {
		return
	}
	select {
	case <-w.ended:
	default:
		close(w.ended)
	}
}

// Drain stops what handlers serve: it lets no request in any more, waits until
// those under way and the start-up registration have ended, or ctx has, and
// then ends every open stream. It returns an error when something was cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.letRest()
	var err error
	s.stopAsks() // nobody is waited for who thinks
	select {
	case <-s.work.finish():
	case <-ctx.Done():
		err = errors.New("requests under way were cut off")
	}
	s.mu.Lock()
	ends, stop := s.ends, s.stop
	s.ends = nil
	s.mu.Unlock()
	stop() // a registration that has not ended by now has not been let in
	for _, end := range ends {
		end(context.WithoutCancel(ctx))
	}
	s.background.Wait()
	s.keeping.Wait()
	return err
}
