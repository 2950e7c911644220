package main

import (
	"strings"
	"unicode/utf8"
)

// message is one line of a sequence diagram.
type message struct {
	from, to string
	answer   bool // it goes back
	note     bool // it goes nowhere
	text     string
}

// readSequence reads what the manual uses of Mermaid's sequence diagrams:
//
//	participant NAME
//	FROM->>TO: TEXT
//	FROM-->>TO: TEXT
//	Note over NAME: TEXT
//
// Lines that are none of these it returns as bad.
func readSequence(lines []string) (who []string, messages []message, bad []string) {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || line == "sequenceDiagram" {
			continue
		}
		if name, ok := strings.CutPrefix(line, "participant "); ok {
			who = append(who, name)
			continue
		}
		head, text, ok := strings.Cut(line, ": ")
		if name, note := strings.CutPrefix(head, "Note over "); ok && note {
			messages = append(messages, message{from: name, to: name, note: true, text: text})
			continue
		}
		from, to, answer := strings.Cut(head, "-->>")
		if !answer {
			from, to, _ = strings.Cut(head, "->>")
		}
		if !ok || to == "" {
			bad = append(bad, line)
			continue
		}
		messages = append(messages, message{from: from, to: to, answer: answer, text: text})
	}
	return who, messages, bad
}

// drawSequence draws a sequence diagram for a terminal. The manual has it in
// Mermaid only, which a forge draws by itself. What cannot be read is shown as it
// is.
func drawSequence(lines []string) []string {
	who, messages, bad := readSequence(lines)
	column := map[string]int{}
	for i, name := range who {
		column[name] = i
	}
	for _, m := range messages {
		if _, ok := column[m.from]; !ok {
			bad = append(bad, m.from)
		}
		if _, ok := column[m.to]; !ok {
			bad = append(bad, m.to)
		}
	}
	if len(bad) > 0 || len(who) == 0 {
		return lines
	}
	d := &sequence{at: lifelines(who, messages, column)}
	top := d.blank()
	for i, name := range who {
		top = overwrite(top, d.at[i]-utf8.RuneCountInString(name)/2, name)
	}
	d.rows = append(d.rows, string(top))
	for _, m := range messages {
		d.draw(column[m.from], column[m.to], m)
	}
	return d.rows
}

// lifelines says in which column of text each participant's line is, so that
// every text has a place between the lines that it goes between.
func lifelines(who []string, messages []message, column map[string]int) []int {
	at := make([]int, len(who))
	for i, name := range who {
		half := utf8.RuneCountInString(name) / 2
		if i == 0 {
			at[i] = half
			continue
		}
		at[i] = at[i-1] + utf8.RuneCountInString(who[i-1])/2 + half + 3
		for _, m := range messages {
			a, b := column[m.from], column[m.to]
			if max(a, b) == i && a != b {
				at[i] = max(at[i], at[min(a, b)]+utf8.RuneCountInString(m.text)+4)
			}
		}
	}
	return at
}

// sequence is a diagram that is being drawn.
type sequence struct {
	at   []int
	rows []string
}

// blank is a row with nothing but the lifelines.
func (d *sequence) blank() []rune {
	row := []rune(strings.Repeat(" ", d.at[len(d.at)-1]+1))
	if len(d.rows) > 0 {
		for _, x := range d.at {
			row[x] = '│'
		}
	}
	return row
}

// draw draws a message: its text, and the arrow under it.
func (d *sequence) draw(from, to int, m message) {
	text := d.blank()
	left, right := d.at[min(from, to)], d.at[max(from, to)]
	if m.note {
		note := "■ " + m.text
		if before := left - utf8.RuneCountInString(m.text) - 1; from == len(d.at)-1 && before > 0 {
			note, left = m.text+" ■", before
		}
		d.rows = append(d.rows, string(overwrite(text, left, note)))
		return
	}
	overwrite(text, left+2, m.text)
	line := "─"
	if m.answer {
		line = "╌"
	}
	arrow := overwrite(d.blank(), left+1, strings.Repeat(line, right-left-1))
	if to > from {
		arrow[right-1] = '→'
	} else {
		arrow[left+1] = '←'
	}
	d.rows = append(d.rows, string(text), string(arrow))
}

// overwrite writes a text over a row, which grows where it is too short.
func overwrite(row []rune, at int, text string) []rune {
	for i, r := range []rune(text) {
		if at+i < len(row) {
			row[at+i] = r
		} else {
			row = append(row, r)
		}
	}
	return row
}
