package credstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func TestSecretIsRedactedByEveryVerb(t *testing.T) {
	s := credstore.NewSecret("hunter2")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%p", "%U", "%T", "%10s", "%!"} {
		for _, value := range []any{s, &s, []credstore.Secret{s}, map[string]credstore.Secret{"k": s}, struct{ S credstore.Secret }{s}} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74") || strings.Contains(got, "68 75") {
				t.Errorf("%s of %T: got %s", verb, value, got)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got, want := fmt.Sprintf(verb, s), "[redacted]"; got != want {
			t.Errorf("%s: got %s, want %s", verb, got, want)
		}
	}
	if got, want := fmt.Sprint(s, 1, s.String()), "[redacted] 1[redacted]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// fmt does not ask the methods of what is in an unexported field.
func TestSecretInAnUnexportedFieldIsNotPrinted(t *testing.T) {
	type holder struct {
		name   string
		secret credstore.Secret
		nested struct{ secret credstore.Secret }
		many   []credstore.Secret
	}
	s := credstore.NewSecret("hunter2")
	h := holder{name: "name", secret: s, nested: struct{ secret credstore.Secret }{s}, many: []credstore.Secret{s}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "holder", h, "pointer", &h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "holder", h, "pointer", &h)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X"} {
		fmt.Fprintf(&log, verb+verb+"\n", h, &h)
	}
	if got := log.String(); strings.Contains(got, "hunter2") || strings.Contains(strings.ToLower(got), "68756e74") {
		t.Errorf("got %s", got)
	}
}

func TestSecretIsRedactedInJSONLogsAndErrors(t *testing.T) {
	c := credstoretest.Lona("my-agent")
	c.Secret = credstore.NewSecret("hunter2")
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).With("secret", c.Secret).Info("message", "credential", c, "pointer", &c, "secret", c.Secret)
	}
	marshalled, err := json.Marshal(map[string]any{"credential": c, "secret": &c.Secret, "list": []credstore.Secret{c.Secret}})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(marshalled)
	log.WriteString(fmt.Errorf("wrapped: %w", errors.Join(fmt.Errorf("%v", c), fmt.Errorf("%+v", &c.Secret))).Error())
	got := log.String()
	if strings.Contains(got, "hunter2") {
		t.Errorf("got %s", got)
	}
	if n := strings.Count(got, "[redacted]"); n < 8 {
		t.Errorf("got [redacted] %d times in %s", n, got)
	}
}

func TestSecretHasNoWayInFromJSON(t *testing.T) {
	var s credstore.Secret
	err := json.Unmarshal([]byte(`"hunter2"`), &s) //nolint:staticcheck // that it cannot be done is the point
	if err == nil || !s.IsZero() {
		t.Errorf("got %v, want an error and no secret", err)
	}
}

func TestSecretRevealsWhatItWasMadeOf(t *testing.T) {
	if got, want := credstore.NewSecret("hunter2").Reveal(), "hunter2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, s := range []credstore.Secret{{}, credstore.NewSecret("")} {
		if !s.IsZero() || s.Reveal() != "" {
			t.Error("an empty secret is not zero")
		}
	}
	if credstore.NewSecret("x").IsZero() {
		t.Error("a secret is zero")
	}
	if reflect.TypeFor[credstore.Secret]().Comparable() {
		t.Error("secrets can be compared with ==")
	}
}

func TestErrorNamesWhatFailedAndTheRemedy(t *testing.T) {
	cause := errors.New("disk on fire")
	err := error(&credstore.Error{
		Op: "write", Place: "keyring", Kind: credstore.ErrUnavailable, Cause: cause, Remedy: "put it out",
	})
	if got, want := err.Error(), "write keyring: credential store unavailable: disk on fire (put it out)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, credstore.ErrUnavailable) || !errors.Is(err, cause) {
		t.Error("the kind or the cause is lost")
	}
}
