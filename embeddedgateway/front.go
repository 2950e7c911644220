package embeddedgateway

import (
	"net/url"
	"time"
)

// Front is what stands behind the gateway: an API that knows nothing of agents,
// to which only agents that are registered here get through.
type Front struct {
	// Upstream is the base URL of the API that requests are passed on to. Nil:
	// none; somebody else's proxy asks at /.enlist/verify.
	Upstream *url.URL
	// Rules say which scopes a request needs. Of those that match, the one with
	// the longest path counts. A request that none matches needs no scope.
	Rules []Rule
	// AgentLimit is how often an agent, KeyLimit how often a key may ask, in all
	// gateways over the database together. A zero Rate does not limit.
	AgentLimit, KeyLimit Rate
	// MaxBody is how many bytes a request to the API may have. 0: 10 MiB.
	MaxBody int64
	// Timeout is how long the API may take until its answer begins. 0: 30 s.
	Timeout time.Duration
}

// Rule guards a part of an API.
type Rule struct {
	Methods []string // such as GET; none: all
	Path    string   // a prefix that ends between two segments: /reports guards /reports and /reports/7, not /reportsx
	Scopes  []string // what a caller must have been granted, all of them; none: nothing but to be registered
}

// Rate is how often something may happen in how long.
type Rate struct {
	N   int
	Per time.Duration
}

// Caller is an agent that makes a request with a credential of its own.
type Caller struct {
	Protocol string
	Agent    string // its id among the agents of the protocol
	Scopes   []string
	KeyID    string // the public part of the credential

	AgentID      int64 // of the agent in the store
	CredentialID int64 // of the credential in the store; 0: a JSON Web Token that hangs on no key
}

// String returns the name of the caller that is its own among all protocols:
// protocol/agent.
func (c Caller) String() string { return c.Protocol + "/" + c.Agent }
