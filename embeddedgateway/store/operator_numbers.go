package store

import (
	"context"
	"fmt"
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
// keeping: a million take a second or more.
func (s *Store) CountAgents(ctx context.Context) (list []AgentCount, err error) {
	at := map[string]int{}
	err = s.inParts(ctx, lastAgent, func(from, to int64) error {
		part, err := collect(ctx, s, s.asks(countAgents), []any{from, to}, (*AgentCount).dest)
		for _, c := range part {
			i, ok := at[c.Protocol]
			if !ok {
				i, at[c.Protocol] = len(list), len(list)
				list = append(list, AgentCount{Protocol: c.Protocol})
			}
			list[i].All += c.All
			list[i].Suspended += c.Suspended
		}
		return err
	})
	return list, err
}

func (c *AgentCount) dest() []any { return []any{&c.Protocol, &c.All, &c.Suspended} }

// CountKeys counts the credentials that are active. It reads each that there is,
// as CountAgents does.
func (s *Store) CountKeys(ctx context.Context) (list []KeyCount, err error) {
	at := map[[2]string]int{}
	now := micros(s.now())
	err = s.inParts(ctx, lastKey, func(from, to int64) error {
		part, err := collect(ctx, s, s.asks(countKeys), []any{from, to, now}, (*KeyCount).dest)
		for _, c := range part {
			key := [2]string{c.Protocol, c.Kind}
			i, ok := at[key]
			if !ok {
				i, at[key] = len(list), len(list)
				list = append(list, KeyCount{Protocol: c.Protocol, Kind: c.Kind})
			}
			list[i].Active += c.Active
		}
		return err
	})
	return list, err
}

func (c *KeyCount) dest() []any { return []any{&c.Protocol, &c.Kind, &c.Active} }

// inParts calls fn for ranges of ids, up to the last that there is.
func (s *Store) inParts(ctx context.Context, last string, fn func(from, to int64) error) error {
	end, err := collect(ctx, s, s.asks(last), nil, itself[int64])
	if err != nil || len(end) == 0 {
		return err
	}
	for from := int64(0); err == nil && from < end[0]; from += countPart {
		err = fn(from, from+countPart)
	}
	return err
}

// CountEvents counts what happened from a time until before another, by the
// minute.
func (s *Store) CountEvents(ctx context.Context, from, to time.Time) ([]EventCount, error) {
	return collect(ctx, s, s.asks(countEvents), []any{micros(from), micros(to)}, (*EventCount).dest)
}

func (c *EventCount) dest() []any {
	return []any{
		minute{&c.Minute},
		&c.Protocol, &c.Name,
		truth{&c.Refusal},
		&c.N,
	}
}

// minute scans minutes since 1970.
type minute struct{ to *time.Time }

// Scan implements [sql.Scanner].
func (m minute) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("store: a minute is kept as %T", v)
	}
	*m.to = time.Unix(n*60, 0).UTC()
	return nil
}

// CountSealed counts what is stored of a kind and has not expired, up to most.
func (s *Store) CountSealed(ctx context.Context, kind string, most int) (int, error) {
	n, err := collect(ctx, s, s.asks(countSealed), []any{kind, micros(s.now()), int64(most)}, itself[int])
	if err != nil || len(n) == 0 {
		return 0, err
	}
	return n[0], nil
}
