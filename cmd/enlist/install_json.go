package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/tailscale/hujson"
)

// jsonDocument is a file of JSON, or of JSON with comments and trailing commas.
// hujson tells where everything is; its own way to patch a file would reformat
// what is around the change.
type jsonDocument struct {
	src  []byte
	at   place
	root *jsonObject // nil: the file is empty
	// servers is the table of entries and of the entry, if they are there.
	servers *jsonObject
	index   int // of the entry in servers, -1: there is none
}

// jsonObject is an object and where it is.
type jsonObject struct {
	*hujson.Object
	start, end int
}

// jsonPosition returns the position in an error of hujson, whose other words can
// quote the file.
func jsonPosition(err error) string {
	return regexp.MustCompile(`line \d+, column \d+`).FindString(err.Error())
}

// jsonSpace is what JSON has between values.
const jsonSpace = " \t\r\n"

// parseJSON takes a file apart.
func parseJSON(src []byte, at place) (document, error) {
	d := &jsonDocument{src: src, at: at, index: -1}
	if len(bytes.Trim(src, jsonSpace)) == 0 {
		return d, nil
	}
	if !shallow(src) {
		return nil, fmt.Errorf("it is not valid JSON: it is nested deeper than %d levels", maxNesting)
	}
	// The line end is for a comment in the last line, which needs one.
	v, err := hujson.Parse(append(bytes.Clone(src), '\n'))
	if err != nil {
		return nil, fmt.Errorf("it is not valid JSON: %s", jsonPosition(err))
	}
	if d.root = asObject(&v); d.root == nil {
		return nil, errors.New("it is not a JSON object")
	}
	i, err := d.root.find(at.key)
	if err != nil || i < 0 {
		return d, err
	}
	if d.servers = asObject(&d.root.Members[i].Value); d.servers == nil {
		return nil, fmt.Errorf("%q in it is not a JSON object", at.key)
	}
	d.index, err = d.servers.find(at.name)
	return d, err
}

// maxNesting is how deep a file may be nested, as with encoding/json. The parser
// has no limit of its own but the memory.
const maxNesting = 10000

// shallow reports whether a file is nested no deeper than that.
func shallow(src []byte) bool {
	depth := 0
	for i := 0; i < len(src); i++ {
		switch src[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(src) && src[i] != '"'; i++ {
				if src[i] == '\\' {
					i++
				}
			}
		case '/':
			if rest := src[i:]; bytes.HasPrefix(rest, []byte("//")) || len(rest) > 3 && rest[1] == '*' && bytes.Contains(rest[2:], []byte("*/")) {
				i = commentEnd(src, i) - 1
			}
		}
		if depth > maxNesting {
			return false
		}
	}
	return true
}

func asObject(v *hujson.Value) *jsonObject {
	if o, ok := v.Value.(*hujson.Object); ok {
		return &jsonObject{o, v.StartOffset, v.EndOffset}
	}
	return nil
}

// find returns the index of a member, or -1.
func (o *jsonObject) find(name string) (int, error) {
	at := -1
	for i := range o.Members {
		if o.name(i) != name {
			continue
		}
		if at >= 0 {
			return at, fmt.Errorf("%q is in it twice, and which one counts cannot be told: delete one", name)
		}
		at = i
	}
	return at, nil
}

func (o *jsonObject) name(i int) string { return o.Members[i].Name.Value.(hujson.Literal).String() }

func (d *jsonDocument) hasTable() bool { return d.servers != nil }

func (d *jsonDocument) lookup() (entry, bool) {
	if d.index < 0 {
		return entry{}, false
	}
	v := d.servers.Members[d.index].Value
	text, err := hujson.Standardize(bytes.Clone(d.src[v.StartOffset:v.EndOffset]))
	if err != nil {
		return entry{}, true
	}
	var fields map[string]json.RawMessage // names as they are written, unlike with a struct
	var e entry
	if json.Unmarshal(text, &fields) != nil {
		return entry{}, true
	}
	for name, to := range map[string]any{"type": &e.Type, "command": &e.Command, "args": &e.Args} {
		if raw, ok := fields[name]; ok && json.Unmarshal(raw, to) != nil {
			return entry{}, true
		}
	}
	return e, true
}

func (d *jsonDocument) put(e entry) []udiff.Edit {
	style := d.style()
	fields := jsonFields{{"command", e.Command}, {"args", e.Args}}
	if e.Type != "" {
		fields = append(jsonFields{{"type", e.Type}}, fields...)
	}
	switch {
	case d.root == nil:
		return []udiff.Edit{{New: style.render(jsonFields{{d.at.key, jsonFields{{d.at.name, fields}}}}, "")}}
	case d.servers == nil:
		return d.insert(d.root, style, d.at.key, jsonFields{{d.at.name, fields}})
	case d.index < 0:
		return d.insert(d.servers, style, d.at.name, fields)
	}
	old, _ := d.lookup()
	value := d.servers.Members[d.index].Value
	if !old.ours() {
		style.inline = style.inline || d.inline(d.servers)
		return []udiff.Edit{{Start: value.StartOffset, End: value.EndOffset, New: style.render(fields, d.lineIndent(value.StartOffset))}}
	}
	// Only what Enlist writes: what a person has added, such as variables, stays.
	var edits []udiff.Edit
	o := asObject(&value)
	for i := range o.Members {
		v := o.Members[i].Value
		switch name := o.name(i); {
		case name == "command" && old.Command != e.Command:
			edits = append(edits, udiff.Edit{Start: v.StartOffset, End: v.EndOffset, New: quoteJSON(e.Command)})
		case name == "args" && !old.same(entry{Command: old.Command, Args: e.Args}):
			edits = append(edits, udiff.Edit{Start: v.StartOffset, End: v.EndOffset, New: style.render(e.Args, "")})
		}
	}
	return edits
}

// insert adds a member to an object, behind the last one.
func (d *jsonDocument) insert(o *jsonObject, style jsonStyle, name string, value jsonFields) []udiff.Edit {
	inner, closing := d.src[o.start+1:o.end-1], d.lineIndent(o.start)
	style.inline = d.inline(o)
	indent := closing + style.unit
	if len(o.Members) == 0 {
		at, ends := lastExtra(d.src, o.start+1, o.end-1)
		if at == o.start+1 { // nothing but white space
			return []udiff.Edit{{Start: at, End: o.end - 1, New: style.wrap(name, value, indent, closing)}}
		}
		return []udiff.Edit{{Start: at, End: at, New: style.separator(ends, indent) + style.member(name, value, indent)}}
	}
	last := o.Members[len(o.Members)-1].Value.EndOffset
	after, trailing := last, ""
	if comma := skipExtra(d.src, last); d.src[comma] == ',' {
		after, trailing = comma+1, ","
	}
	if bytes.ContainsRune(inner, '\n') {
		indent = d.memberIndent(o, indent)
	}
	at, ends := sameLine(d.src, after)
	text := style.separator(ends, indent) + style.member(name, value, indent) + trailing
	switch {
	case trailing != "":
		return []udiff.Edit{{Start: at, End: at, New: text}}
	case at == last:
		return []udiff.Edit{{Start: at, End: at, New: "," + text}}
	}
	return []udiff.Edit{{Start: last, End: last, New: ","}, {Start: at, End: at, New: text}}
}

func (d *jsonDocument) remove(dropTable bool) []udiff.Edit {
	if d.index < 0 {
		return nil
	}
	if dropTable && len(d.servers.Members) == 1 {
		if i, err := d.root.find(d.at.key); err == nil {
			return d.cut(d.root, i)
		}
	}
	return d.cut(d.servers, d.index)
}

// cut takes a member out of an object, with its comma and the white space
// before it. Comments stay; an object that is left with nothing becomes {}.
func (d *jsonDocument) cut(o *jsonObject, i int) []udiff.Edit {
	name, end := o.Members[i].Name.StartOffset, o.Members[i].Value.EndOffset
	from, before := o.start+1, -1 // what comes before the member, and the comma there
	if i > 0 {
		before = skipExtra(d.src, o.Members[i-1].Value.EndOffset)
		from = before + 1
	}
	var edits []udiff.Edit
	start, lineEnd := lastExtra(d.src, from, name)
	comma := skipExtra(d.src, end)
	own := d.src[comma] == ','
	rest := d.src[end:]
	if own {
		rest = bytes.Join([][]byte{d.src[end:comma], d.src[comma+1:]}, nil)
	}
	if lineEnd != "" && !startsLine(rest) {
		start += len(lineEnd) // the comment before the member ends with its line
	}
	if !own && before >= 0 {
		edits = append(edits, udiff.Edit{Start: before, End: before + 1})
	}
	edits = append(edits, udiff.Edit{Start: start, End: end})
	if own {
		edits = append(edits, udiff.Edit{Start: comma, End: comma + 1})
	}
	if len(o.Members) == 1 {
		rest = rest[:o.end-1-end]
		if own {
			rest = rest[:len(rest)-1]
		}
		if start == o.start+1 && len(bytes.Trim(rest, jsonSpace)) == 0 {
			return []udiff.Edit{{Start: o.start + 1, End: o.end - 1}}
		}
	}
	return edits
}

// startsLine reports whether nothing but white space comes before a line end.
func startsLine(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r")
	return len(text) > 0 && text[0] == '\n'
}

// skipExtra returns where white space and comments end.
func skipExtra(src []byte, i int) int {
	for i < len(src) {
		switch rest := src[i:]; {
		case strings.IndexByte(jsonSpace, src[i]) >= 0:
			i++
		case bytes.HasPrefix(rest, []byte("//")):
			i = commentEnd(src, i)
		case bytes.HasPrefix(rest, []byte("/*")):
			i = commentEnd(src, i)
		default:
			return i
		}
	}
	return i
}

// commentEnd returns where the comment that begins at i ends; that of a line
// before the line's end.
func commentEnd(src []byte, i int) int {
	if src[i+1] == '*' {
		return i + 2 + bytes.Index(src[i+2:], []byte("*/")) + 2
	}
	n := bytes.IndexByte(src[i:], '\n')
	if n < 0 {
		return len(src)
	}
	if i += n; src[i-1] == '\r' {
		i--
	}
	return i
}

// lastExtra returns where the last comment between two offsets ends, or the
// first of them, and how the line ends, if that comment ends with its line.
func lastExtra(src []byte, from, to int) (at int, lineEnd string) {
	at = from
	for i := from; i < to; {
		if src[i] != '/' {
			i++
			continue
		}
		line := src[i+1] == '/'
		i = commentEnd(src, i)
		at, lineEnd = i, ""
		if line {
			lineEnd = newlineAt(src, i)
		}
	}
	return at, lineEnd
}

// sameLine returns where the last comment ends that begins in the same line as
// what ends at an offset, or that offset, and the line end there, if any.
func sameLine(src []byte, from int) (at int, lineEnd string) {
	at = from
	for i := from; i < len(src); {
		switch src[i] {
		case ' ', '\t':
			i++
		case '/':
			i = commentEnd(src, i)
			at = i
		default:
			return at, newlineAt(src, i)
		}
	}
	return at, ""
}

// newlineAt returns the line end at an offset, or "".
func newlineAt(src []byte, i int) string {
	switch rest := src[i:]; {
	case bytes.HasPrefix(rest, []byte("\n")):
		return "\n"
	case bytes.HasPrefix(rest, []byte("\r\n")):
		return "\r\n"
	}
	return ""
}
