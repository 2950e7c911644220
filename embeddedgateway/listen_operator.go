package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// operatorPatience is how long a page that is under way may take at the end: who
// started us waits for the gateway's own requests already.
const operatorPatience = time.Second

// ServeOperator answers requests for another handler than the gateway's own, the
// operator's, on a listener of its own, until ctx ends. What is under way then is
// answered, as by [Gateway.Serve].
func (g *Gateway) ServeOperator(ctx context.Context, ln net.Listener, h http.Handler) error {
	s := newServerFor(ctx, g, h) // what the gateway proxies is not the page's to wait for, or to end
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(s.through(ln)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	err := s.stop(context.WithoutCancel(ctx), min(operatorPatience, g.cfg.Drain.timeout()))
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // a page that hung: nothing of it is lost
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
