package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

func (p *program) gatewayInvitesCommand(database *string) *cobra.Command {
	var asJSON bool
	var q embeddedgateway.InviteQuery
	cmd := &cobra.Command{
		Use:   "invites",
		Short: "List the invites that a gateway has handed out, never their codes",
		Long: `List the invites that a gateway has handed out, the newest first, never their
codes. One is forgotten an hour after it has expired.`,
		Example: "  enlist gateway invites --database sqlite:gateway.db",
		Args:    cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(q.Limit); err != nil {
				return &usageError{err}
			}
			return p.operate(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				page, err := g.Invites(ctx, q)
				if errors.Is(err, embeddedgateway.ErrQuery) {
					return &usageError{errors.New("--after: want what the page before ended with")}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, page)
				}
				return p.screen().invites(page)
			})
		}),
	}
	cmd.Flags().IntVar(&q.Limit, "limit", 50, "how many at most, up to 500")
	cmd.Flags().StringVar(&q.After, "after", "", "begin after a page: the `next` that it ended with")
	jsonFlag(cmd, &asJSON, "an object: invites, each with protocol, agent (who it is for), state\n"+
		"(open, used or expired), created_at, expires_at, used_at; and next, for --after,\nunless this is the last page.")
	return cmd
}

func (s *screen) invites(page embeddedgateway.InvitePage) error {
	if len(page.Invites) == 0 {
		_, err := fmt.Fprintln(s.out, "No invite was handed out lately.")
		return err
	}
	t := titled("FOR…", "STATE", "HANDED OUT", "EXPIRES", "USED")
	for _, i := range page.Invites {
		state := field{i.State, styleGood}
		if i.State != "open" {
			state.look = styleQuiet
		}
		t.row(i.Protocol+"/"+i.Agent, state, s.when(&i.CreatedAt), s.when(&i.ExpiresAt), s.when(&i.UsedAt))
	}
	if err := s.print(t); err != nil {
		return err
	}
	if page.Next == "" || !s.person {
		return nil
	}
	_, err := fmt.Fprintf(s.out, "\nThere are more: the next page is the same command with --after %s\n", page.Next)
	return err
}
