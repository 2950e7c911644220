package conform

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// unauthorized is the check that a request is refused for its credential.
func (f *fluxra) unauthorized(id, expect string, source Source, c func() (call, error)) check {
	return must(id, expect, source, func(ctx context.Context) error {
		made, err := c()
		if err != nil {
			return err
		}
		return f.refused(f.send(ctx, made), http.StatusUnauthorized, wire.FluxraUnauthorized)
	})
}

// tokens is how access tokens are renewed and ended.
func (f *fluxra) tokens() []check {
	return []check{
		must("refresh.renews", "an access token is good for another one", Seed, func(ctx context.Context) error {
			if err := f.mine.holdsToken(); err != nil {
				return err
			}
			a := f.send(ctx, withToken(wire.FluxraRefreshPath, f.mine.token))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			if token := a.text("access_token"); token != "" {
				f.before, f.mine.token = f.mine.token, token
			}
			shape(&w, "access_token", a.text("access_token"), `^eyJ`)
			w.unless(a.status == http.StatusOK && a.text("token_type") == wire.FluxraBearer && f.before != f.mine.token, "got status %d and the token_type %q, or the same token", a.status, short(a.text("token_type")))
			return w.err()
		}),
		f.unauthorized("refresh.old-ends", "the token before is refused", Seed, func() (call, error) {
			if f.before == "" {
				return call{}, skip("no token was refreshed")
			}
			return f.listsKeys(f.mine.id, f.before), nil
		}),
		must("refresh.race", "of several that refresh one token at the same moment one gets another", Choice, func(ctx context.Context) error {
			if err := f.mine.holdsToken(); err != nil {
				return err
			}
			answers := f.race(ctx, 8, func(int) call { return withToken(wire.FluxraRefreshPath, f.mine.token) })
			for _, a := range answers {
				if token := a.text("access_token"); a.ok() && token != "" {
					f.mine.token = token
				}
			}
			return f.one(answers, 1, wire.FluxraUnauthorized, wire.FluxraInvalidToken)
		}),
	}
}

// logouts is how they end, and whom they tell of.
func (f *fluxra) logouts() []check {
	return []check{
		must("logout.ok", "an access token can be ended", Seed, func(ctx context.Context) error {
			if err := f.mine.holdsToken(); err != nil {
				return err
			}
			f.before = f.mine.token
			a := f.send(ctx, withToken(wire.FluxraLogoutPath, f.mine.token))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			w.unless(a.status == http.StatusOK && a.text("message") != "", "got status %d, or message is missing", a.status)
			f.within(&w, "revoked_at", a.text("revoked_at"), secondTime, 0, 0)
			return w.err()
		}),
		f.unauthorized("logout.ends", "it is refused then", Seed, func() (call, error) { return f.listsKeys(f.mine.id, f.before), f.mine.holdsToken() }),
		f.unauthorized("logout.refresh", "and cannot be refreshed", Seed, func() (call, error) {
			return withToken(wire.FluxraRefreshPath, f.before), f.mine.holdsToken()
		}),
		must("keys.other", "another agent's keys are not listed: 403", Published, func(ctx context.Context) error {
			if f.other.id == "" {
				f.other = enrolled(f.send(ctx, f.registers(f.name, nil)))
			}
			if err := f.other.held(); err != nil {
				return err
			}
			if f.equip(ctx, &f.other); f.other.token == "" {
				return skip("the other agent has no access token")
			}
			return f.refused(f.send(ctx, f.listsKeys(f.mine.id, f.other.token)), http.StatusForbidden, wire.FluxraForbidden)
		}),
	}
}

// endings is what comes of a key that is deleted.
func (f *fluxra) endings() []check {
	var ended fluxraAgent
	gone := func(c func() call) func() (call, error) {
		return func() (call, error) {
			if ended.key == "" {
				return call{}, skip("no key was deleted")
			}
			return c(), nil
		}
	}
	deletes := func(id, expect string, source Source, keyID func() string, judge func(answer) error) check {
		return must(id, expect, source, func(ctx context.Context) error {
			if f.mine.keyID == "" && ended.keyID == "" {
				return skip("there is no API key")
			}
			a := f.send(ctx, f.endsKey(f.mine, keyID()))
			if a.err != nil {
				return a.err
			}
			return judge(a)
		})
	}
	return []check{
		deletes("key.delete", "the recovery key ends an API key: 204", Choice, func() string { return f.mine.keyID }, func(a answer) error {
			if a.ok() {
				ended = f.mine
				f.mine.key, f.mine.keyID = "", ""
			}
			return status(a, http.StatusNoContent)
		}),
		f.unauthorized("key.ended", "it is good for no access token then", Choice, gone(func() call { return f.exchanges(ended.id, ended.key) })),
		f.unauthorized("key.ended-refresh", "nor are the access tokens that it was exchanged for", Seed, gone(func() call {
			return withToken(wire.FluxraRefreshPath, ended.token)
		})),
		deletes("key.delete-again", "to end it again is no mistake: 204", Choice, func() string { return ended.keyID }, func(a answer) error {
			return status(a, http.StatusNoContent)
		}),
		deletes("key.delete-unknown", "a key_id that the agent has not is refused with 404", Choice, func() string { return "aky_nosuchkey" }, func(a answer) error {
			return f.refused(a, http.StatusNotFound, wire.FluxraNotFound)
		}),
		must("token.expires", "an access token is refused after an hour", Seed, func(ctx context.Context) error {
			if err := f.wait(ctx, time.Hour+time.Minute); err != nil {
				return err
			}
			if err := f.other.holdsToken(); err != nil {
				return err
			}
			return f.refused(f.send(ctx, f.listsKeys(f.other.id, f.other.token)), http.StatusUnauthorized, wire.FluxraUnauthorized)
		}),
	}
}

// nobody is an agent with a recovery key that there is not.
func (f *fluxra) nobody(id string) fluxraAgent {
	return fluxraAgent{id: id, recovery: f.secret(wire.FormatFluxraRecoveryKey(strings.Repeat("nobodyhasthis", 4)))}
}

// invalid is what is refused for what it says.
func (f *fluxra) invalid() []check {
	invalid := func(id, expect string, source Source, code string, c func() (call, error)) check {
		return must(id, expect, source, func(ctx context.Context) error {
			made, err := c()
			if err != nil {
				return err
			}
			return f.refused(f.send(ctx, made), http.StatusBadRequest, code)
		})
	}
	named := func(name string) func() (call, error) { return fixed(f.registers(name, nil)) }
	key := func(body fields) func() (call, error) {
		return func() (call, error) { return f.makesKey(f.mine, body), f.mine.held() }
	}
	return []check{
		invalid("register.no-name", "no agent_name is refused", Seed, wire.FluxraInvalidAgentName, fixed(post(wire.FluxraRegisterPath, "{}"))),
		invalid("register.short-name", "an agent_name of two characters is refused", Seed, wire.FluxraInvalidAgentName, named("ab")),
		invalid("register.long-name", "an agent_name of 51 characters is refused", Seed, wire.FluxraInvalidAgentName, named(strings.Repeat("n", 51))),
		invalid("register.name", "an agent_name with other characters is refused", Seed, wire.FluxraInvalidAgentName, named("not_a_name")),
		invalid("register.email", "an email that is none is refused", Published, wire.FluxraInvalidEmail, fixed(f.registers(f.name, fields{"email": "nobody"}))),
		invalid("key.no-name", "no name is refused", Published, wire.FluxraInvalidKeyName, key(fields{})),
		invalid("key.long-name", "a name of 101 characters is refused", Choice, wire.FluxraInvalidKeyName, key(fields{"name": strings.Repeat("n", 101)})),
		invalid("key.unknown-scope", "a scope that there is not is refused", Choice, wire.FluxraInvalidRequest, key(fields{"name": "x", "scopes": []string{"no:such"}})),
		invalid("key.no-days", "expires_in_days below 1 is refused", Choice, wire.FluxraInvalidRequest, key(fields{"name": "x", "expires_in_days": 0})),
		invalid("key.agent-id", "what is no agent_id is refused", Published, wire.FluxraInvalidAgentID, func() (call, error) {
			return f.makesKey(f.nobody("nobody"), fields{"name": "x"}), nil
		}),
		invalid("keys.agent-id", "what is no agent_id is refused", Published, wire.FluxraInvalidAgentID, fixed(f.listsKeys("nobody", ""))),
		must("health.ok", "the service says that it is healthy", Published, func(ctx context.Context) error {
			a := f.send(ctx, get(wire.FluxraHealthPath, nil))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			w.unless(a.status == http.StatusOK && a.text("status") == wire.FluxraHealthy && a.text("version") != "", "got %d and the status %q", a.status, short(a.text("status")))
			f.within(&w, "timestamp", a.text("timestamp"), secondTime, 0, 0)
			return w.err()
		}),
	}
}

// strangers is what is refused for who says it.
func (f *fluxra) strangers() []check {
	return []check{
		f.unauthorized("key.no-credential", "to make a key without a credential is refused", Published, func() (call, error) {
			return post(wire.FluxraAgentPath(f.mine.id), `{"name":"x"}`), f.mine.held()
		}),
		f.unauthorized("key.unknown-recovery", "a recovery key that nobody has is refused", Published, func() (call, error) {
			return f.makesKey(f.nobody(f.mine.id), fields{"name": "x"}), f.mine.held()
		}),
		f.unauthorized("key.other-recovery", "another agent's recovery key is refused", Published, func() (call, error) {
			return f.makesKey(fluxraAgent{id: f.mine.id, recovery: f.other.recovery}, fields{"name": "x"}), f.other.held()
		}),
		f.unauthorized("key.by-api-key", "an API key makes no other one", Seed, func() (call, error) {
			if f.other.key == "" {
				return call{}, skip("there is no API key")
			}
			return f.makesKey(fluxraAgent{id: f.other.id, recovery: f.other.key}, fields{"name": "x"}), nil
		}),
		f.unauthorized("token.no-credential", "to ask for an access token without a credential is refused", Seed, fixed(post(wire.FluxraTokenPath, "{}"))),
		f.unauthorized("token.unknown-key", "an API key that nobody has is refused", Seed, func() (call, error) {
			return f.exchanges(f.mine.id, f.secret(wire.FormatFluxraKey(strings.Repeat("nobodyhasthis", 4)))), f.mine.held()
		}),
		f.unauthorized("token.by-recovery", "a recovery key is good for no access token", Seed, func() (call, error) {
			return f.exchanges(f.mine.id, f.mine.recovery), f.mine.held()
		}),
		f.unauthorized("token.other-agent", "an API key with another agent_id is refused", Seed, func() (call, error) {
			if f.other.key == "" {
				return call{}, skip("there is no API key")
			}
			return f.exchanges(f.mine.id, f.other.key), nil
		}),
		f.unauthorized("keys.no-token", "to list keys without an access token is refused", Published, func() (call, error) {
			return f.listsKeys(f.mine.id, ""), f.mine.held()
		}),
		f.unauthorized("keys.forged-token", "an access token with another signature is refused", Published, func() (call, error) {
			if f.other.token == "" {
				return call{}, skip("there is no access token")
			}
			return f.listsKeys(f.other.id, f.secret(forged(f.other.token))), nil
		}),
		f.unauthorized("keys.unsigned-token", "an access token without a signature is refused", Published, func() (call, error) {
			return f.listsKeys(f.other.id, f.secret(unsigned(f.other.token))), f.other.held()
		}),
		f.unauthorized("refresh.no-token", "to refresh nothing is refused", Seed, fixed(post(wire.FluxraRefreshPath, "{}"))),
		f.unauthorized("logout.no-token", "to end nothing is refused", Seed, fixed(post(wire.FluxraLogoutPath, ""))),
	}
}
