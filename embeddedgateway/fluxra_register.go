package embeddedgateway

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// fluxraEmailMark is what the ticket of an attempt to register has of the email:
// its hash under a key.
const fluxraEmailMark = "email"

// errOvertaken: the same attempt was answered while this request was prepared.
var errOvertaken = errors.New("another request of the same attempt was faster")

// register makes an agent and its recovery key. Names are not unique, so that
// the same attempt again can be told from another agent by its Idempotency-Key
// only: it gets the agent that is there.
func (f *fluxra) register(ctx context.Context, c *call, in fluxraRegister) (wire.FluxraRegistered, error) {
	try, err := attemptOf(c, f.vault, "register")
	if err != nil {
		return wire.FluxraRegistered{}, err
	}
	for range 3 {
		out, err := f.enrol(ctx, c, in, try)
		if !errors.Is(err, errOvertaken) {
			return out, err
		}
	}
	return wire.FluxraRegistered{}, unavailable()
}

// enrol is register for one try. What is made for an agent, such as the letter to
// it, is made before the transaction, so whose attempt it is is judged twice.
func (f *fluxra) enrol(ctx context.Context, c *call, in fluxraRegister, try attempt) (wire.FluxraRegistered, error) {
	var none wire.FluxraRegistered
	agentID, err := f.newAgentID()
	if err != nil {
		return none, err
	}
	known, err := f.attempted(ctx, c, in, try)
	if err != nil {
		return none, err
	}
	if known != "" {
		agentID = known
	}
	key, cred, err := f.newRecoveryKey()
	if err != nil {
		return none, err
	}
	var v *verification
	if address, ok := fluxraAddress(in.Email); ok {
		if v, err = f.newVerification(address, agentID, in.AgentName); err != nil {
			return none, err
		}
	}
	c.agent, c.keyID = agentID, cred.KeyID
	var agent store.Agent
	var sent bool
	err = c.store.Tx(ctx, func(tx *store.Tx) (err error) {
		switch now, err := f.repeated(tx, in, try); {
		case err != nil:
			return err
		case now != known:
			return errOvertaken
		}
		agent, err = enrolFluxra(tx, c, store.Agent{
			Protocol: wire.FluxraName, Name: agentID, DisplayName: in.AgentName, Attrs: fluxraAttrs(in.Metadata),
		}, cred, known != "")
		if err != nil {
			return err
		}
		if v != nil {
			if sent, err = v.sendFirst(tx, c, agentID); err != nil {
				return err
			}
		}
		return try.remember(tx, agentID, map[string]string{attemptIssued: cred.KeyID, fluxraEmailMark: f.emailMark(in)})
	})
	if err != nil {
		return none, err
	}
	out := wire.FluxraRegistered{
		AgentID: agentID, AgentName: in.AgentName, RecoveryKey: key,
		CreatedAt: wire.SecondTime(agent.CreatedAt), Warning: wire.FluxraWarning,
	}
	if v != nil {
		f.mail.wake()
		out.EmailVerificationSent = new(sent && f.mail.delivers()) // in an outbox it reaches nobody by itself
		out.EmailVerificationExpiresAt = new(wire.SecondTime(v.ticket.ExpiresAt))
	}
	return out, nil
}

// emailMark is what is remembered of the email of a registration.
func (f *fluxra) emailMark(in fluxraRegister) string {
	address, ok := fluxraAddress(in.Email)
	if !ok {
		return ""
	}
	mark := f.emailHash(address)
	return hex.EncodeToString(mark[:])
}

// attempted returns the agent_id that the same attempt got before, or "".
func (f *fluxra) attempted(ctx context.Context, c *call, in fluxraRegister, try attempt) (agentID string, err error) {
	if !try.named {
		return "", nil
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) (err error) {
		agentID, err = f.repeated(tx, in, try)
		return err
	})
	return agentID, err
}

// repeated is attempted within a transaction. The name and the email are parts of
// the attempt: a letter has gone to that address, so with another one it would be
// somebody else who may recover the account.
func (f *fluxra) repeated(tx *store.Tx, in fluxraRegister, try attempt) (agentID string, err error) {
	t, ok, err := try.before(tx)
	if err != nil || !ok {
		return "", err
	}
	agent, err := tx.Agent(wire.FluxraName, t.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	switch {
	case agent.DisplayName != in.AgentName || t.Data[fluxraEmailMark] != f.emailMark(in):
		return "", reused(wire.FluxraKeyReused)
	case !agent.DisabledAt.IsZero():
		return "", fluxraSuspended()
	}
	if _, ok, err = try.repeats(tx, agent, fluxraRecovery, wire.FluxraKeyReused); err != nil || !ok {
		return "", err
	}
	return agent.Name, nil
}

// enrolFluxra stores a new agent and its recovery key; or, where its registration
// is repeated, ends all keys that it has and stores another.
func enrolFluxra(tx *store.Tx, c *call, a store.Agent, cred store.Credential, repeated bool) (store.Agent, error) {
	agent, created, err := tx.EnsureAgent(a)
	if err == nil && created == repeated {
		err = errors.New("an agent_id was drawn twice")
	}
	if err != nil {
		return agent, err
	}
	event := c.event("agent_registered")
	if repeated {
		event.Detail = attemptRepeated
		for _, kind := range []string{fluxraRecovery, fluxraKey} {
			if _, err := tx.RevokeAll(agent.ID, kind); err != nil {
				return agent, err
			}
		}
	}
	cred.AgentID = agent.ID
	if _, err := tx.Issue(cred, 0); err != nil {
		return agent, err
	}
	return agent, tx.Audit(event)
}
