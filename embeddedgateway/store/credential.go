package store

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Credential is a secret that was issued to an agent: all but the secret.
type Credential struct {
	ID         int64 // given by the store
	AgentID    int64
	Protocol   string // the agent's, given by the store
	AgentName  string // the agent's, given by the store
	Kind       string // what it is for, where a protocol issues several kinds
	KeyID      string // its public part
	Hash       [32]byte
	Scopes     []string
	Label      string    // what its owner calls it
	CreatedAt  time.Time // given by the store
	ExpiresAt  time.Time // zero: it does not expire
	RevokedAt  time.Time // zero: it is not revoked
	LastUsedAt time.Time
}

// ActiveAt reports whether the credential is neither revoked nor expired.
func (c Credential) ActiveAt(now time.Time) bool {
	return c.RevokedAt.IsZero() && (c.ExpiresAt.IsZero() || now.Before(c.ExpiresAt))
}

const (
	keyColumns = `id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
		created_at, expires_at, revoked_at, last_used_at, label`

	selectKey = `SELECT ` + keyColumns + ` FROM credentials WHERE protocol = $1 AND hash = $2`

	// The agent's row is locked before: neither this statement alone nor a
	// count inside the locking one is exact on every database.
	insertKey = `INSERT INTO credentials (agent_id, protocol, agent_name, kind, key_id, hash, scopes,
			created_at, expires_at, revoked_at, last_used_at, label)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10
		WHERE (
			SELECT count(*) FROM credentials
			WHERE agent_id = $1 AND kind = $4 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $8)
		) < CAST($11 AS BIGINT)
		ON CONFLICT (protocol, hash) DO NOTHING`

	// One that no cap counts. (For a SELECT that may fail on its way SQLite would
	// keep a journal.)
	insertFreeKey = `INSERT INTO credentials (agent_id, protocol, agent_name, kind, key_id, hash, scopes,
			created_at, expires_at, revoked_at, last_used_at, label)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10)
		ON CONFLICT (protocol, hash) DO NOTHING`

	// Two that no cap counts, and that are of one agent.
	insertTwoKeys = `INSERT INTO credentials (agent_id, protocol, agent_name, kind, key_id, hash, scopes,
			created_at, expires_at, revoked_at, last_used_at, label)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10), ($1, $2, $3, $11, $12, $13, $14, $8, $15, 0, 0, $16)
		ON CONFLICT (protocol, hash) DO NOTHING`

	anyKey = `SELECT 1 FROM credentials WHERE agent_id = $1 AND kind = $2 LIMIT 1`

	selectKeyID = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND kind = $2 AND key_id = $3 LIMIT 1`

	selectActive = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND kind = $2 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $3)
		ORDER BY id LIMIT $4`

	selectIssued = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND kind = $2 AND id > $3
		ORDER BY id LIMIT $4`

	touchKey = `UPDATE credentials SET last_used_at = $1 WHERE id = $2 AND last_used_at < $1`

	revokeKey = `UPDATE credentials SET revoked_at = $1 WHERE id = $2 AND revoked_at = 0`

	revokeKeys = `UPDATE credentials SET revoked_at = $1 WHERE agent_id = $2 AND kind = $3 AND revoked_at = 0`
)

func (c *Credential) dest() []any {
	return []any{
		&c.ID, &c.AgentID, &c.Protocol, &c.AgentName, &c.Kind, &c.KeyID,
		digest{&c.Hash},
		list{&c.Scopes},
		stamp{&c.CreatedAt},
		stamp{&c.ExpiresAt},
		stamp{&c.RevokedAt},
		stamp{&c.LastUsedAt},
		&c.Label,
	}
}

// Authenticate returns the active credential with that hash. An unknown, an
// expired and a revoked one are all [ErrNotFound]. What a Tx revoked before
// Authenticate was called is not returned. It does not wait for those who
// write.
func (s *Store) Authenticate(ctx context.Context, protocol string, hash [32]byte) (Credential, error) {
	c, err := s.Credential(ctx, protocol, hash)
	if err != nil {
		return Credential{}, err
	}
	if !c.ActiveAt(s.now()) {
		return Credential{}, ErrNotFound
	}
	return c, nil
}

// Credential returns the credential with that hash in whatever state it is, or
// [ErrNotFound]. It does not wait for those who write.
func (s *Store) Credential(ctx context.Context, protocol string, hash [32]byte) (Credential, error) {
	c, err := s.credential(ctx, protocol, hash)
	if err == nil || errors.Is(err, ErrNotFound) {
		s.stats.looked(protocol, err == nil && c.ActiveAt(s.now()))
	}
	return c, err
}

func (s *Store) credential(ctx context.Context, protocol string, hash [32]byte) (Credential, error) {
	if s.shared != nil {
		return s.sharedCredential(ctx, protocol, hash)
	}
	c, err := keep(ctx, s, &s.recent.byHash, keyHash{protocol, hash}, credentialID, func() (c Credential, err error) {
		err = s.read(ctx, selectKey, []any{protocol, hash[:]}, c.dest()...)
		return c, err
	})
	c.Scopes = slices.Clone(c.Scopes)
	return c, err
}

func credentialID(c Credential) int64 { return c.ID }

// Credential returns the credential with that hash in whatever state it is, or
// [ErrNotFound].
func (t *Tx) Credential(protocol string, hash [32]byte) (Credential, error) {
	var c Credential
	if err := t.get(selectKey, []any{protocol, hash[:]}, c.dest()...); err != nil {
		return Credential{}, err
	}
	return c, nil
}

// CredentialByID returns the credential of the agent with that kind and public
// part in whatever state it is, or [ErrNotFound].
func (t *Tx) CredentialByID(agentID int64, kind, keyID string) (Credential, error) {
	var c Credential
	if err := t.get(selectKeyID, []any{agentID, kind, keyID}, c.dest()...); err != nil {
		return Credential{}, err
	}
	return c, nil
}

// CredentialByID returns the credential of the agent with that kind and public
// part in whatever state it is, or [ErrNotFound]. It does not wait for those
// who write.
func (s *Store) CredentialByID(ctx context.Context, agentID int64, kind, keyID string) (Credential, error) {
	c, err := keep(ctx, s, &s.recent.byKeyID, keyName{agentID, kind, keyID}, credentialID, func() (c Credential, err error) {
		err = s.read(ctx, selectKeyID, []any{agentID, kind, keyID}, c.dest()...)
		return c, err
	})
	c.Scopes = slices.Clone(c.Scopes)
	return c, err
}

// Credentials returns the active credentials of that kind that the agent has,
// the oldest first and at most limit. It does not wait for those who write.
func (s *Store) Credentials(ctx context.Context, agentID int64, kind string, limit int) ([]Credential, error) {
	return s.credentials(ctx, selectActive, agentID, kind, micros(s.now()), int64(limit))
}

// Issued returns the credentials of that kind that the agent was ever issued,
// in whatever state they are: those after the one with the ID after (0: from the
// first one on), the oldest first and at most limit. It does not wait for those
// who write.
func (s *Store) Issued(ctx context.Context, agentID int64, kind string, after int64, limit int) ([]Credential, error) {
	return s.credentials(ctx, selectIssued, agentID, kind, after, int64(limit))
}

func (s *Store) credentials(ctx context.Context, q string, args ...any) ([]Credential, error) {
	return listed(ctx, s, q, args, (*Credential).dest)
}

// Touch notes that a credential was used, unless a later use is noted already.
func (t *Tx) Touch(id int64, at time.Time) error {
	run := func() error {
		_, err := t.exec(touchKey, micros(at), id)
		return err
	}
	if w, ok := t.q.(*writer); ok {
		return w.changes.touching(fromMicros(micros(at)), run)
	}
	if t.touched == nil {
		t.touched = map[int64]time.Time{}
	}
	t.touched[id] = fromMicros(micros(at))
	return run()
}

// HasCredential reports whether the agent was ever issued a credential of that
// kind.
func (t *Tx) HasCredential(agentID int64, kind string) (bool, error) {
	var one int64
	err := t.get(anyKey, []any{agentID, kind}, &one)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Issue stores a credential of the agent c.AgentID and returns it as stored.
// It is [ErrCap] if the agent has max active credentials of that kind already
// (0: there is no such limit), [ErrExists] if the protocol has a credential
// with that hash, and [ErrNotFound] if there is no such agent.
func (t *Tx) Issue(c Credential, max int) (_ Credential, err error) {
	c.CreatedAt, c.ExpiresAt = t.now, fromMicros(micros(c.ExpiresAt))
	c.RevokedAt, c.LastUsedAt = time.Time{}, time.Time{}
	if c.Protocol, c.AgentName, err = t.lock(c.AgentID); err != nil {
		return Credential{}, err
	}
	args := []any{
		c.AgentID, c.Protocol, c.AgentName, c.Kind, c.KeyID, c.Hash[:],
		list{&c.Scopes},
		micros(c.CreatedAt), micros(c.ExpiresAt), c.Label,
	}
	q := insertFreeKey
	if max != 0 {
		q, args = insertKey, append(args, int64(max))
	}
	c.ID, err = t.insert(q, args...)
	if errors.Is(err, ErrNotFound) {
		if _, err := t.Credential(c.Protocol, c.Hash); err == nil {
			return Credential{}, ErrExists
		} else if !errors.Is(err, ErrNotFound) {
			return Credential{}, err
		}
		return Credential{}, ErrCap
	}
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

// IssueBoth stores two credentials of the agent agentID, who may have any number of
// their kinds. It is [ErrExists] if the protocol has a credential with the hash of
// one of them: then one may be stored, and the Tx is to be undone; and
// [ErrNotFound] if there is no such agent.
func (t *Tx) IssueBoth(agentID int64, a, b Credential) error {
	protocol, name, err := t.lock(agentID)
	if err != nil {
		return err
	}
	n, err := t.exec(insertTwoKeys, agentID, protocol, name,
		a.Kind, a.KeyID, a.Hash[:], list{&a.Scopes}, micros(t.now), micros(a.ExpiresAt), a.Label,
		b.Kind, b.KeyID, b.Hash[:], list{&b.Scopes}, micros(b.ExpiresAt), b.Label)
	if err == nil && n != 2 {
		return ErrExists
	}
	return err
}

// Revoke ends a credential and reports whether it was not revoked before.
func (t *Tx) Revoke(id int64) (bool, error) {
	n, err := t.exec(revokeKey, micros(t.now), id)
	return n == 1, err
}

// RevokeAll ends the credentials of that kind that the agent has, the expired
// ones too, and returns how many were not revoked before.
func (t *Tx) RevokeAll(agentID int64, kind string) (n int, err error) {
	rows, err := t.exec(revokeKeys, micros(t.now), agentID, kind)
	return int(rows), err
}
