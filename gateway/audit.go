package gateway

import (
	"context"
	"database/sql"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// Event is an entry of the audit trail: what was done with which credential, on
// whose behalf, and what came of it. Nothing in it is secret. Texts that a client
// or a service chose are cleaned and cut.
type Event struct {
	Time      time.Time `json:"time"`
	Client    string    `json:"client"`               // what the client calls itself; "enlist": Enlist on its own
	Version   string    `json:"version,omitempty"`    // of the client
	TokenName string    `json:"token_name,omitempty"` // of the bearer token that it came with
	Action    Action    `json:"action"`
	Protocol  string    `json:"protocol,omitempty"`
	Origin    string    `json:"origin,omitempty"`
	Agent     string    `json:"agent,omitempty"`
	Kind      string    `json:"kind,omitempty"`
	Label     string    `json:"label,omitempty"`
	Method    string    `json:"method,omitempty"` // of a request
	Path      string    `json:"path,omitempty"`   // of a request, without its query
	Status    int       `json:"status,omitempty"` // what a request was answered with
	Outcome   string    `json:"outcome"`
	Code      string    `json:"code,omitempty"` // why, where it was not done
}

// The outcomes of an [Event].
const (
	OutcomeDone    = "done"
	OutcomeFailed  = "failed"  // nothing was changed
	OutcomeRefused = "refused" // by Enlist, before anything was sent
	OutcomeUnknown = "unknown" // the service may have done it
	// OutcomeApproved: a person was asked, and agreed. What came of it is an event
	// of its own.
	OutcomeApproved = "approved"
)

// Key returns the key of the credential that the event is about.
func (e Event) Key() credstore.Key {
	return credstore.Key{Protocol: e.Protocol, Origin: e.Origin, Agent: e.Agent, Kind: credstore.Kind(e.Kind), Label: e.Label}
}

// Actions lists every action that the audit trail has.
func Actions() []Action {
	return []Action{
		ActExec, ActExport, ActForget, ActHeal, ActImport, ActRead, ActRegister, ActRenew, ActReveal, ActRevoke, ActRotate, ActWrite,
	}
}

// AuditKept is how many events the audit trail keeps.
const AuditKept = auditKept

// append adds an event. It outlives the process when it returns; the end of the
// machine can take the last requests away, and nothing else.
func (j *journal) append(ctx context.Context, e Event) error {
	db, quick, err := j.open(ctx)
	if err != nil {
		return err
	}
	if e.Action == ActRead || e.Action == ActWrite {
		db = quick // a wait for the disk with each request would be felt
	}
	return j.transact(ctx, db, "audit", func(tx *sql.Tx) error {
		added, err := tx.ExecContext(ctx, `INSERT INTO events
			(at, client, version, action, protocol, origin, agent, kind, label, method, path, status, outcome, code, token_name)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
			e.Time.UnixMilli(), e.Client, e.Version, string(e.Action), e.Protocol, e.Origin, e.Agent, e.Kind, e.Label,
			e.Method, e.Path, e.Status, e.Outcome, e.Code, e.TokenName)
		if err != nil {
			return err
		}
		id, err := added.LastInsertId()
		if err != nil || id%(j.kept/100) != 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM events WHERE id <= $1`, id-j.kept)
		return err
	})
}

// Audit returns the audit trail since a time, the oldest first; of more than
// most events, the latest.
func (l *Lifecycle) Audit(ctx context.Context, since time.Time, most int) ([]Event, error) {
	return l.steward.journal.events(ctx, since, most)
}

func (j *journal) events(ctx context.Context, since time.Time, most int) ([]Event, error) {
	all := []Event{}
	if j.empty() {
		return all, nil
	}
	db, _, err := j.open(ctx)
	if err != nil {
		return nil, err
	}
	from := since.UnixMilli()
	if since.IsZero() {
		from = 0
	}
	var rows *sql.Rows
	err = credstore.Patiently(ctx, func() (err error) {
		rows, err = db.QueryContext(ctx, `SELECT at, client, version, action, protocol, origin, agent, kind, label, method, path, status, outcome, code, token_name
			FROM (SELECT * FROM events WHERE at >= $1 ORDER BY id DESC LIMIT $2) ORDER BY id`, from, most)
		return err
	})
	if err != nil {
		return nil, j.problem(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e Event
		var at int64
		if err := rows.Scan(&at, &e.Client, &e.Version, &e.Action, &e.Protocol, &e.Origin, &e.Agent, &e.Kind, &e.Label,
			&e.Method, &e.Path, &e.Status, &e.Outcome, &e.Code, &e.TokenName); err != nil {
			return nil, j.problem(err)
		}
		e.Time = time.UnixMilli(at).UTC()
		all = append(all, e)
	}
	return all, j.problem(rows.Err())
}
