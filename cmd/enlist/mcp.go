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

	"github.com/enlist-mcp/enlist/server"
)

// mcpFlags are the flags of `enlist mcp`.
type mcpFlags struct {
	http           string
	allowHosts     []string
	allowOrigins   []string
	embeddedListen string
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
	return cmd
}

func (p *program) serveMCP(cmd *cobra.Command, flags mcpFlags) error {
	if flags.http == "" && (flags.allowHosts != nil || flags.allowOrigins != nil) {
		return &usageError{errors.New("--allow-host and --allow-origin go with --http")}
	}
	if flags.embeddedListen != "" && !p.flags.embedded {
		return &usageError{errors.New("--embedded-listen goes with --embedded")}
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
		s, err := p.newServer(c)
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
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
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

// drainTime is how long requests under way may take once the server was told
// to stop.
const drainTime = 10 * time.Second

func (p *program) serveHTTP(ctx context.Context, s *server.Server, flags mcpFlags) error {
	home, err := p.home()
	if err != nil {
		return err
	}
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
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", flags.http)
	if err != nil {
		return fmt.Errorf("%w (choose another address with --http)", err)
	}
	fmt.Fprintf(p.stderr, "enlist mcp: listening on http://%s/mcp (streamable HTTP) and http://%s/sse (SSE)\n", ln.Addr(), ln.Addr())

	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	hs := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, stop := context.WithTimeout(requests, drainTime)
	defer stop()
	// An open event stream would hold the server for as long as its client
	// likes; calls under way get their time first.
	if err := s.Drain(drain); err != nil {
		p.logger().WarnContext(ctx, "calls were cut off", "error", err)
	}
	cancel()
	return hs.Shutdown(drain)
}
