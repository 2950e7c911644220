package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
)

func (p *program) showCommand() *cobra.Command {
	var asJSON, reveal bool
	var kind string
	cmd := p.credentialCommand("show", "Show what is known of a credential, without its secret",
		`Show what is known of a credential, without its secret.

With --reveal, show the secret itself. That is for people: it asks on the terminal
first, shows the secret there and nowhere else, and refuses where standard input or
output is none. The audit trail notes it. Where several secrets stand behind a
handle, such as a key and the recovery key of its account, --kind says which.`,
		func(ctx context.Context, c *client, info credstore.Info) error {
			if kind != "" && !reveal {
				return &usageError{errors.New("--kind goes with --reveal")}
			}
			if reveal {
				return p.reveal(ctx, c, info, credstore.Kind(kind))
			}
			d, err := p.describe(ctx, c, info)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, d)
			}
			return printCredential(p.stdout, d)
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the secret, on a terminal, after a question")
	cmd.Flags().StringVar(&kind, "kind", "", "with --reveal: which secret, such as api_key or recovery_key")
	cmd.MarkFlagsMutuallyExclusive("reveal", "json")
	cmd.Example = "  enlist show lona/my-agent\n  enlist show fluxra/my-agent --reveal --kind recovery_key"
	return cmd
}

// reveal shows a secret to the person at the terminal. A pipe or a file as
// standard output is refused: there it would stay.
func (p *program) reveal(ctx context.Context, c *client, info credstore.Info, kind credstore.Kind) error {
	_, in := terminal(p.stdin)
	out, ok := terminal(p.stdout)
	if !in || !ok {
		return errors.New("a secret is shown on a terminal only, and standard input or output is none: " +
			"to give it to a program, use enlist exec")
	}
	chosen, err := p.chooseSecret(ctx, c, info, kind)
	if err != nil {
		return err
	}
	handle := c.Lifecycle.Handle(info.Key)
	prompt := fmt.Sprintf("The %s of %s will be shown here. Whoever has it can act as the agent.\nType %s to show it: ",
		strings.ReplaceAll(string(chosen.Kind), "_", " "), handle, handle)
	typed, err := p.ask(prompt, "")
	if err != nil {
		return err
	}
	if typed != handle {
		return errors.New("nothing was shown: another word was typed")
	}
	return c.Lifecycle.RevealTo(ctx, chosen.Key, out)
}

// chooseSecret returns the one of the secrets behind a handle that is wanted.
func (p *program) chooseSecret(ctx context.Context, c *client, info credstore.Info, kind credstore.Kind) (credstore.Info, error) {
	stored, err := c.Lifecycle.Behind(ctx, info.Key)
	if err != nil {
		return credstore.Info{}, err
	}
	if kind == "" && len(stored) == 1 {
		return stored[0], nil
	}
	var kinds []string
	for _, i := range stored {
		if i.Kind == kind {
			return i, nil
		}
		kinds = append(kinds, string(i.Kind))
	}
	return credstore.Info{}, &usageError{fmt.Errorf("say with --kind which secret of %s: stored are %s",
		c.Lifecycle.Handle(info.Key), strings.Join(kinds, ", "))}
}

func printCredential(out io.Writer, d credential) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	row("credential", d.Handle)
	row("service", d.Origin)
	row("agent", d.Agent)
	row("kind", string(d.Kind))
	row("label", d.Label)
	row("state", string(d.State))
	row("reason", d.Reason)
	row("remedy", d.Remedy)
	row("key id", d.KeyID)
	row("created", d.CreatedAt.Format(time.RFC3339))
	row("expires", expiry(d.ExpiresAt))
	row("stored in", d.StoredIn)
	names := make([]string, 0, len(d.Attrs))
	for name := range d.Attrs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		row(strings.ReplaceAll(name, "_", " "), d.Attrs[name])
	}
	return w.Flush()
}
