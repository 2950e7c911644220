-- What an operator looks agents up by. ${SORTED} is text that is compared byte
-- by byte, whatever language a database was made for: a search for a beginning
-- is a range of it.

-- +goose Up

-- What an agent is found by, as a JSON array; '' where a version before this one
-- has stored the agent, which is then made up for. It has no reference to
-- agent_terms, nor that one to agents: a version before this one deletes agents
-- without knowing of it, and what is found is compared with found_by.
ALTER TABLE agents ADD COLUMN found_by TEXT NOT NULL DEFAULT '';

-- How often the tokens of an agent were ended. One that was signed at another
-- count is over; no clock has a say in it.
ALTER TABLE agents ADD COLUMN tokens_ended BIGINT NOT NULL DEFAULT 0;

CREATE TABLE agent_terms (
    id       ${ID},
    agent_id BIGINT NOT NULL,
    protocol TEXT NOT NULL,
    term     ${SORTED} NOT NULL
);

CREATE UNIQUE INDEX agent_terms_term ON agent_terms (protocol, term, agent_id);

CREATE INDEX agents_protocol ON agents (protocol, id);
CREATE INDEX agents_suspended ON agents (id) WHERE disabled_at > 0;
CREATE INDEX agents_unfound ON agents (id) WHERE found_by = '';
CREATE INDEX tickets_invites ON tickets (id) WHERE kind = 'invite';

-- +goose Down

DROP INDEX tickets_invites;
DROP INDEX agents_unfound;
DROP INDEX agents_suspended;
DROP INDEX agents_protocol;
DROP TABLE agent_terms;
ALTER TABLE agents DROP COLUMN tokens_ended;
ALTER TABLE agents DROP COLUMN found_by;
