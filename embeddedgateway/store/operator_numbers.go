package store

import (
	"context"
	"time"
)

// AgentCount is how many agents a protocol has.
type AgentCount struct {
	Protocol       string
	All, Suspended int
}

// KeyCount is how many credentials of a kind are active.
type KeyCount struct {
	Protocol, Kind string
	Active         int
}

// EventCount is how often something happened in a minute.
type EventCount struct {
	Minute   time.Time
	Protocol string
	Name     string
	Refusal  bool
	N        int
}

// countPart is how many rows are counted in one statement: no reader keeps an
// old state of the database for longer than that takes.
const countPart = 20_000

const (
	countAgents = `SELECT protocol, count(*), count(CASE WHEN disabled_at > 0 THEN 1 END)
		FROM agents WHERE id > $1 AND id <= $2 GROUP BY protocol`

	countKeys = `SELECT protocol, kind, count(*) FROM credentials
		WHERE id > $1 AND id <= $2 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $3)
		GROUP BY protocol, kind`

	lastAgent = `SELECT id FROM agents ORDER BY id DESC LIMIT 1`
	lastKey   = `SELECT id FROM credentials ORDER BY id DESC LIMIT 1`

	countEvents = `SELECT at / 60000000, protocol, name, refusal, CAST(sum(count) AS BIGINT) FROM events
		WHERE at >= $1 AND at < $2 GROUP BY at / 60000000, protocol, name, refusal`

	countSealed = `SELECT count(*) FROM (
		SELECT id FROM sealed WHERE kind = $1 AND (expires_at = 0 OR expires_at > $2) LIMIT $3) AS part`
)

// CountAgents counts all agents. It reads each of them, so what it says is for
// keeping: a million take some tenths of a second.
func (s *Store) CountAgents(ctx context.Context) (list []AgentCount, err error) {
	at := map[string]int{}
	err = s.inParts(ctx, lastAgent, func(from, to int64) error {
		return s.rows(ctx, countAgents, []any{from, to}, func(scan func(...any) error) error {
			var c AgentCount
			if err := scan(&c.Protocol, &c.All, &c.Suspended); err != nil {
				return err
			}
			i, ok := at[c.Protocol]
			if !ok {
				i, at[c.Protocol] = len(list), len(list)
				list = append(list, AgentCount{Protocol: c.Protocol})
			}
			list[i].All += c.All
			list[i].Suspended += c.Suspended
			return nil
		})
	})
	return list, err
}

// CountKeys counts the credentials that are active. It reads each that there is,
// as CountAgents does.
func (s *Store) CountKeys(ctx context.Context) (list []KeyCount, err error) {
	at := map[[2]string]int{}
	now := micros(s.now())
	err = s.inParts(ctx, lastKey, func(from, to int64) error {
		return s.rows(ctx, countKeys, []any{from, to, now}, func(scan func(...any) error) error {
			var c KeyCount
			if err := scan(&c.Protocol, &c.Kind, &c.Active); err != nil {
				return err
			}
			key := [2]string{c.Protocol, c.Kind}
			i, ok := at[key]
			if !ok {
				i, at[key] = len(list), len(list)
				list = append(list, KeyCount{Protocol: c.Protocol, Kind: c.Kind})
			}
			list[i].Active += c.Active
			return nil
		})
	})
	return list, err
}

// inParts calls fn for ranges of ids, up to the last that there is.
func (s *Store) inParts(ctx context.Context, last string, fn func(from, to int64) error) error {
	var end int64
	err := s.rows(ctx, last, nil, func(scan func(...any) error) error { return scan(&end) })
	for from := int64(0); err == nil && from < end; from += countPart {
		err = fn(from, from+countPart)
	}
	return err
}

// CountEvents counts what happened from a time until before another, by the
// minute.
func (s *Store) CountEvents(ctx context.Context, from, to time.Time) (list []EventCount, err error) {
	err = s.rows(ctx, countEvents, []any{micros(from), micros(to)}, func(scan func(...any) error) error {
		var c EventCount
		var minute, refusal int64
		err := scan(&minute, &c.Protocol, &c.Name, &refusal, &c.N)
		c.Minute, c.Refusal = time.Unix(minute*60, 0).UTC(), refusal == 1
		list = append(list, c)
		return err
	})
	return list, err
}

// CountSealed counts what is stored of a kind and has not expired, up to most.
func (s *Store) CountSealed(ctx context.Context, kind string, most int) (n int, err error) {
	err = s.rows(ctx, countSealed, []any{kind, micros(s.now()), int64(most)}, func(scan func(...any) error) error { return scan(&n) })
	return n, err
}
