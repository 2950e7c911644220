package embeddedgateway

import "time"

// DefaultDrainTimeout is how long requests that are under way at the end may
// take: who started us may wait 10 seconds.
const DefaultDrainTimeout = 8 * time.Second

// Drain says how a gateway that serves ends. First [Gateway.Handler] answers
// /readyz with 503; when Delay is over, no connection is taken any more; and what
// is under way then has Timeout to end.
type Drain struct {
	Delay   time.Duration
	Timeout time.Duration // 0: DefaultDrainTimeout
}
