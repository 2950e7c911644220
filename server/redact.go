package server

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

// redactor is the last line of defence: it looks for secrets in whatever goes
// out. The first line is that nothing above package gateway holds one, so what
// it finds is a bug of ours, and is logged as one.
type redactor struct {
	scrub *gateway.Scrubber
	bug   func(ctx context.Context, message string, args ...any) string
}

func newRedactor(c *gateway.Client, bug func(context.Context, string, ...any) string) *redactor {
	return &redactor{scrub: c.Scrubber, bug: bug}
}

// text masks what looks like a secret. It reads no store, so it cannot fail.
func (r *redactor) text(s string) string { return r.scrub.Shaped(s) }

// loadTime is how long the store may take: a keyring that hangs must not hold
// the answer of a tool that needs no secret.
const loadTime = 2 * time.Second

// all masks the stored secrets too, also when whoever asked has given up. Where
// the store cannot be read in time it masks what looks like one: package gateway
// withholds what a service says then, and an error that says so must get out.
func (r *redactor) all(ctx context.Context, s string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	if clean, err := r.scrub.Scrub(ctx, s); err == nil {
		return clean
	}
	return r.text(s)
}

// results looks through the result of every tool.
func (r *redactor) results(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		res, err := next(ctx, req)
		if err != nil || res == nil {
			return res, err
		}
		raw, err := json.Marshal(res)
		if err != nil {
			return nil, err
		}
		clean := r.all(ctx, string(raw))
		if clean == string(raw) {
			return res, nil
		}
		id := r.bug(ctx, "a secret was in a result; it was replaced", "tool", req.Params.Name)
		masked := new(mcp.CallToolResult)
		if err := json.Unmarshal([]byte(clean), masked); err != nil {
			return tools.Internal(id), nil
		}
		return masked, nil
	}
}

// message looks through one JSON-RPC message as it goes over the wire. Answers
// are not worth reading the store for, which can be slow or ask for a
// password: those of tools were looked through, and the others say what this
// program or the client itself said. A notification may say anything.
func (r *redactor) message(ctx context.Context, raw []byte) []byte {
	var m struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	err := json.Unmarshal(raw, &m)
	clean := r.text(string(raw))
	if err == nil && m.Method != "" {
		clean = r.all(ctx, clean)
	}
	if clean == string(raw) {
		return raw
	}
	id := r.bug(ctx, "a secret was in a message; it was replaced")
	if json.Valid([]byte(clean)) || !json.Valid(raw) {
		return []byte(clean)
	}
	var to any
	if len(m.ID) > 0 {
		to = m.ID
	}
	text, err := json.Marshal(protocolError(to, mcp.INTERNAL_ERROR, "internal error "+id))
	if err != nil {
		return []byte(`{}`)
	}
	return text
}

// frame looks through what an HTTP handler wrote: a JSON message, a
// server-sent event, or a line of text.
func (r *redactor) frame(ctx context.Context, raw []byte) []byte {
	field := []byte("data: ")
	if !bytes.HasPrefix(raw, field) && !bytes.Contains(raw, append([]byte("\n"), field...)) {
		return r.message(ctx, raw)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	var out []byte
	for _, line := range lines {
		data, ok := bytes.CutPrefix(line, field)
		if !ok {
			out = append(out, r.text(string(line))...)
			continue
		}
		text := bytes.TrimRight(data, "\r\n")
		out = append(out, field...)
		out = append(out, r.message(ctx, text)...)
		out = append(out, data[len(text):]...)
	}
	return out
}
