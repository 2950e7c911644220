package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/tailscale/hujson"
)

// hidden stands for what is not shown of a file. The other entries of a client
// hold keys and tokens, as values, as arguments, and in lines that somebody made
// a comment, and what looks like one cannot be told: so nothing of them is shown
// but structure.
const hidden = "…"

// hide hides a stretch of a file, without changing how many lines there are.
func hide(src []byte, start, end int, open, closing string) udiff.Edit {
	return udiff.Edit{Start: start, End: end, New: open + hidden + strings.Repeat("\n"+hidden, strings.Count(string(src[start:end]), "\n")) + closing}
}

// shown reports whether a name may be shown: those of the file's own settings,
// of the servers, and of what a server has. Deeper ones can be anything.
func shown(key []string, servers string) bool {
	return printable(key[len(key)-1]) && (len(key) == 1 || key[0] == servers && len(key) <= 3)
}

// printable reports whether a text does nothing to a terminal: a project's file
// comes from other people.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (d *jsonDocument) masks() []udiff.Edit {
	if d.root == nil {
		return nil
	}
	m := &jsonMasker{d: d}
	if e, there := d.lookup(); there && e.ours() {
		m.own = []string{d.at.key, d.at.name}
	}
	m.extra(0, d.root.start)
	m.object(d.root, nil)
	m.extra(d.root.end, len(d.src))
	return m.edits
}

type jsonMasker struct {
	d     *jsonDocument
	own   []string // what is ours
	edits []udiff.Edit
}

func (m *jsonMasker) add(start, end int, open, closing string) {
	m.edits = append(m.edits, hide(m.d.src, start, end, open, closing))
}

// extra hides the comments in a stretch of white space, commas and comments.
func (m *jsonMasker) extra(from, to int) {
	for i := from; i < to; {
		if m.d.src[i] != '/' {
			i++
			continue
		}
		end := commentEnd(m.d.src, i)
		if m.d.src[i+1] == '/' {
			m.add(i, end, "// ", "")
		} else {
			m.add(i, end, "/* ", " */")
		}
		i = end
	}
}

func (m *jsonMasker) object(o *jsonObject, key []string) {
	at := o.start + 1
	for i := range o.Members {
		name, v := o.Members[i].Name, &o.Members[i].Value
		m.extra(at, name.StartOffset)
		inner := slices.Concat(key, []string{o.name(i)})
		if !shown(inner, m.d.at.key) {
			m.add(name.StartOffset, name.EndOffset, `"`, `"`)
		}
		m.extra(name.EndOffset, v.StartOffset)
		m.value(v, inner)
		at = v.EndOffset
	}
	m.extra(at, o.end-1)
}

func (m *jsonMasker) value(v *hujson.Value, key []string) {
	switch x := v.Value.(type) {
	case *hujson.Object:
		m.object(asObject(v), key)
	case *hujson.Array:
		at := v.StartOffset + 1
		for i := range x.Elements {
			m.extra(at, x.Elements[i].StartOffset)
			m.value(&x.Elements[i], key)
			at = x.Elements[i].EndOffset
		}
		m.extra(at, v.EndOffset-1)
	case hujson.Literal:
		switch {
		case ownSetting(key, m.own) && printable(string(x)), x.Kind() == 't', x.Kind() == 'f', x.Kind() == 'n':
		case x.Kind() == '"':
			m.add(v.StartOffset, v.EndOffset, `"`, `"`)
		default:
			m.add(v.StartOffset, v.EndOffset, "", "")
		}
	}
}

// ownSetting reports whether a key is what Enlist itself writes into its entry,
// which holds no secret. Variables that a person has added there can.
func ownSetting(key, own []string) bool {
	return len(own) > 0 && len(key) == len(own)+1 && slices.Equal(key[:len(own)], own) &&
		slices.Contains([]string{"type", "command", "args"}, key[len(own)])
}

func (d *tomlDocument) masks() []udiff.Edit {
	m := &tomlMasker{d: d}
	if d.there && d.entry.ours() {
		m.own = []string{d.at.key, d.at.name}
	}
	m.parser.KeepComments = true
	m.parser.Reset(d.src)
	var table []string
	for m.parser.NextExpression() {
		switch node := m.parser.Expression(); node.Kind {
		case unstable.Comment:
			m.comment(node)
		case unstable.KeyValue:
			m.keyValue(node, table)
			m.comment(node.Next())
		default:
			table = m.key(node, nil)
			m.comment(node.Next())
		}
	}
	slices.SortFunc(m.edits, func(a, b udiff.Edit) int { return a.Start - b.Start })
	return m.edits
}

type tomlMasker struct {
	d      *tomlDocument
	parser unstable.Parser
	own    []string
	edits  []udiff.Edit
}

func (m *tomlMasker) add(r unstable.Range, open, closing string) {
	m.edits = append(m.edits, hide(m.d.src, int(r.Offset), int(r.Offset+r.Length), open, closing))
}

func (m *tomlMasker) comment(n *unstable.Node) {
	if n.Valid() && n.Kind == unstable.Comment {
		m.add(n.Raw, "# ", "")
	}
}

// key hides those parts of a key that may not be shown, and returns all of it,
// from the root.
func (m *tomlMasker) key(node *unstable.Node, table []string) []string {
	key := slices.Clone(table)
	for it := node.Key(); it.Next(); {
		n := it.Node()
		if n.Kind != unstable.Key {
			break
		}
		key = append(key, string(n.Data))
		if !shown(key, m.d.at.key) {
			m.add(n.Raw, "", "")
		}
	}
	return key
}

func (m *tomlMasker) keyValue(node *unstable.Node, table []string) {
	m.value(node.Value(), m.key(node, table))
}

func (m *tomlMasker) value(n *unstable.Node, key []string) {
	switch n.Kind {
	case unstable.Comment:
		m.comment(n)
		for it := n.Children(); it.Next(); { // those right behind it
			m.comment(it.Node())
		}
	case unstable.KeyValue:
		m.keyValue(n, key)
	case unstable.Array, unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			m.value(it.Node(), key)
		}
	case unstable.Bool:
	case unstable.String:
		if !ownSetting(key, m.own) || !printable(string(m.parser.Raw(n.Raw))) {
			m.add(n.Raw, `"`, `"`)
		}
	default:
		m.add(n.Raw, "", "")
	}
}
