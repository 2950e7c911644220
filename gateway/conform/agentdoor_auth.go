package conform

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// using is what the credentials are good for.
func (a *agentDoor) using() []check {
	with := func(key string) call { return get(a.o.Path, bearer(key)) }
	works := func(key func() string) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			used := a.send(ctx, with(key()))
			if used.status == http.StatusNotFound {
				return skip("there is nothing at %s: name a path that wants a credential with --path", a.o.Path)
			}
			return granted(used)
		}
	}
	unauthorized := func(id, expect string, c func() call) check {
		return must(id, expect, Published, func(ctx context.Context) error {
			refused := a.send(ctx, c())
			if refused.status == http.StatusNotFound {
				return skip("there is nothing at %s: name a path that wants a credential with --path", a.o.Path)
			}
			return a.refused(refused, http.StatusUnauthorized, wire.AgentDoorUnauthorized)
		})
	}
	nobody := a.secret(wire.FormatAgentDoorKey(strings.Repeat("nobodyhasthis", 3), false))
	return []check{
		must("use.key", "the API key works as a bearer token", Published, works(func() string { return a.apiKey })),
		must("use.token", "the JWT works as a bearer token", Published, works(func() string { return a.token })),
		unauthorized("use.nothing", "a request without a credential is refused", func() call { return with("") }),
		unauthorized("use.unknown-key", "a key that nobody has is refused", func() call { return with(nobody) }),
		unauthorized("use.forged-token", "a JWT with another signature is refused", func() call {
			if a.token == "" {
				return with(nobody)
			}
			return with(a.secret(forged(a.token)))
		}),
		unauthorized("use.unsigned-token", "a JWT without a signature is refused", func() call {
			return with(a.secret(unsigned(a.token)))
		}),
	}
}

// forged is a JWT with a signature that is none.
func forged(token string) string {
	return token[:strings.LastIndexByte(token, '.')+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
}

// unsigned is a JWT of the claims of another one that says it needs no signature.
func unsigned(token string) string {
	parts := strings.Split(token+"..", ".")
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
}

// authenticating is how an agent gets another JWT.
func (a *agentDoor) authenticating() []check {
	var given answer
	var sent call
	signs := func(id, expect string, severity Severity, source Source, status int, c func() call, codes ...string) check {
		return check{Check{id, expect, source, severity}, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			return a.refused(a.send(ctx, c()), status, codes...)
		}}
	}
	const bad = http.StatusBadRequest
	return []check{
		must("auth.issued", "200 with a JWT for a signature over agentdoor:auth:<agent_id>:<timestamp>", Published, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			sent = a.signsIn(a.key, a.agent, a.stamp(0))
			given = a.send(ctx, sent)
			if err := granted(given); err != nil {
				return err
			}
			var f faults
			f.unless(given.status == http.StatusOK, "got status %d, want 200", given.status)
			shape(&f, "token", given.text("token"), `^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
			a.within(&f, "expires_at", given.text("expires_at"), milliTime, 0, 24*time.Hour)
			return f.err()
		}),
		must("auth.works", "that JWT works", Published, func(ctx context.Context) error {
			if given.text("token") == "" {
				return skip("there is no JWT")
			}
			used := a.send(ctx, get(a.o.Path, bearer(given.text("token"))))
			if used.status == http.StatusNotFound {
				return skip("there is nothing at %s: name a path that wants a credential with --path", a.o.Path)
			}
			return granted(used)
		}),
		signs("auth.replay", "a signature that was accepted is refused", Should, Choice, bad, func() call { return sent }, wire.AgentDoorTimestampInvalid),
		signs("auth.stale", "a timestamp that is six minutes old is refused", Must, Published, bad, func() call {
			return a.signsIn(a.key, a.agent, a.stamp(-6*time.Minute))
		}, wire.AgentDoorTimestampInvalid),
		signs("auth.early", "a timestamp that is six minutes ahead is refused", Must, Published, bad, func() call {
			return a.signsIn(a.key, a.agent, a.stamp(6*time.Minute))
		}, wire.AgentDoorTimestampInvalid),
		signs("auth.no-time", "a timestamp that is no time is refused", Must, Published, bad, func() call {
			return a.signsIn(a.key, a.agent, "yesterday")
		}, wire.AgentDoorTimestampInvalid, wire.AgentDoorInvalidRequest),
		signs("auth.wrong-signature", "a signature of another key is refused with 401", Must, Published, http.StatusUnauthorized, func() call {
			return a.signsIn(a.pair(), a.agent, a.stamp(time.Second))
		}, wire.AgentDoorInvalidSignature),
		signs("auth.unknown-agent", "an agent that there is not is refused with 404", Must, Published, http.StatusNotFound, func() call {
			return a.signsIn(a.key, "ag_"+strings.Repeat("nobody7", 3), a.stamp(0))
		}, wire.AgentDoorAgentNotFound),
		signs("auth.short-signature", "a signature that is not of 64 bytes is refused as one that has not the form", Should, Choice, bad, func() call {
			return post(a.auth, text(fields{"agent_id": a.agent, "timestamp": a.stamp(0), "signature": "c2hvcnQ="}))
		}, wire.AgentDoorInvalidRequest),
	}
}

// registerRefusals is what cannot register.
func (a *agentDoor) registerRefusals() []check {
	const request = wire.AgentDoorInvalidRequest
	invalid := func(id, expect string, source Source, severity Severity, body func() fields) check {
		return check{Check{id, expect, source, severity}, func(ctx context.Context) error {
			return a.refused(a.send(ctx, post(a.register, text(body()))), http.StatusBadRequest, request)
		}}
	}
	public := publicOf(a.key)
	return []check{
		should("register.scopes", "a scope that is not offered is refused with those that are", Seed, func(ctx context.Context) error {
			refused := a.send(ctx, a.registers(a.pair(), []string{"no.such.scope"}))
			if err := a.refused(refused, http.StatusBadRequest, wire.AgentDoorInvalidScopes); err != nil {
				return err
			}
			var f faults
			f.unless(len(listed(refused.at("available_scopes"))) > 0, "available_scopes is empty")
			return f.err()
		}),
		invalid("register.no-scopes", "no scope at all is refused", Seed, Must, func() fields {
			return fields{"public_key": public, "scopes_requested": []string{}}
		}),
		invalid("register.no-key", "no public_key is refused", Seed, Must, func() fields {
			return fields{"scopes_requested": a.scopes}
		}),
		invalid("register.short-key", "a public_key that is not of 32 bytes is refused", Choice, Should, func() fields {
			return fields{"public_key": "c2hvcnQ=", "scopes_requested": a.scopes}
		}),
		invalid("register.weak-key", "a public_key that proves nothing (a point of small order) is refused", Choice, Should, func() fields {
			return fields{"public_key": base64.StdEncoding.EncodeToString(append([]byte{1}, make([]byte, 31)...)), "scopes_requested": a.scopes}
		}),
		invalid("register.metadata", "metadata that is no object is refused", Choice, Should, func() fields {
			return fields{"public_key": publicOf(a.pair()), "scopes_requested": a.scopes, "metadata": "text"}
		}),
		must("verify.unknown-agent", "an agent_id without a challenge is refused with 404", Seed, func(ctx context.Context) error {
			c := a.verifies("ag_"+strings.Repeat("nobody7", 3), ed25519.Sign(a.key, []byte("x")))
			return a.refused(a.send(ctx, c), http.StatusNotFound, wire.AgentDoorNotFound)
		}),
		must("verify.no-signature", "no signature is refused", Seed, func(ctx context.Context) error {
			return a.refused(a.send(ctx, post(a.verify, text(fields{"agent_id": "ag_nobody"}))), http.StatusBadRequest, request)
		}),
		should("verify.short-signature", "a signature that is not of 64 bytes is refused as one that has not the form", Choice, func(ctx context.Context) error {
			return a.refused(a.send(ctx, a.verifies("ag_nobody", []byte("short"))), http.StatusBadRequest, request)
		}),
	}
}

// begun registers an agent and leaves its challenge unverified.
func (a *agentDoor) begun(ctx context.Context, key ed25519.PrivateKey) (answer, error) {
	if a.paid {
		return answer{}, skip("the service wants to be paid, and this does not pay")
	}
	pending := a.send(ctx, a.registers(key, a.scopes))
	return pending, granted(pending)
}

// registered notes the agents that answers bring.
func (a *agentDoor) registered(answers ...answer) {
	for _, verified := range answers {
		if verified.ok() {
			a.made = append(a.made, verified.text("agent_id"))
		}
	}
}

// challenges is by what a challenge can be verified.
func (a *agentDoor) challenges() []check {
	var key ed25519.PrivateKey
	var second answer
	return []check{
		must("verify.race", "of many that verify one challenge at the same moment one is registered", Seed, func(ctx context.Context) error {
			racer := a.pair()
			pending, err := a.begun(ctx, racer)
			if err != nil {
				return err
			}
			answers := a.race(ctx, maxRace, func(int) call { return a.signs(racer, pending) })
			a.registered(answers...)
			return a.one(answers, 1, wire.AgentDoorNotFound, wire.AgentDoorAlreadyRegistered, strings.ToLower(wire.AgentDoorDuplicateAgent))
		}),
		should("register.several", "two challenges may pend for one key, and the first that is verified wins", Choice, func(ctx context.Context) error {
			key = a.pair()
			first, err := a.begun(ctx, key)
			if err != nil {
				return err
			}
			if second, err = a.begun(ctx, key); err != nil {
				return err
			}
			won := a.send(ctx, a.signs(key, first))
			a.registered(won)
			return granted(won)
		}),
		should("verify.late", "the other one is then refused with 409", Choice, func(ctx context.Context) error {
			if !second.ok() {
				return skip("there is no second challenge")
			}
			late := a.send(ctx, a.signs(key, second))
			a.registered(late)
			return a.refused(late, http.StatusConflict, wire.AgentDoorAlreadyRegistered, strings.ToLower(wire.AgentDoorDuplicateAgent))
		}),
	}
}

// voids is how often a challenge can be tried, and for how long.
func (a *agentDoor) voids() []check {
	return []check{
		should("verify.tries", "after five wrong signatures a challenge is void", Choice, func(ctx context.Context) error {
			guessed := a.pair()
			pending, err := a.begun(ctx, guessed)
			if err != nil {
				return err
			}
			for range 5 {
				if err := a.refused(a.send(ctx, a.signs(a.pair(), pending)), http.StatusBadRequest, wire.AgentDoorInvalidSignature); err != nil {
					return err
				}
			}
			right := a.send(ctx, a.signs(guessed, pending))
			a.registered(right)
			return a.refused(right, http.StatusNotFound, wire.AgentDoorNotFound)
		}),
		must("verify.expired", "after five minutes a challenge is refused with 410", Seed, func(ctx context.Context) error {
			const late5 = 5*time.Minute + time.Second
			if a.o.Wait == nil || a.o.MostWait > 0 && a.o.MostWait < late5 {
				return a.wait(ctx, late5)
			}
			late := a.pair()
			pending, err := a.begun(ctx, late)
			if err != nil {
				return err
			}
			if err := a.wait(ctx, late5); err != nil {
				return err
			}
			expired := a.send(ctx, a.signs(late, pending))
			a.registered(expired)
			return a.refused(expired, http.StatusGone, wire.AgentDoorChallengeExpired)
		}),
	}
}

// limits is what is refused when it was too much.
func (a *agentDoor) limits() []check {
	return []check{
		must("register.limit", "registrations are refused with 429 after 10 in an hour, and say when to try again", Seed, func(ctx context.Context) error {
			return a.exhausts(ctx, 11, wire.AgentDoorRateLimited, func(int) call { return a.registers(a.pair(), a.scopes) })
		}),
		should("use.limit", "requests of an agent are refused with 429 after as many as it was told", Published, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			return a.exhausts(ctx, 1001, wire.AgentDoorRateLimited, func(int) call { return get(a.o.Path, bearer(a.apiKey)) })
		}),
		must("token.expires", "a JWT is refused after an hour", Published, func(ctx context.Context) error {
			if err := a.held(); err != nil {
				return err
			}
			if err := a.wait(ctx, time.Hour+time.Minute); err != nil {
				return err
			}
			return a.refused(a.send(ctx, get(a.o.Path, bearer(a.token))), http.StatusUnauthorized, wire.AgentDoorUnauthorized)
		}),
	}
}
