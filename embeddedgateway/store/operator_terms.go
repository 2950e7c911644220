package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// maxTerm is how many bytes of a text an agent can be found by, and maxTerms how
// many texts.
const (
	maxTerm  = 256
	maxTerms = 6
)

const (
	insertTerm = `INSERT INTO agent_terms (agent_id, protocol, term) VALUES ($1, $2, $3)
		ON CONFLICT (protocol, term, agent_id) DO NOTHING`

	insertTwoTerms = `INSERT INTO agent_terms (agent_id, protocol, term) VALUES ($1, $2, $3), ($1, $2, $4)
		ON CONFLICT (protocol, term, agent_id) DO NOTHING`

	deleteTerm = `DELETE FROM agent_terms WHERE protocol = $1 AND term = $2 AND agent_id = $3`

	noteTerms = `UPDATE agents SET found_by = $1 WHERE id = $2`

	selectUnfound = `SELECT ` + agentColumns + `, seq FROM agents WHERE found_by = '' ORDER BY id LIMIT $1`

	// Whoever has written the agent since has stored its terms, or is of a
	// version that does not: then it is found again.
	makeUpTerms = `UPDATE agents SET found_by = $1 WHERE id = $2 AND seq = $3 AND found_by = ''`
)

// terms are the texts that an agent is found by: folded, sorted, none the
// beginning of another.
type terms []string

// fold makes texts that differ in case only the same, and text of anything.
func fold(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
	text = strings.ToLower(strings.ToUpper(strings.Join(strings.Fields(text), " ")))
	if len(text) > maxTerm {
		text = strings.ToValidUTF8(text[:maxTerm], "")
	}
	return text
}

// termsOf returns what an agent is found by.
func termsOf(a Agent, more func(Agent) []string) terms {
	texts := []string{a.Name, a.DisplayName}
	if more != nil {
		texts = append(texts, more(a)...)
	}
	for i, text := range texts {
		texts[i] = fold(text)
	}
	slices.Sort(texts)
	var found terms
	for i, text := range texts {
		if text == "" || i+1 < len(texts) && strings.HasPrefix(texts[i+1], text) {
			continue
		}
		found = append(found, text)
	}
	return found[:min(len(found), maxTerms)]
}

func (t *Tx) terms(a Agent) terms { return termsOf(a, t.more) }

// text is how terms are kept in found_by. It is never "".
func (s terms) text() string {
	if len(s) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(s) // a list of strings
	return string(b)
}

// parseTerms reads what text made.
func parseTerms(text string) (s terms) {
	_ = json.Unmarshal([]byte(text), &s) // nothing else writes it; none: it is not found
	return s
}

// first returns the first of the terms that begin with a text.
func (s terms) first(prefix string) (string, bool) {
	for _, term := range s {
		if strings.HasPrefix(term, prefix) {
			return term, true
		}
	}
	return "", false
}

// addTerms stores what an agent is found by.
func (t *Tx) addTerms(a Agent, s terms) error {
	for ; len(s) > 1; s = s[2:] {
		if _, err := t.exec(insertTwoTerms, a.ID, a.Protocol, s[0], s[1]); err != nil {
			return err
		}
	}
	if len(s) == 0 {
		return nil
	}
	_, err := t.exec(insertTerm, a.ID, a.Protocol, s[0])
	return err
}

// changeTerms stores what an agent is found by from now on.
func (t *Tx) changeTerms(a Agent, before string, s terms) error {
	if before == s.text() {
		return nil
	}
	if err := t.dropTerms(a, before); err != nil {
		return err
	}
	if _, err := t.exec(noteTerms, s.text(), a.ID); err != nil {
		return err
	}
	return t.addTerms(a, s)
}

func (t *Tx) dropTerms(a Agent, found string) error {
	for _, term := range parseTerms(found) {
		if _, err := t.exec(deleteTerm, a.Protocol, term, a.ID); err != nil {
			return err
		}
	}
	return nil
}

// unfound is an agent whose terms are not stored.
type unfound struct {
	Agent
	seq int64
}

func (u *unfound) dest() []any { return append(u.Agent.dest(), &u.seq) }

// MakeUpTerms stores what agents are found by that were stored by a version
// without search: of at most limit agents, and returns how many it were. Other
// processes may do the same, and such a version may still write.
func (s *Store) MakeUpTerms(ctx context.Context, limit int) (n int, err error) {
	todo, err := collect(ctx, s, s.asks(selectUnfound), []any{int64(limit)}, (*unfound).dest)
	if err != nil || len(todo) == 0 {
		return 0, err
	}
	err = s.Tx(ctx, func(tx *Tx) error {
		n = 0
		for _, u := range todo {
			found := tx.terms(u.Agent)
			changed, err := tx.exec(makeUpTerms, found.text(), u.ID, u.seq)
			if err != nil {
				return err
			}
			if changed == 0 {
				continue
			}
			n++
			if err := tx.addTerms(u.Agent, found); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}
