package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/clipperhouse/displaywidth"

	"github.com/enlist-mcp/enlist/credstore"
)

func TestRelativeTimes(t *testing.T) {
	now := time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for want, apart := range map[string][]time.Duration{
		"just now":        {0, 4 * time.Second, -4 * time.Second},
		"in 5 s":          {5 * time.Second},
		"in 59 s":         {59 * time.Second},
		"1 min ago":       {-time.Minute, -119 * time.Second},
		"in 59 min":       {59*time.Minute + 58*time.Second},
		"in 1 h":          {time.Hour, 59*time.Minute + 59800*time.Millisecond},
		"3 h ago":         {-3 * time.Hour, -3*time.Hour - 59*time.Minute},
		"in 47 h":         {47*time.Hour + 59*time.Minute},
		"in 2 days":       {48 * time.Hour, 48*time.Hour - 10*time.Second, 2*day + 23*time.Hour},
		"in 30 days":      {30 * day, 30*day - time.Second, 30*day - 20*time.Minute},
		"in 59 days":      {59*day + 12*time.Hour},
		"2 months ago":    {-60 * day},
		"in 23 months":    {719 * day},
		"in 2 years":      {720 * day},
		"a long time ago": {-50 * 365 * day},
	} {
		for _, d := range apart {
			if got := relative(now.Add(d), now); got != want {
				t.Errorf("%s from now: got %q, want %q", d, got, want)
			}
		}
	}
}

// TestTimesAreExactForPrograms: what a script reads does not depend on when it
// reads it.
func TestTimesAreExactForPrograms(t *testing.T) {
	now := time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)
	then := time.Date(2026, 2, 6, 14, 0, 0, 0, time.FixedZone("", -7200))
	for _, test := range []struct {
		s               screen
		when, both, nil string
	}{
		{screen{now: now}, "2026-02-06T16:00:00Z", "2026-02-06T16:00:00Z", "never"},
		{screen{now: now, colour: true}, "2026-02-06T16:00:00Z", "2026-02-06T16:00:00Z", "never"},
		{screen{now: now, person: true}, "in 4 h", "in 4 h (2026-02-06T16:00:00Z)", "never"},
	} {
		if got := test.s.when(&then); got != test.when {
			t.Errorf("got %s, want %s", got, test.when)
		}
		if got := test.s.whenExactly(&then); got != test.both {
			t.Errorf("got %s, want %s", got, test.both)
		}
		if got := test.s.when(nil) + test.s.whenExactly(nil); got != test.nil+test.nil {
			t.Errorf("got %s for no time", got)
		}
	}
}

func sample(s *screen) *table {
	t := titled("NAME", "STATE", "WHAT…")
	t.row("ascii", s.state(credstore.StateActive), "one two three four five six seven eight nine ten")
	t.row("漢字かな", s.state(credstore.StateExpiring), "")
	t.row("é👩‍💻🇩🇪", s.state(credstore.StatePending), "eins\x1b[2J\nzwei\u202edrei\u009b31m")
	return t
}

func TestTables(t *testing.T) {
	for name, test := range map[string]struct {
		s    screen
		want string
	}{
		"for a program": {screen{}, `
NAME      STATE     WHAT
ascii     active    one two three four five six seven eight nine ten
漢字かな  expiring  -
é👩?💻🇩🇪  pending   eins?[2J zwei?drei?31m
`},
		"wide enough": {screen{person: true, width: 80}, `
NAME      STATE       WHAT
ascii     ● active    one two three four five six seven eight nine ten
漢字かな  ◐ expiring  -
é👩?💻🇩🇪  ○ pending   eins?[2J zwei?drei?31m
`},
		"narrower": {screen{person: true, width: 44}, `
NAME      STATE       WHAT
ascii     ● active    one two three four
                      five six seven eight
                      nine ten
漢字かな  ◐ expiring  -
é👩?💻🇩🇪  ○ pending   eins?[2J zwei?drei?31m
`},
		"too narrow": {screen{person: true, width: 30}, `
ascii
  state  ● active
  what   one two three four
         five six seven eight
         nine ten

漢字かな
  state  ◐ expiring
  what   -

é👩?💻🇩🇪
  state  ○ pending
  what   eins?[2J
         zwei?drei?31m
`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			test.s.out = &out
			if err := test.s.print(sample(&test.s)); err != nil {
				t.Fatal(err)
			}
			if got := "\n" + out.String(); got != test.want {
				t.Errorf("got:%s\nwant:%s", got, test.want)
			}
			for line := range strings.Lines(out.String()) {
				if w := displaywidth.String(strings.TrimSuffix(line, "\n")); test.s.width > 0 && w > test.s.width {
					t.Errorf("%d columns: %s", w, line)
				}
			}
		})
	}
}

// TestColoursHaveMeaning: each state has its colour, a sign and its word, so that
// nothing is said by a colour alone.
func TestColoursHaveMeaning(t *testing.T) {
	for state, want := range map[credstore.State]string{
		credstore.StateActive:   "\x1b[32m● active\x1b[0m",
		credstore.StateExpiring: "\x1b[33m◐ expiring\x1b[0m",
		credstore.StatePending:  "\x1b[36m○ pending\x1b[0m",
		credstore.StateExpired:  "\x1b[31m✗ expired\x1b[0m",
		credstore.StateRevoked:  "\x1b[31m✗ revoked\x1b[0m",
		credstore.StateLost:     "\x1b[31m✗ lost\x1b[0m",
	} {
		s := screen{person: true, colour: true}
		if f := s.state(state); s.paint(f.look, f.text) != want {
			t.Errorf("%s: got %q, want %q", state, s.paint(f.look, f.text), want)
		}
		s = screen{}
		if f := s.state(state); s.paint(f.look, f.text) != string(state) {
			t.Errorf("%s: a program gets %q", state, s.paint(f.look, f.text))
		}
	}
}

func TestFoldedTextFits(t *testing.T) {
	for _, text := range []string{
		"", "short", "two words", "averyveryverylongwordthatfitsnowhere and more", "漢字漢字漢字漢字漢字 漢字", "  indented text that is folded",
	} {
		for width := 1; width < 30; width++ {
			for _, line := range fold(text, width) {
				if w := displaywidth.String(line); w > max(width, 2) { // a wide character is never halved
					t.Errorf("fold(%q, %d): %q has %d columns", text, width, line, w)
				}
			}
			if got := strings.Join(fold(text, width), ""); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(text, " ", "") {
				t.Errorf("fold(%q, %d): got %q", text, width, got)
			}
		}
	}
	if got := fold("a  b", 0); len(got) != 1 || got[0] != "a  b" {
		t.Errorf("without a width: got %q", got)
	}
}

func TestDemoFitsNarrowTerminals(t *testing.T) {
	for _, columns := range []int{minColumns, 40, twoColumns - 1, twoColumns, 110, maxColumns} {
		var out bytes.Buffer
		g := newPage(&screen{out: &out, person: true, width: columns}, columns)
		g.intro("http://127.0.0.1:12345")
		g.chapter("Fluxra", "a recovery key, an API key and a token, and mail 漢字")
		g.letter("bot@example.com", "Verify this email address")
		g.question("Register the agent my-agent at a service that it has never been at?")
		g.step("A step with a title that is longer than a narrow terminal is wide",
			[]string{"→ tool {}", `{`, `  "name": "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字",`},
			[]string{"→ GET /", "← 200 OK", strings.Repeat("x", 300)}, 0)
		g.verdict(11, 20000, 0)
		for line := range strings.Lines(out.String()) {
			if w := displaywidth.String(strings.TrimSuffix(line, "\n")); w > columns && !strings.Contains(line, "enlist mcp") {
				t.Errorf("at %d columns a line has %d: %s", columns, w, line)
			}
		}
		if both := strings.Contains(out.String(), gutter); both != (columns >= twoColumns) {
			t.Errorf("at %d columns: two columns: %v", columns, both)
		}
	}
}
