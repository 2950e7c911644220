package conform

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"slices"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// scoped is what becomes of who lacks a scope.
func (a *agentDoor) scoped() check {
	return must("scope.missing", "a request without the scope that its path wants is refused with 403, never 401", Choice, func(ctx context.Context) error {
		if a.o.Scope == "" || a.o.ScopedPath == "" {
			return skip("it needs a path that wants a scope: --scope names both")
		}
		if err := a.held(); err != nil {
			return err
		}
		others := slices.DeleteFunc(slices.Clone(a.free), func(scope string) bool { return scope == a.o.Scope })
		if len(others) == 0 || len(others) == len(a.free) {
			return skip("the service offers no scope %s, or none beside it, that costs nothing", a.o.Scope)
		}
		// Of a path that is refused with the scope, too, a refusal tells nothing.
		holder, err := a.more(ctx, a.o.Scope)
		if err != nil {
			return err
		}
		if _, err := a.usable(ctx, func(context.Context) (call, error) { return get(a.o.ScopedPath, holder.header), nil }); err != nil {
			return err
		}
		lacks, err := a.more(ctx, others[0])
		if err != nil {
			return err
		}
		return status(a.send(ctx, get(a.o.ScopedPath, lacks.header)), http.StatusForbidden)
	})
}

// doorAgent is another agent of the run.
type doorAgent struct {
	key    ed25519.PrivateKey
	id     string
	header map[string]string // that its API key is sent in
}

// more registers another agent, with one scope.
func (a *agentDoor) more(ctx context.Context, scope string) (doorAgent, error) {
	made := doorAgent{key: a.pair()}
	if a.paid {
		return made, skip("the service wants to be paid, and this does not pay")
	}
	pending := a.send(ctx, a.registers(made.key, []string{scope}))
	if err := granted(pending); err != nil {
		return made, err
	}
	verified := a.send(ctx, a.signs(made.key, pending))
	a.registered(verified)
	made.id, made.header = verified.text("agent_id"), bearer(verified.text("api_key"))
	return made, granted(verified)
}

// inactive is what becomes of an agent that is suspended, and how it is told so:
// never by a 401, which the protocol's own SDK answers with a new JWT, again and
// again.
func (a *agentDoor) inactive() []check {
	var gone doorAgent
	late := func(run func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if !a.suspended {
				return skip("no agent was suspended")
			}
			return run(ctx)
		}
	}
	return []check{
		a.suspension(func() string { return gone.id }, func(ctx context.Context) (call, error) {
			var err error
			gone, err = a.more(ctx, a.scopes[0])
			return get(a.o.Path, gone.header), err
		}),
		must("suspended.auth", "a suspended agent that signs for a JWT is refused with 403 and agent_inactive", Published, late(func(ctx context.Context) error {
			return a.refused(a.send(ctx, a.signsIn(gone.key, gone.id, a.stamp(0))), http.StatusForbidden, wire.AgentDoorAgentInactive)
		})),
		should("suspended.forbidden", "its API key is refused with 403, never 401", Choice, late(func(ctx context.Context) error {
			return status(a.send(ctx, get(a.o.Path, gone.header)), http.StatusForbidden)
		})),
	}
}
