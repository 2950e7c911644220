package main

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// entry is what a client's file says of an MCP server: how it is started.
type entry struct {
	Type    string   `json:"type,omitempty"` // where the client's documents have it
	Command string   `json:"command"`
	Args    []string `json:"args"`
}

// ours reports whether an entry starts Enlist's MCP server, whatever its flags.
func (e entry) ours() bool {
	name := strings.ToLower(path.Base(strings.ReplaceAll(e.Command, `\`, "/")))
	return strings.TrimSuffix(name, ".exe") == "enlist" && len(e.Args) > 0 && e.Args[0] == "mcp" &&
		(e.Type == "" || e.Type == "stdio")
}

// same reports whether two entries start the same.
func (e entry) same(other entry) bool {
	return e.Command == other.Command && slices.Equal(e.Args, other.Args)
}

// place says where in a file the entry is: in the table of this key, under this
// name.
type place struct{ key, name string }

// document is a client's file, taken apart. What it returns are edits of the
// bytes that it was made of, so that what they do not name stays as it is.
type document interface {
	// lookup returns the entry, if there is one under the name. One that is not
	// written as an MCP server is started is a zero entry.
	lookup() (e entry, there bool)
	// put adds the entry, or brings the one that is there to say the same. One
	// that is not ours is replaced whole.
	put(e entry) []udiff.Edit
	// remove takes the entry out, and with dropTable its table, if it was the
	// only one in it.
	remove(dropTable bool) []udiff.Edit
	// hasTable reports whether there is a table for entries.
	hasTable() bool
	// masks hides what is not structure: values, comments, and names deeper than
	// those of the settings of a server. It leaves the entry itself, if it is ours.
	masks() []udiff.Edit
}

// errEdit says that a change would not come out as it was meant. Nothing known
// leads to it; a file that does is left alone.
var errEdit = errors.New("the change cannot be made without touching something else in the file: make it by hand")

// format takes a file of one format apart.
type format func(src []byte, at place) (document, error)

// apply makes edits, and checks what came of it: the result can be read and says
// what it should.
func (parse format) apply(src []byte, at place, edits []udiff.Edit, want *entry) ([]byte, error) {
	out, err := udiff.ApplyBytes(src, edits)
	if err != nil {
		return nil, errEdit
	}
	doc, err := parse(out, at)
	if err != nil {
		return nil, errEdit
	}
	got, there := doc.lookup()
	if there != (want != nil) || want != nil && !got.same(*want) {
		return nil, errEdit
	}
	return out, nil
}

// put is a file's bytes with the entry in them. There is no file yet, if src is
// nil.
func (parse format) put(src []byte, at place, e entry) (out []byte, edits []udiff.Edit, err error) {
	doc, err := parse(src, at)
	if err != nil {
		return nil, nil, err
	}
	edits = doc.put(e)
	if src == nil {
		edits[0].New = strings.TrimSuffix(edits[0].New, "\n") + "\n"
	}
	out, err = parse.apply(src, at, edits, &e)
	return out, edits, err
}

// remove is a file's bytes without the entry; nil: the file is there for nothing
// else. The earlier states of the file are what was kept when something was
// changed, the newest first: if putting the entry into one gives the very bytes
// of now, that is what is left. So a table that was made for the entry goes with
// it, and an empty one that was there stays as it was.
func (parse format) remove(src []byte, at place, earlier [][]byte) (out []byte, edits []udiff.Edit, err error) {
	doc, err := parse(src, at)
	if err != nil {
		return nil, nil, err
	}
	e, _ := doc.lookup()
	dropTable, known := false, false
	for _, before := range earlier {
		old, err := parse(before, at)
		if err != nil {
			continue
		}
		if _, there := old.lookup(); there {
			continue
		}
		if !known { // the table of the last time without the entry
			dropTable, known = !old.hasTable(), true
		}
		if again, edits, err := parse.put(before, at, e); err == nil && bytes.Equal(again, src) {
			return before, inverse(before, edits), nil
		}
	}
	if again, _, err := parse.put(nil, at, e); err == nil && bytes.Equal(again, src) {
		return nil, []udiff.Edit{{End: len(src)}}, nil
	}
	edits = doc.remove(dropTable)
	out, err = parse.apply(src, at, edits, nil)
	return out, edits, err
}

// inverse are the edits that undo edits of a text, which are in its order.
func inverse(text []byte, edits []udiff.Edit) []udiff.Edit {
	undo, moved := make([]udiff.Edit, len(edits)), 0
	for i, e := range edits {
		undo[i] = udiff.Edit{Start: e.Start + moved, End: e.Start + moved + len(e.New), New: string(text[e.Start:e.End])}
		moved += len(e.New) - (e.End - e.Start)
	}
	return undo
}

// cutBOM splits a byte order mark off, which some editors on Windows write and
// no parser takes.
func cutBOM(src []byte) (bom, body []byte) {
	mark := []byte("\xef\xbb\xbf")
	if body, ok := bytes.CutPrefix(src, mark); ok {
		return mark, body
	}
	return nil, src
}

// newline returns the line ending that a file uses.
func newline(src []byte) string {
	if i := bytes.IndexByte(src, '\n'); i > 0 && src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
