package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// effective is a setting as it holds.
type effective struct {
	Setting string `json:"setting"`
	Value   string `json:"value"` // "set" for a secret, "" for none
	From    string `json:"from"`
}

// checked is what `enlist gateway check` found.
type checked struct {
	OK       bool        `json:"ok"`
	Problems []string    `json:"problems"`
	Notes    []string    `json:"notes"`
	Settings []effective `json:"settings"`
}

func (p *program) gatewayCheckCommand() *cobra.Command {
	var asJSON, sample bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say which settings of the gateway hold, and all that is wrong with them",
		Long: `Say which settings of the gateway hold, where each comes from, and all that is
wrong with them, at once. Beyond what is written it looks whether the database can
be used, the certificate and its key fit and are valid, files with secrets are for
their owner only, and the addresses are free.

Nothing is changed, started or made: no database, no key, no migration. The exit
code is 1 if anything is wrong. With --sample it prints a configuration file with
every setting instead.`,
		Example: `  enlist gateway check --config gateway.toml
  enlist gateway check --sample > gateway.toml`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := p.flags.refuseClient(); err != nil {
				return &usageError{err}
			}
			if sample {
				_, err := fmt.Fprint(p.stdout, sampleSettings())
				return err
			}
			return p.checkGateway(cmd, asJSON)
		}),
	}
	settingFlags(cmd.Flags())
	cmd.Flags().BoolVar(&sample, "sample", false, "print a configuration file with every setting")
	jsonFlag(cmd, &asJSON, "an object: ok, problems (texts), notes (texts), settings (setting, value, from; a secret is \"set\").")
	return cmd
}

func (p *program) checkGateway(cmd *cobra.Command, asJSON bool) error {
	s, problems := p.readSettings(givenFlags(cmd.Flags()))
	found := &checked{Settings: s.effective(), Problems: []string{}, Notes: []string{}}
	for _, problem := range problems {
		found.wrong(problem)
	}
	found.unread(s, problems)
	p.tryGateway(cmd.Context(), s, found)
	found.OK = len(found.Problems) == 0
	if asJSON {
		if err := printJSON(p.stdout, found); err != nil {
			return err
		}
	} else if err := p.printChecked(found); err != nil {
		return err
	}
	if !found.OK {
		return &runError{err: errors.New("the settings are wrong"), reported: true}
	}
	return nil
}

// unread takes the value away of each setting that has none because what was
// given is wrong: its default is not what holds.
func (c *checked) unread(s *gatewaySettings, problems []settingProblem) {
	for i, one := range c.Settings {
		at, set := s.from[one.Setting]
		if set && slices.ContainsFunc(problems, func(p settingProblem) bool { return p.at == at }) {
			c.Settings[i].Value = wrongValue
		}
	}
}

// wrongValue stands in the place of a value that is wrong.
const wrongValue = "(wrong)"

// wrong notes a problem, once.
func (c *checked) wrong(err error) {
	for _, one := range unjoined(err) {
		text := plain(strings.ReplaceAll(one.Error(), "\n\t", " ")) // pgx lists what it tried so
		for _, known := range c.Problems {
			if known == text {
				return
			}
		}
		c.Problems = append(c.Problems, text)
	}
}

// unjoined takes what was joined apart.
func unjoined(err error) []error {
	var many interface{ Unwrap() []error }
	if _, is := err.(interface{ Unwrap() []error }); !is || !errors.As(err, &many) {
		return []error{err}
	}
	var list []error
	for _, one := range many.Unwrap() {
		list = append(list, unjoined(one)...)
	}
	return list
}

func (c *checked) note(format string, args ...any) {
	c.Notes = append(c.Notes, plain(fmt.Sprintf(format, args...)))
}

// effective lists the settings as they hold.
func (s *gatewaySettings) effective() []effective {
	var list []effective
	for _, one := range gatewaySettingList() {
		value := show(one.to(s))
		switch {
		case one.secret && value == "":
			continue // the file with it is another setting
		case one.secret:
			value = "set"
		case one.name == "database":
			value = shownDatabase(value)
		}
		list = append(list, effective{one.name, value, s.from[one.name].String()})
	}
	for i, rule := range s.Rules {
		methods := strings.Join(rule.Methods, ",")
		list = append(list, effective{
			ruleSetting(i + 1),
			strings.TrimSpace(fmt.Sprintf("%s %s: %s", first(methods, "all"), rule.Path, first(strings.Join(rule.Scopes, ", "), "any agent"))),
			s.from[ruleSetting(i+1)].String(),
		})
	}
	for _, name := range append(embeddedgateway.Variables(), partnerSecretFile) {
		if at, ok := s.from[envTable+"."+name]; ok {
			list = append(list, effective{envTable + "." + name, s.Env[name], at.String()})
		}
	}
	return list
}

// tryGateway tries what a start would need.
func (p *program) tryGateway(ctx context.Context, s *gatewaySettings, found *checked) {
	config := embeddedgateway.Config{Protocols: s.Protocols, Standalone: true, Now: p.now, PublicURL: first(s.PublicURL, embeddedgateway.Origin)}
	errs := make([]error, 5)
	config.SMTPURL, errs[0] = s.secretOf(s.SMTPURL, s.SMTPURLFile, "smtp.url_file")
	config.SMTPTLS, errs[1] = s.smtpTLS()
	config.Env, errs[2] = p.protocolEnv(s)
	_, errs[3] = p.serverKey(s)
	config.Front, errs[4] = s.front()
	for _, err := range errs {
		if err != nil {
			found.wrong(err)
		}
	}
	if checkProtocols(s.Protocols) != nil {
		config.Protocols = nil // that was said
	}
	if config.Env != nil {
		for _, err := range embeddedgateway.CheckProtocols(config) {
			found.wrong(s.respell(err))
		}
	}
	if config.SMTPURL == "" {
		found.note("no mail server is set: mail waits in the outbox until it expires")
	}
	if s.UpstreamCAFile != "" && (s.Upstream == nil || s.Upstream.Scheme != "https") {
		found.note("%s is of no use: upstream.url does not begin with https", s.spelledAs("upstream.ca_file"))
	}
	if len(s.UpstreamOrigins) > 0 && s.Upstream != nil && !s.UpstreamPreflight {
		found.note("%s: browsers ask by a preflight first, which is refused: set upstream.preflight = true", s.spelledAs("upstream.origins"))
	}
	if s.Upstream != nil {
		p.tryUpstream(ctx, s, found)
	}
	if os.Geteuid() == 0 {
		found.note("the check runs as root, whom no owner and no mode keeps out: what it finds of files and folders is so for root. " +
			"If the gateway runs as another user, run the check as that one, such as by sudo -u USER")
	}
	p.tryDatabase(ctx, s, found)
	p.tryAdmin(s, found)
	if s.TLSCert != "" && s.TLSKey != "" {
		cert, err := p.gatewayCertificate(s, p.gatewayLogger(s))
		found.certificate("the certificate", cert, err)
	}
	if s.AdminTLSCert != "" && s.AdminTLSKey != "" {
		cert, err := p.adminCertificate(s, p.gatewayLogger(s))
		found.certificate("the certificate of the operator's page", cert, err)
	}
	p.tryAddress(ctx, s, "listen", s.Listen, found)
	if s.AdminListen != adminOff {
		p.tryAddress(ctx, s, "admin_listen", s.AdminListen, found)
	}
}

// tryUpstream notes an API that nobody answers for. It may start later.
func (p *program) tryUpstream(ctx context.Context, s *gatewaySettings, found *checked) {
	port := first(s.Upstream.Port(), map[string]string{"http": "80", "https": "443"}[s.Upstream.Scheme])
	d := net.Dialer{Timeout: upstreamTime}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.Upstream.Hostname(), port))
	if err != nil {
		found.note("%s: the API does not answer now, and requests to it would be a 502: %v", s.spelledAs("upstream.url"), err)
		return
	}
	_ = conn.Close()
}

// upstreamTime is how long the API may take to take a connection.
const upstreamTime = 3 * time.Second

// certificate notes what a certificate is for, or what is wrong with it.
func (c *checked) certificate(what string, cert *certificate, err error) {
	if err != nil {
		c.wrong(err)
		return
	}
	leaf := cert.current().Leaf
	c.note("%s is for %s and is valid until %s", what, strings.Join(leaf.DNSNames, ", "), leaf.NotAfter.UTC().Format("2006-01-02"))
}

// tryAddress looks whether an address is free.
func (p *program) tryAddress(ctx context.Context, s *gatewaySettings, name, addr string, found *checked) {
	if checkAddress(addr) != nil {
		return // said already
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		_ = ln.Close()
		return
	}
	if _, asked := s.from[name]; name == "admin_listen" && !asked {
		found.note("%s: %v: there will be no operator's page", name, err)
		return
	}
	found.wrong(fmt.Errorf("%s: %w (if this gateway runs already, it is that)", s.spelledAs(name), err))
}

func (p *program) tryDatabase(ctx context.Context, s *gatewaySettings, found *checked) {
	database, err := p.databaseURL(s)
	if err != nil {
		found.wrong(err)
		return
	}
	setting := s.databaseSetting()
	var seen store.Inspection
	shown := shownDatabase(database)
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		shown = path
		if seen, err = store.InspectSQLite(ctx, path); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	} else if isPostgres(database) {
		if s.ServerKey == "" && s.ServerKeyFile == "" {
			found.wrong(errors.New("server_key_file: a gateway over PostgreSQL wants a server key: set ENLIST_SERVER_KEY_FILE or ENLIST_SERVER_KEY, the same for all"))
		}
		seen, err = store.InspectPostgres(ctx, database)
	} else {
		return // what it is instead was said
	}
	switch {
	case err != nil:
		found.wrong(fmt.Errorf("%s: %w", setting, err))
	case !seen.Exists:
		found.note("the database %s has no tables yet: they are made at the first start", shown)
	case seen.Version > 0 && seen.Version < seen.Knows:
		found.note("the database %s is migrated from version %d to %d at the next start", shown, seen.Version, seen.Knows)
	}
}

// tryAdmin looks at the operator's token.
func (p *program) tryAdmin(s *gatewaySettings, found *checked) {
	token, err := s.secretOf(s.AdminToken, s.AdminTokenFile, "admin_token_file")
	switch {
	case err != nil:
		found.wrong(err)
	case token == "" && s.AdminListen != adminOff && (isPostgres(s.Database) || s.DatabaseURLFile != ""):
		found.wrong(errors.New("admin_token_file: a gateway over PostgreSQL wants an operator's token: set ENLIST_ADMIN_TOKEN_FILE or ENLIST_ADMIN_TOKEN, or have no operator's page (admin_listen off)"))
	case token == "" && s.AdminListen != adminOff:
		found.note("no operator's token is set: one is made at the first start, beside the database")
	}
}

func (p *program) printChecked(found *checked) error {
	screen := p.screen()
	t := titled("SETTING", "VALUE", "FROM")
	for _, one := range found.Settings {
		t.row(one.Setting, one.Value, one.From)
	}
	if err := screen.print(t); err != nil {
		return err
	}
	for _, note := range found.Notes {
		fmt.Fprintf(p.stdout, "note     %s\n", note)
	}
	for _, problem := range found.Problems {
		fmt.Fprintf(p.stdout, "%s  %s\n", screen.paint(styleBad, "problem"), problem)
	}
	if found.OK {
		fmt.Fprintln(p.stdout, "The gateway can start.")
	}
	return nil
}
