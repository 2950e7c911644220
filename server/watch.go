package server

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/tools"
)

// lookTime is how often it is looked for changes of other processes.
const lookTime = 10 * time.Second

// firstTime is how long a call may be kept from beginning by a look.
const firstTime = 250 * time.Millisecond

// watch tells clients when another set of credentials is stored than a moment
// ago: a resource has come or gone. What this process does shows after each tool
// call that may change something; what others do, at the next of some slow ticks,
// which there are only while somebody wants to know. Until a client has asked for
// the list of the resources, or called such a tool, nobody knows of a list that
// could have changed, and nothing is looked at.
type watch struct {
	server *Server
	deps   tools.Deps
	ticks  func() (<-chan time.Time, func())
	one    chan struct{} // who looks holds its one place

	mu      sync.Mutex
	known   []string // the handles when it was looked last
	looked  bool
	clients int  // that are connected or listen
	ticking bool // somebody looks at the ticks
	ended   bool
	over    chan struct{}      // closed when nothing is looked at any more
	cancel  context.CancelFunc // ends who looks at the ticks
}

func newWatch(s *Server, deps tools.Deps, ticks func() (<-chan time.Time, func())) *watch {
	if ticks == nil {
		ticks = func() (<-chan time.Time, func()) {
			t := time.NewTicker(lookTime)
			return t.C, t.Stop
		}
	}
	return &watch{server: s, deps: deps, ticks: ticks, one: make(chan struct{}, 1), over: make(chan struct{}), cancel: func() {}}
}

// hook counts who could be told: clients with a session, and streams of
// clients without one that listen for it.
func (w *watch) hook(hooks *mcpserver.Hooks) {
	hooks.AddOnRegisterSession(func(context.Context, mcpserver.ClientSession) { w.count(1) })
	hooks.AddOnUnregisterSession(func(context.Context, mcpserver.ClientSession) { w.count(-1) })
	hooks.AddBeforeSubscriptionsListen(func(ctx context.Context, _ any, req *mcp.SubscriptionsListenRequest) {
		if !req.Params.Notifications.ResourcesListChanged {
			return
		}
		w.count(1)
		context.AfterFunc(ctx, func() { w.count(-1) })
		w.tick(ctx)
	})
}

func (w *watch) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients += n
	if w.clients == 0 {
		w.cancel()
	}
}

// changes is the middleware of tools.
func (w *watch) changes(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		tool := w.server.mcp.GetTool(req.Params.Name)
		if tool == nil || tool.Tool.Annotations.ReadOnlyHint == nil || *tool.Tool.Annotations.ReadOnlyHint {
			return next(ctx, req)
		}
		w.first(ctx)
		res, err := next(ctx, req)
		w.later(ctx)
		return res, err
	}
}

// first looks before the first call that may change something, so that what it
// changes can be told. A store that is slow is not waited for.
func (w *watch) first(ctx context.Context) {
	w.mu.Lock()
	needless := w.looked || w.clients == 0
	w.mu.Unlock()
	if needless {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstTime)
	defer cancel()
	_, _ = w.look(ctx)
}

// later looks when a call has ended, which does not wait for it.
func (w *watch) later(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.clients == 0 {
		return
	}
	w.server.keeping.Go(func() {
		ctx, cancel := w.until(ctx)
		defer cancel()
		defer w.recovered(ctx)
		_, _ = w.look(ctx) // what cannot be read now cannot have been listed, either
	})
}

// until returns a context that ends when the looking does.
func (w *watch) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-w.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// recovered logs a panic.
func (w *watch) recovered(ctx context.Context) {
	if p := recover(); p != nil {
		w.server.panicked(ctx, p, "where", "watch")
	}
}

// look returns the handles of the stored credentials, and tells the clients if
// they are others than those of the last time.
func (w *watch) look(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	select {
	case w.one <- struct{}{}:
		defer func() { <-w.one }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	handles, err := w.deps.Handles(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	changed := w.looked && !slices.Equal(w.known, handles)
	w.known, w.looked = handles, true
	w.mu.Unlock()
	if changed {
		w.server.mcp.SendNotificationToAllClients(mcp.MethodNotificationResourcesListChanged, nil)
	}
	w.tick(ctx)
	return handles, nil
}

// tick has somebody look at every tick from now on, while there are clients.
func (w *watch) tick(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ticking || w.ended || w.clients == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.ticking, w.cancel = true, cancel
	w.server.keeping.Go(func() {
		defer cancel()
		w.run(ctx)
	})
}

// run looks at every tick until ctx ends.
func (w *watch) run(ctx context.Context) {
	defer func() {
		p := recover()
		if p != nil {
			w.server.panicked(ctx, p, "where", "watch")
		}
		w.mu.Lock()
		w.ticking = false
		again := w.clients > 0 && p == nil // who came while this one was ending
		w.mu.Unlock()
		if again {
			w.tick(ctx)
		}
	}()
	ticks, stop := w.ticks()
	defer stop()
	_, _ = w.look(ctx)
	for {
		select {
		case <-ticks:
			_, _ = w.look(ctx) // the next tick is another chance
		case <-ctx.Done():
			return
		}
	}
}

// rest ends the looking for good.
func (w *watch) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		close(w.over)
	}
	w.cancel()
}

// listening returns a request for a stream of notifications that ends when the
// server is stopped: it is no work that would be waited for.
func (s *Server) listening(r *http.Request) (listen *http.Request, end func()) {
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return r.WithContext(ctx), cancel
}
