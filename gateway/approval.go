package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"sync"
	"time"
)

const (
	// answerTime is for how long the answer to a question counts.
	answerTime = 5*time.Minute + 10*time.Second
	// maxQuestions is how many questions wait for an answer at once, and
	// maxQuestionsEach how many of them of clients with one token: nobody keeps
	// another's from being asked.
	maxQuestions, maxQuestionsEach = 256, 64
)

// Answer is what a person said to the question of an [ApprovalError].
type Answer int

// The answers.
const (
	AnswerNone Answer = iota // nothing, or nothing yet
	AnswerNo
	AnswerYes
)

// answersKey is the context key of the answers to what was asked.
type answersKey struct{}

// answers are what a person said to the questions that a call led to before.
type answers struct {
	call   string
	agreed *Agreed

	mu    sync.Mutex
	given map[string]Answer // what no question was found for yet
}

// Agreed is what a person has agreed to within one call of a tool. A call that
// asks more than once carries it from one question to the next, for the yes to
// the first counts once by itself. Only the policy adds to it.
type Agreed struct {
	mu   sync.Mutex
	acts map[[sha256.Size]byte]bool
}

func (a *Agreed) add(act [sha256.Size]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.acts == nil {
		a.acts = make(map[[sha256.Size]byte]bool)
	}
	a.acts[act] = true
}

func (a *Agreed) has(act [sha256.Size]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.acts[act]
}

// WithAnswers returns a context for a call of a tool with what a person said to
// the questions that it led to before, by their IDs. call stands for the call
// with all its arguments: an answer counts for a call that is the same, and once.
// agreed is what they have agreed to in it before, and gets what they agree to
// now; nil: nothing.
func WithAnswers(ctx context.Context, call string, given map[string]Answer, agreed *Agreed) context.Context {
	if agreed == nil {
		agreed = new(Agreed)
	}
	return context.WithValue(ctx, answersKey{}, &answers{call: call, given: maps.Clone(given), agreed: agreed})
}

func answersOf(ctx context.Context) *answers {
	if a, ok := ctx.Value(answersKey{}).(*answers); ok {
		return a
	}
	return &answers{agreed: new(Agreed)}
}

// to returns the answer to the question that was asked about a subject. One that
// has been found is none to anything else. late: there are answers, and none is
// to that: it was answered already, or too late, or is about something else.
func (a *answers) to(q *questions, subject [sha256.Size]byte) (answer Answer, found, late bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, answer := range a.given {
		if q.take(id, subject) {
			delete(a.given, id)
			return answer, true, false
		}
	}
	return AnswerNone, false, len(a.given) > 0
}

// subjectOf tells apart what may be asked for: who wants what done with which
// credential by which call.
func subjectOf(caller Caller, act Act, call string) [sha256.Size]byte {
	// Its fields are texts and numbers, so that this cannot fail.
	text, _ := json.Marshal([]any{caller, act, call})
	return sha256.Sum256(text)
}

// questions are those that wait for an answer.
type questions struct {
	now func() time.Time

	mu   sync.Mutex
	open map[string]question
}

type question struct {
	token   string // the name of the asker's; "": none
	subject [sha256.Size]byte
	until   time.Time
}

// ask returns the name of a new question; "": there are too many.
func (q *questions) ask(subject [sha256.Size]byte, token string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	now, own := q.now(), 0
	for id, old := range q.open {
		switch {
		case !now.Before(old.until):
			delete(q.open, id)
		case old.token == token:
			own++
		}
	}
	if len(q.open) >= maxQuestions || own >= maxQuestionsEach {
		return ""
	}
	if q.open == nil {
		q.open = make(map[string]question)
	}
	id := rand.Text()
	q.open[id] = question{token, subject, now.Add(answerTime)}
	return id
}

// take reports whether an answer is to a question that was asked about just
// this and still waits. It counts once.
func (q *questions) take(id string, subject [sha256.Size]byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	asked, ok := q.open[id]
	if !ok || asked.subject != subject {
		return false
	}
	delete(q.open, id)
	return q.now().Before(asked.until)
}
