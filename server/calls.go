package server

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/tools"
)

// recovered turns a panic, and an error that a handler should have made a
// result of, into a result that says only the id it is logged under.
func (s *Server) recovered(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (res *mcp.CallToolResult, err error) {
		defer func() {
			if p := recover(); p != nil {
				res, err = tools.Internal(s.panicked(ctx, p, "tool", req.Params.Name)), nil
			}
		}()
		res, err = next(ctx, req)
		if err != nil {
			return tools.Internal(s.bug(ctx, "a tool returned an error", "tool", req.Params.Name, "error", s.redact.text(err.Error()))), nil
		}
		if res == nil {
			return tools.Internal(s.bug(ctx, "a tool returned nothing", "tool", req.Params.Name)), nil
		}
		return res, nil
	}
}

// logged logs each call: which tool, how it ended, how long it took.
func (s *Server) logged(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		began := s.now()
		res, err := next(ctx, req)
		s.log.InfoContext(ctx, "tool called", "tool", req.Params.Name,
			"failed", err != nil || res == nil || res.IsError, "took", s.now().Sub(began))
		return res, err
	}
}

// bounded ends a call that takes too long.
func bounded(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return next(ctx, req)
	}
}

// startWait is how long a tool call waits for the start-up registration.
const startWait = 10 * time.Second

// afterStart lets a call wait for what [Server.Start] started. Without it the
// first call of a session would be told that nothing is registered, and the
// model would register once more.
func (s *Server) afterStart(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		s.stir()
		s.waitStarted(ctx)
		return next(ctx, req)
	}
}

// waitStarted waits, for a while, until what [Server.Start] started has ended.
func (s *Server) waitStarted(ctx context.Context) {
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	if started == nil {
		return
	}
	limit := time.NewTimer(startWait)
	defer limit.Stop()
	select {
	case <-started:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// explainValidation replaces mcp-go's terse words about arguments and results
// that break their schema. Validation runs around the middlewares, so only a
// hook sees its results; they are the only errors without structured content.
func (s *Server) explainValidation(ctx context.Context, _ any, req *mcp.CallToolRequest, result any) {
	res, ok := result.(*mcp.CallToolResult)
	if !ok || res == nil || !res.IsError || res.StructuredContent != nil {
		return
	}
	var said string
	if len(res.Content) > 0 {
		said = s.redact.text(mcp.GetTextFromContent(res.Content[0]))
	}
	tool := s.mcp.GetTool(req.Params.Name)
	if tool == nil || strings.HasPrefix(said, "output schema") {
		*res = *tools.Internal(s.bug(ctx, "a result breaks its schema", "tool", req.Params.Name, "error", said))
		return
	}
	args, _ := req.GetRawArguments().(json.RawMessage)
	*res = *tools.InvalidArguments(tool.Tool, args)
}
