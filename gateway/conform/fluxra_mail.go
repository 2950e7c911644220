package conform

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// links is what can be asked about links without a mailbox.
func (f *fluxra) links() []check {
	nobody := func() string { return f.secret(wire.FormatFluxraMailToken(strings.Repeat("nobodyhasthis", 4))) }
	return []check{
		must("verify.unknown", "a token that nobody has is refused", Seed, func(ctx context.Context) error {
			a := f.send(ctx, post(wire.FluxraVerifyEmailPath, text(fields{"token": nobody()})))
			return f.refused(a, http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
		must("verify.unknown-link", "a link with a token that nobody has is refused", Seed, func(ctx context.Context) error {
			a := f.send(ctx, get(wire.FluxraVerifyEmailPath+"?token="+nobody(), nil))
			return f.refused(a, http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
		must("verify.no-token", "a link without a token is refused", Seed, func(ctx context.Context) error {
			return f.refused(f.send(ctx, get(wire.FluxraVerifyEmailPath, nil)), http.StatusBadRequest, wire.FluxraInvalidRequest)
		}),
		should("verify.page", "who opens a link in a browser is shown a page", Seed, func(ctx context.Context) error {
			c := get(wire.FluxraVerifyEmailPath+"?token="+nobody(), map[string]string{"Accept": "text/html"})
			c.page = true
			a := f.send(ctx, c)
			if a.err != nil {
				return a.err
			}
			var w faults
			w.unless(a.status == http.StatusUnauthorized, "got status %d, want 401", a.status)
			w.unless(strings.HasPrefix(a.header.Get("Content-Type"), "text/html"), "the answer is %q", a.header.Get("Content-Type"))
			return w.err()
		}),
	}
}

// asking is what can be asked for without a mailbox.
func (f *fluxra) asking() []check {
	email := func(path, address string) call { return post(path, text(fields{"email": address})) }
	invalid := func(id, expect, path, code string, body fields) check {
		return must(id, expect, Published, func(ctx context.Context) error {
			return f.refused(f.send(ctx, post(path, text(body))), http.StatusBadRequest, code)
		})
	}
	return []check{
		must("resend.unknown", "a letter for an email that nobody has is asked for with success", Seed, func(ctx context.Context) error {
			a := f.send(ctx, email(wire.FluxraResendPath, f.stranger))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			w.unless(a.status == http.StatusOK && a.text("message") != "", "got status %d, or message is missing", a.status)
			return w.err()
		}),
		must("recovery.unknown", "a code for an email that nobody has is asked for with success, and no agent_id", Seed, func(ctx context.Context) error {
			a := f.send(ctx, email(wire.FluxraRecoveryRequestPath, f.stranger))
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			w.unless(a.status == http.StatusOK && a.at("agent_id") == "" && a.text("email") == f.stranger && a.text("message") != "", "got status %d, or agent_id, email or message are not as they should be", a.status)
			f.within(&w, "code_expires_at", a.text("code_expires_at"), secondTime, 15*time.Minute, 15*time.Minute)
			for _, name := range []string{
				wire.FluxraIPLimit, wire.FluxraIPRemaining, wire.FluxraIPReset, wire.FluxraEmailLimit, wire.FluxraEmailRemaining, wire.FluxraEmailReset,
			} {
				w.unless(regexp.MustCompile(`^\d+$`).MatchString(a.header.Get(name)), "%s is %q", name, short(a.header.Get(name)))
			}
			return w.err()
		}),
		must("recover.wrong-code", "a code that is wrong is refused", Choice, func(ctx context.Context) error {
			a := f.send(ctx, f.recovers(f.stranger, "000000"))
			return f.refused(a, http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
		invalid("recover.no-code", "what is no code is refused", wire.FluxraRecoveryVerifyPath, wire.FluxraInvalidRequest, fields{"email": f.stranger, "code": "12"}),
		invalid("resend.email", "what is no email is refused", wire.FluxraResendPath, wire.FluxraInvalidEmail, fields{"email": "nobody"}),
		invalid("resend.no-email", "no email is refused", wire.FluxraResendPath, wire.FluxraInvalidRequest, fields{}),
		invalid("recovery.email", "what is no email is refused", wire.FluxraRecoveryRequestPath, wire.FluxraInvalidEmail, fields{"email": "nobody"}),
		invalid("recovery.no-email", "no email is refused", wire.FluxraRecoveryRequestPath, wire.FluxraInvalidRequest, fields{}),
	}
}

func (*fluxra) recovers(email, code string) call {
	return post(wire.FluxraRecoveryVerifyPath, text(fields{"email": email, "code": code}))
}

// letter returns what a pattern finds in the letters that came since the last
// one that was read.
func (f *fluxra) letter(ctx context.Context, pattern string) (string, error) {
	if f.o.Mail == nil {
		return "", skip("it needs a mailbox: --admin names the listener that shows the outbox")
	}
	letters, err := f.o.Mail(ctx, f.email)
	if err != nil {
		return "", skip("the mailbox cannot be read: %v", err)
	}
	for _, l := range slices.Backward(letters) {
		found := regexp.MustCompile(pattern).FindStringSubmatch(l)
		if found == nil || slices.Contains(f.letters, l) {
			continue
		}
		f.letters = append(f.letters, l)
		return f.secret(found[1]), nil
	}
	return "", faults{"no letter has come, or not what it is about"}.err()
}

const (
	linkForm = `\b(evt_[A-Za-z0-9_-]{16,})`
	codeForm = `(?m)^\s*(\d{6})\s*$`
)

// step is a check that takes a mailbox.
func (f *fluxra) step(id, expect string, run func(ctx context.Context) error) check {
	return must(id, expect, Seed, func(ctx context.Context) error {
		if f.o.Mail == nil {
			return skip("it needs a mailbox: --admin names the listener that shows the outbox")
		}
		return run(ctx)
	})
}

func verifies(token string) call {
	return post(wire.FluxraVerifyEmailPath, text(fields{"token": token}))
}

// verifying is how an email is verified.
func (f *fluxra) verifying() []check {
	return []check{
		f.step("mail.registered", "a registration with an email says whether a letter was sent, and how long its link is good", func(ctx context.Context) error {
			a := f.send(ctx, f.registers(f.name, fields{"email": f.email}))
			f.lettered = enrolled(a)
			if err := granted(a); err != nil {
				return err
			}
			var w faults
			_, said := a.at("email_verification_sent").(bool)
			w.unless(said, "email_verification_sent is missing")
			f.within(&w, "email_verification_expires_at", a.text("email_verification_expires_at"), secondTime, time.Hour, time.Hour)
			return w.err()
		}),
		f.step("verify.race", "of several that bring the letter's token at the same moment one verifies the email", func(ctx context.Context) (err error) {
			if f.evt, err = f.letter(ctx, linkForm); err != nil {
				return err
			}
			answers := f.race(ctx, 8, func(int) call { return verifies(f.evt) })
			for _, a := range answers {
				if a.ok() {
					f.verified = a.text("agent_id") == f.lettered.id && a.at("email_verified") == true
				}
			}
			return f.one(answers, 1, wire.FluxraInvalidToken)
		}),
		f.step("verify.ok", "the answer says which agent the email is verified for", func(context.Context) error {
			if f.evt == "" {
				return skip("there is no token")
			}
			var w faults
			w.unless(f.verified, "agent_id is another, or email_verified is not true")
			return w.err()
		}),
		f.step("verify.single-use", "a token that was used is refused", func(ctx context.Context) error {
			if f.evt == "" {
				return skip("there is no token")
			}
			return f.refused(f.send(ctx, verifies(f.evt)), http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
	}
}

// recovering is how an account is recovered.
func (f *fluxra) recovering() []check {
	return []check{
		f.step("resend.silent", "who asks for a letter learns nothing of the email", func(ctx context.Context) error {
			return f.alike(ctx, wire.FluxraResendPath)
		}),
		f.step("recovery.silent", "who asks for a code learns nothing of the email", func(ctx context.Context) error {
			return f.alike(ctx, wire.FluxraRecoveryRequestPath)
		}),
		f.step("recover.race", "of several that bring the letter's code at the same moment one gets another recovery key, and the others 409", func(ctx context.Context) (err error) {
			if f.code, err = f.letter(ctx, codeForm); err != nil {
				return err
			}
			old := f.lettered
			answers := f.race(ctx, 8, func(int) call { return f.recovers(f.email, f.code) })
			for _, a := range answers {
				if a.ok() && a.text("recovery_key") != "" {
					f.lettered.recovery = a.text("recovery_key")
				}
			}
			if err := f.one(answers, 1, wire.FluxraCodeUsed); err != nil {
				return err
			}
			return f.refused(f.send(ctx, f.makesKey(old, fields{"name": "x"})), http.StatusUnauthorized, wire.FluxraUnauthorized)
		}),
		f.step("recover.used", "a code that was used is refused with 409", func(ctx context.Context) error {
			if f.code == "" {
				return skip("there is no code")
			}
			return f.refused(f.send(ctx, f.recovers(f.email, f.code)), http.StatusConflict, wire.FluxraCodeUsed)
		}),
		f.step("recover.works", "the recovery key that came in its place works", func(ctx context.Context) error {
			if f.code == "" {
				return skip("there is no code")
			}
			f.equip(ctx, &f.lettered)
			var w faults
			w.unless(f.lettered.token != "", "it makes no API key that is good for an access token")
			return w.err()
		}),
	}
}

// late is what comes too late.
func (f *fluxra) late() []check {
	return []check{
		f.step("recover.expired", "a code is refused after 15 minutes", func(ctx context.Context) error {
			if err := f.wait(ctx, time.Hour); err != nil {
				return err
			}
			a := f.send(ctx, post(wire.FluxraRecoveryRequestPath, text(fields{"email": f.email})))
			if err := granted(a); err != nil {
				return err
			}
			code, err := f.letter(ctx, codeForm)
			if err != nil {
				return err
			}
			if err := f.wait(ctx, 16*time.Minute); err != nil {
				return err
			}
			return f.refused(f.send(ctx, f.recovers(f.email, code)), http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
		f.step("verify.expired", "a token is refused after an hour", func(ctx context.Context) error {
			f.email = "later-" + f.email
			if err := granted(f.send(ctx, f.registers(f.name, fields{"email": f.email}))); err != nil {
				return err
			}
			late, err := f.letter(ctx, linkForm)
			if err != nil {
				return err
			}
			if err := f.wait(ctx, time.Hour+time.Minute); err != nil {
				return err
			}
			return f.refused(f.send(ctx, verifies(late)), http.StatusUnauthorized, wire.FluxraInvalidToken)
		}),
	}
}

// alike asks for mail to an email that is registered and to one that is not, and
// compares what is said.
func (f *fluxra) alike(ctx context.Context, path string) error {
	if f.lettered.id == "" {
		return skip("no agent was registered with an email")
	}
	known := f.send(ctx, post(path, text(fields{"email": f.email})))
	if err := granted(known); err != nil {
		return err
	}
	other := strings.Replace(f.email, "conform-", "nobodys-", 1)
	unknown := f.send(ctx, post(path, text(fields{"email": other})))
	if err := granted(unknown); err != nil {
		return err
	}
	var w faults
	w.unless(known.status == unknown.status, "it answers with %d and %d", known.status, unknown.status)
	said := func(a answer, email string) string {
		body := strings.ReplaceAll(string(a.body), email, "EMAIL")
		return regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z`).ReplaceAllString(body, "TIME")
	}
	w.unless(said(known, f.email) == said(unknown, other), "the two answers are not the same")
	return w.err()
}

// limits is what is refused when it was too much.
func (f *fluxra) limits() []check {
	return []check{
		should("token.limit", "access tokens are refused with 429 after 60 in a minute", Choice, func(ctx context.Context) error {
			if f.other.key == "" {
				return skip("there is no API key")
			}
			return f.exhausts(ctx, 61, wire.FluxraRateLimited, func(int) call { return f.exchanges(f.other.id, f.other.key) })
		}),
		should("resend.limit", "letters to one email are refused with 429 after three in an hour", Choice, func(ctx context.Context) error {
			return f.exhausts(ctx, 4, wire.FluxraRateLimited, func(int) call {
				return post(wire.FluxraResendPath, text(fields{"email": f.email}))
			})
		}),
		should("recovery.limit", "codes for one email are refused with 429 after three in an hour", Choice, func(ctx context.Context) error {
			return f.exhausts(ctx, 4, wire.FluxraRateLimited, func(int) call {
				return post(wire.FluxraRecoveryRequestPath, text(fields{"email": f.email}))
			})
		}),
		should("register.limit", "registrations are refused with 429 after 10 in an hour", Choice, func(ctx context.Context) error {
			return f.exhausts(ctx, 11, wire.FluxraRateLimited, func(int) call { return f.registers(f.name, nil) })
		}),
	}
}
