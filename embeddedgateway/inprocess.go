package embeddedgateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// Origin is the origin of a gateway that is reached by [Gateway.DialContext].
const Origin = "http://enlist.localhost"

// DialContext returns a connection to the gateway that needs no socket: an
// http.Transport with it as its DialContext reaches the gateway under any plain
// http URL; [Origin] is the one to use. At the other end is the same HTTP server
// as behind a listener; its clients come from 127.0.0.1. After [Gateway.Close]
// the error wraps [net.ErrClosed].
func (g *Gateway) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return g.inner.dial(ctx)
}

// inProcess is an HTTP server on a listener in memory. It starts with the first
// connection.
type inProcess struct {
	server *server
	start  sync.Once
	ended  chan struct{} // closed when the server has returned

	conns  chan net.Conn // handed to Accept
	closed chan struct{} // closed by Close
	once   sync.Once
}

func newInProcess(ctx context.Context, g *Gateway) *inProcess {
	return &inProcess{
		server: newServer(context.WithoutCancel(ctx), g),
		ended:  make(chan struct{}),
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
	}
}

func (p *inProcess) dial(ctx context.Context) (net.Conn, error) {
	p.start.Do(func() {
		go func() {
			defer close(p.ended)
			_ = p.server.Serve(p) // only ever http.ErrServerClosed: Accept fails in no other way
		}()
	})
	client, peer := net.Pipe()
	select {
	case p.conns <- pipeEnd{peer}:
		return pipeEnd{client}, nil
	case <-p.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: fmt.Errorf("the embedded gateway: %w", net.ErrClosed)}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: ctx.Err()}
	}
}

// close ends the server when the requests under way are answered.
func (p *inProcess) close() error {
	_ = p.Close() // it takes no more
	err := p.server.stop(context.Background(), DefaultDrainTimeout)
	p.start.Do(func() { close(p.ended) }) // it never started
	<-p.ended
	return err
}

// Accept implements [net.Listener].
func (p *inProcess) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, http.ErrServerClosed
	}
}

// Close implements [net.Listener].
func (p *inProcess) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements [net.Listener].
func (*inProcess) Addr() net.Addr { return loopback() }

// pipeEnd is an end of a net.Pipe that has an address: the gateway counts by it.
type pipeEnd struct{ net.Conn }

// LocalAddr implements [net.Conn].
func (pipeEnd) LocalAddr() net.Addr { return loopback() }

// RemoteAddr implements [net.Conn].
func (pipeEnd) RemoteAddr() net.Addr { return loopback() }

func loopback() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
