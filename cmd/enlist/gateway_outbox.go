package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// waiting is a letter as the command prints it.
type waiting struct {
	Letter    string    `json:"letter"`
	To        string    `json:"to"`
	Subject   string    `json:"subject"`
	Text      string    `json:"text"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Tries     int       `json:"tries"`
}

func (p *program) gatewayOutboxCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "outbox",
		Short: "Show the mail that a gateway has not sent",
		Long: `Show the mail that waits at a gateway: all that has not expired where it has no
mail server, else what has not gone out yet. The gateway may be running. With
--embedded it is the one inside Enlist.

The links and codes in the letters are shown in full: they are what this command
is for, and whoever has them can verify an address or take an account over. It
is a command for a person at a terminal; no tool of an agent does this. The
gateway's audit trail notes it.`,
		Example: "  enlist gateway outbox --database sqlite:gateway.db\n  enlist gateway outbox --embedded",
		Args:    cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.actOn(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				list, err := g.ReadOutbox(ctx)
				if err != nil && len(list) == 0 {
					return err
				}
				return errors.Join(p.screen().outbox(list, asJSON), err)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a letter: letter, to, subject, text, created_at,\nexpires_at, tries.")
	return cmd
}

func (s *screen) outbox(list []embeddedgateway.Mail, asJSON bool) error {
	out := s.out
	if asJSON {
		letters := make([]waiting, 0, len(list))
		for _, m := range list {
			letters = append(letters, waiting{m.Name, m.To, m.Subject, m.Text, m.Created, m.Expires, m.Tries})
		}
		return printJSON(out, letters)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "No mail waits.")
		return err
	}
	for i, m := range list {
		if i > 0 {
			fmt.Fprintln(out, "\n"+strings.Repeat("-", s.rule(72)))
		}
		written := "of " + s.when(&m.Created)
		if s.person {
			written = "written " + s.when(&m.Created)
		}
		fmt.Fprintf(out, "Letter:   %s, %s, tries so far: %d\n", m.Name, written, m.Tries)
		fmt.Fprintf(out, "Expires:  %s\nTo:       %s\nSubject:  %s\n\n", s.when(&m.Expires), plain(m.To), s.paint(styleTitle, plain(m.Subject)))
		if _, err := fmt.Fprintln(out, plain(strings.TrimRight(m.Text, "\n"))); err != nil {
			return err
		}
	}
	return nil
}
