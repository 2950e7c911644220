package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// refused returns the Error for an error status, with the service's own code
// and words where it gave any. What cannot be told from words, or from a code
// of ours, is passed on as words.
func (c *caller) refused(ctx context.Context, k call, a answer) *Error {
	code, text := refusal(a.body)
	e := k.fail(CodeHTTPStatus, nil)
	switch {
	case codeLike.MatchString(code) && !isOwnCode(code) && c.scrub.Said(ctx, code) == code:
		e.Code, e.Theirs = code, true
	case code != "" && text != "":
		text = code + ": " + text
	case code != "":
		text = code
	}
	e.Status = a.status
	e.Message = c.scrub.Said(ctx, text)
	e.Sent = k.acts && a.status >= http.StatusInternalServerError
	e.RetryAfter, _ = retryAfter(a.header, c.now())
	return e
}

// redirected returns the Error for a redirect that is not followed. It names
// the other origin and no more: a path or a query may hold what is private.
func (c *caller) redirected(ctx context.Context, k call, from *url.URL, a answer) *Error {
	e := k.fail(CodeRedirect, nil)
	e.Status = a.status
	to, err := from.Parse(a.header.Get("Location"))
	switch {
	case err != nil || to.Host == "" || a.header.Get("Location") == "":
		e.Cause = errors.New("a redirect to nowhere")
	case originOf(to) == originOf(from):
		e.Cause = errors.New("a redirect within the service, where its protocol has none")
	default:
		e.Cause = fmt.Errorf("a redirect to %s was not followed", c.scrub.Said(ctx, to.Scheme+"://"+to.Host))
	}
	return e
}

// refusal finds the code and the words in the body of an error, in whichever
// of the usual shapes it is: {"error":{"code","message"}}, {"error":"code",
// "message"}, {"error_code","message"}, {"detail"}, plain text, or a page.
func refusal(body []byte) (code, text string) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return "", pageText(string(body))
	}
	var inner map[string]json.RawMessage
	if err := json.Unmarshal(fields["error"], &inner); err == nil && inner != nil {
		return scalar(inner, "code", "type"), scalar(inner, "message", "detail")
	}
	code = scalar(fields, "error_code", "code")
	text = scalar(fields, "message", "detail", "error_description", "title")
	if said := scalar(fields, "error"); said != "" {
		switch {
		case code == "" && codeLike.MatchString(said):
			code = said
		case text == "":
			text = said
		}
	}
	return code, text
}

// codeLike matches what can be a code rather than a sentence.
var codeLike = wire.NewPattern(`^[A-Za-z0-9_.-]{1,64}$`)

// scalar returns the first of the named fields that is a non-empty string or
// a number.
func scalar(fields map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		raw := bytes.TrimSpace(fields[name])
		var s string
		if json.Unmarshal(raw, &s) == nil && s != "" {
			return s
		}
		var n json.Number
		if json.Unmarshal(raw, &n) == nil && n != "" {
			return n.String()
		}
	}
	return ""
}

var (
	unseen = wire.NewPattern(`(?is)<!--.*?-->|<(script|style|head)\b.*?</(script|style|head)>`)
	tag    = wire.NewPattern(`(?s)<[^>]*>`)
	title  = wire.NewPattern(`(?is)<title[^>]*>(.*?)</title>`)
)

// pageText returns what a page says to a reader, or the text itself when it
// is not a page.
func pageText(body string) string {
	if !strings.Contains(body, "<") {
		return body
	}
	if m := title.FindStringSubmatch(body); m != nil && strings.TrimSpace(m[1]) != "" {
		return m[1]
	}
	return tag.ReplaceAllString(unseen.ReplaceAllString(body, " "), " ")
}

// whatItIs says what a body is that should have been JSON.
func whatItIs(body []byte) string {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return "the answer is empty"
	case body[0] == '<':
		return "the answer is a web page, not the protocol's JSON: is the base URL right?"
	case json.Valid(body):
		return "the answer is JSON, but not what the protocol says"
	}
	return "the answer is not valid JSON"
}
