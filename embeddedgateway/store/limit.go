package store

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

const (
	// A row that is new holds the first hit already; seq tells it from one that
	// was there, and which is now locked.
	lockCounter = `INSERT INTO counters (name, hits, seq, expires_at) VALUES ($1, $2, 0, $3)
		ON CONFLICT (name) DO UPDATE SET seq = counters.seq + 1
		RETURNING hits, seq`

	addCounter = `INSERT INTO counters (name, hits, seq, expires_at) VALUES ($1, $2, 0, $3)
		ON CONFLICT (name) DO NOTHING`

	updateCounter = `UPDATE counters SET hits = $1, expires_at = $2 WHERE name = $3`

	selectCounter = `SELECT hits FROM counters WHERE name = $1`
)

// Hit counts one more under key, unless limit were counted in the last per
// already: then it counts nothing and returns how long to wait until one more
// will be counted. The window slides and is exact: no stretch of time as long
// as per ever holds more than limit hits. The counts survive a restart.
//
// A Tx that is undone counts nothing. So whoever counts failures returns nil
// from the callback when it was one.
func (t *Tx) Hit(key string, limit int, per time.Duration) (retryAfter time.Duration, err error) {
	per = per.Truncate(time.Microsecond)
	if limit < 1 || per <= 0 {
		return 0, t.fail(errors.New("store: a rate limit must allow one hit or more in some time"))
	}
	now := t.now.UnixMicro()
	raw, fresh, err := t.counter(key, appendHit(nil, now), now+per.Microseconds())
	if err != nil || fresh {
		return 0, err
	}
	hits := window(raw, now, per.Microseconds())
	if len(hits) >= limit {
		// When so many have left the window, one more fits in.
		free := hits[len(hits)-limit] + per.Microseconds()
		return time.Duration(free-now) * time.Microsecond, nil
	}
	hits = append(hits, now)
	slices.Sort(hits)
	raw = raw[:0]
	for _, h := range hits {
		raw = appendHit(raw, h)
	}
	_, err = t.exec(updateCounter, raw, hits[len(hits)-1]+per.Microseconds(), key)
	return 0, err
}

// counter returns the hits under key and keeps others from them until the Tx is over.
// Where there were none it stores the first one, and says so.
func (t *Tx) counter(key string, first []byte, expires int64) (raw []byte, fresh bool, err error) {
	if _, alone := t.q.(*writer); alone {
		// Nobody else writes meanwhile. Most keys are new; for what comes back of one
		// SQLite would make a table, which takes as long as to insert the row.
		n, err := t.exec(addCounter, key, first, expires)
		if err != nil || n == 1 {
			return nil, true, err
		}
		err = t.get(selectCounter, []any{key}, &raw)
		return raw, false, err
	}
	var seq int64
	err = t.get(lockCounter, []any{key, first, expires}, &raw, &seq)
	return raw, seq == 0, err
}

// Count returns how many hits under key are in the window that ends now, and
// when the first of them leaves it; the zero time where there are none. It
// counts nothing.
func (t *Tx) Count(key string, per time.Duration) (n int, free time.Time, err error) {
	var raw []byte
	err = t.get(selectCounter, []any{key}, &raw)
	if errors.Is(err, ErrNotFound) {
		return 0, time.Time{}, nil
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	per = per.Truncate(time.Microsecond)
	hits := window(raw, t.now.UnixMicro(), per.Microseconds())
	if len(hits) == 0 {
		return 0, time.Time{}, nil
	}
	return len(hits), fromMicros(hits[0]).Add(per), nil
}

// window returns the hits that are in the window that ends now, the oldest
// first. Clocks of several processes differ, and one may be set back: a hit may
// lie in the future and still counts, but not when it is so far off that its
// clock must have been wrong. So nobody waits for longer than two windows.
func window(raw []byte, now, per int64) (hits []int64) {
	for ; len(raw) >= 8; raw = raw[8:] {
		h := int64(binary.BigEndian.Uint64(raw)) //nolint:gosec // written by appendHit
		if h > now-per && h <= now+per {
			hits = append(hits, h)
		}
	}
	return hits
}

func appendHit(b []byte, at int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(at)) //nolint:gosec // read by window
}
