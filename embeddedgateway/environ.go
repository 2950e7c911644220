package embeddedgateway

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// environ reads variables of the environment and collects what is wrong with
// them, so that an operator hears of everything at once. An error names the
// variable; the value of one that holds a secret is never in it.
type environ struct {
	get  func(string) string
	errs []error
}

// err is everything that was wrong, or nil.
func (e *environ) err() error { return errors.Join(e.errs...) }

func (e *environ) wrong(name, format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf("environment variable %s: %s", name, fmt.Sprintf(format, args...)))
}

// boolean reads true or false, as [strconv.ParseBool] does.
func (e *environ) boolean(name string, otherwise bool) bool {
	value := e.get(name)
	if value == "" {
		return otherwise
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		e.wrong(name, "want true or false, got %q", value)
	}
	return b
}

// number reads a whole number from 1 to most.
func (e *environ) number(name string, otherwise, most int) int {
	value := e.get(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > most {
		e.wrong(name, "want a whole number from 1 to %d, got %q", most, value)
	}
	return n
}

// line reads a line of text for people, of at most so many bytes.
func (e *environ) line(name, otherwise string, most int) string {
	value := strings.TrimSpace(e.get(name))
	if value == "" {
		return otherwise
	}
	if len(value) > most || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		e.wrong(name, "want at most %d bytes of text without control characters", most)
	}
	return value
}

// json reads JSON and nothing that is not known of it, and reports whether
// there was any. The error says what is wanted and does not repeat the value.
func (e *environ) json(name, want string, into any) bool {
	value := e.get(name)
	if value == "" {
		return false
	}
	if err := json.Unmarshal([]byte(value), into, json.RejectUnknownMembers(true)); err != nil {
		e.wrong(name, "want %s", want)
		return false
	}
	return true
}

// oneOf reads one of a few words.
func (e *environ) oneOf(name, otherwise string, words ...string) string {
	value := e.get(name)
	if value == "" {
		return otherwise
	}
	for _, word := range words {
		if value == word {
			return value
		}
	}
	e.wrong(name, "want %s, got %q", strings.Join(words, " or "), value)
	return otherwise
}

// list reads values between commas; spaces around them do not count. The error
// does not repeat the value.
func (e *environ) list(name string, otherwise ...string) []string {
	value := e.get(name)
	if value == "" {
		return otherwise
	}
	var values []string
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			e.wrong(name, "want values separated by commas, none of them empty")
			return nil
		}
		values = append(values, part)
	}
	return values
}
