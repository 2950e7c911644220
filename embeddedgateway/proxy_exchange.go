package embeddedgateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Why an exchange ended before its answer did.
var (
	errAPISlow    = errors.New("the API took too long to begin its answer")
	errClientSlow = errors.New("the client took too long to send its request")
	errRevoked    = errors.New("the credential may not be used any more")
	errDraining   = errors.New("the gateway is shutting down")
)

var errNoStatus = errors.New("the API answered with a status that is none")

// vary has a cache before the gateway tell callers apart. It knows that an answer
// to one who sent Authorization is not for all; of X-API-Key it does not.
const vary = "Authorization, X-API-Key"

// lingerTime is how long what is left of a request is read that was refused, so
// that its client comes to read the answer.
const lingerTime = time.Second

// flushTime is how long a part of an answer whose length is known waits for the
// next one. Others do not wait.
const flushTime = 10 * time.Millisecond

// exchange is one request to the API and its answer. To [httputil.ReverseProxy]
// it is the ResponseWriter.
type exchange struct {
	*proxy
	http.ResponseWriter
	admission admission

	in     *http.Request
	id     string
	cancel context.CancelCauseFunc

	wait    *time.Timer // until the answer must have begun
	begun   atomic.Bool // it has
	body    *sentBody   // nil: none
	reading atomic.Bool // it is the client who is waited for
	tooLong atomic.Bool // the body is
	broken  atomic.Bool // the body ended before its end, or is none

	slow    *time.Timer // until the client must have received a part of the answer
	status  int
	stream  bool // the answer has no end of its own; the mutex guards it
	unknown int  // how often it could not be said whether the credential is good still
}

// serve passes the request on.
func (x *exchange) serve(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x.cancel = cancel
	if x.in.ContentLength > x.maxBody {
		x.tooLong.Store(true)
		x.failed(x.ResponseWriter, x.in, errAPISlow)
		return
	}
	switch err := x.begin(); {
	case errors.Is(err, errDraining):
		x.failed(x.ResponseWriter, x.in, err)
		return
	case err != nil:
		x.refused(ctx, x.record(ctx, err))
		return
	}
	defer x.end()
	// The listener's deadlines are for requests that are small and answered at
	// once. These have their own: for each part.
	deadlines := http.NewResponseController(x.ResponseWriter)
	_ = deadlines.SetReadDeadline(time.Time{})
	_ = deadlines.SetWriteDeadline(time.Time{})
	x.wait = time.AfterFunc(x.timeout, x.late)
	defer x.wait.Stop()
	x.slow = time.AfterFunc(x.stall, func() {
		x.on(func(c *http.ResponseController) { _ = c.SetWriteDeadline(past()) })
	})
	x.slow.Stop()
	defer x.slow.Stop()

	r := x.in.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &sentBody{ReadCloser: r.Body, exchange: x, left: x.maxBody}
		r.Body = x.body
		_ = deadlines.EnableFullDuplex() // or the server would read the body that is on its way to the API
	}
	to := httputil.ReverseProxy{
		Rewrite: x.rewrite, Transport: x.transport, ModifyResponse: x.answered, ErrorHandler: x.failed,
		FlushInterval: flushTime, BufferPool: x.buffers, ErrorLog: x.errors,
	}
	to.ServeHTTP(x, r)
	if x.body != nil && !x.body.whole.Load() {
		x.linger() // net/http would wait for the rest of it, and this without an end
	}
	for name := range x.Header() { // of the trailers
		if ours(strings.TrimPrefix(name, http.TrailerPrefix)) {
			delete(x.Header(), name)
		}
	}
	x.logged(ctx, x, x.status)
}

// past is a time that is over by every clock: a deadline that has passed.
func past() time.Time { return time.Unix(1, 0) }

// late ends the wait for the API, or for the client that does not send on.
func (x *exchange) late() {
	if x.begun.Load() {
		return
	}
	why := errAPISlow
	if x.reading.Load() {
		why = errClientSlow
	}
	x.on(func(*http.ResponseController) { x.stop(why) })
}

// answered is called when the API's answer begins.
func (x *exchange) answered(res *http.Response) error {
	if res.StatusCode < http.StatusContinue {
		return errNoStatus // net/http would panic
	}
	x.begun.Store(true)
	x.wait.Stop()
	for name := range res.Header {
		if ours(name) {
			delete(res.Header, name)
		}
	}
	for name := range res.Trailer {
		if ours(name) {
			delete(res.Trailer, name)
		}
	}
	withoutOperatorSet(res.Header)
	if !x.admission.preflight {
		res.Header.Add("Vary", vary)
	}
	x.say(res.Header)
	delete(x.Header(), requestIDHeader) // ReverseProxy adds to what is there
	if x.body != nil && !x.body.whole.Load() && x.in.ProtoMajor == 1 {
		// The API does not wait for the rest of the body, so nobody does.
		res.Header["Connection"] = []string{"close"}
	}
	lasts := res.StatusCode == http.StatusSwitchingProtocols ||
		strings.HasPrefix(strings.ToLower(res.Header.Get("Content-Type")), "text/event-stream")
	if lasts && !x.lasting() {
		return errDraining
	}
	return nil
}

// say puts what the gateway says into the header of an answer: in the place of
// what the API may say of the same.
func (x *exchange) say(h http.Header) {
	h[requestIDHeader] = []string{x.id}
	for name, values := range x.admission.limits {
		h[name] = values
	}
}

// failed answers where the API did not.
func (x *exchange) failed(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	cause := context.Cause(ctx)
	status, code, message, level := http.StatusBadGateway, "upstream_unavailable", "the API behind the gateway does not answer; try again", slog.LevelWarn
	switch {
	case x.tooLong.Load():
		status, code, level = http.StatusRequestEntityTooLarge, "too_large", slog.LevelDebug
		message = tooLarge(int(x.maxBody)).message
	case errors.Is(cause, errAPISlow):
		status, code, message = http.StatusGatewayTimeout, "upstream_timeout", "the API behind the gateway takes too long to answer"
	case errors.Is(cause, errClientSlow):
		status, code, message, level = http.StatusRequestTimeout, "request_timeout", "the request did not come to its end in time", slog.LevelDebug
	case errors.Is(cause, errDraining) || errors.Is(err, errDraining):
		p := unavailable()
		status, code, message, level = p.kind.status(), p.event(), p.message, slog.LevelDebug
		w.Header().Set("Retry-After", "1")
	case errors.Is(cause, errRevoked):
		status, code, message, level = http.StatusUnauthorized, "credential_ended", "the credential may not be used any more", slog.LevelDebug
	case x.broken.Load(): // it is the client who has done wrong, not the API
		status, code, level = http.StatusBadRequest, "invalid_body", slog.LevelDebug
		message = "the body of the request could not be read to its end"
	case x.in.Context().Err() != nil: // the client has left: nobody hears what is said
		status, code, level = http.StatusBadGateway, "client_gone", slog.LevelDebug
		message = "the client closed its side of the connection before the API answered; the API may have done what was asked"
	}
	x.metrics.upstream.WithLabelValues(code).Inc()
	if x.cfg.Logger.Enabled(ctx, level) {
		x.cfg.Logger.Log(ctx, level, "a request got no answer of the API", "request_id", x.id,
			"status", status, "code", code, "error", wire.Mask(err.Error()))
	}
	x.status = status
	h := w.Header()
	x.say(h)
	x.front.readers.admit(h, x.in)
	if x.in.ContentLength != 0 && (x.body == nil || !x.body.whole.Load()) {
		x.hurry(h)
	}
	body, err := json.Marshal(map[string]refused{"error": {Code: code, Message: message}})
	if err != nil {
		body = nil // there is nothing in it that cannot be encoded
	}
	reply(w, status, body)
}

// hurry has the connection closed behind the answer, without waiting for long for
// what is left of the request.
func (x *exchange) hurry(h http.Header) {
	if x.in.ProtoMajor != 1 {
		return // only the request ends, not the connection
	}
	h.Set("Connection", "close")
	x.linger()
}

// linger ends in a moment the wait for what is left of the request. The answer has
// said that the connection is closed behind it.
func (x *exchange) linger() {
	if x.in.ProtoMajor != 1 {
		return
	}
	c := http.NewResponseController(x.ResponseWriter)
	time.AfterFunc(lingerTime, func() { _ = c.SetReadDeadline(past()) }) // no other request comes by it
}

// Unwrap is for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// Header implements [http.ResponseWriter].
func (x *exchange) Header() http.Header { return x.ResponseWriter.Header() }

// WriteHeader implements [http.ResponseWriter].
func (x *exchange) WriteHeader(status int) {
	if status < http.StatusOK && status != http.StatusSwitchingProtocols {
		for name := range x.Header() { // of a 1xx, which answered has not seen
			if ours(name) {
				delete(x.Header(), name)
			}
		}
		x.Header()[requestIDHeader] = []string{x.id}
	} else {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (x *exchange) Write(b []byte) (int, error) {
	x.slow.Reset(x.stall)
	defer x.slow.Stop()
	return x.ResponseWriter.Write(b)
}

// FlushError is for [http.ResponseController].
func (x *exchange) FlushError() error {
	x.slow.Reset(x.stall)
	defer x.slow.Stop()
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// sentBody is the body of a request on its way to the API.
type sentBody struct {
	io.ReadCloser
	*exchange
	left   int64
	whole  atomic.Bool // it was read to its end
	closed atomic.Bool // nobody wants the rest
}

// Read implements [io.Reader].
func (b *sentBody) Read(buf []byte) (int, error) {
	if int64(len(buf)) > b.left+1 {
		buf = buf[:b.left+1]
	}
	b.reading.Store(true)
	n, err := b.ReadCloser.Read(buf)
	b.reading.Store(false)
	if b.left -= int64(n); b.left < 0 {
		b.tooLong.Store(true)
		return 0, &http.MaxBytesError{Limit: b.maxBody}
	}
	if n > 0 && !b.begun.Load() {
		b.wait.Reset(b.timeout)
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		stripTrailer(b.in.Trailer) // which is complete now, and goes out next
		b.whole.Store(true)
	case !b.closed.Load() && !errors.Is(err, os.ErrDeadlineExceeded): // those are the gateway's doing
		b.broken.Store(true)
	}
	return n, err
}

// Close implements [io.Closer]. It does not wait for a client that does not send.
func (b *sentBody) Close() error {
	b.closed.Store(true)
	if b.reading.Load() {
		_ = http.NewResponseController(b.ResponseWriter).SetReadDeadline(past())
	}
	return b.ReadCloser.Close()
}
