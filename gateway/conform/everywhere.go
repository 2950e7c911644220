package conform

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// maxPointed is how many of the answers that are wrong are shown.
const maxPointed = 3

// bigBody is more than the 64 KiB that a body may have.
const bigBody = 70_000

// bodies are the checks of a route that takes a JSON object. c makes a request
// that is otherwise in order; wrong is a body of which one member has a wrong
// type; code is what the protocol says of a body that is wrong, and source who
// says that it does.
func (s *session) bodies(id string, source Source, code string, c func() (call, error), wrong string) []check {
	refuses := func(change func(call) call, status int) func(context.Context) error {
		return func(ctx context.Context) error {
			good, err := c()
			if err != nil {
				return err
			}
			return s.refused(s.send(ctx, change(good)), status, code)
		}
	}
	body := func(text string) func(call) call {
		return func(c call) call { c.body = text; return c }
	}
	edit := func(f func(string) string) func(call) call {
		return func(c call) call { c.body = f(c.body); return c }
	}
	typed := func(name string) func(call) call {
		return func(c call) call { return c.with("Content-Type", name) }
	}
	const bad, large, media = http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType
	return []check{
		must(id+".not-json", "a body that is not JSON is refused with 400", source, refuses(body(`{"agent`), bad)),
		must(id+".wrong-type", "a member of the wrong type is refused with 400", source, refuses(body(wrong), bad)),
		must(id+".array", "a body that is no object is refused with 400", source, refuses(body(`[]`), bad)),
		should(id+".duplicate", "a name twice in one object is refused with 400", Choice, refuses(edit(func(text string) string {
			return strings.TrimSuffix(text, "}") + `,"x_twice":1,"x_twice":2}`
		}), bad)),
		should(id+".trailing", "what comes behind the object is refused with 400", Choice, refuses(edit(func(text string) string { return text + " {}" }), bad)),
		should(id+".utf8", "invalid UTF-8 is refused with 400", Choice, refuses(edit(func(text string) string {
			return strings.TrimSuffix(text, "}") + ",\"x_note\":\"\xff\xfe\"}"
		}), bad)),
		should(id+".too-large", "a body over 64 KiB is refused with 413", Choice, refuses(edit(func(text string) string {
			return text + strings.Repeat(" ", bigBody)
		}), large)),
		should(id+".text", "a body that does not say it is JSON is refused with 415", Choice, refuses(typed("text/plain"), media)),
		should(id+".untyped", "a body without a Content-Type is refused with 415", Choice, refuses(typed(""), media)),
	}
}

// fixed is a request that does not depend on what was issued.
func fixed(c call) func() (call, error) { return func() (call, error) { return c, nil } }

// methods is the check of a path's methods.
func (s *session) methods(id, path, wrong string, allowed ...string) check {
	return should(id+".methods", fmt.Sprintf("%s %s is refused with 405, and Allow names %s", wrong, path, strings.Join(allowed, " and ")), Choice,
		func(ctx context.Context) error {
			a := s.send(ctx, call{method: wrong, path: path})
			if a.err != nil {
				return a.err
			}
			var f faults
			f.unless(a.status == http.StatusMethodNotAllowed, "got status %d, want 405", a.status)
			f.unless(a.json(), "the answer is not JSON, or does not say that it is")
			for _, method := range allowed {
				f.unless(strings.Contains(a.header.Get("Allow"), method), "Allow is %q, without %s", a.header.Get("Allow"), method)
			}
			return f.err()
		})
}

// nothing is the check of a path below the protocol's own where there is nothing.
func (s *session) nothing(path, code string) check {
	return should("unknown.path", "a path that is none is refused with 404 in the protocol's words", Choice, func(ctx context.Context) error {
		return s.refused(s.send(ctx, get(path, nil)), http.StatusNotFound, code)
	})
}

// head is the check that HEAD is answered as GET is.
func (s *session) head(id string, c func() (call, error)) check {
	return should(id+".head", "HEAD is answered as GET is, without a body", Choice, func(ctx context.Context) error {
		with, err := c()
		if err != nil {
			return err
		}
		with.method = http.MethodHead
		a := s.send(ctx, with)
		if a.err != nil {
			return a.err
		}
		if err := a.met(); err != nil {
			return err
		}
		return status(a, http.StatusOK)
	})
}

// everywhere are the checks of everything that was answered.
func (s *session) everywhere() []check {
	return []check{
		must("all.answered", "every request is answered, and never with a status of 500 or above", Choice, s.over(func(a answer) string {
			switch {
			case a.err != nil:
				return a.err.Error()
			case a.status >= 500:
				return fmt.Sprintf("got status %d", a.status)
			}
			return ""
		})),
		must("all.json", "every answer with a body is JSON and says so, and none is a page", Choice, s.over(func(a answer) string {
			if a.err != nil || len(a.body) == 0 || a.json() || a.call.page {
				return ""
			}
			return fmt.Sprintf("an answer is %q", short(a.header.Get("Content-Type")))
		})),
		must("secrets.once", "no answer repeats a secret: neither one that was issued nor one that was sent", Choice, s.over(func(a answer) string {
			if !a.spoken {
				return ""
			}
			return "an answer holds a secret of an earlier one, or that was sent to it"
		})),
		must("secrets.not-by-get", "what only reads answers with no secret", Choice, s.over(func(a answer) string {
			if !a.issues || a.call.method != http.MethodGet && a.status/100 == 2 {
				return ""
			}
			return "an answer that issues nothing holds what looks like a secret"
		})),
		should("secrets.no-store", "an answer with a secret has Cache-Control: no-store", Choice, s.over(func(a answer) string {
			if !a.issues || strings.Contains(strings.ToLower(a.header.Get("Cache-Control")), "no-store") {
				return ""
			}
			return "an answer with a secret may be kept by a cache"
		})),
		must("limits.retry-after", "a 429 has a Retry-After in whole seconds", Choice, func(ctx context.Context) error {
			met := false
			if err := s.over(func(a answer) string {
				if a.status != http.StatusTooManyRequests {
					return ""
				}
				met = true
				if err := waits(a); err != nil {
					return err.Error()
				}
				return ""
			})(ctx); err != nil || met {
				return err
			}
			return skip("no limit was met: --exhaust-limits meets them")
		}),
	}
}

// over judges every answer of the run. The evidence is the answers that are wrong.
func (s *session) over(wrong func(answer) string) func(context.Context) error {
	return func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		var first string
		n := 0
		for _, a := range s.all {
			if what := wrong(a); what != "" {
				if n++; n <= maxPointed {
					s.pointed = append(s.pointed, a)
				}
				if first == "" {
					first = what
				}
			}
		}
		if first == "" {
			return nil
		}
		return fmt.Errorf("%d of %d answers: %s", n, len(s.all), first)
	}
}

// challenged is the check that a 401 to what brings a credential in Authorization
// says how to authenticate (RFC 9110, section 15.5.2).
func (s *session) challenged(brings func(call) bool) check {
	return should("all.challenge", "a 401 has a WWW-Authenticate", Choice, s.over(func(a answer) string {
		if a.status != http.StatusUnauthorized || !brings(a.call) || a.header.Get("WWW-Authenticate") != "" {
			return ""
		}
		return "a 401 does not say how to authenticate"
	}))
}

// exhausts repeats a request until a limit is met, at most so often. It is asked
// for, because of what it costs.
func (s *session) exhausts(ctx context.Context, most int, code string, c func(i int) call) error {
	if !s.o.Exhaust {
		return skip("it uses a limit up: --exhaust-limits does so")
	}
	for i := range most {
		a := s.send(ctx, c(i))
		if a.err != nil {
			return a.err
		}
		if a.status == http.StatusTooManyRequests {
			var f faults
			if err := s.refused(a, http.StatusTooManyRequests, code); err != nil {
				f = append(f, err.Error())
			}
			if err := waits(a); err != nil {
				f = append(f, err.Error())
			}
			return f.err()
		}
	}
	return fmt.Errorf("%d requests met no limit", most)
}

// shape is a secret that must look as the protocol's do.
func shape(f *faults, name, value string, pattern string) {
	f.unless(wire.NewPattern(pattern).MatchString(value), "%s does not have the form %s", name, pattern)
}
