package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/credstore"
)

// Action is what is done with a credential, in the word that the policy and the
// audit trail have for it.
type Action string

// The actions.
const (
	ActRegister Action = "register" // also: recovering an account
	// ActRecover is what the journal has of recovering an account, which the policy
	// and the audit trail have as a registration.
	ActRecover Action = "recover"
	ActRotate  Action = "rotate"
	ActRenew   Action = "renew"  // what is had anew without anybody asking for it
	ActRevoke  Action = "revoke" // ends a credential at the service
	ActForget  Action = "forget" // deletes it here
	ActRead    Action = "read"   // a request that changes nothing
	ActWrite   Action = "write"  // a request that may
	ActExec    Action = "exec"   // the secret goes into the environment of a program
	ActReveal  Action = "reveal" // the secret is shown to a person
	ActExport  Action = "export" // the secret goes into an archive
	ActImport  Action = "import" // and out of it into the store
	ActHeal    Action = "heal"   // what a process left half-done is brought to an end
)

// Act is one thing that somebody wants done.
type Act struct {
	Action Action
	// Key is the credential; its Agent may be the one that is asked for.
	Key credstore.Key
	// Method and Path are those of a request.
	Method, Path string
	// KeyID is the service's number of a key that is not stored here, of the
	// agent of Key.
	KeyID string
	// Chosen says that a person chose just this, in a form of Enlist's own: they
	// need not be asked whether they agree. What is denied stays so.
	Chosen bool
}

// CallerKind says on whose behalf something is done.
type CallerKind int

// The kinds of caller. The zero value is the strictest.
const (
	// CallerModel: a model, through an MCP client.
	CallerModel CallerKind = iota
	// CallerScript: a tool call by a person's own script or test, where nobody
	// can be asked.
	CallerScript
	// CallerPerson: a person, who typed the command.
	CallerPerson
	// CallerSelf: Enlist, on its own or because a person's settings say so.
	CallerSelf
)

// Caller is who asks. Name and Version are what a client calls itself; nobody
// has checked it.
type Caller struct {
	Kind          CallerKind
	Name, Version string
	// TokenName is the name that a person gave the bearer token that a client
	// came with; "": it came without one.
	TokenName string
	// Asks says that the client can put a question to a person.
	Asks bool
}

// callerKey is the context key of a [Caller].
type callerKey struct{}

// WithCaller returns a context for what a caller asks for. What is done in one
// without a caller is done by Enlist itself.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns who asks.
func callerOf(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Kind: CallerSelf, Name: "enlist"}
}

// CallerOf returns who asks for what is done in a context.
func CallerOf(ctx context.Context) Caller { return callerOf(ctx) }

// CanAsk reports whether there is a person who can be asked about what is done
// in a context.
func CanAsk(ctx context.Context) bool { return callerOf(ctx).canAsk() }

// canAsk: a script of a person runs without them, and a person need not be asked
// what they have typed.
func (c Caller) canAsk() bool { return c.Kind == CallerModel && c.Asks }

// steward stands around everything that is done with a credential: the policy
// is asked before, and the audit trail told after.
type steward struct {
	policy  *policy
	journal *journal
	scrub   *Scrubber
	now     func() time.Time
	log     *slog.Logger
}

func newSteward(o Options, scrub *Scrubber) *steward {
	return &steward{
		policy: newPolicy(o, scrub), journal: newJournal(o.Home, o.Now),
		scrub: scrub, now: o.Now, log: o.Logger,
	}
}

// begin begins an operation in the journal. A registration counts against the
// daily number of them, unless it is a part of one that is under way.
func (s *steward) begin(ctx context.Context, act Action, k credstore.Key) (context.Context, *operation, error) {
	if o := underWay(ctx); act == ActRegister && (o == nil || o.key != k) {
		if err := s.policy.count(ctx, s.journal); err != nil {
			return ctx, nil, err
		}
	}
	return s.journal.begin(ctx, act, k)
}

// does does something with a credential, if the policy lets it. It comes before
// the lock and the deadline of what is done: a person may have to be asked.
func does[T any](ctx context.Context, s *steward, act Act, f func(context.Context) (T, error)) (T, error) {
	var out T
	approved, err := s.policy.permit(ctx, act)
	if approved {
		s.record(ctx, act, Event{Outcome: OutcomeApproved})
	}
	if err == nil {
		out, err = f(ctx)
	}
	status := 0
	if a, ok := any(out).(interface{ httpStatus() int }); ok && err == nil {
		status = a.httpStatus()
	}
	s.note(ctx, act, status, err)
	return out, err
}

// note writes into the audit trail what came of an act. What cannot be noted has
// been done all the same, and whoever asked must learn of that: so it is logged.
func (s *steward) note(ctx context.Context, act Act, status int, err error) {
	var ask *ApprovalError
	if errors.As(err, &ask) && !ask.Final {
		return // it will be asked for once more, with the answer
	}
	e := Event{Status: status}
	e.Outcome, e.Code = outcome(err)
	if status >= http.StatusBadRequest {
		e.Outcome = OutcomeFailed
	}
	s.record(ctx, act, e)
}

// record adds an event that has an outcome, with what is known of its act.
func (s *steward) record(ctx context.Context, act Act, e Event) {
	path := act.Path
	if !s.searched(ctx, act, e) {
		path = ""
	}
	caller := callerOf(ctx)
	e.Time, e.Client, e.Version = s.now(), s.clean(caller.Name), s.clean(caller.Version)
	if caller.Kind == CallerModel {
		e.Client = claimed(e.Client)
	}
	e.TokenName = s.clean(caller.TokenName)
	e.Action, e.Method, e.Path = act.Action, act.Method, s.clean(path)
	e.Protocol, e.Origin, e.Agent = act.Key.Protocol, act.Key.Origin, s.clean(act.Key.Agent)
	e.Kind, e.Label = string(act.Key.Kind), s.clean(act.Key.Label)
	if act.KeyID != "" {
		e.Label = s.clean("key " + act.KeyID)
	}
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime) // it has been done: nobody waits for ever
	defer cancel()
	if err := s.journal.append(noting, e); err != nil {
		s.log.WarnContext(ctx, "the audit trail could not be written", "action", string(act.Action),
			"protocol", act.Key.Protocol, "agent", act.Key.Agent, "error", s.scrub.Own(err.Error()))
	}
}

// claimed returns what a client calls itself as nobody can take it for somebody
// else: for a command that a person typed, for Enlist on its own, or for the name
// of a token, which stands before a colon. Such a name is put in quotes.
func claimed(name string) string {
	if strings.Contains(name, ":") || strings.HasPrefix(strings.ToLower(strings.TrimSpace(name)), "enlist") {
		return strconv.Quote(name)
	}
	return name
}

// searched reports whether every stored secret is known, so that none is written
// down that somebody has put into a name or a path. For a request that was made
// they were looked at before.
func (s *steward) searched(ctx context.Context, act Act, e Event) bool {
	if e.Outcome == OutcomeDone && (act.Action == ActRead || act.Action == ActWrite) {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	return s.scrub.load(ctx) == nil
}

// clean returns what somebody else chose as it can stand in a list: without
// secrets, on one line, not long.
func (s *steward) clean(text string) string {
	text = s.scrub.Own(text)
	for n := 0; len(text) > maxNoted; n++ {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// maxNoted is how much of a text the audit trail keeps, in bytes.
const maxNoted = 200

// outcome says what came of an act, and by which code.
func outcome(err error) (outcome, code string) {
	var (
		failed  *Error
		refused *RefusedError
		policy  *PolicyError
		ask     *ApprovalError
		missing *ResolveError
		none    *UnsupportedError
	)
	switch {
	case err == nil:
		return OutcomeDone, ""
	case errors.As(err, &policy):
		return OutcomeRefused, "policy"
	case errors.As(err, &ask):
		return OutcomeRefused, ask.Code
	case errors.As(err, &refused), errors.As(err, &missing), errors.As(err, &none):
		return OutcomeRefused, ""
	case errors.As(err, &failed):
		code := failed.Code
		if failed.Theirs {
			code = fmt.Sprintf("http_%d", failed.Status)
		}
		if failed.Sent {
			return OutcomeUnknown, code
		}
		return OutcomeFailed, code
	}
	return OutcomeFailed, ""
}
