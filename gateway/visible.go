package gateway

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible returns text without what a reader does not see or a terminal would
// obey: control characters other than line breaks and tabs, bidirectional and
// other formatting characters, and escape sequences.
func visible(text string) string {
	if allVisible(text) {
		return text
	}
	text = withoutSequences(text)
	return strings.Map(func(r rune) rune {
		if hidden(r) {
			return -1
		}
		return r
	}, text)
}

// allVisible reports whether nothing in a text is hidden. Nearly always so, and
// nearly all of it is ASCII.
func allVisible(text string) bool {
	for i := unplain(text, 0); i < len(text); i = unplain(text, i) {
		r, size := utf8.DecodeRuneInString(text[i:])
		if hidden(r) {
			return false
		}
		i += size
	}
	return true
}

func hidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' && r != '\n' && r != '\t' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs)
}

// visibleJSON is visible for every string in a valid JSON text, keys too. All
// else stays as it is: the order of fields, and every digit of a number.
func visibleJSON(raw []byte) []byte {
	var out bytes.Buffer
	done := 0
	for i := 0; i < len(raw); i++ {
		if raw[i] != '"' {
			continue
		}
		start := i
		for i++; i < len(raw) && raw[i] != '"'; i++ {
			if raw[i] == '\\' {
				i++
			}
		}
		end := min(i+1, len(raw))
		if !bytes.ContainsFunc(raw[start:end], func(r rune) bool { return r == '\\' || r > '~' }) {
			continue // the usual case, and fast
		}
		var text string
		if json.Unmarshal(raw[start:end], &text) != nil {
			continue
		}
		if clean := visible(text); clean != text {
			out.Write(raw[done:start])
			out.Write(quoted(clean))
			done = end
		}
	}
	if done == 0 {
		return raw
	}
	out.Write(raw[done:])
	return out.Bytes()
}

// quoted returns text as a JSON string.
func quoted(text string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string can always be written
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
