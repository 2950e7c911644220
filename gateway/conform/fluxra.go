package conform

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// fluxra is a run at a service that speaks Fluxra's protocol. It registers six
// times of the ten that there are in an hour.
type fluxra struct {
	*session
	name     string
	mine     fluxraAgent
	other    fluxraAgent
	lettered fluxraAgent // the one with an email
	email    string
	letters  []string // that were read
	verified bool
	code     string
	made     answer // that brought the first API key
	before   string // a token that has ended
	evt      string // the token of a letter
	stranger string // an email that nobody has
}

// fluxraAgent is an agent with what it was issued.
type fluxraAgent struct {
	id, recovery string
	key, keyID   string
	token        string
}

func gradeFluxra(s *session) grader {
	f := &fluxra{session: s, name: s.name()}
	f.email, f.stranger = f.name+"@example.com", s.name()+"@example.com"
	checks := f.registering()
	checks = append(checks, f.keys()...)
	checks = append(checks, f.parts()...)
	checks = append(checks, f.tokens()...)
	checks = append(checks, f.logouts()...)
	checks = append(checks, f.endings()...)
	checks = append(checks, f.invalid()...)
	checks = append(checks, f.strangers()...)
	checks = append(checks, f.links()...)
	checks = append(checks, f.asking()...)
	checks = append(checks, f.verifying()...)
	checks = append(checks, f.recovering()...)
	checks = append(checks, f.late()...)
	const invalid = wire.FluxraInvalidRequest
	checks = append(checks, s.bodies("register", Published, invalid, func() (call, error) { return f.registers(s.name(), nil), nil },
		`{"agent_name":7}`)...)
	checks = append(checks, s.bodies("key", Published, invalid, func() (call, error) { return f.makesKey(f.mine, fields{"name": "more"}), f.mine.held() },
		`{"name":7}`)...)
	checks = append(checks, s.bodies("verify", Published, invalid, fixed(post(wire.FluxraVerifyEmailPath, `{"token":"none"}`)), `{"token":7}`)...)
	checks = append(checks, s.bodies("recover", Published, invalid, fixed(post(wire.FluxraRecoveryVerifyPath, `{"email":"nobody@example.com","code":"000000"}`)),
		`{"email":"nobody@example.com","code":0}`)...)
	agent := wire.FluxraAgentPath("agt_" + strings.Repeat("0", 32))
	checks = append(checks,
		s.methods("register", wire.FluxraRegisterPath, http.MethodGet, http.MethodPost),
		s.methods("verify", wire.FluxraVerifyEmailPath, http.MethodDelete, http.MethodGet, http.MethodPost),
		s.methods("resend", wire.FluxraResendPath, http.MethodGet, http.MethodPost),
		s.methods("token", wire.FluxraTokenPath, http.MethodGet, http.MethodPost),
		s.methods("refresh", wire.FluxraRefreshPath, http.MethodGet, http.MethodPost),
		s.methods("logout", wire.FluxraLogoutPath, http.MethodGet, http.MethodPost),
		s.methods("recovery", wire.FluxraRecoveryRequestPath, http.MethodGet, http.MethodPost),
		s.methods("recover", wire.FluxraRecoveryVerifyPath, http.MethodGet, http.MethodPost),
		s.methods("agent", agent, http.MethodDelete, http.MethodGet, http.MethodPost),
		s.methods("key", agent+"/keys/aky_none", http.MethodPost, http.MethodDelete),
		s.head("health", fixed(get(wire.FluxraHealthPath, nil))),
		s.nothing("/api/auth/no-such-route", wire.FluxraNotFound),
		s.challenged(func(call) bool { return true }),
	)
	checks = append(checks, f.limits()...)
	checks = append(checks, s.suspension(func() string { return f.mine.id }, func(context.Context) (call, error) {
		return f.makesKey(f.mine, fields{"name": "suspended"}), f.mine.held()
	}))
	return grader{checks: checks, tidy: f.tidy, code: func(a answer) string { return a.text("error", "code") }}
}

// tidy ends the keys that are known; the accounts stay.
func (f *fluxra) tidy(ctx context.Context) []string {
	var left []string
	for _, a := range []fluxraAgent{f.mine, f.other, f.lettered} {
		if a.id == "" {
			continue
		}
		left = append(left, "the agent "+a.id+": the protocol has no route that ends it")
		if a.keyID == "" {
			continue
		}
		if ended := f.send(ctx, f.endsKey(a, a.keyID)); !ended.ok() {
			left = append(left, "the key "+a.keyID+" of "+a.id+": it could not be revoked")
		}
	}
	return left
}

func (a fluxraAgent) held() error {
	if a.recovery == "" {
		return skip("no agent could be registered")
	}
	return nil
}

func (a fluxraAgent) holdsToken() error {
	if a.token == "" {
		return skip("there is no access token")
	}
	return nil
}

func basic(user, password string) map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

func (*fluxra) registers(name string, more fields) call {
	body := fields{"agent_name": name, "metadata": fields{"description": "enlist conform"}}
	for member, value := range more {
		body[member] = value
	}
	return post(wire.FluxraRegisterPath, text(body))
}

func (*fluxra) makesKey(a fluxraAgent, body fields) call {
	c := post(wire.FluxraAgentPath(a.id), text(body))
	c.header = basic(a.id, a.recovery)
	return c
}

func (*fluxra) endsKey(a fluxraAgent, keyID string) call {
	return call{method: http.MethodDelete, path: wire.FluxraKeyPath(a.id, keyID), header: basic(a.id, a.recovery)}
}

// exchanges takes an API key for an access token.
func (*fluxra) exchanges(id, key string) call {
	c := post(wire.FluxraTokenPath, text(fields{"grant_type": wire.FluxraGrant}))
	c.header = basic(id, key)
	return c
}

func withToken(path, token string) call {
	c := post(path, "{}")
	c.header = bearer(token)
	return c
}

func (*fluxra) listsKeys(id, token string) call { return get(wire.FluxraAgentPath(id), bearer(token)) }

// enrolled is the agent that an answer brings.
func enrolled(a answer) fluxraAgent {
	if !a.ok() {
		return fluxraAgent{}
	}
	return fluxraAgent{id: a.text("agent_id"), recovery: a.text("recovery_key")}
}

// equip gives an agent a key and a token, if it can be had.
func (f *fluxra) equip(ctx context.Context, a *fluxraAgent) {
	made := f.send(ctx, f.makesKey(*a, fields{"name": "conform"}))
	if !made.ok() {
		return
	}
	a.key, a.keyID = made.text("api_key"), made.text("key_id")
	a.token = f.send(ctx, f.exchanges(a.id, a.key)).text("access_token")
}

func (f *fluxra) registering() []check {
	var registered answer
	return []check{
		must("register.issued", "an agent_id, agt_…, and a recovery key, rk_…, that is shown once", Seed, func(ctx context.Context) error {
			registered = f.send(ctx, f.registers(f.name, nil))
			f.mine = enrolled(registered)
			if err := granted(registered); err != nil {
				return err
			}
			var w faults
			shape(&w, "agent_id", f.mine.id, `^agt_[0-9a-f]{32}$`)
			shape(&w, "recovery_key", f.mine.recovery, `^rk_[A-Za-z0-9_-]{16,}$`)
			w.unless(registered.text("agent_name") == f.name, "agent_name is %q", short(registered.text("agent_name")))
			w.unless(registered.text("warning") != "", "warning is missing")
			f.within(&w, "created_at", registered.text("created_at"), secondTime, 0, 0)
			return w.err()
		}),
		should("register.created", "a registration is answered with 201", Choice, func(context.Context) error {
			return status(registered, http.StatusCreated)
		}),
		should("register.no-email", "without an email the answer says nothing of one", Choice, func(context.Context) error {
			if err := f.mine.held(); err != nil {
				return err
			}
			var w faults
			w.unless(registered.at("email_verification_sent") == nil && registered.at("email_verification_expires_at") == nil, "it does")
			return w.err()
		}),
		should("register.attempt", "registering again with the same Idempotency-Key gets the same agent another recovery key, and ends the first", Choice, func(ctx context.Context) error {
			if err := f.mine.held(); err != nil {
				return err
			}
			c := f.registers(f.name, nil).with(wire.IdempotencyHeader, f.attempt())
			first := f.send(ctx, c)
			f.other = enrolled(first)
			if err := granted(first); err != nil {
				return err
			}
			again := f.send(ctx, c)
			if again.ok() && again.text("agent_id") == f.other.id {
				f.other = enrolled(again)
			}
			if err := granted(again); err != nil {
				return err
			}
			var w faults
			w.unless(again.text("agent_id") == first.text("agent_id"), "it is another agent")
			dead := f.send(ctx, f.makesKey(enrolled(first), fields{"name": "conform"}))
			w.unless(dead.status == http.StatusUnauthorized, "the first recovery key is answered with %d, want 401", dead.status)
			reused := f.send(ctx, f.registers(f.name+"x", nil).with(wire.IdempotencyHeader, c.header[wire.IdempotencyHeader]))
			if err := f.refused(reused, http.StatusConflict, wire.FluxraKeyReused); err != nil {
				w = append(w, "for another agent_name: "+err.Error())
			}
			return w.err()
		}),
	}
}

// keys is how API keys are made and listed.
func (f *fluxra) keys() []check {
	return []check{
		must("key.issued", "the recovery key makes an API key, sk_…, with the default scopes", Published, func(ctx context.Context) error {
			if err := f.mine.held(); err != nil {
				return err
			}
			made := f.send(ctx, f.makesKey(f.mine, fields{"name": "conform"}))
			if err := granted(made); err != nil {
				return err
			}
			f.mine.key, f.mine.keyID, f.made = made.text("api_key"), made.text("key_id"), made
			var w faults
			shape(&w, "api_key", f.mine.key, `^sk_[A-Za-z0-9_-]{16,}$`)
			shape(&w, "key_id", f.mine.keyID, `^aky_[A-Za-z0-9]+$`)
			w.unless(made.text("name") == "conform", "name is %q", short(made.text("name")))
			w.unless(strings.Join(listed(made.at("scopes")), " ") == strings.Join(wire.FluxraScopes(), " "), "scopes are %q", listed(made.at("scopes")))
			f.within(&w, "created_at", made.text("created_at"), secondTime, 0, 0)
			return w.err()
		}),
		should("key.created", "an API key is answered with 201", Choice, func(context.Context) error { return status(f.made, http.StatusCreated) }),
		must("token.issued", "the API key is good for an access token of an hour", Seed, func(ctx context.Context) error {
			if f.mine.key == "" {
				return skip("there is no API key")
			}
			a := f.send(ctx, f.exchanges(f.mine.id, f.mine.key))
			if err := granted(a); err != nil {
				return err
			}
			f.mine.token = a.text("access_token")
			var w faults
			shape(&w, "access_token", f.mine.token, `^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
			w.unless(a.status == http.StatusOK && a.text("token_type") == wire.FluxraBearer, "got status %d and the token_type %q", a.status, short(a.text("token_type")))
			w.unless(string(numberOf(a, "expires_in")) == "3600", "expires_in is %s, want 3600", short(string(numberOf(a, "expires_in"))))
			w.unless(a.text("scope") == strings.Join(wire.FluxraScopes(), " "), "scope is %q", short(a.text("scope")))
			w.unless(a.text("key_id") == f.mine.keyID, "key_id is another")
			return w.err()
		}),
		must("keys.ok", "the access token lists the agent's keys, without the keys themselves", Published, func(ctx context.Context) error {
			if err := f.mine.holdsToken(); err != nil {
				return err
			}
			a := f.send(ctx, f.listsKeys(f.mine.id, f.mine.token))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			list, _ := a.at("keys").([]any)
			w.unless(a.status == http.StatusOK && len(list) == 1, "got status %d and %d keys, want 200 and one", a.status, len(list))
			for _, k := range list {
				entry, _ := k.(fields)
				w.unless(entry["key_id"] == f.mine.keyID && entry["name"] == "conform" && entry["revoked_at"] == nil, "the key is another one")
			}
			return w.err()
		}),
	}
}

// parts is what there is less of than all.
func (f *fluxra) parts() []check {
	return []check{
		should("key.scopes", "an API key can have fewer scopes, and days that it lives", Published, func(ctx context.Context) error {
			if err := f.mine.held(); err != nil {
				return err
			}
			a := f.send(ctx, f.makesKey(f.mine, fields{"name": "narrow", "scopes": []string{"messages:read"}, "expires_in_days": 1}))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			w.unless(strings.Join(listed(a.at("scopes")), " ") == "messages:read", "scopes are %q", listed(a.at("scopes")))
			f.within(&w, "expires_at", a.text("expires_at"), secondTime, 24*time.Hour, 24*time.Hour)
			if f.o.Wait != nil {
				if err := f.o.Wait(ctx, 25*time.Hour); err != nil {
					return err
				}
				late := f.send(ctx, f.exchanges(f.mine.id, a.text("api_key")))
				w.unless(late.status == http.StatusUnauthorized, "a day later it is answered with %d, want 401", late.status)
				f.mine.token = f.send(ctx, f.exchanges(f.mine.id, f.mine.key)).text("access_token")
			}
			return w.err()
		}),
		must("token.no-body", "a body is recommended for it, and not required", Seed, func(ctx context.Context) error {
			if f.mine.key == "" {
				return skip("there is no API key")
			}
			c := f.exchanges(f.mine.id, f.mine.key)
			c.body = ""
			return granted(f.send(ctx, c))
		}),
		should("keys.pages", "a list that is asked for in parts comes in parts", Choice, func(ctx context.Context) error {
			if err := f.mine.holdsToken(); err != nil {
				return err
			}
			c := f.listsKeys(f.mine.id, f.mine.token)
			c.path += "?limit=1"
			first := f.send(ctx, c)
			if err := granted(first); err != nil {
				return err
			}
			var w faults
			list, _ := first.at("keys").([]any)
			w.unless(len(list) == 1 && first.at("has_more") == true && first.text("next_cursor") != "", "with limit=1 there are %d keys, or nothing says that there are more", len(list))
			c.path += "&cursor=" + first.text("next_cursor")
			second := f.send(ctx, c)
			list, _ = second.at("keys").([]any)
			w.unless(second.ok() && len(list) == 1 && second.at("has_more") == false, "the next part has %d keys, or says that there are more", len(list))
			return w.err()
		}),
	}
}
