package server

import (
	"context"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// called says in the context of a tool call who calls: a client by the name that
// it gave itself, in the session or, in the stateless era, with the request. It
// also says whether that client can put a question to a person.
func called(kind gateway.CallerKind) mcpserver.ToolHandlerMiddleware {
	return func(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
		return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			caller := gateway.Caller{Kind: kind, TokenName: guestOf(ctx).Name}
			session := mcpserver.ClientSessionFromContext(ctx)
			if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil && info.Modern {
				if info.ClientInfo != nil {
					caller.Name, caller.Version = info.ClientInfo.Name, info.ClientInfo.Version
				}
				caller.Asks = info.ClientCapabilities != nil && asks(*info.ClientCapabilities)
			} else if s, ok := session.(mcpserver.SessionWithClientInfo); ok {
				info := s.GetClientInfo()
				caller.Name, caller.Version = info.Name, info.Version
				_, elicits := session.(mcpserver.SessionWithElicitation)
				caller.Asks = elicits && asks(s.GetClientCapabilities())
			}
			return next(gateway.WithCaller(ctx, caller), req)
		}
	}
}

// asks reports whether a client can show a person a form, which is what it means
// when it does not say which kind of question it can ask.
func asks(c mcp.ClientCapabilities) bool {
	return c.Elicitation != nil && (c.Elicitation.Form != nil || c.Elicitation.URL == nil)
}
