package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"math/bits"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// minSpelling is the shortest spelling of a secret that is looked for: a
	// shorter one would be found where there is no secret.
	minSpelling = 12
	// minTail is the shortest end of a secret that is looked for by itself.
	minTail = 16
	// maxQuoting is how many backslashes before a character are looked at.
	maxQuoting = 16
)

// spellings returns the other ways in which a secret may be written in a
// text. Escapes that leave a choice of what to escape are undone by [unfold].
func spellings(secret string) []string {
	upper := strings.ToUpper(hex.EncodeToString([]byte(secret)))
	all := []string{
		strings.ToLower(upper), upper,
		url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
		strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(secret),
	}
	if quoted, err := json.Marshal(secret); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	for before := range 3 {
		all = append(all,
			base64Within(base64.RawStdEncoding, before, secret),
			base64Within(base64.RawURLEncoding, before, secret))
	}
	// What stands before the last underscore of a token is often public.
	if i := strings.LastIndexByte(secret, '_'); i >= 0 && len(secret)-i-1 >= minTail {
		all = append(all, secret[i+1:])
	}
	out := all[:0]
	for _, s := range all {
		if len(s) >= minSpelling && s != secret {
			out = append(out, s)
		}
	}
	return out
}

// base64Within returns what is always there of secret in the base64 of a text
// that has 3n+before bytes before it and anything behind it.
func base64Within(enc *base64.Encoding, before int, secret string) string {
	text := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + secret))
	if (before+len(secret))%3 != 0 {
		text = text[:len(text)-1] // it also holds bits of what comes behind
	}
	first := (before*8 + 5) / 6 // so many hold bits of what stands before
	if first > len(text) {
		return ""
	}
	return text[first:]
}

// unfold undoes the escapes of JSON, URLs and HTML, one layer of them, for the
// characters that a secret consists of, and takes out line breaks and
// invisible characters. What was valid JSON stays so.
func unfold(text string) string {
	var b strings.Builder
	done := 0
	for i := unplain(text, 0); i < len(text); i = unplain(text, i) {
		n, with := foldAt(text[i:])
		if n == 0 {
			i++
			continue
		}
		if done == 0 {
			b.Grow(len(text))
		}
		b.WriteString(text[done:i])
		b.WriteString(with)
		i += n
		done = i
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// unplain returns the place of the first byte of a text, from a place on, that
// is not a plain character of ASCII or that an escape begins with; without one,
// the length of the text.
func unplain(text string, from int) int {
	const (
		each = 0x0101010101010101 // a byte in each of the eight
		top  = 0x80 * each        // its highest bit
	)
	for ; from+8 <= len(text); from += 8 {
		// Eight bytes at a time. Subtracting borrows from a higher byte only
		// behind a lower one that is found, and the lowest is what counts.
		w := headAt(text, from)
		percent, ampersand, backslash, del := w^'%'*each, w^'&'*each, w^'\\'*each, w^0x7f*each
		found := w | (w-' '*each)&^w | (percent-each)&^percent | (ampersand-each)&^ampersand |
			(backslash-each)&^backslash | (del-each)&^del
		if found &= top; found != 0 {
			return from + bits.TrailingZeros64(found)/8
		}
	}
	for ; from < len(text); from++ {
		if c := text[from]; c < ' ' || c >= 0x7f || c == '%' || c == '&' || c == '\\' {
			return from
		}
	}
	return from
}

// foldAt returns how many bytes at the beginning of text are an escape or
// nothing to see, and what they stand for.
func foldAt(text string) (n int, with string) {
	switch c := text[0]; {
	case c == '\\':
		return backslashAt(text)
	case c == '%':
		return numberAt(text, 1, 2, "", 16)
	case c == '&' && strings.HasPrefix(text, "&#"):
		end := strings.IndexByte(text[:min(len(text), 8)], ';')
		if end < 3 {
			return 0, ""
		}
		if text[2] == 'x' || text[2] == 'X' {
			return numberAt(text, 3, end-3, ";", 16)
		}
		return numberAt(text, 2, end-2, ";", 10)
	case c == '\r' || c == '\n':
		return len(text) - len(strings.TrimLeft(text, "\r\n\t ")), ""
	case c < ' ' && c != '\t', c == 0x7f:
		return 1, ""
	case c >= utf8.RuneSelf:
		if r, size := utf8.DecodeRuneInString(text); unicode.Is(unicode.Cf, r) {
			return size, ""
		}
	}
	return 0, ""
}

// backslashAt is foldAt for a text that begins with a backslash, or with
// several where the text was quoted more than once.
func backslashAt(text string) (n int, with string) {
	i := 1
	for i < len(text) && i < maxQuoting && text[i] == '\\' {
		i++
	}
	if i == len(text) {
		return 0, ""
	}
	switch text[i] {
	case 'r', 'n':
		return len(text) - len(strings.TrimLeft(text[i+1:], " \t")), ""
	case '/':
		return i + 1, "/"
	case 'x':
		return numberAt(text, i+1, 2, "", 16)
	case 'u':
		return numberAt(text, i+1, 4, "", 16)
	}
	return 0, ""
}

// numberAt is foldAt for a character's number: digits of them from start,
// and then end.
func numberAt(text string, start, digits int, end string, base int) (n int, with string) {
	if digits < 1 || start+digits > len(text) {
		return 0, ""
	}
	number, err := strconv.ParseUint(text[start:start+digits], base, 32)
	n = start + digits + len(end)
	switch {
	case err != nil || number > '~':
		return 0, ""
	case number < ' ':
		return n, ""
	case number == '"' || number == '\\': // bare, it would end a JSON string
		return n, `\` + string(rune(number))
	}
	return n, string(rune(number))
}

// withoutSequences returns text without what a terminal would take as a command.
// Its time grows with the length of the text only, whatever is in it: a service
// chooses that.
func withoutSequences(text string) string {
	var b strings.Builder
	done := 0
	open := false // no command that has an end of its own ends from here on
	for i := strings.IndexByte(text, escape); i >= 0 && i < len(text); {
		n := 0
		if !open {
			n, open = stringSequence(text[i:])
		}
		if n == 0 {
			n = sequence(text[i:])
		}
		if n > 0 {
			b.WriteString(text[done:i])
			done = i + n
		}
		next := i + max(n, 1)
		if i = strings.IndexByte(text[next:], escape); i >= 0 {
			i += next
		}
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

const escape, bell = 0x1b, 0x07

// stringSequence returns the length of a command that goes on until its own end,
// at the beginning of a text, or 0. open: it is one, and has no end.
func stringSequence(text string) (n int, open bool) {
	if len(text) < 2 || strings.IndexByte("]P^_X", text[1]) < 0 {
		return 0, false
	}
	for i := 2; i < len(text); i++ {
		switch {
		case text[i] == bell:
			return i + 1, false
		case text[i] == escape && strings.HasPrefix(text[i+1:], `\`):
			return i + 2, false
		}
	}
	return 0, true
}

// sequence returns the length of any other command at the beginning of a text,
// or 0.
func sequence(text string) int {
	if len(text) < 2 || text[1] < '@' || text[1] > '_' {
		return 0
	}
	if text[1] != '[' {
		return 2
	}
	i := 2
	for i < len(text) && text[i] >= '0' && text[i] <= '?' {
		i++
	}
	for i < len(text) && text[i] >= ' ' && text[i] <= '/' {
		i++
	}
	if i < len(text) && text[i] >= '@' && text[i] <= '~' {
		return i + 1
	}
	return 2
}

// oneLine returns text as one line of visible characters.
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, "")
	text = withoutSequences(text)
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}
