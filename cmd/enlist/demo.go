package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A tour, offline, in a few seconds",
		Long: `A tour of all five protocols, offline, in a few seconds: a real MCP client talks
to the real MCP server, which registers at a real gateway over HTTP on a free
loopback port. Each step shows what the model saw and, beside it, what happened
on the wire.

The demo has its own store, in memory, and its own database, in a temporary
folder. It does not touch yours and leaves nothing behind.`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.flags.refuseClient(); err != nil {
				return &usageError{err}
			}
			return p.demo(cmd.Context(), asJSON)
		}),
	}
	jsonFlag(cmd, &asJSON, `an object, and no tour: protocols, tool_calls, bytes_received (by the
model), secrets_issued, secrets_found (among those bytes; more than 0 is a failure).`)
	return cmd
}

// toured is what came of the demo.
type toured struct {
	Protocols     int `json:"protocols"`
	ToolCalls     int `json:"tool_calls"`
	BytesReceived int `json:"bytes_received"`
	SecretsIssued int `json:"secrets_issued"`
	SecretsFound  int `json:"secrets_found"`
}

// demo sets the stage, runs the tour and clears the stage.
func (p *program) demo(ctx context.Context, asJSON bool) (err error) {
	dir, err := os.MkdirTemp("", "enlist-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	s := p.screen()
	if asJSON {
		s.out = io.Discard
	}
	d := &demo{page: newPage(s, p.columns()), wait: p.waits().wait, wire: &wiretap{next: gateway.NewTransport(nil)}}
	stop, err := d.serve(ctx, p, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	hangUp, err := d.connect(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hangUp()) }()
	if err := d.tour(ctx); err != nil {
		return err
	}
	err = d.clean()
	if asJSON {
		if err != nil {
			err = &runError{err: err, reported: true} // the numbers say it
		}
		err = errors.Join(err, printJSON(p.stdout, d.toured))
	}
	return err
}

// serve runs a gateway on a free loopback port.
func (d *demo) serve(ctx context.Context, p *program, dir string) (stop func() error, err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.origin = "http://" + ln.Addr().String()
	d.gateway, err = embeddedgateway.New(ctx, embeddedgateway.Config{
		Database:       "sqlite:" + filepath.Join(dir, "gateway.db"),
		Env:            noEnvironment,
		PublicURL:      d.origin,
		LonaStrategies: sampleStrategies(),
		Now:            p.now,
		Logger:         p.logger(),
		Wrap:           p.wrapGateway,
	})
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- d.gateway.Serve(serving, ln) }()
	return func() error {
		cancel()
		return errors.Join(<-done, d.gateway.Close())
	}, nil
}

// noEnvironment keeps the user's settings out of the demo.
func noEnvironment(string) string { return "" }

// demo is the tour and what it looks at while it goes.
type demo struct {
	page    *page
	wait    func(what string) (done func())
	wire    *wiretap
	model   byteCounter // everything that the server said to the model
	gateway *embeddedgateway.Gateway
	origin  string
	caller  *mcpclient.Client

	mu    sync.Mutex
	asked []string // what the person was asked

	toured toured
}

// connect starts the MCP server on a pair of pipes and connects a client, just
// as an MCP client does over standard input and output.
func (d *demo) connect(ctx context.Context, p *program) (hangUp func() error, err error) {
	store := credstore.NewMemory(p.now)
	origins := map[string]string{}
	for _, protocol := range wire.Protocols() {
		origins[protocol.Name] = d.origin
	}
	c, err := gateway.New(gateway.Options{
		Store:     store,
		Env:       noEnvironment,
		Origins:   origins,
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
	d.caller = mcpclient.NewClient(transport.NewIO(io.TeeReader(clientIn, &d.model), clientOut, io.NopCloser(strings.NewReader(""))),
		mcpclient.WithElicitationHandler(d))
	hangUp = func() error { return errors.Join(d.caller.Close(), clientOut.Close(), <-ended) }
	if err := d.caller.Start(ctx); err != nil {
		return nil, errors.Join(err, hangUp())
	}
	if _, err := d.caller.Initialize(ctx, initializeRequest("enlist demo")); err != nil {
		return nil, errors.Join(err, hangUp())
	}
	return hangUp, nil
}

// Elicit is the person of the tour, who agrees to what the client asks them.
func (d *demo) Elicit(_ context.Context, r mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r.Params.Message)
	return &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{
		Action: mcp.ElicitationResponseActionAccept, Content: map[string]any{},
	}}, nil
}

// questions returns what the person was asked since it was called last.
func (d *demo) questions() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked := d.asked
	d.asked = nil
	return asked
}

// call makes one tool call, prints both sides of it and returns what the model
// saw.
func (d *demo) call(ctx context.Context, s step) (map[string]any, error) {
	d.wire.forget()
	request := mcp.CallToolRequest{}
	request.Params.Name = s.tool
	request.Params.Arguments = s.arguments
	if s.arguments == nil {
		request.Params.Arguments = map[string]any{}
	}
	done := d.wait("waiting for " + s.tool)
	result, err := d.caller.CallTool(ctx, request)
	done()
	d.toured.ToolCalls++
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.tool, err)
	}
	for _, asked := range d.questions() {
		d.page.question(asked)
	}
	saw, _ := structured(result).(map[string]any)
	left := append([]string{"→ " + s.tool + " " + compactJSON(request.Params.Arguments)}, prettyJSON(structured(result))...)
	d.page.step(s.title, left, d.wire.lines(), s.lines)
	if result.IsError {
		return nil, fmt.Errorf("%s failed", s.tool)
	}
	return saw, nil
}

// verdict looks for every secret of the tour in everything the model received.
func (d *demo) verdict() {
	secrets := d.wire.secrets()
	found := 0
	for _, s := range secrets {
		if d.model.contains(s) {
			found++
		}
	}
	d.toured.BytesReceived, d.toured.SecretsIssued, d.toured.SecretsFound = d.model.len(), len(secrets), found
	d.page.verdict(len(secrets), d.model.len(), found)
}

// clean returns an error if a secret has reached the model, or if none was there
// to be looked for.
func (d *demo) clean() error {
	if d.toured.SecretsFound > 0 || d.toured.SecretsIssued == 0 {
		return fmt.Errorf("%d of %d secrets reached the model", d.toured.SecretsFound, d.toured.SecretsIssued)
	}
	return nil
}
