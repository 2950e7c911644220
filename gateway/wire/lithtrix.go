package wire

import "strings"

// Where Lithtrix lives (seed) and what its routes are called (the first one is
// in the seed, the others in the service's other documents).
const (
	LithtrixName             = "lithtrix"
	LithtrixOrigin           = "https://lithtrix.ai"
	LithtrixRegisterPath     = "/v1/register"
	LithtrixRotatePath       = "/v1/keys/rotate"
	LithtrixMePath           = "/v1/me"
	LithtrixCapabilitiesPath = "/v1/capabilities"
	LithtrixBillingPath      = "/v1/billing"
)

// LithtrixHeader carries the key, as a bearer token.
const LithtrixHeader = "Authorization"

// Lithtrix's error codes. AGENT_ALREADY_EXISTS is in the seed, the next two in
// the service's other documents; the last three are Enlist's choice.
const (
	LithtrixAgentExists = "AGENT_ALREADY_EXISTS" // 409: the pair of agent_name and owner_identifier is known
	LithtrixInvalidKey  = "INVALID_API_KEY"      // 401
	LithtrixRateLimited = "RATE_LIMIT_EXCEEDED"  // 429
	LithtrixInvalid     = "VALIDATION_ERROR"     // 400; 405, 413 and 415 too
	LithtrixNotFound    = "NOT_FOUND"            // 404: no such route
	LithtrixInternal    = "INTERNAL_ERROR"       // 500, 503
)

// What Lithtrix says of an account that nobody pays for, and of a key.
const (
	LithtrixFreeTier  = "free"
	LithtrixFreeCalls = 300
	LithtrixFreeRate  = "60 requests/min"
	LithtrixKeepKey   = "Store this key securely. It cannot be retrieved again."
)

const (
	lithtrixPrefix   = "ltx_"
	lithtrixMaxOwner = 255 // characters
)

var (
	lithtrixAgentName = NewPattern(`^[A-Za-z0-9_-]{1,100}$`)
	// 8 characters are as many as the documentation's own example has.
	lithtrixShape = NewPattern(`ltx_[A-Za-z0-9_-]{8,}`)
)

// Lithtrix describes the protocol of Lithtrix.
func Lithtrix() Protocol {
	return Protocol{
		Name:   LithtrixName,
		Origin: LithtrixOrigin,
		Reserved: []Route{
			{Path: LithtrixRegisterPath, Tool: "lithtrix_register_agent"},
			{Path: "/v1/keys*", Tool: "rotate_credential"},
		},
		Headers: []string{LithtrixHeader},
		Shapes:  []Shape{{Pattern: lithtrixShape, Mask: lithtrixPrefix + "…"}},
	}
}

// LithtrixRegisterRequest is the body of a POST to [LithtrixRegisterPath].
type LithtrixRegisterRequest struct {
	AgentName       string `json:"agent_name"`
	OwnerIdentifier string `json:"owner_identifier"`
	// AgreeToTerms is what the person decided; nil: nobody was asked. The seed
	// does not have it, newer services want it to be true.
	AgreeToTerms *bool `json:"agree_to_terms,omitzero"`
}

// LithtrixKey is what a POST to [LithtrixRegisterPath] or [LithtrixRotatePath]
// answers. APIKey is returned this once.
type LithtrixKey struct {
	APIKey  string `json:"api_key"`
	AgentID string `json:"agent_id"`
	Message string `json:"message"`
}

// LithtrixMe is what a GET of [LithtrixMePath] answers.
type LithtrixMe struct {
	AgentID         string `json:"agent_id"`
	AgentName       string `json:"agent_name"`
	OwnerIdentifier string `json:"owner_identifier"`
	Tier            string `json:"tier"`
}

// LithtrixCapabilities is what a GET of [LithtrixCapabilitiesPath] answers.
type LithtrixCapabilities struct {
	Service    string             `json:"service"`
	Version    string             `json:"version"`
	Endpoints  map[string]string  `json:"endpoints"`
	RateLimits LithtrixRateLimits `json:"rate_limits"`
}

// LithtrixRateLimits is a part of [LithtrixCapabilities].
type LithtrixRateLimits struct {
	FreeTier string `json:"free_tier"`
}

// LithtrixBilling is what a GET of [LithtrixBillingPath] answers.
type LithtrixBilling struct {
	Tier             string  `json:"tier"`
	CallsTotal       int     `json:"calls_total"`
	CallLimit        int     `json:"call_limit"`
	OverLimit        bool    `json:"over_limit"`
	StripeCustomerID *string `json:"stripe_customer_id"`
}

// LithtrixError is the body of every error.
type LithtrixError struct {
	Status    string `json:"status"` // "error"
	ErrorCode string `json:"error_code"`
	Message   string `json:"message"`
}

// CheckLithtrixAgentName reports whether s can be an agent_name: 1 to 100 ASCII
// letters, digits, dashes and underscores.
func CheckLithtrixAgentName(s string) bool { return lithtrixAgentName.MatchString(s) }

// CheckLithtrixOwner reports whether s can be an owner_identifier: 1 to 255
// characters of valid UTF-8 without control characters.
func CheckLithtrixOwner(s string) bool {
	return s != "" && printable(s, lithtrixMaxOwner)
}

// FormatLithtrixKey puts a key together.
func FormatLithtrixKey(secret string) string { return lithtrixPrefix + secret }

// IsLithtrixKey reports whether text begins as every key does.
func IsLithtrixKey(text string) bool { return strings.HasPrefix(text, lithtrixPrefix) }
