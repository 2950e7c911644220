package gateway

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// operation is one that has been begun, in the journal.
type operation struct {
	journal *journal
	key     credstore.Key
	former  []Unfinished // what was there of the credential before
	phase   Phase
	acted   bool // the service has done something of it
	within  bool // another one of the credential is under way around it, which says it all
}

// operationKeyInContext is the context key of the *operation that is under way.
type operationKeyInContext struct{}

// begin writes down that a service is about to be asked to issue, replace or end
// what belongs to a credential. The caller holds the credential's lock, and ends
// the operation before it lets go of that. What an earlier one left unfinished
// is taken over by this one.
//
// What is stored within the context from then on counts as received. One that is
// begun within another of the same credential is a part of that.
func (j *journal) begin(ctx context.Context, act Action, k credstore.Key) (context.Context, *operation, error) {
	if o := underWay(ctx); o != nil && o.journal == j && o.key == k {
		return ctx, &operation{journal: j, key: k, within: true}, nil
	}
	former, err := j.unfinished(ctx, k)
	if err != nil {
		return ctx, nil, err
	}
	err = j.write(ctx, "intent", func(tx *sql.Tx) error {
		return putOperation(ctx, tx, Unfinished{Key: k, Action: act, Phase: PhaseIntent, Begun: j.now()})
	})
	if err != nil {
		return ctx, nil, err
	}
	o := &operation{journal: j, key: k, former: former, phase: PhaseIntent}
	return context.WithValue(ctx, operationKeyInContext{}, o), o, nil
}

// resume takes an operation up that was not finished. The caller holds the
// credential's lock, so that whatever is there now has been left by somebody;
// nil says that somebody else was faster and there is nothing. The journal keeps
// it as it is until it is ended well.
func (j *journal) resume(ctx context.Context, k credstore.Key) (context.Context, *operation, Unfinished, error) {
	open, err := j.unfinished(ctx, k)
	if err != nil || len(open) == 0 {
		return ctx, nil, Unfinished{}, err
	}
	o := &operation{journal: j, key: k, former: open, phase: open[0].Phase}
	return context.WithValue(ctx, operationKeyInContext{}, o), o, open[0], nil
}

// underWay returns the operation that is under way in a context, or nil.
func underWay(ctx context.Context) *operation {
	o, _ := ctx.Value(operationKeyInContext{}).(*operation)
	return o
}

// acted notes that the service has done something of the operation under way: it
// may fail from then on, but it is not as if nothing had been.
func acted(ctx context.Context) {
	if o := underWay(ctx); o != nil {
		o.acted = true
	}
}

// putOperation writes an operation in the place of the one of its credential.
func putOperation(ctx context.Context, tx *sql.Tx, u Unfinished) error {
	_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO operations
		(protocol, origin, agent, kind, label, action, phase, begun_at, code) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		append(keyArgs(u.Key), string(u.Action), string(u.Phase), u.Begun.UnixMilli(), u.Code)...)
	return err
}

// received writes down that a secret which the operation under way was issued is
// in the store. It says nothing where none is under way. That it could not be
// written takes nothing back: the secret is safe, and what is left to do is found
// out from the intent.
func received(ctx context.Context) {
	o := underWay(ctx)
	if o == nil || o.phase == PhaseReceived {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	err := o.journal.write(ctx, "received", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE operations SET phase = $6`+operationKey, append(keyArgs(o.key), string(PhaseReceived))...)
		return err
	})
	if err == nil {
		o.phase = PhaseReceived
	}
}

// end writes down what came of the operation, after err: that it is confirmed,
// that the service did nothing, so that things are as they were before, or that
// nobody knows.
func (o *operation) end(ctx context.Context, err error) {
	if o.within {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	// One that cannot be taken out is looked into later, and taken out then.
	_ = o.journal.write(ctx, "confirmed", func(tx *sql.Tx) error {
		if err != nil && (o.acted || o.phase == PhaseReceived || mayHaveActed(err)) {
			_, code := outcome(err)
			if code == "" {
				code = "failed"
			}
			_, err := tx.ExecContext(ctx, `UPDATE operations SET code = $6`+operationKey, append(keyArgs(o.key), code)...)
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM operations`+operationKey, keyArgs(o.key)...); err != nil {
			return err
		}
		if err == nil {
			return nil
		}
		for _, u := range o.former {
			if err := putOperation(ctx, tx, u); err != nil {
				return err
			}
		}
		return nil
	})
}

// mayHaveActed reports whether a service may have done something although an
// operation failed.
func mayHaveActed(err error) bool {
	var (
		failed *Error
		lost   *NotStoredError
		half   *HalfRotatedError
	)
	return errors.As(err, &failed) && failed.Sent || errors.As(err, &lost) || errors.As(err, &half)
}

// settle takes what is unfinished of a credential out of the journal: it has
// been finished, or there is nothing to finish. The caller holds its lock.
func (j *journal) settle(ctx context.Context, k credstore.Key) error {
	if j.empty() {
		return nil
	}
	return j.write(ctx, "confirmed", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM operations`+operationKey, keyArgs(k)...)
		return err
	})
}

// registered counts a registration against a daily number of them. When that is
// used up it returns when there is room again, and counts nothing.
func (j *journal) registered(ctx context.Context, daily int) (room time.Time, err error) {
	const day = 24 * time.Hour
	err = j.write(ctx, "count", func(tx *sql.Tx) error {
		now := j.now()
		if _, err := tx.ExecContext(ctx, `DELETE FROM registrations WHERE at <= $1`, now.Add(-day).UnixMilli()); err != nil {
			return err
		}
		// The clock was ahead when these were counted: they cannot be older than now.
		if _, err := tx.ExecContext(ctx, `UPDATE registrations SET at = $1 WHERE at > $1`, now.UnixMilli()); err != nil {
			return err
		}
		var used int
		var oldest sql.NullInt64
		if err := tx.QueryRowContext(ctx, `SELECT count(*), min(at) FROM registrations`).Scan(&used, &oldest); err != nil {
			return err
		}
		if used >= daily {
			room = now.Add(day)
			if oldest.Valid {
				room = time.UnixMilli(oldest.Int64).Add(day).UTC()
			}
			return nil
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO registrations (at) VALUES ($1)`, now.UnixMilli())
		return err
	})
	return room, err
}
