package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// unusedTime is how long a connection is waited for at the end that has not
	// asked for anything yet: what it was made for is on its way.
	unusedTime = 250 * time.Millisecond
	// quietTime is how long at the end a connection must have asked for nothing
	// until it is closed. One that asks is told to leave with the answer; so only
	// those are closed that nobody is using, as a rule. That a request comes just
	// then nobody can rule out: HTTP/1.1 has no word for it.
	quietTime = 250 * time.Millisecond
	// lastTick is how often it is looked whether they have.
	lastTick = time.Millisecond
)

// connState is what a connection does.
type connState struct {
	http.ConnState
	since int // the tick of the last call; 0: before it
}

// door is a listener that can take no more connections some time before its
// server is told so.
type door struct {
	net.Listener
	shut, closed chan struct{} // closed in this order, or only the second
	once         sync.Once
}

func (d *door) shutOut() {
	close(d.shut)
	_ = d.Listener.Close() // an error means that it is
}

// Accept implements [net.Listener].
func (d *door) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		select {
		case <-d.shut:
			<-d.closed
		default:
		}
	}
	return conn, err
}

// Close implements [net.Listener].
func (d *door) Close() (err error) {
	d.once.Do(func() {
		close(d.closed)
		select {
		case <-d.shut:
		default:
			err = d.Listener.Close()
		}
	})
	return err
}

func (s *server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state == http.StateClosed || state == http.StateHijacked:
		delete(s.conns, conn)
	case s.conns != nil:
		s.conns[conn] = connState{state, s.ticks}
	case state == http.StateNew:
		_ = conn.Close()
	}
}

// lastCall takes no more connections, and waits until those that there are have
// been quiet for a while: from Shutdown on the server does not answer what is on
// its way already, and closes a connection that it has not told its client to
// leave. It gives up with ctx. Those that never said anything it closes.
func (s *server) lastCall(ctx context.Context) {
	s.mu.Lock()
	if s.door != nil {
		s.door.shutOut()
	}
	s.mu.Unlock()
	s.ending()
	tick := time.NewTicker(lastTick)
	defer tick.Stop()
	for s.waits() && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, c := range s.conns {
		if c.ConnState == http.StateNew { // Shutdown would wait 5 seconds for it
			_ = conn.Close()
		}
	}
	s.conns = nil
}

// waits reports whether a connection may ask for something still, or does.
func (s *server) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks++ // of the system's clock: the gateway's may stand still
	for _, c := range s.conns {
		patience := s.quiet
		switch c.ConnState {
		case http.StateActive:
			return true
		case http.StateNew:
			patience = unusedTime
		}
		if time.Duration(s.ticks-max(c.since, 1))*lastTick < patience {
			return true
		}
	}
	return false
}

// stop ends the server when the requests under way are answered. It gives up
// after patience, and cuts them off then.
func (s *server) stop(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer s.cut() // a WebSocket ends with it
	s.lastCall(ctx)
	err := s.Shutdown(ctx)
	if err == nil {
		err = s.taken.wait(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("requests still under way after %s were cut off: %w", patience, err), s.Close())
	}
	return nil
}
