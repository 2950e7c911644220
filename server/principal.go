package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	// maxSessions is how many sessions there are at once, and maxSessionsEach
	// how many of them one token has. An idle one costs some 50 KiB.
	maxSessions, maxSessionsEach = 2000, 1500
	// requestsPerSession is how many requests may be under way for each session
	// that is allowed: the stream that it listens on, and calls.
	requestsPerSession = 4
	// checkEvery is how often is looked whether the tokens of those who have a
	// session or a request under way are still good.
	checkEvery = time.Second
)

// Principal is whose a bearer token is.
type Principal struct {
	// Name is what a person called the token.
	Name string
	// ID tells tokens apart that have the same name one after the other. It is
	// no secret.
	ID string
}

var (
	errFull = errors.New("the server has as many sessions or requests as it can have; end one, or try again later")
	errMany = errors.New("this token has as many sessions or requests as it may have; end one (DELETE with its Mcp-Session-Id), or try again later")
)

// guestKey is the context key of the guest that a request is of.
type guestKey struct{}

// guest is a principal who has a session or a request under way.
type guest struct {
	Principal
	// ctx ends when the token is no longer good; nil where there are no tokens. It is the guest's life, not that of a call.
	ctx                context.Context
	end                context.CancelFunc
	sessions, requests int
}

// guestOf returns the guest that something is done for; one without a name
// where nobody had to show a token.
func guestOf(ctx context.Context) *guest {
	if g, ok := ctx.Value(guestKey{}).(*guest); ok {
		return g
	}
	return &guest{}
}

// within returns a context that also ends when the guest's token does.
func (g *guest) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if g.ctx == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(g.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// whileGood ends a call when the token that it came with is revoked or expires.
// The context of a message over SSE has nothing else that would.
func whileGood(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		ctx, cancel := guestOf(ctx).within(ctx)
		defer cancel()
		return next(ctx, req)
	}
}

// guests knows every guest, and lets no more in than there is room for.
type guests struct {
	most, mostEach int // sessions

	mu                 sync.Mutex
	byID               map[string]*guest
	sessions, requests int
}

func newGuests(most, mostEach int) *guests {
	return &guests{most: most, mostEach: mostEach, byID: make(map[string]*guest)}
}

// enter lets a request in, with a context that ends when the token does.
func (gs *guests) enter(ctx context.Context, p Principal) (within context.Context, leave func(), err error) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.byID[p.ID]
	switch {
	case gs.requests >= gs.most*requestsPerSession:
		return nil, nil, errFull
	case g != nil && g.requests >= gs.mostEach*requestsPerSession:
		return nil, nil, errMany
	case g == nil || g.ctx.Err() != nil: // a token may be good again that was not
		g = &guest{Principal: p}
		g.ctx, g.end = context.WithCancel(context.Background())
		gs.byID[p.ID] = g
	}
	g.requests++
	gs.requests++
	within, cancel := g.within(context.WithValue(ctx, guestKey{}, g))
	return within, sync.OnceFunc(func() {
		cancel()
		gs.mu.Lock()
		defer gs.mu.Unlock()
		g.requests--
		gs.requests--
		gs.forget(g)
	}), nil
}

// admit lets a guest begin a session.
func (gs *guests) admit(g *guest) (leave func(), err error) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	switch {
	case gs.sessions >= gs.most:
		return nil, errFull
	case g.sessions >= gs.mostEach:
		return nil, errMany
	}
	g.sessions++
	gs.sessions++
	return sync.OnceFunc(func() {
		gs.mu.Lock()
		defer gs.mu.Unlock()
		g.sessions--
		gs.sessions--
		gs.forget(g)
	}), nil
}

// forget drops a guest who has nothing here any more.
func (gs *guests) forget(g *guest) {
	if g.sessions > 0 || g.requests > 0 {
		return
	}
	g.end()
	if gs.byID[g.ID] == g {
		delete(gs.byID, g.ID)
	}
}

// expel ends whatever is done for those whose tokens are no longer good, and
// returns who they are. Those who still have something here are returned again.
func (gs *guests) expel(good func(Principal) bool) []*guest {
	gone := slices.DeleteFunc(gs.all(), func(g *guest) bool { return good(g.Principal) })
	for _, g := range gone {
		g.end()
	}
	return gone
}

func (gs *guests) all() []*guest {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	all := make([]*guest, 0, len(gs.byID))
	for _, g := range gs.byID {
		all = append(all, g)
	}
	return all
}

// ticks returns the clock by which is looked whether tokens are still good.
func (g *guard) ticks() (<-chan time.Time, func()) {
	if g.config.Tick != nil {
		return g.config.Tick()
	}
	t := time.NewTicker(checkEvery)
	return t.C, t.Stop
}

// watch ends sessions and requests of tokens that are no longer good, each time
// that ticks says, until ctx ends.
func (g *guard) watch(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return
		}
		for _, gone := range g.guests.expel(g.config.Good) {
			for _, id := range g.sessions.of(gone) {
				g.server.log.InfoContext(ctx, "a session is ended: its token is no longer good", "token_name", gone.Name)
				g.endSession(ctx, id)
			}
		}
	}
}
