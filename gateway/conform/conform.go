// Package conform grades a service by a protocol's whole table of routes and
// errors: it registers agents there, uses, rotates and revokes what they are
// issued, and sends what must be refused.
//
// Each protocol is one table of checks, which run in their order, one request
// after the other. A check knows what it expects and who says so: the service's
// own onboarding page (the seed), its other public documents, or Enlist where
// both are silent. What the seed says a service must do; where Enlist has chosen,
// it mostly should.
//
// A run makes accounts that it cannot always remove. It asks the given origin
// only, follows no redirect, and ends after so many requests and so long.
package conform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Source is who says what a check expects.
type Source string

// The sources.
const (
	Seed      Source = "seed"            // the service's own onboarding page
	Published Source = "published"       // its other public documents, or a live implementation
	Choice    Source = "Enlist's choice" // neither says anything
)

// Severity is how much a check matters.
type Severity string

// The severities.
const (
	Must   Severity = "must"   // without it agents cannot rely on the service
	Should Severity = "should" // a service without it is poorer, and agents get by
)

// Outcome is what came of a check.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip" // it could not be graded; the reason says why
)

// Check is one line of a protocol's table.
type Check struct {
	ID       string   `json:"id"`     // such as register.issued
	Expect   string   `json:"expect"` // in words
	Source   Source   `json:"source"`
	Severity Severity `json:"severity"`
}

// Exchange is a request and its answer, without secrets.
type Exchange struct {
	Request string `json:"request"` // the method and the path
	Status  int    `json:"status"`  // 0: there was no answer
	Answer  string `json:"answer"`  // the beginning of its body, or why there was none
}

// Result is a check with what came of it.
type Result struct {
	Check
	Outcome  Outcome    `json:"outcome"`
	Reason   string     `json:"reason,omitempty"`   // why it failed or was skipped
	Evidence []Exchange `json:"evidence,omitempty"` // of one that failed
}

// Report is what a service was graded with.
type Report struct {
	Protocol  string    `json:"protocol"`
	Target    string    `json:"target"` // the origin
	StartedAt time.Time `json:"started_at"`
	Seconds   float64   `json:"seconds"`
	Requests  int       `json:"requests"`
	Results   []Result  `json:"results"`
	// Left is what stays at the service, such as accounts that no route ends.
	Left []string `json:"left,omitempty"`
}

// Count returns how many checks of a severity had an outcome.
func (r Report) Count(s Severity, o Outcome) int {
	n := 0
	for _, result := range r.Results {
		if result.Severity == s && result.Outcome == o {
			n++
		}
	}
	return n
}

// Graded reports whether an agent could be registered at all. Without that,
// nothing that matters was looked at.
func (r Report) Graded() bool {
	return slices.ContainsFunc(r.Results, func(result Result) bool {
		return result.Outcome == Pass && slices.Contains([]string{"register.issued", "secret.issued", "verify.issued", "onboard.issued"}, result.ID)
	})
}

// OK reports whether the service does all that it must, as far as that could be
// graded.
func (r Report) OK() bool { return r.Graded() && r.Count(Must, Fail) == 0 }

// Options say what is graded, and how. URL, Protocol and Now are required.
type Options struct {
	URL      string // the service's origin
	Protocol string // "lona"
	Now      func() time.Time
	// Rand is where names, keys and wallets come from. Nil: crypto/rand.
	Rand io.Reader
	// Transport makes the connections. Nil: one of its own, without a proxy.
	Transport http.RoundTripper
	// InsecureHTTP lets what is issued travel in the clear to another machine.
	InsecureHTTP bool
	// LonaSecret is a registration secret of Lona's. "": what needs it is skipped.
	LonaSecret string
	// Path is one that wants an AgentDoor credential. "": [wire.AgentDoorWhoAmIPath].
	Path string
	// Exhaust has limits used up that count by the address of whoever asks: for
	// the rest of the hour nobody there can register.
	Exhaust bool
	// MaxRequests bounds a run; 0: 1000. Timeout is for one request; 0: 15 seconds.
	// Deadline is for the whole run; 0: 10 minutes.
	MaxRequests int
	Timeout     time.Duration
	Deadline    time.Duration
	// Mail returns the texts of the letters to an address, the oldest first. Nil:
	// what needs a mailbox is skipped.
	Mail func(ctx context.Context, to string) ([]string, error)
	// Wait has that much time pass, at the service and for Now. Nil: what takes
	// minutes or longer is skipped.
	Wait func(ctx context.Context, d time.Duration) error
	// MostWait is the longest time that Wait is asked for at once; what takes
	// longer is skipped. 0: any.
	MostWait time.Duration
	// Suspend has the operator of the service suspend an agent of the run, by the
	// name that the operator knows it by. Nil: what becomes of one is skipped.
	Suspend func(ctx context.Context, agent string) error
	// Scope and ScopedPath are a scope that an AgentDoor service offers, and a path
	// that wants it. "": what becomes of who lacks it is skipped.
	Scope, ScopedPath string
	// SpreadAddresses has each check come from an address of its own, as
	// X-Forwarded-For says: limits that go by the address end no run then, at a
	// service that takes whoever runs it for a proxy of its own.
	SpreadAddresses bool
	// Progress, if it is not nil, gets each result as soon as there is one.
	Progress func(Result)
}

// check is a line of the table that can be run.
type check struct {
	Check
	run func(ctx context.Context) error // nil: it passes; a *skipped: it was not graded
}

func must(id, expect string, source Source, run func(context.Context) error) check {
	return check{Check{id, expect, source, Must}, run}
}

func should(id, expect string, source Source, run func(context.Context) error) check {
	return check{Check{id, expect, source, Should}, run}
}

// grader is how a protocol is graded.
type grader struct {
	checks []check
	// tidy removes what can be removed, and returns what cannot.
	tidy func(ctx context.Context) (left []string)
	// code is the error code in the body of a refusal, at the protocol's place.
	code func(a answer) string
}

// graders are the protocols that can be graded.
func graders() map[string]func(*session) grader {
	return map[string]func(*session) grader{
		wire.AgentDoorName: gradeAgentDoor,
		wire.FluxraName:    gradeFluxra,
		wire.LithtrixName:  gradeLithtrix,
		wire.LonaName:      gradeLona,
		wire.LuminaName:    gradeLumina,
	}
}

// Protocols returns the names of the protocols that can be graded, sorted.
func Protocols() []string {
	var names []string
	for name := range graders() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Checks returns a protocol's table, in the order of a run; nil for one that
// cannot be graded.
func Checks(protocol string) []Check {
	grade, ok := graders()[protocol]
	if !ok {
		return nil
	}
	s := &session{rand: rand.Reader}
	var list []Check
	for _, c := range table(s, grade(s)) {
		list = append(list, c.Check)
	}
	return list
}

// table is what a protocol is graded by, with what holds for every protocol.
func table(s *session, g grader) []check { return append(g.checks, s.everywhere()...) }

// Run grades a service. An error says why that could not begin, or that ctx has
// ended; what the service does wrong is in the report.
func Run(ctx context.Context, o Options) (Report, error) {
	s, err := newSession(o)
	if err != nil {
		return Report{}, err
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadline)
	defer cancel()
	g := graders()[o.Protocol](s)
	s.code = g.code
	report := Report{Protocol: o.Protocol, Target: s.base, StartedAt: o.Now().UTC()}
	for _, c := range table(s, g) {
		result := s.judge(ctx, c)
		report.Results = append(report.Results, result)
		if o.Progress != nil {
			o.Progress(result)
		}
		if err := outer.Err(); err != nil {
			break
		}
	}
	// What was made is ended even where the run was not: it has the time that a
	// few requests take.
	tidying, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.o.Timeout)
	defer cancel()
	report.Left = g.tidy(tidying)
	report.Requests = s.sent()
	report.Seconds = o.Now().Sub(report.StartedAt).Seconds()
	return report, outer.Err()
}

// judge runs one check.
func (s *session) judge(ctx context.Context, c check) Result {
	s.begin()
	result := Result{Check: c.Check, Outcome: Pass}
	err := ctx.Err()
	if err == nil {
		err = c.run(ctx)
	}
	if skip, ok := errors.AsType[*skipped](err); ok {
		result.Outcome, result.Reason = Skip, skip.reason
		return result
	}
	if ctx.Err() != nil {
		result.Outcome, result.Reason = Skip, "the time for the run was over"
		return result
	}
	if err != nil {
		result.Outcome, result.Reason, result.Evidence = Fail, s.masked(err.Error()), s.evidence()
	}
	return result
}

// skipped is why a check could not be graded.
type skipped struct{ reason string }

// Error implements error.
func (s *skipped) Error() string { return s.reason }

func skip(format string, args ...any) error { return &skipped{fmt.Sprintf(format, args...)} }
