package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// credential is one credential as the commands print it.
type credential struct {
	Handle    string            `json:"handle"`
	Protocol  string            `json:"protocol"`
	Origin    string            `json:"origin"`
	Agent     string            `json:"agent"`
	Kind      credstore.Kind    `json:"kind"`
	Label     string            `json:"label,omitzero"`
	State     credstore.State   `json:"state"`
	Reason    string            `json:"reason,omitzero"`
	Remedy    string            `json:"remedy,omitzero"`
	KeyID     string            `json:"key_id,omitzero"`
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt *time.Time        `json:"expires_at,omitempty"`
	StoredIn  string            `json:"stored_in"`
	Attrs     map[string]string `json:"attributes,omitzero"`
}

func (p *program) describe(ctx context.Context, c *client, info credstore.Info) (credential, error) {
	backend, err := c.store.Backend(ctx)
	if err != nil {
		return credential{}, err
	}
	standing := c.Lifecycle.Standing(ctx, info)
	d := credential{
		Handle:    c.Lifecycle.Handle(info.Key),
		Protocol:  info.Protocol,
		Origin:    info.Origin,
		Agent:     info.Agent,
		Kind:      info.Kind,
		Label:     info.Label,
		State:     standing.Now,
		Reason:    standing.Reason,
		Remedy:    standing.Remedy,
		KeyID:     info.KeyID,
		CreatedAt: info.CreatedAt.UTC(),
		StoredIn:  backend,
		Attrs:     info.Attrs,
	}
	if !info.ExpiresAt.IsZero() {
		utc := info.ExpiresAt.UTC()
		d.ExpiresAt = &utc
	}
	return d, nil
}

func (p *program) listCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stored credentials, never their secrets",
		Args:  cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				infos, err := c.Lifecycle.List(ctx)
				if err != nil {
					return err
				}
				credentials := make([]credential, 0, len(infos))
				for _, info := range infos {
					if !c.Lifecycle.HasHandle(info.Key) {
						continue // a wallet, or what stands behind a credential
					}
					d, err := p.describe(ctx, c, info)
					if err != nil {
						return err
					}
					credentials = append(credentials, d)
				}
				if asJSON {
					return printJSON(p.stdout, credentials)
				}
				if len(credentials) == 0 {
					fmt.Fprintln(p.stdout, "No credentials yet. Register with: enlist call lona_register_agent '{\"agent_id\":\"my-agent\",\"agent_name\":\"My Agent\"}'")
					return nil
				}
				w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "CREDENTIAL\tSTATE\tEXPIRES\tSTORED IN")
				for _, d := range credentials {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Handle, d.State, expiry(d.ExpiresAt), d.StoredIn)
				}
				if err := w.Flush(); err != nil {
					return err
				}
				for _, d := range credentials {
					if d.Remedy != "" {
						fmt.Fprintf(p.stdout, "\n%s: %s %s\n", d.Handle, d.Reason, d.Remedy)
					}
				}
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func expiry(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.RFC3339)
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// withClient runs f with the client half open, and closes it.
func (p *program) withClient(cmd *cobra.Command, f func(context.Context, *client) error) (err error) {
	c, err := p.openClient()
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := c.Close(); err == nil {
			err = closeErr
		}
	}()
	person := gateway.Caller{Kind: gateway.CallerPerson, Name: cmd.CommandPath(), Version: version()}
	return f(gateway.WithCaller(cmd.Context(), person), c)
}

func expiryOf(info credstore.Info) string {
	if info.ExpiresAt.IsZero() {
		return "it is revoked"
	}
	return info.ExpiresAt.UTC().Format(time.RFC3339)
}
