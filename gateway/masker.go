package gateway

import (
	"cmp"
	"math/bits"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// shapeLen is a length that no secret with a shape of its own exceeds.
	shapeLen = 512
	// headLen is how many bytes of a text are looked at to rule out that a
	// secret begins there.
	headLen = 8
	// headBits is the size of the table that most places are ruled out by.
	headBits = 16
	// stride is how far apart the places are that are looked at first. What is
	// as long as a head and so many bytes more covers one of them wholly.
	stride = 4
	// maxFolds is how often escapes are undone: an escape can be escaped itself.
	maxFolds = 4
)

// masker masks a fixed set of secrets. Every answer goes through one, so that
// it must be fast where there is nothing to mask: for the known secrets it
// looks at every fourth place, and for what looks like one at every byte, once.
// Only what that does not rule out is looked at closely.
type masker struct {
	maybe   [1 << headBits / 64]uint64 // a bit for what a head or a window hashes to
	windows map[uint64]struct{}        // the heads at the first places of what is looked for
	byHead  map[uint64][]replacement   // the longest first
	short   []replacement              // those shorter than a head
	brief   []string                   // those shorter than a head and a stride
	shapes  []wire.Shape
	begins  []string        // what each shape begins with; "": that is not known
	ends    map[byte]uint32 // by the last byte of those, a bit for each shape
	longest int             // the length of the longest text that gives a secret away
}

// replacement is a text that gives a secret away, and what is shown instead.
type replacement struct{ old, with string }

func newMasker(known map[string]struct{}, shapes []wire.Shape) *masker {
	var all []replacement
	for secret := range known {
		mask := masked
		for _, shape := range shapes {
			if shape.Pattern.FindString(secret) == secret {
				mask = shape.Pattern.ReplaceAllString(secret, shape.Mask)
			}
		}
		all = append(all, replacement{secret, mask})
		for _, spelling := range spellings(secret) {
			all = append(all, replacement{spelling, masked})
		}
	}
	// A secret goes before its own parts, and the order is always the same.
	slices.SortFunc(all, func(a, b replacement) int {
		return cmp.Or(cmp.Compare(len(b.old), len(a.old)), strings.Compare(a.old, b.old))
	})
	m := &masker{longest: shapeLen, byHead: make(map[uint64][]replacement), windows: make(map[uint64]struct{})}
	for _, r := range all {
		m.longest = max(m.longest, len(r.old))
		if len(r.old) < headLen {
			m.short = append(m.short, r)
			continue
		}
		head := headAt(r.old, 0)
		m.byHead[head] = append(m.byHead[head], r)
		m.note(head)
		if len(r.old) < headLen+stride-1 {
			m.brief = append(m.brief, r.old)
			continue
		}
		for i := range stride {
			m.windows[headAt(r.old, i)] = struct{}{}
			m.note(headAt(r.old, i))
		}
	}
	m.learnShapes(shapes)
	return m
}

// learnShapes sets what is masked by its looks.
func (m *masker) learnShapes(shapes []wire.Shape) {
	m.shapes = shapes
	m.begins = make([]string, len(shapes))
	m.ends = make(map[byte]uint32)
	for i, s := range shapes {
		if i == 32 {
			break // there is no bit for it: it is always looked for
		}
		if m.begins[i] = beginning(s.Pattern); m.begins[i] != "" {
			m.ends[m.begins[i][len(m.begins[i])-1]] |= 1 << i
		}
	}
}

// beginning returns a text that every match of a pattern has in it: what it
// begins with, as written, or "".
func beginning(pattern wire.Pattern) string {
	re, err := syntax.Parse(pattern.String(), syntax.Perl)
	if err != nil {
		return ""
	}
	for {
		switch {
		case re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase == 0:
			return string(re.Rune)
		case re.Op == syntax.OpCapture:
			re = re.Sub[0]
		case re.Op == syntax.OpConcat && (re.Sub[0].Op == syntax.OpWordBoundary || re.Sub[0].Op == syntax.OpEmptyMatch):
			re.Sub = re.Sub[1:]
			if len(re.Sub) == 0 {
				return ""
			}
		case re.Op == syntax.OpConcat:
			re = re.Sub[0]
		default:
			return ""
		}
	}
}

// headAt returns the head at a place of a text, as [roll] makes it.
func headAt(text string, i int) uint64 {
	t := text[i : i+headLen]
	return uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
		uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
}

// roll returns the head that is one byte further.
func roll(head uint64, next byte) uint64 { return head>>8 | uint64(next)<<56 }

func hash(head uint64) uint64 { return head * 0x9e3779b97f4a7c15 >> (64 - headBits) }

// note remembers a head.
func (m *masker) note(head uint64) {
	bit := hash(head)
	m.maybe[bit/64] |= 1 << (bit % 64)
}

// mask returns text without the secrets. Where one shows only after escapes
// are undone and line breaks are taken out, the text is returned with that
// done. Known secrets go first: a shape matches the beginning of one that is
// broken in the middle, and the rest would not be recognised any more.
func (m *masker) mask(text string) string {
	out, plainest := unfolding(text, m.exact)
	if m.shaped(plainest) != plainest || out != plainest && m.shaped(out) != out {
		out, _ = unfolding(out, m.shaped)
	}
	return out
}

// unfolding masks text, and again after each layer of escapes is undone.
// Undoing an escape can break a secret that is plain to see, so what shows is
// masked before. It returns the text after the last layer that hid something,
// and after the last one of all.
func unfolding(text string, mask func(string) string) (out, plainest string) {
	text = mask(text)
	out = text
	for range maxFolds {
		next := unfold(text)
		if next == text {
			break
		}
		if text = mask(next); text != next {
			out = text
		}
	}
	return out, text
}

// shaped masks what looks like a secret.
func (m *masker) shaped(text string) string {
	there := m.begun(text)
	for i, s := range m.shapes {
		if m.begins[i] != "" && there&(1<<i) == 0 {
			continue
		}
		if next := s.Pattern.ReplaceAllString(text, s.Mask); next != text {
			text = next
			there |= m.begun(text)
		}
	}
	return text
}

// begun returns a bit for each shape whose beginning is in a text. What they
// begin with ends in one of a few bytes, which are rare: most of a text is
// passed over quickly.
func (m *masker) begun(text string) (there uint32) {
	for last, shapes := range m.ends {
		for at := 0; shapes&^there != 0; at++ {
			i := strings.IndexByte(text[at:], last)
			if i < 0 {
				break
			}
			at += i
			for maybe := shapes &^ there; maybe != 0; maybe &= maybe - 1 {
				if n := bits.TrailingZeros32(maybe); strings.HasSuffix(text[:at+1], m.begins[n]) {
					there |= 1 << n
				}
			}
		}
	}
	return there
}

// clear reports that none of the known secrets is in a text, but for the short
// ones. That it does not is no proof of the contrary.
func (m *masker) clear(text string) bool {
	for _, old := range m.brief {
		if strings.Contains(text, old) {
			return false
		}
	}
	for i := 0; i+headLen <= len(text); i += stride {
		head := headAt(text, i)
		bit := hash(head)
		if m.maybe[bit/64]&(1<<(bit%64)) == 0 {
			continue
		}
		if _, ok := m.windows[head]; ok {
			return false
		}
	}
	return true
}

// exact masks the known secrets: the first of what overlaps, and the longest
// of what begins at the same place.
func (m *masker) exact(text string) string {
	if !m.clear(text) {
		text = m.replaced(text)
	}
	for _, r := range m.short { // last: one may be a part of a longer one
		text = strings.ReplaceAll(text, r.old, r.with)
	}
	return text
}

// replaced is exact for those that are not short.
func (m *masker) replaced(text string) string {
	var b strings.Builder
	var head uint64
	done := 0 // so much of text is written
	for end := 0; end < len(text); end++ {
		head = roll(head, text[end])
		bit := hash(head)
		if m.maybe[bit/64]&(1<<(bit%64)) == 0 {
			continue
		}
		start := end + 1 - headLen
		if start < done {
			continue
		}
		for _, r := range m.byHead[head] {
			if strings.HasPrefix(text[start:], r.old) {
				b.WriteString(text[done:start])
				b.WriteString(r.with)
				done = start + len(r.old)
				end = done - 1
				head = 0
				break
			}
		}
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}
