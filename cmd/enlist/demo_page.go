package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/clipperhouse/displaywidth"
)

// The widths of the demo's page, in columns.
const (
	defaultColumns = 110 // where it is not printed on a terminal
	twoColumns     = 72  // with fewer, one side stands below the other
	minColumns     = 24
	maxColumns     = 140
	gutter         = " │ "
)

// columns returns how wide the demo's page is.
func (p *program) columns() int {
	f, ok := terminal(p.stdout)
	width := defaultColumns
	if ok || p.env("COLUMNS") != "" {
		width = p.widthOf(f)
	}
	return min(max(width, minColumns), maxColumns)
}

// page prints the demo in two columns, or in one where there is no space for two.
type page struct {
	s           *screen
	width       int
	left, right int // 0: one below the other
	steps       int

	hidden, jsonName *regexp.Regexp
}

func newPage(s *screen, columns int) *page {
	g := &page{
		s: s, width: columns,
		// Here, and not as globals: no other command needs them.
		hidden:   regexp.MustCompile(`[A-Za-z0-9_.-]+…|\[redacted\]`),
		jsonName: regexp.MustCompile(`^ *"[A-Za-z0-9_]+": `),
	}
	if columns >= twoColumns {
		text := columns - displaywidth.String(gutter)
		g.left = text * 9 / 20
		g.right = text - g.left
	}
	return g
}

// say prints sentences, in lines that fit.
func (g *page) say(look style, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		for _, folded := range fold(line, g.width) {
			fmt.Fprintln(g.s.out, g.s.paint(look, folded))
		}
	}
}

func (g *page) intro(origin string) {
	g.say(styleNone, "A real MCP client, the real MCP server over stdio pipes, a real gateway at "+origin+
		".\nSecrets on the wire are shown as far as they are public: lona_partner_my-agent_…")
}

// chapter begins what is told of one protocol.
func (g *page) chapter(title, about string) {
	lines := fold("━━ "+title+": "+about+" ", g.width)
	last := &lines[len(lines)-1]
	*last += strings.Repeat("━", max(0, g.width-displaywidth.String(*last)))
	fmt.Fprintln(g.s.out)
	for _, line := range lines {
		fmt.Fprintln(g.s.out, g.s.paint(styleChapter, line))
	}
}

// letter says that a mail has come, to a person and not to the model.
func (g *page) letter(to, subject string) {
	fmt.Fprintln(g.s.out)
	g.say(styleWarning, "   ✉ to "+cell(to)+": "+cell(subject))
}

// question says what the person was asked, who agrees to everything in the tour.
func (g *page) question(text string) {
	fmt.Fprintln(g.s.out)
	g.say(styleWarning, "   ? the person is asked, and agrees: "+cell(text))
}

// step prints one step of the tour, or so many lines of it; 0: all.
func (g *page) step(title string, left, right []string, lines int) {
	g.steps++
	fmt.Fprintln(g.s.out)
	g.say(styleTitle, fmt.Sprintf("%d. %s", g.steps, title))
	fmt.Fprintln(g.s.out)
	const saw, happened = "what the model saw", "what happened on the wire"
	if g.left == 0 {
		g.side(saw, left, lines)
		fmt.Fprintln(g.s.out)
		g.side(happened, right, lines)
		return
	}
	g.row(saw, happened, g.quiet)
	fmt.Fprintln(g.s.out, g.quiet(strings.Repeat("─", g.left)+"─┼─"+strings.Repeat("─", g.right)))
	left, right = cut(wrapAll(left, g.left), lines), cut(wrapAll(right, g.right), lines)
	for i := range max(len(left), len(right)) {
		g.row(at(left, i), at(right, i), g.lit)
	}
}

// side prints one side of a step on the whole page.
func (g *page) side(title string, text []string, lines int) {
	g.say(styleQuiet, title)
	fmt.Fprintln(g.s.out, g.quiet(strings.Repeat("─", g.width)))
	for _, line := range cut(wrapAll(text, g.width), lines) {
		fmt.Fprintln(g.s.out, g.lit(line))
	}
}

func (g *page) row(left, right string, paint func(string) string) {
	pad := strings.Repeat(" ", max(0, g.left-displaywidth.String(left)))
	line := paint(left) + pad
	if right == "" {
		fmt.Fprintln(g.s.out, line+g.quiet(strings.TrimRight(gutter, " ")))
		return
	}
	fmt.Fprintln(g.s.out, line+g.quiet(gutter)+paint(right))
}

func (g *page) quiet(text string) string { return g.s.paint(styleQuiet, text) }

// styleChapter is the look of the line that begins a chapter.
const styleChapter style = "1;36"

// lit paints a line of a step: what was called and what was answered, the names
// of a JSON object, and where a secret was.
func (g *page) lit(line string) string {
	if !g.s.colour {
		return line
	}
	if status, ok := strings.CutPrefix(line, "← "); ok {
		if strings.HasPrefix(status, "2") {
			return g.s.paint(styleGood, line)
		}
		return g.s.paint(styleBad, line)
	}
	if strings.HasPrefix(line, "→ ") {
		call, rest, _ := strings.Cut(line[len("→ "):], " ")
		return g.s.paint(styleTitle, strings.TrimRight("→ "+call+" ", " ")) + strings.TrimRight(" "+rest, " ")
	}
	name := g.jsonName.FindString(line)
	return g.quiet(name) + g.hidden.ReplaceAllStringFunc(line[len(name):], func(secret string) string {
		return g.s.paint(styleWarning, secret)
	})
}

func (g *page) verdict(secrets, received, found int) {
	look, sign := styleGood, "✓ "
	if found > 0 || secrets == 0 {
		look, sign = styleBad, "✗ "
	}
	if !g.s.person {
		sign = ""
	}
	fmt.Fprintln(g.s.out)
	g.say(look, fmt.Sprintf("%sThe gateway issued %d secrets. The model received %d bytes; secrets among them: %d.", sign, secrets, received, found))
	g.say(styleNone, `Nothing was left behind: the store was in memory, the database is deleted.

Next: enlist mcp --embedded   the same for your MCP client, offline
      enlist mcp              with the real services`)
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

// wrapAll breaks lines at a width.
func wrapAll(lines []string, width int) []string {
	var wrapped []string
	for _, line := range lines {
		wrapped = append(wrapped, wrap(line, width)...)
	}
	return wrapped
}

// wrap breaks a line at a width, and continues it with its own indentation and
// two spaces more.
func wrap(line string, width int) []string {
	var wrapped []string
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))] + "  "
	if len(indent) > width/2 {
		indent = "  "
	}
	for displaywidth.String(line) > width {
		head, tail := breakAt(line, width, len(indent))
		wrapped = append(wrapped, head)
		line = indent + tail
	}
	return append(wrapped, line)
}

// breakAt splits a line before width: at a space, or where JSON has a value
// begin or end, if there is such a place in its second half.
func breakAt(line string, width, indent int) (head, tail string) {
	at := len(within(line, width))
	for i := at; i > max(at/2, indent); i-- {
		if line[i] == ' ' || line[i-1] == ',' || line[i-1] == ':' && line[i] == '"' {
			at = i
			break
		}
	}
	return strings.TrimRight(line[:at], " "), strings.TrimLeft(line[at:], " ")
}
