-- What has outlived its time is deleted by one process at a time, which holds a
-- lease while it does so; and the audit trail is found by its age.

-- +goose Up

CREATE TABLE leases (
    id         ${ID},
    name       TEXT NOT NULL UNIQUE,
    holder     TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX events_at ON events (at);

-- +goose Down

DROP INDEX events_at;
DROP TABLE leases;
