package gateway

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
)

// policy says what may be done with which credential.
type policy struct {
	file      policyCache
	store     credstore.Store
	scrub     *Scrubber
	questions questions
	// handle names a credential for people.
	handle func(credstore.Key) string
}

func newPolicy(o Options, scrub *Scrubber) *policy {
	path := o.Policy
	if path == "" && o.Home != "" {
		path = filepath.Join(o.Home, PolicyFile)
	}
	return &policy{
		file: policyCache{path: path, now: o.Now}, store: o.Store, scrub: scrub,
		questions: questions{now: o.Now}, handle: bareHandle,
	}
}

// current returns the policy as it is now. While there is one that cannot be
// used nobody knows what it refuses, so everything is refused.
func (p *policy) current() (*policyDocument, error) {
	d, err := p.file.current()
	if err != nil {
		return nil, &PolicyError{
			Why:    fmt.Sprintf("The policy in %s cannot be used: %s.", p.file.path, err),
			Remedy: "A person can put that right, or move the file away; 'enlist policy check' says whether it is right.",
		}
	}
	return d, nil
}

// permit returns nil if an act may be done, a *[PolicyError] if not, and an
// *[ApprovalError] if a person must be asked first. approved says that one was.
func (p *policy) permit(ctx context.Context, act Act) (approved bool, err error) {
	caller := callerOf(ctx)
	if act.Action == ActExec || act.Action == ActReveal || act.Action == ActExport {
		if caller.Kind == CallerModel || caller.Kind == CallerScript {
			return false, &PolicyError{
				Why:    "A secret is handed out to people only.",
				Remedy: "A person can type the command themselves.",
			}
		}
	}
	d, err := p.current()
	if err != nil {
		return false, err
	}
	if err := d.admits(act); err != nil {
		return false, err
	}
	v, err := p.verdict(ctx, d, caller, act)
	if err != nil {
		return false, err
	}
	switch {
	case v == Deny:
		return false, &PolicyError{
			Why:    fmt.Sprintf("The policy does not allow to %s.", p.what(act)),
			Remedy: fmt.Sprintf("A person can change that in %s: %s.", PolicyFile, p.line(act)),
		}
	case v == Ask && act.Chosen:
		return true, nil
	case v == Ask && caller.Kind != CallerPerson:
		return p.ask(ctx, caller, act)
	}
	return false, nil
}

// verdict returns what is to become of an act: what the policy says, or what
// holds where it says nothing.
func (p *policy) verdict(ctx context.Context, d *policyDocument, caller Caller, act Act) (Verdict, error) {
	if v := d.verdict(act); v != "" {
		return v, nil
	}
	if caller.Kind != CallerModel {
		return Allow, nil
	}
	switch act.Action {
	case ActRevoke, ActForget:
		return Ask, nil
	case ActRegister:
		strange, err := p.strange(ctx, act.Key.Origin)
		if err != nil {
			return Deny, err
		}
		if strange {
			return Ask, nil
		}
	}
	return Allow, nil
}

// strange reports whether a service is new: another than this machine, and
// nothing is stored from it.
func (p *policy) strange(ctx context.Context, origin string) (bool, error) {
	if u, err := url.Parse(origin); err == nil && loopback(u.Hostname()) {
		return false, nil
	}
	stored, err := p.store.List(ctx, "")
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(stored, func(i credstore.Info) bool { return i.Origin == origin }), nil
}

// ask returns nil if a person has agreed to an act within this very call, now or
// before, and an *[ApprovalError] if not.
func (p *policy) ask(ctx context.Context, caller Caller, act Act) (now bool, err error) {
	ask := &ApprovalError{Question: p.question(act), Code: ApprovalNeeded, Remedy: p.remedy(act), Final: true}
	if !caller.canAsk() {
		return false, ask
	}
	a := answersOf(ctx)
	subject, agreed := subjectOf(caller, act, a.call), subjectOf(caller, act, "")
	if a.agreed.has(agreed) {
		return false, nil
	}
	switch answer, found, late := a.to(&p.questions, subject); {
	case found && answer == AnswerYes:
		a.agreed.add(agreed)
		return true, nil
	case found && answer == AnswerNo:
		ask.Code = ApprovalDeclined
		return false, ask
	case found || late:
		ask.Code = ApprovalUnanswered
		return false, ask
	}
	if ask.ID = p.questions.ask(subject, caller.TokenName); ask.ID != "" {
		ask.Final = false
	}
	return false, ask
}

// count counts a registration against the daily number of them, or returns a
// *[PolicyError]. It counts without such a number, too: one that is set later
// holds for what was registered in the day before.
func (p *policy) count(ctx context.Context, j *journal) error {
	d, err := p.current()
	if err != nil {
		return err
	}
	daily := math.MaxInt
	if d.RegistrationsPerDay != nil {
		daily = int(*d.RegistrationsPerDay)
	}
	room, err := j.registered(ctx, daily)
	if err != nil || room.IsZero() {
		return err
	}
	if daily == 0 {
		return &PolicyError{
			Why:    "The policy allows no registrations.",
			Remedy: fmt.Sprintf("A person can change registrations_per_day in %s.", PolicyFile),
		}
	}
	return &PolicyError{
		Why:    fmt.Sprintf("The policy allows %d registrations a day, and they are used up.", daily),
		Remedy: fmt.Sprintf("There is room again on %s. A person can change registrations_per_day in %s.", day(room), PolicyFile),
	}
}

// networks returns the private networks that requests may go to; none while the
// policy cannot be used.
func (p *policy) networks() []netip.Prefix {
	d, err := p.file.current()
	if err != nil {
		return nil
	}
	var all []netip.Prefix
	for _, n := range d.PrivateNetworks {
		all = append(all, n.Prefix)
	}
	return all
}

// discovers returns why a service must not be looked at, or nil.
func (p *policy) discovers(origin string) error {
	d, err := p.current()
	if err != nil {
		return err
	}
	return d.admits(Act{Action: ActRead, Key: credstore.Key{Origin: origin}})
}

// knows reports whether the policy lets a protocol be used.
func (p *policy) knows(protocol string) bool {
	d, err := p.file.current()
	return err == nil && (d.Services == nil || slices.Contains(d.Services, policyService{protocol}))
}

// leads returns why a request must not go on to another path of the service, or
// nil.
func (p *policy) leads(k credstore.Key, method, path string) error {
	d, err := p.current()
	if err != nil {
		return err
	}
	return d.admits(Act{Action: ActRead, Key: k, Method: method, Path: path})
}

// admits returns why the lists of a policy do not admit an act, or nil.
func (d *policyDocument) admits(act Act) error {
	refuse := func(what, list string) error {
		return &PolicyError{
			Why:    "The policy does not allow " + what + ".",
			Remedy: fmt.Sprintf("A person can add it to %s in %s.", list, PolicyFile),
		}
	}
	k := act.Key
	if d.Services != nil && k.Protocol != "" && !slices.Contains(d.Services, policyService{k.Protocol}) {
		return refuse("the service "+k.Protocol, "services")
	}
	if d.Origins != nil && !slices.Contains(d.Origins, policyOrigin{k.Origin}) {
		return refuse("anything at "+k.Origin, "origins")
	}
	if act.Method == "" {
		return nil
	}
	methods, paths := d.requests(k)
	for _, list := range methods {
		if !slices.Contains(list, policyMethod{act.Method}) {
			return refuse("requests of this method at "+k.Origin, "methods")
		}
	}
	for _, list := range paths {
		if !slices.ContainsFunc(list, func(p policyPath) bool { return p.begins(act.Path) }) {
			return refuse("requests to this path at "+k.Origin, "paths")
		}
	}
	return nil
}

// line is what a person can write into the policy for an act to be done at once.
func (p *policy) line(act Act) string {
	return fmt.Sprintf("[[for]] with service = %q, origin = %q and %s = %q",
		act.Key.Protocol, act.Key.Origin, string(act.Action), string(Allow))
}

// what says what an act does, in words of Enlist's own.
func (p *policy) what(act Act) string {
	if act.KeyID != "" {
		return fmt.Sprintf("%s the key %s of %s at %s", act.Action, act.KeyID, p.agent(act.Key), act.Key.Origin)
	}
	switch act.Action {
	case ActRegister:
		return "register an agent at " + act.Key.Origin
	case ActWrite:
		return "send requests that may change something to " + act.Key.Origin
	}
	return string(act.Action) + " the credential " + p.handle(act.Key)
}

// question asks a person for an act. It holds nothing that a service or a model
// has said but the name of the agent and the path of a request, in quotes and
// without what could end them.
func (p *policy) question(act Act) string {
	agent, at := p.agent(act.Key), act.Key.Origin
	switch act.Action {
	case ActRegister:
		return fmt.Sprintf("Register %s at %s?", agent, at)
	case ActRotate:
		return fmt.Sprintf("Replace the key of %s at %s? The old one ends.", agent, at)
	case ActRevoke:
		if act.KeyID != "" {
			return fmt.Sprintf("End the key %s of %s at %s for good? It is not stored here: whatever uses it elsewhere will be refused.", act.KeyID, agent, at)
		}
		return fmt.Sprintf("End the credential of %s at %s for good?", agent, at)
	case ActForget:
		return fmt.Sprintf("Delete the credential of %s at %s from this machine for good? The service is not told.", agent, at)
	case ActWrite:
		return fmt.Sprintf("Send the request %s %s, which may change something, as %s to %s?", act.Method, p.quoted(act.Path, maxAskedPath), agent, at)
	}
	return fmt.Sprintf("Do this as %s at %s: %s?", agent, at, act.Action)
}

// How much a question repeats, in bytes: of an agent's name, and of a path.
const (
	maxAgent     = 64
	maxAskedPath = 200
)

// agent names an agent as it can stand in a question.
func (p *policy) agent(k credstore.Key) string {
	name := k.Agent
	if k.Label != "" {
		name = k.Label
	}
	if name == "" {
		return "an agent"
	}
	return "the agent " + p.quoted(name, maxAgent)
}

// quoted returns the beginning of somebody else's words, in quotes.
func (p *policy) quoted(words string, most int) string {
	quoted := strconv.QuoteToASCII(p.scrub.Own(words))
	if len(quoted) > most {
		quoted = quoted[:most] + `…"`
	}
	return quoted
}

// remedy says how a person can allow an act where nobody can be asked.
func (p *policy) remedy(act Act) string {
	remedy := fmt.Sprintf("A person can allow it in %s, by a %s", PolicyFile, p.line(act))
	switch {
	case act.KeyID != "": // no command ends it
	case act.Action == ActRevoke, act.Action == ActForget, act.Action == ActRotate:
		remedy += fmt.Sprintf(", or do it themselves: enlist %s %s", act.Action, p.handle(act.Key))
	}
	return remedy + "."
}

// PolicyError says that the policy refuses what was asked for.
type PolicyError struct {
	Why    string // one sentence
	Remedy string // one sentence: what a person can do to allow it
}

// Error implements error.
func (e *PolicyError) Error() string { return e.Why + " " + e.Remedy }

// ApprovalError says that a person must agree first.
type ApprovalError struct {
	Question string // one or two sentences of Enlist's own that name agent, service and action
	ID       string // names the question: the answer counts for this one only
	Final    bool   // nobody can be asked, or the answer was no
	Code     string // why, where it is final: one of those below
	Remedy   string // one sentence: how a person can allow it without being asked
}

// The codes of an [ApprovalError].
const (
	ApprovalNeeded     = "approval_needed"     // nobody can be asked
	ApprovalDeclined   = "approval_declined"   // the person said no
	ApprovalUnanswered = "approval_unanswered" // the person did not say, or what they said is for another question
)

// Error implements error.
func (e *ApprovalError) Error() string {
	return "A person must agree first: " + strings.TrimSpace(e.Question+" "+e.Remedy)
}
