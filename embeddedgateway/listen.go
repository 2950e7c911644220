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
	headerTime   = 5 * time.Second  // a request's headers
	readTime     = 15 * time.Second // a whole request
	writeTime    = 30 * time.Second // a request and its answer
	idleTime     = 2 * time.Minute  // a connection between two requests
	maxHeader    = 32 << 10
	shutdownTime = 8 * time.Second // requests that are under way at the end; who started us may wait 10
)

// Serve answers requests on a listener until ctx ends. It then takes no more,
// answers those that are under way, and returns nil; it closes the listener in
// any case. A request that hangs even then is cut off, and the log says so:
// nothing is lost by it that was answered.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	return g.serve(ctx, ln, shutdownTime)
}

func (g *Gateway) serve(ctx context.Context, ln net.Listener, patience time.Duration) error {
	s := newServer(g)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
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
}

func newServer(g *Gateway) *server {
	s := &server{
		Server: http.Server{
			Handler:           g.handler,
			ReadHeaderTimeout: headerTime,
			ReadTimeout:       readTime,
			WriteTimeout:      writeTime,
			IdleTimeout:       idleTime,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
		},
		unused: map[net.Conn]bool{},
	}
	s.ConnState = s.track
	s.RegisterOnShutdown(g.proxy.drain)
	return s
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

// stop ends the server when the requests under way are answered. It gives up
// after patience, and cuts them off then.
func (s *server) stop(ctx context.Context, patience time.Duration) error {
	s.mu.Lock()
	for conn := range s.unused {
		_ = conn.Close()
	}
	s.unused = nil
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests still under way after %s were cut off: %w", patience, err), s.Close())
	}
	return nil
}
