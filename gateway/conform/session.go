package conform

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	maxAnswer   = 256 << 10 // bytes of an answer that are read
	maxShown    = 200       // characters of it in the evidence
	maxEvidence = 20        // exchanges of a check in the evidence
	maxRace     = 16        // requests at the same moment
)

// session is one run: it makes the requests, and remembers what was asked and
// answered.
type session struct {
	o      Options
	base   string // the origin
	rand   io.Reader
	client *http.Client
	code   func(answer) string

	spread    uint16 // of the made-up addresses
	nth       int    // how many checks have begun
	suspended bool   // an agent of the run

	mu      sync.Mutex
	all     []answer
	since   int      // where in all the check began that runs
	pointed []answer // what the check itself points at, in the place of all since
	secrets []string // what was issued, and what was sent in the place of that
}

// Check reports why nothing can be graded so.
func (o Options) Check() error {
	if Checks(o.Protocol) == nil {
		return fmt.Errorf("unknown protocol %q: known are %s", o.Protocol, strings.Join(Protocols(), ", "))
	}
	if o.Now == nil {
		return errors.New("conform: Options.Now is nil: give it a clock, such as time.Now")
	}
	_, err := origin(o.URL, o.InsecureHTTP)
	return err
}

func newSession(o Options) (*session, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	base, err := origin(o.URL, o.InsecureHTTP)
	if err != nil {
		return nil, err
	}
	o.MaxRequests = cmp.Or(o.MaxRequests, 1000)
	o.Timeout = cmp.Or(o.Timeout, 15*time.Second)
	o.Deadline = cmp.Or(o.Deadline, 10*time.Minute)
	o.Path = cmp.Or(o.Path, wire.AgentDoorWhoAmIPath)
	s := &session{o: o, base: base, rand: o.Rand}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if o.SpreadAddresses {
		s.spread = binary.BigEndian.Uint16(s.bytes(2))
	}
	if o.LonaSecret != "" {
		s.secrets = append(s.secrets, o.LonaSecret)
	}
	transport := o.Transport
	if transport == nil {
		transport = &http.Transport{
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: maxRace, IdleConnTimeout: time.Minute,
		}
	}
	s.client = &http.Client{
		Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// origin is the origin that a URL names. Secrets travel encrypted, or not at all
// beyond this machine.
func origin(text string, insecure bool) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", errors.New("want the URL of a service, such as https://gateway.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", errors.New("want the URL of a service without a user, a path, a query and a fragment, such as https://gateway.example.com")
	case u.Scheme == "http" && !Loopback(u.Hostname()) && !insecure:
		return "", errors.New("what the service issues would travel in the clear: want https, or a host of this machine, or --insecure-http")
	}
	return u.Scheme + "://" + u.Host, nil
}

// Loopback reports whether a host is this machine.
func Loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// call is a request to be made. A body is JSON unless the header says something
// else; a header with an empty value is left out.
type call struct {
	method, path string
	header       map[string]string
	body         string
	page         bool // the answer may be for people
}

func get(path string, header map[string]string) call {
	return call{method: http.MethodGet, path: path, header: header}
}

func post(path, body string) call { return call{method: http.MethodPost, path: path, body: body} }

// with returns the call with more headers.
func (c call) with(pairs ...string) call {
	header := map[string]string{}
	for name, value := range c.header {
		header[name] = value
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		header[pairs[i]] = pairs[i+1]
	}
	c.header = header
	return c
}

// send makes a request. That there is no answer is the answer's err.
func (s *session) send(ctx context.Context, c call) answer {
	a := s.ask(ctx, c)
	s.note(&a)
	return a
}

// race makes several requests at the same moment.
func (s *session) race(ctx context.Context, n int, c func(i int) call) []answer {
	answers := make([]answer, min(n, maxRace))
	calls := make([]call, len(answers))
	for i := range calls {
		calls[i] = c(i)
	}
	var wg sync.WaitGroup
	ready := make(chan struct{})
	for i := range answers {
		wg.Go(func() {
			<-ready
			answers[i] = s.ask(ctx, calls[i])
		})
	}
	close(ready)
	wg.Wait()
	for i := range answers {
		s.note(&answers[i])
	}
	return answers
}

func (s *session) ask(ctx context.Context, c call) answer {
	a := answer{call: c}
	if s.sent() >= s.o.MaxRequests {
		a.err = skip("the run has made all the %d requests that it may", s.o.MaxRequests)
		return a
	}
	req, err := http.NewRequestWithContext(ctx, c.method, s.base+c.path, strings.NewReader(c.body))
	if err != nil {
		a.err = fmt.Errorf("%s %s cannot be sent", c.method, c.path)
		return a
	}
	if c.body == "" && c.method != http.MethodPost {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "enlist-conform")
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.o.SpreadAddresses {
		req.Header.Set("X-Forwarded-For", s.elsewhere())
	}
	for name, value := range c.header {
		req.Header.Del(name)
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		a.err = fmt.Errorf("there was no answer: %w", unwrapped(err))
		return a
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		a.err = fmt.Errorf("the answer breaks off: %w", unwrapped(err))
	case len(a.body) > maxAnswer:
		a.err, a.body = fmt.Errorf("the answer has more than %d bytes", maxAnswer), nil
	}
	return a
}

// unwrapped is an error of the client without the URL, which is said elsewhere.
func unwrapped(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// note remembers an answer, and what is secret in it.
func (s *session) note(a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.err != nil && a.status == 0 {
		if _, never := errors.AsType[*skipped](a.err); never {
			return
		}
	}
	text := string(a.body)
	for _, secret := range s.secrets {
		// A service may well answer two requests of one second with one and the
		// same JWT: it is issued by both.
		again := a.ok() && a.call.method == http.MethodPost && strings.HasPrefix(secret, "eyJ")
		if !again && strings.Contains(text, secret) {
			a.spoken = true
		}
	}
	for _, secret := range shaped(text) {
		if !slices.Contains(s.secrets, secret) {
			s.secrets = append(s.secrets, secret)
			a.issues = true
		}
	}
	s.all = append(s.all, *a)
}

// shaped returns what looks like a secret in a text.
func shaped(text string) []string {
	var found []string
	for _, p := range wire.Protocols() {
		for _, shape := range p.Shapes {
			found = append(found, shape.Pattern.FindAllString(text, -1)...)
		}
	}
	return found
}

// secret marks what is sent as a credential: no answer may repeat it.
func (s *session) secret(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.secrets, text) {
		s.secrets = append(s.secrets, text)
	}
	return text
}

func (s *session) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// begin begins the evidence of a check.
func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.pointed = len(s.all), nil
	s.nth++
}

// evidence is what was asked and answered since the check began.
func (s *session) evidence() []Exchange {
	s.mu.Lock()
	seen := s.all[s.since:]
	if s.pointed != nil {
		seen = s.pointed
	}
	s.mu.Unlock()
	var list []Exchange
	for _, a := range seen[:min(len(seen), maxEvidence)] {
		said := string(a.body)
		if a.err != nil {
			said = a.err.Error()
		}
		list = append(list, Exchange{
			Request: s.masked(a.call.method + " " + a.call.path), Status: a.status, Answer: short(s.masked(said)),
		})
	}
	return list
}

// short is the beginning of a text.
func short(text string) string {
	if r := []rune(text); len(r) > maxShown {
		return string(r[:maxShown]) + "…"
	}
	return text
}

// masked is a text without what is secret, or looks like it.
func (s *session) masked(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text = wire.Mask(text)
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// bytes returns random bytes.
func (s *session) bytes(n int) []byte {
	raw := make([]byte, n)
	if _, err := io.ReadFull(s.rand, raw); err != nil {
		panic(fmt.Errorf("read random bytes: %w", err)) // crypto/rand never fails
	}
	return raw
}

// name returns a name that nobody else has, of letters, digits and dashes.
func (s *session) name() string { return "conform-" + hex.EncodeToString(s.bytes(6)) }

// attempt returns the value of an Idempotency-Key.
func (s *session) attempt() string { return wire.FormatIdempotencyKey(hex.EncodeToString(s.bytes(20))) }

// wait has time pass, if that is possible.
func (s *session) wait(ctx context.Context, d time.Duration) error {
	if s.o.Wait == nil || s.o.MostWait > 0 && d > s.o.MostWait {
		return skip("it takes %s until that happens; see --wait", span(d))
	}
	return s.o.Wait(ctx, d)
}

// span is a time for people.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		return "an hour"
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}
