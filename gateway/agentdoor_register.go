package gateway

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	maxScopesAsked = 64 // scopes
	maxScope       = 128
	maxMetadata    = 8 << 10
	// maxKeptScopes is how many bytes of the granted scopes are kept: a
	// keyring's item is small.
	maxKeptScopes = 400
	// agentDoorRounds is how often a registration is begun at most: again
	// where the first challenge was of no use.
	agentDoorRounds = 2
)

// AgentDoorRegistration is what an agent registers with at a service that
// speaks AgentDoor.
type AgentDoorRegistration struct {
	ServiceURL string         // the service's origin; "": the one that is set
	AgentName  string         // required; with the origin, the identity
	Scopes     []string       // by their ids; none: all that cost nothing
	Metadata   map[string]any // goes to the service, with AgentName as its name
	X402Wallet string         // an address; ""
	// Label names the credential where another agent has the handle already.
	// "": AgentName does.
	Label string
}

// check returns why r cannot be registered. It does not repeat what was given.
func (r AgentDoorRegistration) check() error {
	metadata, err := json.Marshal(r.Metadata)
	switch {
	case !wire.CheckAgentDoorName(r.AgentName):
		return errors.New("agent_name: want 1 to 100 characters, none of them a control character")
	case utf8.RuneCountInString(r.Label) > 100:
		return errors.New("label: want at most 100 characters")
	case len(r.Scopes) > maxScopesAsked || slices.ContainsFunc(r.Scopes, func(s string) bool { return !presentable(s, 1) || len(s) > maxScope }):
		return errors.New("scopes: want at most 64 ids, each of 1 to 128 printable ASCII characters without spaces")
	case r.X402Wallet != "" && (!presentable(r.X402Wallet, 1) || len(r.X402Wallet) > 128):
		return errors.New("x402_wallet: want an address of at most 128 printable ASCII characters without spaces")
	case err != nil || len(metadata) > maxMetadata:
		return errors.New("metadata: want a JSON object of at most 8 KiB")
	}
	return nil
}

// AgentDoorRegistered is the outcome of registering. What the service said is
// in it only where it looks like what it should be.
type AgentDoorRegistered struct {
	Registration
	NotGranted []string // scopes that were asked for
	RateLimit  string   // as in 1000/1h; ""
	X402       wire.AgentDoorX402
}

// agentDoorFact matches what can be shown to a model as a fact, and agentDoorRate
// a limit as in 1000/1h.
var (
	agentDoorFact = wire.NewPattern(`^[A-Za-z0-9._:/+-]{1,80}$`)
	agentDoorRate = wire.NewPattern(`^[0-9]{1,12}/[0-9]{1,6}[a-z]{1,7}$`)
)

// fact returns what a service said, or "" where it is words, or a secret.
func (a *AgentDoor) fact(said string) string {
	if !agentDoorFact.MatchString(said) || a.http.scrub.Own(said) != said {
		return ""
	}
	return said
}

// Register registers an agent and stores what it is issued. A usable
// registration of the same agent at the same service is returned as it is. One
// that was broken off is gone on with: the key pair is the identity, and a JWT
// for it can always be had; an API key that was lost on its way cannot.
func (a *AgentDoor) Register(ctx context.Context, r AgentDoorRegistration) (AgentDoorRegistered, error) {
	act := Act{Action: ActRegister, Key: credstore.Key{Protocol: wire.AgentDoorName, Agent: r.AgentName, Kind: credstore.KindKeyPair}}
	var err error
	if act.Key.Origin, err = a.serviceOrigin(r.ServiceURL); err == nil {
		err = r.check()
	}
	if err != nil { // nobody need be asked for what cannot be done
		err = call{protocol: wire.AgentDoorName, origin: act.Key.Origin, op: "register"}.fail(CodeInvalidInput, err)
		a.steward.note(ctx, act, 0, err)
		return AgentDoorRegistered{}, err
	}
	return does(ctx, a.steward, act, func(ctx context.Context) (AgentDoorRegistered, error) {
		return a.register(ctx, call{protocol: wire.AgentDoorName, origin: act.Key.Origin, op: "register"}, r)
	})
}

func (a *AgentDoor) register(ctx context.Context, op call, r AgentDoorRegistration) (AgentDoorRegistered, error) {
	ctx, cancel := a.http.begin(ctx)
	defer cancel()
	k, err := a.find(ctx, op, r)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	held, err := a.stored(ctx, k)
	if err != nil || held.UsableAt(a.now()) {
		return a.reused(held.Info, r), err
	}
	d, err := a.discover(ctx, op.origin)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	if r.Scopes, err = a.choose(ctx, op.origin, d, r.Scopes); err != nil {
		return AgentDoorRegistered{}, err
	}
	if k, err = a.reserve(ctx, op, r); err != nil {
		return AgentDoorRegistered{}, err
	}
	unlock, err := a.store.Lock(ctx, k)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	defer unlock()
	c, err := a.store.Get(ctx, k)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	if c.UsableAt(a.now()) {
		return a.reused(c.Info, r), nil
	}
	return a.enroll(ctx, c, d, r)
}

// serviceOrigin returns the origin that a registration goes to.
func (a *AgentDoor) serviceOrigin(base string) (string, error) {
	if base == "" && a.origin != "" {
		return a.origin, nil
	}
	if base == "" {
		return "", errors.New("service_url: say which service, as in https://api.example.com, or ask the person to set " + agentDoorOriginVar + " in Enlist's environment")
	}
	origin, err := parseOrigin(base)
	if err != nil {
		return "", fmt.Errorf("service_url: %w", err)
	}
	return origin, nil
}

// find returns the key under which an agent's key pair is stored, or is to be.
// It refuses a handle that another agent has.
func (a *AgentDoor) find(ctx context.Context, op call, r AgentDoorRegistration) (credstore.Key, error) {
	k := credstore.Key{Protocol: wire.AgentDoorName, Origin: op.origin, Agent: r.AgentName, Kind: credstore.KindKeyPair}
	all, err := a.store.List(ctx, wire.AgentDoorName)
	if err != nil {
		return k, err
	}
	all = filter(all, func(i credstore.Info) bool { return i.Origin == k.Origin && i.Kind == k.Kind })
	// An agent has one key pair, whatever it was labelled.
	for _, i := range all {
		if i.Agent == k.Agent {
			return i.Key, nil
		}
	}
	if label := slug(r.Label); r.Label != "" && label != k.Agent {
		k.Label = label
	}
	if slices.ContainsFunc(all, func(i credstore.Info) bool { return bareHandle(i.Key) == bareHandle(k) }) {
		return k, op.fail(CodeInvalidInput, fmt.Errorf(
			"label: the handle %s belongs to another stored agent: give a label that no handle has, and this one is called by it", bareHandle(k)))
	}
	return k, nil
}

// reserve returns the key of an agent's key pair, which is stored from then on.
func (a *AgentDoor) reserve(ctx context.Context, op call, r AgentDoorRegistration) (credstore.Key, error) {
	// One at a time for each origin, so that no two agents get one handle, and
	// no agent two key pairs. Nothing is asked of the service meanwhile.
	unlock, err := a.store.Lock(ctx, credstore.Key{Protocol: wire.AgentDoorName, Origin: op.origin, Agent: "*", Kind: credstore.KindKeyPair})
	if err != nil {
		return credstore.Key{}, err
	}
	defer unlock()
	k, err := a.find(ctx, op, r)
	if err != nil {
		return k, err
	}
	held, err := a.stored(ctx, k)
	if err != nil || !held.Secret.IsZero() {
		return k, err
	}
	if held, err = a.makePair(k); err != nil {
		return k, err
	}
	a.log.InfoContext(ctx, "a key pair is made", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
	return k, a.store.Put(ctx, held)
}

// stored returns what is stored under a key, and nothing where nothing is.
func (a *AgentDoor) stored(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	c, err := a.store.Get(ctx, k)
	if errors.Is(err, credstore.ErrNotFound) {
		return credstore.Credential{}, nil
	}
	return c, err
}

// reused returns a registration that is stored.
func (a *AgentDoor) reused(i credstore.Info, r AgentDoorRegistration) AgentDoorRegistered {
	if i.Agent == "" {
		return AgentDoorRegistered{}
	}
	done := a.outcome(i)
	done.Reused = true
	done.NotGranted = a.missing(i, r.Scopes, Permissions(i))
	return done
}

// outcome says what is known of a registration.
func (a *AgentDoor) outcome(i credstore.Info) AgentDoorRegistered {
	return AgentDoorRegistered{
		Registration: Registration{Info: i}, RateLimit: i.Attrs[agentDoorRateLimit],
		X402: wire.AgentDoorX402{
			PaymentAddress: i.Attrs[agentDoorAddress], Network: i.Attrs[agentDoorNetwork], Currency: i.Attrs[agentDoorCurrency],
		},
	}
}

// missing returns what was asked for and not granted, where it is known what was.
func (a *AgentDoor) missing(i credstore.Info, asked, granted []string) []string {
	if _, known := i.Attrs[permissionsAttr]; !known {
		return nil
	}
	var missing []string
	for _, id := range onlyPermissions(asked) {
		if !slices.Contains(granted, id) && a.fact(id) != "" {
			missing = append(missing, id)
		}
	}
	return missing
}

// enroll registers a key pair. The caller holds its lock.
func (a *AgentDoor) enroll(ctx context.Context, c credstore.Credential, d agentDoorDocument, r AgentDoorRegistration) (done AgentDoorRegistered, err error) {
	private, err := openPair(c)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	// What was granted to an earlier registration counts no more.
	c.Attrs = map[string]string{agentDoorAgentID: c.Attrs[agentDoorAgentID]}
	if d.register != wire.AgentDoorRegisterPath {
		c.Attrs[agentDoorRegister] = d.register
	}
	if d.auth != wire.AgentDoorAuthPath {
		c.Attrs[agentDoorAuth] = d.auth
	}
	ctx, op, err := a.steward.begin(ctx, ActRegister, c.Key)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	defer func() { op.end(ctx, err) }()
	for n := 1; ; n++ {
		done, again, err := a.round(ctx, c, private, d, r)
		if !again || n == agentDoorRounds {
			return done, err
		}
	}
}

// round registers once. again: the challenge was of no use, and another one may
// be. The service may have registered the key pair with an answer that never
// came, in this round or before; then a JWT can be had for it.
func (a *AgentDoor) round(ctx context.Context, c credstore.Credential, private ed25519.PrivateKey, d agentDoorDocument, r AgentDoorRegistration) (done AgentDoorRegistered, again bool, err error) {
	pending, ans, err := a.challenge(ctx, c, d, r)
	if isConflict(err) {
		id := cmp.Or(agentIn(ans), c.Attrs[agentDoorAgentID])
		if id == "" {
			return done, false, err
		}
		done, err = a.takeUp(ctx, c, id, d)
		return done, false, err
	}
	if err != nil {
		return done, false, err
	}
	op := call{protocol: wire.AgentDoorName, origin: c.Origin, op: "register"}
	message, err := a.challengeMessage(pending, ans.header)
	if err != nil {
		return done, false, op.fail(CodeChallenge, err)
	}
	c.Attrs[agentDoorAgentID] = pending.AgentID
	c.State = credstore.StatePending
	if err := a.store.Put(ctx, c); err != nil {
		return done, false, err
	}
	op.op, op.acts = "prove the key", true
	ans, err = a.post(ctx, op, strings.TrimSuffix(d.register, "/")+wire.AgentDoorVerifySuffix, wire.AgentDoorVerifyRequest{
		AgentID: pending.AgentID, Signature: a.sign(private, message),
	}, false)
	if err == nil {
		done, err = a.issued(ctx, op, c, d, r, ans)
	}
	var e *Error
	switch {
	case !errors.As(err, &e):
		return done, false, err
	case isConflict(err) && agentIn(ans) != "":
		done, err = a.takeUp(ctx, c, agentIn(ans), d)
		return done, false, err
	case isConflict(err), e.Status == http.StatusGone,
		isRefusal(err, wire.AgentDoorChallengeExpired), isRefusal(err, wire.AgentDoorNotFound):
		return done, true, err
	case e.Sent && ctx.Err() == nil:
		healed, lost := a.takeUp(ctx, c, pending.AgentID, d)
		if lost == nil {
			return healed, false, nil
		}
		return done, isRefusal(lost, wire.AgentDoorAgentNotFound) && e.mayHaveIssued(), err
	}
	return done, false, err
}

// challenge asks for a challenge. To ask again does no harm.
func (a *AgentDoor) challenge(ctx context.Context, c credstore.Credential, d agentDoorDocument, r AgentDoorRegistration) (wire.AgentDoorPending, answer, error) {
	op := call{protocol: wire.AgentDoorName, origin: c.Origin, op: "register"}
	metadata := maps.Clone(r.Metadata)
	if metadata == nil {
		metadata = make(map[string]any)
	}
	if _, ok := metadata["name"]; !ok {
		metadata["name"] = r.AgentName
	}
	var pending wire.AgentDoorPending
	ans, err := a.post(ctx, op, d.register, wire.AgentDoorRegisterRequest{
		PublicKey: c.KeyID, ScopesRequested: r.Scopes, X402Wallet: r.X402Wallet, Metadata: metadata,
	}, true)
	if err != nil {
		return pending, ans, err
	}
	// Its expires_at decides nothing, so that it may be anything.
	var lenient struct {
		AgentID   string `json:"agent_id"`
		Challenge struct {
			Nonce   string `json:"nonce"`
			Message string `json:"message"`
		} `json:"challenge"`
	}
	if err := a.http.decode(op, ans, &lenient); err != nil {
		return pending, ans, err
	}
	if lenient.AgentID == "" || lenient.Challenge.Message == "" {
		return pending, ans, op.unreadable(ans, "the answer has no agent_id, or no challenge")
	}
	pending.AgentID = lenient.AgentID
	pending.Challenge.Nonce, pending.Challenge.Message = lenient.Challenge.Nonce, lenient.Challenge.Message
	return pending, ans, nil
}

// isConflict reports whether a service has the key pair already. Live ones say
// so with two codes.
func isConflict(err error) bool {
	var e *Error
	return isRefusal(err, wire.AgentDoorAlreadyRegistered) || isRefusal(err, wire.AgentDoorDuplicateAgent) ||
		errors.As(err, &e) && e.Status == http.StatusConflict
}

// agentIn returns the agent_id in an answer, or "".
func agentIn(ans answer) string {
	if id := scalar(fieldsOf(ans), "agent_id"); wire.CheckAgentDoorAgentID(id) {
		return id
	}
	return ""
}

// takeUp goes on with a key pair that the service has registered.
func (a *AgentDoor) takeUp(ctx context.Context, c credstore.Credential, agentID string, d agentDoorDocument) (AgentDoorRegistered, error) {
	token, err := a.signIn(ctx, c, agentID, d.auth)
	if err != nil {
		return AgentDoorRegistered{}, err
	}
	a.log.InfoContext(ctx, "a registration whose answer was lost is taken up again", "protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent)
	c.Attrs[agentDoorAgentID] = agentID
	return a.finish(ctx, c, token)
}

// issued stores what a registration answered. Of the API key and the JWT one
// is enough: with the key pair, there is always another JWT.
func (a *AgentDoor) issued(ctx context.Context, op call, c credstore.Credential, d agentDoorDocument, r AgentDoorRegistration, ans answer) (AgentDoorRegistered, error) {
	fields := fieldsOf(ans)
	agentID := c.Attrs[agentDoorAgentID]
	key, hasKey := a.issuedSecret(fields, "api_key", agentID)
	token, err := a.issuedToken(op, ans, agentID)
	if err != nil && !hasKey {
		return AgentDoorRegistered{}, err
	}
	if hasKey {
		key.Key = behind(c.Key, credstore.KindAPIKey)
		if _, err := keep(ctx, a.store, key, agentDoorAgentID); err != nil {
			return AgentDoorRegistered{}, a.notStored(c.Key, err)
		}
		received(ctx)
	}
	granted := a.terms(c.Attrs, fields, d)
	done, err := a.finish(ctx, c, token)
	if err == nil && granted != nil {
		done.NotGranted = a.missing(done.Info, r.Scopes, granted)
	}
	return done, err
}

// terms adds to the attributes what a service grants, and returns the scopes.
func (a *AgentDoor) terms(attrs map[string]string, fields map[string]json.RawMessage, d agentDoorDocument) []string {
	var granted []string
	if json.Unmarshal(fields["scopes_granted"], &granted) == nil && granted != nil {
		attrs[permissionsAttr] = joinPermissions(granted, a.http.scrub)
		for len(attrs[permissionsAttr]) > maxKeptScopes {
			attrs[permissionsAttr] = attrs[permissionsAttr][:strings.LastIndexByte(attrs[permissionsAttr], ',')]
		}
	}
	var limit, x402 map[string]json.RawMessage
	_ = json.Unmarshal(fields["rate_limit"], &limit)
	_ = json.Unmarshal(fields["x402"], &x402)
	rate := scalar(limit, "requests") + "/" + scalar(limit, "window")
	if !agentDoorRate.MatchString(rate) {
		rate = ""
	}
	for name, said := range map[string]string{
		agentDoorRateLimit: rate,
		agentDoorAddress:   scalar(x402, "payment_address"),
		agentDoorNetwork:   cmp.Or(scalar(x402, "network"), d.network),
		agentDoorCurrency:  cmp.Or(scalar(x402, "currency"), d.currency),
	} {
		if clean := a.fact(said); clean != "" {
			attrs[name] = clean
		}
	}
	return granted
}

// finish stores the JWT, if there is one, and that the registration has ended
// well.
func (a *AgentDoor) finish(ctx context.Context, c credstore.Credential, token credstore.Credential) (AgentDoorRegistered, error) {
	if !token.Secret.IsZero() {
		a.keepToken(ctx, c.Key, token)
	}
	c.State = credstore.StateActive
	c, err := a.keepPair(ctx, c)
	if err != nil {
		return AgentDoorRegistered{}, a.notStored(c.Key, err)
	}
	a.log.InfoContext(ctx, "credential stored", "protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "key_id", c.KeyID)
	return a.outcome(c.Info), nil
}

// keepPair stores a key pair with what is needed beside it at least.
func (a *AgentDoor) keepPair(ctx context.Context, c credstore.Credential) (credstore.Credential, error) {
	return keep(ctx, a.store, c, agentDoorAgentID, agentDoorRegister, agentDoorAuth)
}

func (a *AgentDoor) notStored(k credstore.Key, cause error) error {
	return &NotStoredError{
		Protocol: k.Protocol, Origin: k.Origin, Agent: k.Agent, Cause: cause,
		Remedy: "When the store works again, register once more with the same arguments: the key pair is stored, and the registration is taken up with it.",
	}
}
