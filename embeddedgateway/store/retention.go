package store

import (
	"context"
	"time"
)

const (
	// prunePart is how many rows are deleted in a transaction: few enough that
	// nobody notices waiting for it.
	prunePart = 500

	// pruneGrace is how long a ticket stays that has expired: who brings it then
	// is told so, where the protocol does that.
	pruneGrace = time.Hour

	// Who holds a lease may hold it longer; anybody else gets it when it is over.
	takeLease = `INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
		WHERE leases.holder = excluded.holder OR leases.expires_at <= $4`

	dropLease = `DELETE FROM leases WHERE name = $1 AND holder = $2`
)

// Pruning says what is deleted because its time is over.
type Pruning struct {
	Now time.Time
	// Tickets is how long they stay that have expired. A ticket is what tells
	// that something was used already, so it must not go before the last
	// replica's clock says that it has expired. 0: an hour.
	Tickets time.Duration
	// Events is how long they stay; 0: for ever.
	Events time.Duration
	// Between is called between two transactions: it lets others write, and
	// ends the pruning by an error. Nil: nothing is done.
	Between func(context.Context) error
	// Pruned is told of what was deleted, by the name of the table; nil: nobody.
	Pruned func(table string, rows int)
}

// outlived is what is to be deleted from one table.
type outlived struct {
	table, expired string // the condition, on $1
	by             string // the column that it goes by
	before         time.Time
}

func (p Pruning) todo() []outlived {
	if p.Tickets == 0 {
		p.Tickets = pruneGrace
	}
	list := []outlived{
		{"tickets", "expires_at > 0 AND expires_at <= $1", "expires_at", p.Now.Add(-p.Tickets)},
		{"counters", "expires_at <= $1", "expires_at", p.Now},
		{"usages", "expires_at <= $1", "expires_at", p.Now},
		{"sealed", "expires_at > 0 AND expires_at <= $1", "expires_at", p.Now},
	}
	if p.Events > 0 {
		list = append(list, outlived{"events", "at <= $1", "at", p.Now.Add(-p.Events)})
	}
	return list
}

// delete is the statement that deletes some, the oldest first. It says twice what
// has expired: PostgreSQL asks the list that is inside only once, and would delete
// a row that somebody changed while it waited for it.
func (o outlived) delete() string {
	return "DELETE FROM " + o.table + " WHERE id IN (SELECT id FROM " + o.table +
		" WHERE " + o.expired + " ORDER BY " + o.by + " LIMIT $2) AND " + o.expired
}

// Outlived reports whether there is anything that a Pruning would delete. It
// writes nothing.
func (s *Store) Outlived(ctx context.Context, p Pruning) (bool, error) {
	if err := s.readable(ctx, nil); err != nil {
		return false, err
	}
	for _, o := range p.todo() {
		var n int
		q := "SELECT count(*) FROM (SELECT id FROM " + o.table + " WHERE " + o.expired + " LIMIT 1) AS one"
		err := s.db.reader().QueryRowContext(context.WithoutCancel(ctx), q, micros(o.before)).Scan(&n)
		if err != nil || n > 0 {
			return n > 0, s.readError(err)
		}
	}
	return false, nil
}

// Prune deletes the counts and the sealed things that ended before now and
// the tickets that did so an hour ago, a few at a time, and returns how many.
// Credentials and events stay.
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error) {
	return s.PruneAs(ctx, Pruning{Now: now})
}

// PruneAs deletes what a Pruning says, a few rows in a transaction, and returns
// how many.
func (s *Store) PruneAs(ctx context.Context, p Pruning) (n int, err error) {
	for _, t := range p.todo() {
		for gone := int64(prunePart); gone == prunePart; n += int(gone) {
			if n > 0 && p.Between != nil {
				if err := p.Between(ctx); err != nil {
					return n, err
				}
			}
			err := s.TxEach(ctx, func(tx *Tx) (err error) {
				gone, err = tx.exec(t.delete(), micros(t.before), int64(prunePart))
				return err
			})
			if err != nil {
				return n, err
			}
			if p.Pruned != nil {
				p.Pruned(t.table, int(gone))
			}
		}
	}
	return n, nil
}

// Lease makes holder the only one who holds a lease until a time, or reports
// that somebody else does. Whoever holds it already may hold it longer.
func (t *Tx) Lease(name, holder string, until time.Time) (held bool, err error) {
	n, err := t.exec(takeLease, name, holder, micros(until), micros(t.now))
	return n == 1, err
}

// EndLease gives a lease up, if holder has it.
func (t *Tx) EndLease(name, holder string) error {
	_, err := t.exec(dropLease, name, holder)
	return err
}
