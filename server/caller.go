package server

import (
	"context"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// called says in the context of a tool call who calls: a client by the name that
// it gave itself, in the session or, in the stateless era, with the request.
func called(kind gateway.CallerKind) mcpserver.ToolHandlerMiddleware {
	return func(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
		return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			caller := gateway.Caller{Kind: kind}
			if s, ok := mcpserver.ClientSessionFromContext(ctx).(mcpserver.SessionWithClientInfo); ok {
				info := s.GetClientInfo()
				caller.Name, caller.Version = info.Name, info.Version
			}
			return next(gateway.WithCaller(ctx, caller), req)
		}
	}
}
