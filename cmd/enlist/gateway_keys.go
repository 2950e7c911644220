package main

import (
	"context"
	"fmt"
	"text/tabwriter"
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
				w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "KEY\tMADE\tRETIRES")
				for _, k := range keys {
					fmt.Fprintf(w, "%s\t%s\t%s\n", k.KeyID, k.MadeAt.Format(time.RFC3339), expiry(k.RetiresAt))
				}
				return w.Flush()
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) gatewayKeysRotateCommand(database *string) *cobra.Command {
	return &cobra.Command{
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
				fmt.Fprintf(p.stdout, "Tokens are signed with %s from now on. Those that are out stay good until they expire.\n", kid)
				return nil
			})
		}),
	}
}
