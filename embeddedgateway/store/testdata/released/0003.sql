-- The statements of the version whose last migration is 0003, as it sends them.
-- A gateway of that version may have the database open while a newer one changes
-- the tables. Nothing here is ever changed.

-- selectAgent
SELECT id, protocol, name, display_name, attrs, created_at, disabled_at FROM agents WHERE protocol = $1 AND name = $2

-- ensureAgent
INSERT INTO agents (protocol, name, display_name, attrs, seq, created_at, disabled_at)
    VALUES ($1, $2, $3, $4, 0, $5, 0)
    ON CONFLICT (protocol, name) DO UPDATE
    SET display_name = excluded.display_name, attrs = excluded.attrs, seq = agents.seq + 1
    RETURNING id, protocol, name, display_name, attrs, created_at, disabled_at, seq

-- disableAgent
UPDATE agents SET disabled_at = $1, seq = seq + 1 WHERE id = $2 AND disabled_at = 0

-- revokeEverything
UPDATE credentials SET revoked_at = $1 WHERE agent_id = $2 AND revoked_at = 0

-- deleteKeys
DELETE FROM credentials WHERE agent_id = $1

-- deleteSubject
DELETE FROM tickets WHERE protocol = $1 AND subject = $2

-- deleteAgent
DELETE FROM agents WHERE id = $1

-- lockAgent
UPDATE agents SET seq = seq + 1 WHERE id = $1 RETURNING protocol, name

-- selectKey
SELECT id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
    created_at, expires_at, revoked_at, last_used_at, label FROM credentials WHERE protocol = $1 AND hash = $2

-- insertKey
INSERT INTO credentials (agent_id, protocol, agent_name, kind, key_id, hash, scopes,
    	created_at, expires_at, revoked_at, last_used_at, label)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $11
    WHERE CAST($10 AS BIGINT) = 0 OR (
    	SELECT count(*) FROM credentials
    	WHERE agent_id = $1 AND kind = $4 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $8)
    ) < CAST($10 AS BIGINT)
    ON CONFLICT (protocol, hash) DO NOTHING
    RETURNING id

-- anyKey
SELECT 1 FROM credentials WHERE agent_id = $1 AND kind = $2 LIMIT 1

-- selectKeyID
SELECT id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
    created_at, expires_at, revoked_at, last_used_at, label FROM credentials
    WHERE agent_id = $1 AND kind = $2 AND key_id = $3 LIMIT 1

-- selectActive
SELECT id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
    created_at, expires_at, revoked_at, last_used_at, label FROM credentials
    WHERE agent_id = $1 AND kind = $2 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $3)
    ORDER BY id LIMIT $4

-- selectIssued
SELECT id, agent_id, protocol, agent_name, kind, key_id, hash, scopes,
    created_at, expires_at, revoked_at, last_used_at, label FROM credentials
    WHERE agent_id = $1 AND kind = $2 AND id > $3
    ORDER BY id LIMIT $4

-- touchKey
UPDATE credentials SET last_used_at = $1 WHERE id = $2 AND last_used_at < $1

-- revokeKey
UPDATE credentials SET revoked_at = $1 WHERE id = $2 AND revoked_at = 0

-- revokeKeys
UPDATE credentials SET revoked_at = $1 WHERE agent_id = $2 AND kind = $3 AND revoked_at = 0

-- insertTicket
INSERT INTO tickets (protocol, kind, hash, subject, data, tries, created_at, expires_at, used_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
    ON CONFLICT (protocol, kind, hash) DO NOTHING

-- voidTickets
DELETE FROM tickets WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0

-- redeemTicket
UPDATE tickets SET used_at = $1
    WHERE protocol = $2 AND kind = $3 AND hash = $4 AND subject = $5
    	AND used_at = 0 AND (expires_at = 0 OR expires_at > $1)
    RETURNING protocol, kind, hash, subject, data, tries, created_at, expires_at, used_at

-- selectTicket
SELECT protocol, kind, hash, subject, data, tries, created_at, expires_at, used_at FROM tickets WHERE protocol = $1 AND kind = $2 AND hash = $3

-- strikeTickets
UPDATE tickets SET tries = tries + 1
    WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0

-- spentTickets
DELETE FROM tickets
    WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0 AND tries >= $4

-- dropTicket
DELETE FROM tickets WHERE protocol = $1 AND kind = $2 AND hash = $3

-- pruneTickets
DELETE FROM tickets WHERE id IN (
    SELECT id FROM tickets WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2)

-- lockCounter
INSERT INTO counters (name, hits, seq, expires_at) VALUES ($1, $2, 0, $3)
    ON CONFLICT (name) DO UPDATE SET seq = counters.seq + 1
    RETURNING hits, seq

-- updateCounter
UPDATE counters SET hits = $1, expires_at = $2 WHERE name = $3

-- selectCounter
SELECT hits FROM counters WHERE name = $1

-- pruneCounters
DELETE FROM counters WHERE id IN (
    SELECT id FROM counters WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)

-- insertEvent
INSERT INTO events (at, protocol, name, agent, key_id, ip, detail, refusal, minute, count) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 1)

-- insertRefusal
INSERT INTO events (at, protocol, name, agent, key_id, ip, detail, refusal, minute, count) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, 1)
    ON CONFLICT (protocol, name, ip, minute) WHERE refusal = 1 DO UPDATE
    SET count = events.count + 1,
    	agent = CASE WHEN events.agent = excluded.agent THEN events.agent ELSE '' END,
    	key_id = CASE WHEN events.key_id = excluded.key_id THEN events.key_id ELSE '' END,
    	detail = CASE WHEN events.detail = excluded.detail THEN events.detail ELSE '' END

-- insertSealed
INSERT INTO sealed (kind, name, data, tries, created_at, due_at, expires_at)
    VALUES ($1, $2, $3, 0, $4, $5, $6)
    ON CONFLICT (kind, name) DO NOTHING

-- selectSealed
SELECT id, kind, name, data, tries, created_at, due_at, expires_at FROM sealed
    WHERE kind = $1 AND (expires_at = 0 OR expires_at > $2) ORDER BY id LIMIT $3

-- takeSealed
UPDATE sealed SET due_at = $1, tries = tries + 1
    WHERE due_at <= $2 AND id = (
    	SELECT id FROM sealed
    	WHERE kind = $3 AND due_at <= $2 AND (expires_at = 0 OR expires_at > $2)
    	ORDER BY due_at, id LIMIT 1)
    RETURNING id, kind, name, data, tries, created_at, due_at, expires_at

-- postponeSealed
UPDATE sealed SET due_at = $1 WHERE id = $2 AND tries = $3

-- expireSealed
UPDATE sealed SET expires_at = $1
    WHERE kind = $2 AND name <> $3 AND (expires_at = 0 OR expires_at > $1)

-- dropSealed
DELETE FROM sealed WHERE id = $1

-- pruneSealed
DELETE FROM sealed WHERE id IN (
    SELECT id FROM sealed WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2)
