package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	tlsCert        string
	tlsKey         string
	behindProxy    bool
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

Over HTTP every request needs a bearer token: one that 'enlist token add' has made for
the client, or the one in ENLIST_HOME/mcp-token, which the first start makes and prints
when there is no other.

Beyond this machine tokens go over TLS only: with --tls-cert and --tls-key, which are
read again when they change, or behind a proxy that does so (--behind-proxy). The
program believes no X-Forwarded header. Host names that the certificate is for are
accepted; --allow-host accepts the name that a proxy passes on.`,
		Example: `  enlist mcp
  enlist mcp --embedded
  enlist mcp --http 127.0.0.1:8421
  enlist mcp --http :8421 --tls-cert fullchain.pem --tls-key privkey.pem`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.serveMCP(cmd, flags)
		}),
	}
	cmd.Flags().StringVar(&flags.http, "http", "", "serve HTTP on this `address` instead of standard input and output")
	cmd.Flags().StringSliceVar(&flags.allowHosts, "allow-host", nil, "also accept this `host` in the Host header (loopback is accepted)")
	cmd.Flags().StringSliceVar(&flags.allowOrigins, "allow-origin", nil, "also accept this `origin` in the Origin header (loopback is accepted)")
	cmd.Flags().StringVar(&flags.tlsCert, "tls-cert", "", "serve TLS with the certificate chain in this `file`")
	cmd.Flags().StringVar(&flags.tlsKey, "tls-key", "", "the `file` with its key, which nobody else may read")
	cmd.Flags().BoolVar(&flags.behindProxy, "behind-proxy", false, "serve plain HTTP beyond this machine, to a proxy with TLS")
	cmd.Flags().StringVar(&flags.embeddedListen, "embedded-listen", "", "with --embedded: also serve the gateway on this `address`, for other programs")
	cmd.Flags().StringSliceVar(&flags.tools.Services, "services", nil, "offer the tools of these `services` only, as in lona,fluxra")
	cmd.Flags().BoolVar(&flags.tools.ReadOnly, "read-only", false, "offer nothing that changes anything, here or at a service")
	return cmd
}

func (p *program) serveMCP(cmd *cobra.Command, flags mcpFlags) error {
	if flags.http == "" && (flags.allowHosts != nil || flags.allowOrigins != nil || flags.tlsCert != "" || flags.tlsKey != "" || flags.behindProxy) {
		return &usageError{errors.New("--allow-host, --allow-origin, --tls-cert, --tls-key and --behind-proxy go with --http")}
	}
	if flags.embeddedListen != "" && !p.flags.embedded {
		return &usageError{errors.New("--embedded-listen goes with --embedded")}
	}
	if cmd.Flags().Changed("services") && len(flags.tools.Services) == 0 {
		return &usageError{errors.New("--services names none: leave it out for all")}
	}
	if err := flags.tools.Check(); err != nil {
		return &usageError{fmt.Errorf("--services: %w", err)}
	}
	p.serves = true
	settle := func() {}
	if flags.http == "" {
		settle = p.startLean()
	}
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
		defer time.AfterFunc(settled, settle).Stop()
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
	cert, err := p.tlsCertificate(flags)
	if err != nil {
		return err
	}
	// The address first: a start that fails makes no token and registers nobody.
	ln, err := listenOn(ctx, "--http", flags.http)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }() // where the server has not done so
	if addr, ok := ln.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() && cert == nil && !flags.behindProxy {
		return &usageError{fmt.Errorf("--http %s: tokens would go over the network in the clear: give --tls-cert and --tls-key, "+
			"listen on 127.0.0.1, or say --behind-proxy where only a proxy with TLS can reach the address", flags.http)}
	}
	tokens, err := p.serverTokens(ctx)
	if err != nil {
		return err
	}
	config := server.HTTPConfig{
		Verify: tokens.verify, Good: tokens.good,
		AllowedHosts: flags.allowHosts, AllowedOrigins: flags.allowOrigins,
	}
	scheme, at := "http", ln.Addr().String()
	if cert != nil {
		scheme, at, config.HostAllowed = "https", cert.at(ln.Addr()), cert.names
	}
	handler, err := s.Handler(config)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "enlist mcp: listening on %[1]s://%[2]s/mcp (streamable HTTP) and %[1]s://%[2]s/sse (SSE)\n", scheme, at)
	return p.serveUntil(ctx, ln, s, handler, cert)
}

// The times for requests under way once the server was told to stop: for the
// calls themselves, and for their answers to get onto the wire.
const (
	drainTime  = 8 * time.Second
	answerTime = time.Second
)

// settled is when a server on standard input and output has done what the start asks
// for, most of the time.
const settled = 2 * time.Second

// readTime is for how long a client may take to send a request. An answer may take
// longer, and a stream does.
const readTime = 30 * time.Second

// mcpHTTPServer returns the server of a handler. Nobody, with a token or without,
// holds a connection by not sending what they have announced.
func mcpHTTPServer(ctx context.Context, handler http.Handler, read time.Duration) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: min(read, 10*time.Second),
		ReadTimeout:       read,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
}

// serveUntil serves until ctx ends, and lets the calls under way be answered.
func (p *program) serveUntil(ctx context.Context, ln net.Listener, s *server.Server, handler http.Handler, cert *certificate) error {
	after := context.WithoutCancel(ctx)
	hs := mcpHTTPServer(after, handler, readTime)
	failed := make(chan error, 1)
	serve := hs.Serve
	if cert != nil {
		hs.TLSConfig = cert.config()
		serve = func(ln net.Listener) error { return hs.ServeTLS(ln, "", "") }
	}
	go func() { failed <- serve(ln) }()
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
