package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// defaultListen is where `enlist gateway` listens unless told otherwise.
const defaultListen = "127.0.0.1:8420"

func (p *program) gatewayCommand() *cobra.Command {
	var listen, database, publicURL, upstream string
	var protocols []string
	var rehearsal rehearsalFlags
	var page adminFlags
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run the registration gateway",
		Long: `Run the registration gateway: the whole server side of the protocols, over one
SQLite database or, for several gateways side by side, one of PostgreSQL.

Lona's part is set in the environment: AGENT_REGISTRATION_SECRET (several,
separated by commas, while one is replaced), AGENT_INVITE_ENABLED=false (stops
registering by invite), AGENT_TOKEN_TTL_DAYS, AGENT_TOKEN_MAX_TTL_DAYS,
AGENT_DEFAULT_PERMISSIONS, and AGENT_INVITE_REBIND: "proof" (the default here)
wants the last token of an agent_id that is taken, "open" does not.

Lithtrix's part: LITHTRIX_REQUIRE_TERMS=true wants agree_to_terms. Lumina's:
LUMINA_PAID_WALLETS, addresses whose keys may make more requests.

AgentDoor's part: AGENTDOOR_SERVICE_NAME, AGENTDOOR_SERVICE_DESCRIPTION,
AGENTDOOR_SCOPES and AGENTDOOR_X402 (JSON), AGENTDOOR_RATE_LIMIT (1000/1h),
AGENTDOOR_TEST_KEYS=true (keys that begin with agk_test_).

Mail goes out by the server that ENLIST_SMTP_URL says, such as
smtp://user:password@mail.example.com:587?from=Enlist%20%3Cnoreply%40example.com%3E
(STARTTLS) or smtps://...:465 (TLS from the start); ENLIST_SMTP_CA_FILE names
certificates of an authority of your own. Without it mail waits until its links
expire, and you read it with: enlist gateway outbox. What waits, and the keys
that tokens are signed with, lie encrypted in the database under a server key:
ENLIST_SERVER_KEY, or the first line of ENLIST_SERVER_KEY_FILE (keep it 0600), or
else a file beside the database that is made with it.

What the operator sees and does is on a page of its own, by default at
http://127.0.0.1:8421; 'enlist gateway admin-token' says where its token lies.

It speaks plain HTTP: behind a proxy with TLS, say where people reach it with
--public-url and which proxy to believe with ENLIST_TRUSTED_PROXIES.`,
		Example: `  enlist gateway --listen 127.0.0.1:8420 --database sqlite:gateway.db
  LONA_GATEWAY_URL=http://127.0.0.1:8420 enlist call lona_register_agent '{"agent_id":"my-agent","agent_name":"My Agent"}'
  enlist gateway outbox --database sqlite:gateway.db`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.checkGatewayFlags(cmd, database, protocols); err != nil {
				return &usageError{err}
			}
			return p.serveGateway(cmd.Context(), gatewayFlags{listen, database, publicURL, upstream, protocols, rehearsal, page})
		}),
	}
	cmd.Flags().StringVar(&listen, "listen", "", "the `address` to listen on (ENLIST_LISTEN; default "+defaultListen+")")
	cmd.PersistentFlags().StringVar(&database, "database", "", "the `database`, as sqlite:PATH or postgres://USER@HOST/DATABASE (ENLIST_DATABASE_URL; default: gateway.db in the data folder)")
	cmd.Flags().StringVar(&publicURL, "public-url", "", "the base `URL` that links in mail begin with (ENLIST_PUBLIC_URL; default: the address it listens on)")
	upstreamFlag(cmd, &upstream)
	cmd.Flags().StringSliceVar(&protocols, "protocols", nil, "the protocols to serve, separated by commas (default: all)")
	rehearsal.register(cmd)
	cmd.AddCommand(p.gatewayOutboxCommand(&database), p.gatewayKeysCommand(&database))
	cmd.AddCommand(p.gatewayMigrateCommand(&database), p.gatewayBackupCommand(&database),
		p.gatewayRestoreCommand(&database), p.gatewayCopyCommand(&database))
	page.register(cmd.Flags())
	cmd.AddCommand(p.gatewayAgentsCommand(&database), p.gatewayInvitesCommand(&database))
	cmd.AddCommand(p.gatewayAdminTokenCommand(&database))
	return cmd
}

// gatewayFlags is the command line of `enlist gateway`.
type gatewayFlags struct {
	listen, database, publicURL, upstream string
	protocols                             []string
	rehearsal                             rehearsalFlags
	admin                                 adminFlags
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
	}
	if err := checkDatabase(database); err != nil {
		return err
	}
	return p.flags.refuseClient()
}

// serveGateway listens before it opens the gateway, which must know its address.
func (p *program) serveGateway(ctx context.Context, flags gatewayFlags) (err error) {
	p.serves = true
	config, err := p.gatewayConfig(flags.database)
	if err != nil {
		return err
	}
	if config.Front, err = p.front(flags.upstream); err != nil {
		return err
	}
	config.Protocols = flags.protocols
	config.Standalone = true
	if err := flags.rehearsal.apply(ctx, &config); err != nil {
		return err
	}
	ln, err := p.listen(ctx, flags.listen)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }() // Serve closes it too
	page, err := p.openAdmin(ctx, flags.admin, config.Database)
	if err != nil {
		return err
	}
	defer page.close()
	config.PublicURL = first(flags.publicURL, p.env("ENLIST_PUBLIC_URL"), "http://"+reachable(ln.Addr()))
	g, err := embeddedgateway.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()

	fmt.Fprintf(p.stderr, "enlist gateway: listening on http://%s, database %s\n", ln.Addr(), shownDatabase(config.Database))
	if config.SMTPURL == "" {
		config.Logger.InfoContext(ctx, "no mail server is set: mail waits until it expires; read it with enlist gateway outbox")
	}
	return p.serveWithAdmin(ctx, g, ln, config, page)
}

// listen opens the address of the gateway: of the flag, or else of the
// environment.
func (p *program) listen(ctx context.Context, flag string) (net.Listener, error) {
	variable := p.env("ENLIST_LISTEN")
	if flag == "" && variable != "" {
		ln, err := listenOn(ctx, "ENLIST_LISTEN", variable)
		var wrong *usageError
		if errors.As(err, &wrong) {
			err = wrong.error // the command line is in order
		}
		return ln, err
	}
	return listenOn(ctx, "--listen", first(flag, defaultListen))
}

// listenOn opens an address that a setting names. It is a mistake in the
// command line if it is none.
func listenOn(ctx context.Context, setting, addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(ctx, "tcp", port)
	}
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s: %q is not an address to listen on: want HOST:PORT, such as %s", setting, addr, defaultListen)}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w (choose another address with %s)", err, setting)
	}
	return ln, nil
}

// reachable is an address that a browser of this machine can open: a listener on
// all addresses has none of its own.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr.String()
}

// sampleStrategies is what the embedded gateway answers as Lona's strategies,
// so that a program under development sees a list with something in it.
func sampleStrategies() []wire.LonaStrategy {
	return []wire.LonaStrategy{
		{ID: "sample-mean-reversion", Name: "Mean reversion", Description: "A sample of Enlist's embedded gateway"},
		{ID: "sample-trend-following", Name: "Trend following", Description: "A sample of Enlist's embedded gateway"},
	}
}
