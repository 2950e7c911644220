package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// signingKey is a key as the command prints it.
type signingKey struct {
	KeyID     string     `json:"kid"`
	MadeAt    time.Time  `json:"made_at"`
	RetiresAt *time.Time `json:"retires_at,omitempty"`
}

func (p *program) gatewayKeysCommand(database *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List and rotate the keys that a gateway signs tokens with",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.gatewayKeysListCommand(database), p.gatewayKeysRotateCommand(database))
	return cmd
}

func (p *program) gatewayKeysListCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys whose tokens are good, never the keys themselves",
		Args:  cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.operate(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				list, err := g.Keys(ctx)
				if err != nil {
					return err
				}
				keys := make([]signingKey, 0, len(list))
				for _, k := range list {
					key := signingKey{KeyID: k.ID, MadeAt: k.Made}
					if !k.Retires.IsZero() {
						key.RetiresAt = &k.Retires
					}
					keys = append(keys, key)
				}
				if asJSON {
					return printJSON(p.stdout, keys)
				}
				s := p.screen()
				t := titled("KEY", "MADE", "RETIRES")
				for _, k := range keys {
					t.row(k.KeyID, s.when(&k.MadeAt), s.when(k.RetiresAt))
				}
				return s.print(t)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a key: kid, made_at, retires_at (absent: never).")
	return cmd
}

func (p *program) gatewayKeysRotateCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Sign tokens with a new key from now on",
		Long: `Sign tokens with a new key from now on, in every gateway over the database,
without a restart. Tokens that are out already stay good until they expire, and
so long the keys before it are published.`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.operate(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				kid, err := g.RotateKeys(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, map[string]string{"kid": kid})
				}
				fmt.Fprintf(p.stdout, "Tokens are signed with %s from now on. Those that are out stay good until they expire.\n", kid)
				return nil
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: kid.")
	return cmd
}
