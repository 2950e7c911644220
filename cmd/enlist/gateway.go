package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// defaultListen is where `enlist gateway` listens unless told otherwise.
const defaultListen = "127.0.0.1:8420"

func (p *program) gatewayCommand() *cobra.Command {
	var listen, database string
	var protocols []string
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run the registration gateway",
		Long: `Run the registration gateway: the whole server side of the protocols, over one
SQLite database.

Lona's part is set in the environment: AGENT_REGISTRATION_SECRET (several,
separated by commas, while one is replaced), AGENT_INVITE_ENABLED=false (stops
registering by invite), AGENT_TOKEN_TTL_DAYS, AGENT_TOKEN_MAX_TTL_DAYS,
AGENT_DEFAULT_PERMISSIONS, and AGENT_INVITE_REBIND: "proof" (the default here)
wants the last token of an agent_id that is taken, "open" does not. Of Lithtrix: LITHTRIX_REQUIRE_TERMS=true wants agree_to_terms.

AgentDoor's part: AGENTDOOR_SERVICE_NAME, AGENTDOOR_SERVICE_DESCRIPTION,
AGENTDOOR_SCOPES and AGENTDOOR_X402 (JSON), AGENTDOOR_RATE_LIMIT (1000/1h),
AGENTDOOR_TEST_KEYS=true (keys that begin with agk_test_).`,
		Example: `  enlist gateway --listen 127.0.0.1:8420 --database sqlite:gateway.db
  LONA_GATEWAY_URL=http://127.0.0.1:8420 enlist call lona_register_agent '{"agent_id":"my-agent","agent_name":"My Agent"}'`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.checkGatewayFlags(cmd, database, protocols); err != nil {
				return &usageError{err}
			}
			return p.serveGateway(cmd.Context(), listen, database, protocols)
		}),
	}
	cmd.Flags().StringVar(&listen, "listen", "", "the `address` to listen on (ENLIST_LISTEN; default "+defaultListen+")")
	cmd.Flags().StringVar(&database, "database", "", "the `database`, as sqlite:PATH (ENLIST_DATABASE_URL; default: gateway.db in the data folder)")
	cmd.Flags().StringSliceVar(&protocols, "protocols", nil, "the protocols to serve, separated by commas (default: all)")
	return cmd
}

// checkGatewayFlags finds what is wrong with the command line itself.
func (p *program) checkGatewayFlags(cmd *cobra.Command, database string, protocols []string) error {
	var known []string
	for _, protocol := range wire.Protocols() {
		known = append(known, protocol.Name)
	}
	for _, name := range protocols {
		if !slices.Contains(known, name) {
			return fmt.Errorf("--protocols: unknown protocol %q: known are %s", name, strings.Join(known, ", "))
		}
	}
	switch {
	case cmd.Flags().Changed("protocols") && len(protocols) == 0:
		return errors.New("--protocols: name at least one, or leave the flag out for all: " + strings.Join(known, ", "))
	case database != "" && !strings.HasPrefix(database, "sqlite:"):
		return errors.New("--database: want sqlite:PATH") // not the value: it may hold a password
	}
	return p.flags.refuseClient()
}

func (p *program) serveGateway(ctx context.Context, listen, database string, protocols []string) (err error) {
	p.serves = true
	config, err := p.gatewayConfig(database)
	if err != nil {
		return err
	}
	config.Protocols = protocols
	config.Standalone = true
	g, err := embeddedgateway.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()

	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", first(listen, p.env("ENLIST_LISTEN"), defaultListen))
	if err != nil {
		return fmt.Errorf("%w (choose another address with --listen)", err)
	}
	fmt.Fprintf(p.stderr, "enlist gateway: listening on http://%s, database %s\n", ln.Addr(), config.Database)
	return g.Serve(ctx, ln)
}

// gatewayConfig is what the gateway of `enlist gateway` takes from outside.
func (p *program) gatewayConfig(database string) (embeddedgateway.Config, error) {
	proxies, err := p.trustedProxies()
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	database = first(database, p.env("ENLIST_DATABASE_URL"))
	if database == "" {
		home, err := p.home()
		if err != nil {
			return embeddedgateway.Config{}, err
		}
		database = "sqlite:" + filepath.Join(home, "gateway.db")
	}
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return embeddedgateway.Config{}, fmt.Errorf("the folder of the database: %w", err)
		}
	}
	return embeddedgateway.Config{
		Database:       database,
		Env:            p.env,
		TrustedProxies: proxies,
		Now:            p.now,
		Logger:         p.logger(),
		Wrap:           p.wrapGateway,
	}, nil
}

// sampleStrategies is what the embedded gateway answers as Lona's strategies,
// so that a program under development sees a list with something in it.
func sampleStrategies() []wire.LonaStrategy {
	return []wire.LonaStrategy{
		{ID: "sample-mean-reversion", Name: "Mean reversion", Description: "A sample of Enlist's embedded gateway"},
		{ID: "sample-trend-following", Name: "Trend following", Description: "A sample of Enlist's embedded gateway"},
	}
}
