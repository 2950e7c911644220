-- What must be read again as it was: mail that waits to go out, and the keys
-- that tokens are signed with. data is encrypted before it comes here.

-- +goose Up

CREATE TABLE sealed (
    id         ${ID},
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    data       ${BYTES} NOT NULL,
    tries      BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at     BIGINT NOT NULL, -- it is not handed out before
    expires_at BIGINT NOT NULL,
    UNIQUE (kind, name)
);

CREATE INDEX sealed_due ON sealed (kind, due_at);
CREATE INDEX sealed_expiry ON sealed (expires_at);

-- +goose Down

DROP TABLE sealed;
