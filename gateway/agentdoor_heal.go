package gateway

import (
	"cmp"
	"context"
	"errors"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Heal implements [Healer]. The key pair is the identity, and was stored first:
// where the service has registered it, a JWT is had with it, and that is all that
// was missing; an API key that was lost on its way cannot be had again. Where the
// service does not know it nothing has happened there, and the credential stays
// pending until somebody registers it once more. Of a renewal nothing is left to
// do: a JWT ends no other one.
func (a *AgentDoor) Heal(ctx context.Context, u Unfinished) error {
	return a.steward.resumed(ctx, a.store, u.Key, func(ctx context.Context, u Unfinished) error {
		c, err := a.store.Get(ctx, u.Key)
		switch {
		case errors.Is(err, credstore.ErrNotFound):
			return nil
		case err != nil:
			return err
		case u.Action != ActRegister, c.State != credstore.StatePending, c.Attrs[agentDoorAgentID] == "":
			return nil // no answer was waited for, or it is in the store
		}
		d := agentDoorDocument{
			register: cmp.Or(c.Attrs[agentDoorRegister], wire.AgentDoorRegisterPath), auth: agentDoorAuthPath(c.Info),
		}
		_, err = a.takeUp(ctx, c, c.Attrs[agentDoorAgentID], d)
		if isRefusal(err, wire.AgentDoorAgentNotFound) {
			return nil
		}
		return err
	})
}
