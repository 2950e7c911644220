package embeddedgateway

import (
	"context"
	"fmt"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// Suspend ends everything that an agent was issued, at once, and keeps its name,
// so that it cannot register again. An agent that is suspended already stays so.
// There is no such agent: the error wraps [store.ErrNotFound].
func (g *Gateway) Suspend(ctx context.Context, protocol, agent string) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		found, err := tx.Agent(protocol, agent)
		if err != nil {
			return err
		}
		fresh, err := tx.Suspend(found.ID)
		if err != nil || !fresh {
			return err
		}
		return tx.Audit(operated(ctx, "agent_suspended", protocol, agent))
	})
	if err != nil {
		return fmt.Errorf("suspend an agent of %s: %w", protocol, err)
	}
	return nil
}

// Delete forgets an agent with everything that it was issued. Only the audit
// trail still knows of it, and its name is free. There is no such agent: the
// error wraps [store.ErrNotFound].
func (g *Gateway) Delete(ctx context.Context, protocol, agent string) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		found, err := tx.Agent(protocol, agent)
		if err != nil {
			return err
		}
		if err := outlastAgentDoor(tx, found); err != nil {
			return err
		}
		if err := tx.DeleteAgent(found.ID); err != nil {
			return err
		}
		return tx.Audit(operated(ctx, "agent_deleted", protocol, agent))
	})
	if err != nil {
		return fmt.Errorf("delete an agent of %s: %w", protocol, err)
	}
	return nil
}

// suspended refuses to issue anything to an agent that was suspended. It is for
// the protocols whose agents come back by registering again.
func suspended(agent store.Agent) error {
	if agent.DisabledAt.IsZero() {
		return nil
	}
	return forbidden("agent_suspended", "this agent is suspended: its operator can ask the one of this service why")
}
