package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// maxBody is the largest body of a request.
	maxBody = 1 << 20
	// maxShown is how much of an answer is returned.
	maxShown = 256 << 10
	// methodParameter is what turns a request into another one at some servers.
	methodParameter = "_method"
)

// Request is a request that is made with a stored credential.
type Request struct {
	Method string            // GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE
	Path   string            // an absolute path, percent-encoded where it must be; no query
	Query  map[string]string // added to the path
	Header map[string]string // none that carries a credential or steers the connection
	// Body is nil, a string (sent as it is), a []byte or json.RawMessage (sent
	// as it is, as JSON), or anything else (sent as its JSON). The type is
	// the Content-Type of Header where that has one.
	Body any
}

// Response is what a service answered, whatever its status was. Every secret
// in it is masked, in the headers, the body and the file: each stored one in
// plain, base64, base64url, hex, URL-, HTML- and JSON-escaped, and whatever
// looks like a secret of a known protocol. That stops echoes and accidents. It
// does not stop a service that wants to tell its own secret: one that spells it
// backwards, or packs it into an archive, gets it through.
type Response struct {
	Status    int
	Header    map[string][]string // those worth knowing, in canonical form
	Body      []byte              // text; empty when Binary is not
	Truncated bool                // Body is only the beginning
	Binary    string              // what the body is, when it is not text: "image/png, 1234 bytes"
	File      *File               // where more than 256 KiB of a body are; nil: nowhere
	Unfiled   string              // why not all of them are there, in a sentence; "": they are
	// Unrenewed is why a credential that was refused could not be renewed; nil:
	// it was, or it need not be, or its protocol has nothing to renew.
	Unrenewed error
	// Refusal is what an answer says as an error, its code and how long to wait;
	// nil for one that is none.
	Refusal *Error
}

// httpStatus is what the audit trail has of a response.
func (r Response) httpStatus() int { return r.Status }

// Do makes a request with a stored credential, at the origin that issued it
// and nowhere else. A *[RefusedError] says that none was made. An answer is a
// Response whatever its status: only no answer is an *[Error].
//
// A 401 does not mark the credential: it may come from something between us
// and the service, or mean this one route, and a credential marked as revoked
// is no proof of an identity any more. What can be renewed is renewed, once;
// what another process has replaced meanwhile is tried once in its new form.
func (l *Lifecycle) Do(ctx context.Context, k credstore.Key, r Request) (Response, error) {
	act := Act{Action: ActWrite, Key: k, Method: strings.ToUpper(r.Method), Path: r.Path}
	if safe(act.Method) {
		act.Action = ActRead
	}
	return does(ctx, l.steward, act, func(ctx context.Context) (Response, error) { return l.do(ctx, k, r) })
}

func (l *Lifecycle) do(ctx context.Context, k credstore.Key, r Request) (Response, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	ctx, quiet := reporting(ctx)
	defer quiet()
	p, err := l.protocol(k)
	if err != nil {
		return Response{}, err
	}
	m, err := l.message(ctx, k, p, r)
	if err != nil {
		return Response{}, err
	}
	op := call{
		protocol: k.Protocol, origin: k.Origin, acts: !safe(m.method),
		op: m.method + " " + l.http.scrub.said(m.url.EscapedPath()),
	}
	l.heal(ctx, k)
	if l.files != nil {
		l.files.pruneOnce(ctx)
		m.keep = func(ctx context.Context, a answer, body io.Reader) (*kept, error) { return l.keep(ctx, op, a, body) }
	}
	a, err := l.authorized(ctx, k, p, op, m)
	if err != nil {
		return Response{}, err
	}
	return l.response(ctx, op, m, a)
}

// message checks a request and makes it, all but the credential.
func (l *Lifecycle) message(ctx context.Context, k credstore.Key, p Protocol, r Request) (message, error) {
	m := message{method: strings.ToUpper(r.Method)}
	methods := []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
	if !slices.Contains(methods, m.method) {
		return m, &RefusedError{Why: "The method must be one of " + strings.Join(methods, ", ") + "."}
	}
	if why := refusePath(r.Path); why != "" {
		return m, &RefusedError{Why: why}
	}
	routes, err := l.reserved(ctx, k, p)
	if err != nil {
		return m, err
	}
	if route, ok := reservedBy(routes, m.method, r.Path); ok {
		return m, &RefusedError{Why: "That route issues or ends a credential, which is not for a plain request.", Tool: route.Tool}
	}
	u, err := url.Parse(k.Origin + r.Path)
	if err != nil || originOf(u) != k.Origin {
		return m, &RefusedError{Why: "The path is not valid."}
	}
	query := make(url.Values)
	for name, value := range r.Query {
		if strings.EqualFold(name, methodParameter) {
			return m, &RefusedError{Why: "The query must not have _method, which turns the request into another one."}
		}
		query.Set(name, value)
	}
	if u.RawQuery = query.Encode(); len(u.RawQuery) > maxPath {
		return m, &RefusedError{Why: "The query is too long."}
	}
	m.url = u
	var why string
	if m.header, why = requestHeader(r.Header, l.protocols); why != "" {
		return m, &RefusedError{Why: why}
	}
	return m, m.setBody(r.Body)
}

// setBody sets the body of a request and its type.
func (m *message) setBody(body any) error {
	kind := "application/json"
	switch b := body.(type) {
	case nil:
		return nil
	case string:
		m.body = []byte(b)
		if !json.Valid(m.body) {
			kind = "text/plain; charset=utf-8"
		}
	case []byte:
		m.body = b
	case json.RawMessage:
		m.body = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return &RefusedError{Why: "The body cannot be written as JSON."}
		}
		m.body = data
	}
	switch {
	case len(m.body) > maxBody:
		return &RefusedError{Why: fmt.Sprintf("The body is larger than %d bytes.", maxBody)}
	case m.method == http.MethodGet || m.method == http.MethodHead || m.method == http.MethodOptions:
		return &RefusedError{Why: "A " + m.method + " request has no body."}
	}
	if m.header.Get("Content-Type") == "" {
		m.header.Set("Content-Type", kind)
	}
	if m.becomesAnother() {
		return &RefusedError{Why: "The body must not have a field _method, which turns the request into another one."}
	}
	return nil
}

// becomesAnother reports whether a body has the field by which some servers take
// a POST for a request of another method: one that the policy may not allow, or
// that is reserved.
func (m message) becomesAnother() bool {
	isIt := func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), methodParameter) }
	var fields map[string]json.RawMessage
	if json.Unmarshal(m.body, &fields) == nil {
		return slices.ContainsFunc(slices.Collect(maps.Keys(fields)), isIt)
	}
	kind, params, _ := mime.ParseMediaType(m.header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		// However its parts are written down: what names a field names it as it is.
		return params["boundary"] == "" || bytes.Contains(bytes.ToLower(m.body), []byte(methodParameter))
	case kind == "application/x-www-form-urlencoded":
		for pair := range strings.FieldsFuncSeq(string(m.body), func(r rune) bool { return r == '&' || r == ';' }) {
			name, _, _ := strings.Cut(pair, "=")
			if plain, err := url.QueryUnescape(name); err != nil || isIt(plain) {
				return true // what cannot be read some server reads in its own way
			}
		}
	}
	return false
}

// reserved returns the routes that a plain request must not reach: those of
// the credential's protocol, and those of every protocol that lives at the
// same service, as all of them do at the embedded gateway: because it is set to
// that, or a credential of it is stored from there. The scrubber learns of all
// that is stored by the way, before anything is sent: an answer that cannot be
// looked through would have to be withheld, and what the request did would stay
// unknown.
func (l *Lifecycle) reserved(ctx context.Context, k credstore.Key, own Protocol) ([]wire.Route, error) {
	stored, err := l.http.scrub.loadAll(ctx)
	if err != nil {
		return nil, err
	}
	var routes []wire.Route
	for _, p := range l.protocols {
		name := p.Wire().Name
		here := slices.ContainsFunc(stored, func(i credstore.Info) bool { return i.Protocol == name && sameService(i.Origin, k.Origin) })
		if here || p == own || sameService(p.Origin(), k.Origin) {
			routes = append(routes, p.Wire().Reserved...)
		}
		// Routes are named in an answer to a registration, which is stored.
		if r, ok := p.(Reserver); ok && (here || p == own) {
			named, err := r.Reserved(ctx, k)
			if err != nil {
				return nil, err
			}
			routes = append(routes, named...)
		}
	}
	return routes, nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// authorized sends a request with the credential. After a 401 it sends it
// once more if the credential is another one by then.
func (l *Lifecycle) authorized(ctx context.Context, k credstore.Key, p Protocol, op call, m message) (answer, error) {
	a, sent, err := l.once(ctx, k, p, op, m)
	if err != nil || a.status != http.StatusUnauthorized {
		return a, err
	}
	if r, ok := p.(Renewer); ok {
		if err := r.Renew(ctx, k); err != nil {
			l.log.WarnContext(ctx, "a credential could not be renewed", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
			a.unrenewed = err
			return a, nil
		}
	}
	now, err := l.authorize(ctx, k, p, m)
	if err != nil || maps.EqualFunc(sent, now.header, slices.Equal[[]string]) {
		return a, nil
	}
	a.drop()
	again, _, err := l.once(ctx, k, p, op, m)
	return again, err
}

// authorize returns the message with the credential in it.
func (l *Lifecycle) authorize(ctx context.Context, k credstore.Key, p Protocol, m message) (message, error) {
	req, err := http.NewRequestWithContext(ctx, m.method, m.url.String(), nil)
	if err != nil {
		return m, &RefusedError{Why: "The request is not valid."}
	}
	req.Header = m.header.Clone()
	if err := p.Authorize(ctx, k, req); err != nil {
		return m, err
	}
	m.header, m.url = req.Header, req.URL
	if originOf(m.url) != k.Origin {
		return m, &RefusedError{Why: "A credential goes to the origin that issued it only."}
	}
	return m, nil
}

// once sends a request with the credential and follows redirects within the
// origin, where that is safe. It also returns the headers that it sent.
func (l *Lifecycle) once(ctx context.Context, k credstore.Key, p Protocol, op call, m message) (answer, http.Header, error) {
	m, err := l.authorize(ctx, k, p, m)
	if err != nil {
		return answer{}, nil, err
	}
	limit := maxShown + l.http.scrub.current().longest
	if m.keep != nil {
		limit = maxShown // whatever comes behind it is looked through as it comes
	}
	for hop := 0; ; hop++ {
		a, err := l.http.retry(ctx, safe(m.method), func() (answer, error) { return l.http.send(ctx, op, m, limit) })
		if err != nil || !isRedirect(a) {
			return a, m.header, err
		}
		to, ok := redirectTo(m.url, a)
		if !ok {
			a.drop()
			e := l.http.redirected(ctx, op, m.url, a)
			e.Sent = !safe(m.method)
			return a, m.header, e
		}
		routes, err := l.reserved(ctx, k, p)
		if err != nil {
			a.drop()
			return a, m.header, err
		}
		next, ok := follow(m, a, to, routes)
		if !ok || hop == maxHops || l.steward.policy.leads(k, next.method, next.url.EscapedPath()) != nil {
			return a, m.header, nil
		}
		a.drop()
		m = next
	}
}
