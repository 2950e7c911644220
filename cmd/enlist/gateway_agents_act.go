package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// acted is what came of doing something to an agent.
type acted struct {
	Protocol string `json:"protocol"`
	Agent    string `json:"agent"`
	State    string `json:"state,omitempty"`
	Deleted  bool   `json:"deleted,omitempty"`
}

// agentAction is a command that does one thing to one agent.
type agentAction struct {
	name, short, long string
	do                func(*embeddedgateway.Gateway, context.Context, string, string) error
	result            acted
	said              string // with %s for the agent
}

func (p *program) agentActionCommand(database *string, a agentAction, before func(handle string) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     a.name + " PROTOCOL/AGENT",
		Short:   a.short,
		Long:    a.long,
		Example: "  enlist gateway agents " + a.name + " lona/my-agent",
		Args:    cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			protocol, agent, err := agentArg(args[0])
			if err != nil {
				return err
			}
			return p.actOn(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				if _, err := g.Agent(ctx, protocol, agent); err != nil {
					return unknownAgent(err, args[0], "")
				}
				if before != nil {
					if err := before(args[0]); err != nil {
						return err
					}
				}
				if err := a.do(g, ctx, protocol, agent); err != nil {
					return unknownAgent(err, args[0], "")
				}
				if asJSON {
					done := a.result
					done.Protocol, done.Agent = protocol, agent
					return printJSON(p.stdout, done)
				}
				p.screen().say(fmt.Sprintf(a.said, plain(args[0])))
				return nil
			})
		}),
	}
	fields := "an object: protocol, agent and state."
	if a.result.Deleted {
		fields = "an object: protocol, agent and deleted."
	}
	jsonFlag(cmd, &asJSON, fields)
	return cmd
}

func (p *program) gatewayAgentsSuspendCommand(database *string) *cobra.Command {
	return p.agentActionCommand(database, agentAction{
		name: "suspend", short: "End all that an agent was issued, and keep it from registering again",
		long: `End all that an agent was issued, on its very next request at every gateway over
the database, and keep its name, so that it cannot register again. To suspend it
once more changes nothing. With resume it may come back.`,
		do:     (*embeddedgateway.Gateway).Suspend,
		result: acted{State: "suspended"},
		said:   "%s is suspended: what it was issued has ended.",
	}, nil)
}

func (p *program) gatewayAgentsResumeCommand(database *string) *cobra.Command {
	return p.agentActionCommand(database, agentAction{
		name: "resume", short: "Let a suspended agent come back, without its old keys",
		long: `Let a suspended agent come back. Its keys stay revoked and its tokens stay over: it
gets others as its protocol has it. At Lumina it onboards again, at AgentDoor it
signs for a token, at Fluxra it recovers by its verified email, and at Lona it
registers with a registration secret (by invite it would have to show a token that
was not revoked, where AGENT_INVITE_REBIND is proof). Lithtrix has no way back, nor
Fluxra without an email: delete the agent, so that it can register anew.`,
		do:     (*embeddedgateway.Gateway).Resume,
		result: acted{State: "active"},
		said:   "%s may come back. Its keys stay revoked: it has to get others.",
	}, nil)
}

func (p *program) gatewayAgentsDeleteCommand(database *string) *cobra.Command {
	var yes bool
	cmd := p.agentActionCommand(database, agentAction{
		name: "delete", short: "Forget an agent with all that it was issued",
		long: `Forget an agent with all that it was issued. Its name is free then, for anybody;
only the audit trail still knows of it. There is no way back, so this asks on the
terminal first; --yes does not ask. To keep the name, suspend the agent instead.`,
		do:     (*embeddedgateway.Gateway).Delete,
		result: acted{Deleted: true},
		said:   "%s is deleted: what it was issued has ended, and its name is free.",
	}, func(handle string) error {
		if yes {
			return nil
		}
		typed, err := p.ask(fmt.Sprintf("All that %[1]s was issued will end, and its name will be free. Type %[1]s to delete it: ", plain(handle)),
			"--yes deletes without asking. Nothing was deleted")
		if err != nil {
			return err
		}
		if typed != handle {
			return errors.New("nothing was deleted: another word was typed")
		}
		return nil
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (p *program) gatewayAgentsRevokeKeyCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revoke-key PROTOCOL/AGENT KEY",
		Short: "End one key of an agent",
		Long: `End one key of an agent, on its very next request at every gateway over the
database, and with it the tokens that it was exchanged for. KEY is the key's id, as
enlist gateway agents show has it. An agent of AgentDoor gets tokens by its
signature: those that are out end too, and it can sign for another one; suspend the
agent to end that.`,
		Example: "  enlist gateway agents revoke-key lona/my-agent k7x2m4q9w5tz",
		Args:    cobra.ExactArgs(2),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			protocol, agent, err := agentArg(args[0])
			if err != nil {
				return err
			}
			return p.actOn(cmd, *database, func(ctx context.Context, g *embeddedgateway.Gateway) error {
				revoked, err := g.RevokeKey(ctx, protocol, agent, args[1])
				if err != nil {
					return unknownAgent(err, args[0], ", or it has no key "+plain(args[1]))
				}
				if asJSON {
					return printJSON(p.stdout, keyRevoked{protocol, agent, args[1], revoked})
				}
				said := "The key %s of %s has ended."
				if !revoked {
					said = "The key %s of %s had ended before."
				}
				p.screen().say(fmt.Sprintf(said, plain(args[1]), plain(args[0])))
				return nil
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: protocol, agent, key_id, and revoked: false if it was before.")
	return cmd
}

// keyRevoked is what came of ending a key.
type keyRevoked struct {
	Protocol string `json:"protocol"`
	Agent    string `json:"agent"`
	KeyID    string `json:"key_id"`
	Revoked  bool   `json:"revoked"`
}
