package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What Fluxra keeps beside its secrets.
const (
	fluxraAgentID  = "agent_id"    // the service's own name for the agent
	fluxraEmail    = "email"       // as it was registered
	fluxraMail     = "email_state" // a [FluxraMail]
	fluxraMailEnds = "email_ends"  // when the link in the mail expires
	fluxraKeyID    = "key_id"      // beside an access token: the API key that it was had with
	fluxraIssuer   = "issued_by"   // beside an access token: the same as the service says it
	fluxraReplaces = "replaces"    // the ids of former API keys that are not deleted yet
	fluxraAsked    = "asked"       // the names of API keys that were asked for and may not have arrived
	fluxraUnproven = "unproven"    // no access token was had with the API key yet
)

// fluxraNeeded is what stays of it where there is no room for all.
func fluxraNeeded() []string {
	return []string{fluxraAgentID, fluxraEmail, fluxraKeyID, fluxraIssuer, fluxraReplaces, fluxraAsked, fluxraUnproven}
}

// fluxraOriginVar is the setting that says where Fluxra is.
const fluxraOriginVar = "FLUXRA_API_URL"

// fluxraRegisterTool finishes a registration that did not come to an end.
const fluxraRegisterTool = "fluxra_register_agent"

// FluxraMail says what became of the mail that verifies an email address.
type FluxraMail string

// What can have become of it.
const (
	FluxraNoMail   FluxraMail = ""         // there is no email, or the service did not say
	FluxraSent     FluxraMail = "sent"     // the service says that it was sent
	FluxraNotSent  FluxraMail = "not_sent" // the service says that it was not
	FluxraVerified FluxraMail = "verified" // the email is verified
)

// FluxraRegistration is what an agent registers with at Fluxra.
type FluxraRegistration struct {
	AgentName string // required
	Email     string // "": the account can never be recovered
	Metadata  wire.FluxraMetadata
	// Label names the credential where another account has the handle already.
	// "": AgentName does.
	Label string
}

// check returns why r cannot be registered. It does not repeat what was given.
func (r FluxraRegistration) check() error {
	m := r.Metadata
	switch {
	case !wire.CheckFluxraAgentName(r.AgentName):
		return errors.New("agent_name: want 3 to 50 ASCII letters, digits and dashes")
	case r.Email != "" && !wire.CheckFluxraEmail(r.Email):
		return errors.New("email: want an email address")
	case !wire.CheckFluxraMetadata(m.Description), !wire.CheckFluxraMetadata(m.Owner), !wire.CheckFluxraMetadata(m.Version):
		return errors.New("metadata: want at most 500 characters in each of its values, none of them a control character")
	case utf8.RuneCountInString(r.Label) > 100:
		return errors.New("label: want at most 100 characters")
	}
	return nil
}

// FluxraRegistered is the outcome of registering at Fluxra.
type FluxraRegistered struct {
	Registration
	Mail     FluxraMail
	MailEnds time.Time // when the link in the mail expires; zero: not known
}

// Fluxra is the client half of Fluxra. An account has three secrets, each an
// item of its own in the store: the API key, which the handle names because it
// is what lives, ends and is rotated; the access token, which is had with it
// and sent with requests; and the recovery key, which is used for nothing but
// making and deleting API keys.
type Fluxra struct {
	origin  string
	http    *caller
	store   credstore.Store
	steward *steward
	now     func() time.Time
	log     *slog.Logger
	begun   begun
	spread  *spread
	// unstored also has the access tokens that no store could keep.
	unstored unstored
	// tag makes the name of an API key one that no other machine of the same
	// account gives a key at the same time.
	tag func() string
}

func newFluxra(o Options, http *caller) (*Fluxra, error) {
	origin, err := o.setting(wire.FluxraName, fluxraOriginVar, wire.FluxraOrigin)
	if err != nil {
		return nil, err
	}
	return &Fluxra{
		origin: origin, http: http, store: o.Store, steward: o.steward, now: o.Now, log: o.Logger, spread: o.spread,
		begun: begun{o.Store, http.scrub, o.Now, o.Logger},
		tag:   func() string { return "-" + strings.ToLower(rand.Text()[:8]) },
	}, nil
}

// Wire implements [Protocol].
func (f *Fluxra) Wire() wire.Protocol { return wire.Fluxra() }

// Origin implements [Protocol].
func (f *Fluxra) Origin() string { return f.origin }

// Kind implements [Protocol].
func (f *Fluxra) Kind() credstore.Kind { return credstore.KindAPIKey }

// Dependents implements [Dependent].
func (f *Fluxra) Dependents(k credstore.Key) []credstore.Key {
	return []credstore.Key{ofKind(k, credstore.KindAccess), ofKind(k, credstore.KindRecovery)}
}

// ofKind returns the key of another item of the same account.
func ofKind(k credstore.Key, kind credstore.Kind) credstore.Key {
	k.Kind = kind
	return k
}

// createdNow returns the time as every store can keep it.
func (f *Fluxra) createdNow() time.Time { return f.now().UTC().Truncate(time.Millisecond) }

// Register gets the agent an account, an API key and an access token, and
// stores each before it asks for the next. What is stored of it already is not
// asked for again: a registration that was broken off goes on where it stopped.
//
// Names are not unique at the service, and registering is idempotent only where
// it honours the idempotency key, which a service need not say. So it is not
// tried again by itself: when the answer is lost the credential is pending, and
// registering again gets the account of the lost answer, or else another one,
// and the first stays behind without anybody who has a key of it.
func (f *Fluxra) Register(ctx context.Context, r FluxraRegistration) (FluxraRegistered, error) {
	return does(ctx, f.steward, f.act(f.origin, r.AgentName), func(ctx context.Context) (FluxraRegistered, error) {
		return f.register(ctx, r)
	})
}

// act is a step of registering or recovering an agent; "": it is not known which.
func (f *Fluxra) act(origin, agent string) Act {
	return Act{Action: ActRegister, Key: credstore.Key{Protocol: wire.FluxraName, Origin: origin, Agent: agent, Kind: credstore.KindAPIKey}}
}

func (f *Fluxra) register(ctx context.Context, r FluxraRegistration) (_ FluxraRegistered, err error) {
	op := call{protocol: wire.FluxraName, origin: f.origin, op: "register", acts: true}
	if err := r.check(); err != nil {
		return FluxraRegistered{}, op.fail(CodeInvalidInput, err)
	}
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	k := credstore.Key{Protocol: wire.FluxraName, Origin: f.origin, Agent: r.AgentName, Kind: credstore.KindAPIKey}
	if r.Label != "" && slug(r.Label) != r.AgentName {
		k.Label = slug(r.Label)
	}
	unlock, err := lockHandle(ctx, f.store, k)
	if err != nil {
		return FluxraRegistered{}, err
	}
	defer unlock()
	if _, err := f.settle(ctx, k); err != nil {
		return FluxraRegistered{}, err
	}
	held, recovery, err := f.account(ctx, k)
	if err != nil {
		return FluxraRegistered{}, err
	}
	if err := f.taken(ctx, op, k, r, held, recovery); err != nil {
		return FluxraRegistered{}, err
	}
	usable := held.UsableAt(f.now()) && !held.Secret.IsZero()
	if !usable {
		act := ActRegister
		if !recovery.Secret.IsZero() {
			act = ActRotate // there is an account: it gets another key
		}
		var begun *operation
		if ctx, begun, err = f.steward.begin(ctx, act, k); err != nil {
			return FluxraRegistered{}, err
		}
		defer func() { begun.end(ctx, err) }()
	}
	if !usable && recovery.Secret.IsZero() {
		if recovery, err = f.open(ctx, op, k, r, held); err != nil {
			return FluxraRegistered{}, err
		}
	}
	asked, err := f.finish(ctx, k, !usable)
	if err != nil {
		return FluxraRegistered{}, err
	}
	info, err := f.info(ctx, k)
	return FluxraRegistered{
		Registration: Registration{Info: info, Reused: !asked},
		Mail:         FluxraMail(info.Attrs[fluxraMail]), MailEnds: fluxraTime(info.Attrs[fluxraMailEnds]),
	}, err
}

// taken refuses a handle that another account has: one of another agent_name,
// or of another email.
func (f *Fluxra) taken(ctx context.Context, op call, k credstore.Key, r FluxraRegistration, mine ...credstore.Credential) error {
	other := false
	for _, c := range mine {
		opened := c.Attrs[fluxraAgentID] != ""
		other = other || opened && r.Email != "" && !strings.EqualFold(r.Email, c.Attrs[fluxraEmail])
	}
	all, err := f.store.List(ctx, wire.FluxraName)
	if err != nil {
		return err
	}
	for _, i := range all {
		other = other || i.Origin == k.Origin && i.Kind == k.Kind && i.Key != k && bareHandle(i.Key) == bareHandle(k)
	}
	if !other {
		return nil
	}
	return op.fail(CodeInvalidInput, fmt.Errorf(
		"label: the handle %s belongs to another stored account (another agent_name or email): give a label that no handle has, and this one is called by it", bareHandle(k)))
}

// account returns the API key and the recovery key of an account, each empty
// where it is not stored. A damaged API key is none where the recovery key can
// make another.
func (f *Fluxra) account(ctx context.Context, k credstore.Key) (key, recovery credstore.Credential, err error) {
	recovery, err = f.stored(ctx, ofKind(k, credstore.KindRecovery))
	if err != nil {
		return key, recovery, err
	}
	key, err = f.stored(ctx, k)
	if errors.Is(err, credstore.ErrDamaged) && !recovery.Secret.IsZero() {
		return credstore.Credential{}, recovery, nil
	}
	return key, recovery, err
}

// stored returns what is stored under a key, or what waits for that, or
// nothing.
func (f *Fluxra) stored(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	if c, ok := f.unstored.waiting(k); ok {
		return c, nil
	}
	c, err := f.store.Get(ctx, k)
	if errors.Is(err, credstore.ErrNotFound) {
		return credstore.Credential{}, nil
	}
	return c, err
}

// info returns what may be said of a credential that is stored.
func (f *Fluxra) info(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	c, err := f.store.Get(context.WithoutCancel(ctx), k)
	return c.Info, err
}

// settle stores the long-lived keys that the store would not take before, and
// reports whether the API key was among them.
func (f *Fluxra) settle(ctx context.Context, k credstore.Key) (key bool, err error) {
	for _, kind := range []credstore.Kind{credstore.KindRecovery, credstore.KindAPIKey} {
		c, ok := f.unstored.waiting(ofKind(k, kind))
		if !ok {
			continue
		}
		if _, err := f.keep(ctx, c); err != nil {
			return false, err
		}
		key = kind == credstore.KindAPIKey
	}
	return key, nil
}

// keep stores a long-lived key.
func (f *Fluxra) keep(ctx context.Context, c credstore.Credential) (credstore.Credential, error) {
	c, err := f.unstored.keep(ctx, f.store, c, fluxraNeeded()...)
	if err == nil {
		f.log.InfoContext(ctx, "credential stored", "protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "kind", string(c.Kind), "key_id", c.KeyID)
	}
	return c, err
}

// open gets an account, and stores its recovery key. Before that a pending
// credential says that it was begun, and shows that the store can be written.
func (f *Fluxra) open(ctx context.Context, op call, k credstore.Key, r FluxraRegistration, held credstore.Credential) (credstore.Credential, error) {
	attrs := map[string]string{fluxraEmail: r.Email}
	from, err := f.begun.seeded(ctx, k, held, attrs, fluxraNeeded()...)
	if err != nil {
		return credstore.Credential{}, err
	}
	if held.State == credstore.StatePending {
		f.log.WarnContext(ctx, "registering again: an account of the registration before may be left at the service, unless it knows that this is the same attempt", "origin", k.Origin, "agent", k.Agent)
	}
	body := wire.FluxraRegisterRequest{AgentName: r.AgentName, Email: r.Email}
	if r.Metadata != (wire.FluxraMetadata{}) {
		body.Metadata = &r.Metadata
	}
	a, fields, err := f.ask(ctx, op, from, body)
	if err != nil {
		f.begun.withdraw(ctx, k, held, err)
		return credstore.Credential{}, err
	}
	recovery, err := f.recoveryKey(op, a, fields)
	if err != nil {
		return credstore.Credential{}, err
	}
	recovery.Key = ofKind(k, credstore.KindRecovery)
	recovery.Attrs[fluxraEmail] = r.Email
	var sent *bool
	if json.Unmarshal(fields["email_verification_sent"], &sent) == nil && sent != nil && r.Email != "" {
		recovery.Attrs[fluxraMail] = string(FluxraNotSent)
		if *sent {
			recovery.Attrs[fluxraMail] = string(FluxraSent)
		}
	}
	if ends := fluxraTime(scalar(fields, "email_verification_expires_at")); !ends.IsZero() && recovery.Attrs[fluxraMail] == string(FluxraSent) {
		recovery.Attrs[fluxraMailEnds] = ends.Format(time.RFC3339)
	}
	return f.keep(ctx, recovery)
}

// ask registers. Another name or another email is another attempt.
func (f *Fluxra) ask(ctx context.Context, op call, from credstore.Credential, body wire.FluxraRegisterRequest) (answer, map[string]json.RawMessage, error) {
	u, err := url.Parse(op.origin + wire.FluxraRegisterPath)
	if err != nil {
		return answer{}, nil, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	header := f.http.attempt(op, from, body.AgentName, strings.ToLower(body.Email))
	a, err := f.http.exchange(ctx, op, message{method: http.MethodPost, url: u, header: header}, body, false)
	if err != nil {
		return a, nil, err
	}
	var fields map[string]json.RawMessage
	err = f.http.decode(op, a, &fields)
	return a, fields, err
}

// recoveryKey reads a recovery key and whose it is out of an answer.
func (f *Fluxra) recoveryKey(op call, a answer, fields map[string]json.RawMessage) (credstore.Credential, error) {
	secret, err := f.secret(op, a, fields, "recovery_key")
	if err != nil {
		return credstore.Credential{}, err
	}
	id := scalar(fields, "agent_id")
	if !f.clean(id) {
		return credstore.Credential{}, op.unreadable(a, "the answer has no agent_id that could be put into a path")
	}
	return credstore.Credential{Secret: secret, Info: credstore.Info{
		State: credstore.StateActive, KeyID: fingerprint(secret), CreatedAt: f.createdNow(),
		Attrs: map[string]string{fluxraAgentID: id},
	}}, nil
}

// forgotten implements forgetter.
func (f *Fluxra) forgotten(k credstore.Key) {
	for _, gone := range append(f.Dependents(k), k) {
		f.unstored.drop(gone)
	}
}

// FluxraAgentID returns the service's own name for the agent that a credential
// belongs to: letters, digits, dots, dashes and underscores.
func FluxraAgentID(i credstore.Info) string { return i.Attrs[fluxraAgentID] }

// clean reports whether a service's id can stand in a path and before the
// colon of a Basic header, and holds no secret.
func (f *Fluxra) clean(id string) bool {
	return agentPart.MatchString(id) && strings.Trim(id, ".") != "" && f.http.scrub.Own(id) == id
}

// secret reads a secret out of an answer and has it masked from then on,
// before anything else of the answer is looked at.
func (f *Fluxra) secret(op call, a answer, fields map[string]json.RawMessage, name string) (credstore.Secret, error) {
	var s string
	if json.Unmarshal(fields[name], &s) != nil || !presentable(s, minSecret) {
		return credstore.Secret{}, op.unreadable(a, "the answer has no "+name+" that could be put into a header")
	}
	f.http.scrub.learn(credstore.NewSecret(s))
	return credstore.NewSecret(s), nil
}

// post makes a POST and reads the fields of its answer. authorization "": none.
func (f *Fluxra) post(ctx context.Context, op call, path, authorization string, body any, idempotent bool) (answer, map[string]json.RawMessage, error) {
	a, err := f.send(ctx, op, http.MethodPost, path, authorization, body, idempotent)
	if err != nil {
		return a, nil, err
	}
	var fields map[string]json.RawMessage
	err = f.http.decode(op, a, &fields)
	return a, fields, err
}

func (f *Fluxra) send(ctx context.Context, op call, method, path, authorization string, body any, idempotent bool) (answer, error) {
	u, err := url.Parse(op.origin + path)
	if err != nil {
		return answer{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	header := make(http.Header)
	if authorization != "" {
		header.Set(wire.FluxraHeader, authorization)
		// A service may repeat what it was sent, and spell that in another way.
		if both, ok := strings.CutPrefix(authorization, "Basic "); ok {
			f.http.scrub.learn(credstore.NewSecret(both))
		}
	}
	return f.http.exchange(ctx, op, message{method: method, url: u, header: header}, body, idempotent)
}

// fluxraTime reads a time, with or without a fraction. The zero time: it is none.
func fluxraTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// Authorize implements [Protocol]. It renews the access token first, where that
// is due or there is none.
func (f *Fluxra) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	if originOf(req.URL) != k.Origin {
		return errors.New("a credential goes to the origin that issued it only")
	}
	held, err := f.usable(ctx, k)
	if err != nil {
		return err
	}
	token, err := f.token(ctx, held)
	if err != nil {
		return err
	}
	if !f.fresh(token, "") {
		if token, err = f.renewed(ctx, k, ""); err != nil {
			return err
		}
	}
	if p, ok := ctx.Value(presentedKey{}).(*presented); ok {
		p.secret = token.Secret
	}
	req.Header.Set(wire.FluxraHeader, bearer(token.Secret))
	return nil
}

// Renew implements [Renewer].
func (f *Fluxra) Renew(ctx context.Context, k credstore.Key) error {
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	held, err := f.usable(ctx, k)
	if err != nil {
		return err
	}
	token, err := f.token(ctx, held)
	if err != nil {
		return err
	}
	if p, ok := ctx.Value(presentedKey{}).(*presented); ok && !p.secret.IsZero() {
		token.Secret = p.secret
	}
	refused := bearer(token.Secret)
	if unasked(ctx) {
		refused = "" // one that is good enough is not replaced
	}
	_, err = f.renewed(ctx, k, refused)
	return err
}

// Due implements [Renewer].
func (f *Fluxra) Due(_ context.Context, i credstore.Info, stored []credstore.Info) time.Time {
	if i.State != credstore.StateActive {
		return time.Time{}
	}
	k := ofKind(i.Key, credstore.KindAccess)
	if c, ok := f.unstored.waiting(k); ok {
		stored = append([]credstore.Info{c.Info}, stored...)
	}
	n := slices.IndexFunc(stored, func(t credstore.Info) bool { return t.Key == k && t.Attrs[fluxraKeyID] == i.KeyID })
	if n < 0 {
		return time.Time{} // it is had when it is needed
	}
	return f.spread.due(stored[n])
}

func bearer(token credstore.Secret) string { return "Bearer " + token.Reveal() }

// Environ implements [Exporter].
func (f *Fluxra) Environ(ctx context.Context, k credstore.Key) ([]Variable, error) {
	header, err := headersOf(ctx, f, k)
	if err != nil {
		return nil, err
	}
	held, err := f.store.Get(ctx, k)
	if err != nil {
		return nil, err
	}
	return []Variable{
		variable("FLUXRA_ACCESS_TOKEN", header.Get(wire.FluxraHeader)),
		variable("FLUXRA_AGENT_ID", held.Attrs[fluxraAgentID]),
		{Name: "FLUXRA_API_KEY", Value: issuedSecret(held)},
		variable(fluxraOriginVar, k.Origin),
	}, nil
}

// Discover implements [Discoverer].
func (f *Fluxra) Discover(ctx context.Context, s *Site) (*Discovery, error) {
	return discoverFluxra(ctx, s)
}
