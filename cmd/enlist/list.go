package main

import (
	"context"
	"fmt"
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
				return p.screen().credentials(credentials)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a credential: "+credentialFields)
	return cmd
}

// credentialFields are the fields of credential, for the help.
const credentialFields = `handle, protocol, origin, agent,
kind, label, state (pending, active, expiring, expired, revoked or lost), reason,
remedy, key_id, created_at, expires_at (absent: never), stored_in, attributes.`

// credentials prints a table of credentials, and below it what is to be done.
func (s *screen) credentials(all []credential) error {
	if len(all) == 0 {
		s.say("No credentials yet. Register with: enlist call lona_register_agent '{\"agent_id\":\"my-agent\",\"agent_name\":\"My Agent\"}'")
		return nil
	}
	t := titled("CREDENTIAL", "STATE", "EXPIRES", "STORED IN")
	for _, d := range all {
		t.row(d.Handle, s.state(d.State), s.when(d.ExpiresAt), d.StoredIn)
	}
	if err := s.print(t); err != nil {
		return err
	}
	for _, d := range all {
		if d.Remedy != "" {
			fmt.Fprintln(s.out)
			s.say(cell(d.Handle) + ": " + plain(d.Reason) + " " + plain(d.Remedy))
		}
	}
	return nil
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
