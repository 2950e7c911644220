package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
)

// adminPage is the operator's page, listening but not served yet.
type adminPage struct {
	ln    net.Listener
	hosts []string
	token adminToken
	https bool
}

// scheme is that of the page's address.
func (a *adminPage) scheme() string {
	if a.https {
		return "https"
	}
	return "http"
}

// openAdmin listens for the operator's page and sees to it that there is a token.
// Nil: there is to be no page.
func (p *program) openAdmin(ctx context.Context, s *gatewaySettings, config embeddedgateway.Config) (*adminPage, error) {
	if s.AdminListen == adminOff {
		return nil, nil
	}
	cert, err := p.adminCertificate(s, config.Logger)
	if err != nil {
		return nil, err
	}
	_, asked := s.from["admin_listen"]
	ln, err := listenAdmin(ctx, config.Logger, s.spelledAs("admin_listen"), s.AdminListen, asked)
	if err != nil || ln == nil {
		return nil, err
	}
	page := &adminPage{ln: ln, hosts: s.AdminHosts}
	if cert != nil {
		// A name that the certificate is for is no name of somebody else's.
		page.https, page.hosts = true, append(slices.Clone(s.AdminHosts), cert.current().Leaf.DNSNames...)
		page.ln = tls.NewListener(ln, cert.config())
	}
	if page.token, err = s.adminToken(config.Database); err == nil {
		err = page.token.prepare()
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return page, nil
}

// listenAdmin opens the address of the page. Nil: there is to be none. An address
// that nobody asked for is done without where it cannot be used.
func listenAdmin(ctx context.Context, log *slog.Logger, setting, addr string, asked bool) (net.Listener, error) {
	ln, err := listenOn(ctx, setting, addr)
	if err != nil && !asked {
		log.WarnContext(ctx, "there is no page for the operator: its address cannot be used; choose another with --admin-listen, or none with --admin-listen off", "error", err)
		return nil, nil
	}
	return ln, err
}

// close ends the listener, unless serving has done so.
func (a *adminPage) close() {
	if a != nil {
		_ = a.ln.Close()
	}
}

// serveWithAdmin serves the gateway and, where there is one, the operator's page.
// When one of them ends, so does the other; the page is the last, so that it and
// the metrics can be looked at as long as requests are answered.
func (p *program) serveWithAdmin(ctx context.Context, g *embeddedgateway.Gateway, ln net.Listener, c embeddedgateway.Config, page *adminPage) error {
	if page == nil {
		return g.Serve(ctx, ln)
	}
	handler, err := admin.New(admin.Config{
		Gateway: g, Tokens: page.token.hashes, Now: c.Now, Rand: c.Rand, Logger: c.Logger,
		Hosts: page.hosts, PublicURL: c.PublicURL, Metrics: g.Metrics(),
	})
	if err != nil {
		return err
	}
	p.announce(ctx, c.Logger, fmt.Sprintf("the operator's page is at %s://%s, %s", page.scheme(), reachable(page.ln.Addr()), page.token.where()))
	if addr, err := netip.ParseAddrPort(page.ln.Addr().String()); err == nil && !addr.Addr().IsLoopback() && !page.https {
		c.Logger.WarnContext(ctx, "the operator's page can be reached from other machines, and it speaks plain HTTP: "+
			"let nothing but a proxy with TLS reach it, or give it a certificate (admin_tls.cert)", "address", page.ln.Addr().String())
	}
	last, endPage := context.WithCancel(context.WithoutCancel(ctx))
	defer endPage()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- g.ServeOperator(last, page.ln, handler)
	}()
	err = g.Serve(ctx, ln)
	endPage()
	return errors.Join(err, <-ended)
}

// adminToken is where the operator's token is: in a variable or in a file.
type adminToken struct {
	setting string // what names it; "": nothing does, and the gateway makes it
	value   string // of the variable
	path    string // of the file, "": the variable holds it
}

// adminToken finds out where the token is. It reads nothing of it.
func (s *gatewaySettings) adminToken(database string) (adminToken, error) {
	path, sqlite := strings.CutPrefix(database, "sqlite:")
	switch {
	case s.AdminToken != "":
		return adminToken{setting: s.spelledAs("admin_token"), value: s.AdminToken}, nil
	case s.AdminTokenFile != "":
		return adminToken{setting: s.spelledAs("admin_token_file"), path: s.AdminTokenFile}, nil
	case !sqlite:
		return adminToken{}, errors.New("the operator's page has no token: set ENLIST_ADMIN_TOKEN or ENLIST_ADMIN_TOKEN_FILE to " +
			"one of 32 characters or more, such as `openssl rand -hex 32` prints, or leave the page out with --admin-listen off")
	}
	return adminToken{path: path + ".admin-token"}, nil
}

// prepare makes the token where that is the gateway's to do, and reads it, so
// that what is wrong with it is said at the start.
func (t adminToken) prepare() error {
	if _, err := os.Stat(t.path); t.setting == "" && errors.Is(err, fs.ErrNotExist) {
		if err := makeAdminToken(t.path); err != nil {
			return err
		}
	}
	_, err := t.read()
	return err
}

// hashes is what the page compares with. A file is read each time, so that a
// token that is replaced ends at once.
func (t adminToken) hashes() ([][32]byte, error) {
	text, err := t.read()
	if err != nil {
		return nil, err
	}
	return [][32]byte{sha256.Sum256([]byte(text))}, nil
}

func (t adminToken) read() (string, error) {
	name, text := t.setting, t.value
	var err error
	switch {
	case t.setting == "":
		var file []byte
		name = t.path
		if file, err = readPrivate(t.path, "the next start of the gateway makes a new one"); err == nil {
			text = string(file)
		}
	case t.path != "":
		text, err = readSecret(t.setting, t.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no admin token in %s: 'enlist gateway' makes one when it starts: %w", t.path, err)
	}
	if err != nil {
		return "", err
	}
	if text = strings.TrimSpace(text); len(text) < minToken {
		return "", fmt.Errorf("%s: an admin token has %d characters or more, such as `openssl rand -hex 32` prints", name, minToken)
	}
	return text, nil
}

// where says where the token lies.
func (t adminToken) where() string {
	if t.path == "" {
		return "its token is that in " + t.setting
	}
	return "its token lies in " + filepath.Clean(t.path)
}

// makeAdminToken writes a new token. Where another process was faster, that one's
// stays.
func makeAdminToken(path string) error {
	made := path + ".new-" + strconv.Itoa(os.Getpid())
	if err := writeAdminToken(made); err != nil {
		return fmt.Errorf("make the admin token: %w", err)
	}
	defer func() { _ = os.Remove(made) }()
	// A link never replaces what is there, as a rename would.
	if err := os.Link(made, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the admin token: %w", err)
	}
	syncFolder(filepath.Dir(path))
	return nil
}

func writeAdminToken(path string) error {
	return replacePrivate(path, []byte("enlist_admin_"+rand.Text()+rand.Text()+"\n"))
}

func (p *program) gatewayAdminTokenCommand(database *string) *cobra.Command {
	var asJSON, reveal bool
	cmd := &cobra.Command{
		Use:   "admin-token",
		Short: "Say where the token of the operator's page lies",
		Long: `Say where the token of the operator's page lies: beside a SQLite database, in a
file that only its owner can read, unless ENLIST_ADMIN_TOKEN or
ENLIST_ADMIN_TOKEN_FILE says otherwise.

With --reveal, show the token itself. That is for people: it asks on the terminal
first, shows the token there and nowhere else, and refuses where standard input or
output is none.`,
		Example: "  enlist gateway admin-token --database sqlite:gateway.db\n  enlist gateway admin-token rotate",
		Args:    cobra.NoArgs,
		RunE: run(func(*cobra.Command, []string) error {
			t, err := p.operatedToken(*database)
			if err != nil {
				return err
			}
			if reveal {
				return p.revealAdminToken(t)
			}
			if _, err := t.read(); err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, map[string]string{"path": t.path, "setting": t.setting})
			}
			if t.path == "" {
				fmt.Fprintln(p.stdout, "The token is the value of "+t.setting+".")
				return nil
			}
			fmt.Fprintln(p.stdout, filepath.Clean(t.path))
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: path (empty: it is in a variable), setting (the variable\nthat says where it is; empty: none does).")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the token, on a terminal, after a question")
	cmd.MarkFlagsMutuallyExclusive("reveal", "json")
	cmd.AddCommand(p.gatewayAdminTokenRotateCommand(database))
	return cmd
}

// operatedToken is where the token of a gateway is that may be running.
func (p *program) operatedToken(database string) (adminToken, error) {
	config, err := p.operatedConfig(database)
	if err != nil {
		return adminToken{}, err
	}
	given := flagValues{}
	if database != "" {
		given["database"] = []string{database}
	}
	s, problems := p.readSettings(given)
	if err := failedSettings(problems); err != nil {
		return adminToken{}, err
	}
	return s.adminToken(config.Database)
}

func (p *program) revealAdminToken(t adminToken) error {
	_, in := terminal(p.stdin)
	out, ok := terminal(p.stdout)
	if !in || !ok {
		return errors.New("the token is shown on a terminal only, and standard input or output is none: " +
			"a program reads the file that 'enlist gateway admin-token' names")
	}
	token, err := t.read()
	if err != nil {
		return err
	}
	typed, err := p.ask("The admin token will be shown here. Whoever has it can do all that the operator can.\nType show to show it: ", "")
	if err != nil {
		return err
	}
	if typed != "show" {
		return errors.New("nothing was shown: another word was typed")
	}
	_, err = fmt.Fprintln(out, token)
	return err
}

func (p *program) gatewayAdminTokenRotateCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make another token for the operator's page, and end its sessions",
		Long: `Make another token for the operator's page. The one before it and every session
that was begun by it end at once, without a restart.`,
		Args: cobra.NoArgs,
		RunE: run(func(*cobra.Command, []string) error {
			t, err := p.operatedToken(*database)
			if err != nil {
				return err
			}
			if t.setting != "" {
				return fmt.Errorf("%s says what the token is: change it there, which ends the one before it and its sessions", t.setting)
			}
			if _, err := os.Stat(t.path); err != nil {
				return fmt.Errorf("there is no admin token to replace: 'enlist gateway' makes one when it starts: %w", err)
			}
			if err := writeAdminToken(t.path); err != nil {
				return fmt.Errorf("write the admin token: %w", err)
			}
			if asJSON {
				return printJSON(p.stdout, map[string]string{"path": t.path})
			}
			fmt.Fprintf(p.stdout, "There is another token in %s. The one before it and its sessions have ended.\n", filepath.Clean(t.path))
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: path.")
	return cmd
}
