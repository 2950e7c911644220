package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
			return p.screen().credential(d)
		})
	jsonFlag(cmd, &asJSON, "an object: "+credentialFields)
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

func (s *screen) credential(d credential) error {
	l := s.list("")
	text := func(name, value string) { l.add(name, field{text: value}) }
	text("credential", d.Handle)
	text("service", d.Origin)
	text("agent", d.Agent)
	text("kind", string(d.Kind))
	text("label", d.Label)
	l.add("state", s.state(d.State))
	text("reason", d.Reason)
	text("remedy", d.Remedy)
	text("key id", d.KeyID)
	text("created", s.whenExactly(&d.CreatedAt))
	text("expires", s.whenExactly(d.ExpiresAt))
	text("stored in", d.StoredIn)
	for _, name := range sortedNames(d.Attrs) {
		text(strings.ReplaceAll(name, "_", " "), d.Attrs[name])
	}
	return l.print()
}
