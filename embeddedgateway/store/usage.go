package store

import (
	"context"
	"time"
)

// Usage is what one replica counted in a stretch of time against one limit. What
// the bytes of Counts mean is for those who write them.
type Usage struct {
	Replica   string
	Name      string    // the limit
	EndsAt    time.Time // of the stretch of time
	Counts    []byte
	ChangedAt time.Time // given by the store
	ExpiresAt time.Time // nobody needs it any more
}

const (
	putUsage = `INSERT INTO usages (replica, name, ends_at, counts, changed_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (replica, name, ends_at) DO UPDATE
		SET counts = excluded.counts, changed_at = excluded.changed_at, expires_at = excluded.expires_at`

	selectUsages = `SELECT replica, name, ends_at, counts, changed_at, expires_at FROM usages
		WHERE changed_at > $1 AND replica <> $2 AND expires_at > $3 ORDER BY changed_at`
)

// PutUsage stores what a replica has counted so far in a stretch of time, in the
// place of what it said of the same one before.
func (t *Tx) PutUsage(u Usage) error {
	_, err := t.exec(putUsage, u.Replica, u.Name, micros(u.EndsAt), u.Counts, micros(t.now), micros(u.ExpiresAt))
	return err
}

// Usages returns what the other replicas have counted and said after a time, by
// their clocks, and what has not expired. It does not wait for those who write.
func (s *Store) Usages(ctx context.Context, replica string, after time.Time) ([]Usage, error) {
	return collect(ctx, s, s.asks(selectUsages), []any{micros(after), replica, micros(s.now())}, func(u *Usage) []any {
		return []any{&u.Replica, &u.Name, stamp{&u.EndsAt}, &u.Counts, stamp{&u.ChangedAt}, stamp{&u.ExpiresAt}}
	})
}
