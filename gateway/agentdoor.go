package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What AgentDoor keeps beside a key pair, which is what a handle names: it is
// the agent's identity, and everything else can be had again with it. The API
// key and the JWT stand behind it, each with the agent_id that it belongs to.
const (
	agentDoorAgentID   = "agent_id"              // the service's own name for the agent
	agentDoorRegister  = "registration_endpoint" // only where it is not the usual one
	agentDoorAuth      = "auth_endpoint"         // only where it is not the usual one
	agentDoorRateLimit = "rate_limit"            // as in 1000/1h
	agentDoorAddress   = "x402_address"
	agentDoorNetwork   = "x402_network"
	agentDoorCurrency  = "x402_currency"
)

// agentDoorOriginVar is the setting that says which service is meant where none
// is named.
const agentDoorOriginVar = "AGENTDOOR_URL"

// agentDoorRegisterTool is the tool that registers an agent.
const agentDoorRegisterTool = "agentdoor_register_agent"

// agentDoorQuiet is for how long a JWT is not asked for again after that failed
// and there was something else to send.
const agentDoorQuiet = time.Minute

// AgentDoor is the client half of AgentDoor, which any service may speak.
type AgentDoor struct {
	origin  string // of the service that is meant where none is named; "": none
	http    *caller
	store   credstore.Store
	steward *steward
	now     func() time.Time
	log     *slog.Logger
	spread  *spread

	mu sync.Mutex
	// seen has what is worth knowing of a key pair until the process ends.
	seen map[credstore.Key]agentDoorSeen
}

// agentDoorSeen is what a process remembers of a key pair.
type agentDoorSeen struct {
	signed time.Time            // the last time that was signed
	skew   time.Duration        // how far the service's clock is ahead of ours
	quiet  time.Time            // until then no JWT is asked for
	token  credstore.Credential // a JWT that the store has no room for
}

func newAgentDoor(o Options, http *caller) (*AgentDoor, error) {
	origin, err := o.setting(wire.AgentDoorName, agentDoorOriginVar, "")
	if err != nil {
		return nil, err
	}
	return &AgentDoor{
		origin: origin, http: http, store: o.Store, steward: o.steward, now: o.Now, log: o.Logger, spread: o.spread,
		seen: make(map[credstore.Key]agentDoorSeen),
	}, nil
}

// Wire implements [Protocol].
func (a *AgentDoor) Wire() wire.Protocol { return wire.AgentDoor() }

// Origin implements [Protocol]. It is "" where the user has not set one.
func (a *AgentDoor) Origin() string { return a.origin }

// Kind implements [Protocol].
func (a *AgentDoor) Kind() credstore.Kind { return credstore.KindKeyPair }

// Dependents implements [Dependent].
func (a *AgentDoor) Dependents(k credstore.Key) []credstore.Key {
	return []credstore.Key{behind(k, credstore.KindToken), behind(k, credstore.KindAPIKey)}
}

// behind returns the key of what stands behind a key pair.
func behind(k credstore.Key, kind credstore.Kind) credstore.Key {
	k.Kind = kind
	return k
}

// Reserved implements [Reserver].
func (a *AgentDoor) Reserved(ctx context.Context, k credstore.Key) ([]wire.Route, error) {
	all, err := a.store.List(ctx, wire.AgentDoorName)
	if err != nil {
		return nil, err
	}
	all = filter(all, func(i credstore.Info) bool {
		return sameService(i.Origin, k.Origin) && i.Kind == credstore.KindKeyPair && i.Key != k
	})
	if k.Protocol == wire.AgentDoorName {
		// What is stored is there even if the store's list is lost.
		c, err := a.store.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		all = append(all, c.Info)
	}
	var routes []wire.Route
	for _, i := range all {
		routes = append(routes, wire.AgentDoor().Reserved...)
		for _, path := range []string{i.Attrs[agentDoorRegister], i.Attrs[agentDoorAuth]} {
			if path = strings.TrimRight(path, "/"); path != "" {
				routes = append(routes, wire.Route{Path: path, Tool: agentDoorRegisterTool}, wire.Route{Path: path + "/*", Tool: agentDoorRegisterTool})
			}
		}
	}
	return routes, nil
}

// forgotten implements forgetter.
func (a *AgentDoor) forgotten(k credstore.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seen, k)
}

// Authorize implements [Protocol]. It sends the JWT, renewed where it is in the
// last fifth of its life or so, and the API key where there is none to be had.
func (a *AgentDoor) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	if originOf(req.URL) != k.Origin {
		return errors.New("a credential goes to the origin that issued it only")
	}
	secret, err := a.bearer(ctx, k)
	if err != nil {
		return err
	}
	if !presentable(secret.Reveal(), 1) {
		return &credstore.Error{
			Op: "use", Place: "the token of " + k.Agent, Kind: credstore.ErrDamaged,
			Remedy: "forget it and register under another agent_name",
		}
	}
	if p, ok := ctx.Value(presentedKey{}).(*presented); ok {
		p.secret = secret
	}
	req.Header.Set(wire.AgentDoorHeader, "Bearer "+secret.Reveal())
	return nil
}

// Environ implements [Exporter]. The API key is missing where a crash lost it.
func (a *AgentDoor) Environ(ctx context.Context, k credstore.Key) ([]Variable, error) {
	c, err := a.registered(ctx, k)
	if err != nil {
		return nil, err
	}
	header, err := headersOf(ctx, a, k)
	if err != nil {
		return nil, err
	}
	key, err := a.held(ctx, c, credstore.KindAPIKey)
	if err != nil {
		return nil, err
	}
	return []Variable{
		variable("AGENTDOOR_TOKEN", header.Get(wire.AgentDoorHeader)),
		{Name: "AGENTDOOR_API_KEY", Value: key.Secret},
		variable("AGENTDOOR_AGENT_ID", c.Attrs[agentDoorAgentID]),
		variable(agentDoorOriginVar, k.Origin),
	}, nil
}

// bearer returns what to send.
func (a *AgentDoor) bearer(ctx context.Context, k credstore.Key) (credstore.Secret, error) {
	c, err := a.registered(ctx, k)
	if err != nil {
		return credstore.Secret{}, err
	}
	token, err := a.token(ctx, c)
	if err != nil {
		return credstore.Secret{}, err
	}
	if a.spread.fresh(token.Info, a.now()) {
		return token.Secret, nil
	}
	instead := token
	if !token.UsableAt(a.now()) {
		if instead, err = a.held(ctx, c, credstore.KindAPIKey); err != nil {
			return credstore.Secret{}, err
		}
	}
	if !instead.Secret.IsZero() && a.now().Before(a.remembered(k).quiet) {
		return instead.Secret, nil
	}
	fresh, err := a.renew(ctx, k, token.Secret)
	if err == nil || instead.Secret.IsZero() || ctx.Err() != nil || isRefusal(err, wire.AgentDoorAgentNotFound) {
		return fresh, err
	}
	a.remember(k, func(s *agentDoorSeen) { s.quiet = a.now().Add(agentDoorQuiet) })
	a.log.WarnContext(ctx, "a token could not be renewed; sending what there is",
		"protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "kind", string(instead.Kind))
	return instead.Secret, nil
}

// Renew implements [Renewer].
func (a *AgentDoor) Renew(ctx context.Context, k credstore.Key) error {
	ctx, cancel := a.http.begin(ctx)
	defer cancel()
	c, err := a.registered(ctx, k)
	if err != nil {
		return err
	}
	token, err := a.token(ctx, c)
	if err != nil {
		return err
	}
	refused := token.Secret
	if unasked(ctx) {
		refused = credstore.Secret{} // one that is good enough is not replaced
	}
	if p, ok := ctx.Value(presentedKey{}).(*presented); ok && !p.secret.IsZero() {
		refused = p.secret
	}
	_, err = a.renew(ctx, k, refused)
	return err
}

// Due implements [Renewer].
func (a *AgentDoor) Due(_ context.Context, i credstore.Info, stored []credstore.Info) time.Time {
	if i.State != credstore.StateActive {
		return time.Time{}
	}
	stored = append([]credstore.Info{a.remembered(i.Key).token.Info}, stored...)
	n := slices.IndexFunc(stored, func(t credstore.Info) bool {
		return t.Key == behind(i.Key, credstore.KindToken) && t.Attrs[agentDoorAgentID] == i.Attrs[agentDoorAgentID]
	})
	if n < 0 {
		return time.Time{} // it is had when it is needed
	}
	return a.spread.due(stored[n])
}

// renew gets a JWT in the place of one that has expired or was refused. Of
// those who come at once, one asks the service; the others get what it got.
func (a *AgentDoor) renew(ctx context.Context, k credstore.Key, old credstore.Secret) (_ credstore.Secret, err error) {
	unlock, err := a.store.Lock(ctx, k)
	if err != nil {
		return credstore.Secret{}, err
	}
	defer unlock()
	c, err := a.registered(ctx, k)
	if err != nil {
		return credstore.Secret{}, err
	}
	now, err := a.token(ctx, c)
	if err != nil {
		return credstore.Secret{}, err
	}
	if a.spread.fresh(now.Info, a.now()) && !same(now, credstore.Credential{Secret: old}) {
		return now.Secret, nil
	}
	ctx, op, err := a.steward.begin(ctx, ActRenew, k)
	if err != nil {
		return credstore.Secret{}, err
	}
	defer func() { op.end(ctx, err) }()
	fresh, err := a.signIn(ctx, c, c.Attrs[agentDoorAgentID], agentDoorAuthPath(c.Info))
	if isRefusal(err, wire.AgentDoorAgentNotFound) {
		// The service has no such agent any more: only registering helps, and
		// that must not find something usable here.
		c.State = credstore.StateRevoked
		if _, err := a.keepPair(ctx, c); err != nil {
			a.log.WarnContext(ctx, "an agent that is gone at its service could not be marked", "origin", k.Origin, "agent", k.Agent, "error", err)
		}
	}
	if err != nil {
		return credstore.Secret{}, err
	}
	a.keepToken(ctx, k, fresh)
	return fresh.Secret, nil
}

// registered returns the key pair of an agent that is registered.
func (a *AgentDoor) registered(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	c, err := a.store.Get(ctx, k)
	switch {
	case err != nil:
		return c, err
	case c.State == credstore.StatePending:
		return c, &RefusedError{
			Why:  "There is no token of the agent " + k.Agent + ": its registration did not come to an end. It must be registered again.",
			Tool: agentDoorRegisterTool,
		}
	case c.State != credstore.StateActive:
		return c, &RefusedError{
			Why:  "The service does not know the agent " + k.Agent + " any more. It must be registered again.",
			Tool: agentDoorRegisterTool,
		}
	}
	return c, nil
}

// token returns the JWT of an agent, or nothing where there is none.
func (a *AgentDoor) token(ctx context.Context, c credstore.Credential) (credstore.Credential, error) {
	if t := a.remembered(c.Key).token; !t.Secret.IsZero() && t.Attrs[agentDoorAgentID] == c.Attrs[agentDoorAgentID] {
		return t, nil
	}
	return a.held(ctx, c, credstore.KindToken)
}

// held returns what stands behind a key pair, and nothing where that is not
// stored, cannot be read, or belongs to another registration of the key pair.
func (a *AgentDoor) held(ctx context.Context, c credstore.Credential, kind credstore.Kind) (credstore.Credential, error) {
	got, err := a.store.Get(ctx, behind(c.Key, kind))
	if errors.Is(err, credstore.ErrNotFound) || errors.Is(err, credstore.ErrDamaged) ||
		err == nil && got.Attrs[agentDoorAgentID] != c.Attrs[agentDoorAgentID] {
		return credstore.Credential{}, nil
	}
	return got, err
}

// keepToken stores a JWT. One that the store does not take is as good for as
// long as the process runs: another one can be had at any time.
func (a *AgentDoor) keepToken(ctx context.Context, k credstore.Key, t credstore.Credential) {
	t.Key = behind(k, credstore.KindToken)
	_, err := keep(ctx, a.store, t, agentDoorAgentID)
	a.remember(k, func(s *agentDoorSeen) {
		s.quiet, s.token = time.Time{}, credstore.Credential{}
		if err != nil {
			s.token = t
		}
	})
	switch {
	case err == nil:
		received(ctx)
		a.log.InfoContext(ctx, "token stored", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent, "key_id", t.KeyID)
	case !errors.Is(err, credstore.ErrTooLarge): // for those there is no remedy, and no need of one
		a.log.WarnContext(ctx, "a token could not be stored; it is kept in memory", "origin", k.Origin, "agent", k.Agent, "error", err)
	}
}

func (a *AgentDoor) remembered(k credstore.Key) agentDoorSeen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[k]
}

func (a *AgentDoor) remember(k credstore.Key, change func(*agentDoorSeen)) agentDoorSeen {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen[k]
	change(&s)
	a.seen[k] = s
	return s
}

// agentDoorAuthPath returns where an agent's service gives out JWTs.
func agentDoorAuthPath(i credstore.Info) string {
	if path := i.Attrs[agentDoorAuth]; path != "" {
		return path
	}
	return wire.AgentDoorAuthPath
}

// isRefusal reports whether a service answered with a code, in whichever case
// of letters.
func isRefusal(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Theirs && strings.EqualFold(e.Code, code)
}
