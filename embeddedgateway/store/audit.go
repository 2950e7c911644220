package store

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Event is an entry of the audit trail. It holds no secret.
type Event struct {
	ID       int64     `json:"id"` // given by the store; a later event has a larger one
	At       time.Time `json:"at"` // given by the store
	Protocol string    `json:"protocol"`
	Name     string    `json:"name"` // what happened: "token_issued"
	Agent    string    `json:"agent"`
	KeyID    string    `json:"key_id"`
	IP       string    `json:"ip"`
	Detail   string    `json:"detail"`
	Refusal  bool      `json:"refusal"` // something was asked for and refused
	Count    int       `json:"count"`   // how many refusals it stands for; 1 for anything else
}

// EventQuery chooses events. A field that is empty chooses all.
type EventQuery struct {
	Protocol string
	Agent    string
	Before   int64 // only events with a smaller ID
	Limit    int   // at most this many; 0: 100
}

const (
	eventColumns = `at, protocol, name, agent, key_id, ip, detail, refusal, minute, count`

	insertEvent = `INSERT INTO events (` + eventColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 1)`

	insertTwoEvents = insertEvent + `, ($1, $8, $9, $10, $11, $12, $13, 0, 0, 1)`

	// What differs between the refusals of a minute is left empty rather
	// than said of all of them.
	insertRefusal = `INSERT INTO events (` + eventColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, 1)
		ON CONFLICT (protocol, name, ip, minute) WHERE refusal = 1 DO UPDATE
		SET count = events.count + 1,
			agent = CASE WHEN events.agent = excluded.agent THEN events.agent ELSE '' END,
			key_id = CASE WHEN events.key_id = excluded.key_id THEN events.key_id ELSE '' END,
			detail = CASE WHEN events.detail = excluded.detail THEN events.detail ELSE '' END`

	defaultEvents = 100
)

// Audit adds an event to the trail, with the others of the Tx when its callback
// is through. Refusals of one protocol, name and IP
// within a minute become one event that counts them, so that a flood of them
// cannot fill the disk: it has the time of the first, and of Agent, KeyID and
// Detail what they have in common.
func (t *Tx) Audit(e Event) error {
	args := append([]any{micros(t.now)}, e.args()...)
	if err := t.ok(args); err != nil {
		return err
	}
	t.events = append(t.events, e)
	if !e.Refusal {
		return nil
	}
	_, err := t.exec(insertRefusal, append(args, t.now.Unix()/60)...)
	return err
}

// args is what an event adds to a statement.
func (e Event) args() []any { return []any{e.Protocol, e.Name, e.Agent, e.KeyID, e.IP, e.Detail} }

// flush stores the events that were added, in their order.
func (t *Tx) flush() error {
	q, args := "", []any(nil)
	for _, e := range t.events {
		switch {
		case e.Refusal: // it is stored
			continue
		case q == "":
			q, args = insertEvent, append([]any{micros(t.now)}, e.args()...)
			continue
		}
		if _, err := t.exec(insertTwoEvents, append(args, e.args()...)...); err != nil {
			return err
		}
		q = ""
	}
	if q == "" {
		return nil
	}
	_, err := t.exec(q, args...)
	return err
}

// Events returns the newest events, the newest first. It does not wait for
// those who write.
func (s *Store) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	var where []string
	var args []any
	for _, c := range []struct{ column, value string }{{"protocol", q.Protocol}, {"agent", q.Agent}} {
		if c.value != "" {
			args = append(args, c.value)
			where = append(where, c.column+" = $"+strconv.Itoa(len(args)))
		}
	}
	if q.Agent != "" {
		where = append(where, "agent <> ''") // the index is of those
	}
	if q.Before > 0 {
		args = append(args, q.Before)
		where = append(where, "id < $"+strconv.Itoa(len(args)))
	}
	if err := s.readable(ctx, args); err != nil {
		return nil, err
	}
	if q.Limit <= 0 {
		q.Limit = defaultEvents
	}
	text := "SELECT id, at, protocol, name, agent, key_id, ip, detail, refusal, count FROM events"
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, int64(q.Limit))
	text += " ORDER BY id DESC LIMIT $" + strconv.Itoa(len(args))
	return collect(ctx, s, s.asks(text), args, (*Event).dest)
}

func (e *Event) dest() []any {
	return []any{
		&e.ID,
		stamp{&e.At},
		&e.Protocol, &e.Name, &e.Agent, &e.KeyID, &e.IP, &e.Detail,
		truth{&e.Refusal},
		&e.Count,
	}
}
