package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/clipperhouse/displaywidth"

	"github.com/enlist-mcp/enlist/credstore"
)

const (
	// columnGap stands between two columns.
	columnGap = "  "
	// minFlexible is how narrow a column of text may become before rows are
	// stacked instead.
	minFlexible = 16
)

// table is rows under titles. The columns and their order are what a program
// relies on: a new one goes to the end.
type table struct {
	columns []column
	rows    [][]field
}

// column is a column of a table.
type column struct {
	title string
	text  bool // it may be broken into lines where the terminal is narrow
}

// field is what stands in one place of a table.
type field struct {
	text string
	look style
}

// titled returns a table without rows. A title that ends in "…" is of a column of
// text.
func titled(titles ...string) *table {
	t := &table{}
	for _, title := range titles {
		bare, text := strings.CutSuffix(title, "…")
		t.columns = append(t.columns, column{title: bare, text: text})
	}
	return t
}

// row adds a row: of strings and fields, one a column.
func (t *table) row(values ...any) {
	fields := make([]field, 0, len(values))
	for _, v := range values {
		f, ok := v.(field)
		if !ok {
			f = field{text: fmt.Sprint(v)}
		}
		f.text = cell(f.text)
		fields = append(fields, f)
	}
	t.rows = append(t.rows, fields)
}

// print prints a table as wide as what is in it; where that does not fit, with
// narrower columns of text; and where that does not do, each row as lines.
func (s *screen) print(t *table) error {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = displaywidth.String(c.title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], displaywidth.String(row[i].text))
		}
	}
	if !s.fit(t.columns, widths) {
		return s.stack(t)
	}
	titles := make([]field, 0, len(t.columns))
	for _, c := range t.columns {
		titles = append(titles, field{c.title, styleQuiet})
	}
	for _, row := range append([][]field{titles}, t.rows...) {
		if err := s.row(row, widths); err != nil {
			return err
		}
	}
	return nil
}

// fit makes columns of text narrower until all fit, if they can.
func (s *screen) fit(columns []column, widths []int) bool {
	if s.width == 0 {
		return true
	}
	sum := len(columnGap) * (len(columns) - 1)
	for _, w := range widths {
		sum += w
	}
	for ; sum > s.width; sum-- {
		widest := -1
		for i, c := range columns {
			least := max(minFlexible, displaywidth.String(c.title))
			if c.text && widths[i] > least && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		widths[widest]--
	}
	return true
}

// row prints a row in columns, in as many lines as it needs.
func (s *screen) row(fields []field, widths []int) error {
	lines := make([][]string, len(fields))
	height := 1
	for i, f := range fields {
		lines[i] = fold(f.text, widths[i])
		height = max(height, len(lines[i]))
	}
	for n := range height {
		last := 0
		for i := range fields {
			if at(lines[i], n) != "" {
				last = i
			}
		}
		var b strings.Builder
		for i, f := range fields[:last+1] {
			text := at(lines[i], n)
			b.WriteString(s.paint(f.look, text))
			if i < last {
				b.WriteString(strings.Repeat(" ", widths[i]-displaywidth.String(text)) + columnGap)
			}
		}
		if _, err := fmt.Fprintln(s.out, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// stack prints each row as lines: what it is about, and a line for each of the
// other columns.
func (s *screen) stack(t *table) error {
	for n, row := range t.rows {
		if n > 0 {
			fmt.Fprintln(s.out)
		}
		fmt.Fprintln(s.out, s.paint(cmp.Or(row[0].look, styleTitle), row[0].text))
		list := s.list("  ")
		for i, f := range row[1:] {
			list.add(strings.ToLower(t.columns[i+1].title), f)
		}
		if err := list.print(); err != nil {
			return err
		}
	}
	return nil
}

// list is names and values, one below the other.
type list struct {
	s      *screen
	indent string
	names  []string
	values []field
}

func (s *screen) list(indent string) *list { return &list{s: s, indent: indent} }

// add adds a value, unless there is none.
func (l *list) add(name string, value field) {
	if value.text == "" {
		return
	}
	value.text = cell(value.text)
	l.names, l.values = append(l.names, name), append(l.values, value)
}

func (l *list) print() error {
	width := 0
	for _, name := range l.names {
		width = max(width, displaywidth.String(cell(name)))
	}
	for i, value := range l.values {
		name := cell(l.names[i])
		begin := l.indent + l.s.paint(styleQuiet, name) + strings.Repeat(" ", width-displaywidth.String(name)) + columnGap
		if err := l.s.hang(begin, len(l.indent)+width+len(columnGap), value); err != nil {
			return err
		}
	}
	return nil
}

// hang prints a text behind a beginning of so many columns, and below it where it
// has several lines.
func (s *screen) hang(begin string, columns int, value field) error {
	width := 0
	// One word is an address or an id, which somebody may want to copy whole.
	if s.width > 0 && strings.Contains(value.text, " ") {
		width = max(s.width-columns, minFlexible)
	}
	for i, line := range fold(value.text, width) {
		if i > 0 {
			begin = strings.Repeat(" ", columns)
		}
		if _, err := fmt.Fprintln(s.out, begin+s.paint(value.look, line)); err != nil {
			return err
		}
	}
	return nil
}

// say prints sentences, in lines that fit.
func (s *screen) say(text string) {
	for line := range strings.Lines(text) {
		for _, folded := range fold(strings.TrimSuffix(line, "\n"), s.width) {
			fmt.Fprintln(s.out, folded)
		}
	}
}

// fold breaks a text at spaces into lines of a width in columns; 0: without end.
// Only a word that is longer than that is broken itself.
func fold(text string, width int) []string {
	if width <= 0 || displaywidth.String(text) <= width {
		return []string{text}
	}
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		w := displaywidth.String(word)
		if used > 0 && used+1+w <= width {
			line, used = line+" "+word, used+1+w
			continue
		}
		if used > 0 {
			lines = append(lines, line)
		}
		for w > width {
			head := within(word, width)
			lines = append(lines, head)
			word = word[len(head):]
			w = displaywidth.String(word)
		}
		line, used = word, w
	}
	return append(lines, line)
}

// within returns as much of the beginning of a text as fits into a width, and at
// least one character.
func within(text string, width int) string {
	used, end := 0, 0
	for g := displaywidth.StringGraphemes(text); g.Next(); {
		used += g.Width()
		if used > width && end > 0 {
			break
		}
		end += len(g.Value())
	}
	return text[:end]
}

// state is the state of a credential: a word, and for a person a sign and a
// colour.
func (s *screen) state(state credstore.State) field {
	f := field{text: string(state)}
	sign := ""
	switch state {
	case credstore.StateActive:
		sign, f.look = "●", styleGood
	case credstore.StateExpiring:
		sign, f.look = "◐", styleWarning
	case credstore.StatePending:
		sign, f.look = "○", stylePending
	case credstore.StateExpired, credstore.StateRevoked, credstore.StateLost:
		sign, f.look = "✗", styleBad
	}
	return s.signed(sign, f)
}

// signed puts a sign before a word, for a person.
func (s *screen) signed(sign string, f field) field {
	if s.person && sign != "" {
		f.text = sign + " " + f.text
	}
	return f
}

// sortedNames returns the names of attributes in their order.
func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// rule returns how long a line across the page is.
func (s *screen) rule(most int) int {
	if s.width > 0 {
		return min(most, s.width)
	}
	return most
}
