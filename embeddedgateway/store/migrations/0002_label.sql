-- What the owner of a credential calls it, where a protocol has several for
-- one agent.

-- +goose Up

ALTER TABLE credentials ADD COLUMN label TEXT NOT NULL DEFAULT '';

-- +goose Down

ALTER TABLE credentials DROP COLUMN label;
