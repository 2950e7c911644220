package store

import (
	"context"
	"slices"
	"time"
)

// Sealed is something that the gateway must be able to read again as it was,
// unlike a secret that is only ever compared: mail that waits to go out, a key
// that tokens are signed with. Whoever stores it encrypts it first, bound to
// its Kind and Name; the store keeps bytes.
type Sealed struct {
	ID        int64  // given by the store
	Kind      string // what it is: "mail"
	Name      string // unique among its kind; public
	Data      []byte // encrypted
	Tries     int    // how often it was handed out by Take
	CreatedAt time.Time
	DueAt     time.Time // Take does not hand it out before
	ExpiresAt time.Time // zero: it stays until it is dropped
}

const (
	sealedColumns = `id, kind, name, data, tries, created_at, due_at, expires_at`

	insertSealed = `INSERT INTO sealed (kind, name, data, tries, created_at, due_at, expires_at)
		VALUES ($1, $2, $3, 0, $4, $5, $6)
		ON CONFLICT (kind, name) DO NOTHING`

	selectSealed = `SELECT ` + sealedColumns + ` FROM sealed
		WHERE kind = $1 AND (expires_at = 0 OR expires_at > $2) ORDER BY id LIMIT $3`

	// The update asks for due_at again: of two that found the same row, the
	// second one finds it changed.
	takeSealed = `UPDATE sealed SET due_at = $1, tries = tries + 1
		WHERE due_at <= $2 AND id = (
			SELECT id FROM sealed
			WHERE kind = $3 AND due_at <= $2 AND (expires_at = 0 OR expires_at > $2)
			ORDER BY due_at, id LIMIT 1)
		RETURNING ` + sealedColumns

	// Only its last taker's word counts.
	postponeSealed = `UPDATE sealed SET due_at = $1 WHERE id = $2 AND tries = $3`

	expireSealed = `UPDATE sealed SET expires_at = $1
		WHERE kind = $2 AND name <> $3 AND (expires_at = 0 OR expires_at > $1)`

	dropSealed = `DELETE FROM sealed WHERE id = $1`
)

func (s *Sealed) dest() []any {
	return []any{
		&s.ID, &s.Kind, &s.Name, &s.Data, &s.Tries,
		stamp{&s.CreatedAt},
		stamp{&s.DueAt},
		stamp{&s.ExpiresAt},
	}
}

// Seal stores something sealed. It is [ErrExists] if there is something of that
// kind and name. What has no DueAt is due at once.
func (t *Tx) Seal(s Sealed) error {
	n, err := t.exec(insertSealed, s.Kind, s.Name, s.Data, micros(t.now), micros(s.DueAt), micros(s.ExpiresAt))
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// Take hands out what has been due for longest of a kind, and not to anybody
// else until again: whoever took it drops it when done with it, and if they
// fail or die, it is handed out once more. Nothing due is [ErrNotFound].
func (t *Tx) Take(kind string, again time.Time) (Sealed, error) {
	var s Sealed
	if err := t.get(takeSealed, []any{micros(again), micros(t.now), kind}, s.dest()...); err != nil {
		return Sealed{}, err
	}
	return s, nil
}

// Postpone has what was taken handed out again at another time than was said
// then. It does nothing if somebody else has taken it since.
func (t *Tx) Postpone(s Sealed, due time.Time) error {
	_, err := t.exec(postponeSealed, micros(due), s.ID, s.Tries)
	return err
}

// Outdate has all of a kind but one expire at a time, unless they do before.
func (t *Tx) Outdate(kind, but string, at time.Time) error {
	_, err := t.exec(expireSealed, micros(at), kind, but)
	return err
}

// Drop deletes something sealed.
func (t *Tx) Drop(id int64) error {
	_, err := t.exec(dropSealed, id)
	return err
}

// Sealed returns what is stored of a kind and has not expired, the oldest first
// and at most limit. It does not wait for those who write.
func (s *Store) Sealed(ctx context.Context, kind string, limit int) ([]Sealed, error) {
	now := s.now()
	read := func() (sealedList, error) {
		args := []any{kind, micros(now), int64(limit)}
		list, err := listed(ctx, s, selectSealed, args, (*Sealed).dest)
		return sealedList{list, now}, err
	}
	if limit > mostSealed {
		l, err := read()
		return l.list, err
	}
	l, err := keep(ctx, s, &s.recent.sealed, sealedKey{kind, limit}, func(sealedList) int64 { return 0 }, read)
	if err == nil && !l.tells(now, limit) {
		l, err = read()
	}
	return l.at(now), err
}

// mostSealed is how long a list may be asked for that may be kept.
const mostSealed = 128

type (
	sealedKey struct {
		kind  string
		limit int
	}
	// sealedList is what was good of a kind at a time.
	sealedList struct {
		list []Sealed
		when time.Time
	}
)

// tells reports whether what is good at a time is all in the list.
func (l sealedList) tells(now time.Time, limit int) bool {
	return now.Equal(l.when) || now.After(l.when) && len(l.list) < limit
}

// at returns what of the list is good at a time, to be changed at will.
func (l sealedList) at(now time.Time) (list []Sealed) {
	for _, s := range l.list {
		if s.ExpiresAt.IsZero() || s.ExpiresAt.After(now) {
			s.Data = slices.Clone(s.Data)
			list = append(list, s)
		}
	}
	return list
}
