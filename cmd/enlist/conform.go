package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway/conform"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// conformFlags is the command line of `enlist conform`.
type conformFlags struct {
	url, protocol, report, output, path string
	admin, scope                        string
	wait                                time.Duration
	exhaust, insecure, spread, asJSON   bool
}

// The values of --report.
const (
	reportText  = "text"
	reportJUnit = "junit"
)

func (p *program) conformCommand() *cobra.Command {
	var flags conformFlags
	cmd := &cobra.Command{
		Use:   "conform URL",
		Short: "Grade a service by a protocol's table of routes and errors",
		Long: `Grade a service by a protocol's whole table of routes and errors: it registers
agents there, uses, rotates and revokes what they are issued, and sends what must
be refused. Each check says what is expected and who says so: the service's own
page (seed), its other documents (published), or Enlist where both are silent.

It makes accounts at the service, and some stay: the report names them. It asks
the given origin only. Limits that count by address are met now and then, and
what they keep from being graded is skipped; --exhaust-limits uses them up on
purpose, and then nobody at your address can register for the rest of the hour.

With LONA_AGENT_REGISTRATION_SECRET a partner's way at Lona is graded, too: the
secret goes to this machine, or to where LONA_GATEWAY_URL says Lona is.

What cannot be graded is skipped, and the report ends with what that was, and why.
Of a gateway of your own more can be graded: --admin names its operator's listener,
where Fluxra's mail is read (of a gateway without a mail server) and an agent of
the run is suspended; ENLIST_ADMIN_TOKEN_FILE or ENLIST_ADMIN_TOKEN has the token
for it. --spread-addresses has each check come from an address of its own, at a
gateway that takes this machine for its proxy (ENLIST_TRUSTED_PROXIES=127.0.0.1):
the ten registrations an hour then suffice. --scope says which scope a path wants.
--wait has what ends in time be waited for. What takes longer (a token of Lona's
lives 30 days) is graded in a Go test, with a clock that the test moves.

Exit codes: 0 the service does all that it must, 1 it does not or could not be
graded, 2 a mistake in the command line.`,
		Example: `  enlist conform http://127.0.0.1:8420 --protocol lona
  enlist conform https://gateway.example.com --protocol fluxra --report junit --output conform.xml`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			flags.url = args[0]
			return p.conform(cmd.Context(), flags)
		}),
	}
	set := cmd.Flags()
	set.StringVar(&flags.protocol, "protocol", "", "the `protocol` to grade by: "+strings.Join(conform.Protocols(), ", "))
	set.StringVar(&flags.report, "report", reportText, "the `form` of the report: text or junit")
	set.StringVar(&flags.output, "output", "", "the `file` to write the report to (default: standard output)")
	set.StringVar(&flags.path, "path", "", "AgentDoor: a `path` that wants a credential (default: "+wire.AgentDoorWhoAmIPath+")")
	set.BoolVar(&flags.exhaust, "exhaust-limits", false, "use limits up that count by address")
	set.StringVar(&flags.admin, "admin", "", "the `URL` of the operator's listener of the gateway, such as http://127.0.0.1:8421")
	set.StringVar(&flags.scope, "scope", "", "AgentDoor: a scope and a path that wants it, as `SCOPE=PATH`")
	set.DurationVar(&flags.wait, "wait", 0, "wait so `long`, each time, for what ends by then, such as 6m or 62m")
	set.BoolVar(&flags.spread, "spread-addresses", false, "say in X-Forwarded-For that each check comes from an address of its own; only to this machine")
	set.BoolVar(&flags.insecure, "insecure-http", false, "let what is issued travel in the clear to another machine")
	jsonFlag(cmd, &flags.asJSON, "protocol, target, started_at, seconds, requests, ok, left (what stays at the service), and results: "+
		"each with id, expect, source, severity (must or should), outcome (pass, fail or skip), reason, and evidence of request, status and answer.")
	return cmd
}

// check finds what is wrong with the command line itself.
func (f conformFlags) check(p *program) error {
	switch {
	case f.protocol == "":
		return errors.New("--protocol: name one of " + strings.Join(conform.Protocols(), ", "))
	case conform.Checks(f.protocol) == nil:
		return fmt.Errorf("--protocol: unknown protocol %q: known are %s", f.protocol, strings.Join(conform.Protocols(), ", "))
	case f.report != reportText && f.report != reportJUnit:
		return fmt.Errorf("--report: %q is neither text nor junit", f.report)
	case f.asJSON && f.report == reportJUnit:
		return errors.New("--json and --report junit are two forms of one report: leave one out")
	case f.path != "" && (!strings.HasPrefix(f.path, "/") || f.protocol != wire.AgentDoorName):
		return errors.New("--path: want a path such as /api/v1/me, with --protocol agentdoor")
	case f.wait < 0:
		return errors.New("--wait: want a time such as 6m")
	}
	if scope, path, _ := strings.Cut(f.scope, "="); f.scope != "" && (scope == "" || !strings.HasPrefix(path, "/") || f.protocol != wire.AgentDoorName) {
		return errors.New("--scope: want a scope and a path that wants it, such as reports.write=/reports, with --protocol agentdoor")
	}
	if u, err := url.Parse(f.url); f.spread && (err != nil || !conform.Loopback(u.Hostname())) {
		return errors.New("--spread-addresses: for a gateway on this machine only: elsewhere it would dodge a limit that is not yours")
	}
	return p.flags.refuseClient()
}

// conform grades a service, and reports.
func (p *program) conform(ctx context.Context, flags conformFlags) (err error) {
	if err := flags.check(p); err != nil {
		return &usageError{err}
	}
	options := conform.Options{
		URL: flags.url, Protocol: flags.protocol, Now: p.now, Exhaust: flags.exhaust, InsecureHTTP: flags.insecure,
		Path: flags.path, LonaSecret: p.lonaSecretFor(flags.url),
	}
	if err := options.Check(); err != nil {
		return &usageError{err}
	}
	flags.widen(&options)
	admin, err := p.conformAdmin(ctx, flags)
	if err != nil {
		return &usageError{err}
	}
	if admin != nil {
		options.Mail, options.Suspend = admin.mail, admin.suspends(flags.protocol)
	}
	out := p.stdout
	if flags.output != "" {
		// It is opened first: a report that cannot be written is found out before
		// anything is registered.
		f, err := os.OpenFile(flags.output, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) //nolint:gosec // a report has no secret, and other programs read it
		if err != nil {
			return &usageError{fmt.Errorf("--output: %w", err)}
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	fmt.Fprintf(p.waits().above(p.stderr), "enlist conform: this registers agents at %s, and some of them stay there\n", plain(flags.url))
	report, ended := p.graded(ctx, options)
	if err := p.writeReport(out, flags, report); err != nil {
		return err
	}
	if ended != nil {
		return fmt.Errorf("the run was ended before its end: %w", ended)
	}
	if flags.output != "" || flags.report == reportJUnit {
		fmt.Fprintln(p.stderr, "enlist conform: "+verdict(report))
	}
	if report.OK() {
		return nil
	}
	return &runError{err: errors.New(verdict(report)), reported: true}
}

// widen has more be graded, as far as the command line asks for it.
func (f conformFlags) widen(o *conform.Options) {
	o.Scope, o.ScopedPath, _ = strings.Cut(f.scope, "=")
	o.SpreadAddresses = f.spread
	if f.exhaust {
		o.MaxRequests = 3000 // one limit of AgentDoor's is of 1000 requests
	}
	if f.wait > 0 {
		o.Wait, o.MostWait, o.Deadline = waitFor, f.wait, 10*time.Minute+10*f.wait
	}
}

// graded runs the checks, and tells a person at the terminal which.
func (p *program) graded(ctx context.Context, o conform.Options) (conform.Report, error) {
	total := len(conform.Checks(o.Protocol))
	n := 1
	over := p.waits().wait(fmt.Sprintf("check 1 of %d", total))
	o.Progress = func(conform.Result) {
		over()
		n++
		over = p.waits().wait(fmt.Sprintf("check %d of %d", min(n, total), total))
	}
	defer func() { over() }()
	return conform.Run(ctx, o)
}

// lonaSecretFor is the registration secret, where it may go to: a URL that
// somebody mistyped must not be told it.
func (p *program) lonaSecretFor(target string) string {
	secret := p.env("LONA_AGENT_REGISTRATION_SECRET")
	if secret == "" {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	own, err := url.Parse(cmp.Or(p.env("LONA_GATEWAY_URL"), wire.LonaOrigin))
	if err != nil {
		return ""
	}
	if conform.Loopback(u.Hostname()) || u.Scheme == own.Scheme && strings.EqualFold(u.Host, own.Host) {
		return secret
	}
	return ""
}

// conformJSON is a report as JSON.
type conformJSON struct {
	conform.Report
	OK bool `json:"ok"`
}

func (p *program) writeReport(out io.Writer, flags conformFlags, r conform.Report) error {
	switch {
	case flags.asJSON:
		return printJSON(out, conformJSON{r, r.OK()})
	case flags.report == reportJUnit:
		return conform.WriteJUnit(out, r)
	}
	s := &screen{out: out, now: p.now()}
	if flags.output == "" {
		s = p.screen()
	}
	return s.conformity(r)
}
