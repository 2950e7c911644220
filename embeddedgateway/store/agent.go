package store

import (
	"context"
	"errors"
	"maps"
	"time"
)

// Agent is somebody who has registered, or tried to.
type Agent struct {
	ID          int64 // given by the store
	Protocol    string
	Name        string // what the agent is called in its protocol; unique there
	DisplayName string
	Attrs       map[string]string // what else the protocol knows of it
	CreatedAt   time.Time         // given by the store
	DisabledAt  time.Time         // zero: it is not suspended
	TokensEnded int64             // given by the store: how often its tokens were ended, see [Tx.EndTokens]
}

const (
	agentColumns = `id, protocol, name, display_name, attrs, created_at, disabled_at, tokens_ended`

	selectAgent = `SELECT ` + agentColumns + ` FROM agents WHERE protocol = $1 AND name = $2`

	// The update counts, so that 0 can only be a row that is new; and it
	// locks the row, so that what follows in the same Tx is alone with it.
	// found_by comes back as it was, where the agent was there.
	ensureAgent = `INSERT INTO agents (protocol, name, display_name, attrs, seq, created_at, disabled_at, found_by)
		VALUES ($1, $2, $3, $4, 0, $5, 0, $6)
		ON CONFLICT (protocol, name) DO UPDATE
		SET display_name = excluded.display_name, attrs = excluded.attrs, seq = agents.seq + 1
		RETURNING ` + agentColumns + `, seq, found_by`

	insertAgent = `INSERT INTO agents (protocol, name, display_name, attrs, seq, created_at, disabled_at, found_by)
		VALUES ($1, $2, $3, $4, 0, $5, 0, $6)
		ON CONFLICT (protocol, name) DO NOTHING`

	disableAgent = `UPDATE agents SET disabled_at = $1, seq = seq + 1 WHERE id = $2 AND disabled_at = 0`

	revokeEverything = `UPDATE credentials SET revoked_at = $1 WHERE agent_id = $2 AND revoked_at = 0`

	deleteKeys = `DELETE FROM credentials WHERE agent_id = $1`

	deleteSubject = `DELETE FROM tickets WHERE protocol = $1 AND subject = $2`

	deleteAgent = `DELETE FROM agents WHERE id = $1 RETURNING found_by`

	lockAgent = `UPDATE agents SET seq = seq + 1 WHERE id = $1 RETURNING protocol, name`
)

func (a *Agent) dest() []any {
	return []any{
		&a.ID, &a.Protocol, &a.Name, &a.DisplayName,
		pairs{&a.Attrs},
		stamp{&a.CreatedAt},
		stamp{&a.DisabledAt},
		&a.TokensEnded,
	}
}

// Agent returns the agent of that name, or [ErrNotFound]. It does not wait for
// those who write.
func (s *Store) Agent(ctx context.Context, protocol, name string) (Agent, error) {
	if s.shared != nil {
		return s.sharedAgent(ctx, protocol, name)
	}
	a, err := keep(ctx, s, &s.recent.byName, agentName{protocol, name}, agentID, func() (a Agent, err error) {
		err = s.read(ctx, selectAgent, []any{protocol, name}, a.dest()...)
		return a, err
	})
	a.Attrs = maps.Clone(a.Attrs)
	return a, err
}

func agentID(a Agent) int64 { return a.ID }

// Agent returns the agent of that name, or [ErrNotFound].
func (t *Tx) Agent(protocol, name string) (Agent, error) {
	var a Agent
	if err := t.get(selectAgent, []any{protocol, name}, a.dest()...); err != nil {
		return Agent{}, err
	}
	return a, nil
}

// EnsureAgent stores the agent, or gives the one of the same protocol and name
// the DisplayName and the Attrs of a. Until the Tx ends nobody else changes
// the agent or its credentials.
func (t *Tx) EnsureAgent(a Agent) (stored Agent, created bool, err error) {
	var seq int64
	var before string
	terms := t.terms(a)
	args := []any{a.Protocol, a.Name, a.DisplayName, pairs{&a.Attrs}, micros(t.now), terms.text()}
	if err := t.get(ensureAgent, args, append(stored.dest(), &seq, &before)...); err != nil {
		return Agent{}, false, err
	}
	t.locked = stored
	if seq == 0 {
		return stored, true, t.addTerms(stored, terms)
	}
	return stored, false, t.changeTerms(stored, before, terms)
}

// AddAgent stores an agent that is new. It is [ErrExists] if the protocol has one
// of that name. Until the Tx ends nobody else changes the agent or its
// credentials.
func (t *Tx) AddAgent(a Agent) (Agent, error) {
	a.CreatedAt, a.DisabledAt, a.TokensEnded = t.now, time.Time{}, 0
	terms := t.terms(a)
	id, err := t.insert(insertAgent, a.Protocol, a.Name, a.DisplayName, pairs{&a.Attrs}, micros(t.now), terms.text())
	if errors.Is(err, ErrNotFound) {
		return Agent{}, ErrExists
	}
	if err != nil {
		return Agent{}, err
	}
	a.ID = id
	t.locked = a
	return a, t.addTerms(a, terms)
}

// lock locks the row of an agent until the Tx ends, and returns the agent's
// protocol and name.
func (t *Tx) lock(id int64) (protocol, name string, err error) {
	if t.locked.ID != id || id == 0 {
		a := Agent{ID: id}
		if err := t.get(lockAgent, []any{id}, &a.Protocol, &a.Name); err != nil {
			return "", "", err
		}
		t.locked = a
	}
	return t.locked.Protocol, t.locked.Name, nil
}

// Suspend keeps an agent and its name, and ends every credential that it has. It
// reports whether the agent was not suspended before.
func (t *Tx) Suspend(id int64) (bool, error) {
	n, err := t.exec(disableAgent, micros(t.now), id)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = t.exec(revokeEverything, micros(t.now), id)
	return err == nil, err
}

// DeleteAgent deletes an agent with its credentials and the tickets whose
// subject it is. What the audit trail says of it stays. It is [ErrNotFound] if
// there is no such agent.
func (t *Tx) DeleteAgent(id int64) error {
	protocol, name, err := t.lock(id)
	if err != nil {
		return err
	}
	if _, err := t.exec(deleteKeys, id); err != nil {
		return err
	}
	if _, err := t.exec(deleteSubject, protocol, name); err != nil {
		return err
	}
	t.locked = Agent{}
	var found string
	if err := t.get(deleteAgent, []any{id}, &found); err != nil {
		return err
	}
	return t.dropTerms(Agent{ID: id, Protocol: protocol}, found)
}
