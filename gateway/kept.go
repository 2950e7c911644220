package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// File is a file that holds a body which was too long to be returned.
type File struct {
	Path string // absolute
	Size int64
	// Truncated: the file, too, has only the beginning.
	Truncated bool
}

// kept is what became of a long body, everything masked.
type kept struct {
	head   []byte // the first 256 KiB
	binary string // what it is, when it is not text
	file   *file  // nil: there is none
	cut    bool   // the file has only the beginning
	why    string // why there is no file, or not all in it
}

// errFull: the file is as large as it may become.
var errFull = errors.New("a body is longer than a file may be")

// keep reads a long body, masks it as it comes, and writes it to a file. It
// fails where the body cannot be read or masked; a file that cannot be written
// is no reason to lose an answer.
func (l *Lifecycle) keep(ctx context.Context, op call, a answer, body io.Reader) (*kept, error) {
	k := &kept{}
	if why := foreign(a); why != "" {
		k.binary = why
		return k, nil
	}
	s := &sieve{size: sieved, ended: ctx.Err, out: func(piece []byte) error { return l.take(ctx, k, a, piece) }}
	s.masker = func() (*masker, error) {
		if err := l.http.scrub.load(ctx); err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		} else if err != nil {
			return nil, unsearched(op, a, err)
		}
		return l.http.scrub.current(), nil
	}
	_, err := io.Copy(s, onlyReader{body})
	if err == nil {
		err = s.Close()
	}
	size := "more than " + fmt.Sprint(maxShown)
	switch {
	case errors.Is(err, errHides):
		k.discard()
		k.head, k.binary, k.why = nil, describe(a.body, size), "Something in it would have to be masked, which would break what is not text, so it is withheld."
		return k, nil
	case errors.Is(err, errFull):
		k.cut = true
	case errors.Is(err, errKnot):
		k.cut, k.why = true, "What follows could not be looked through for secrets, so it is withheld."
	case err != nil && k.why == "":
		k.discard()
		return nil, err
	}
	if k.file != nil {
		size = fmt.Sprint(k.file.size)
		if k.cut {
			size = "more than " + size
		}
		if err := k.file.finish(); err != nil {
			_ = l.unwritten(ctx, k, err) // what is kept says it
		}
	}
	if s.binary {
		k.head, k.binary = nil, describe(a.body, size)
	}
	return k, nil
}

// unsearched is the Error for an answer that cannot be looked through.
func unsearched(op call, a answer, cause error) *Error {
	e := op.fail(CodeWithheld, cause)
	e.Status, e.Sent = a.status, op.acts
	return e
}

// onlyReader hides what else a reader can: io.Copy must not hand all of a body
// over at once.
type onlyReader struct{ io.Reader }

// take adds a piece to what is kept.
func (l *Lifecycle) take(ctx context.Context, k *kept, a answer, piece []byte) error {
	if k.file == nil {
		k.head = append(k.head, piece...)
		if len(k.head) <= maxShown {
			return nil
		}
		f, err := l.files.create(ctx, extension(a))
		if err != nil {
			return l.unwritten(ctx, k, err)
		}
		piece, k.file = k.head, f
		defer func() { k.head = upTo(k.head, maxShown) }()
	}
	left := int64(maxFile) - k.file.size
	full := int64(len(piece)) > left
	if full {
		piece = upTo(piece, int(left))
	}
	if err := k.file.write(piece); err != nil {
		return l.unwritten(ctx, k, err)
	}
	if full {
		return errFull
	}
	return nil
}

// unwritten gives up the file of a body.
func (l *Lifecycle) unwritten(ctx context.Context, k *kept, err error) error {
	l.log.WarnContext(ctx, "a long answer could not be written to a file", "error", l.http.scrub.Own(err.Error()))
	k.discard()
	k.head = upTo(k.head, maxShown)
	k.why = "The whole of it could not be written to a file: " + l.http.scrub.Own(err.Error()) + "."
	return err
}

// discard removes the file.
func (k *kept) discard() {
	if k.file != nil {
		k.file.discard()
		k.file = nil
	}
}

// upTo returns the first bytes of a text, without half a character.
func upTo(text []byte, n int) []byte {
	if len(text) <= n {
		return text
	}
	for back := range min(utf8.UTFMax, n) {
		if utf8.RuneStart(text[n-back]) {
			return text[:n-back]
		}
	}
	return text[:n]
}

// foreign describes a body in an encoding that nobody asked for, or returns "".
// Nothing in it could be found.
func foreign(a answer) string {
	encoding := a.header.Get("Content-Encoding")
	if len(a.body) == 0 || encoding == "" || strings.EqualFold(encoding, "identity") {
		return ""
	}
	return "a body in a Content-Encoding that was not asked for; it is withheld, since no secret could be found in it"
}

// describe says what a body that is not text is, by its beginning.
func describe(beginning []byte, size string) string {
	// What it says it is could hold anything.
	kind, _, _ := strings.Cut(http.DetectContentType(beginning), ";")
	return kind + ", " + size + " bytes"
}
