package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// response returns what may be seen of an answer.
func (l *Lifecycle) response(ctx context.Context, op call, m message, a answer) (Response, error) {
	if err := l.http.scrub.load(ctx); err != nil {
		a.drop()
		if ctx.Err() != nil {
			return Response{}, l.http.broken(ctx, op, err, true)
		}
		return Response{}, unsearched(op, a, err)
	}
	scrub := l.http.scrub.current()
	r := Response{Status: a.status, Header: shownHeader(a.header, m.url, scrub), Unrenewed: a.unrenewed}
	if a.status >= http.StatusBadRequest {
		r.Refusal = l.http.refused(ctx, op, a)
	}
	if k := a.kept; k != nil {
		r.Body, r.Binary, r.Unfiled = k.head, k.binary, k.why
		if k.file != nil {
			r.File = &File{Path: k.file.path(), Size: k.file.size, Truncated: k.cut}
		}
		r.Truncated = r.Binary == "" && (k.file != nil || k.why != "")
		return r, nil
	}
	if r.Binary = binary(a); r.Binary != "" {
		return r, nil
	}
	text := scrub.mask(string(a.body))
	if a.cut {
		// A secret may lie across the end of what was read.
		text = text[:max(0, len(text)-scrub.longest)]
	}
	if shown := shownText(text); shown != text {
		text = scrub.mask(shown) // what was taken out may have hidden a secret
	}
	r.Truncated = a.cut || len(text) > maxShown
	if r.Body = a.body; text != string(a.body) {
		r.Body = []byte(text)
	}
	if r.Body = upTo(r.Body, maxShown); a.cut {
		r.Body = bytes.ToValidUTF8(r.Body, nil)
	}
	return r, nil
}

// shownText returns a body without invisible characters.
func shownText(text string) string {
	if strings.IndexByte(text, '\\') < 0 && allVisible(text) {
		return text // the usual case, and fast
	}
	if json.Valid([]byte(text)) {
		return string(visibleJSON([]byte(text)))
	}
	return visible(text)
}

// shownHeader returns the headers of an answer that are worth knowing.
func shownHeader(h http.Header, from *url.URL, scrub *masker) map[string][]string {
	shown := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if !told(name) || len(shown) == maxHeaders {
			continue
		}
		for _, value := range h[name][:min(len(h[name]), maxHeaders)] {
			if len(value) > maxHeaderValue || name == "Location" && !within(from, value) {
				continue
			}
			shown[name] = append(shown[name], scrub.mask(oneLine(scrub.mask(value))))
		}
	}
	return shown
}

// within reports whether a URL in a header stays at the origin.
func within(from *url.URL, to string) bool {
	u, err := from.Parse(to)
	return err == nil && originOf(u) == originOf(from)
}

// binary describes a body that is not text, or returns "".
func binary(a answer) string {
	if why := foreign(a); why != "" {
		return why
	}
	sample := a.body
	if a.cut {
		sample = sample[:runeStart(sample, max(0, len(sample)-utf8.UTFMax))]
	}
	if isText(sample) {
		return ""
	}
	size := fmt.Sprint(len(a.body))
	if a.cut {
		size = "more than " + size
	}
	return describe(a.body, size)
}
