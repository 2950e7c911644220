package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// mcpFlags are the flags of `enlist mcp`.
type mcpFlags struct {
	http           string
	allowHosts     []string
	allowOrigins   []string
	embeddedListen string
	tools          tools.Selection
}

func (p *program) mcpCommand() *cobra.Command {
	var flags mcpFlags
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "Run the MCP server",
		Long: `Run the MCP server: on standard input and output, or with --http over streamable
HTTP (/mcp) and SSE (/sse and /message).

Over HTTP every request needs the bearer token in ENLIST_HOME/mcp-token, which is
made and printed at the first start.`,
		Example: `  enlist mcp
  enlist mcp --embedded
  enlist mcp --http 127.0.0.1:8421`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.serveMCP(cmd, flags)
		}),
	}
	cmd.Flags().StringVar(&flags.http, "http", "", "serve HTTP on this `address` instead of standard input and output")
	cmd.Flags().StringSliceVar(&flags.allowHosts, "allow-host", nil, "also accept this `host` in the Host header (loopback is accepted)")
	cmd.Flags().StringSliceVar(&flags.allowOrigins, "allow-origin", nil, "also accept this `origin` in the Origin header (loopback is accepted)")
	cmd.Flags().StringVar(&flags.embeddedListen, "embedded-listen", "", "with --embedded: also serve the gateway on this `address`, for other programs")
	cmd.Flags().StringSliceVar(&flags.tools.Services, "services", nil, "offer the tools of these `services` only, as in lona,fluxra")
	cmd.Flags().BoolVar(&flags.tools.ReadOnly, "read-only", false, "offer nothing that changes anything, here or at a service")
	return cmd
}

func (p *program) serveMCP(cmd *cobra.Command, flags mcpFlags) error {
	if flags.http == "" && (flags.allowHosts != nil || flags.allowOrigins != nil) {
		return &usageError{errors.New("--allow-host and --allow-origin go with --http")}
	}
	if flags.embeddedListen != "" && !p.flags.embedded {
		return &usageError{errors.New("--embedded-listen goes with --embedded")}
	}
	if err := flags.tools.Check(); err != nil {
		return &usageError{fmt.Errorf("--services: %w", err)}
	}
	p.serves = true
	return p.withClient(cmd, func(ctx context.Context, c *client) error {
		if flags.embeddedListen != "" {
			stop, err := p.listenEmbedded(ctx, c, flags.embeddedListen)
			if err != nil {
				return err
			}
			defer stop()
		}
		s, err := p.newServer(c, gateway.CallerModel, flags.tools)
		if err != nil {
			return err
		}
		if flags.http != "" {
			return p.serveHTTP(ctx, s, flags)
		}
		return s.ServeStdio(ctx, p.stdin, p.stdout)
	})
}

// listenEmbedded serves the embedded gateway on a socket as well.
func (p *program) listenEmbedded(ctx context.Context, c *client, addr string) (stop func(), err error) {
	g, err := c.embedded.open(ctx)
	if err != nil {
		return nil, err
	}
	ln, err := listenOn(ctx, "--embedded-listen", addr)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(p.stderr, "enlist mcp: the embedded gateway is at http://%s\n", ln.Addr())
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Serve(ctx, ln); err != nil {
			p.logger().ErrorContext(ctx, "embedded gateway ended", "error", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}

func (p *program) serveHTTP(ctx context.Context, s *server.Server, flags mcpFlags) error {
	home, err := p.home()
	if err != nil {
		return err
	}
	// The address first: a start that fails makes no token and registers nobody.
	ln, err := listenOn(ctx, "--http", flags.http)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }() // where the server has not done so
	verify, err := p.bearerToken(filepath.Join(home, "mcp-token"))
	if err != nil {
		return err
	}
	handler, err := s.Handler(server.HTTPConfig{
		Verify:         verify,
		AllowedHosts:   flags.allowHosts,
		AllowedOrigins: flags.allowOrigins,
	})
	if err != nil {
		return err
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		p.logger().WarnContext(ctx, "serving plain http beyond this machine: put a proxy with TLS before it", "address", addr.String())
	}
	fmt.Fprintf(p.stderr, "enlist mcp: listening on http://%s/mcp (streamable HTTP) and http://%s/sse (SSE)\n", ln.Addr(), ln.Addr())
	return p.serveUntil(ctx, ln, s, handler)
}

// The times for requests under way once the server was told to stop: for the
// calls themselves, and for their answers to get onto the wire.
const (
	drainTime  = 8 * time.Second
	answerTime = time.Second
)

// serveUntil serves until ctx ends, and lets the calls under way be answered.
func (p *program) serveUntil(ctx context.Context, ln net.Listener, s *server.Server, handler http.Handler) error {
	after := context.WithoutCancel(ctx)
	hs := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return after },
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	drain, stop := context.WithTimeout(after, drainTime)
	defer stop()
	if err := s.Drain(drain); err != nil {
		p.logger().WarnContext(after, "calls were cut off", "error", err)
	}
	// Drain has ended the event streams. What is left is answers on their way,
	// and connections that ask for nothing and may be closed.
	answers, stopAnswers := context.WithTimeout(after, answerTime)
	defer stopAnswers()
	if hs.Shutdown(answers) == nil {
		return err
	}
	return errors.Join(err, hs.Close())
}
