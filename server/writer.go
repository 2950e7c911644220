package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// writer looks through what a handler writes before it is sent, which is when
// the handler flushes or ends: each time a whole message.
type writer struct {
	http.ResponseWriter
	server *Server
	ctx    context.Context // of the request
	stream *stream         // what is written to; nil: an answer

	mu    sync.Mutex
	buf   bytes.Buffer
	began bool
}

var _ http.Flusher = (*writer)(nil)

// WriteHeader implements [http.ResponseWriter].
func (w *writer) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(status)
}

// Write implements [http.ResponseWriter].
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	return w.buf.Write(p)
}

// Flush implements [http.Flusher].
func (w *writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	w.send()
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client has gone
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish sends what is left when the handler has returned. mcp-go keeps the
// writer of an answer that can be resumed for as long as the session: what is
// behind it must not be kept with it.
func (w *writer) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.send()
	w.buf, w.ctx, w.ResponseWriter = bytes.Buffer{}, context.Background(), &unread{header: make(http.Header)}
}

// announce begins a stream of events with one that has an id and no message, so
// that a client which loses the connection at once can ask for the rest.
func (w *writer) announce(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.begin(http.StatusOK)
	fmt.Fprintf(w.ResponseWriter, "id: %s\nretry: %d\ndata: \n\n", id, retryAfter.Milliseconds())
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client has gone
}

// abandon answers in the place of a handler that panicked, if that is still
// possible; bug is the id that the panic is logged under.
func (w *writer) abandon(bug string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.began {
		w.began = true
		refuse(w.ResponseWriter, http.StatusInternalServerError, "internal error "+bug)
	}
}

func (w *writer) begin(status int) {
	if w.began {
		return
	}
	w.began = true
	// mcp-go opens every SSE stream to the pages of every origin.
	w.Header().Del("Access-Control-Allow-Origin")
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
		w.Header().Set("X-Accel-Buffering", "no") // a proxy must not wait for more
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) send() {
	if w.buf.Len() == 0 {
		return
	}
	if raw := w.buf.Bytes(); !w.server.settle.mark(raw) {
		_, _ = w.ResponseWriter.Write(w.server.redact.frame(w.ctx, raw)) // the client has gone
		w.stream.answered(raw)
	}
	w.buf.Reset()
}
