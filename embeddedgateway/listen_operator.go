package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// ServeOperator answers requests for another handler than the gateway's own, the
// operator's, on a listener of its own, with the same patience and the same end
// as [Gateway.Serve].
func (g *Gateway) ServeOperator(ctx context.Context, ln net.Listener, h http.Handler) error {
	s := newServer(ctx, g)
	s.Handler = h
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	err := s.stop(context.WithoutCancel(ctx), g.cfg.Drain.timeout())
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // a page that hung: nothing of it is lost
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
