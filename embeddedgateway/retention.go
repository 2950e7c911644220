package embeddedgateway

import "time"

// Retention says how long is kept what nobody needs any more. Zero is the
// default; a negative time keeps it for ever.
type Retention struct {
	Audit   time.Duration // events of the audit trail; for ever
	Tickets time.Duration // what has expired, to say that it has; an hour
	Usage   time.Duration // counts of requests; for ever
}
