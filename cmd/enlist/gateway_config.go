package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// embeddedDatabase is the database of the gateway inside Enlist, in the data
// folder.
const embeddedDatabase = "embedded.db"

// gatewayConfig is what the gateway of `enlist gateway` takes from outside.
func (p *program) gatewayConfig(database string) (embeddedgateway.Config, error) {
	proxies, err := p.trustedProxies()
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	config, err := p.databaseConfig(database)
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	if path, ok := strings.CutPrefix(config.Database, "sqlite:"); ok {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return embeddedgateway.Config{}, fmt.Errorf("the folder of the database: %w", err)
		}
	}
	if config.SMTPURL = p.env("ENLIST_SMTP_URL"); config.SMTPURL != "" {
		if config.SMTPTLS, err = p.smtpTLS(); err != nil {
			return embeddedgateway.Config{}, err
		}
	}
	config.Env = p.env
	config.TrustedProxies = proxies
	config.Wrap = p.wrapGateway
	return config, nil
}

// databaseConfig is what it takes to open the database of `enlist gateway`.
func (p *program) databaseConfig(database string) (embeddedgateway.Config, error) {
	database = first(database, p.env("ENLIST_DATABASE_URL"))
	if database == "" {
		home, err := p.home()
		if err != nil {
			return embeddedgateway.Config{}, err
		}
		database = "sqlite:" + filepath.Join(home, "gateway.db")
	}
	key, err := p.serverKey()
	if err != nil {
		return embeddedgateway.Config{}, err
	}
	return embeddedgateway.Config{Database: database, ServerKey: key, Now: p.now, Logger: p.logger()}, nil
}

// serverKey reads the server key, or returns nil for the one beside the
// database.
func (p *program) serverKey() ([]byte, error) {
	variable := "ENLIST_SERVER_KEY"
	text, file := p.env(variable), p.env("ENLIST_SERVER_KEY_FILE")
	switch {
	case text != "" && file != "":
		return nil, errors.New("both ENLIST_SERVER_KEY and ENLIST_SERVER_KEY_FILE are set: unset one")
	case text == "" && file == "":
		return nil, nil
	case file != "":
		variable = "ENLIST_SERVER_KEY_FILE"
		var err error
		if text, err = firstLine(variable, file); err != nil {
			return nil, err
		}
	}
	key, err := embeddedgateway.ParseServerKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	return key, nil
}

// smtpTLS trusts what the system does and the certificates of
// ENLIST_SMTP_CA_FILE, if that is set.
func (p *program) smtpTLS() (*tls.Config, error) {
	path := p.env("ENLIST_SMTP_CA_FILE")
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read ENLIST_SMTP_CA_FILE: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ENLIST_SMTP_CA_FILE: there is no certificate in %s; want them in PEM", path)
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
		if err := checkDatabase(database); err != nil {
			return embeddedgateway.Config{}, &usageError{err}
		}
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
