package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
)

// ErrCursor says that what a page is to begin after was not given out by this store.
var ErrCursor = errors.New("store: the page is to begin after something unknown")

// Suspension chooses agents by whether they are suspended.
type Suspension int

// The values of a Suspension.
const (
	AnySuspension Suspension = iota
	Active
	Suspended
)

// AgentQuery chooses agents. A field that is empty chooses all.
type AgentQuery struct {
	Protocol   string
	Suspension Suspension
	Prefix     string // of what an agent is found by, case ignored
	After      string // Next of the page before
	Limit      int    // at most this many; 0: 100
}

// AgentPage is a page of agents.
type AgentPage struct {
	Agents []Agent
	Next   string // "": this is the last page
}

const (
	foundColumns = agentColumns + `, found_by`

	selectNewest = `SELECT ` + foundColumns + ` FROM agents WHERE id < $1 ORDER BY id DESC LIMIT $2`

	selectNewestActive = `SELECT ` + foundColumns + ` FROM agents
		WHERE id < $1 AND disabled_at = 0 ORDER BY id DESC LIMIT $2`

	selectNewestSuspended = `SELECT ` + foundColumns + ` FROM agents
		WHERE id < $1 AND disabled_at > 0 ORDER BY id DESC LIMIT $2`

	selectNewestOf = `SELECT ` + foundColumns + ` FROM agents
		WHERE protocol = $3 AND id < $1 ORDER BY id DESC LIMIT $2`

	selectNewestActiveOf = `SELECT ` + foundColumns + ` FROM agents
		WHERE protocol = $3 AND id < $1 AND disabled_at = 0 ORDER BY id DESC LIMIT $2`

	// What is put to the protocol keeps SQLite from the index of that: there are
	// few that are suspended.
	selectNewestSuspendedOf = `SELECT ` + foundColumns + ` FROM agents
		WHERE protocol || '' = $3 AND id < $1 AND disabled_at > 0 ORDER BY id DESC LIMIT $2`

	// CROSS JOIN has SQLite read agent_terms first.
	selectFound = `SELECT a.id, a.protocol, a.name, a.display_name, a.attrs, a.created_at, a.disabled_at, a.tokens_ended,
			a.found_by, t.term
		FROM agent_terms t CROSS JOIN agents a
		WHERE t.protocol = $1 AND (t.term, t.agent_id) > ($2, $3) AND t.term < $4
			AND a.id = t.agent_id AND (a.disabled_at = 0 OR CAST($5 AS BIGINT) = 0)
		ORDER BY t.term, t.agent_id LIMIT $6`

	nextProtocol = `SELECT protocol FROM agents WHERE protocol > $1 ORDER BY protocol LIMIT 1`

	defaultAgents = 100
)

// Agents returns agents, the newest first. With a Prefix they are in the order of
// what they were found by, unless suspended ones only are asked for. However many
// there are, a page costs the same; for suspended ones it grows with their number.
// It does not wait for those who write.
func (s *Store) Agents(ctx context.Context, q AgentQuery) (AgentPage, error) {
	if q.Limit <= 0 {
		q.Limit = defaultAgents
	}
	q.Prefix = fold(q.Prefix)
	if q.Prefix != "" && q.Suspension != Suspended {
		return s.search(ctx, q)
	}
	return s.newest(ctx, q)
}

// cursor is where a page ends.
type cursor struct {
	ID       int64  `json:"i"`
	Protocol string `json:"p,omitempty"`
	Term     string `json:"t,omitempty"`
}

// String returns the cursor as it is given out.
func (c cursor) String() string {
	b, _ := json.Marshal(c) // of a number and two strings
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor reads what String made, or "".
func parseCursor(text string, start cursor) (c cursor, err error) {
	if text == "" {
		return start, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.ID <= 0 || !validText(c.Protocol) || !validText(c.Term) {
		return c, ErrCursor
	}
	return c, nil
}

// newest returns a page of agents, the newest first.
func (s *Store) newest(ctx context.Context, q AgentQuery) (page AgentPage, err error) {
	at, err := parseCursor(q.After, cursor{ID: math.MaxInt64})
	if err != nil {
		return AgentPage{}, err
	}
	text := map[Suspension]string{AnySuspension: selectNewest, Active: selectNewestActive, Suspended: selectNewestSuspended}[q.Suspension]
	var of []any
	if q.Protocol != "" {
		text = map[Suspension]string{AnySuspension: selectNewestOf, Active: selectNewestActiveOf, Suspended: selectNewestSuspendedOf}[q.Suspension]
		of = []any{q.Protocol}
	}
	for more := true; more && len(page.Agents) <= q.Limit; {
		part := int64(q.Limit + 1)
		if q.Prefix != "" {
			part = max(part, prunePart)
		}
		read, err := collect(ctx, s, s.asks(text), append([]any{at.ID, part}, of...), (*match).listed)
		if err != nil {
			return AgentPage{}, err
		}
		for _, m := range read {
			at.ID = m.ID
			if _, ok := parseTerms(m.found).first(q.Prefix); ok || q.Prefix == "" {
				page.Agents = append(page.Agents, m.Agent)
			}
		}
		more = int64(len(read)) == part
	}
	return page.cut(q.Limit, func(a Agent) cursor { return cursor{ID: a.ID} }), nil
}

// cut cuts a page off that has more than it should.
func (p AgentPage) cut(limit int, at func(Agent) cursor) AgentPage {
	if len(p.Agents) > limit {
		p.Agents = p.Agents[:limit]
		p.Next = at(p.Agents[limit-1]).String()
	}
	return p
}

// match is an agent that was found.
type match struct {
	Agent
	term  string
	found string
}

func (m *match) listed() []any { return append(m.dest(), &m.found) }

func (m *match) searched() []any { return append(m.dest(), &m.found, &m.term) }

func (m match) cursor() cursor { return cursor{m.ID, m.Protocol, m.term} }

// compare orders what is found: by the term, the protocol and the agent's age.
func (c cursor) compare(d cursor) int {
	return cmp.Or(cmp.Compare(c.Term, d.Term), cmp.Compare(c.Protocol, d.Protocol), cmp.Compare(c.ID, d.ID))
}

// search returns a page of what begins with a text.
func (s *Store) search(ctx context.Context, q AgentQuery) (page AgentPage, err error) {
	after, err := parseCursor(q.After, cursor{})
	if err != nil {
		return AgentPage{}, err
	}
	protocols := []string{q.Protocol}
	if q.Protocol == "" {
		if protocols, err = s.Protocols(ctx); err != nil {
			return AgentPage{}, err
		}
	}
	terms := map[int64]string{}
	for len(page.Agents) <= q.Limit {
		var matches []match
		for _, protocol := range protocols {
			found, err := s.found(ctx, q, protocol, after)
			if err != nil {
				return AgentPage{}, err
			}
			matches = append(matches, found...)
		}
		slices.SortFunc(matches, func(a, b match) int { return a.cursor().compare(b.cursor()) })
		part := matches[:min(len(matches), q.Limit+1)]
		for _, m := range part {
			// An agent may be found by several terms, and counts by the first;
			// and a term may be left of an agent that a version without search
			// has deleted.
			if first, ok := parseTerms(m.found).first(q.Prefix); ok && first == m.term {
				page.Agents = append(page.Agents, m.Agent)
				terms[m.ID] = m.term
			}
			after = m.cursor()
		}
		if len(part) <= q.Limit {
			break
		}
	}
	return page.cut(q.Limit, func(a Agent) cursor { return cursor{a.ID, a.Protocol, terms[a.ID]} }), nil
}

// found returns what is found in one protocol behind a cursor.
func (s *Store) found(ctx context.Context, q AgentQuery, protocol string, after cursor) ([]match, error) {
	term, id := q.Prefix, int64(0)
	if after.Term > term {
		term = after.Term
		switch cmp.Compare(protocol, after.Protocol) {
		case 0:
			id = after.ID
		case -1:
			id = math.MaxInt64
		}
	}
	args := []any{
		protocol, term, id, q.Prefix + "\U0010FFFF", int64(q.Suspension), int64(q.Limit + 1),
	}
	return collect(ctx, s, s.asks(selectFound), args, (*match).searched)
}

// Protocols returns the protocols that have agents, sorted.
func (s *Store) Protocols(ctx context.Context) (list []string, err error) {
	for last := ""; ; {
		next, err := collect(ctx, s, s.asks(nextProtocol), []any{last}, itself[string])
		if err != nil || len(next) == 0 {
			slices.Sort(list)
			return list, err
		}
		last = next[0]
		list = append(list, last)
	}
}

const (
	resumeAgent = `UPDATE agents SET disabled_at = 0, seq = seq + 1, tokens_ended = tokens_ended + 1
		WHERE id = $1 AND disabled_at > 0`

	endSigned = `UPDATE agents SET tokens_ended = tokens_ended + 1, seq = seq + 1 WHERE id = $1`

	restoreKeys = `UPDATE credentials SET revoked_at = 0
		WHERE agent_id = $1 AND kind = $2 AND revoked_at = $3`

	selectAgentKey = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND key_id = $2 ORDER BY id DESC LIMIT 1`

	selectAgentActive = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND revoked_at = 0 ORDER BY id DESC LIMIT $2`

	selectAgentRevoked = `SELECT ` + keyColumns + ` FROM credentials
		WHERE agent_id = $1 AND revoked_at > 0 ORDER BY id DESC LIMIT $2`

	selectInvites = `SELECT id, ` + ticketColumns + ` FROM tickets
		WHERE kind = 'invite' AND id < $1 ORDER BY id DESC LIMIT $2`
)

// Resume lets an agent come back that was suspended, and reports whether it was.
// What it was issued stays revoked, and its tokens are ended, but for credentials of the kinds in claims,
// which nobody authenticates with: of those, the ones that ended with the
// suspension are as they were.
func (t *Tx) Resume(a Agent, claims ...string) (bool, error) {
	n, err := t.exec(resumeAgent, a.ID)
	if err != nil || n == 0 {
		return false, err
	}
	for _, kind := range claims {
		if _, err := t.exec(restoreKeys, a.ID, kind, micros(a.DisabledAt)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// EndTokens ends the tokens of an agent that hang on no credential. Such a token
// says at which [Agent.TokensEnded] it was signed, and is good at that one only.
func (t *Tx) EndTokens(agentID int64) error {
	_, err := t.exec(endSigned, agentID)
	return err
}

// CredentialOf returns the credential of an agent with that public part, of
// whatever kind and in whatever state, or [ErrNotFound].
func (t *Tx) CredentialOf(agentID int64, keyID string) (Credential, error) {
	var c Credential
	if err := t.get(selectAgentKey, []any{agentID, keyID}, c.dest()...); err != nil {
		return Credential{}, err
	}
	return c, nil
}

// CredentialsOf returns what an agent was issued, of whatever kind, the newest
// first and at most limit: rather what is not revoked than what is. It does not
// wait for those who write.
func (s *Store) CredentialsOf(ctx context.Context, agentID int64, limit int) ([]Credential, error) {
	list, err := s.credentials(ctx, selectAgentActive, agentID, int64(limit))
	if err != nil {
		return nil, err
	}
	revoked, err := s.credentials(ctx, selectAgentRevoked, agentID, int64(limit-len(list)))
	if err != nil {
		return nil, err
	}
	list = append(list, revoked...)
	slices.SortFunc(list, func(a, b Credential) int { return cmp.Compare(b.ID, a.ID) })
	return list, nil
}

// Invites returns the tickets of the kind "invite", the newest first and at most
// limit, and where the next page begins: "" behind the last. It does not wait for
// those who write.
func (s *Store) Invites(ctx context.Context, after string, limit int) (list []Ticket, next string, err error) {
	at, err := parseCursor(after, cursor{ID: math.MaxInt64})
	if err != nil {
		return nil, "", err
	}
	found, err := collect(ctx, s, s.asks(selectInvites), []any{at.ID, int64(limit + 1)}, (*invite).dest)
	if err == nil && len(found) > limit {
		found = found[:limit]
		next = cursor{ID: found[limit-1].id}.String()
	}
	for _, i := range found {
		list = append(list, i.Ticket)
	}
	return list, next, err
}

// invite is a ticket with where it is in the table.
type invite struct {
	id int64
	Ticket
}

func (i *invite) dest() []any { return append([]any{&i.id}, i.Ticket.dest()...) }

// itself is where a row of one column is scanned to.
func itself[V any](v *V) []any { return []any{v} }
