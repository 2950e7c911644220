package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// credentialCommand returns a command about one stored credential.
func (p *program) credentialCommand(verb, short, long string, f func(context.Context, *client, credstore.Info) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " CREDENTIAL",
		Short: short,
		Long:  long + "\n\nCREDENTIAL is a handle as 'enlist list' prints it, such as lona/my-agent.",
		Args:  cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				info, err := named(ctx, c, args[0])
				if err != nil {
					return err
				}
				return f(ctx, c, info)
			})
		}),
	}
}

// named returns the credential that a person names. An agent may leave the name
// out; a person who gave an empty one did not mean the only credential there is.
func named(ctx context.Context, c *client, handle string) (credstore.Info, error) {
	if handle == "" {
		return credstore.Info{}, &usageError{errors.New("CREDENTIAL is empty: give a handle, as 'enlist list' prints them")}
	}
	info, err := c.Lifecycle.Resolve(ctx, handle)
	if wrong, ok := errors.AsType[*gateway.ResolveError](err); ok && wrong.Malformed {
		return credstore.Info{}, &usageError{err}
	}
	return info, err
}

func (p *program) rotateCommand() *cobra.Command {
	var asJSON, inPlace bool
	cmd := p.credentialCommand("rotate", "Replace a credential by a new one, at the service and in the store",
		"Replace a credential by a new one, at the service and in the store. The old one is\ndead afterwards.",
		func(ctx context.Context, c *client, info credstore.Info) error {
			rotate := c.Lifecycle.Rotate
			if inPlace {
				rotate = c.Lifecycle.RotateInPlace
			}
			info, err := rotate(ctx, info.Key)
			var full *gateway.KeysFullError
			if errors.As(err, &full) && !inPlace {
				return fmt.Errorf("%w. Nothing has changed: let one of them end first, with enlist revoke, or this one's with --revoke-first", err)
			}
			if err != nil {
				return err
			}
			d, err := p.describe(ctx, c, info)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, d)
			}
			s := p.screen()
			s.say(fmt.Sprintf("Rotated %s. The new one is stored in the %s and expires %s. The old one is refused from now on.",
				d.Handle, d.StoredIn, s.when(d.ExpiresAt)))
			return nil
		})
	jsonFlag(cmd, &asJSON, "the new credential, an object: "+credentialFields)
	cmd.Flags().BoolVar(&inPlace, "revoke-first", false, "end the old one before there is a new one, where the service has no place for both")
	return cmd
}

func (p *program) revokeCommand() *cobra.Command {
	var asJSON bool
	cmd := p.credentialCommand("revoke", "End a credential at the service",
		"End a credential at the service. Where a protocol has no such call, this says what can be\ndone instead.",
		func(ctx context.Context, c *client, info credstore.Info) error {
			if err := c.Lifecycle.Revoke(ctx, info.Key); err != nil {
				return err
			}
			handle := c.Lifecycle.Handle(info.Key)
			if asJSON {
				return printJSON(p.stdout, map[string]any{"credential": handle, "origin": info.Origin, "revoked": true})
			}
			p.screen().say(fmt.Sprintf("Revoked %s at %s.", handle, info.Origin))
			return nil
		})
	jsonFlag(cmd, &asJSON, "an object: credential (its handle), origin, revoked.")
	return cmd
}
