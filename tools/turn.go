package tools

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

const (
	// maxQuestions is how many questions one call may lead to.
	maxQuestions = 3
	// maxTurns is how many calls wait for an answer at once, and maxTurnsEach how
	// many of them of clients with one token.
	maxTurns, maxTurnsEach = 256, 64
	// turnTime is for how long: a little longer than a question waits.
	turnTime = 5*time.Minute + 10*time.Second
)

// turn is a call of a tool from one question to the next. What the person said
// is kept here and nowhere else: a client that makes the call again for the
// answer brings the name of the turn, and cannot change what is in it.
type turn struct {
	call   string // the call with the arguments that the model gave
	caller gateway.Caller
	said   map[string]json.RawMessage // by the person, by argument
	agreed *gateway.Agreed
	asked  int   // how many questions there were
	form   *form // that waits for its answer; nil: none does, or a question of the policy
	until  time.Time
}

// turns are the calls that wait for an answer.
type turns struct {
	now func() time.Time

	mu   sync.Mutex
	open map[string]turn
}

// put keeps a turn and returns its name; "": there are too many.
func (q *turns) put(t turn) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	maps.DeleteFunc(q.open, func(_ string, old turn) bool { return !now.Before(old.until) })
	own := 0
	for _, other := range q.open {
		if other.caller.TokenName == t.caller.TokenName {
			own++
		}
	}
	if len(q.open) >= maxTurns || own >= maxTurnsEach {
		return ""
	}
	if q.open == nil {
		q.open = make(map[string]turn)
	}
	name := rand.Text()
	t.until = now.Add(turnTime)
	q.open[name] = t
	return name
}

// take returns the turn of a name, once, and to nobody but whoever began it with
// the same call.
func (q *turns) take(name, call string, caller gateway.Caller) (turn, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t, ok := q.open[name]
	if !ok || t.call != call || t.caller != caller {
		return turn{}, false
	}
	delete(q.open, name)
	return t, q.now().Before(t.until)
}

// take returns the turn that a call goes on with, or begins, or the failure that
// the answer to its question is.
func (d Deps) take(ctx context.Context, s spec, req mcp.CallToolRequest) (turn, *Failure) {
	t := turn{call: fingerprint(req.Params.Name, arguments(req)), caller: gateway.CallerOf(ctx), agreed: new(gateway.Agreed)}
	name, answers := req.Params.RequestState, req.Params.InputResponses
	if name == "" {
		if len(answers) > 0 { // to a question of the policy, which keeps its own
			t.asked = 1
		}
		return t, nil
	}
	before, ok := d.turns.take(name, t.call, t.caller)
	switch {
	case !ok:
		return t, s.unanswered(form{})
	case before.form == nil:
		return before, nil
	}
	asked := *before.form
	before.form = nil
	answer := server.ElicitationResponse(answers, name)
	delete(answers, name)
	if answer == nil || answer.Action != mcp.ElicitationResponseActionAccept {
		if answer != nil && answer.Action == mcp.ElicitationResponseActionDecline {
			return t, s.declined(asked)
		}
		return t, s.unanswered(asked)
	}
	said, bad := asked.read(answer.Content)
	switch {
	case bad != nil && bad.declined:
		return t, s.declined(asked)
	case bad != nil:
		return t, s.refused(asked, bad.why)
	}
	before.said = maps.Clone(before.said)
	if before.said == nil {
		before.said = said
	}
	maps.Copy(before.said, said)
	return before, nil
}

// arguments returns the arguments of a call by their names; nil: there are none,
// or they cannot be read.
func arguments(req mcp.CallToolRequest) map[string]json.RawMessage {
	var given map[string]json.RawMessage
	_ = bind(req, &given) // what cannot be read is refused, and nobody is asked
	return given
}

// bind reads the arguments of a call, with what the person said beside those that
// the model gave.
func (t turn) bind(req mcp.CallToolRequest, in any) error {
	if len(t.said) == 0 {
		return bind(req, in)
	}
	raw, err := json.Marshal(t.together(req))
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(in)
}

func (t turn) together(req mcp.CallToolRequest) map[string]json.RawMessage {
	all := make(map[string]json.RawMessage)
	maps.Copy(all, arguments(req))
	maps.Copy(all, t.said)
	return all
}

// turnKey is the context key of the turn that a handler is called in.
type turnKey struct{}

// context returns one for the handler, with what the person said to questions of
// the policy. Such an answer counts for the call with all its arguments, what the
// person said among them.
func (t turn) context(ctx context.Context, req mcp.CallToolRequest) context.Context {
	given := make(map[string]gateway.Answer)
	for id := range req.Params.InputResponses {
		given[id] = gateway.AnswerNone
		answer := server.ElicitationResponse(req.Params.InputResponses, id)
		switch {
		case answer == nil:
		case answer.Action == mcp.ElicitationResponseActionAccept:
			given[id] = gateway.AnswerYes
		case answer.Action == mcp.ElicitationResponseActionDecline:
			given[id] = gateway.AnswerNo
		}
	}
	ctx = context.WithValue(ctx, turnKey{}, t)
	return gateway.WithAnswers(ctx, fingerprint(req.Params.Name, t.together(req)), given, t.agreed)
}

// saidByPerson reports whether an argument of a call is what the person filled in.
func saidByPerson(ctx context.Context, argument string) bool {
	t, _ := ctx.Value(turnKey{}).(turn)
	_, said := t.said[argument]
	return said
}

// asks reports whether the person can still be asked in a call.
func asks(ctx context.Context) bool {
	t, _ := ctx.Value(turnKey{}).(turn)
	return gateway.CanAsk(ctx) && t.asked < maxQuestions
}

// ask returns the question that an error leads to, and what there is to say if it
// cannot be asked: nil, where the error is for somebody else to explain.
func (d Deps) ask(ctx context.Context, s spec, t turn, err error) (*mcp.CallToolResult, error) {
	var approval *gateway.ApprovalError
	if errors.As(err, &approval) && !approval.Final {
		if t.asked >= maxQuestions {
			return nil, tooMany(approval)
		}
		if res := d.question(t, approval.ID, form{message: approval.Question}); res != nil {
			return res, nil
		}
		return nil, tooMany(approval)
	}
	var m *missing
	if !errors.As(d.wants(s, err), &m) {
		return nil, err
	}
	known := false
	for _, a := range m.fields {
		_, said := t.said[a.name]
		known = known || said // the same is not asked twice
	}
	if !known && asks(ctx) {
		t.form = &m.form
		if res := d.question(t, "", m.form); res != nil {
			return res, nil
		}
	}
	if m.instead != nil {
		return nil, m.instead
	}
	return nil, m
}

// tooMany is the error for an approval that cannot be asked for any more.
func tooMany(ask *gateway.ApprovalError) error {
	final := *ask
	final.Final, final.Code = true, gateway.ApprovalUnanswered
	return &final
}

// question is the result that has a client ask the person. One of the policy has
// an id, and a form without fields: to send it is to agree. It returns nil when
// too many wait for an answer.
func (d Deps) question(t turn, id string, f form) *mcp.CallToolResult {
	// The first question of a call leaves nothing to remember if it is the policy's.
	first := id != "" && t.asked == 0
	t.asked++
	var name string
	if !first {
		if name = d.turns.put(t); name == "" {
			return nil
		}
	}
	if id == "" {
		id = name
	}
	return server.NewInputRequestBuilder(name).Elicit(id, mcp.ElicitationParams{
		Mode: mcp.ElicitationModeForm, Message: "Enlist: " + f.message, RequestedSchema: f.schema(),
	}).ToolResult()
}
