package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"
)

// terminal returns a standard stream as a file, if it is a terminal.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// screen is standard output with what is known of who reads it. A person at a
// terminal gets relative times, and lines that fit. A program gets what is the
// same everywhere: exact times, one line a row, nothing cut, no colour.
type screen struct {
	out    io.Writer
	person bool
	colour bool
	width  int // in columns; 0: without end
	now    time.Time
}

func (p *program) screen() *screen {
	s := &screen{out: p.stdout, colour: p.coloured(p.stdout), now: p.now()}
	if f, ok := terminal(p.stdout); ok {
		s.person, s.width = true, p.widthOf(f)
	}
	return s
}

// widthOf returns how many columns a terminal has. COLUMNS, where it is exported,
// was set on purpose.
func (p *program) widthOf(f *os.File) int {
	if w, err := strconv.Atoi(p.env("COLUMNS")); err == nil && w > 0 {
		return w
	}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		return w
	}
	return 80
}

// The values of --color.
const (
	colourAuto   = "auto"
	colourAlways = "always"
	colourNever  = "never"
)

// colourFlag is the value of --color.
type colourFlag string

// String implements [pflag.Value].
func (f *colourFlag) String() string { return cmp.Or(string(*f), colourAuto) }

// Type implements [pflag.Value].
func (f *colourFlag) Type() string { return "when" }

// Set implements [pflag.Value].
func (f *colourFlag) Set(value string) error {
	switch value {
	case colourAuto, colourAlways, colourNever:
		*f = colourFlag(value)
		return nil
	}
	return errors.New("want auto, always or never")
}

// coloured reports whether what goes to a stream may have colours: as --color
// says, else as NO_COLOR, CLICOLOR_FORCE and CLICOLOR say, else on a terminal that
// knows them.
func (p *program) coloured(stream any) bool {
	switch p.flags.colour {
	case colourAlways:
		if f, ok := terminal(stream); ok {
			_ = sequences(f) // it was asked for, come what may
		}
		return true
	case colourNever:
		return false
	}
	force := p.env("CLICOLOR_FORCE")
	f, ok := terminal(stream)
	switch {
	case p.env("NO_COLOR") != "":
		return false
	case force != "" && force != "0":
		return true
	}
	return ok && p.env("CLICOLOR") != "0" && p.obeys(f)
}

// obeys reports whether a terminal understands the sequences that colour text
// and clear a line.
func (p *program) obeys(f *os.File) bool {
	kind := p.env("TERM")
	if kind == "dumb" || kind == "" && runtime.GOOS != "windows" {
		return false
	}
	return sequences(f)
}

// style is how a text looks, as the parameters of the sequence that says so.
// What it means must be in the words, too.
type style string

// The styles, by what they mean.
const (
	styleNone    style = ""
	styleTitle   style = "1"  // bold
	styleQuiet   style = "2"  // faint: headers, what is known anyway
	styleBad     style = "31" // red: expired, revoked, damaged, refused
	styleGood    style = "32" // green: active, done
	styleWarning style = "33" // yellow: expiring, unknown
	stylePending style = "36" // cyan: begun and not finished
)

// paint returns text in a style, where there are colours.
func (s *screen) paint(look style, text string) string {
	if !s.colour || look == styleNone || text == "" {
		return text
	}
	return "\x1b[" + string(look) + "m" + text + "\x1b[0m"
}

// ask asks a person at the terminal for one line. Where standard input is none
// that is an error which names instead, what does without asking.
func (p *program) ask(prompt, instead string) (string, error) {
	f, ok := terminal(p.stdin)
	if !ok {
		return "", errors.New("this is asked about on a terminal, and standard input is none: " + instead)
	}
	fmt.Fprint(p.stderr, prompt)
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// plain is a text without anything that a terminal would obey: a service, a
// stranger or a file may have written it.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r != '\n' && !strconv.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}

// cell is a text as it can stand in a table: without what a terminal would obey,
// on one line.
func cell(text string) string {
	text = strings.Join(strings.Fields(plain(text)), " ")
	if text == "" {
		return "-"
	}
	return text
}
