package conform

import (
	"context"
	"net/http"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lithtrix is a run at a service that speaks Lithtrix's protocol. It registers
// nine times of the ten that there are in an hour, and the tenth time where an
// operator suspends that agent.
type lithtrix struct {
	*session
	name string
	key  string
	old  string
	made []string // the agents that were registered, by name
}

const lithtrixOwner = "enlist-conform"

func gradeLithtrix(s *session) grader {
	l := &lithtrix{session: s, name: s.name()}
	checks := l.happy()
	checks = append(checks, l.rotations()...)
	checks = append(checks, l.attempts()...)
	checks = append(checks, l.refusals()...)
	good := text(fields{"agent_name": "conform", "owner_identifier": lithtrixOwner})
	checks = append(checks, s.bodies("register", Choice, wire.LithtrixInvalid, func() (call, error) { return l.registers(s.name()), nil },
		strings.Replace(good, `"conform"`, "7", 1))...)
	checks = append(checks,
		s.methods("register", wire.LithtrixRegisterPath, http.MethodGet, http.MethodPost),
		s.methods("rotate", wire.LithtrixRotatePath, http.MethodGet, http.MethodPost),
		s.methods("me", wire.LithtrixMePath, http.MethodDelete, http.MethodGet),
		s.head("me", func() (call, error) { return l.uses(wire.LithtrixMePath, l.key), l.held() }),
		s.nothing("/v1/no-such-route", wire.LithtrixNotFound),
		l.suspended(),
		should("key.limit", "a key is refused with 429 after 60 requests in a minute", Published, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.exhausts(ctx, 61, wire.LithtrixRateLimited, func(int) call { return l.uses(wire.LithtrixMePath, l.key) })
		}),
		should("register.limit", "registrations are refused with 429 after 10 in an hour", Choice, func(ctx context.Context) error {
			return l.exhausts(ctx, 11, wire.LithtrixRateLimited, func(int) call { return l.registers(l.name) })
		}),
	)
	return grader{checks: checks, tidy: l.tidy, code: func(a answer) string {
		if a.text("status") != "error" {
			return ""
		}
		return a.text("error_code")
	}}
}

func (l *lithtrix) tidy(context.Context) []string {
	var left []string
	for _, name := range l.made {
		left = append(left, "the agent "+name+" of the owner "+lithtrixOwner+": its key has no end")
	}
	return left
}

// suspended is the check of an agent that the operator suspends: the tenth, as
// the others' keys are still wanted.
func (l *lithtrix) suspended() check {
	name := l.name + "-suspended"
	return l.suspension(func() string { return name + "/" + lithtrixOwner }, func(ctx context.Context) (call, error) {
		a := l.send(ctx, l.registers(name))
		l.took(name, a)
		return l.uses(wire.LithtrixMePath, l.secret(a.text("api_key"))), granted(a)
	})
}

func (l *lithtrix) held() error {
	if l.key == "" {
		return skip("no agent could be registered")
	}
	return nil
}

func (*lithtrix) registers(name string) call {
	return post(wire.LithtrixRegisterPath, text(fields{"agent_name": name, "owner_identifier": lithtrixOwner}))
}

func bearer(key string) map[string]string {
	if key == "" {
		return nil
	}
	return map[string]string{"Authorization": "Bearer " + key}
}

func (*lithtrix) uses(path, key string) call { return get(path, bearer(key)) }

func rotates(key string) call {
	return call{method: http.MethodPost, path: wire.LithtrixRotatePath, header: bearer(key)}
}

// took remembers the agent that an answer brings, and its key.
func (l *lithtrix) took(name string, a answer) {
	if a.ok() {
		l.made = append(l.made, name)
	}
}

// issued judges an answer that brings a key.
func (l *lithtrix) issued(a answer, status int) error {
	key := a.text("api_key")
	if a.ok() && key != "" {
		l.old, l.key = l.key, key
	}
	if err := granted(a); err != nil {
		return err
	}
	var f faults
	f.unless(a.status == status, "got status %d, want %d", a.status, status)
	shape(&f, "api_key", key, `^ltx_[A-Za-z0-9_-]{16,}$`)
	shape(&f, "agent_id", a.text("agent_id"), `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	return f.err()
}

// works is the check that something is answered with 200, to whoever has the key.
func (l *lithtrix) works(ctx context.Context, path string, key string, wrong func(answer) string) error {
	a := l.send(ctx, l.uses(path, key))
	if err := granted(a); err != nil {
		return err
	}
	var f faults
	f.unless(a.status == http.StatusOK, "got status %d, want 200", a.status)
	if wrong != nil {
		what := wrong(a)
		f.unless(what == "", "%s", what)
	}
	return f.err()
}

// dead is the check that a key is refused.
func (l *lithtrix) dead(ctx context.Context, c call) error {
	return l.refused(l.send(ctx, c), http.StatusUnauthorized, wire.LithtrixInvalidKey)
}

func (l *lithtrix) happy() []check {
	var registered answer
	return []check{
		must("register.issued", "201 with a key, ltx_…, and the agent's id, a UUID", Seed, func(ctx context.Context) error {
			registered = l.send(ctx, l.registers(l.name))
			l.took(l.name, registered)
			return l.issued(registered, http.StatusCreated)
		}),
		should("register.message", "the answer says that the key cannot be retrieved again", Seed, func(context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			var f faults
			f.unless(registered.text("message") == wire.LithtrixKeepKey, "message is %q", short(registered.text("message")))
			return f.err()
		}),
		must("me.ok", "the key says whose it is", Published, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.works(ctx, wire.LithtrixMePath, l.key, func(a answer) string {
				if a.text("agent_name") != l.name || a.text("owner_identifier") != lithtrixOwner ||
					a.text("agent_id") != registered.text("agent_id") || a.text("tier") == "" {
					return "it is not the agent that registered, or says nothing of its tier"
				}
				return ""
			})
		}),
		should("billing.ok", "the key says what was used", Published, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.works(ctx, wire.LithtrixBillingPath, l.key, func(a answer) string {
				if a.text("tier") == "" || a.at("calls_total") == nil || a.at("call_limit") == nil || a.at("over_limit") == nil {
					return "tier, calls_total, call_limit or over_limit is missing"
				}
				return ""
			})
		}),
		should("capabilities.ok", "anybody is told what there is", Published, func(ctx context.Context) error {
			return l.works(ctx, wire.LithtrixCapabilitiesPath, "", func(a answer) string {
				_, endpoints := a.at("endpoints").(fields)
				if a.text("service") == "" || a.text("version") == "" || !endpoints || a.text("rate_limits", "free_tier") == "" {
					return "service, version, endpoints or rate_limits is missing"
				}
				return ""
			})
		}),
		must("register.exists", "the same pair of agent_name and owner_identifier is refused with 409", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.refused(l.send(ctx, l.registers(l.name)), http.StatusConflict, wire.LithtrixAgentExists)
		}),
	}
}

func (l *lithtrix) rotations() []check {
	held := func(f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return f(ctx)
		}
	}
	replaced := func(f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if l.old == "" {
				return skip("no key was replaced")
			}
			return f(ctx)
		}
	}
	return []check{
		must("rotate.issued", "200 with another key", Seed, held(func(ctx context.Context) error {
			return l.issued(l.send(ctx, rotates(l.key)), http.StatusOK)
		})),
		must("rotate.old-ends", "the key before is dead at once", Published, replaced(func(ctx context.Context) error {
			return l.dead(ctx, l.uses(wire.LithtrixMePath, l.old))
		})),
		must("rotate.old-rotates", "the key before cannot be rotated either", Published, replaced(func(ctx context.Context) error {
			a := l.send(ctx, rotates(l.old))
			return l.refused(a, http.StatusUnauthorized, wire.LithtrixInvalidKey)
		})),
		must("rotate.new-works", "the key that came in its place works", Seed, replaced(func(ctx context.Context) error {
			return l.works(ctx, wire.LithtrixMePath, l.key, nil)
		})),
		must("rotate.race", "of several that rotate one key at the same moment one gets another", Choice, held(func(ctx context.Context) error {
			answers := l.race(ctx, 8, func(int) call { return rotates(l.key) })
			for _, a := range answers {
				if key := a.text("api_key"); a.ok() && key != "" {
					l.old, l.key = l.key, key
				}
			}
			return l.one(answers, 1, wire.LithtrixInvalidKey)
		})),
	}
}

// attempts is what an Idempotency-Key is good for.
func (l *lithtrix) attempts() []check {
	name := l.session.name()
	key := l.attempt()
	return []check{
		should("register.attempt", "registering again with the same Idempotency-Key gets the same agent another key, and ends the first", Choice, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			first := l.send(ctx, l.registers(name).with(wire.IdempotencyHeader, key))
			l.took(name, first)
			if err := granted(first); err != nil {
				return err
			}
			again := l.send(ctx, l.registers(name).with(wire.IdempotencyHeader, key))
			if err := granted(again); err != nil {
				return err
			}
			if first.text("agent_id") != again.text("agent_id") {
				return faults{"it is another agent"}.err()
			}
			return l.dead(ctx, l.uses(wire.LithtrixMePath, first.text("api_key")))
		}),
		should("register.attempt-reused", "the same Idempotency-Key for another agent is refused with 409", Choice, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			a := l.send(ctx, l.registers(l.name).with(wire.IdempotencyHeader, key))
			return l.refused(a, http.StatusConflict, wire.LithtrixKeyReused)
		}),
		should("register.short-attempt", "an Idempotency-Key that is too short is refused", Choice, func(ctx context.Context) error {
			a := l.send(ctx, l.registers(l.session.name()).with(wire.IdempotencyHeader, `"short"`))
			return l.refused(a, http.StatusBadRequest, wire.LithtrixInvalid)
		}),
		should("rotate.attempt", "rotating again with the same Idempotency-Key and the key that ended gets another", Choice, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			attempt, before := l.attempt(), l.key
			for range 2 {
				if err := l.issued(l.send(ctx, rotates(before).with(wire.IdempotencyHeader, attempt)), http.StatusOK); err != nil {
					return err
				}
			}
			return l.dead(ctx, l.uses(wire.LithtrixMePath, l.old))
		}),
		must("register.race", "of several that register one pair at the same moment one is registered", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			racer := l.session.name()
			answers := l.race(ctx, 4, func(int) call { return l.registers(racer) })
			for _, a := range answers {
				l.took(racer, a)
			}
			return l.one(answers, 1, wire.LithtrixAgentExists)
		}),
	}
}

func (l *lithtrix) refusals() []check {
	invalid := func(id, expect string, source Source, body fields) check {
		return must(id, expect, source, func(ctx context.Context) error {
			return l.refused(l.send(ctx, post(wire.LithtrixRegisterPath, text(body))), http.StatusBadRequest, wire.LithtrixInvalid)
		})
	}
	unauthorized := func(id, expect string, c func() call) check {
		return must(id, expect, Published, func(ctx context.Context) error { return l.dead(ctx, c()) })
	}
	nobody := l.secret(wire.FormatLithtrixKey(strings.Repeat("nobodyhasthis", 4)))
	return []check{
		invalid("register.no-name", "no agent_name is refused", Choice, fields{"owner_identifier": lithtrixOwner}),
		invalid("register.name", "an agent_name with other characters is refused", Seed, fields{"agent_name": "not a name", "owner_identifier": lithtrixOwner}),
		invalid("register.long-name", "an agent_name of 101 characters is refused", Seed, fields{"agent_name": strings.Repeat("n", 101), "owner_identifier": lithtrixOwner}),
		invalid("register.no-owner", "no owner_identifier is refused", Seed, fields{"agent_name": l.name}),
		invalid("register.long-owner", "an owner_identifier of 256 characters is refused", Seed, fields{"agent_name": l.name, "owner_identifier": strings.Repeat("o", 256)}),
		unauthorized("me.no-key", "a request without a key is refused", func() call { return l.uses(wire.LithtrixMePath, "") }),
		unauthorized("me.unknown-key", "a key that nobody has is refused", func() call { return l.uses(wire.LithtrixMePath, nobody) }),
		unauthorized("me.basic", "a key that is no bearer token is refused", func() call {
			return get(wire.LithtrixMePath, map[string]string{"Authorization": "Basic " + l.key})
		}),
		unauthorized("me.in-url", "a key in the URL counts for nothing", func() call { return get(wire.LithtrixMePath+"?api_key="+l.key, nil) }),
		unauthorized("billing.no-key", "a request without a key is refused", func() call { return l.uses(wire.LithtrixBillingPath, "") }),
		unauthorized("rotate.no-key", "a rotation without a key is refused", func() call { return rotates("") }),
		unauthorized("rotate.unknown-key", "a rotation of a key that nobody has is refused", func() call { return rotates(nobody) }),
		should("me.scheme", "the scheme in Authorization is compared without case", Choice, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return granted(l.send(ctx, get(wire.LithtrixMePath, map[string]string{"Authorization": "bearer " + l.key})))
		}),
	}
}
