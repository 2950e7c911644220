package embeddedgateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// actorKey is the key of a context's actor.
type actorKey struct{}

// WithActor says who does what is done with a context, for the audit trail: "by
// the command line". It is public.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actorOf returns who acts, or "".
func actorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return wire.Mask(actor)
}

// operated is an event of the audit trail about what an operator did.
func operated(ctx context.Context, name, protocol, agent string) store.Event {
	return store.Event{Protocol: protocol, Name: name, Agent: wire.Mask(agent), Detail: actorOf(ctx)}
}

// Resume lets an agent come back that was suspended. Its keys stay revoked, and
// the tokens that it had stay over: it gets others the way its protocol has for
// an agent that has lost them. An agent that is not suspended stays so. There is
// no such agent: the error wraps [store.ErrNotFound].
func (g *Gateway) Resume(ctx context.Context, protocol, agent string) error {
	err := g.store.Tx(ctx, func(tx *store.Tx) error {
		found, err := tx.Agent(protocol, agent)
		if err != nil {
			return err
		}
		fresh, err := tx.Resume(found, claims(protocol)...)
		if err != nil || !fresh {
			return err
		}
		return tx.Audit(operated(ctx, "agent_resumed", protocol, agent))
	})
	if err != nil {
		return fmt.Errorf("resume an agent of %s: %w", protocol, err)
	}
	return nil
}

// RevokeKey ends a key of an agent at once, and with it the tokens that it was
// exchanged for; at AgentDoor, where tokens come by the agent's signature, all
// that are out. It reports whether the key was not revoked before. There is no
// such agent or it has no such key: the error wraps [store.ErrNotFound].
func (g *Gateway) RevokeKey(ctx context.Context, protocol, agent, keyID string) (revoked bool, err error) {
	err = g.store.Tx(ctx, func(tx *store.Tx) error {
		revoked = false
		found, err := tx.Agent(protocol, agent)
		if err != nil {
			return err
		}
		cred, err := tx.CredentialOf(found.ID, keyID)
		if err == nil && isClaim(cred) {
			err = store.ErrNotFound
		}
		if err != nil {
			return err
		}
		if revoked, err = tx.Revoke(cred.ID); err != nil || !revoked {
			return err
		}
		if protocol == wire.AgentDoorName {
			if err := tx.EndTokens(found.ID); err != nil {
				return err
			}
		}
		event := operated(ctx, "key_revoked", protocol, agent)
		event.KeyID = cred.KeyID
		return tx.Audit(event)
	})
	if errors.Is(err, store.ErrNotFound) {
		return false, fmt.Errorf("revoke a key of an agent of %s: %w", protocol, store.ErrNotFound)
	}
	if err != nil {
		return false, fmt.Errorf("revoke a key of an agent of %s: %w", protocol, err)
	}
	return revoked, nil
}

// ReadOutbox is [Gateway.Outbox] for somebody who reads the letters: that they did
// is put into the audit trail before.
func (g *Gateway) ReadOutbox(ctx context.Context) ([]Mail, error) {
	err := g.store.Tx(ctx, func(tx *store.Tx) error { return tx.Audit(operated(ctx, "outbox_read", keyring{}.name(), "")) })
	if err != nil {
		return nil, fmt.Errorf("note that the outbox is read: %w", err)
	}
	return g.Outbox(ctx)
}
