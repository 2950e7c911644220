package gateway

import (
	"context"
	"fmt"
)

// policy says what may be done with which credential.
type policy struct {
	daily int // how many registrations a day; 0: any number
}

func newPolicy(Options) *policy { return &policy{} }

// permit returns nil if an act may be done, a *[PolicyError] if not, and an
// *[ApprovalError] if a person must be asked first.
func (*policy) permit(context.Context, Act) error { return nil }

// count counts a registration against the daily number of them, or returns a
// *[PolicyError].
func (p *policy) count(ctx context.Context, j *journal) error {
	if p.daily == 0 {
		return nil
	}
	room, err := j.registered(ctx, p.daily)
	if err != nil || room.IsZero() {
		return err
	}
	return &PolicyError{
		Why:    fmt.Sprintf("The policy allows %d registrations a day, and they are used up.", p.daily),
		Remedy: "There is room again on " + day(room) + ".",
	}
}

// PolicyError says that the policy refuses what was asked for.
type PolicyError struct {
	Why    string // one sentence
	Remedy string // one sentence: what a person can do to allow it
}

// Error implements error.
func (e *PolicyError) Error() string { return e.Why + " " + e.Remedy }

// ApprovalError says that a person must agree first.
type ApprovalError struct {
	Question string // one sentence of Enlist's own that names agent, service and action
	ID       string // names the question: the answer counts for this one only
	Final    bool   // nobody can be asked, or the answer was no
	Remedy   string // one sentence: how a person can allow it without being asked
}

// Error implements error.
func (e *ApprovalError) Error() string { return e.Question + " " + e.Remedy }
