package embeddedgateway

import (
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// What an operator sees of a gateway and may do with it. The page, the JSON API
// and the command line are three ways to the same methods of [Gateway]:
//
//	Agents(ctx, AgentQuery) (AgentPage, error)
//	Agent(ctx, protocol, agent string) (AgentDetail, error)
//	Suspend, Resume, Delete(ctx, protocol, agent string) error
//	RevokeKey(ctx, protocol, agent, keyID string) (revoked bool, err error)
//	Invites(ctx, InviteQuery) (InvitePage, error)
//	Numbers(ctx) (Numbers, error)
//	Audit(ctx, store.EventQuery), Outbox(ctx): as they are

// AgentQuery chooses agents. A field that is empty chooses all.
type AgentQuery struct {
	Protocol string
	State    string // "active" or "suspended"
	// Search finds agents whose name, id, owner or email begins with it, case
	// ignored.
	Search string
	After  string // Next of the page before
	Limit  int    // 0: 50; at most 500
}

// AgentPage is a page of agents, the newest first.
type AgentPage struct {
	Agents []AgentInfo
	Next   string // "": this is the last page
}

// AgentInfo is an agent in a list. Nothing of it is secret.
type AgentInfo struct {
	Protocol    string
	Agent       string // its id within the protocol
	Name        string // what it calls itself
	Owner       string // "": unknown
	Email       string // "": none; only where it is verified
	CreatedAt   time.Time
	SuspendedAt time.Time // zero: it is not
}

// AgentDetail is all that is known of one agent.
type AgentDetail struct {
	AgentInfo
	Attrs  map[string]string // what the protocol keeps, without what is secret
	Keys   []KeyInfo         // the newest first, at most 100
	Limits []LimitInfo
	Events []store.Event // the newest first, at most 100
}

// KeyInfo is a credential of an agent: all but its secret.
type KeyInfo struct {
	KeyID, Kind, Label string
	Scopes             []string
	CreatedAt          time.Time
	ExpiresAt          time.Time // zero: never
	RevokedAt          time.Time // zero: it is not
	LastUsedAt         time.Time // zero: never
	State              string    // "active", "expired" or "revoked"
}

// LimitInfo is how much of a limit is used up.
type LimitInfo struct {
	Name  string // what is limited: "requests of the agent"
	Limit int
	Per   time.Duration
	Used  int
}

// InviteInfo is an invite that was handed out: all but its code.
type InviteInfo struct {
	Protocol, Agent string // who it is for
	CreatedAt       time.Time
	ExpiresAt       time.Time
	UsedAt          time.Time // zero: not
	State           string    // "open", "used" or "expired"
}

// InviteQuery chooses invites.
type InviteQuery struct {
	After string // Next of the page before
	Limit int    // 0: 50; at most 500
}

// InvitePage is a page of invites, the newest first.
type InvitePage struct {
	Invites []InviteInfo
	Next    string // "": this is the last page
}

// Numbers is how a gateway is doing.
type Numbers struct {
	At        time.Time
	Protocols []ProtocolNumbers
	// Minutes is what happened in each of the last 60 minutes, the oldest first.
	Minutes []MinuteNumbers
	Mail    int // letters that wait
}

// ProtocolNumbers counts what one protocol has.
type ProtocolNumbers struct {
	Protocol                  string
	Agents, Suspended, Active int // agents in all, those suspended, keys that are active
}

// MinuteNumbers counts what happened in a minute, from the audit trail and the
// gateway's own counts.
type MinuteNumbers struct {
	At                            time.Time
	Registered, Refused, Requests int
}
