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
	s.quiet = quietTime
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

// server is an http.Server that knows its connections, so that it can end without
// losing what is asked by them: see [server.lastCall].
type server struct {
	http.Server
	quiet  time.Duration // how long at the end a connection must have asked for nothing
	ending func()        // ends what has no end of its own
	door   *door         // nil: it does not listen itself
	taken  *taken
	cut    context.CancelFunc // ends the contexts of all requests

	mu    sync.Mutex
	conns map[net.Conn]connState // nil: it takes no more
	ticks int                    // of the last call
}

// newServer makes a server for the gateway. When it is stopped, what has no end
// of its own is ended.
func newServer(ctx context.Context, g *Gateway) *server {
	s := newServerFor(ctx, g, g.handler)
	s.taken = &g.taken
	s.ending = g.proxy.drain
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
		ending: func() {}, taken: &taken{}, cut: cut, conns: map[net.Conn]connState{},
	}
	s.ConnState = s.track
	return s
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
