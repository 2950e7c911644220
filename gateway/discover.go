package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// maxLook is how much of an answer is looked at.
	maxLook = 256 << 10
	// maxLookHops is how many redirects are followed in one discovery.
	maxLookHops = 16
	// maxShort is how much is passed on of a service's words where there are
	// many of them, in characters.
	maxShort = 200
	// nowherePath is a route that no service has: what it answers there it
	// answers everywhere, and that says nothing.
	nowherePath = "/api/v1/no-such-route-of-any-service"
	// opLook is what a discovery does, in the words of an [Error].
	opLook = "look at the service"
)

// Confidence says how far a [Discovery] can be relied on.
type Confidence string

// What a service shows can be its own, usual for it, or usual for many.
const (
	Certain Confidence = "certain"
	Likely  Confidence = "likely"
	Weak    Confidence = "weak"
)

// rank orders them.
func (c Confidence) rank() int { return slices.Index([]Confidence{Certain, Likely, Weak}, c) }

// Discovery is a protocol that a service seems to speak.
type Discovery struct {
	Protocol   string
	Confidence Confidence
	Evidence   []string // what speaks for it; words of ours
	Problem    string   // why an agent cannot register there all the same; words of ours
	// RequiresPayment: the service says how it wants to be paid.
	RequiresPayment bool
	Said            Said
}

// Said is what a service says of itself, cleaned. It is data.
type Said struct {
	Service     string  `json:"service,omitzero"`
	Description string  `json:"description,omitzero"`
	Version     string  `json:"version,omitzero"`
	Payment     string  `json:"payment,omitzero"`
	Scopes      []Scope `json:"scopes,omitzero"`
	// MoreScopes is how many scopes are left out, because there are too many or
	// their names cannot be repeated as they are.
	MoreScopes int `json:"more_scopes,omitzero"`
}

// IsZero reports whether the service says nothing.
func (s Said) IsZero() bool {
	return s.Service == "" && s.Description == "" && s.Version == "" && s.Payment == "" && len(s.Scopes) == 0 && s.MoreScopes == 0
}

// Scope is something that an agent may be allowed at a service.
type Scope struct {
	ID          string `json:"id"`
	Description string `json:"description,omitzero"`
	Price       string `json:"price,omitzero"`
	RateLimit   string `json:"rate_limit,omitzero"`
}

// Found is the outcome of a discovery.
type Found struct {
	Origin    string
	Protocols []Discovery // the surest first
	// Unanswered are protocols that nothing is known of: the service did not
	// answer when it was asked about them.
	Unanswered []string
}

// Discover finds out which protocols a service speaks, by GET requests without
// any credential. Of a URL only the origin is used. It is an error when the
// service answers nothing at all.
func (c *Client) Discover(ctx context.Context, at string) (Found, error) {
	l := c.Lifecycle
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	origin, err := originAt(at)
	if err != nil {
		return Found{}, call{op: opLook}.fail(CodeInvalidInput, err)
	}
	if err := l.steward.policy.discovers(origin); err != nil {
		l.steward.note(ctx, Act{Action: ActRead, Key: credstore.Key{Origin: origin}, Method: http.MethodGet}, 0, err)
		return Found{}, err
	}
	// Before anything is sent: words that cannot be looked through would all
	// have to be withheld.
	if err := l.http.scrub.load(ctx); err != nil {
		return Found{}, err
	}
	s := newSite(ctx, l.http, origin, c.protocols)
	var discoverers []Discoverer
	for _, p := range c.protocols {
		if d, ok := p.(Discoverer); ok && l.steward.policy.knows(p.Wire().Name) {
			discoverers = append(discoverers, d)
		}
	}
	found, errs := make([]*Discovery, len(discoverers)), make([]error, len(discoverers))
	var looks sync.WaitGroup
	for i, d := range discoverers {
		looks.Go(func() { found[i], errs[i] = s.look(ctx, d) })
	}
	looks.Wait()
	return s.sum(discoverers, found, errs)
}

// originAt returns the origin of any URL of a service.
func originAt(at string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(at))
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("url: want the address of a service, as in https://api.example.com")
	}
	origin, err := parseOrigin(u.Scheme + "://" + u.Host)
	if err != nil {
		return "", fmt.Errorf("url: %w", err)
	}
	return origin, nil
}

// Site is a service that is being discovered.
type Site struct {
	origin   string
	http     *caller
	reserved []wire.Route
	hops     atomic.Int32 // that may still be followed
	nowhere  func() (answer, error)
}

func newSite(ctx context.Context, http *caller, origin string, protocols []Protocol) *Site {
	s := &Site{origin: origin, http: http}
	s.hops.Store(maxLookHops)
	for _, p := range protocols {
		s.reserved = append(s.reserved, p.Wire().Reserved...)
	}
	s.nowhere = sync.OnceValues(func() (answer, error) { return s.get(ctx, nowherePath) })
	return s
}

// look asks a site about one protocol. That the site is the protocol's own
// service is evidence too, as soon as it answers anything.
func (s *Site) look(ctx context.Context, d Discoverer) (*Discovery, error) {
	found, err := d.Discover(ctx, s)
	p := d.Wire()
	if err != nil || s.origin != p.Origin {
		return found, err
	}
	if found == nil {
		found = &Discovery{Confidence: Likely}
	} else {
		found.Confidence = Certain
	}
	found.Evidence = append(found.Evidence, s.origin+" is the service's own address.")
	return found, nil
}

// sum puts together what was found.
func (s *Site) sum(ds []Discoverer, found []*Discovery, errs []error) (Found, error) {
	out := Found{Origin: s.origin}
	for i, d := range ds {
		switch name := d.Wire().Name; {
		case found[i] != nil:
			found[i].Protocol = name
			out.Protocols = append(out.Protocols, *found[i])
		case errs[i] != nil:
			out.Unanswered = append(out.Unanswered, name)
		}
	}
	if len(ds) > 0 && len(out.Unanswered) == len(ds) {
		return Found{}, errs[0]
	}
	slices.SortStableFunc(out.Protocols, func(a, b Discovery) int { return a.Confidence.rank() - b.Confidence.rank() })
	return out, nil
}

// get makes a GET request of a path at the site and follows redirects within
// it. One that may not be followed is the answer; one elsewhere is an error.
func (s *Site) get(ctx context.Context, path string) (answer, error) {
	k := call{origin: s.origin, op: opLook}
	u, err := url.Parse(s.origin + path)
	if err != nil {
		return answer{}, k.fail(CodeInvalidInput, errNotAnOrigin)
	}
	m := message{method: http.MethodGet, url: u}
	for hop := 0; ; hop++ {
		a, err := s.http.send(ctx, k, m, maxLook)
		if err != nil || !isRedirect(a) {
			return a, err
		}
		to, ok := redirectTo(m.url, a)
		if !ok {
			return a, s.http.redirected(ctx, k, m.url, a)
		}
		next, ok := follow(m, a, to, s.reserved)
		if !ok || hop == maxHops || s.hops.Add(-1) < 0 {
			return a, nil
		}
		m = next
	}
}

// refuses reports whether an answer has a status and one of the error codes,
// and is not what the site answers to whatever it is asked.
func (s *Site) refuses(a answer, status int, codes ...string) bool {
	code, _ := refusal(a.body)
	return a.status == status && slices.Contains(codes, code) && s.unusual(a)
}

// postOnly reports whether an answer says that there is a route for POST, and
// that the site does not say so of every route.
func (s *Site) postOnly(a answer) bool {
	var allowed []string
	for _, value := range a.header.Values("Allow") {
		for method := range strings.SplitSeq(value, ",") {
			allowed = append(allowed, strings.ToUpper(strings.TrimSpace(method)))
		}
	}
	return a.status == http.StatusMethodNotAllowed && slices.Contains(allowed, http.MethodPost) && s.unusual(a)
}

// unusual reports whether an answer differs from what the site answers where
// there is nothing. Where that is not known, it may not.
func (s *Site) unusual(a answer) bool {
	usual, err := s.nowhere()
	if err != nil {
		return false
	}
	code, _ := refusal(a.body)
	usualCode, _ := refusal(usual.body)
	return a.status != usual.status || code != usualCode
}

// said returns words of the service, cleaned and at most limit characters long.
func (s *Site) said(text string, limit int) string {
	runes := []rune(s.http.scrub.said(text))
	if len(runes) > limit {
		runes = append(runes[:limit-1], '…')
	}
	return string(runes)
}

// document returns the fields of a successful answer that is a JSON object.
func document(a answer) (map[string]json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	if a.status != http.StatusOK || a.cut || json.Unmarshal(a.body, &fields) != nil || fields == nil {
		return nil, false
	}
	return fields, true
}

// written returns a field as text: a string or a number as it is, anything
// else as its JSON.
func written(fields map[string]json.RawMessage, name string) string {
	if text := scalar(fields, name); text != "" {
		return text
	}
	var compact bytes.Buffer
	if json.Compact(&compact, fields[name]) != nil {
		return ""
	}
	switch text := compact.String(); text {
	case "null", `""`, "{}", "[]", "false":
		return ""
	default:
		return text
	}
}
