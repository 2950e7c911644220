package main

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxReading is how wide a text is at most: longer lines are hard to read.
const maxReading = 100

// The marks around what is printed bold, until a line is finished: they have no
// width.
const (
	boldOn  = "\ue000"
	boldOff = "\ue001"
)

// layout lays Markdown out for a terminal. It knows what the manual uses, and a
// test holds the manual to that: headings, paragraphs, lists, tables, blocks of
// code, sequence diagrams; in a line, code, links and what is strong.
type layout struct {
	out    strings.Builder
	width  int
	bold   func(string) string
	inline *regexp.Regexp
}

// bodyIndent sets the text off from the headings, so that these stand out where
// nothing is bold.
const bodyIndent = "  "

// layOut returns Markdown as a terminal of that width shows it best.
func layOut(text string, width int, bold func(string) string) string {
	l := &layout{width: width, bold: bold, inline: regexp.MustCompile("\\[([^\\]]+)\\]\\(([^)]+)\\)|`([^`]+)`|\\*\\*([^*]+)\\*\\*")}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i < len(lines); {
		i += l.block(lines[i:])
	}
	return l.out.String()
}

// block lays out the block that lines begin with and returns how many it has.
func (l *layout) block(lines []string) int {
	first := lines[0]
	switch {
	case strings.TrimSpace(first) == "":
		l.out.WriteByte('\n')
		return 1
	case strings.HasPrefix(first, "#"):
		l.print("", "", boldOn+l.plain(strings.TrimLeft(first, "# "))+boldOff)
		return 1
	case strings.HasPrefix(first, "```"):
		n := 1 + while(lines[1:], func(s string) bool { return s != "```" })
		code := lines[1:n]
		if strings.HasPrefix(first, "```mermaid") {
			code = drawSequence(code)
		}
		for _, line := range code {
			l.out.WriteString(strings.TrimRight("    "+line, " ") + "\n")
		}
		return min(n+1, len(lines))
	case strings.HasPrefix(first, "|"):
		n := while(lines, func(s string) bool { return strings.HasPrefix(s, "|") })
		l.table(lines[:n])
		return n
	}
	item, marker := listItem(first)
	if marker != "" {
		l.print(bodyIndent+marker, bodyIndent+strings.Repeat(" ", utf8.RuneCountInString(marker)), l.text(item))
		return 1
	}
	n := 1 + while(lines[1:], func(s string) bool {
		_, marker := listItem(s)
		return s != "" && marker == "" && !strings.HasPrefix(s, "```") && !strings.HasPrefix(s, "|")
	})
	l.print(bodyIndent, bodyIndent, l.text(strings.Join(lines[:n], " ")))
	return n
}

// while counts the lines at the beginning for which holds is true.
func while(lines []string, holds func(string) bool) int {
	for i, line := range lines {
		if !holds(line) {
			return i
		}
	}
	return len(lines)
}

// listItem returns what stands behind the marker of a list item, and the marker
// as it is printed.
func listItem(line string) (text, marker string) {
	if rest, ok := strings.CutPrefix(line, "- "); ok {
		return rest, "• "
	}
	number, rest, ok := strings.Cut(line, ". ")
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		return rest, number + ". "
	}
	return "", ""
}

// text puts what is in a line into the terminal's words.
func (l *layout) text(markdown string) string {
	return l.inline.ReplaceAllStringFunc(markdown, func(found string) string {
		m := l.inline.FindStringSubmatch(found)
		switch {
		case m[1] != "":
			return l.link(m[1], m[2])
		case m[3] != "":
			return boldOn + m[3] + boldOff
		}
		return boldOn + m[4] + boldOff
	})
}

// plain is text for a line that is bold as a whole.
func (l *layout) plain(markdown string) string {
	return strings.NewReplacer(boldOn, "", boldOff, "").Replace(l.text(markdown))
}

// link says where a link leads: to a page by the command that prints it.
func (l *layout) link(text, to string) string {
	shown := l.text(text)
	name, isPage := strings.CutSuffix(to, ".md")
	switch {
	case isPage && name == text:
		return boldOn + name + boldOff
	case isPage && !strings.Contains(name, "/"):
		return shown + " (enlist help " + name + ")"
	case strings.HasPrefix(to, "http") && !strings.Contains(text, to):
		return shown + " (" + to + ")"
	}
	return shown
}

// print prints a text, wrapped, the first line behind one indent and the others
// behind another.
func (l *layout) print(indent, next, text string) {
	for _, line := range l.wrap(text, l.width-utf8.RuneCountInString(indent)) {
		l.out.WriteString(strings.TrimRight(indent+l.finish(line), " ") + "\n")
		indent = next
	}
}

// wrap breaks a text at spaces, and inside a word that is longer than a line.
// What is bold is so on each line by itself.
func (l *layout) wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && visible(line)+1+visible(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
		for visible(line) > width {
			head, tail := cutVisible(line, width)
			lines, line = append(lines, head), tail
		}
	}
	if line != "" || lines == nil {
		lines = append(lines, line)
	}
	open := false
	for i, line := range lines {
		if open {
			line = boldOn + line
		}
		if open = strings.LastIndex(line, boldOn) > strings.LastIndex(line, boldOff); open {
			line += boldOff
		}
		lines[i] = line
	}
	return lines
}

// visible is how many columns a text takes.
func visible(text string) int {
	return utf8.RuneCountInString(text) - strings.Count(text, boldOn) - strings.Count(text, boldOff)
}

// cutVisible cuts a text behind so many columns.
func cutVisible(text string, columns int) (head, tail string) {
	for i, r := range text {
		if s := string(r); s == boldOn || s == boldOff {
			continue
		}
		if columns == 0 {
			return text[:i], text[i:]
		}
		columns--
	}
	return text, ""
}

// finish makes what is marked bold.
func (l *layout) finish(line string) string {
	var b strings.Builder
	for line != "" {
		before, rest, found := strings.Cut(line, boldOn)
		b.WriteString(before)
		if !found {
			break
		}
		within, after, _ := strings.Cut(rest, boldOff)
		if within != "" {
			b.WriteString(l.bold(within))
		}
		line = after
	}
	return b.String()
}

// minColumn is how narrow a column of a table is made at most.
const minColumn = 10

// table lays out a table, its columns aligned and as narrow as must be.
func (l *layout) table(lines []string) {
	var rows [][]string
	var widths, words []int // of each column, and of its longest word
	for i, line := range lines {
		if i == 1 {
			continue // the rule under the headings
		}
		line = strings.ReplaceAll(strings.Trim(strings.TrimSpace(line), "|"), `\|`, "\x00")
		var row []string
		for j, cell := range strings.Split(line, "|") {
			cell = l.text(strings.ReplaceAll(strings.TrimSpace(cell), "\x00", "|"))
			if i == 0 && cell != "" {
				cell = boldOn + l.plain(cell) + boldOff
			}
			if j == len(widths) {
				widths, words = append(widths, 0), append(words, minColumn)
			}
			for word := range strings.FieldsSeq(cell) {
				words[j] = max(words[j], visible(word))
			}
			widths[j] = max(widths[j], visible(cell))
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	narrow(widths, words, l.width-len(bodyIndent)-2*(len(widths)-1))
	for i, row := range rows {
		l.row(row, widths)
		if i == 0 {
			rule := make([]string, len(widths))
			for j, w := range widths {
				rule[j] = strings.Repeat("─", w)
			}
			l.row(rule, widths)
		}
	}
}

// narrow takes from the widest columns until all fit into a width. It breaks no
// word where there are others to be broken between.
func narrow(widths, words []int, width int) {
	for {
		sum, widest := 0, -1
		for i, w := range widths {
			sum += w
			if w > words[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		switch {
		case sum <= width:
			return
		case widest >= 0:
			widths[widest]--
			continue
		}
		longest := 0
		for i, word := range words {
			if word > words[longest] {
				longest = i
			}
		}
		if words[longest] <= minColumn {
			return
		}
		words[longest]--
	}
}

// row prints one row of a table, on as many lines as its longest cell needs.
func (l *layout) row(cells []string, widths []int) {
	wrapped := make([][]string, len(cells))
	height := 0
	for i, cell := range cells {
		wrapped[i] = l.wrap(cell, widths[i])
		height = max(height, len(wrapped[i]))
	}
	for y := range height {
		line := bodyIndent
		for i := range cells {
			text := at(wrapped[i], y)
			line += l.finish(text) + strings.Repeat(" ", max(0, widths[i]-visible(text))+2)
		}
		l.out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
