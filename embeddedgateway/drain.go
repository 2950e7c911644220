package embeddedgateway

import (
	"context"
	"sync"
	"time"
)

// DefaultDrainTimeout is how long requests that are under way at the end may
// take: who started us may wait 10 seconds.
const DefaultDrainTimeout = 8 * time.Second

// Drain says how a gateway that serves ends. First /readyz says no, and requests
// are answered as before, but that each answer has its client leave the
// connection; when Delay is over, no connection is taken any more; and what is
// under way then has Timeout to end. Connections that nobody uses are closed then.
type Drain struct {
	Delay   time.Duration
	Timeout time.Duration // 0: DefaultDrainTimeout
}

func (d Drain) timeout() time.Duration {
	if d.Timeout == 0 {
		return DefaultDrainTimeout
	}
	return d.Timeout
}

// taken counts the requests whose connection was taken over, as by a WebSocket:
// [http.Server.Shutdown] does not know them any more.
type taken struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when there is none; nil: nobody waits for that
}

func (t *taken) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n += n; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// wait returns when there is none any more, or with ctx.
func (t *taken) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
