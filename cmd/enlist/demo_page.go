package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// The widths of the demo's page, in columns.
const (
	defaultColumns = 110
	minColumns     = 72
	maxColumns     = 140
	gutter         = " │ "
)

// columns returns how wide the terminal is.
func (p *program) columns() int {
	width := defaultColumns
	if f, ok := p.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	if w, err := strconv.Atoi(p.env("COLUMNS")); err == nil {
		width = w
	}
	return min(max(width, minColumns), maxColumns)
}

// page prints the demo in two columns.
type page struct {
	out         io.Writer
	left, right int
	steps       int
}

func newPage(out io.Writer, columns int) *page {
	text := columns - utf8.RuneCountInString(gutter)
	left := text * 9 / 20
	return &page{out: out, left: left, right: text - left}
}

func (g *page) intro(origin string) {
	fmt.Fprintf(g.out, "A real MCP client, the real MCP server over stdio pipes, a real gateway at %s.\nSecrets on the wire are shown as far as they are public: lona_partner_my-agent_…\n", origin)
}

// chapter begins what is told of one protocol.
func (g *page) chapter(title, about string) {
	line := "━━ " + title + ": " + about + " "
	fmt.Fprintf(g.out, "\n%s%s\n", line, strings.Repeat("━", max(0, g.left+g.right+utf8.RuneCountInString(gutter)-utf8.RuneCountInString(line))))
}

// letter says that a mail has come, to a person and not to the model.
func (g *page) letter(to, subject string) {
	fmt.Fprintf(g.out, "\n   ✉ to %s: %s\n", to, subject)
}

// question says what the person was asked, who agrees to everything in the tour.
func (g *page) question(text string) {
	fmt.Fprintf(g.out, "\n   ? the person is asked, and agrees: %s\n", text)
}

// step prints one step of the tour, or so many lines of it; 0: all.
func (g *page) step(title string, left, right []string, lines int) {
	g.steps++
	fmt.Fprintf(g.out, "\n%d. %s\n\n", g.steps, title)
	g.row("what the model saw", "what happened on the wire")
	fmt.Fprintln(g.out, strings.Repeat("─", g.left)+"─┼─"+strings.Repeat("─", g.right))
	left, right = cut(wrapAll(left, g.left), lines), cut(wrapAll(right, g.right), lines)
	for i := range max(len(left), len(right)) {
		g.row(at(left, i), at(right, i))
	}
}

func (g *page) row(left, right string) {
	pad := strings.Repeat(" ", max(0, g.left-utf8.RuneCountInString(left)))
	fmt.Fprintln(g.out, strings.TrimRight(left+pad+gutter+right, " "))
}

func (g *page) verdict(secrets, received, found int) {
	fmt.Fprintf(g.out, `
The gateway issued %d secrets. The model received %d bytes; secrets among them: %d.
Nothing was left behind: the store was in memory, the database is deleted.

Next: enlist mcp --embedded   the same for your MCP client, offline
      enlist mcp              with the real services
`, secrets, received, found)
}

// cut leaves the end of a long text out, and says so.
func cut(text []string, lines int) []string {
	if lines == 0 || len(text) <= lines {
		return text
	}
	return append(text[:lines-1:lines-1], fmt.Sprintf("… and %d lines more", len(text)-lines+1))
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// wrapAll breaks lines at a width, continuing each with its own indentation
// and two spaces more.
func wrapAll(lines []string, width int) []string {
	var wrapped []string
	for _, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))] + "  "
		for utf8.RuneCountInString(line) > width {
			head, tail := breakAt([]rune(line), width, len(indent))
			wrapped = append(wrapped, head)
			line = indent + tail
		}
		wrapped = append(wrapped, line)
	}
	return wrapped
}

// breakAt splits a line before width: at a space, or where JSON has a value
// begin or end, if there is such a place in its second half.
func breakAt(line []rune, width, indent int) (head, tail string) {
	at := width
	for i := width; i > max(width/2, indent); i-- {
		if line[i] == ' ' || line[i-1] == ',' || line[i-1] == ':' && line[i] == '"' {
			at = i
			break
		}
	}
	return strings.TrimRight(string(line[:at]), " "), strings.TrimLeft(string(line[at:]), " ")
}
