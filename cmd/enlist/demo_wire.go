package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// wiretap is a transport that keeps what goes over it, for the demo only: it
// sees secrets in the clear and shows them masked.
type wiretap struct {
	next http.RoundTripper

	mu        sync.Mutex
	exchanges []exchange
	seen      []string // every secret that was issued
	key       string   // the last key that a request carried
}

// exchange is one request and its answer.
type exchange struct {
	method, path string
	header       []string // the headers that carry a credential
	body, answer []byte
	status       string
}

// maxTapped is how much of a body the wiretap reads.
const maxTapped = 1 << 20

// RoundTrip implements [http.RoundTripper].
func (w *wiretap) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchange{method: req.Method, path: req.URL.Path}
	if req.Body != nil {
		body, err := io.ReadAll(io.LimitReader(req.Body, maxTapped))
		if err := closing(req.Body, err); err != nil {
			return nil, err
		}
		x.body = body
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	for _, name := range credentialHeaders() {
		if v := req.Header.Get(name); v != "" {
			x.header = append(x.header, name+": "+v)
		}
	}
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxTapped))
	if err := closing(resp.Body, err); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	x.answer, x.status = answer, resp.Status
	w.keep(x, req.Header.Get(wire.LonaKeyHeader))
	return resp, nil
}

// credentialHeaders returns the headers that carry credentials of any protocol,
// each once: protocols share some.
func credentialHeaders() []string {
	var names []string
	for _, protocol := range wire.Protocols() {
		names = append(names, protocol.Headers...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// maskHeader masks what is secret in a header line. What HTTP's basic
// authentication hides in base64 is written out first: a name, which is public,
// and a key.
func maskHeader(line string) string {
	name, encoded, ok := strings.Cut(line, ": Basic ")
	if !ok {
		return wire.Mask(line)
	}
	plain, err := base64.StdEncoding.DecodeString(encoded)
	user, _, found := strings.Cut(string(plain), ":")
	if err != nil || !found {
		return name + ": Basic …"
	}
	masked := wire.Mask(string(plain))
	if masked == string(plain) { // it has no shape that is known
		masked = user + ":…"
	}
	return name + ": Basic base64(" + masked + ")"
}

func closing(c io.Closer, err error) error {
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (w *wiretap) keep(x exchange, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exchanges = append(w.exchanges, x)
	if key != "" {
		w.key = key
	}
	for _, protocol := range wire.Protocols() {
		for _, shape := range protocol.Shapes {
			for _, secret := range shape.Pattern.FindAllString(string(x.answer), -1) {
				if !slices.Contains(w.seen, secret) {
					w.seen = append(w.seen, secret)
				}
			}
		}
	}
}

// forget begins a new step.
func (w *wiretap) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exchanges = nil
}

// lastKey returns the key that was sent last.
func (w *wiretap) lastKey() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.key
}

// secrets returns every secret that was issued.
func (w *wiretap) secrets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// lines returns the step's exchanges as text, every secret masked.
func (w *wiretap) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.exchanges) == 0 {
		return []string{"nothing: answered from the store"}
	}
	var lines []string
	for _, x := range w.exchanges {
		lines = append(lines, "→ "+x.method+" "+x.path)
		for _, h := range x.header {
			lines = append(lines, "  "+maskHeader(h))
		}
		if len(x.body) > 0 {
			lines = append(lines, "  "+wire.Mask(string(x.body)))
		}
		lines = append(lines, "← "+x.status, "  "+wire.Mask(strings.TrimSpace(string(x.answer))))
	}
	return lines
}

// byteCounter keeps what was written to it, to search it.
type byteCounter struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *byteCounter) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *byteCounter) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Len()
}

func (b *byteCounter) contains(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Contains(b.text.Bytes(), []byte(s))
}

func compactJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func prettyJSON(v any) []string {
	var text strings.Builder
	if err := printJSON(&text, v); err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimSpace(text.String()), "\n")
}
