package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// What was ended in the database that is replaced, called old here, while it
// works in the restored one. Each has a twin that counts.
const (
	revokedSince = ` FROM main.credentials c WHERE c.revoked_at = 0 AND EXISTS (
		SELECT 1 FROM old.credentials o WHERE o.protocol = c.protocol AND o.hash = c.hash AND o.revoked_at <> 0)`

	revokeAgain = `UPDATE main.credentials SET revoked_at = (
			SELECT o.revoked_at FROM old.credentials o
			WHERE o.protocol = credentials.protocol AND o.hash = credentials.hash)
		WHERE id IN (SELECT c.id` + revokedSince + `)`

	suspendedSince = ` FROM main.agents a WHERE a.disabled_at = 0 AND EXISTS (
		SELECT 1 FROM old.agents o WHERE o.protocol = a.protocol AND o.name = a.name AND o.disabled_at <> 0)`

	suspendAgain = `UPDATE main.agents SET disabled_at = (
			SELECT o.disabled_at FROM old.agents o WHERE o.protocol = agents.protocol AND o.name = agents.name)
		WHERE id IN (SELECT a.id` + suspendedSince + `)`

	// A ticket that is not there any more was replaced, or guessed at too often.
	usedSince = ` FROM main.tickets k WHERE k.used_at = 0 AND NOT EXISTS (
		SELECT 1 FROM old.tickets o
		WHERE o.protocol = k.protocol AND o.kind = k.kind AND o.hash = k.hash AND o.used_at = 0)`

	useAgain = `UPDATE main.tickets SET used_at = $1 WHERE id IN (SELECT k.id` + usedSince + `)`

	// Guesses that were made count on.
	strikeAgain = `UPDATE main.tickets SET tries = (
			SELECT max(tickets.tries, o.tries) FROM old.tickets o
			WHERE o.protocol = tickets.protocol AND o.kind = tickets.kind AND o.hash = tickets.hash)
		WHERE used_at = 0`

	issuedSince = ` FROM old.credentials o WHERE o.revoked_at = 0 AND NOT EXISTS (
		SELECT 1 FROM main.credentials c WHERE c.protocol = o.protocol AND c.hash = o.hash)`

	gone = ` FROM main.credentials c WHERE c.revoked_at = 0 AND NOT EXISTS (
		SELECT 1 FROM old.credentials o WHERE o.protocol = c.protocol AND o.hash = c.hash)`
)

// compare finds out what happened after the backup, from the database that is
// to be replaced, and has end again what was ended. A database with another
// mark is not a later state of the backup, and says nothing about it.
func compare(ctx context.Context, db *sql.DB, r Restoring, mark []byte, done *Restored) (err error) {
	if _, err := db.ExecContext(ctx, "ATTACH $1 AS old", r.Path); err != nil {
		return err
	}
	defer func() {
		_, detached := db.ExecContext(context.WithoutCancel(ctx), "DETACH old")
		err = errors.Join(err, detached)
	}()
	other, err := markOf(ctx, db, "old", r.Mark)
	if err != nil || !bytes.Equal(mark, other) {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // when it is committed, this does nothing
	for _, c := range []struct {
		to *int
		q  string
	}{
		{&done.KeysRevoked, revokedSince},
		{&done.AgentsSuspended, suspendedSince},
		{&done.TicketsUsed, usedSince},
		{&done.KeysLost, issuedSince},
		{&done.KeysBack, gone},
	} {
		if err := tx.QueryRowContext(ctx, "SELECT count(*)"+c.q).Scan(c.to); err != nil {
			return fmt.Errorf("compare with the database that is there: %w", err)
		}
	}
	done.Compared = true
	if r.AsItWas {
		return nil
	}
	for _, q := range []struct {
		text string
		args []any
	}{
		{revokeAgain, nil},
		{suspendAgain, nil},
		{useAgain, []any{micros(r.Now())}},
		{strikeAgain, nil},
	} {
		if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
			return fmt.Errorf("end again what was ended: %w", err)
		}
	}
	return tx.Commit()
}
