package embeddedgateway

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// described is what an agent says of itself, as far as its protocol has words
// for it.
type described struct{ name, owner string }

// describe reads what is stored of an agent. It depends on nothing else: agents
// are found by it.
func describe(a store.Agent) described {
	switch a.Protocol {
	case wire.LithtrixName:
		_, owner, _ := strings.Cut(a.Name, "/")
		return described{a.DisplayName, owner}
	case wire.LuminaName: // its id is all that it is called
		return described{}
	case wire.AgentDoorName:
		said := metadata(a.Attrs[agentDoorMetadata])
		return described{
			cmp.Or(said["name"], said["agent_name"]),
			cmp.Or(said["owner"], said["email"], said["contact"]),
		}
	}
	return described{a.DisplayName, a.Attrs["owner"]}
}

// metadata returns the texts in the metadata of an agent of AgentDoor.
func metadata(text string) map[string]string {
	var said map[string]any
	if text == "" || json.Unmarshal([]byte(text), &said) != nil {
		return nil
	}
	texts := map[string]string{}
	for name, value := range said {
		if text, ok := value.(string); ok {
			texts[name] = text
		}
	}
	return texts
}

// findBy is what an agent is found by beside its id and its display name.
func findBy(a store.Agent) []string {
	d := describe(a)
	texts := []string{d.name, d.owner}
	if a.Protocol == wire.LithtrixName {
		texts = append(texts, a.Attrs[lithtrixAgentID])
	}
	return texts
}

// claims are the kinds of credentials that nobody authenticates with: what they
// say is that something is one agent's.
func claims(protocol string) []string {
	switch protocol {
	case wire.AgentDoorName:
		return []string{agentDoorIdentity}
	case wire.FluxraName:
		return []string{fluxraEmail}
	}
	return nil
}

func isClaim(c store.Credential) bool { return slices.Contains(claims(c.Protocol), c.Kind) }

// info is an agent in a list.
func info(a store.Agent) AgentInfo {
	d := describe(a)
	one := AgentInfo{
		Protocol: a.Protocol, Agent: a.Name, Name: d.name, Owner: d.owner, State: stateActive,
		CreatedAt: a.CreatedAt, SuspendedAt: a.DisabledAt,
	}
	if !a.DisabledAt.IsZero() {
		one.State = stateSuspended
	}
	return one
}

// attrs is what a protocol keeps of an agent.
func attrs(a store.Agent) map[string]string {
	kept := maps.Clone(a.Attrs)
	maps.DeleteFunc(kept, func(_, value string) bool { return value == "" })
	if kept == nil {
		kept = map[string]string{}
	}
	return kept
}
