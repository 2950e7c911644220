package embeddedgateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Front is what stands behind the gateway: an API that knows nothing of agents,
// to which only agents that are registered here get through.
type Front struct {
	// Upstream is the base URL of the API that requests are passed on to. Nil:
	// none; somebody else's proxy asks at /.enlist/verify.
	Upstream *url.URL
	// Rules say which scopes a request needs. Of those that match, the one with
	// the longest path counts. A request that none matches needs no scope.
	Rules []Rule
	// AgentLimit is how often an agent, KeyLimit how often a key may ask, in all
	// gateways over the database together. A zero Rate does not limit.
	AgentLimit, KeyLimit Rate
	// MaxOpen is how many requests to the API one agent may have under way at once
	// at this gateway, WebSockets and streams among them. 0: 256; less: any number.
	MaxOpen int
	// MaxBody is how many bytes a request to the API may have. 0: 10 MiB.
	MaxBody int64
	// Timeout is how long the API may take until its answer begins. 0: 30 s.
	Timeout time.Duration
	// TLS is what TLS with the API begins from, for certificates of an authority
	// of one's own. Nil: what the system trusts.
	TLS *tls.Config
	// Preflights says that the API answers the preflights of browsers (CORS), which
	// never have a credential, itself: it gets them from anybody, as from nobody.
	Preflights bool
	// Origins are those whose pages may read what the gateway answers in the place
	// of the API, such as https://app.example.com; "*" alone: all. None: a page sees
	// a refusal as an error of the network. What the API answers, it says itself.
	Origins []string
}

// Rule guards a part of an API.
type Rule struct {
	Methods []string // such as GET; none: all
	Path    string   // a prefix that ends between two segments: /reports guards /reports and /reports/7, not /reportsx
	Scopes  []string // what a caller must have been granted, all of them; none: nothing but to be registered
}

// Rate is how often something may happen in how long.
type Rate struct {
	N   int
	Per time.Duration
}

// Caller is an agent that makes a request with a credential of its own.
type Caller struct {
	Protocol string
	Agent    string // its id among the agents of the protocol
	Scopes   []string
	KeyID    string // the public part of the credential

	AgentID      int64 // of the agent in the store
	CredentialID int64 // of the credential in the store; 0: a JSON Web Token that hangs on no key
}

// String returns the name of the caller that is its own among all protocols:
// protocol/agent.
func (c Caller) String() string { return c.Protocol + "/" + c.Agent }

// target is what a request asks of the API.
type target struct {
	method string
	path   string // as it stands in the request that the API gets: escaped, without a query
}

// admission is a request that may go to the API.
type admission struct {
	preflight bool // nobody's: the rest is empty
	caller    Caller
	// header is what the API is told of the caller. It is shared between
	// requests: its entries are to be set, never changed.
	header http.Header
	// limits is what the client is told of its limits; nil: nothing.
	limits http.Header
}

// front decides which requests get to the API behind the gateway. The reverse
// proxy and /.enlist/verify are two ways to the same decision.
type front struct {
	*Gateway
	protocols   []identifier
	secrets     headerNames // the headers that credentials come in, or beside
	presentedIn []string
	guards      guards
	readers     readers
	assertions  *assertions

	// usage counts a request against the limits of its caller and says in the
	// answer's headers what is left. It is called once for every request whose
	// caller is known, before the rules are looked at: who is refused has asked,
	// too. Its refusal is a *problem of kindLimited. Nil: nothing is limited.
	usage func(ctx context.Context, c Caller) (http.Header, error)
}

// newFront reads the rules. The gateway is not open yet.
func newFront(d deps, served []protocol) (*front, error) {
	f := &front{secrets: secretHeaders(), presentedIn: presentedIn(), assertions: newAssertions(d.signer, d.Now)}
	for _, p := range served {
		if i, ok := p.(identifier); ok {
			f.protocols = append(f.protocols, i)
		}
	}
	if d.Front == nil {
		return f, nil
	}
	f.readers = d.Front.Origins
	var err error
	f.guards, err = newGuards(d.Front.Rules)
	return f, err
}

// admit decides on a request. Its error is always a *problem, which is in the
// audit trail already: what remains is to [front.refuse] it.
func (f *front) admit(ctx context.Context, r *http.Request, t target) (admission, error) {
	c := &call{Request: r, protocol: keyring{}.name(), store: f.store, ip: clientIP(r, f.cfg.TrustedProxies)}
	a, err := f.judge(ctx, c, t)
	if err == nil {
		return a, nil
	}
	return admission{}, f.record(ctx, c, err)
}

// record puts a refusal into the audit trail, or a fault into the log, and
// returns what to answer.
func (f *front) record(ctx context.Context, c *call, err error) error {
	e := &endpoint{Gateway: f.Gateway, protocol: keyring{}}
	p := e.judge(ctx, c, err)
	if !p.kind.fault() {
		e.refused(ctx, c, p)
	}
	return p
}

// judge is admit without the audit trail. A panic is an error.
func (f *front) judge(ctx context.Context, c *call, t target) (a admission, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{value: v, stack: debug.Stack()}
		}
	}()
	path, err := f.check(c.Header, t)
	if err != nil {
		return a, err
	}
	if a.caller, err = f.identify(ctx, c); err != nil {
		return a, err
	}
	if f.usage != nil {
		if a.limits, err = f.usage(ctx, a.caller); err != nil {
			return a, err
		}
	}
	if err := f.guards.permit(t.method, path, a.caller.Scopes); err != nil {
		err.header = merged(err.header, a.limits)
		return a, err
	}
	if a.caller.CredentialID != 0 {
		f.uses.note(a.caller.CredentialID, f.cfg.Now())
	}
	a.header, err = f.assertions.of(ctx, a.caller)
	return a, err
}

// merged returns the entries of two headers, of which either may be nil.
func merged(a, b http.Header) http.Header {
	out := http.Header{}
	copyHeader(out, a)
	copyHeader(out, b)
	return out
}

// check refuses a request that the rules could be led astray by, whoever makes
// it, and returns its path as rules compare it.
func (f *front) check(h http.Header, t target) (path string, err error) {
	switch {
	case !plainMethod(t.method):
		return "", refusal(kindInvalid, "invalid_method", "the method must be written in capital letters")
	case t.method == http.MethodTrace || t.method == http.MethodConnect:
		// TRACE would show the caller what only the API is to see.
		return "", refusal(kindForbidden, "method_refused", "this method is not passed on")
	}
	path, ok := plainPath(t.path)
	if !ok {
		return "", refusal(kindInvalid, "invalid_path", "the path must be in its plain form: without dot segments, empty segments, "+
			"semicolons and backslashes, and with nothing encoded that needs no encoding")
	}
	for name := range h {
		if overrides(name) {
			return "", refusal(kindInvalid, "method_override", "a header that overrides the method is not passed on: send the method itself")
		}
	}
	return path, nil
}

func refusal(k kind, code, message string) *problem {
	return &problem{kind: k, code: code, message: message}
}

// refuse answers with a problem, which is what every error here is, in the
// gateway's own form: a proxy, and an API whose clients may come by any protocol,
// have no use for five.
func (f *front) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, body := f.spell(w.Header(), r, err)
	reply(w, status, body)
}

// spell puts a problem with a request into a header, and returns what goes with
// it.
func (f *front) spell(h http.Header, r *http.Request, err error) (status int, body []byte) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = unavailable()
	}
	copyHeader(h, p.header)
	f.readers.admit(h, r)
	said := refused{Code: p.event(), Message: p.message}
	if p.kind == kindUnauthorized {
		h.Set("WWW-Authenticate", f.challenge(p))
		said.Register = f.entrances()
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.seconds()))
	}
	body, err = json.Marshal(map[string]refused{"error": said})
	if err != nil {
		body = nil // there is nothing in it that cannot be encoded
	}
	return p.kind.status(), body
}

// refused is what a client is told that does not get to the API.
type refused struct {
	Code     string     `json:"code"`
	Message  string     `json:"message"`
	Register []entrance `json:"register,omitzero"`
}

// entrance is where an agent can register.
type entrance struct {
	Protocol string `json:"protocol"`
	URL      string `json:"url"`
}

// entrances lists where an agent can register.
func (f *front) entrances() []entrance {
	var list []entrance
	for _, p := range f.protocols {
		list = append(list, entrance{p.name(), f.cfg.PublicURL + p.entrance()})
	}
	return list
}

// challenge says how to authenticate (RFC 6750). The other ways have no scheme
// that is registered; the body says where to learn of them.
func (f *front) challenge(p *problem) string {
	text := `Bearer realm="` + visible(f.cfg.PublicURL) + `"`
	if p.code != codeNoCredential {
		text += `, error="invalid_token"`
	}
	return text
}
