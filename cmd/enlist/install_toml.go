package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlDocument is a file of TOML. An entry is a table of its own, as the client
// writes it, but for a file that has all of them in one inline table.
type tomlDocument struct {
	src    []byte
	at     place
	entry  entry
	there  bool
	table  bool       // there is a table of entries, in whatever form
	lines  []tomlLine // every expression of the file
	inline *tomlValue // the table of entries, if it is an inline one
}

// tomlLine is one expression: a header, or a key with its value.
type tomlLine struct {
	key        []string // the whole of it, from the root
	start, end int      // of the lines that it stands in, with their end
	header     bool
	value      *tomlValue // of a key
}

// tomlValue is a value and where it is.
type tomlValue struct {
	start, end int
	table      bool         // an inline table
	members    []tomlMember // of an inline table
}

type tomlMember struct {
	key   []string
	start int
	value *tomlValue
}

// parseTOML takes a file apart.
func parseTOML(src []byte, at place) (document, error) {
	var all map[string]any
	if err := toml.Unmarshal(src, &all); err != nil {
		var wrong *toml.DecodeError
		if errors.As(err, &wrong) {
			row, column := wrong.Position()
			return nil, fmt.Errorf("it is not valid TOML: line %d, column %d", row, column)
		}
		return nil, errors.New("it is not valid TOML")
	}
	d := &tomlDocument{src: src, at: at}
	servers, ok := all[at.key].(map[string]any)
	if d.table = ok; !ok && all[at.key] != nil {
		return nil, fmt.Errorf("%q in it is not a table", at.key)
	}
	if one, there := servers[at.name]; there {
		d.there, d.entry = true, asEntry(one)
	}
	return d, d.scan()
}

// asEntry reads how a server is started.
func asEntry(of any) (e entry) {
	fields, _ := of.(map[string]any)
	args, ok := fields["args"].([]any)
	if e.Command, _ = fields["command"].(string); !ok {
		return e
	}
	for _, a := range args {
		text, ok := a.(string)
		if !ok {
			return entry{}
		}
		e.Args = append(e.Args, text)
	}
	return e
}

// scan finds where everything is.
func (d *tomlDocument) scan() error {
	var p unstable.Parser
	var table []string
	p.Reset(d.src)
	for p.NextExpression() {
		node := p.Expression()
		key, from, to := tomlKey(node)
		line := tomlLine{start: bytes.LastIndexByte(d.src[:from], '\n') + 1}
		switch node.Kind {
		case unstable.KeyValue:
			line.key = slices.Concat(table, key)
			to = int(node.Raw.Offset + node.Raw.Length)
			line.value = tomlValueOf(d.src, node)
			if slices.Equal(line.key, []string{d.at.key}) && line.value.table {
				d.inline = line.value
			}
		default:
			table, line.key, line.header = key, key, true
		}
		line.end = len(d.src)
		if n := bytes.IndexByte(d.src[to:], '\n'); n >= 0 {
			line.end = to + n + 1
		}
		d.lines = append(d.lines, line)
	}
	if p.Error() != nil {
		return errors.New("it is not valid TOML")
	}
	return nil
}

// tomlKey returns the parts of a key and where it begins and ends.
func tomlKey(node *unstable.Node) (key []string, start, end int) {
	start = -1
	for it := node.Key(); it.Next(); {
		n := it.Node()
		if n.Kind != unstable.Key {
			break
		}
		if start < 0 {
			start = int(n.Raw.Offset)
		}
		key, end = append(key, string(n.Data)), int(n.Raw.Offset+n.Raw.Length)
	}
	return key, start, end
}

// tomlValueOf returns the value of a key, with its members if it is an inline
// table.
func tomlValueOf(src []byte, node *unstable.Node) *tomlValue {
	_, _, start := tomlKey(node)
	for strings.IndexByte(" \t=", src[start]) >= 0 {
		start++
	}
	v := &tomlValue{start: start, end: int(node.Raw.Offset + node.Raw.Length), table: node.Value().Kind == unstable.InlineTable}
	if !v.table {
		return v
	}
	for it := node.Value().Children(); it.Next(); {
		if n := it.Node(); n.Kind == unstable.KeyValue {
			key, from, _ := tomlKey(n)
			v.members = append(v.members, tomlMember{key: key, start: from, value: tomlValueOf(src, n)})
		}
	}
	return v
}

func (d *tomlDocument) hasTable() bool { return d.table }

func (d *tomlDocument) lookup() (entry, bool) { return d.entry, d.there }

func (d *tomlDocument) put(e entry) []udiff.Edit {
	if d.there && d.entry.ours() {
		return d.update(e)
	}
	if d.inline != nil {
		member := d.at.name + " = " + inlineTOML(e)
		if i := d.member(); i >= 0 {
			v := d.inline.members[i]
			if len(v.key) == 1 {
				return []udiff.Edit{{Start: v.value.start, End: v.value.end, New: inlineTOML(e)}}
			}
		}
		if len(d.inline.members) == 0 {
			return []udiff.Edit{{Start: d.inline.start + 1, End: d.inline.start + 1, New: " " + member + " "}}
		}
		last := d.inline.members[len(d.inline.members)-1].value.end
		return []udiff.Edit{{Start: last, End: last, New: ", " + member}}
	}
	nl := newline(d.src)
	edits := d.remove(false) // one that is not ours
	text := "[" + d.at.key + "." + d.at.name + "]" + nl +
		"command = " + quoteTOML(e.Command) + nl + "args = " + listTOML(e.Args)
	switch {
	case len(d.src) == 0:
		text += nl
	case d.src[len(d.src)-1] == '\n':
		text = nl + text + nl
	default:
		text = nl + nl + text
	}
	return append(edits, udiff.Edit{Start: len(d.src), End: len(d.src), New: text})
}

// member returns the index of the entry in the inline table, or -1.
func (d *tomlDocument) member() int {
	return slices.IndexFunc(d.inline.members, func(m tomlMember) bool { return m.key[0] == d.at.name })
}

// update makes our entry say the same, and leaves what a person has added.
func (d *tomlDocument) update(e entry) []udiff.Edit {
	var edits []udiff.Edit
	set := func(key []string, v *tomlValue) {
		switch {
		case len(key) != 1:
		case key[0] == "command" && d.entry.Command != e.Command:
			edits = append(edits, udiff.Edit{Start: v.start, End: v.end, New: quoteTOML(e.Command)})
		case key[0] == "args" && !slices.Equal(d.entry.Args, e.Args):
			edits = append(edits, udiff.Edit{Start: v.start, End: v.end, New: listTOML(e.Args)})
		}
	}
	d.fields(set)
	return edits
}

// fields calls f with every setting of the entry, in whatever form it stands.
func (d *tomlDocument) fields(f func(key []string, v *tomlValue)) {
	own := []string{d.at.key, d.at.name}
	var walk func(key []string, v *tomlValue)
	walk = func(key []string, v *tomlValue) {
		if len(key) > len(own) && slices.Equal(key[:len(own)], own) {
			f(key[len(own):], v)
			return
		}
		for _, m := range v.members {
			walk(slices.Concat(key, m.key), m.value)
		}
	}
	for _, line := range d.lines {
		if line.value != nil {
			walk(line.key, line.value)
		}
	}
}

func (d *tomlDocument) remove(bool) []udiff.Edit {
	if !d.there {
		return nil
	}
	if d.inline != nil {
		return d.cutMembers()
	}
	own := []string{d.at.key, d.at.name}
	var edits []udiff.Edit
	inside := false // the line before was ours
	for _, line := range d.lines {
		ours := len(line.key) >= len(own) && slices.Equal(line.key[:len(own)], own)
		switch {
		case ours && inside: // with what is between them
			edits[len(edits)-1].End = line.end
		case ours:
			edits = append(edits, udiff.Edit{Start: d.before(line), End: line.end})
		}
		inside = ours
	}
	if n := len(edits); n > 0 && edits[n-1].End == len(d.src) && d.src[len(d.src)-1] != '\n' {
		// The file ended without a line end, and still does.
		edits[n-1].Start -= len(lineEndBefore(d.src, edits[n-1].Start))
	}
	return edits
}

// before returns where a line begins, with the empty line before it if it is a
// header.
func (d *tomlDocument) before(line tomlLine) int {
	empty := lineEndBefore(d.src, line.start)
	above := line.start - len(empty)
	if !line.header || above > 0 && d.src[above-1] != '\n' {
		return line.start
	}
	return above
}

// lineEndBefore returns the line end that a text has before an offset.
func lineEndBefore(src []byte, at int) string {
	switch text := src[:at]; {
	case bytes.HasSuffix(text, []byte("\r\n")):
		return "\r\n"
	case bytes.HasSuffix(text, []byte("\n")):
		return "\n"
	}
	return ""
}

// cutMembers takes the entry out of the inline table, with a comma.
func (d *tomlDocument) cutMembers() []udiff.Edit {
	t := d.inline
	var edits []udiff.Edit
	left := len(t.members)
	for i, m := range t.members {
		if m.key[0] != d.at.name {
			continue
		}
		left--
		edit := udiff.Edit{Start: m.start, End: m.value.end}
		switch {
		case i+1 < len(t.members):
			edit.End = t.members[i+1].start
		case i > 0 && t.members[i-1].key[0] != d.at.name:
			edit.Start = t.members[i-1].value.end
		}
		edits = append(edits, edit)
	}
	if left == 0 {
		return []udiff.Edit{{Start: t.start + 1, End: t.end - 1}}
	}
	return edits
}

// quoteTOML writes a string. What JSON escapes, TOML reads alike.
func quoteTOML(s string) string {
	return strings.ReplaceAll(quoteJSON(s), "\x7f", `\u007f`)
}

func listTOML(list []string) string {
	quoted := make([]string, len(list))
	for i := range list {
		quoted[i] = quoteTOML(list[i])
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func inlineTOML(e entry) string {
	return "{ command = " + quoteTOML(e.Command) + ", args = " + listTOML(e.Args) + " }"
}
