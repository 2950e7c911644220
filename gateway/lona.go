package gateway

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What Lona keeps beside a token.
const (
	lonaUserID      = "user_id"    // sent as X-User-Id
	lonaAgentName   = "agent_name" // for registering again
	lonaSource      = "source"     // for registering again
	lonaPermissions = permissionsAttr
	lonaPartnerID   = "partner_id" // only where the service named the agent otherwise
	lonaAdopted     = "adopted"    // which LONA_API_KEY was taken over here
	lonaRefused     = "refused_at" // when this token took the place of a refused one
)

// lonaDefaultSource is the source of a registration that names none.
const lonaDefaultSource = "enlist"

// lonaRegisterTool is the tool that registers an agent.
const lonaRegisterTool = "lona_register_agent"

const lonaWantAgentID = "want 2 to 64 ASCII letters, digits, dots, underscores and dashes, the first one a letter or a digit"

func lonaUser(s string) bool { return presentable(s, 1) && len(s) <= 128 }

// LonaRegistration is what an agent registers with at Lona.
type LonaRegistration struct {
	AgentID       string // required
	AgentName     string // required
	Source        string // "": "enlist"
	UserID        string // what X-User-Id will say; "": what is stored, else AgentID
	ExpiresInDays *int   // nil: the service decides
}

// check returns why the service would refuse r. It does not repeat what was
// given, which may be 10,000 characters of anything.
func (r LonaRegistration) check() error {
	switch {
	case !wire.CheckLonaAgentID(r.AgentID):
		return errors.New("agent_id: " + lonaWantAgentID)
	case !wire.CheckLonaAgentName(r.AgentName):
		return errors.New("agent_name: want 1 to 100 characters, none of them a control character")
	case !wire.CheckLonaSource(r.Source):
		return errors.New("source: want at most 64 characters, none of them a control character")
	case r.UserID != "" && !lonaUser(r.UserID):
		return errors.New("user_id: want up to 128 printable ASCII characters without spaces")
	case r.ExpiresInDays != nil && *r.ExpiresInDays < 1:
		return errors.New("expires_in_days: want 1 or more")
	}
	return nil
}

// Lona is the client half of Lona.
type Lona struct {
	lonaOptions
	http    *caller
	store   credstore.Store
	steward *steward
	now     func() time.Time
	log     *slog.Logger
	begun   begun
	spread  *spread
	rests   rests

	mu sync.Mutex
	// unstored has the tokens that the store would not take. A gateway may ask
	// for an agent's last token when it registers again.
	unstored map[credstore.Key]credstore.Secret
	// refused has when a token was replaced because the service refused it.
	refused map[credstore.Key]time.Time
}

func newLona(o Options, http *caller) (*Lona, error) {
	options, err := newLonaOptions(o)
	if err != nil {
		return nil, err
	}
	http.scrub.learn(options.secret, options.apiKey)
	return &Lona{
		lonaOptions: options, http: http, store: o.Store, steward: o.steward, now: o.Now, log: o.Logger,
		begun: begun{o.Store, http.scrub, o.Now, o.Logger}, spread: o.spread,
		unstored: make(map[credstore.Key]credstore.Secret), refused: make(map[credstore.Key]time.Time),
	}, nil
}

// Wire implements [Protocol].
func (l *Lona) Wire() wire.Protocol { return wire.Lona() }

// Origin implements [Protocol].
func (l *Lona) Origin() string { return l.origin }

// Kind implements [Protocol].
func (l *Lona) Kind() credstore.Kind { return credstore.KindToken }

// createdNow returns the time as every store can keep it.
func (l *Lona) createdNow() time.Time { return l.now().UTC().Truncate(time.Millisecond) }

func (l *Lona) key(agentID string) credstore.Key {
	return credstore.Key{Protocol: wire.LonaName, Origin: l.origin, Agent: agentID, Kind: credstore.KindToken}
}

// Authorize implements [Protocol]. It renews the token first, where that is due.
func (l *Lona) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	if originOf(req.URL) != k.Origin {
		return errors.New("a credential goes to the origin that issued it only")
	}
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	if c, err = l.current(ctx, c); err != nil {
		return err
	}
	if p, ok := ctx.Value(presentedKey{}).(*presented); ok {
		p.secret = c.Secret
	}
	return l.present(c, req)
}

// present adds a token to a request.
func (l *Lona) present(c credstore.Credential, req *http.Request) error {
	if c.State == credstore.StatePending || c.Secret.IsZero() {
		return &RefusedError{
			Why:  "There is no token of the agent " + c.Agent + ": its registration did not come to an end. It must be registered again.",
			Tool: lonaRegisterTool,
		}
	}
	user := cmp.Or(c.Attrs[lonaUserID], c.Agent)
	if !presentable(c.Secret.Reveal(), 1) || !lonaUser(user) {
		return &credstore.Error{
			Op: "use", Place: "the token of " + c.Agent, Kind: credstore.ErrDamaged,
			Remedy: "register the agent again",
		}
	}
	req.Header.Set(wire.LonaKeyHeader, c.Secret.Reveal())
	req.Header.Set(wire.LonaUserHeader, user)
	return nil
}

// Environ implements [Exporter].
func (l *Lona) Environ(ctx context.Context, k credstore.Key) ([]Variable, error) {
	header, err := headersOf(ctx, l, k)
	if err != nil {
		return nil, err
	}
	return []Variable{
		variable("LONA_API_KEY", header.Get(wire.LonaKeyHeader)),
		variable("LONA_USER_ID", header.Get(wire.LonaUserHeader)),
		variable("LONA_AGENT_ID", k.Agent),
		variable("LONA_GATEWAY_URL", k.Origin),
	}, nil
}

// Register gets the agent a token and stores it. Registering again rotates
// it; a call that waited while another one did so returns what that stored.
func (l *Lona) Register(ctx context.Context, r LonaRegistration) (Registration, error) {
	act := Act{Action: ActRegister, Key: l.key(r.AgentID)}
	return does(ctx, l.steward, act, func(ctx context.Context) (Registration, error) {
		return l.register(ctx, ActRegister, act.Key, r, false)
	})
}

// Rotate implements [Rotator]: at Lona, registering again does it.
func (l *Lona) Rotate(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return credstore.Info{}, err
	}
	done, err := l.replace(ctx, lonaChange{act: ActRotate, key: k, with: again(c), before: c, held: true})
	return done.Info, err
}

// again returns what the agent of a stored credential is registered again with.
func again(c credstore.Credential) LonaRegistration {
	return LonaRegistration{
		AgentID:   c.Agent,
		AgentName: cmp.Or(c.Attrs[lonaAgentName], c.Agent),
		Source:    c.Attrs[lonaSource],
		UserID:    c.Attrs[lonaUserID],
	}
}

// register is Register for a key at any origin, whatever it is for. With
// keepUsable a usable token is not rotated.
func (l *Lona) register(ctx context.Context, act Action, k credstore.Key, r LonaRegistration, keepUsable bool) (Registration, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	before, err := l.stored(ctx, k)
	if err != nil {
		return Registration{}, err
	}
	return l.replace(ctx, lonaChange{act: act, key: k, with: r, before: before, keepUsable: keepUsable})
}

// lonaChange is a token to be had in the place of another.
type lonaChange struct {
	act        Action
	key        credstore.Key
	with       LonaRegistration
	before     credstore.Credential // what was held when that was decided
	keepUsable bool
	// held: only what is stored is replaced. It may have been forgotten meanwhile.
	held bool
	// may returns why nothing is done after all, once it is certain that nobody
	// else has done it. nil: nothing is against it.
	may func(context.Context, credstore.Credential) error
	// refused: the service refuses what is held.
	refused bool
}

// replace registers an agent, unless somebody else was faster.
func (l *Lona) replace(ctx context.Context, c lonaChange) (done Registration, err error) {
	k, r := c.key, c.with
	if err := r.check(); err != nil {
		return Registration{}, call{protocol: wire.LonaName, origin: k.Origin, op: "register"}.fail(CodeInvalidInput, err)
	}
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return Registration{}, err
	}
	defer unlock()
	held, err := l.store.Get(ctx, k)
	if err != nil && (c.held || !errors.Is(err, credstore.ErrNotFound)) {
		return Registration{}, err
	}
	if held.UsableAt(l.now()) && (c.keepUsable || !same(c.before, held)) {
		return Registration{Info: held.Info, Reused: true}, nil
	}
	if c.may != nil {
		if err := c.may(ctx, held); err != nil {
			return Registration{}, err
		}
	}

	r.Source = cmp.Or(r.Source, lonaDefaultSource)
	r.UserID = cmp.Or(r.UserID, held.Attrs[lonaUserID], r.AgentID)
	attrs := map[string]string{lonaUserID: r.UserID, lonaAgentName: r.AgentName, lonaSource: r.Source}
	from, err := l.begun.seeded(ctx, k, held, attrs, lonaUserID, lonaAdopted)
	if err != nil {
		return Registration{}, err
	}
	ctx, begun, err := l.steward.begin(ctx, c.act, k)
	if err != nil {
		l.begun.withdraw(ctx, k, held, err)
		return Registration{}, err
	}
	defer func() { begun.end(ctx, err) }()
	issued, err := l.issue(ctx, k, r, from)
	if err != nil {
		l.begun.withdraw(ctx, k, held, err)
		return Registration{}, err
	}
	fresh := l.credential(k, r, held, issued)
	if c.refused {
		fresh.Attrs[lonaRefused] = fresh.CreatedAt.Format(time.RFC3339)
	}
	info, err := l.keep(ctx, fresh)
	return Registration{Info: info}, err
}

// forgotten implements forgetter.
func (l *Lona) forgotten(k credstore.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unstored, k)
	delete(l.refused, k)
}

// stored returns what is stored under k, or nothing of it.
func (l *Lona) stored(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	c, err := l.store.Get(ctx, k)
	if errors.Is(err, credstore.ErrNotFound) {
		return credstore.Credential{}, nil
	}
	return c, err
}

// same reports whether two credentials are one: the secret decides.
func same(a, b credstore.Credential) bool {
	return subtle.ConstantTimeCompare([]byte(a.Secret.Reveal()), []byte(b.Secret.Reveal())) == 1
}

// lonaIssued is what a registration answered. Only the token must be as the
// protocol says; losing it over another field would help nobody.
type lonaIssued struct {
	token  credstore.Secret
	fields map[string]json.RawMessage
}

// issue gets a token. An answer that was lost on its way is made up for by
// one more round: registering again ends the token that nobody got. A service
// that wants that token as a proof may take the idempotency key instead.
func (l *Lona) issue(ctx context.Context, k credstore.Key, r LonaRegistration, held credstore.Credential) (lonaIssued, error) {
	issued, err := l.round(ctx, k, r, held)
	var lost *Error
	if !errors.As(err, &lost) || !lost.mayHaveIssued() || !l.http.pause(ctx, max(firstPause, lost.RetryAfter)) {
		return issued, err
	}
	l.log.WarnContext(ctx, "the answer to a registration was lost; registering again",
		"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "code", lost.Code, "status", lost.Status)
	issued, err = l.round(ctx, k, r, held)
	var second *Error
	switch {
	case errors.As(err, &second):
		second.Sent = true // the first round may have
		if second.Cause == nil {
			second.Cause = fmt.Errorf("this was the second try; the first one failed with %w", lost)
		}
	case err != nil:
		return issued, lost // the second round was never made
	}
	return issued, err
}

// round registers once: with the registration secret, or with an invite.
func (l *Lona) round(ctx context.Context, k credstore.Key, r LonaRegistration, held credstore.Credential) (lonaIssued, error) {
	body := wire.LonaRegisterRequest{
		AgentID: r.AgentID, AgentName: r.AgentName, Source: r.Source, ExpiresInDays: r.ExpiresInDays,
	}
	op := call{protocol: wire.LonaName, origin: k.Origin, op: "register", acts: true}
	header := l.http.attempt(op, held)
	// The secret is for the gateway that the user configured, whatever
	// gateway else a credential is from.
	if !l.secret.IsZero() && k.Origin == l.origin {
		header.Set(wire.LonaSecretHeader, l.secret.Reveal())
	} else {
		invite, err := l.invite(ctx, k, r)
		if err != nil {
			return lonaIssued{}, err
		}
		body.InviteCode = invite.Reveal()
		if proof := l.proof(k, held); !proof.IsZero() {
			header.Set(wire.LonaKeyHeader, proof.Reveal())
		}
	}
	answer, err := l.post(ctx, op, wire.LonaRegisterPath, header, body, false)
	if err != nil {
		return lonaIssued{}, err
	}
	var out wire.LonaData[map[string]json.RawMessage]
	if err := l.http.decode(op, answer, &out); err != nil {
		return lonaIssued{}, err
	}
	var token string
	if json.Unmarshal(out.Data["token"], &token) != nil || !presentable(token, minSecret) {
		return lonaIssued{}, op.unreadable(answer, "the answer has no token that could be put into a header")
	}
	issued := lonaIssued{token: credstore.NewSecret(token), fields: out.Data}
	l.http.scrub.learn(issued.token) // before anything else of the answer is looked at
	return issued, nil
}

// proof returns the agent's last token, which shows a gateway that asks for
// it that the agent_id is ours.
func (l *Lona) proof(k credstore.Key, held credstore.Credential) credstore.Secret {
	l.mu.Lock()
	defer l.mu.Unlock()
	if unstored, ok := l.unstored[k]; ok {
		return unstored
	}
	if held.State == credstore.StateRevoked || isSeed(held.Secret) || !presentable(held.Secret.Reveal(), minSecret) {
		return credstore.Secret{}
	}
	return held.Secret
}

// invite asks for an invite code.
func (l *Lona) invite(ctx context.Context, k credstore.Key, r LonaRegistration) (credstore.Secret, error) {
	op := call{protocol: wire.LonaName, origin: k.Origin, op: "request an invite"}
	answer, err := l.post(ctx, op, wire.LonaInvitePath, nil,
		wire.LonaInviteRequest{AgentID: r.AgentID, AgentName: r.AgentName, Source: r.Source}, true)
	if err != nil {
		return credstore.Secret{}, err
	}
	var out wire.LonaData[map[string]json.RawMessage]
	if err := l.http.decode(op, answer, &out); err != nil {
		return credstore.Secret{}, err
	}
	var code string
	if json.Unmarshal(out.Data["invite_code"], &code) != nil || !presentable(code, minSecret) {
		return credstore.Secret{}, op.unreadable(answer, "the answer has no invite code that could be sent back")
	}
	l.http.scrub.learn(credstore.NewSecret(code))
	return credstore.NewSecret(code), nil
}

func (l *Lona) post(ctx context.Context, op call, path string, header http.Header, body any, idempotent bool) (answer, error) {
	u, err := url.Parse(op.origin + path)
	if err != nil {
		return answer{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	return l.http.exchange(ctx, op, message{method: http.MethodPost, url: u, header: header}, body, idempotent)
}

// credential makes a credential of what was issued. It does not look into the
// store: the token is not safe before it is there.
func (l *Lona) credential(k credstore.Key, r LonaRegistration, held credstore.Credential, issued lonaIssued) credstore.Credential {
	attrs := map[string]string{
		lonaUserID: r.UserID, lonaAgentName: r.AgentName, lonaSource: r.Source,
	}
	if adopted, ok := held.Attrs[lonaAdopted]; ok {
		attrs[lonaAdopted] = adopted
	}
	var permissions []string
	if json.Unmarshal(issued.fields["permissions"], &permissions) == nil {
		if granted := joinPermissions(permissions, l.http.scrub); granted != "" {
			attrs[lonaPermissions] = granted
		}
	}
	if partner := scalar(issued.fields, "partner_id"); partner != "" && partner != r.AgentID {
		attrs[lonaPartnerID] = l.http.scrub.Own(partner)
	}
	var expires wire.MilliTime // zero: the service did not say
	if err := json.Unmarshal(issued.fields["expires_at"], &expires); err != nil || expires.Time().Year() < 1 || expires.Time().Year() > 9999 {
		expires = wire.MilliTime{}
	}
	_, keyID, _ := wire.ParseLonaToken(issued.token.Reveal())
	return credstore.Credential{
		Info: credstore.Info{
			Key: k, State: credstore.StateActive, KeyID: keyID,
			CreatedAt: l.createdNow(), ExpiresAt: expires.Time().Truncate(time.Millisecond), Attrs: attrs,
		},
		Secret: issued.token,
	}
}

// keep stores a new token, or keeps it as a proof for the next try.
func (l *Lona) keep(ctx context.Context, c credstore.Credential) (credstore.Info, error) {
	c, err := keep(ctx, l.store, c, lonaUserID, lonaAdopted, lonaRefused)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.unstored[c.Key] = c.Secret
		return credstore.Info{}, &NotStoredError{
			Protocol: c.Protocol, Origin: c.Origin, Agent: c.Agent, Cause: err,
			Remedy: "When the store works again, register once more before Enlist is restarted: until then it has the token that was not stored, which the service may ask for. " +
				"If the service then answers agent_exists, take another agent_id, or have a person set LONA_AGENT_REGISTRATION_SECRET in Enlist's environment.",
		}
	}
	received(ctx)
	delete(l.unstored, c.Key)
	l.log.InfoContext(ctx, "credential stored",
		"protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "key_id", c.KeyID, "expires_at", c.ExpiresAt)
	if c.ExpiresAt.IsZero() {
		l.log.WarnContext(ctx, "the service did not say when the token expires", "origin", c.Origin, "agent", c.Agent)
	}
	return c.Info, nil
}

// Discover implements [Discoverer]. Live servers may differ in what they answer
// without a token, so it asks for two routes.
func (l *Lona) Discover(ctx context.Context, s *Site) (*Discovery, error) {
	var d Discovery
	strategies, err := s.get(ctx, wire.LonaStrategiesPath)
	if err == nil && s.refuses(strategies, http.StatusUnauthorized, wire.LonaUnauthorized) {
		d.Evidence = append(d.Evidence, "GET "+wire.LonaStrategiesPath+" refuses to go without a token, by Lona's own code.")
	}
	invite, inviteErr := s.get(ctx, wire.LonaInvitePath)
	if inviteErr == nil && s.postOnly(invite) {
		d.Evidence = append(d.Evidence, wire.LonaInvitePath+" is there, for POST.")
	}
	switch len(d.Evidence) {
	case 0:
		return nil, cmp.Or(err, inviteErr)
	case 1:
		d.Confidence = Likely
	default:
		d.Confidence = Certain
	}
	return &d, nil
}
