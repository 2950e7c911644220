package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/server"
)

func (p *program) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "A tour, offline, in a few seconds",
		Long: `A tour, offline, in a few seconds: a real MCP client talks to the real MCP server,
which registers at a real gateway over HTTP on a free loopback port. Each step
shows what the model saw and, beside it, what happened on the wire.

The demo has its own store, in memory, and its own database, in a temporary
folder. It does not touch yours and leaves nothing behind.`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.flags.refuseClient(); err != nil {
				return &usageError{err}
			}
			return p.demo(cmd.Context())
		}),
	}
}

// demo sets the stage, runs the tour and clears the stage.
func (p *program) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "enlist-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	origin, stop, err := p.demoGateway(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	wiretap := &wiretap{next: http.DefaultTransport.(*http.Transport).Clone()}
	d := &demo{page: newPage(p.stdout, p.columns()), wire: wiretap, origin: origin}
	hangUp, err := d.connect(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hangUp()) }()
	return d.tour(ctx)
}

// demoGateway serves a gateway on a free loopback port.
func (p *program) demoGateway(ctx context.Context, dir string) (origin string, stop func() error, err error) {
	g, err := embeddedgateway.New(ctx, embeddedgateway.Config{
		Database:       "sqlite:" + filepath.Join(dir, "gateway.db"),
		Env:            noEnvironment,
		LonaStrategies: sampleStrategies(),
		Now:            p.now,
		Logger:         p.logger(),
		Wrap:           p.wrapGateway,
	})
	if err != nil {
		return "", nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, errors.Join(err, g.Close())
	}
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- g.Serve(serving, ln) }()
	return "http://" + ln.Addr().String(), func() error {
		cancel()
		return errors.Join(<-done, g.Close())
	}, nil
}

// noEnvironment keeps the user's settings out of the demo.
func noEnvironment(string) string { return "" }

// demo is the tour and what it looks at while it goes.
type demo struct {
	page   *page
	wire   *wiretap
	model  byteCounter // everything that the server said to the model
	origin string
	caller *mcpclient.Client
}

// connect starts the MCP server on a pair of pipes and connects a client, just
// as an MCP client does over standard input and output.
func (d *demo) connect(ctx context.Context, p *program) (hangUp func() error, err error) {
	store := credstore.NewMemory(p.now)
	c, err := gateway.New(gateway.Options{
		Store:     store,
		Env:       noEnvironment,
		Origins:   map[string]string{wire.LonaName: d.origin},
		Transport: d.wire,
		Now:       p.now,
		Logger:    p.logger(),
		Version:   version(),
	})
	if err != nil {
		return nil, err
	}
	s, err := server.New(server.Config{Client: c, Version: version(), Now: p.now, StoredIn: store.Backend, Logger: p.logger()})
	if err != nil {
		return nil, err
	}
	serverIn, clientOut := io.Pipe()
	clientIn, serverOut := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := s.ServeStdio(ctx, serverIn, serverOut)
		ended <- errors.Join(err, serverOut.Close())
	}()
	d.caller = mcpclient.NewClient(transport.NewIO(io.TeeReader(clientIn, &d.model), clientOut, io.NopCloser(strings.NewReader(""))))
	hangUp = func() error { return errors.Join(d.caller.Close(), clientOut.Close(), <-ended) }
	if err := d.caller.Start(ctx); err != nil {
		return nil, errors.Join(err, hangUp())
	}
	if _, err := d.caller.Initialize(ctx, initializeRequest("enlist demo")); err != nil {
		return nil, errors.Join(err, hangUp())
	}
	return hangUp, nil
}

// tour is the story.
func (d *demo) tour(ctx context.Context) error {
	d.page.intro(d.origin)
	const agent = "my-agent"
	if err := d.call(ctx, "The agent signs itself up", "lona_register_agent",
		map[string]any{"agent_id": agent, "agent_name": "My Agent"}); err != nil {
		return err
	}
	old := d.wire.lastKey()
	if err := d.call(ctx, "It uses the account, without holding the key", "lona_list_strategies", nil); err != nil {
		return err
	}
	old = first(d.wire.lastKey(), old)
	if err := d.call(ctx, "It replaces its key", "rotate_credential", map[string]any{"credential": "lona/" + agent}); err != nil {
		return err
	}
	if err := d.stolen(ctx, agent, old); err != nil {
		return err
	}
	if err := d.call(ctx, "The new key works, and nothing had to be told", "lona_list_strategies", nil); err != nil {
		return err
	}
	if err := d.call(ctx, "What the agent knows of its accounts", "list_credentials", nil); err != nil {
		return err
	}
	return d.verdict()
}

// call makes one tool call and prints both sides of it.
func (d *demo) call(ctx context.Context, title, tool string, arguments map[string]any) error {
	d.wire.forget()
	request := mcp.CallToolRequest{}
	request.Params.Name = tool
	request.Params.Arguments = arguments
	if arguments == nil {
		request.Params.Arguments = map[string]any{}
	}
	result, err := d.caller.CallTool(ctx, request)
	if err != nil {
		return fmt.Errorf("%s: %w", tool, err)
	}
	left := append([]string{"→ " + tool + " " + compactJSON(request.Params.Arguments)}, prettyJSON(structured(result))...)
	d.page.step(title, left, d.wire.lines())
	if result.IsError {
		return fmt.Errorf("%s failed", tool)
	}
	return nil
}

// stolen uses the old token as somebody would who had copied it.
func (d *demo) stolen(ctx context.Context, agent, token string) error {
	d.wire.forget()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.origin+wire.LonaStrategiesPath, nil)
	if err != nil {
		return err
	}
	req.Header.Set(wire.LonaKeyHeader, token)
	req.Header.Set(wire.LonaUserHeader, agent)
	resp, err := (&http.Client{Transport: d.wire}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.page.step("Somebody who had copied the old key is refused",
		[]string{"nothing: this request was made by", "the demo itself, with the old token", "that it read off the wire"}, d.wire.lines())
	if resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("the old token was not refused: HTTP %d", resp.StatusCode)
	}
	return nil
}

// verdict looks for every secret of the tour in everything the model received.
func (d *demo) verdict() error {
	secrets := d.wire.secrets()
	found := 0
	for _, s := range secrets {
		if d.model.contains(s) {
			found++
		}
	}
	d.page.verdict(len(secrets), d.model.len(), found)
	if found > 0 || len(secrets) == 0 {
		return fmt.Errorf("%d of %d secrets reached the model", found, len(secrets))
	}
	return nil
}
