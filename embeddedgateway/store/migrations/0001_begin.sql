-- One set of files for every database. ${ID} and ${BYTES} are spelled by the
-- dialect; see dialect.go. Times are microseconds since 1970, 0 for never;
-- truth is 0 or 1; lists and maps are JSON as text, '' when empty.

-- +goose Up

CREATE TABLE agents (
    id           ${ID},
    protocol     TEXT NOT NULL,
    name         TEXT NOT NULL,
    display_name TEXT NOT NULL,
    attrs        TEXT NOT NULL,
    seq          BIGINT NOT NULL, -- counts what was done under the row's lock
    created_at   BIGINT NOT NULL,
    disabled_at  BIGINT NOT NULL,
    UNIQUE (protocol, name)
);

-- protocol and agent_name are copies: a join would cost a request two thirds
-- of its speed.
CREATE TABLE credentials (
    id           ${ID},
    agent_id     BIGINT NOT NULL REFERENCES agents (id),
    protocol     TEXT NOT NULL,
    agent_name   TEXT NOT NULL,
    kind         TEXT NOT NULL,
    key_id       TEXT NOT NULL,
    hash         ${BYTES} NOT NULL,
    scopes       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    revoked_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    UNIQUE (protocol, hash)
);

-- Counting an agent's active credentials, and revoking them, must not read
-- the revoked ones: an agent that rotates daily has hundreds.
CREATE INDEX credentials_agent ON credentials (agent_id, kind, revoked_at);

CREATE TABLE tickets (
    id         ${ID},
    protocol   TEXT NOT NULL,
    kind       TEXT NOT NULL,
    hash       ${BYTES} NOT NULL,
    subject    TEXT NOT NULL,
    data       TEXT NOT NULL,
    tries      BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    UNIQUE (protocol, kind, hash)
);

CREATE INDEX tickets_subject ON tickets (protocol, kind, subject);
CREATE INDEX tickets_expiry ON tickets (expires_at);

CREATE TABLE counters (
    id         ${ID},
    name       TEXT NOT NULL UNIQUE,
    hits       ${BYTES} NOT NULL, -- times, 8 bytes each, oldest first
    seq        BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX counters_expiry ON counters (expires_at);

CREATE TABLE events (
    id       ${ID},
    at       BIGINT NOT NULL,
    protocol TEXT NOT NULL,
    name     TEXT NOT NULL,
    agent    TEXT NOT NULL,
    key_id   TEXT NOT NULL,
    ip       TEXT NOT NULL,
    detail   TEXT NOT NULL,
    refusal  BIGINT NOT NULL,
    minute   BIGINT NOT NULL, -- of a refusal: minutes since 1970
    count    BIGINT NOT NULL
);

CREATE UNIQUE INDEX events_refusals ON events (protocol, name, ip, minute) WHERE refusal = 1;
CREATE INDEX events_agent ON events (agent, id) WHERE agent <> '';

-- +goose Down

DROP TABLE events;
DROP TABLE counters;
DROP TABLE tickets;
DROP TABLE credentials;
DROP TABLE agents;
