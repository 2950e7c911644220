package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// demoAgent is what the agent of the tour is called wherever it may choose.
const demoAgent = "my-agent"

// step is one tool call of the tour.
type step struct {
	title, tool string
	arguments   map[string]any
	lines       int // so many are printed; 0: all
}

// tour is the story: one chapter a protocol, the simplest first, and then what
// the agent knows of it all.
func (d *demo) tour(ctx context.Context) error {
	d.page.intro(d.origin)
	for _, chapter := range []struct {
		title, about string
		tell         func(context.Context) error
	}{
		{"Lona", "an invite, then a token for 30 days", d.lona},
		{"Lithtrix", "open to anyone, one key an agent", d.lithtrix},
		{"AgentDoor", "any service may speak it; a key pair is the identity", d.agentDoor},
		{"Fluxra", "a recovery key, an API key and a token, and mail", d.fluxra},
		{"Lumina", "the signature of an Ethereum wallet", d.lumina},
	} {
		d.page.chapter(chapter.title, chapter.about)
		if err := chapter.tell(ctx); err != nil {
			return err
		}
		d.toured.Protocols++
	}
	d.page.chapter("All five", "what is left when the agent comes back tomorrow")
	if err := d.steps(ctx, step{title: "What the agent knows of its accounts", tool: "list_credentials"}); err != nil {
		return err
	}
	d.verdict()
	return nil
}

// steps makes tool calls one after the other.
func (d *demo) steps(ctx context.Context, steps ...step) error {
	for _, s := range steps {
		if _, err := d.call(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) lona(ctx context.Context) error {
	if err := d.steps(ctx,
		step{title: "The agent signs itself up", tool: "lona_register_agent", arguments: map[string]any{"agent_id": demoAgent, "agent_name": "My Agent"}},
		step{title: "It uses the account, without holding the key", tool: "lona_list_strategies"},
	); err != nil {
		return err
	}
	old := d.wire.lastKey()
	if err := d.steps(ctx, step{title: "It replaces its key", tool: "rotate_credential", arguments: of("lona/" + demoAgent)}); err != nil {
		return err
	}
	if err := d.stolen(ctx, demoAgent, old); err != nil {
		return err
	}
	return d.steps(ctx, step{title: "The new key works, and nothing had to be told", tool: "lona_list_strategies"})
}

// stolen uses the old token as somebody would who had copied it.
func (d *demo) stolen(ctx context.Context, agent, token string) error {
	d.wire.forget()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.origin+wire.LonaStrategiesPath, nil)
	if err != nil {
		return err
	}
	req.Header.Set(wire.LonaKeyHeader, token)
	req.Header.Set(wire.LonaUserHeader, agent)
	resp, err := (&http.Client{Transport: d.wire}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.page.step("Somebody who had copied the old key is refused",
		[]string{"nothing: this request was made by", "the demo itself, with the old token", "that it read off the wire"}, d.wire.lines(), 0)
	if resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("the old token was not refused: HTTP %d", resp.StatusCode)
	}
	return nil
}

func (d *demo) lithtrix(ctx context.Context) error {
	return d.steps(ctx,
		step{title: "No proof is asked for", tool: "lithtrix_register_agent", arguments: map[string]any{"agent_name": demoAgent, "owner_identifier": "you@example.com"}},
		step{title: "Any route of the service, without the key", tool: "send_request", arguments: get("lithtrix/"+demoAgent, wire.LithtrixMePath)},
	)
}

func (d *demo) agentDoor(ctx context.Context) error {
	return d.steps(ctx,
		step{title: "What does a service that it never heard of ask for?", tool: "discover_service", arguments: map[string]any{"url": d.origin}, lines: 34},
		step{title: "A key pair is made and stored, and signs a challenge", tool: "agentdoor_register_agent", arguments: map[string]any{"service_url": d.origin, "agent_name": "scout"}},
		step{title: "The token is sent, and renewed when it ends", tool: "send_request", arguments: get("agentdoor/scout", wire.AgentDoorWhoAmIPath)},
	)
}

// mailedToken finds the token of a verification in a letter.
var mailedToken = wire.NewPattern(`token=(evt_[A-Za-z0-9_-]+)`)

func (d *demo) fluxra(ctx context.Context) error {
	saw, err := d.call(ctx, step{
		title: "One call: the account, its API key, and a token for an hour", tool: "fluxra_register_agent",
		arguments: map[string]any{"agent_name": "weather-bot", "email": "bot@example.com"},
	})
	if err != nil {
		return err
	}
	agentID, _ := saw["agent_id"].(string)
	letters, err := d.gateway.Outbox(ctx)
	if err != nil {
		return err
	}
	if len(letters) != 1 {
		return fmt.Errorf("%d letters are in the outbox, not 1", len(letters))
	}
	token := mailedToken.FindStringSubmatch(letters[0].Text)
	if token == nil {
		return errors.New("there is no link in the letter")
	}
	d.page.letter(letters[0].To, letters[0].Subject)
	return d.steps(ctx,
		step{title: "The person opens the mail and tells the agent its token, which works once", tool: "fluxra_verify_email", arguments: map[string]any{"token": token[1]}},
		step{title: "Its keys, without the keys", tool: "send_request", arguments: get("fluxra/weather-bot", wire.FluxraAgentPath(agentID))},
	)
}

func (d *demo) lumina(ctx context.Context) error {
	return d.steps(ctx,
		step{title: "A wallet is made and stored, and signs for a key", tool: "lumina_register_agent", arguments: map[string]any{"label": "spot-arb-1"}},
		step{title: "The wallet's keys, of which it may have three", tool: "send_request", arguments: get("lumina/spot-arb-1", wire.LuminaKeysPath)},
		step{title: "A key ends at once", tool: "revoke_credential", arguments: of("lumina/spot-arb-1")},
	)
}

// of is the arguments of a tool that takes nothing but a credential.
func of(credential string) map[string]any { return map[string]any{"credential": credential} }

// get is the arguments of a send_request.
func get(credential, path string) map[string]any {
	return map[string]any{"credential": credential, "method": http.MethodGet, "path": path}
}
