package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// defaultListen is where `enlist gateway` listens unless told otherwise.
const defaultListen = "127.0.0.1:8420"

// defaultAdminListen is where the operator's page is unless told otherwise.
const defaultAdminListen = "127.0.0.1:8421"

func (p *program) gatewayCommand() *cobra.Command {
	var database string
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run the registration gateway",
		Long: `Run the registration gateway: the whole server side of the protocols, over one
SQLite database or, for several gateways side by side, one of PostgreSQL.

Everything can be set in one file of TOML, which --config names; a flag goes
before a variable of the environment, that before the file. A file with every
setting and what it is:

  enlist gateway check --sample > gateway.toml

Which settings hold and where each comes from, and everything that is wrong with
them, without starting anything:

  enlist gateway check --config gateway.toml

Secrets have no flag and no place in the file: they are in the environment, or in
files of their own (0600) that the settings name. Mail waits in the outbox where
no mail server is set, and is read with: enlist gateway outbox. What waits, and
the keys that tokens are signed with, lie encrypted in the database under the
server key, which is made beside a SQLite database unless it is set.

Without a certificate it speaks plain HTTP: behind a proxy with TLS, say where
people reach it (public_url) and which proxy to believe (trusted_proxies).`,
		Example: `  enlist gateway --listen 127.0.0.1:8420 --database sqlite:gateway.db
  enlist gateway --config gateway.toml
  LONA_GATEWAY_URL=http://127.0.0.1:8420 enlist call lona_register_agent '{"agent_id":"my-agent","agent_name":"My Agent"}'
  enlist gateway outbox --database sqlite:gateway.db`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.flags.refuseClient(); err != nil {
				return &usageError{err}
			}
			settings, problems := p.readSettings(givenFlags(cmd.Flags()))
			p.logsJSON = settings.LogFormat == logJSON // what is wrong, too
			if err := failedSettings(problems); err != nil {
				return err
			}
			return p.serveGateway(cmd.Context(), settings)
		}),
	}
	cmd.PersistentFlags().StringVar(&database, "database", "", "the `database`, as sqlite:PATH or postgres://USER@HOST/DATABASE (ENLIST_DATABASE_URL; default: gateway.db in the data folder)")
	cmd.PersistentFlags().StringVar(&p.gatewayFile, "config", "", "read settings from this `file` of TOML (ENLIST_GATEWAY_CONFIG)")
	settingFlags(cmd.Flags())
	cmd.AddCommand(p.gatewayCheckCommand(), p.gatewayOutboxCommand(&database), p.gatewayKeysCommand(&database))
	cmd.AddCommand(p.gatewayMigrateCommand(&database), p.gatewayBackupCommand(&database),
		p.gatewayRestoreCommand(&database), p.gatewayCopyCommand(&database))
	cmd.AddCommand(p.gatewayAgentsCommand(&database), p.gatewayInvitesCommand(&database))
	cmd.AddCommand(p.gatewayAdminTokenCommand(&database))
	return cmd
}

// settingFlags registers the flags of all settings but --database, which the
// commands below have too.
func settingFlags(set *pflag.FlagSet) {
	defaults := gatewayDefaults()
	for _, s := range gatewaySettingList() {
		if s.flag == "" || s.flag == "database" {
			continue
		}
		says := s.says + " (" + s.name
		if s.env != "" {
			says += ", " + s.env
		}
		to := s.to(defaults)
		if value := show(to); value != "" && value != "false" {
			says += "; default: " + value
		}
		says += ")"
		switch to.(type) {
		case *[]string:
			set.StringSlice(s.flag, nil, says)
		case *bool:
			set.Bool(s.flag, false, says)
		default:
			set.String(s.flag, "", says)
			set.Lookup(s.flag).NoOptDefVal = s.bare
		}
	}
}

// givenFlags are the values of those flags that were given.
func givenFlags(set *pflag.FlagSet) flagValues {
	given := flagValues{}
	set.Visit(func(f *pflag.Flag) {
		switch list, ok := f.Value.(pflag.SliceValue); {
		case ok:
			given[f.Name] = list.GetSlice()
		case f.Value.String() != "": // an empty one is as good as none
			given[f.Name] = []string{f.Value.String()}
		}
	})
	return given
}

// serveGateway listens before it opens the gateway, which must know its address.
func (p *program) serveGateway(ctx context.Context, s *gatewaySettings) (err error) {
	p.serves = true
	collectLess(p.env)
	config, err := p.gatewayConfig(s)
	if err != nil {
		return err
	}
	cert, err := p.gatewayCertificate(s, config.Logger)
	if err != nil {
		return err
	}
	ctx, stop := p.hangUps(ctx, cert, config.Logger)
	defer stop()
	ln, err := p.listen(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }() // Serve closes it too
	scheme, at := "http", reachable(ln.Addr())
	if cert != nil {
		scheme, at, config.TLS = "https", cert.at(ln.Addr()), cert.config()
	}
	page, err := p.openAdmin(ctx, s, config)
	if err != nil {
		return err
	}
	defer page.close()
	config.PublicURL = first(s.PublicURL, scheme+"://"+at)
	g, err := embeddedgateway.New(ctx, config)
	if err != nil {
		return s.respell(err)
	}
	defer func() { err = errors.Join(err, g.Close()) }()

	p.announce(ctx, config.Logger, fmt.Sprintf("listening on %s://%s, database %s", scheme, ln.Addr(), shownDatabase(config.Database)))
	if config.SMTPURL == "" {
		config.Logger.InfoContext(ctx, "no mail server is set: mail waits until it expires; read it with enlist gateway outbox")
	}
	return p.serveWithAdmin(ctx, g, ln, config, page)
}

// listen opens the address of the gateway.
func (p *program) listen(ctx context.Context, s *gatewaySettings) (net.Listener, error) {
	setting := "--listen"
	if at, ok := s.from["listen"]; ok {
		setting = at.says()
	}
	return listenOn(ctx, setting, s.Listen)
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
