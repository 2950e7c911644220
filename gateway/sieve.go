package gateway

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	// sieved is how much of a stream is masked at a time.
	sieved = 64 << 10
	// margins is how many times as long as a secret's longest spelling a margin
	// is: escapes, and escapes of those, make it longer.
	margins = 8
	// maxMargin bounds it.
	maxMargin = 512 << 10
	// maxSeams is how many places are tried to cut a stream at.
	maxSeams = 16
)

// errHides: a stream that is not text has a secret in it, or turned out not to
// be text after some of it was masked. It cannot be masked without breaking it.
var errHides = errors.New("a body that is not text holds a secret")

// errKnot: there is no place where a text could be parted without parting what
// may be a secret.
var errKnot = errors.New("a body has no place to part it at")

// sieve masks a stream of any length piece by piece and hands on what may be
// seen of it. Text comes out as [masker.mask] would have it, without invisible
// characters; what is not text comes out as it is, or not at all.
//
// A piece ends only where nothing secret lies across: where its end and the
// beginning of the next, looked through each by itself, give what the two give
// together. Where no such place is found, nothing behind it is handed on. So no
// more is in memory than a piece and what is needed to find its end, and
// a secret that comes in two pieces is found all the same. What is not found is
// one that is spelled in more than 16 times its length.
type sieve struct {
	// masker returns the masker of all that is known by now.
	masker func() (*masker, error)
	// out takes what may be seen.
	out func(piece []byte) error
	// ended returns why nobody wants any more of it; nil: somebody always does.
	// To find the end of a piece can take longer than a cancelled call may.
	ended func() error
	// size is how much is masked at a time, beside the margins.
	size int

	held    []byte // what has come and is not looked through yet
	changed bool   // what went out is not what came
	binary  bool   // what comes is not text
}

// Write implements [io.Writer]. It takes p wholly unless it returns an error.
func (s *sieve) Write(p []byte) (int, error) {
	s.held = append(s.held, p...)
	for {
		m, err := s.masker()
		if err != nil {
			return 0, err
		}
		if len(s.held) < s.size+2*m.margin() {
			return len(p), nil
		}
		if err := s.piece(m); err != nil {
			return 0, err
		}
	}
}

// Close hands on what is left.
func (s *sieve) Close() error {
	m, err := s.masker()
	if err != nil {
		return err
	}
	end := len(s.held)
	if err := s.judge(s.held); err != nil {
		return err
	}
	if s.binary {
		return s.raw(m, end)
	}
	return s.text(m.clean(string(s.held)), end)
}

// piece hands on all of what is held that can be.
func (s *sieve) piece(m *masker) error {
	margin := m.margin()
	end := runeStart(s.held, len(s.held)-margin)
	if err := s.judge(s.held[:end]); err != nil {
		return err
	}
	if s.binary {
		return s.raw(m, len(s.held)-margin)
	}
	at, ok, err := s.seam(m, s.held[:end+margin], end, margin, s.size/2)
	if err != nil {
		return err
	}
	if ok {
		return s.text(m.clean(string(s.held[:at])), at)
	}
	// The beginning of what lies across ends up in the last bytes before the end.
	text := m.clean(string(s.held[:end]))
	if err := s.text(strings.ToValidUTF8(text[:max(0, len(text)-margin)], ""), end); err != nil {
		return err
	}
	return errKnot
}

// judge sees whether what comes is text.
func (s *sieve) judge(piece []byte) error {
	if s.binary || isText(piece) {
		return nil
	}
	if s.changed {
		return errHides
	}
	s.binary = true
	return nil
}

// text hands on a piece of text; n bytes of what is held are done.
func (s *sieve) text(clean string, n int) error {
	s.changed = s.changed || clean != string(s.held[:n])
	return s.pass([]byte(clean), n)
}

// raw hands on n bytes of what is held as they are. All of what is held is
// looked through, so that nothing secret lies across the end of them.
func (s *sieve) raw(m *masker, n int) error {
	all := string(s.held)
	if m.mask(all) != all {
		return errHides
	}
	return s.pass(s.held[:n], n)
}

func (s *sieve) pass(piece []byte, n int) error {
	if err := s.out(piece); err != nil {
		return err
	}
	s.held = s.held[:copy(s.held, s.held[n:])]
	return nil
}

// margin returns how far around a place is looked for what lies across it.
func (m *masker) margin() int { return min(margins*m.longest, maxMargin) }

// clean returns what may be seen of a text: masked, and without invisible
// characters.
func (m *masker) clean(text string) string {
	text = m.mask(text)
	if shown := visible(text); shown != text {
		text = m.mask(shown) // what was taken out may have hidden a secret
	}
	return text
}

// seam returns a place in a text, at end or so many bytes before it, that nothing
// secret lies across. First where words end, then anywhere.
func (s *sieve) seam(m *masker, text []byte, end, margin, back int) (at int, ok bool, err error) {
	at, first := end, end-back
	for n := range maxSeams {
		if at <= first+n*n*n+1 {
			break
		}
		if s.ended != nil {
			if err := s.ended(); err != nil {
				return 0, false, err
			}
		}
		if parted(m, text, at, margin) {
			return at, true, nil
		}
		at -= 1 + n*n*n // further each time, to get out of what is long
		if i := bytes.LastIndexAny(text[first:at], " \n,<>{}[]\"'"); i >= 0 {
			at = first + i + 1
		} else {
			at = runeStart(text, at)
		}
	}
	return 0, false, nil
}

// parted reports whether nothing secret lies across a place in a text.
func parted(m *masker, text []byte, at, margin int) bool {
	start, end := max(0, at-margin), min(len(text), at+margin)
	near := string(text[start:end])
	if m.clean(near) == near {
		return true // there is nothing secret near it
	}
	// First what is near it, then all: a secret that overlaps itself can be
	// found at other places where the text begins elsewhere.
	return joined(m, text[start:at], text[at:end]) && joined(m, text[:at], text[at:end])
}

// joined reports whether two texts, each looked through by itself, give what
// they give together.
func joined(m *masker, left, right []byte) bool {
	l, r := string(left), string(right)
	// One may have its escapes undone where the other has not.
	return m.bare(m.clean(l)+m.clean(r)) == m.bare(m.clean(l+r))
}

// bare returns a text with all escapes undone.
func (m *masker) bare(text string) string {
	for range 2 * maxFolds {
		next := unfold(text)
		if next == text {
			break
		}
		text = next
	}
	return text
}

// runeStart returns the place of the character that a place in a text is in.
func runeStart(text []byte, at int) int {
	for back := 0; back < utf8.UTFMax && at-back > 0; back++ {
		if at-back == len(text) || utf8.RuneStart(text[at-back]) {
			return at - back
		}
	}
	return at // it is not text
}

// isText reports whether a body is text in UTF-8.
func isText(body []byte) bool { return bytes.IndexByte(body, 0) < 0 && utf8.Valid(body) }
