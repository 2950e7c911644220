package conform

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// suspension is the check of what becomes of an agent that the operator suspends.
// agent is its name, as the operator knows it; uses makes a request with what it
// was issued, which works until then.
func (s *session) suspension(agent func() string, uses func(context.Context) (call, error)) check {
	return must("suspended.refused", "what an agent was issued is refused from the very next request on when it is suspended", Choice,
		func(ctx context.Context) error {
			if s.o.Suspend == nil {
				return skip("only the operator can suspend an agent: --admin names their listener")
			}
			c, err := s.usable(ctx, uses)
			if err != nil {
				return err
			}
			if err := s.suspends(ctx, agent()); err != nil {
				return err
			}
			a := s.send(ctx, c)
			if a.err != nil {
				return a.err
			}
			if err := a.met(); err != nil {
				return err
			}
			var f faults
			f.unless(slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden}, a.status), "got status %d, want 401 or 403", a.status)
			return f.err()
		})
}

// usable returns a request that works: of one that does not, a refusal tells
// nothing. A limit that was met before is waited for, where that is possible.
func (s *session) usable(ctx context.Context, uses func(context.Context) (call, error)) (call, error) {
	for try := 0; ; try++ {
		c, err := uses(ctx)
		if err != nil {
			return c, err
		}
		a := s.send(ctx, c)
		switch {
		case a.err != nil:
			return c, a.err
		case a.ok():
			return c, nil
		case a.status != http.StatusTooManyRequests || try > 0:
			return c, skip("what the agent was issued does not work any more: it is answered with %d", a.status)
		}
		if s.o.Wait == nil {
			return c, a.met()
		}
		if err := s.wait(ctx, time.Hour); err != nil {
			return c, err
		}
	}
}

// suspends has the operator suspend an agent of this run.
func (s *session) suspends(ctx context.Context, agent string) error {
	if agent == "" {
		return skip("no agent could be registered")
	}
	if err := s.o.Suspend(ctx, agent); err != nil {
		return skip("the agent could not be suspended: %v", err)
	}
	s.suspended = true
	return nil
}

// elsewhere is an address that nobody else has, by which a service that believes
// its proxies counts the requests of a check apart. It is of the range for
// documentation; limits go by the first half of it.
func (s *session) elsewhere() string {
	return fmt.Sprintf("2001:db8:%x:%x::1", s.spread, s.nth&0xffff)
}
