package embeddedgateway

import (
	"encoding/json"
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
	// Search finds agents whose name, id or owner begins with it, or whose email
	// it is, case ignored. (Of an email only what is hashed can be searched, so
	// it must be whole.)
	Search string
	After  string // Next of the page before
	Limit  int    // 0: 50; at most 500
}

// AgentPage is a page of agents: the newest first, or in the order of what they
// were found by.
type AgentPage struct {
	Agents []AgentInfo `json:"agents"`
	Next   string      `json:"next,omitempty"` // "": this is the last page
}

// AgentInfo is an agent in a list. Nothing of it is secret.
type AgentInfo struct {
	Protocol    string    `json:"protocol"`
	Agent       string    `json:"agent"` // its id within the protocol
	Name        string    `json:"name"`  // what it calls itself; "": its id is all
	Owner       string    `json:"owner,omitempty"`
	Email       string    `json:"email,omitempty"` // only where it is verified
	State       string    `json:"state"`           // "active" or "suspended"
	CreatedAt   time.Time `json:"created_at"`
	SuspendedAt time.Time `json:"suspended_at,omitzero"` // zero: it is not
}

// AgentDetail is all that is known of one agent.
type AgentDetail struct {
	AgentInfo
	Attrs  map[string]string `json:"attrs"`  // what the protocol keeps, without what is secret
	Keys   []KeyInfo         `json:"keys"`   // the newest first, at most 100: rather active ones than others
	Limits []LimitInfo       `json:"limits"` // as far as this process counts them
	Events []store.Event     `json:"events"` // the newest first, at most 100
}

// KeyInfo is a credential of an agent: all but its secret.
type KeyInfo struct {
	KeyID      string    `json:"key_id"`
	Kind       string    `json:"kind"` // what it is for, where a protocol has several
	Label      string    `json:"label,omitempty"`
	Scopes     []string  `json:"scopes"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`   // zero: never
	RevokedAt  time.Time `json:"revoked_at,omitzero"`   // zero: it is not
	LastUsedAt time.Time `json:"last_used_at,omitzero"` // zero: never
	State      string    `json:"state"`                 // "active", "expired" or "revoked"
}

// LimitInfo is how much of a limit is used up.
type LimitInfo struct {
	Name  string // what is limited: "requests of the agent"
	Limit int
	Per   time.Duration
	Used  int
}

// MarshalJSON implements [json.Marshaler].
func (l LimitInfo) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name    string  `json:"name"`
		Limit   int     `json:"limit"`
		Seconds float64 `json:"per_seconds"`
		Used    int     `json:"used"`
	}{l.Name, l.Limit, l.Per.Seconds(), l.Used})
}

// InviteInfo is an invite that was handed out: all but its code.
type InviteInfo struct {
	Protocol  string    `json:"protocol"`
	Agent     string    `json:"agent"` // who it is for
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
	UsedAt    time.Time `json:"used_at,omitzero"`    // zero: not
	State     string    `json:"state"`               // "open", "used" or "expired"
}

// InviteQuery chooses invites.
type InviteQuery struct {
	After string // Next of the page before
	Limit int    // 0: 50; at most 500
}

// InvitePage is a page of invites, the newest first.
type InvitePage struct {
	Invites []InviteInfo `json:"invites"`
	Next    string       `json:"next,omitempty"` // "": this is the last page
}

// Numbers is how a gateway is doing.
type Numbers struct {
	At        time.Time         `json:"at"`
	Protocols []ProtocolNumbers `json:"protocols"` // as they were counted a while ago
	// Minutes is what happened in each of the last 60 minutes, the oldest first.
	Minutes []MinuteNumbers `json:"minutes"`
	Mail    int             `json:"mail"` // letters that wait, counted up to 10,000
}

// ProtocolNumbers counts what one protocol has.
type ProtocolNumbers struct {
	Protocol  string `json:"protocol"`
	Agents    int    `json:"agents"`    // in all
	Suspended int    `json:"suspended"` // of those
	Active    int    `json:"active"`    // keys that are active
}

// MinuteNumbers counts what happened in a minute, from the audit trail and the
// gateway's own counts.
type MinuteNumbers struct {
	At         time.Time `json:"at"`
	Registered int       `json:"registered"`
	Refused    int       `json:"refused"`
	Requests   int       `json:"requests"` // to this process
}
