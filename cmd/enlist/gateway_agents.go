package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// byCommandLine is who the audit trail of a gateway says it was.
const byCommandLine = "by the command line"

// agentFields are the names in the JSON of an agent.
const agentFields = `protocol, agent (its id there), name,
owner, email (a verified one), state (active or suspended), created_at,
suspended_at`

func (p *program) gatewayAgentsCommand(database *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List, suspend and delete the agents of a gateway, and end their keys",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		p.gatewayAgentsListCommand(database), p.gatewayAgentsShowCommand(database),
		p.gatewayAgentsSuspendCommand(database), p.gatewayAgentsResumeCommand(database),
		p.gatewayAgentsRevokeKeyCommand(database), p.gatewayAgentsDeleteCommand(database),
	)
	return cmd
}

// actOn runs f on the gateway of a database in the operator's name.
func (p *program) actOn(cmd *cobra.Command, database string, f func(context.Context, *embeddedgateway.Gateway) error) error {
	return p.operate(cmd, database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
		return f(embeddedgateway.WithActor(ctx, byCommandLine), g)
	})
}

func (p *program) gatewayAgentsListCommand(database *string) *cobra.Command {
	var asJSON bool
	var q embeddedgateway.AgentQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List or search the agents that are registered at a gateway",
		Long: `List the agents that are registered at a gateway, the newest first. The gateway
may be running. With --search, those whose name, id or owner begins with a text, or
whose verified email it is, in the order of what they were found by; case does not
matter. There may be a million: a page takes as long as with ten.`,
		Example: "  enlist gateway agents list --database sqlite:gateway.db\n" +
			"  enlist gateway agents list --search ops@example.com --state suspended",
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := checkAgentQuery(cmd, q); err != nil {
				return &usageError{err}
			}
			return p.operate(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				page, err := g.Agents(ctx, q)
				if errors.Is(err, embeddedgateway.ErrQuery) {
					return &usageError{errors.New("--after: want what the page before ended with")}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, page)
				}
				return p.screen().agents(page, q)
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Search, "search", "", "only those that are found by this `text`")
	flags.StringVar(&q.Protocol, "protocol", "", "only those of one `protocol`")
	flags.StringVar(&q.State, "state", "", "only those that are `active|suspended`")
	flags.IntVar(&q.Limit, "limit", 50, "how many at most, up to 500")
	flags.StringVar(&q.After, "after", "", "begin after a page: the `next` that it ended with")
	jsonFlag(cmd, &asJSON, "an object: agents, each with "+agentFields+"; and next, for\n--after, unless this is the last page.")
	return cmd
}

// checkAgentQuery finds what is wrong with the command line itself.
func checkAgentQuery(cmd *cobra.Command, q embeddedgateway.AgentQuery) error {
	switch {
	case q.State != "" && q.State != "active" && q.State != "suspended":
		return errors.New("--state: want active or suspended")
	case cmd.Flags().Changed("protocol") && !knownProtocol(q.Protocol):
		return errors.New("--protocol: want one of " + strings.Join(protocolNames(nil), ", "))
	}
	return checkLimit(q.Limit)
}

func checkLimit(limit int) error {
	if limit < 1 || limit > 500 {
		return errors.New("--limit: want 1 to 500")
	}
	return nil
}

func knownProtocol(name string) bool { return slices.Contains(protocolNames(nil), name) }

func (s *screen) agents(page embeddedgateway.AgentPage, q embeddedgateway.AgentQuery) error {
	if len(page.Agents) == 0 {
		said := "No agent is registered."
		if q.Search != "" || q.State != "" || q.Protocol != "" || q.After != "" {
			said = "No such agent is registered."
		}
		_, err := fmt.Fprintln(s.out, said)
		return err
	}
	t := titled("AGENT…", "NAME…", "OWNER…", "EMAIL…", "STATE", "REGISTERED")
	for _, a := range page.Agents {
		t.row(handleOf(a), a.Name, a.Owner, a.Email, s.agentState(a.State), s.when(&a.CreatedAt))
	}
	if err := s.print(t); err != nil {
		return err
	}
	if page.Next == "" || !s.person { // a program reads it from --json
		return nil
	}
	_, err := fmt.Fprintf(s.out, "\nThere are more: the next page is the same command with --after %s\n", page.Next)
	return err
}

// handleOf is how an agent is named on the command line.
func handleOf(a embeddedgateway.AgentInfo) string { return a.Protocol + "/" + a.Agent }

func (s *screen) agentState(state string) field {
	if state == "suspended" {
		return s.signed("✗", field{state, styleBad})
	}
	return s.signed("●", field{state, styleGood})
}

// agentArg takes an agent of the command line apart.
func agentArg(arg string) (protocol, agent string, err error) {
	protocol, agent, ok := strings.Cut(arg, "/")
	if !ok || agent == "" || !knownProtocol(protocol) {
		return "", "", &usageError{fmt.Errorf("%q does not name an agent: want PROTOCOL/AGENT, such as lona/my-agent; the protocols are %s",
			arg, strings.Join(protocolNames(nil), ", "))}
	}
	return protocol, agent, nil
}

// unknownAgent says of an error that there is no such agent, if that is it.
func unknownAgent(err error, arg, what string) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, embeddedgateway.ErrQuery) {
		return fmt.Errorf("there is no %s at this gateway%s: enlist gateway agents list --search finds one by how its name or id begins", arg, what)
	}
	return err
}

func (p *program) gatewayAgentsShowCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show PROTOCOL/AGENT",
		Short: "Show an agent of a gateway with its keys and what happened to it",
		Long: `Show what a gateway knows of an agent: what it said of itself, its keys without
their secrets, and the last that happened to it.`,
		Example: "  enlist gateway agents show lona/my-agent",
		Args:    cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			protocol, agent, err := agentArg(args[0])
			if err != nil {
				return err
			}
			return p.operate(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				d, err := g.Agent(ctx, protocol, agent)
				if err != nil {
					return unknownAgent(err, args[0], "")
				}
				d.Limits = []embeddedgateway.LimitInfo{} // the gateway that serves counts them
				if asJSON {
					return printJSON(p.stdout, d)
				}
				return p.screen().agentDetail(d)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: "+agentFields+`, attrs (what the protocol keeps), keys
(each with key_id, kind, label, scopes, created_at, expires_at, revoked_at,
last_used_at, state), limits (empty: the gateway that serves counts them), and
events (each with id, at, protocol, name, agent, key_id, ip, detail, refusal, count).`)
	return cmd
}

func (s *screen) agentDetail(d embeddedgateway.AgentDetail) error {
	l := s.list("")
	text := func(name, value string) { l.add(name, field{text: value}) }
	text("agent", handleOf(d.AgentInfo))
	text("name", d.Name)
	text("owner", d.Owner)
	text("email", d.Email)
	l.add("state", s.agentState(d.State))
	text("registered", s.whenExactly(&d.CreatedAt))
	if !d.SuspendedAt.IsZero() {
		text("suspended", s.whenExactly(&d.SuspendedAt))
	}
	for _, name := range sortedNames(d.Attrs) {
		text(strings.ReplaceAll(name, "_", " "), d.Attrs[name])
	}
	if err := l.print(); err != nil {
		return err
	}
	if len(d.Keys) > 0 {
		fmt.Fprintln(s.out)
		t := titled("KEY…", "KIND", "STATE", "LABEL…", "SCOPES…", "ISSUED", "EXPIRES", "LAST USED")
		for _, k := range d.Keys {
			t.row(k.KeyID, k.Kind, s.keyState(k.State), k.Label, strings.Join(k.Scopes, " "),
				s.when(&k.CreatedAt), s.when(&k.ExpiresAt), s.when(&k.LastUsedAt))
		}
		if err := s.print(t); err != nil {
			return err
		}
	}
	if len(d.Events) == 0 {
		return nil
	}
	fmt.Fprintln(s.out)
	t := titled("WHEN", "WHAT…", "KEY…", "FROM", "DETAIL…")
	for _, e := range d.Events[:min(len(d.Events), 20)] {
		name := e.Name
		if e.Count > 1 {
			name = fmt.Sprintf("%s (%d times)", name, e.Count)
		}
		t.row(s.when(&e.At), name, e.KeyID, cmp.Or(e.IP, "-"), e.Detail)
	}
	return s.print(t)
}

func (s *screen) keyState(state string) field {
	if state == "active" {
		return s.signed("●", field{state, styleGood})
	}
	return s.signed("✗", field{state, styleBad})
}
