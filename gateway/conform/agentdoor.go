package conform

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agentDoor is a run at a service that speaks AgentDoor. It registers seven
// times of the ten that there are in an hour, and the other three for what an
// operator has a say in.
type agentDoor struct {
	*session
	register, verify, auth string // paths
	scopes                 []string
	free                   []string // scopes that cost nothing
	paid                   bool

	key     ed25519.PrivateKey // of the agent that is registered
	agent   string
	apiKey  string
	token   string
	pending answer // its challenge
	made    []string
}

func gradeAgentDoor(s *session) grader {
	a := &agentDoor{
		session: s, register: wire.AgentDoorRegisterPath, verify: wire.AgentDoorVerifyPath, auth: wire.AgentDoorAuthPath,
		scopes: []string{wire.AgentDoorAccess}, key: s.pair(),
	}
	checks := a.discovery()
	checks = append(checks, a.registering()...)
	checks = append(checks, a.again()...)
	checks = append(checks, a.using()...)
	checks = append(checks, a.authenticating()...)
	checks = append(checks, a.registerRefusals()...)
	checks = append(checks, a.challenges()...)
	checks = append(checks, a.voids()...)
	const invalid = wire.AgentDoorInvalidRequest
	checks = append(checks, s.bodies("register", Seed, invalid, func() (call, error) { return a.registers(s.pair(), a.scopes), nil },
		`{"public_key":7,"scopes_requested":["x"]}`)...)
	checks = append(checks, s.bodies("verify", Seed, invalid, func() (call, error) { return a.verifies("ag_nobody", ed25519.Sign(a.key, nil)), nil },
		`{"agent_id":7,"signature":"x"}`)...)
	checks = append(checks, s.bodies("auth", Published, invalid, func() (call, error) { return a.signsIn(a.key, "ag_nobody", a.stamp(0)), nil },
		`{"agent_id":7,"timestamp":"x","signature":"x"}`)...)
	checks = append(checks,
		s.methods("register", wire.AgentDoorRegisterPath, http.MethodGet, http.MethodPost),
		s.methods("verify", wire.AgentDoorVerifyPath, http.MethodGet, http.MethodPost),
		s.methods("auth", wire.AgentDoorAuthPath, http.MethodDelete, http.MethodPost),
		s.head("discovery", fixed(get(wire.AgentDoorDiscoveryPath, nil))),
		s.nothing("/agentdoor/no-such-route", wire.AgentDoorNotFound),
		s.challenged(func(c call) bool { return c.method == http.MethodGet }),
	)
	checks = append(checks, a.scoped())
	checks = append(checks, a.inactive()...)
	checks = append(checks, a.limits()...)
	return grader{checks: checks, tidy: a.tidy, code: func(a answer) string { return strings.ToLower(a.text("error")) }}
}

func (a *agentDoor) tidy(context.Context) []string {
	var left []string
	for _, id := range a.made {
		left = append(left, "the agent "+id+": the protocol has no route that ends it")
	}
	return left
}

// pair makes a key pair.
func (s *session) pair() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.bytes(ed25519.SeedSize)) }

func publicOf(key ed25519.PrivateKey) string {
	public, _ := key.Public().(ed25519.PublicKey)
	return base64.StdEncoding.EncodeToString(public)
}

func (a *agentDoor) held() error {
	if a.apiKey == "" {
		return skip("no agent could be registered")
	}
	return nil
}

func (a *agentDoor) registers(key ed25519.PrivateKey, scopes []string) call {
	return post(a.register, text(fields{
		"public_key": publicOf(key), "scopes_requested": scopes, "metadata": fields{"name": "enlist-conform"},
	}))
}

func (a *agentDoor) verifies(agent string, signature []byte) call {
	return post(a.verify, text(fields{"agent_id": agent, "signature": base64.StdEncoding.EncodeToString(signature)}))
}

// signs is the verification of a challenge.
func (a *agentDoor) signs(key ed25519.PrivateKey, pending answer) call {
	return a.verifies(pending.text("agent_id"), ed25519.Sign(key, []byte(pending.text("challenge", "message"))))
}

// stamp is a time that is so far off, as it is signed.
func (a *agentDoor) stamp(off time.Duration) string {
	now := time.Time{}
	if a.o.Now != nil {
		now = a.o.Now()
	}
	return wire.MilliTime(now.Add(off)).String()
}

// signsIn asks for a JWT.
func (a *agentDoor) signsIn(key ed25519.PrivateKey, agent, timestamp string) call {
	signature := ed25519.Sign(key, []byte(wire.AgentDoorAuthMessage(agent, timestamp)))
	return post(a.auth, text(fields{
		"agent_id": agent, "timestamp": timestamp, "signature": base64.StdEncoding.EncodeToString(signature),
	}))
}

// discovery is what the service says of itself.
func (a *agentDoor) discovery() []check {
	var document answer
	return []check{
		must("discovery.ok", "the discovery document names the version, the service, its endpoints and its scopes", Published, func(ctx context.Context) error {
			document = a.send(ctx, get(wire.AgentDoorDiscoveryPath, nil))
			if err := granted(document); err != nil {
				return err
			}
			return a.read(document)
		}),
		should("discovery.cached", "the discovery document may be cached, and names the version in X-AgentDoor-Version", Published, func(context.Context) error {
			if !document.ok() {
				return skip("there is no discovery document")
			}
			var f faults
			f.unless(strings.Contains(document.header.Get("Cache-Control"), "max-age="), "Cache-Control is %q", document.header.Get("Cache-Control"))
			f.unless(document.header.Get(wire.AgentDoorVersionHeader) == wire.AgentDoorVersion, "%s is %q", wire.AgentDoorVersionHeader, document.header.Get(wire.AgentDoorVersionHeader))
			return f.err()
		}),
		should("discovery.methods", "the discovery document lists ed25519-challenge and jwt, and the limits", Published, func(context.Context) error {
			if !document.ok() {
				return skip("there is no discovery document")
			}
			var f faults
			methods := strings.Join(listed(document.at("auth_methods")), " ")
			f.unless(strings.Contains(methods, "ed25519-challenge") && strings.Contains(methods, "jwt"), "auth_methods is %q", short(methods))
			f.unless(document.text("rate_limits", "registration") != "" && document.text("rate_limits", "default") != "", "rate_limits is not complete")
			return f.err()
		}),
		should("health.ok", "the service says that it is healthy", Published, func(ctx context.Context) error {
			h := a.send(ctx, get(wire.AgentDoorHealthPath, nil))
			if err := granted(h); err != nil {
				return err
			}
			var f faults
			f.unless(h.status == http.StatusOK && h.text("status") == "healthy", "got %d and the status %q", h.status, short(h.text("status")))
			return f.err()
		}),
	}
}

// read takes the endpoints and the scopes from the discovery document.
func (a *agentDoor) read(document answer) error {
	var f faults
	f.unless(document.text("agentdoor_version") != "", "agentdoor_version is missing")
	f.unless(document.text("service_name") != "", "service_name is missing")
	for name, path := range map[string]*string{"registration_endpoint": &a.register, "auth_endpoint": &a.auth} {
		said := document.text(name)
		if !strings.HasPrefix(said, "/") || strings.HasPrefix(said, "//") || strings.ContainsAny(said, "?#\\") {
			f.unless(false, "%s is %q: not a path", name, short(said))
			continue
		}
		*path = said
	}
	a.verify = a.register + wire.AgentDoorVerifySuffix
	offered, _ := document.at("scopes_available").([]any)
	var free []string
	for _, o := range offered {
		scope, _ := o.(fields)
		id, _ := scope["id"].(string)
		description, _ := scope["description"].(string)
		f.unless(id != "" && description != "", "a scope has no id or no description")
		if price, _ := scope["price"].(string); id != "" && price == "" {
			free = append(free, id)
		}
	}
	f.unless(len(offered) > 0, "scopes_available is empty")
	if len(free) > 0 {
		a.scopes, a.free = free[:1], free
	}
	a.paid = document.at("payment") != nil
	return f.err()
}

// listed returns the strings of a list.
func listed(v any) []string {
	values, _ := v.([]any)
	var texts []string
	for _, value := range values {
		if text, ok := value.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// registering is how an agent registers.
func (a *agentDoor) registering() []check {
	var verified answer
	return []check{
		must("register.challenge", "201 with an agent_id and a challenge: agentdoor:register:<agent_id>:<seconds>:<nonce>, for 5 minutes", Seed, func(ctx context.Context) error {
			if a.paid {
				return skip("the service wants to be paid, and this does not pay")
			}
			a.pending = a.send(ctx, a.registers(a.key, a.scopes))
			if err := granted(a.pending); err != nil {
				return err
			}
			var f faults
			id := a.pending.text("agent_id")
			f.unless(a.pending.status == http.StatusCreated, "got status %d, want 201", a.pending.status)
			shape(&f, "agent_id", id, `^ag_[A-Za-z0-9_-]+$`)
			message := `^agentdoor:register:` + regexp.QuoteMeta(id) + `:\d{10}:` + regexp.QuoteMeta(a.pending.text("challenge", "nonce")) + `$`
			shape(&f, "challenge.message", a.pending.text("challenge", "message"), message)
			f.unless(a.pending.text("challenge", "nonce") != "", "challenge.nonce is missing")
			a.within(&f, "challenge.expires_at", a.pending.text("challenge", "expires_at"), milliTime, 0, 5*time.Minute)
			return f.err()
		}),
		must("verify.wrong-signature", "a signature of another key is refused, and does not use the challenge up", Seed, func(ctx context.Context) error {
			if !a.pending.ok() {
				return skip("there is no challenge")
			}
			return a.refused(a.send(ctx, a.signs(a.pair(), a.pending)), http.StatusBadRequest, wire.AgentDoorInvalidSignature)
		}),
		must("verify.issued", "200 with an API key, agk_live_… or agk_test_…, a JWT, the scopes and the limit", Seed, func(ctx context.Context) error {
			if !a.pending.ok() {
				return skip("there is no challenge")
			}
			verified = a.send(ctx, a.signs(a.key, a.pending))
			a.took(verified)
			return a.issued(verified)
		}),
		should("verify.expiry", "token_expires_at has milliseconds and is at most a day away", Seed, func(context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			var f faults
			a.within(&f, "token_expires_at", verified.text("token_expires_at"), milliTime, 0, 24*time.Hour)
			return f.err()
		}),
		must("verify.single-use", "a challenge that was verified is refused with 404", Seed, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			return a.refused(a.send(ctx, a.signs(a.key, a.pending)), http.StatusNotFound, wire.AgentDoorNotFound)
		}),
	}
}

// again is what comes of registering a key pair twice.
func (a *agentDoor) again() []check {
	return []check{
		must("register.exists", "a public key that is registered is refused with 409 and its agent_id", Seed, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			again := a.send(ctx, a.registers(a.key, a.scopes))
			if err := a.refused(again, http.StatusConflict, wire.AgentDoorAlreadyRegistered); err != nil {
				return err
			}
			var f faults
			f.unless(again.text("agent_id") == a.agent, "agent_id is not that of the agent")
			return f.err()
		}),
	}
}

// took remembers the agent of the run.
func (a *agentDoor) took(verified answer) {
	if !verified.ok() {
		return
	}
	a.agent, a.apiKey, a.token = verified.text("agent_id"), verified.text("api_key"), verified.text("token")
	a.made = append(a.made, a.agent)
}

func (a *agentDoor) issued(verified answer) error {
	if err := granted(verified); err != nil {
		return err
	}
	var f faults
	f.unless(verified.status == http.StatusOK, "got status %d, want 200", verified.status)
	f.unless(a.agent == a.pending.text("agent_id"), "agent_id is another one")
	shape(&f, "api_key", a.apiKey, `^agk_(live|test)_[A-Za-z0-9_-]{16,}$`)
	shape(&f, "token", a.token, `^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
	f.unless(len(listed(verified.at("scopes_granted"))) > 0, "scopes_granted is empty")
	f.unless(verified.at("rate_limit", "requests") != nil && verified.text("rate_limit", "window") != "", "rate_limit is not complete")
	return f.err()
}
