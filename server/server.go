// Package server puts the tools behind the Model Context Protocol, over stdio,
// streamable HTTP and SSE.
//
// It is where mcp-go's defaults are made safe: arguments and results are
// checked against their schemas, nobody without the bearer token, from another
// origin or by another host name gets in over HTTP, a panic leaves as an id,
// calls under way are answered before the program ends, and whatever goes out
// is looked through for secrets once more, although none should be in it.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

// callTimeout is how long a tool call may take, whatever it waits for: a
// service, another process, the keyring. Clients give up after 30 to 60 seconds.
const callTimeout = 28 * time.Second

// quietTime is how long what can wait waits after the start. A client starts us
// and asks for the list of tools, and may use none of them today.
const quietTime = 2 * time.Second

// Config is what a [Server] is made of. Client and Now are required.
type Config struct {
	Client *gateway.Client
	// Caller says on whose behalf tools are called; the zero value: a model's.
	Caller gateway.CallerKind
	// Tools says which tools there are; the zero value: all.
	Tools tools.Selection
	// Version is what clients are told; "": "dev".
	Version string
	// Now is the clock.
	Now func() time.Time
	// StoredIn names where secrets are kept, as credstore.Store.Backend does,
	// for the results of tools. nil: they do not say.
	StoredIn func(context.Context) (string, error)
	// Tick is as in tools.Deps; nil: slow answers are reported every second.
	Tick func() (ticks <-chan time.Time, stop func())
	// Look gives the ticks at which it is looked, while a client wants to know,
	// whether another process has changed which credentials there are; nil:
	// every 10 seconds.
	Look func() (ticks <-chan time.Time, stop func())
	// AskTime is for how long a question to a person waits for its answer;
	// 0: 5 minutes.
	AskTime time.Duration
	// Logger gets what happens, never what is said. nil: nothing is logged.
	Logger *slog.Logger
}

// Server is Enlist as an MCP server. It serves any number of clients.
type Server struct {
	mcp    *mcpserver.MCPServer
	client *gateway.Client
	now    func() time.Time
	log    *slog.Logger
	redact *redactor
	settle *settler
	watch  *watch

	work *work

	askTime  time.Duration
	stopping chan struct{} // closed when nobody is asked any more
	stopAsks func()

	quiet      chan struct{} // closed when what can wait begins
	stir       func()
	start      sync.Once
	background sync.WaitGroup // what Start started, and ends by itself
	keeping    sync.WaitGroup // what it started that ends with us

	mu      sync.Mutex
	started chan struct{}           // closed when what Start started has ended; nil: nothing was
	stop    context.CancelFunc      // ends what Start started
	rest    context.CancelFunc      // has nothing more renewed
	ends    []func(context.Context) // end what the handlers serve
}

// New returns a Server with every tool. It does nothing yet but answer.
func New(c Config) (*Server, error) {
	if c.Client == nil || c.Now == nil {
		return nil, errors.New("server: Config.Client and Config.Now are required")
	}
	if err := c.Tools.Check(); err != nil {
		return nil, err
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{client: c.Client, now: c.Now, log: c.Logger, work: newWork(), stop: func() {}, rest: func() {}}
	s.redact = newRedactor(c.Client, s.bug)
	s.settle = newSettler()
	s.askTime = cmp.Or(c.AskTime, askTime)
	s.stopping = make(chan struct{})
	s.stopAsks = sync.OnceFunc(func() { close(s.stopping) })

	s.quiet = make(chan struct{})
	s.stir = sync.OnceFunc(func() { close(s.quiet) })

	hooks := &mcpserver.Hooks{}
	hooks.AddAfterCallTool(s.explainValidation)
	hooks.AddAfterSubscriptionsListen(s.settle.listened)
	deps := tools.Deps{Client: c.Client, Selection: c.Tools, Now: c.Now, StoredIn: c.StoredIn, Tick: c.Tick, Logger: c.Logger}
	s.watch = newWatch(s, deps, c.Look)
	more := &resources{server: s, deps: deps, watch: s.watch}
	s.mcp = mcpserver.NewMCPServer("enlist", c.Version, slices.Concat(s.fixtures(), []mcpserver.ServerOption{
		mcpserver.WithTitle("Enlist"),
		mcpserver.WithDescription("Registers agents at services and keeps their keys out of the model's sight."),
		mcpserver.WithInstructions(instructions(c.Tools)),
		// The list is the same for everybody and for as long as we run.
		mcpserver.WithToolCapabilities(false),
		// Without these a handler gets zero values and unknown fields, and a
		// result that breaks its schema goes out.
		mcpserver.WithInputSchemaValidation(),
		mcpserver.WithStrictInputSchemaDefault(),
		mcpserver.WithOutputSchemaValidation(),
		mcpserver.WithHooks(hooks),
		// The first is the outermost. mcp-go's own recovery stands behind ours:
		// it would send the text of the panic.
		mcpserver.WithRecovery(),
		mcpserver.WithToolHandlerMiddleware(s.recovered),
		mcpserver.WithToolHandlerMiddleware(called(c.Caller)),
		mcpserver.WithToolHandlerMiddleware(whileGood),
		mcpserver.WithToolHandlerMiddleware(s.asking),
		mcpserver.WithToolHandlerMiddleware(bounded),
		mcpserver.WithToolHandlerMiddleware(s.afterStart),
		mcpserver.WithToolHandlerMiddleware(s.redact.results),
		mcpserver.WithToolHandlerMiddleware(s.logged),
		mcpserver.WithToolHandlerMiddleware(s.settle.settled),
	}, more.options(hooks))...)
	tools.Register(s.mcp, deps)
	more.add(s.mcp)
	s.addFixtures()
	return s, nil
}

// MCP returns the server for clients in the same process.
func (s *Server) MCP() *mcpserver.MCPServer { return s.mcp }

// Start does in the background, once, what the user's settings ask for at the
// start: take over or register an agent. A client does not wait for it, only a
// tool call does, for a while: it may be about the very credential. What came of
// it list_credentials shows, and the log says why nothing did. It ends early
// when ctx ends.
//
// From then on until the program ends it also renews what is stored before it
// expires.
//
// Beside it, what a process of the past left half-done is finished, from the
// first tool call on, or two seconds after the start. No call waits for that, nor does the end of the program, but for a few seconds: before a
// credential is used its own is finished in any case.
func (s *Server) Start(ctx context.Context) {
	s.start.Do(func() {
		keeping, rest := context.WithCancel(ctx)
		ctx, cancel := context.WithCancel(ctx)
		started, healed := make(chan struct{}), make(chan struct{})
		s.mu.Lock()
		s.started, s.stop, s.rest = started, cancel, rest
		s.mu.Unlock()
		s.keeping.Go(func() { s.keep(keeping) })
		s.startOne(ctx, started, "start-up registration failed", s.client.Start)
		soon := time.AfterFunc(quietTime, s.stir)
		s.background.Go(func() {
			<-s.quiet
			soon.Stop()
			s.startOne(keeping, healed, "what was left half-done could not all be finished", s.client.Lifecycle.Heal)
			<-started
			<-healed
			cancel()
		})
	})
}

// keep renews what is stored until ctx ends.
func (s *Server) keep(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(ctx, p, "where", "renewal")
		}
	}()
	s.client.Lifecycle.Keep(ctx)
}

// letRest has nothing more renewed, nor looked for. What is under way goes on for some seconds.
func (s *Server) letRest() {
	s.mu.Lock()
	rest := s.rest
	s.mu.Unlock()
	s.stir()
	rest()
	s.watch.rest()
}

// startOne does one thing in the background and closes ended when it is done.
func (s *Server) startOne(ctx context.Context, ended chan<- struct{}, failed string, f func(context.Context) error) {
	end := s.work.begin()
	s.background.Go(func() {
		defer end()
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				s.panicked(ctx, p, "where", "start")
			}
		}()
		if err := f(ctx); err != nil {
			s.log.WarnContext(ctx, failed, "error", s.redact.text(err.Error()))
		}
	})
}

// handle gives one message to mcp-go and returns its answer, nil for none.
func (s *Server) handle(ctx context.Context, id, message json.RawMessage) (answer mcp.JSONRPCMessage) {
	defer func() {
		if p := recover(); p != nil {
			bug := s.panicked(ctx, p, "where", "message")
			answer = nil
			if len(id) > 0 {
				answer = protocolError(id, mcp.INTERNAL_ERROR, "internal error "+bug)
			}
		}
	}()
	return s.mcp.HandleMessage(ctx, message)
}

// bug logs what only a mistake of ours can cause, and returns the id it is
// logged under, which is all that a client is told. args hold no secret.
func (s *Server) bug(ctx context.Context, message string, args ...any) string {
	id := strings.ToLower(rand.Text()[:10])
	s.log.ErrorContext(ctx, message, append([]any{"bug_id", id}, args...)...)
	return id
}

// panicked logs a panic as a bug.
func (s *Server) panicked(ctx context.Context, p any, args ...any) string {
	return s.bug(ctx, "panic", append(args, "panic", s.redact.text(fmt.Sprint(p)), "stack", string(debug.Stack()))...)
}
