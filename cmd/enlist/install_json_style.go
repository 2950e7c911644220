package main

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/tailscale/hujson"
)

// jsonStyle is how a file is laid out.
type jsonStyle struct {
	nl, unit string // a line end, one step of indentation
	space    string // behind colons and commas
	inline   bool   // all in one line
}

// jsonFields are the members of an object, in order. A value is a string, a
// list of strings, or jsonFields.
type jsonFields []jsonField

type jsonField struct {
	name  string
	value any
}

// style finds out how a file is laid out.
func (d *jsonDocument) style() jsonStyle {
	s := jsonStyle{nl: newline(d.src), unit: "  ", space: " "}
	if bytes.Contains(d.src, []byte("\n\t")) {
		s.unit = "\t"
	}
	if d.root == nil || len(d.root.Members) == 0 {
		return s
	}
	if v := d.root.Members[0].Value; len(v.BeforeExtra) == 0 {
		s.space = ""
	}
	outer := d.lineIndent(d.root.start)
	if !d.inline(d.root) {
		if inner, ok := strings.CutPrefix(d.memberIndent(d.root, ""), outer); ok && inner != "" {
			s.unit = inner
		}
		s.space = " "
	}
	return s
}

// inline reports whether the members of an object are all in one line. An empty
// one is like the file.
func (d *jsonDocument) inline(o *jsonObject) bool {
	if len(o.Members) == 0 {
		return o.start != d.root.start && d.inline(d.root) && !bytes.ContainsRune(d.src[o.start:o.end], '\n')
	}
	for i := range o.Members {
		if bytes.ContainsRune(o.Members[i].Name.BeforeExtra, '\n') {
			return false
		}
	}
	return true
}

// lineIndent returns the white space that the line of an offset begins with.
func (d *jsonDocument) lineIndent(at int) string {
	line := d.src[bytes.LastIndexByte(d.src[:at], '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// memberIndent returns the indentation of the last member that begins a line.
func (d *jsonDocument) memberIndent(o *jsonObject, otherwise string) string {
	for i := len(o.Members) - 1; i >= 0; i-- {
		if name := o.Members[i].Name; bytes.ContainsRune(name.BeforeExtra, '\n') {
			return d.lineIndent(name.StartOffset)
		}
	}
	return otherwise
}

// separator is what stands before a member that comes behind something. Behind
// a comment it begins as the line there ends.
func (s jsonStyle) separator(lineEnd, indent string) string {
	if s.inline && lineEnd == "" {
		return s.space
	}
	return first(lineEnd, s.nl) + indent
}

func (s jsonStyle) member(name string, value any, indent string) string {
	return quoteJSON(name) + ":" + s.space + s.render(value, indent)
}

// wrap is the inside of an object with one member.
func (s jsonStyle) wrap(name string, value any, indent, closing string) string {
	if s.inline {
		return s.member(name, value, indent)
	}
	return s.nl + indent + s.member(name, value, indent) + s.nl + closing
}

func (s jsonStyle) render(value any, indent string) string {
	switch v := value.(type) {
	case []string:
		quoted := make([]string, len(v))
		for i := range v {
			quoted[i] = quoteJSON(v[i])
		}
		return "[" + strings.Join(quoted, ","+s.space) + "]"
	case jsonFields:
		members := make([]string, len(v))
		for i := range v {
			members[i] = s.member(v[i].name, v[i].value, indent+s.unit)
		}
		if s.inline {
			return "{" + strings.Join(members, ","+s.space) + "}"
		}
		between := s.nl + indent + s.unit
		return "{" + between + strings.Join(members, ","+between) + s.nl + indent + "}"
	case string:
		return quoteJSON(v)
	}
	return "null"
}

// quoteJSON writes a string as JSON, with the characters of HTML as they are.
func quoteJSON(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return string(hujson.String(s))
	}
	return strings.TrimSuffix(b.String(), "\n")
}
