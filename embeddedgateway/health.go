package embeddedgateway

import (
	"context"
	"net/http"
	"sync"
	"time"
)

const (
	healthPath = "/healthz" // the process is alive
	readyPath  = "/readyz"  // requests are taken, and the database answers

	// probeTime is how long the database may take to answer.
	probeTime = time.Second
	// probeEvery is for how long what it answered is believed: whoever asks,
	// and however often, it is asked once in that time.
	probeEvery = time.Second
)

// prober asks the database whether it is there.
type prober struct {
	ask func(context.Context) error
	now func() time.Time

	mu      sync.Mutex
	asked   time.Time
	err     error
	running chan struct{} // closed when the probe that runs is over; nil: none does
}

// probe returns what the database answered last, asking it if that was long ago.
func (p *prober) probe(ctx context.Context) error {
	p.mu.Lock()
	if p.running == nil && (p.asked.IsZero() || p.now().Sub(p.asked).Abs() >= probeEvery) {
		p.running = make(chan struct{})
		go p.run(context.WithoutCancel(ctx), p.running)
	}
	running := p.running
	p.mu.Unlock()
	if running != nil {
		late := time.NewTimer(probeTime)
		defer late.Stop()
		select {
		case <-running:
		case <-late.C:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *prober) run(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.err, p.running = p.now(), err, nil
	close(done)
}

// ready returns why no requests should be sent here, "" for no reason.
func (g *Gateway) ready(ctx context.Context) string {
	if g.draining.Load() {
		return "draining"
	}
	if g.prober.probe(ctx) != nil {
		return "database" // what is wrong with it is in the log, not for strangers
	}
	return ""
}

// health answers that the process is alive, and nothing else.
func health(w http.ResponseWriter, r *http.Request) {
	if !reads(w, r) {
		return
	}
	reply(w, http.StatusOK, []byte(`{"status":"alive"}`))
}

// readiness answers whether requests should be sent here.
func (g *Gateway) readiness(w http.ResponseWriter, r *http.Request) {
	if !reads(w, r) {
		return
	}
	if why := g.ready(r.Context()); why != "" {
		w.Header().Set("Retry-After", "1")
		reply(w, http.StatusServiceUnavailable, []byte(`{"status":"not ready","reason":"`+why+`"}`))
		return
	}
	reply(w, http.StatusOK, []byte(`{"status":"ready"}`))
}

// reads refuses a request that is neither GET nor HEAD.
func reads(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	reply(w, http.StatusMethodNotAllowed, []byte(`{"error":{"code":"method","message":"allowed: GET, HEAD"}}`))
	return false
}
