package store

import (
	"context"
	"time"
)

// Ticket is something that is used once before it expires: an invite, a
// challenge, a verification token, a signature that must not be seen again.
type Ticket struct {
	Protocol  string
	Kind      string
	Hash      [32]byte          // of the secret that redeems it
	Subject   string            // who it is for: it is redeemed for the same subject only
	Data      map[string]string // what it carries; public
	CreatedAt time.Time         // given by the store
	ExpiresAt time.Time         // zero: it does not expire
	UsedAt    time.Time         // zero: it is not used
	Tries     int
}

const (
	ticketColumns = `protocol, kind, hash, subject, data, tries, created_at, expires_at, used_at`

	insertTicket = `INSERT INTO tickets (` + ticketColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
		ON CONFLICT (protocol, kind, hash) DO NOTHING`

	voidTickets = `DELETE FROM tickets WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0`

	spendTicket = `UPDATE tickets SET used_at = $1
		WHERE protocol = $2 AND kind = $3 AND hash = $4 AND subject = $5
			AND used_at = 0 AND (expires_at = 0 OR expires_at > $1)`

	redeemTicket = spendTicket + ` RETURNING ` + ticketColumns

	keepHashes = `INSERT INTO tickets (` + ticketColumns + `)
		SELECT protocol, $1, hash, '', '', 0, $2, 0, 0 FROM credentials WHERE agent_id = $3 AND kind = $4
		ON CONFLICT (protocol, kind, hash) DO NOTHING`

	extendTicket = `UPDATE tickets SET expires_at = $1
		WHERE protocol = $2 AND kind = $3 AND hash = $4 AND used_at = 0 AND (expires_at = 0 OR expires_at > $5)`

	selectTicket = `SELECT ` + ticketColumns + ` FROM tickets WHERE protocol = $1 AND kind = $2 AND hash = $3`

	strikeTickets = `UPDATE tickets SET tries = tries + 1
		WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0`

	spentTickets = `DELETE FROM tickets
		WHERE protocol = $1 AND kind = $2 AND subject = $3 AND used_at = 0 AND tries >= $4`

	dropTicket = `DELETE FROM tickets WHERE protocol = $1 AND kind = $2 AND hash = $3`
)

func (k *Ticket) dest() []any {
	return []any{
		&k.Protocol, &k.Kind,
		digest{&k.Hash},
		&k.Subject,
		pairs{&k.Data},
		&k.Tries,
		stamp{&k.CreatedAt},
		stamp{&k.ExpiresAt},
		stamp{&k.UsedAt},
	}
}

// OpenTicket stores a ticket that can be redeemed. With replace the others of
// the same protocol, kind and subject cannot be redeemed any more. It is
// [ErrExists] if the protocol has a ticket of that kind with that hash, used or
// not, that was not pruned.
func (t *Tx) OpenTicket(k Ticket, replace bool) error {
	if replace {
		if _, err := t.exec(voidTickets, k.Protocol, k.Kind, k.Subject); err != nil {
			return err
		}
	}
	n, err := t.exec(insertTicket, k.Protocol, k.Kind, k.Hash[:], k.Subject, pairs{&k.Data}, int64(k.Tries),
		micros(t.now), micros(k.ExpiresAt))
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// Redeem uses a ticket up and returns it. Of any number of callers at once
// exactly one gets it. A ticket that is unknown, expired, used, or for another
// subject is [ErrNotFound]: whoever guesses learns nothing.
func (t *Tx) Redeem(protocol, kind string, hash [32]byte, subject string) (Ticket, error) {
	var k Ticket
	args := []any{micros(t.now), protocol, kind, hash[:], subject}
	if err := t.get(redeemTicket, args, k.dest()...); err != nil {
		return Ticket{}, err
	}
	return k, nil
}

// Spend is [Tx.Redeem] for who knows what the ticket carries.
func (t *Tx) Spend(protocol, kind string, hash [32]byte, subject string) error {
	n, err := t.exec(spendTicket, micros(t.now), protocol, kind, hash[:], subject)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// KeepHashes opens a ticket that does not expire, and is for nobody, for each
// credential of a kind that an agent was ever issued, with that one's hash: what
// says that it was issued stays when the agent is deleted.
func (t *Tx) KeepHashes(agentID int64, kind, ticketKind string) error {
	_, err := t.exec(keepHashes, ticketKind, micros(t.now), agentID, kind)
	return err
}

// Ticket returns a ticket in whatever state it is, or [ErrNotFound].
func (t *Tx) Ticket(protocol, kind string, hash [32]byte) (Ticket, error) {
	var k Ticket
	if err := t.get(selectTicket, []any{protocol, kind, hash[:]}, k.dest()...); err != nil {
		return Ticket{}, err
	}
	return k, nil
}

// Ticket returns a ticket in whatever state it is, or [ErrNotFound]. It does
// not wait for those who write: what it says may change before it is acted on.
func (s *Store) Ticket(ctx context.Context, protocol, kind string, hash [32]byte) (Ticket, error) {
	if s.shared != nil {
		return s.sharedTicket(ctx, protocol, kind, hash)
	}
	var k Ticket
	if err := s.read(ctx, selectTicket, []any{protocol, kind, hash[:]}, k.dest()...); err != nil {
		return Ticket{}, err
	}
	return k, nil
}

// Strike counts a failed try against every ticket of a subject that is not
// used, and deletes those that have failed max times. It returns how many it
// was counted against. A Tx that is undone counts nothing.
func (t *Tx) Strike(protocol, kind, subject string, max int) (struck int, err error) {
	n, err := t.exec(strikeTickets, protocol, kind, subject)
	if err != nil {
		return 0, err
	}
	_, err = t.exec(spentTickets, protocol, kind, subject, int64(max))
	return int(n), err
}

// ExtendTicket gives a ticket another end, unless it is used or has expired: that
// is [ErrNotFound].
func (t *Tx) ExtendTicket(protocol, kind string, hash [32]byte, expires time.Time) error {
	n, err := t.exec(extendTicket, micros(expires), protocol, kind, hash[:], micros(t.now))
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// DropTicket deletes a ticket, used or not.
func (t *Tx) DropTicket(protocol, kind string, hash [32]byte) error {
	_, err := t.exec(dropTicket, protocol, kind, hash[:])
	return err
}
