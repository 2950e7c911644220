-- How often each key was used, as every replica counted it in a short stretch of
-- time: the replicas read one another's about once a second. A row is written
-- again while its stretch lasts; it says nothing that was not said before it
-- expires.

-- +goose Up

CREATE TABLE usages (
    id         ${ID},
    replica    TEXT NOT NULL,
    name       TEXT NOT NULL,   -- the limit
    ends_at    BIGINT NOT NULL, -- of the stretch of time
    counts     ${BYTES} NOT NULL,
    changed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    UNIQUE (replica, name, ends_at)
);

CREATE INDEX usages_change ON usages (changed_at);
CREATE INDEX usages_expiry ON usages (expires_at);

-- +goose Down

DROP TABLE usages;
