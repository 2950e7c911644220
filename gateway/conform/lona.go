package conform

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lona is a run at a service that speaks Lona's protocol. It asks for three
// invites, which is all that there are in an hour.
type lona struct {
	*session
	agent, other string
	invite       string // not used
	used         string // was
	token, old   string
	invited      answer
	registered   answer
	closed       string // why there are no invites
}

func gradeLona(s *session) grader {
	l := &lona{session: s, agent: s.name(), other: s.name()}
	checks := append(append(l.happy(), l.spending()...), l.limits()...)
	checks = append(checks, l.refusals()...)
	checks = append(checks, l.partners()...)
	checks = append(checks, s.bodies("invite", Choice, wire.LonaInvalidRequest, fixed(post(wire.LonaInvitePath, text(fields{"agent_id": l.other, "agent_name": "Conform"}))),
		text(fields{"agent_id": 7, "agent_name": "Conform"}))...)
	checks = append(checks, s.bodies("register", Choice, wire.LonaInvalidRequest, fixed(l.registers(l.other, s.secret(wire.FormatLonaInvite("nobodyhasthisone1")))),
		text(fields{"agent_id": l.other, "agent_name": "Conform", "invite_code": 7}))...)
	checks = append(checks,
		s.methods("invite", wire.LonaInvitePath, http.MethodGet, http.MethodPost),
		s.methods("register", wire.LonaRegisterPath, http.MethodDelete, http.MethodPost),
		s.methods("use", wire.LonaStrategiesPath, http.MethodPost, http.MethodGet),
		s.head("use", func() (call, error) { return l.uses(l.token, l.agent), l.held() }),
		s.nothing("/api/v1/agents/no-such-route", wire.LonaNotFound),
	)
	checks = append(checks, l.later()...)
	checks = append(checks, s.suspension(func() string { return l.agent }, l.fresh))
	for i, c := range checks {
		if strings.HasPrefix(c.ID, "invite.") {
			checks[i].run = l.open(c.run)
		}
	}
	return grader{checks: checks, tidy: l.tidy, code: func(a answer) string { return a.text("error", "code") }}
}

// open is a check of what there is only where invites are not switched off: that
// is judged before anything else.
func (l *lona) open(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if l.closed != "" {
			return skip("%s", l.closed)
		}
		return run(ctx)
	}
}

func (l *lona) tidy(context.Context) []string {
	if l.token == "" {
		return nil
	}
	return []string{"the agent " + l.agent + ": its token ends when it expires"}
}

// held is why there is no token.
func (l *lona) held() error {
	if l.token == "" {
		return skip("no agent could be registered")
	}
	return nil
}

// fresh is a request with a token that has not expired. One that has is replaced
// where that takes no invite.
func (l *lona) fresh(ctx context.Context) (call, error) {
	if err := l.held(); err != nil {
		return call{}, err
	}
	if c := l.uses(l.token, l.agent); l.o.LonaSecret == "" || l.send(ctx, c).status != http.StatusUnauthorized {
		return c, nil
	}
	a, err := l.partner(ctx, l.agent, nil)
	if err == nil {
		l.took(a)
	}
	return l.uses(l.token, l.agent), err
}

func (*lona) uses(token, user string) call {
	return get(wire.LonaStrategiesPath, map[string]string{wire.LonaKeyHeader: token, wire.LonaUserHeader: user})
}

func (*lona) registers(agent, invite string) call {
	return post(wire.LonaRegisterPath, text(fields{"agent_id": agent, "agent_name": "Conform", "invite_code": invite, "source": "enlist-conform"}))
}

// asks asks for an invite for the agent.
func (l *lona) asks(ctx context.Context) error {
	if l.closed != "" {
		return skip("%s", l.closed)
	}
	a := l.send(ctx, post(wire.LonaInvitePath, text(fields{"agent_id": l.agent, "agent_name": "Conform", "source": "enlist-conform"})))
	if a.status == http.StatusForbidden && l.code(a) == wire.LonaInvitesDisabled {
		l.closed = "invites are switched off: with LONA_AGENT_REGISTRATION_SECRET the other way is graded"
		return skip("%s", l.closed)
	}
	l.invited, l.invite = a, a.text("data", "invite_code")
	return granted(a)
}

// took remembers the token that an answer brings.
func (l *lona) took(a answer) {
	if token := a.text("data", "token"); a.ok() && token != "" && token != l.token {
		l.old, l.token, l.registered = l.token, token, a
	}
}

// issued judges the answer to a registration.
func (l *lona) issued(a answer) error {
	l.took(a)
	if err := granted(a); err != nil {
		return err
	}
	var f faults
	token := a.text("data", "token")
	form := "^lona_partner_" + regexp.QuoteMeta(l.agent) + "_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{16,}$"
	shape(&f, "data.token", token, form)
	f.unless(a.text("data", "partner_id") == l.agent, "data.partner_id is not the agent_id")
	f.unless(a.text("data", "partner_name") == "Conform", "data.partner_name is not the agent_name")
	_, list := a.at("data", "permissions").([]any)
	f.unless(list, "data.permissions is no list")
	l.within(&f, "data.expires_at", a.text("data", "expires_at"), milliTime, 0, 30*24*time.Hour)
	return f.err()
}

// happy is how an agent registers by invite, and uses its token.
func (l *lona) happy() []check {
	return []check{
		must("invite.issued", "an invite: lona_invite_…, good for an hour", Seed, func(ctx context.Context) error {
			if err := l.asks(ctx); err != nil {
				return err
			}
			var f faults
			shape(&f, "data.invite_code", l.invite, `^lona_invite_[A-Za-z0-9_-]{16,}$`)
			l.within(&f, "data.expires_at", l.invited.text("data", "expires_at"), milliTime, 0, time.Hour)
			return f.err()
		}),
		should("invite.created", "an invite is answered with 201", Choice, func(context.Context) error {
			return status(l.invited, http.StatusCreated)
		}),
		must("invite.bound", "an invite is good for the agent_id that asked, and no other", Choice, func(ctx context.Context) error {
			if l.invite == "" {
				return skip("there is no invite")
			}
			return l.refused(l.send(ctx, l.registers(l.other, l.invite)), http.StatusUnauthorized, wire.LonaInvalidInvite)
		}),
		must("register.issued", "a token: lona_partner_<agent_id>_<12 characters>_<secret>, for at most 30 days", Seed, func(ctx context.Context) error {
			if l.invite == "" {
				return skip("there is no invite")
			}
			a := l.send(ctx, l.registers(l.agent, l.invite))
			l.used, l.invite = l.invite, ""
			return l.issued(a)
		}),
		should("register.created", "a registration is answered with 201", Choice, func(context.Context) error {
			return status(l.registered, http.StatusCreated)
		}),
		must("use.ok", "the token, with X-User-Id, lists the strategies", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			a := l.send(ctx, l.uses(l.token, l.agent))
			if err := granted(a); err != nil {
				return err
			}
			var f faults
			_, list := a.at("data").([]any)
			f.unless(a.status == http.StatusOK && list, "got status %d, want 200 and a list in data", a.status)
			return f.err()
		}),
	}
}

// spending is what an invite is good for beyond that, and how often.
func (l *lona) spending() []check {
	return []check{
		must("invite.single-use", "an invite that was used is refused", Seed, func(ctx context.Context) error {
			if l.used == "" || l.token == "" {
				return skip("no invite was used")
			}
			return l.refused(l.send(ctx, l.registers(l.agent, l.used).with(wire.LonaKeyHeader, l.token)), http.StatusUnauthorized, wire.LonaInvalidInvite)
		}),
		must("invite.race", "of many that bring one invite at the same moment one is registered", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			if err := l.asks(ctx); err != nil {
				return err
			}
			answers := l.race(ctx, maxRace, func(int) call { return l.registers(l.agent, l.invite).with(wire.LonaKeyHeader, l.token) })
			for _, a := range answers {
				l.took(a)
			}
			return l.one(answers, 1, wire.LonaInvalidInvite, wire.LonaAgentExists)
		}),
		must("rotate.old-ends", "registering again ends the token before", Seed, func(ctx context.Context) error {
			if l.old == "" {
				return skip("no token was replaced")
			}
			return l.refused(l.send(ctx, l.uses(l.old, l.agent)), http.StatusUnauthorized, wire.LonaUnauthorized)
		}),
		must("rotate.new-works", "the token that came in its place works", Seed, func(ctx context.Context) error {
			if l.old == "" {
				return skip("no token was replaced")
			}
			return granted(l.send(ctx, l.uses(l.token, l.agent)))
		}),
		should("register.again", "an invite for an agent_id that is taken replaces its token, or is refused with 409 and stays good", Choice, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			if err := l.asks(ctx); err != nil {
				return err
			}
			a := l.send(ctx, l.registers(l.agent, l.invite))
			if a.ok() {
				l.took(a)
				return nil
			}
			if err := l.refused(a, http.StatusConflict, wire.LonaAgentExists); err != nil {
				return err
			}
			a = l.send(ctx, l.registers(l.agent, l.invite).with(wire.LonaKeyHeader, l.token))
			l.took(a)
			return granted(a)
		}),
	}
}

// limits is how many invites there are.
func (l *lona) limits() []check {
	return []check{
		must("invite.limit", "a fourth invite within the hour is refused with 429", Seed, func(ctx context.Context) error {
			if l.invited.status == 0 || l.invited.err != nil {
				return skip("there are no invites")
			}
			fourth := post(wire.LonaInvitePath, text(fields{"agent_id": l.other, "agent_name": "Conform"}))
			for range 3 { // those before came from other addresses
				if l.o.SpreadAddresses {
					l.send(ctx, fourth)
				}
			}
			a := l.send(ctx, fourth)
			return l.refused(a, http.StatusTooManyRequests, wire.LonaRateLimited)
		}),
	}
}
