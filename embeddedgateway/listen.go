package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	headerTime = 5 * time.Second  // a request's headers
	readTime   = 15 * time.Second // a whole request
	writeTime  = 30 * time.Second // a request and its answer
	idleTime   = 2 * time.Minute  // a connection between two requests
	maxHeader  = 32 << 10
	// unusedTime is how long a connection is waited for at the end that has not
	// asked for anything yet: what it was made for is on its way.
	unusedTime = 250 * time.Millisecond
)

// Serve answers requests on a listener until ctx ends, over TLS if Config.TLS is
// set. Then /readyz says no at once; when Config.Drain.Delay is over, Serve takes
// no more, answers those that are under way, and returns nil; it closes the
// listener in any case. A request that hangs even then is cut off, and the log
// says so: nothing is lost by it that was answered.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	return g.serve(ctx, ln, g.cfg.Drain.timeout())
}

func (g *Gateway) serve(ctx context.Context, ln net.Listener, patience time.Duration) error {
	s := newServer(ctx, g)
	failed := make(chan error, 1)
	go func() { failed <- s.listen(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	g.draining.Store(true)
	if g.cfg.Drain.Delay > 0 { // a load balancer is to see it
		over := time.NewTimer(g.cfg.Drain.Delay)
		defer over.Stop()
		select {
		case err := <-failed:
			return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
		case <-over.C:
		}
	}
	ctx = context.WithoutCancel(ctx)
	err := s.stop(ctx, patience)
	if errors.Is(err, context.DeadlineExceeded) {
		g.cfg.Logger.WarnContext(ctx, "requests that hung were cut off at the end; they got no answer", "after", patience)
		err = nil
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// server is an http.Server that knows its connections that have not asked for
// anything yet: [http.Server.Shutdown] would wait 5 seconds for each.
type server struct {
	http.Server
	mu     sync.Mutex
	unused map[net.Conn]bool // nil: stopping
	door   *door             // nil: it does not listen itself
	taken  *taken
	cut    context.CancelFunc // ends the contexts of all requests
}

// newServer makes a server for the gateway. When it is stopped, what has no end
// of its own is ended.
func newServer(ctx context.Context, g *Gateway) *server {
	s := newServerFor(ctx, g, g.handler)
	s.taken = &g.taken
	s.RegisterOnShutdown(g.proxy.drain)
	return s
}

// newServerFor makes a server whose requests go on when ctx ends: stop has them
// answered.
func newServerFor(ctx context.Context, g *Gateway, h http.Handler) *server {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	s := &server{
		Server: http.Server{
			Handler:           h,
			ReadHeaderTimeout: headerTime,
			ReadTimeout:       readTime,
			WriteTimeout:      writeTime,
			IdleTimeout:       idleTime,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
			TLSConfig:         g.cfg.TLS,
			BaseContext:       func(net.Listener) context.Context { return base },
		},
		unused: map[net.Conn]bool{}, taken: &taken{}, cut: cut,
	}
	s.ConnState = s.track
	return s
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

// listen serves a listener, over TLS if there is a certificate.
func (s *server) listen(ln net.Listener) error {
	ln = s.through(ln)
	if s.TLSConfig != nil {
		return s.ServeTLS(ln, "", "")
	}
	return s.Serve(ln)
}

// through returns a listener as one that stop can shut out others from.
func (s *server) through(ln net.Listener) net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door = &door{Listener: ln, shut: make(chan struct{}), closed: make(chan struct{})}
	return s.door
}

func (s *server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.unused, conn)
	case s.unused == nil:
		_ = conn.Close()
	default:
		s.unused[conn] = true
	}
}

// lastCall takes no more connections, and waits for those to ask that have been
// made and have not yet: from Shutdown on the server would not answer. Those that
// say nothing it closes.
func (s *server) lastCall(most time.Duration) {
	s.mu.Lock()
	if s.door != nil {
		s.door.shutOut()
	}
	s.mu.Unlock()
	late := time.NewTimer(most)
	defer late.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for waits := true; waits; {
		s.mu.Lock()
		waits = len(s.unused) > 0
		s.mu.Unlock()
		if !waits {
			break
		}
		select {
		case <-tick.C:
		case <-late.C:
			waits = false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.unused {
		_ = conn.Close()
	}
	s.unused = nil
}

// stop ends the server when the requests under way are answered. It gives up
// after patience, and cuts them off then.
func (s *server) stop(ctx context.Context, patience time.Duration) error {
	s.lastCall(min(unusedTime, patience))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer s.cut() // a WebSocket ends with it
	err := s.Shutdown(ctx)
	if err == nil {
		err = s.taken.wait(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("requests still under way after %s were cut off: %w", patience, err), s.Close())
	}
	return nil
}
