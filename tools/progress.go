package tools

import (
	"context"
	"fmt"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// progressMethod is the method of a notification of progress.
const progressMethod = "notifications/progress"

// withProgress returns a context in which a slow answer of a service is
// reported to a client that asked to hear of progress. A notification can reach
// another call of the same session, so there is nothing in it but a count.
func (d Deps) withProgress(ctx context.Context, req mcp.CallToolRequest) context.Context {
	s := server.ServerFromContext(ctx)
	if s == nil || req.Params.Meta == nil || req.Params.Meta.ProgressToken == nil {
		return ctx
	}
	token, tick := req.Params.Meta.ProgressToken, d.Tick
	if tick == nil {
		tick = everySecond
	}
	return gateway.WithProgress(ctx, gateway.Progress{Tick: tick, Report: func(n int, bytes int64) {
		// What must grow from one to the next is the number of the tick: no
		// byte may have come in between. Nobody has to hear it.
		_ = s.SendNotificationToClient(ctx, progressMethod, map[string]any{
			"progressToken": token, "progress": n, "message": fmt.Sprintf("%d bytes of the answer so far", bytes),
		})
	}})
}

// everySecond is the clock of [Deps].Tick.
func everySecond() (ticks <-chan time.Time, stop func()) {
	t := time.NewTicker(time.Second)
	return t.C, t.Stop
}
