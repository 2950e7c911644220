package gateway_test

import (
	"context"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway"
)

// escapeSequences says what a terminal takes as a command, in a slow way.
var escapeSequences = regexp.MustCompile(`(?s)\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X].*?(?:\x07|\x1b\\)|\x1b[@-_]`)

func TestWhatATerminalWouldObeyIsTakenOut(t *testing.T) {
	parts := []string{"\x1b", "[", "]", "P", "\\", "\x07", "0;1", " ", "m", "@", "a", "é", "\xff", "\x1b]", "\x1b[", "\x1b\\"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(12) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		text := b.String()
		if got, want := gateway.WithoutSequences(text), escapeSequences.ReplaceAllString(text, ""); got != want {
			t.Fatalf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A service that sends the beginnings of commands which never end must not keep
// a call, and a core, busy for minutes.
func TestCommandsWithoutAnEndCostNoTime(t *testing.T) {
	for name, beginning := range map[string]string{
		"commands": "\x1b]", "graphics": "\x1bP", "controls": "\x1b[", "numbers": "\x1b[0", "ended": "\x1b]\x07",
	} {
		body := strings.Repeat(beginning, 200_000/len(beginning))
		for kind, text := range map[string]string{"text": body, "json": `{"a":"` + strings.ReplaceAll(strings.ReplaceAll(body[:60_000], "\x1b", `\u001b`), "\x07", `\u0007`) + `"}`} {
			s := newService(t)
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}})
			k := f.register(t, "my-agent").Key
			s.on("/here", reply(200, text))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			got, err := f.Lifecycle.Do(ctx, k, gateway.Request{Method: "GET", Path: "/here"})
			if err != nil || strings.Contains(string(got.Body), "\x1b") || ctx.Err() != nil {
				t.Errorf("%s as %s: got %d bytes (%v, %v)", name, kind, len(got.Body), err, ctx.Err())
			}
			cancel()
		}
	}
}
