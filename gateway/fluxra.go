package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
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
