package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// embeddedDatabase is the database of the gateway inside Enlist, in the data
// folder.
const embeddedDatabase = "embedded.db"

// gatewayConfig is what the gateway of `enlist gateway` takes from its settings.
func (p *program) gatewayConfig(s *gatewaySettings) (embeddedgateway.Config, error) {
	config, err := p.databaseConfigOf(s)
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	if path, ok := strings.CutPrefix(config.Database, "sqlite:"); ok {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return embeddedgateway.Config{}, fmt.Errorf("%s: the folder of the database: %w", s.spelledAs("database"), err)
		}
	}
	if config.SMTPURL, err = s.secretOf(s.SMTPURL, s.SMTPURLFile, "smtp.url_file"); err != nil {
		return embeddedgateway.Config{}, err
	}
	if config.SMTPURL != "" {
		if config.SMTPTLS, err = s.smtpTLS(); err != nil {
			return embeddedgateway.Config{}, err
		}
	}
	if config.Env, err = p.protocolEnv(s); err != nil {
		return embeddedgateway.Config{}, err
	}
	config.Protocols = s.Protocols
	config.Standalone = true
	config.TrustedProxies = s.TrustedProxies
	config.Wrap = p.wrapGateway
	config.Drain = embeddedgateway.Drain{Delay: s.DrainDelay, Timeout: s.DrainTimeout}
	config.Retention = embeddedgateway.Retention{
		Audit: orEver(s.RetainAudit), Tickets: s.RetainTickets,
	}
	config.AccessLog = s.LogAccess
	if config.Front, err = s.front(); err != nil {
		return embeddedgateway.Config{}, err
	}
	config.Version = version()
	return config, s.rehearse(&config)
}

// front is what stands behind the gateway; nil where nothing is set of it.
func (s *gatewaySettings) front() (*embeddedgateway.Front, error) {
	f := &embeddedgateway.Front{
		Upstream: s.Upstream, Rules: s.Rules, AgentLimit: s.AgentLimit, KeyLimit: s.KeyLimit,
		MaxBody: int64(s.UpstreamMaxBody), Timeout: s.UpstreamTimeout, Preflights: s.UpstreamPreflight,
		Origins: s.UpstreamOrigins, MaxOpen: s.OpenLimit,
	}
	if f.MaxOpen == 0 {
		f.MaxOpen = -1
	}
	if f.Upstream == nil && len(f.Rules) == 0 && f.AgentLimit.N == 0 && f.KeyLimit.N == 0 && len(f.Origins) == 0 {
		return nil, nil
	}
	var err error
	f.TLS, err = s.trusting("upstream.ca_file", s.UpstreamCAFile)
	return f, err
}

// orEver is a retention as the gateway takes it: 0 keeps things for ever.
func orEver(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// protocolEnv is the environment that the protocols read: what is not in the
// program's own is taken from the file.
func (p *program) protocolEnv(s *gatewaySettings) (func(string) string, error) {
	secret, file, setting := p.env(partnerSecret), p.env(partnerSecretFile), partnerSecretFile
	if secret != "" && file != "" {
		return nil, fmt.Errorf("both %s and %s are set: unset one", partnerSecret, partnerSecretFile)
	}
	if secret == "" {
		if file == "" {
			file, setting = s.Env[partnerSecretFile], s.spelledAs(envTable+"."+partnerSecretFile)
		}
		var err error
		if secret, err = readSecret(setting, file); err != nil {
			return nil, err
		}
	}
	return func(name string) string {
		if name == partnerSecret {
			return secret
		}
		return first(p.env(name), s.Env[name])
	}, nil
}

// respell has an error name a variable as the file does, if it was set there.
func (s *gatewaySettings) respell(err error) error {
	text := err.Error()
	if strings.HasPrefix(text, "open the database") {
		text = s.databaseSetting() + ": " + text
	}
	for i := range s.Rules {
		name := ruleSetting(i + 1)
		text = strings.ReplaceAll(text, name+" (path", s.from[name].String()+": "+name+" (path")
	}
	for name := range s.Env {
		text = strings.ReplaceAll(text, "environment variable "+name+":", s.spelledAs(envTable+"."+name)+":")
	}
	if s.SMTPURL == "" && s.SMTPURLFile != "" {
		text = strings.ReplaceAll(text, "ENLIST_SMTP_URL:", s.spelledAs("smtp.url_file")+":")
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// databaseSetting is how the setting was called that names the database.
func (s *gatewaySettings) databaseSetting() string {
	if s.Database == "" && s.DatabaseURLFile != "" {
		return s.spelledAs("database_url_file")
	}
	return s.spelledAs("database")
}

// gatewayCertificate returns the certificate that the settings name; nil for
// none. One that has expired is refused.
func (p *program) gatewayCertificate(s *gatewaySettings, log *slog.Logger) (*certificate, error) {
	return p.certificateOf(s, "tls", s.TLSCert, s.TLSKey, log)
}

// adminCertificate is gatewayCertificate for the operator's page.
func (p *program) adminCertificate(s *gatewaySettings, log *slog.Logger) (*certificate, error) {
	return p.certificateOf(s, "admin_tls", s.AdminTLSCert, s.AdminTLSKey, log)
}

// certificateOf returns the certificate that the settings of a table name.
func (p *program) certificateOf(s *gatewaySettings, table, cert, key string, log *slog.Logger) (*certificate, error) {
	if cert == "" {
		return nil, nil
	}
	c, err := newCertificateOf(cert, key, [2]string{s.spelledAs(table + ".cert"), s.spelledAs(table + ".key")}, log)
	if err != nil {
		return nil, err
	}
	return c, c.good(p.now())
}

// databaseConfig is what it takes to open the database of `enlist gateway`.
func (p *program) databaseConfig(database string) (embeddedgateway.Config, error) {
	given := flagValues{}
	if database != "" {
		given["database"] = []string{database}
	}
	s, problems := p.readSettings(given)
	if err := failedSettings(problems); err != nil {
		return embeddedgateway.Config{}, err
	}
	return p.databaseConfigOf(s)
}

func (p *program) databaseConfigOf(s *gatewaySettings) (embeddedgateway.Config, error) {
	database, err := p.databaseURL(s)
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	key, err := p.serverKey(s)
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	return embeddedgateway.Config{Database: database, ServerKey: key, Now: p.now, Logger: p.gatewayLogger(s)}, nil
}

// databaseURL returns the database that the settings name; else the one in the
// data folder.
func (p *program) databaseURL(s *gatewaySettings) (string, error) {
	database, err := s.secretOf(s.Database, s.DatabaseURLFile, "database_url_file")
	if err != nil || database != "" {
		return database, err
	}
	home, err := p.home()
	if err != nil {
		return "", err
	}
	return "sqlite:" + filepath.Join(home, "gateway.db"), nil
}

// serverKey reads the server key, or returns nil for the one beside the
// database.
func (p *program) serverKey(s *gatewaySettings) ([]byte, error) {
	text, err := s.secretOf(s.ServerKey, s.ServerKeyFile, "server_key_file")
	if err != nil || text == "" {
		return nil, err
	}
	key, err := embeddedgateway.ParseServerKey(text)
	if err != nil {
		setting := s.spelledAs("server_key_file")
		if s.ServerKey != "" {
			setting = s.spelledAs("server_key")
		}
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return key, nil
}

// smtpTLS is what TLS with the mail server begins from.
func (s *gatewaySettings) smtpTLS() (*tls.Config, error) {
	return s.trusting("smtp.ca_file", s.SMTPCAFile)
}

// trusting trusts what the system does and the certificates in the file that a
// setting names, if it names one.
func (s *gatewaySettings) trusting(name, file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	setting := s.spelledAs(name)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there is no certificate in %s; want them in PEM", setting, file)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// operate runs f on the gateway of a database, for a command of its operator. A
// gateway that serves may have the same database open. It sends no mail, and
// makes no database: there would be nothing to see in it.
func (p *program) operate(cmd *cobra.Command, database string, f func(context.Context, *embeddedgateway.Gateway) error) (err error) {
	config, err := p.operatedConfig(database)
	if err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(config.Database, "sqlite:"); ok {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database %s: name the gateway's with --database, "+
				"or that of the gateway inside Enlist with --embedded", path)
		}
	}
	g, err := embeddedgateway.New(cmd.Context(), config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	return f(cmd.Context(), g)
}

func (p *program) operatedConfig(database string) (embeddedgateway.Config, error) {
	switch {
	case p.flags.store != "":
		return embeddedgateway.Config{}, &usageError{errors.New("--store is for the commands that use credentials")}
	case p.flags.embedded && database != "":
		return embeddedgateway.Config{}, &usageError{errors.New("--embedded and --database name two databases: leave one out")}
	case !p.flags.embedded:
		return p.databaseConfig(database)
	}
	home, err := p.home()
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	return embeddedgateway.Config{
		Database: "sqlite:" + filepath.Join(home, embeddedDatabase), Now: p.now, Logger: p.logger(),
	}, nil
}
