package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What Lithtrix keeps beside a key.
const (
	lithtrixOwner   = "owner_identifier" // with the agent_name: who is registered
	lithtrixAgentID = "agent_id"         // the service's own name for the agent
	lithtrixTerms   = "agree_to_terms"   // beside no key yet: what the person decided
)

// lithtrixRegisterTool is the tool that registers an agent.
const lithtrixRegisterTool = "lithtrix_register_agent"

// lithtrixMinKey is the length of the shortest key that is taken: ltx_ and as
// much as the documentation's own example has.
const lithtrixMinKey = 12

// LithtrixRegistration is what an agent registers with at Lithtrix.
type LithtrixRegistration struct {
	AgentName       string // required
	OwnerIdentifier string // required
	// AgreeToTerms is what the person decided. nil: nobody was asked, and
	// nothing is sent.
	AgreeToTerms *bool
	// Label names the credential where another identity, which is another pair
	// of AgentName and OwnerIdentifier, has the handle already. "": AgentName does.
	Label string
}

// check returns why r cannot be registered. It does not repeat what was given.
func (r LithtrixRegistration) check() error {
	switch {
	case !wire.CheckLithtrixAgentName(r.AgentName):
		return errors.New("agent_name: want 1 to 100 ASCII letters, digits, dashes and underscores")
	case !wire.CheckLithtrixOwner(r.OwnerIdentifier):
		return errors.New("owner_identifier: want 1 to 255 characters, none of them a control character")
	case utf8.RuneCountInString(r.Label) > 100:
		return errors.New("label: want at most 100 characters")
	}
	return nil
}

// Lithtrix is the client half of Lithtrix.
type Lithtrix struct {
	origin  string
	http    *caller
	store   credstore.Store
	steward *steward
	now     func() time.Time
	log     *slog.Logger
	begun   begun

	// unstored has the keys that the store would not take.
	unstored
}

func newLithtrix(o Options, http *caller) (*Lithtrix, error) {
	origin, err := o.setting(wire.LithtrixName, "LITHTRIX_API_URL", wire.LithtrixOrigin)
	if err != nil {
		return nil, err
	}
	return &Lithtrix{
		origin: origin, http: http, store: o.Store, steward: o.steward, now: o.Now, log: o.Logger,
		begun: begun{o.Store, http.scrub, o.Now, o.Logger},
	}, nil
}

// Wire implements [Protocol].
func (l *Lithtrix) Wire() wire.Protocol { return wire.Lithtrix() }

// Origin implements [Protocol].
func (l *Lithtrix) Origin() string { return l.origin }

// Kind implements [Protocol].
func (l *Lithtrix) Kind() credstore.Kind { return credstore.KindToken }

// Authorize implements [Protocol].
func (l *Lithtrix) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	if originOf(req.URL) != k.Origin {
		return errors.New("a credential goes to the origin that issued it only")
	}
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	if c.State == credstore.StatePending {
		return unregisteredLithtrix(k)
	}
	if !presentable(c.Secret.Reveal(), 1) {
		return &credstore.Error{
			Op: "use", Place: "the key of " + k.Agent, Kind: credstore.ErrDamaged,
			Remedy: "forget it and register under another agent_name",
		}
	}
	req.Header.Set(wire.LithtrixHeader, "Bearer "+c.Secret.Reveal())
	return nil
}

// Environ implements [Exporter].
func (l *Lithtrix) Environ(ctx context.Context, k credstore.Key) ([]Variable, error) {
	header, err := headersOf(ctx, l, k)
	if err != nil {
		return nil, err
	}
	return []Variable{
		variable("LITHTRIX_API_KEY", header.Get(wire.LithtrixHeader)),
		variable("LITHTRIX_API_URL", k.Origin),
	}, nil
}

// unregisteredLithtrix refuses to use what is stored of a registration without
// a key.
func unregisteredLithtrix(k credstore.Key) error {
	return &RefusedError{
		Why:  "There is no key of the agent " + k.Agent + ": its registration did not come to an end. It must be registered again with the same arguments.",
		Tool: lithtrixRegisterTool,
	}
}

// Register gets the agent a key and stores it. A pair of agent_name and
// owner_identifier registers once: a usable key of it that is stored is
// returned, whatever its label, before anything is asked for.
func (l *Lithtrix) Register(ctx context.Context, r LithtrixRegistration) (Registration, error) {
	act := Act{Action: ActRegister, Key: credstore.Key{
		Protocol: wire.LithtrixName, Origin: l.origin, Agent: r.AgentName, Kind: credstore.KindToken,
	}}
	if r.Label != "" && slug(r.Label) != r.AgentName {
		act.Key.Label = slug(r.Label)
	}
	return does(ctx, l.steward, act, func(ctx context.Context) (Registration, error) {
		return l.register(ctx, act.Action, act.Key, r)
	})
}

// register is Register for a key at any origin, whatever it is for.
func (l *Lithtrix) register(ctx context.Context, act Action, k credstore.Key, r LithtrixRegistration) (Registration, error) {
	if err := r.check(); err != nil {
		return Registration{}, call{protocol: wire.LithtrixName, origin: k.Origin, op: "register"}.fail(CodeInvalidInput, err)
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	// The lock of the handle, too, so that two identities do not get the same one.
	unlock, err := lockHandle(ctx, l.store, k)
	if err != nil {
		return Registration{}, err
	}
	defer unlock()
	return l.registerLocked(ctx, act, k, r)
}

// registerLocked is register for whoever holds the locks.
func (l *Lithtrix) registerLocked(ctx context.Context, act Action, k credstore.Key, r LithtrixRegistration) (Registration, error) {
	op := call{protocol: wire.LithtrixName, origin: k.Origin, op: "register", acts: true}
	if c, ok := l.waiting(k); ok && c.Attrs[lithtrixOwner] == r.OwnerIdentifier {
		info, err := l.keepWaiting(ctx, c)
		return Registration{Info: info}, err
	}
	if held, ok, err := l.registered(ctx, k, r); err != nil || ok {
		return Registration{Info: held, Reused: ok}, err
	}
	if err := l.taken(ctx, k, r); err != nil {
		return Registration{}, err
	}
	return l.enrol(ctx, act, op, k, r)
}

// enrol asks for a key and stores it. The caller holds the lock.
func (l *Lithtrix) enrol(ctx context.Context, act Action, op call, k credstore.Key, r LithtrixRegistration) (done Registration, err error) {
	before, err := l.store.Get(ctx, k)
	if err != nil && !errors.Is(err, credstore.ErrNotFound) {
		return Registration{}, err
	}
	attrs := r.attrs()
	if before.State == credstore.StatePending {
		before.Attrs = attrs // what the person decides now counts
	}
	from, err := l.begun.seeded(ctx, k, before, attrs, lithtrixOwner, lithtrixAgentID, lithtrixTerms)
	if err != nil {
		return Registration{}, err
	}
	ctx, begun, err := l.steward.begin(ctx, act, k)
	if err != nil {
		l.begun.withdraw(ctx, k, before, err)
		return Registration{}, err
	}
	defer func() { begun.end(ctx, err) }()
	body := wire.LithtrixRegisterRequest{AgentName: r.AgentName, OwnerIdentifier: r.OwnerIdentifier, AgreeToTerms: r.AgreeToTerms}
	c, err := l.ask(ctx, op, from, body)
	if err != nil {
		l.begun.withdraw(ctx, k, before, err)
	}
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusConflict {
		// Another process may have registered it meanwhile, under another label.
		held, ok, lookErr := l.registered(ctx, k, r)
		if lookErr != nil || ok {
			return Registration{Info: held, Reused: ok}, lookErr
		}
	}
	if err != nil {
		return Registration{}, err
	}
	c.Attrs[lithtrixOwner] = r.OwnerIdentifier
	info, err := l.keep(ctx, c)
	return Registration{Info: info}, err
}

// attrs is what is kept of a registration until there is a key.
func (r LithtrixRegistration) attrs() map[string]string {
	attrs := map[string]string{lithtrixOwner: r.OwnerIdentifier}
	if r.AgreeToTerms != nil {
		attrs[lithtrixTerms] = strconv.FormatBool(*r.AgreeToTerms)
	}
	return attrs
}

// registered returns the usable credential of an identity, whatever its label.
func (l *Lithtrix) registered(ctx context.Context, k credstore.Key, r LithtrixRegistration) (credstore.Info, bool, error) {
	all, err := l.stored(ctx, k)
	if err != nil {
		return credstore.Info{}, false, err
	}
	mine := filter(all, func(i credstore.Info) bool { return sameLithtrix(i, r) && i.UsableAt(l.now()) })
	if len(mine) == 0 {
		return credstore.Info{}, false, nil
	}
	return mine[0], true, nil
}

// taken refuses a handle that another identity has.
func (l *Lithtrix) taken(ctx context.Context, k credstore.Key, r LithtrixRegistration) error {
	all, err := l.stored(ctx, k)
	if err != nil {
		return err
	}
	others := filter(all, func(i credstore.Info) bool { return bareHandle(i.Key) == bareHandle(k) && !sameLithtrix(i, r) })
	if len(others) == 0 {
		return nil
	}
	op := call{protocol: wire.LithtrixName, origin: k.Origin, op: "register"}
	return op.fail(CodeInvalidInput, fmt.Errorf(
		"label: the handle %s belongs to another stored agent (another agent_name or owner_identifier): give a label that no handle has, and this one is called by it", bareHandle(k)))
}

func sameLithtrix(i credstore.Info, r LithtrixRegistration) bool {
	return i.Agent == r.AgentName && i.Attrs[lithtrixOwner] == r.OwnerIdentifier
}

// stored returns what is stored of the protocol at the origin of k. What is stored
// under k is there even if the store's list is lost.
func (l *Lithtrix) stored(ctx context.Context, k credstore.Key) ([]credstore.Info, error) {
	all, err := l.store.List(ctx, wire.LithtrixName)
	if err != nil {
		return nil, err
	}
	all = filter(all, func(i credstore.Info) bool { return i.Origin == k.Origin && i.Kind == k.Kind && i.Key != k })
	c, err := l.store.Get(ctx, k)
	switch {
	case err == nil:
		all = append(all, c.Info)
	case !errors.Is(err, credstore.ErrNotFound):
		return nil, err
	}
	if c, ok := l.waiting(k); ok {
		all = append(all, c.Info)
	}
	return all, nil
}

// ask registers. An answer that was lost on its way is made up for by asking
// once more, which is no risk: a service that knows the idempotency key issues
// another key in the place of the lost one, and at any other a pair registers
// once, so that a 409 then says that the key was in the answer.
func (l *Lithtrix) ask(ctx context.Context, op call, from credstore.Credential, body wire.LithtrixRegisterRequest) (credstore.Credential, error) {
	k, header := from.Key, l.http.attempt(op, from)
	c, err := l.issue(ctx, op, k, wire.LithtrixRegisterPath, header, body)
	var lost *Error
	if !errors.As(err, &lost) || !lost.mayHaveIssued() || !l.http.pause(ctx, max(firstPause, lost.RetryAfter)) {
		return c, err
	}
	l.log.WarnContext(ctx, "the answer to a registration was lost; asking once more",
		"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "code", lost.Code, "status", lost.Status)
	c, err = l.issue(ctx, op, k, wire.LithtrixRegisterPath, header, body)
	var second *Error
	if errors.As(err, &second) {
		second.Sent = true // the first one may have
		if second.Cause == nil {
			second.Cause = fmt.Errorf("this was the second try; the first one failed with %w", lost)
		}
	}
	return c, err
}

// issue makes a request that a key is the answer to. body nil: it has none.
func (l *Lithtrix) issue(ctx context.Context, op call, k credstore.Key, path string, header http.Header, body any) (credstore.Credential, error) {
	u, err := url.Parse(op.origin + path)
	if err != nil {
		return credstore.Credential{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	answer, err := l.http.exchange(ctx, op, message{method: http.MethodPost, url: u, header: header}, body, false)
	if err != nil {
		return credstore.Credential{}, err
	}
	var fields map[string]json.RawMessage
	if err := l.http.decode(op, answer, &fields); err != nil {
		return credstore.Credential{}, err
	}
	var key string
	if json.Unmarshal(fields["api_key"], &key) != nil || !presentable(key, lithtrixMinKey) {
		return credstore.Credential{}, op.unreadable(answer, "the answer has no key that could be put into a header")
	}
	secret := credstore.NewSecret(key)
	l.http.scrub.learn(secret) // before anything else of the answer is looked at
	c := credstore.Credential{Secret: secret, Info: credstore.Info{
		Key: k, State: credstore.StateActive, CreatedAt: l.now().UTC().Truncate(time.Millisecond),
		KeyID: fingerprint(secret),
		Attrs: make(map[string]string),
	}}
	if id := scalar(fields, "agent_id"); id != "" {
		c.Attrs[lithtrixAgentID] = l.http.scrub.Said(ctx, id)
	}
	return c, nil
}

// keep stores a new key in the place of the one before, which is there until
// the new one is. A key that the store does not take waits for the next try.
func (l *Lithtrix) keep(ctx context.Context, c credstore.Credential) (credstore.Info, error) {
	stored, err := l.unstored.keep(ctx, l.store, c, lithtrixOwner, lithtrixAgentID)
	if err != nil {
		return credstore.Info{}, err
	}
	l.log.InfoContext(ctx, "credential stored", "protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "key_id", c.KeyID)
	return stored.Info, nil
}

// keepWaiting is keep for a key that the store did not take before, which ends
// the operation that it was issued in.
func (l *Lithtrix) keepWaiting(ctx context.Context, c credstore.Credential) (credstore.Info, error) {
	info, err := l.keep(ctx, c)
	if err == nil {
		l.settle(ctx, c.Key)
	}
	return info, err
}

// settle takes an operation out of the journal that there is nothing left to do
// of. The caller holds the lock.
func (l *Lithtrix) settle(ctx context.Context, k credstore.Key) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if err := l.steward.journal.settle(ctx, k); err != nil {
		l.log.WarnContext(ctx, "what was finished stays in the journal", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "error", l.http.scrub.Own(err.Error()))
	}
}

// Discover implements [Discoverer]: a service says itself what it is capable of.
func (l *Lithtrix) Discover(ctx context.Context, s *Site) (*Discovery, error) {
	a, err := s.get(ctx, wire.LithtrixCapabilitiesPath)
	if err != nil {
		return nil, err
	}
	doc, ok := document(a)
	if !ok {
		return nil, nil
	}
	var endpoints map[string]json.RawMessage
	_ = json.Unmarshal(doc["endpoints"], &endpoints)
	d := Discovery{Said: Said{Service: s.said(scalar(doc, "service"), maxShort), Version: s.said(scalar(doc, "version"), maxShort)}}
	switch named := strings.Contains(strings.ToLower(scalar(doc, "service")), wire.LithtrixName); {
	case named && len(endpoints) > 0:
		d.Confidence = Certain
		d.Evidence = []string{"GET " + wire.LithtrixCapabilitiesPath + " says that it is Lithtrix and lists its endpoints."}
	case named || bytes.Contains(doc["endpoints"], []byte(wire.LithtrixRegisterPath)):
		d.Confidence = Likely
		d.Evidence = []string{"GET " + wire.LithtrixCapabilitiesPath + " answers much as Lithtrix does."}
	default:
		return nil, nil
	}
	return &d, nil
}
