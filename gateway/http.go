package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-resty/resty/v2"

	"github.com/enlist-mcp/enlist/credstore"
)

// maxAnswer is more than any answer of a protocol is.
const maxAnswer = 1 << 20

// caller makes the requests of every protocol: without a proxy, a cookie jar
// or a log of its own, never through a redirect, within a time and a size.
type caller struct {
	rest     *resty.Client
	scrub    *Scrubber
	timeout  time.Duration
	deadline time.Duration
	now      func() time.Time
	sleep    func(context.Context, time.Duration) error
	log      *slog.Logger
	// chosen has the origins that a person has set. Only they may be private.
	chosen map[string]bool
	// networks returns the private networks that the policy lets requests go to.
	networks func() []netip.Prefix
}

func newCaller(o Options, s *Scrubber) *caller {
	c := &caller{
		scrub: s, timeout: o.Timeout, deadline: o.Deadline,
		now: o.Now, sleep: o.Sleep, log: o.Logger, chosen: o.chosen,
		networks: o.steward.policy.networks,
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.deadline <= 0 {
		c.deadline = defaultDeadline
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	transport := o.Transport
	if transport == nil {
		transport = NewTransport(nil)
	}
	version := o.Version
	if version == "" {
		version = "dev"
	}
	c.rest = resty.NewWithClient(&http.Client{
		Transport: transport,
		// A redirect is an answer. net/http would take X-API-Key along to
		// another host: it only knows the standard headers as secret.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	c.rest.SetLogger(silent{}).SetDisableWarn(true).SetDoNotParseResponse(true).
		SetHeader("User-Agent", "enlist/"+version).SetHeader("Accept", "application/json")
	return c
}

// silent is resty's logger: what it would say can hold a URL or a header.
type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// endKey is the context key of the time at which an operation must have ended.
type endKey struct{}

// presentedKey is the context key of a *presented.
type presentedKey struct{}

// presented is what an operation has sent a request with last. A [Renewer]
// finds out by it whether what was refused has been renewed meanwhile.
type presented struct{ secret credstore.Secret }

// begin bounds an operation by its deadline. One within another ends with it.
func (c *caller) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Value(endKey{}).(time.Time); ok {
		return context.WithCancel(ctx)
	}
	ctx = context.WithValue(ctx, endKey{}, c.now().Add(c.deadline))
	ctx = context.WithValue(ctx, presentedKey{}, new(presented))
	return context.WithTimeout(ctx, c.deadline)
}

// once bounds an operation that nobody waits for: it has no time for pauses, so
// that what fails is not tried a second time.
func (c *caller) once(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = context.WithValue(ctx, endKey{}, c.now())
	ctx = context.WithValue(ctx, presentedKey{}, new(presented))
	return context.WithTimeout(ctx, c.deadline)
}

// left returns how much time an operation has.
func (c *caller) left(ctx context.Context) time.Duration {
	end, ok := ctx.Value(endKey{}).(time.Time)
	if !ok {
		return c.deadline
	}
	return end.Sub(c.now())
}

// call says what a request is for, in the words of an [Error].
type call struct {
	protocol, origin, op string
	// acts: when the answer is lost, the service may have done something.
	acts bool
}

// fail returns an Error of the call.
func (k call) fail(code string, cause error) *Error {
	return &Error{Protocol: k.protocol, Origin: k.origin, Op: k.op, Code: code, Cause: cause}
}

// message is a request as it goes over the wire.
type message struct {
	method string
	url    *url.URL
	header http.Header
	body   []byte // nil: none
	// keep takes the body of an answer that is longer than the limit, from its
	// beginning. nil: it is cut.
	keep func(ctx context.Context, a answer, body io.Reader) (*kept, error)
}

// answer is what came back. It does not refer to the request, which holds the
// credential.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    bool  // there was more than the limit
	kept   *kept // what became of that; nil: nothing
	// unrenewed is why the credential that was refused could not be renewed.
	unrenewed error
}

// drop removes what was kept of an answer that nobody will see.
func (a answer) drop() {
	if a.kept != nil {
		a.kept.discard()
	}
}

// errCutShort: the connection broke within an answer.
var errCutShort = errors.New("the answer could not be read to its end")

// send makes one request and reads its answer, up to a limit. An error is an
// *Error, there was no answer, or a *LocalError.
func (c *caller) send(parent context.Context, k call, m message, limit int) (answer, error) {
	origin := originOf(m.url)
	if !secure(origin) {
		return answer{}, k.fail(CodeInsecure, errPlainHTTP)
	}
	networks := c.networks()
	ctx := context.WithValue(context.WithValue(parent, chosenKey{}, c.chosen[origin]), networksKey{}, networks)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	var connecting, wrote atomic.Bool
	r := c.rest.R().SetContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { connecting.Store(true) },
		GotConn:      func(i httptrace.GotConnInfo) { recheck(i.Conn, networks) },
		WroteHeaders: func() { wrote.Store(true) },
	}))
	if m.header != nil {
		r.Header = m.header.Clone()
	}
	if m.body != nil {
		r.SetBody(bytes.Clone(m.body)) // resty keeps its buffers
	} else {
		r.SetContentLength(true) // else resty sends a chunked body of nothing
	}
	resp, err := r.Execute(m.method, m.url.String())
	var local *LocalError
	if errors.As(err, &local) {
		return answer{}, local
	}
	if err != nil {
		// A transport that reports nothing may have sent it.
		return answer{}, c.broken(parent, k, err, wrote.Load() || !connecting.Load())
	}
	defer resp.RawBody().Close()
	return c.receive(ctx, parent, k, m, answer{status: resp.StatusCode(), header: resp.Header()}, arriving(ctx, resp.RawBody()), limit)
}

// receive reads the body of an answer. ctx is of this one request, parent of
// the whole operation.
func (c *caller) receive(ctx, parent context.Context, k call, m message, a answer, from io.Reader, limit int) (answer, error) {
	var body bytes.Buffer
	if size, err := strconv.Atoi(a.header.Get("Content-Length")); err == nil && size > 0 {
		body.Grow(min(size, limit) + bytes.MinRead + 1) // else it is copied each time it grows
	}
	_, err := body.ReadFrom(io.LimitReader(from, int64(limit)+1))
	if err != nil {
		return answer{}, c.broken(parent, k, errors.Join(errCutShort, err), true)
	}
	if a.body = body.Bytes(); len(a.body) <= limit {
		return a, nil
	}
	all := io.MultiReader(bytes.NewReader(a.body), from)
	a.body, a.cut = a.body[:limit], true
	if m.keep == nil {
		return a, nil
	}
	var own *Error
	switch a.kept, err = m.keep(ctx, a, all); {
	case errors.As(err, &own):
		return answer{}, own
	case err != nil:
		return answer{}, c.broken(parent, k, errors.Join(errCutShort, err), true)
	}
	return a, nil
}

// broken returns the Error for a request without an answer. What the system
// says may quote what the service sent, so it is cleaned like the service's
// own words; the URL that net/http puts before it is dropped.
func (c *caller) broken(ctx context.Context, k call, err error, sent bool) *Error {
	var (
		timeout net.Error
		address *AddressError
		lookup  *net.DNSError
		system  *net.OpError
	)
	e := k.fail(CodeUnreachable, nil)
	e.Sent = sent && k.acts
	switch {
	case errors.As(err, &address):
		e.Code, e.Cause, e.Sent = CodeAddressRefused, address, false
	case errors.Is(ctx.Err(), context.Canceled):
		e.Code, e.Cause = CodeCancelled, context.Canceled
	case ctx.Err() != nil:
		e.Code, e.Cause = CodeTimeout, fmt.Errorf("no answer within %s: %w", c.deadline, context.DeadlineExceeded)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Code, e.Cause = CodeTimeout, fmt.Errorf("no answer within %s: %w", c.timeout, context.DeadlineExceeded)
	case errors.Is(err, errCutShort):
		e.Code, e.Cause = CodeBadAnswer, errCutShort
	case errors.As(err, &lookup):
		// Its words have addresses that are known within somebody's network only.
		e.Cause = fmt.Errorf("lookup %s: no answer", c.scrub.Said(ctx, lookup.Name))
		if lookup.IsNotFound {
			e.Cause = fmt.Errorf("lookup %s: no such host", c.scrub.Said(ctx, lookup.Name))
		}
	case errors.As(err, &system) && system.Err != nil: // as above
		e.Cause = errors.New(system.Op + ": " + c.scrub.Said(ctx, system.Err.Error()))
	default:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		e.Cause = errors.New(c.scrub.Said(ctx, err.Error()))
	}
	return e
}

// exchange makes a request of a protocol, again where that is safe, and
// returns a success, or what was refused beside the error. body is sent as
// JSON; nil: none.
func (c *caller) exchange(ctx context.Context, k call, m message, body any, idempotent bool) (answer, error) {
	if m.header == nil {
		m.header = make(http.Header)
	}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return answer{}, k.fail(CodeInvalidInput, err)
		}
		m.body = data
		m.header.Set("Content-Type", "application/json")
	}
	a, err := c.retry(ctx, idempotent, func() (answer, error) { return c.send(ctx, k, m, maxAnswer) })
	if err != nil {
		return answer{}, err
	}
	switch {
	case a.cut:
		e := k.fail(CodeTooLarge, fmt.Errorf("more than %d bytes", maxAnswer))
		e.Status, e.Sent = a.status, k.acts && a.status < 300
		return answer{}, e
	case a.status >= 200 && a.status < 300:
		return a, nil
	case a.status >= 300 && a.status < 400:
		return answer{}, c.redirected(ctx, k, m.url, a)
	}
	return a, c.refused(ctx, k, a)
}

// decode reads a successful answer into v.
func (c *caller) decode(k call, a answer, v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return k.unreadable(a, whatItIs(a.body))
	}
	return nil
}

// unreadable returns the Error for a success whose answer is not what the
// protocol says. why is ours, not the service's.
func (k call) unreadable(a answer, why string) *Error {
	e := k.fail(CodeBadAnswer, errors.New(why))
	e.Status, e.Sent = a.status, k.acts
	return e
}
