package gateway

import (
	"cmp"
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
	// maxFolds is how often escapes are undone: an escape can be escaped itself.
	maxFolds = 4
)

// masker masks a fixed set of secrets. Every answer goes through one, so that
// it must be fast where there is nothing to mask: one multiplication and one
// look into a small table for each byte.
type masker struct {
	maybe   [1 << headBits / 64]uint64 // a bit for what a head hashes to
	byHead  map[uint64][]replacement   // the longest first
	short   []replacement              // those shorter than a head
	shapes  []wire.Shape
	longest int // the length of the longest text that gives a secret away
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
	m := &masker{shapes: shapes, longest: shapeLen, byHead: make(map[uint64][]replacement)}
	for _, r := range all {
		m.longest = max(m.longest, len(r.old))
		if len(r.old) < headLen {
			m.short = append(m.short, r)
			continue
		}
		var head uint64
		for i := range headLen {
			head = roll(head, r.old[i])
		}
		m.byHead[head] = append(m.byHead[head], r)
		bit := hash(head)
		m.maybe[bit/64] |= 1 << (bit % 64)
	}
	return m
}

// roll returns the head that is one byte further.
func roll(head uint64, next byte) uint64 { return head>>8 | uint64(next)<<56 }

func hash(head uint64) uint64 { return head * 0x9e3779b97f4a7c15 >> (64 - headBits) }

// mask returns text without the secrets. Where one shows only after escapes
// are undone and line breaks are taken out, the text is returned with that
// done. Known secrets go first: a shape matches the beginning of one that is
// broken in the middle, and the rest would not be recognised any more.
func (m *masker) mask(text string) string {
	out, plainest := unfolding(text, m.exact)
	if m.shaped(plainest) != plainest || m.shaped(out) != out {
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
	for _, s := range m.shapes {
		text = s.Pattern.ReplaceAllString(text, s.Mask)
	}
	return text
}

// exact masks the known secrets: the first of what overlaps, and the longest
// of what begins at the same place.
func (m *masker) exact(text string) string {
	for _, r := range m.short {
		text = strings.ReplaceAll(text, r.old, r.with)
	}
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
