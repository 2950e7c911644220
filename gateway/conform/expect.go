package conform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// answer is what a service answered.
type answer struct {
	call   call
	err    error // there is none, or not all of it
	status int
	header http.Header
	body   []byte
	issues bool // it holds a secret that was not seen before
	spoken bool // it holds one that was
}

// fields are the members of a JSON object.
type fields = map[string]any

// text returns JSON of fields.
func text(f fields) string {
	raw, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings, numbers and lists of them only
	}
	return string(raw)
}

// at returns the value at a path of names in the body, or nil.
func (a answer) at(names ...string) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	for _, name := range names {
		f, _ := v.(fields)
		v = f[name]
	}
	return v
}

// text returns the string at a path of names in the body, or "".
func (a answer) text(names ...string) string {
	value, _ := a.at(names...).(string)
	return value
}

func (a answer) ok() bool { return a.err == nil && a.status/100 == 2 }

// json reports whether the answer is JSON and says so.
func (a answer) json() bool {
	name, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	return err == nil && (name == "application/json" || strings.HasSuffix(name, "+json")) && json.Valid(a.body)
}

// met says that an answer is a limit's and no other, which does not tell whether
// the service does what it should.
func (a answer) met() error {
	if a.status != http.StatusTooManyRequests {
		return nil
	}
	if seconds := a.header.Get("Retry-After"); seconds != "" {
		return skip("the service's limit was met; it asks to try again in %s seconds", regexp.MustCompile(`[^0-9]`).ReplaceAllString(short(seconds), ""))
	}
	return skip("the service's limit was met, and it does not say for how long")
}

// faults collects what is wrong with an answer.
type faults []string

// unless notes a fault, unless it is none.
func (f *faults) unless(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return errors.New(strings.Join(f, "; "))
}

// refused expects a refusal in the protocol's words. A code of "" may be any.
func (s *session) refused(a answer, status int, codes ...string) error {
	if a.err != nil {
		return a.err
	}
	if status != http.StatusTooManyRequests {
		if err := a.met(); err != nil {
			return err
		}
	}
	var f faults
	f.unless(a.status == status, "got status %d, want %d", a.status, status)
	f.unless(a.json(), "the answer is not JSON, or does not say that it is")
	got, known := s.code(a), false
	for _, code := range codes {
		known = known || got == code
	}
	f.unless(known, "got the code %q, want %s", short(got), strings.Join(codes, " or "))
	return f.err()
}

// granted expects an answer that is no refusal, in JSON.
func granted(a answer) error {
	if a.err != nil {
		return a.err
	}
	if err := a.met(); err != nil {
		return err
	}
	var f faults
	f.unless(a.ok(), "got status %d, want one of success", a.status)
	f.unless(a.json(), "the answer is not JSON, or does not say that it is")
	return f.err()
}

// status expects an answer that was seen before to have a status.
func status(a answer, want int) error {
	if a.status == 0 {
		return skip("there was no such answer")
	}
	if err := a.met(); err != nil {
		return err
	}
	if a.status != want {
		return fmt.Errorf("got status %d, want %d", a.status, want)
	}
	return nil
}

// one expects that of several requests at the same moment one was granted, and
// the others refused with one of the codes.
func (s *session) one(answers []answer, want int, codes ...string) error {
	won := 0
	var f faults
	for _, a := range answers {
		if a.err != nil {
			return a.err
		}
		if err := a.met(); err != nil {
			return err
		}
		if a.ok() {
			won++
			continue
		}
		code, known := s.code(a), false
		for _, c := range codes {
			known = known || c == code
		}
		if len(f) == 0 {
			f.unless(known && a.status < 500, "one was refused with %d and the code %q, want %s", a.status, short(code), strings.Join(codes, " or "))
		}
	}
	f.unless(won == want, "of %d at the same moment %d were granted, want %d", len(answers), won, want)
	return f.err()
}

var (
	milliTime  = wire.NewPattern(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
	secondTime = wire.NewPattern(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
)

// within expects a time of a form that lies so far from now, give or take ten
// minutes: clocks differ.
func (s *session) within(f *faults, name, value string, form wire.Pattern, least, most time.Duration) {
	f.unless(form.MatchString(value), "%s is %q: not a time in UTC of the right form", name, short(value))
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return
	}
	const give = 10 * time.Minute
	from := at.Sub(s.o.Now())
	f.unless(from > least-give && from < most+give, "%s is %s from now, want %s to %s", name, from.Round(time.Second), least, most)
}

// waits expects a Retry-After in whole seconds.
func waits(a answer) error {
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || n < 1 {
		return fmt.Errorf("the 429 has the Retry-After %q, want whole seconds", short(a.header.Get("Retry-After")))
	}
	return nil
}

// numberOf is the number at a path of names in the body, as it is written; "":
// there is none.
func numberOf(a answer, names ...string) json.Number {
	n, _ := a.at(names...).(json.Number)
	return n
}
