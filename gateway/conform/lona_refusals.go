package conform

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// refusals is what must be refused with a token, and without one.
func (l *lona) refusals() []check {
	unauthorized := func(id, expect string, source Source, c func() call) check {
		return must(id, expect, source, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.refused(l.send(ctx, c()), http.StatusUnauthorized, wire.LonaUnauthorized)
		})
	}
	invalid := func(id, expect, path string, body fields) check {
		return must(id, expect, Choice, func(ctx context.Context) error {
			return l.refused(l.send(ctx, post(path, text(body))), http.StatusBadRequest, wire.LonaInvalidRequest)
		})
	}
	const register = wire.LonaRegisterPath
	nobody := l.secret(wire.FormatLonaToken(l.agent, "abcdefghijkl", strings.Repeat("nobodyhasthis", 4)))
	return []check{
		unauthorized("use.no-key", "a request without X-API-Key is refused", Seed, func() call { return l.uses("", l.agent) }),
		unauthorized("use.no-user", "a request without X-User-Id is refused", Seed, func() call { return l.uses(l.token, "") }),
		unauthorized("use.other-user", "a token with another agent's X-User-Id is refused", Choice, func() call { return l.uses(l.token, l.other) }),
		unauthorized("use.unknown-key", "a token that nobody has is refused", Choice, func() call { return l.uses(nobody, l.agent) }),
		unauthorized("use.in-url", "a token in the URL counts for nothing", Choice, func() call {
			return get(wire.LonaStrategiesPath+"?x-api-key="+l.token, map[string]string{wire.LonaUserHeader: l.agent})
		}),
		must("register.unknown-invite", "an invite that nobody has is refused", Choice, func(ctx context.Context) error {
			if l.closed != "" {
				return skip("%s", l.closed)
			}
			return l.refused(l.send(ctx, l.registers(l.other, l.secret(wire.FormatLonaInvite("nobodyhasthisone2")))), http.StatusUnauthorized, wire.LonaInvalidInvite)
		}),
		must("register.wrong-secret", "a wrong registration secret is refused", Choice, func(ctx context.Context) error {
			c := l.registers(l.other, "").with(wire.LonaSecretHeader, l.secret("not-the-registration-secret"))
			return l.refused(l.send(ctx, c), http.StatusUnauthorized, wire.LonaInvalidRegistrationSecret)
		}),
		invalid("register.no-proof", "neither an invite nor a registration secret is refused", register, fields{"agent_id": l.other, "agent_name": "Conform"}),
		invalid("invite.no-agent", "no agent_id is refused", wire.LonaInvitePath, fields{"agent_name": "Conform"}),
		invalid("invite.agent-id", "an agent_id with other characters is refused", wire.LonaInvitePath, fields{"agent_id": "not an id", "agent_name": "Conform"}),
		invalid("invite.long-agent-id", "an agent_id of 65 characters is refused", wire.LonaInvitePath, fields{"agent_id": strings.Repeat("a", 65), "agent_name": "Conform"}),
		invalid("invite.no-name", "no agent_name is refused", wire.LonaInvitePath, fields{"agent_id": l.other}),
		invalid("invite.long-source", "a source of 65 characters is refused", wire.LonaInvitePath, fields{"agent_id": l.other, "agent_name": "Conform", "source": strings.Repeat("s", 65)}),
		invalid("register.agent-id", "an agent_id with other characters is refused", register, fields{"agent_id": "-x", "agent_name": "Conform", "invite_code": "lona_invite_nobodyhasthisone3"}),
		invalid("register.long-name", "an agent_name of 101 characters is refused", register, fields{"agent_id": l.other, "agent_name": strings.Repeat("n", 101), "invite_code": "lona_invite_nobodyhasthisone3"}),
		invalid("register.no-days", "expires_in_days below 1 is refused", register, fields{"agent_id": l.other, "agent_name": "Conform", "invite_code": "lona_invite_nobodyhasthisone3", "expires_in_days": 0}),
		should("register.short-attempt", "an Idempotency-Key that is too short is refused", Choice, func(ctx context.Context) error {
			return l.refused(l.send(ctx, l.registers(l.other, "lona_invite_nobodyhasthisone3").with(wire.IdempotencyHeader, `"short"`)), http.StatusBadRequest, wire.LonaInvalidRequest)
		}),
	}
}

// partner registers by the registration secret, as a trusted partner does.
func (l *lona) partner(ctx context.Context, agent string, more fields, header ...string) (answer, error) {
	if l.o.LonaSecret == "" {
		return answer{}, skip("it needs a registration secret: set LONA_AGENT_REGISTRATION_SECRET")
	}
	body := fields{"agent_id": agent, "agent_name": "Conform", "source": "enlist-conform"}
	for name, value := range more {
		body[name] = value
	}
	c := post(wire.LonaRegisterPath, text(body)).with(wire.LonaSecretHeader, l.o.LonaSecret).with(header...)
	a := l.send(ctx, c)
	l.took(a)
	return a, nil
}

// days registers for so many days, and judges for how long the token is good.
func (l *lona) days(ctx context.Context, n int, least, most time.Duration) error {
	a, err := l.partner(ctx, l.agent, fields{"expires_in_days": n})
	if err != nil {
		return err
	}
	if err := granted(a); err != nil {
		return err
	}
	var f faults
	l.within(&f, "data.expires_at", a.text("data", "expires_at"), milliTime, least, most)
	return f.err()
}

// partners is what the registration secret is good for.
func (l *lona) partners() []check {
	const day = 24 * time.Hour
	return []check{
		must("secret.issued", "the registration secret registers without an invite", Seed, func(ctx context.Context) error {
			a, err := l.partner(ctx, l.agent, nil)
			if err != nil {
				return err
			}
			return l.issued(a)
		}),
		must("secret.rotates", "registering again ends the token before", Seed, func(ctx context.Context) error {
			a, err := l.partner(ctx, l.agent, nil)
			if err != nil {
				return err
			}
			if err := granted(a); err != nil {
				return err
			}
			if l.old == "" {
				return skip("no token was replaced")
			}
			return l.refused(l.send(ctx, l.uses(l.old, l.agent)), http.StatusUnauthorized, wire.LonaUnauthorized)
		}),
		must("secret.days", "expires_in_days is how long the token lives", Seed, func(ctx context.Context) error { return l.days(ctx, 1, day, day) }),
		should("secret.clamped", "more days than the service allows are as many as it does", Choice, func(ctx context.Context) error {
			return l.days(ctx, 30_000, day, 20_000*day)
		}),
		should("secret.attempt", "the same Idempotency-Key again gets another token, and for another agent_id is refused with 409", Choice, func(ctx context.Context) error {
			key := l.attempt()
			for range 2 {
				a, err := l.partner(ctx, l.agent, nil, wire.IdempotencyHeader, key)
				if err != nil {
					return err
				}
				if err := granted(a); err != nil {
					return err
				}
			}
			a, err := l.partner(ctx, l.other, nil, wire.IdempotencyHeader, key)
			if err != nil {
				return err
			}
			return l.refused(a, http.StatusConflict, wire.LonaKeyReused)
		}),
		should("secret.guesses", "wrong registration secrets are refused with 429 after 10 an hour", Choice, func(ctx context.Context) error {
			return l.exhausts(ctx, 11, wire.LonaRateLimited, func(int) call {
				return l.registers(l.other, "").with(wire.LonaSecretHeader, l.secret("not-the-registration-secret"))
			})
		}),
	}
}

// later is what time brings about.
func (l *lona) later() []check {
	return []check{
		must("invite.expires", "an invite is refused after an hour", Seed, func(ctx context.Context) error {
			if err := l.wait(ctx, time.Hour); err != nil {
				return err
			}
			if err := l.asks(ctx); err != nil {
				return err
			}
			if err := l.wait(ctx, time.Hour); err != nil {
				return err
			}
			return l.refused(l.send(ctx, l.registers(l.agent, l.invite).with(wire.LonaKeyHeader, l.token)), http.StatusUnauthorized, wire.LonaInvalidInvite)
		}),
		must("token.expires", "a token is refused after 30 days", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			if err := l.wait(ctx, 31*24*time.Hour); err != nil {
				return err
			}
			return l.refused(l.send(ctx, l.uses(l.token, l.agent)), http.StatusUnauthorized, wire.LonaUnauthorized)
		}),
	}
}
