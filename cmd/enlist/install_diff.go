package main

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
)

// The most that is shown of one line, and of what stands before and behind a
// change in the same line: a file of one line can have megabytes.
const (
	maxDiffLine = 1000
	maxBeside   = 100
)

// diffOf shows edits of a file as git does, with what is not ours hidden.
func diffOf(name string, exists, remains bool, doc document, src []byte, edits []udiff.Edit) (string, error) {
	text, edits, err := rewrite(string(src), doc.masks(), edits)
	if err != nil {
		return "", err
	}
	if text, edits, err = rewrite(text, beside(text, edits), edits); err != nil {
		return "", err
	}
	edits = onLines(text, edits)
	from, to := name, name
	if !exists {
		from = "/dev/null"
	}
	if !remains {
		to = "/dev/null"
	}
	diff, err := udiff.ToUnified(from, to, text, edits, udiff.DefaultContextLines)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(diff) {
		b.WriteString(cutLine(line))
	}
	return b.String(), nil
}

// rewrite changes a text, and the edits that are to be made of it so that they
// still change the same. What an edit takes out may be rewritten; where it
// begins and ends may not be within something that is.
func rewrite(text string, by, edits []udiff.Edit) (string, []udiff.Edit, error) {
	out, err := udiff.Apply(text, by)
	if err != nil {
		return "", nil, err
	}
	moved := func(at int) int {
		to := at
		for _, e := range by {
			if e.End > at {
				break
			}
			to += len(e.New) - (e.End - e.Start)
		}
		return to
	}
	edits = slices.Clone(edits)
	for i := range edits {
		edits[i].Start, edits[i].End = moved(edits[i].Start), moved(edits[i].End)
	}
	return out, edits, nil
}

// onLines moves edits that add or take out whole lines, but begin within one, to
// where a line begins, if that comes to the same: else the line that they begin
// in would be shown as changed.
func onLines(text string, edits []udiff.Edit) []udiff.Edit {
	edits = slices.Clone(edits)
	for i, e := range edits {
		limit := len(text)
		if i+1 < len(edits) {
			limit = edits[i+1].Start
		}
		begins := func() bool { return e.Start == 0 || text[e.Start-1] == '\n' }
		switch {
		case e.Start == e.End && e.New != "":
			for !begins() && e.End < limit && text[e.Start] == e.New[0] {
				e.New = e.New[1:] + e.New[:1]
				e.Start, e.End = e.Start+1, e.End+1
			}
		case e.New == "":
			for !begins() && e.End < limit && text[e.Start] == text[e.End] {
				e.Start, e.End = e.Start+1, e.End+1
			}
		}
		if begins() {
			edits[i] = e
		}
	}
	return edits
}

// beside cuts what stands far before the first edit and far behind the last one
// in the same line.
func beside(text string, edits []udiff.Edit) []udiff.Edit {
	start, end := len(text), 0
	for _, e := range edits {
		start, end = min(start, e.Start), max(end, e.End)
	}
	var cuts []udiff.Edit
	from, to := strings.LastIndexByte(text[:start], '\n')+1, start-maxBeside
	for to > from && !utf8.RuneStart(text[to]) {
		to--
	}
	if to > from {
		cuts = append(cuts, udiff.Edit{Start: from, End: to, New: hidden})
	}
	from, to = end+maxBeside, len(text)
	if n := strings.IndexByte(text[end:], '\n'); n >= 0 {
		to = end + n
	}
	for from < to && !utf8.RuneStart(text[from]) {
		from++
	}
	if from < to {
		cuts = append(cuts, udiff.Edit{Start: from, End: to, New: hidden})
	}
	return cuts
}

// cutLine shortens a line that is too long to be looked at.
func cutLine(line string) string {
	if len(line) <= maxDiffLine {
		return line
	}
	at := maxDiffLine
	for !utf8.RuneStart(line[at]) {
		at--
	}
	return line[:at] + hidden + "\n"
}
