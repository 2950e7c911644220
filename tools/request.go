package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// RequestInput is the arguments of send_request.
type RequestInput struct {
	CredentialInput
	Method  string            `json:"method" jsonschema:"enum=DELETE,enum=GET,enum=HEAD,enum=OPTIONS,enum=PATCH,enum=POST,enum=PUT"`
	Path    string            `json:"path" jsonschema:"as in /api/v1/strategies; no host, no query"`
	Query   map[string]string `json:"query,omitzero"`
	Headers map[string]string `json:"headers,omitzero" jsonschema:"none that carries a credential"`
	Body    any               `json:"body,omitzero" jsonschema:"JSON, or a string that is sent as it is"`
}

// Answer is the result of send_request.
type Answer struct {
	Credential string              `json:"credential"`
	Status     int                 `json:"status"`
	Headers    map[string][]string `json:"headers,omitzero"`
	Body       any                 `json:"body,omitzero"`
	Binary     string              `json:"binary,omitzero"`
	Truncated  bool                `json:"truncated,omitzero"`
	File       *AnswerFile         `json:"file,omitzero"`
	NextStep   string              `json:"next_step,omitzero"`
}

// AnswerFile is where an answer is that is too long for a result.
type AnswerFile struct {
	Path      string `json:"path"`
	Bytes     int64  `json:"bytes"`
	Truncated bool   `json:"truncated,omitzero"`
}

// The methods of send_request in its schema, and those with --read-only: what a
// model cannot do it is not offered.
const (
	allMethods  = `"enum":["DELETE","GET","HEAD","OPTIONS","PATCH","POST","PUT"]`
	readMethods = `"enum":["GET","HEAD","OPTIONS"]`
)

func sendRequest(d Deps) server.ServerTool {
	s := spec{
		name:  "send_request",
		title: "Send a request with a credential",
		description: "Makes an HTTP request with a credential, to the service that issued it. " +
			"Call it for routes that have no tool of their own, but not for those that issue or end credentials. " +
			"Returns status, headers and body; one over 256 KiB goes into a file. " +
			"If the answer was lost, look with GET before you repeat a write.",
		readOnly:    false,
		destructive: true,  // a DELETE or POST can do anything there
		idempotent:  false, // nor need it be harmless twice
		openWorld:   true,
		kept:        unchanged,
		lost:        asItWas + " Whether the service did what the request asked for is not known.",
		lostStep:    "Call send_request with method GET: find out whether it was done, before you repeat it.",
	}
	if d.ReadOnly {
		s.description = strings.Replace(s.description, "an HTTP request", "a GET, HEAD or OPTIONS request (--read-only allows no other)", 1)
		s.readOnly, s.destructive, s.idempotent = true, false, true
	}
	t := tool(d, s, func(ctx context.Context, in RequestInput) (Answer, error) {
		if d.ReadOnly && !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions}, in.Method) {
			return Answer{}, &gateway.RefusedError{Why: "Enlist was started with --read-only, so it makes GET, HEAD and OPTIONS requests only."}
		}
		info, err := d.resolve(ctx, in.Credential)
		if err != nil {
			return Answer{}, err
		}
		began := d.Now()
		r, err := d.Client.Lifecycle.Do(ctx, info.Key, gateway.Request{
			Method: in.Method, Path: in.Path, Query: in.Query, Header: in.Headers, Body: in.Body,
		})
		if err != nil {
			return Answer{}, d.whileUsing(ctx, info, began, err)
		}
		out := Answer{
			Credential: d.Client.Lifecycle.Handle(info.Key),
			Status:     r.Status, Headers: r.Header, Binary: r.Binary, Truncated: r.Truncated,
		}
		out.Body = body(r)
		if r.File != nil {
			out.File = &AnswerFile{Path: r.File.Path, Bytes: r.File.Size, Truncated: r.File.Truncated}
		}
		if r.Unfiled != "" {
			out.NextStep = "Call send_request for less of it at a time, if the service can. " + r.Unfiled
		}
		if step := d.refusedStep(ctx, s, info, r); step != "" {
			out.NextStep = step + d.withheld(step)
		}
		return out, nil
	})
	if d.ReadOnly {
		t.Tool.RawInputSchema = bytes.Replace(t.Tool.RawInputSchema, []byte(allMethods), []byte(readMethods), 1)
	}
	return t
}

// refusedStep is the next step after an answer that is none because of who asked,
// or how often; "" for any other.
func (d Deps) refusedStep(ctx context.Context, s spec, info credstore.Info, r gateway.Response) string {
	p, handle := protocols()[info.Protocol], d.Client.Lifecycle.Handle(info.Key)
	var instead *gateway.RefusedError
	switch {
	case errors.As(r.Unrenewed, &instead) && instead.Tool == p.register:
		return strings.TrimSuffix(sentence(p.same(info.Key)), ".") + " if every route refuses the credential; this one may need more than was granted."
	case errors.As(r.Unrenewed, &instead):
		return "Call rotate_credential with credential " + handle + ", then " + s.again() + " with the same arguments."
	case r.Unrenewed != nil:
		return d.explain(ctx, s, r.Unrenewed).NextStep
	case r.Status == http.StatusUnauthorized && !d.renews(info.Protocol) && d.rotates(info.Protocol):
		return "Call rotate_credential with credential " + handle + ", then " + s.again() + " with the same arguments."
	case r.Status == http.StatusForbidden && r.Refusal != nil && r.Refusal.Theirs && p.advice[r.Refusal.Code] != "":
		return s.here(p.advice[r.Refusal.Code])
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return "Tell the person: the service refuses this request. The route may need more than was granted; others may be open to the credential."
	case r.Status == http.StatusPaymentRequired:
		return "Tell the person that the service wants to be paid. Enlist does not pay."
	case r.Status == http.StatusTooManyRequests && r.Refusal != nil && r.Refusal.RetryAfter > 0:
		return fmt.Sprintf("Wait %s, then %s with the same arguments.", r.Refusal.RetryAfter.Round(time.Second), s.again())
	case r.Status == http.StatusTooManyRequests:
		return "Wait a minute, then " + s.again() + " with the same arguments."
	}
	return ""
}

// body returns the body of an answer as a model is shown it: JSON as such,
// anything else, and what was cut, as text.
func body(r gateway.Response) any {
	switch {
	case len(r.Body) == 0:
		return nil
	case !r.Truncated && isJSON(r.Header) && json.Valid(r.Body):
		return json.RawMessage(r.Body)
	}
	return string(r.Body)
}

// isJSON reports whether a Content-Type says JSON.
func isJSON(header map[string][]string) bool {
	kind, _, err := mime.ParseMediaType(http.Header(header).Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}
