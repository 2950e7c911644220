package wire

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// How AgentDoor's routes are called. It is a protocol and not one service, so
// it has no fixed origin; the first two are in the seed, the others in the
// protocol's other documents. A service may call its endpoints otherwise: a
// client takes them from the discovery document.
const (
	AgentDoorName          = "agentdoor"
	AgentDoorDiscoveryPath = "/.well-known/agentdoor.json"
	AgentDoorRegisterPath  = "/agentdoor/register"
	AgentDoorVerifyPath    = "/agentdoor/register/verify"
	AgentDoorAuthPath      = "/agentdoor/auth"
	AgentDoorHealthPath    = "/agentdoor/health"

	// AgentDoorWhoAmIPath is Enlist's choice: what a credential is good for
	// while the gateway stands in front of no API.
	AgentDoorWhoAmIPath = "/whoami"

	// AgentDoorVerifySuffix is what the protocol's own SDK appends to the
	// registration endpoint.
	AgentDoorVerifySuffix = "/verify"
)

// AgentDoorHeader carries the JWT or the API key, as a bearer token.
const AgentDoorHeader = "Authorization"

// The version of the protocol, and the header that names it.
const (
	AgentDoorVersion       = "1.0"
	AgentDoorVersionHeader = "X-AgentDoor-Version"
)

// AgentDoor's error codes. Live servers also write them in upper case.
const (
	AgentDoorInvalidRequest    = "invalid_request"     // 400 (seed); 405, 413 and 415 too
	AgentDoorInvalidScopes     = "invalid_scopes"      // 400 (seed), with available_scopes
	AgentDoorAlreadyRegistered = "already_registered"  // 409 (seed), with agent_id
	AgentDoorRateLimited       = "rate_limit_exceeded" // 429 (seed), with retry_after
	AgentDoorInvalidSignature  = "invalid_signature"   // 400 at verify (seed), 401 at auth
	AgentDoorNotFound          = "not_found"           // 404 (seed)
	AgentDoorChallengeExpired  = "challenge_expired"   // 410 (seed)
	AgentDoorTimestampInvalid  = "timestamp_invalid"   // 400
	AgentDoorAgentNotFound     = "agent_not_found"     // 404
	AgentDoorAgentInactive     = "agent_inactive"      // 403
	AgentDoorUnauthorized      = "unauthorized"        // 401: Enlist's choice
	AgentDoorForbidden         = "insufficient_scope"  // 403: Enlist's choice
	AgentDoorInternal          = "internal_error"      // 500, 503: Enlist's choice

	// AgentDoorDuplicateAgent is what live servers answer at verify, with 409
	// and without an agent_id, for a second pending challenge of one key.
	AgentDoorDuplicateAgent = "DUPLICATE_AGENT"
)

// AgentDoor's numbers, in seconds: how long a challenge (seed) and a JWT live,
// and how far off a timestamp may be, either way.
const (
	AgentDoorChallengeSeconds = 300
	AgentDoorTokenSeconds     = 3600
	AgentDoorWindowSeconds    = 300
)

// AgentDoorAccess is the scope of a gateway that was given none.
const AgentDoorAccess = "api.access"

const (
	agentDoorAgentPrefix = "ag_"
	agentDoorLivePrefix  = "agk_live_"
	agentDoorTestPrefix  = "agk_test_"

	agentDoorMaxName        = 100
	agentDoorKeyBytes       = 32
	agentDoorSignatureBytes = 64
)

var (
	agentDoorKeyShape = NewPattern(`(agk_(?:live|test)_)[A-Za-z0-9_-]{16,}`)
	agentDoorAgentID  = NewPattern(`^ag_[A-Za-z0-9_-]{1,64}$`)
)

// AgentDoor describes the AgentDoor protocol.
func AgentDoor() Protocol {
	return Protocol{
		Name:     AgentDoorName,
		Anywhere: true,
		// Tokens are renewed without a tool.
		Reserved: []Route{{Path: "/agentdoor/*", Tool: "agentdoor_register_agent"}},
		Headers:  []string{AgentDoorHeader},
		Shapes: []Shape{
			{Pattern: agentDoorKeyShape, Mask: "${1}…"},
			JWTShape(),
		},
	}
}

// AgentDoorChallengeMessage is what is signed to register (seed). issued is
// Unix time in seconds.
func AgentDoorChallengeMessage(agentID string, issued int64, nonce string) string {
	return fmt.Sprintf("agentdoor:register:%s:%d:%s", agentID, issued, nonce)
}

// AgentDoorAuthMessage is what is signed to get a JWT. timestamp is spelled as
// it is sent.
func AgentDoorAuthMessage(agentID, timestamp string) string {
	return "agentdoor:auth:" + agentID + ":" + timestamp
}

// FormatAgentDoorAgentID puts an agent's id together of 21 URL-safe characters.
func FormatAgentDoorAgentID(id string) string { return agentDoorAgentPrefix + id }

// FormatAgentDoorKey puts an API key together. test: it is for trying out.
func FormatAgentDoorKey(secret string, test bool) string {
	if test {
		return agentDoorTestPrefix + secret
	}
	return agentDoorLivePrefix + secret
}

// IsAgentDoorKey reports whether text begins as every API key does.
func IsAgentDoorKey(text string) bool {
	return strings.HasPrefix(text, agentDoorLivePrefix) || strings.HasPrefix(text, agentDoorTestPrefix)
}

// CheckAgentDoorAgentID reports whether s has the form of an agent_id.
func CheckAgentDoorAgentID(s string) bool { return agentDoorAgentID.MatchString(s) }

// CheckAgentDoorName reports whether s can name an agent here: 1 to 100
// characters of valid UTF-8 without control characters.
func CheckAgentDoorName(s string) bool { return s != "" && printable(s, agentDoorMaxName) }

// DecodeAgentDoorKey decodes a public key: standard base64, padded, of exactly
// 32 bytes. It says nothing about which point it is.
func DecodeAgentDoorKey(s string) (key []byte, ok bool) { return sized(s, agentDoorKeyBytes) }

// DecodeAgentDoorSignature decodes a signature: standard base64, padded, of
// exactly 64 bytes.
func DecodeAgentDoorSignature(s string) (signature []byte, ok bool) {
	return sized(s, agentDoorSignatureBytes)
}

// sized decodes strict standard base64 of n bytes. The line breaks that the
// decoder would skip are not taken.
func sized(s string, n int) ([]byte, bool) {
	if len(s) != base64.StdEncoding.EncodedLen(n) {
		return nil, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	return raw, err == nil && len(raw) == n
}

// AgentDoorDiscovery is what a GET of [AgentDoorDiscoveryPath] answers.
type AgentDoorDiscovery struct {
	Version              string              `json:"agentdoor_version"`
	ServiceName          string              `json:"service_name"`
	ServiceDescription   string              `json:"service_description"`
	RegistrationEndpoint string              `json:"registration_endpoint"` // a path
	AuthEndpoint         string              `json:"auth_endpoint"`         // a path
	ScopesAvailable      []AgentDoorScope    `json:"scopes_available"`
	AuthMethods          []string            `json:"auth_methods"`
	RateLimits           AgentDoorRateLimits `json:"rate_limits"`
	CompanionProtocols   map[string]any      `json:"companion_protocols"`
	Payment              *AgentDoorPayment   `json:"payment,omitzero"`
}

// AgentDoorScope is one thing that an agent may be allowed.
type AgentDoorScope struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Price       string `json:"price,omitzero"`      // "": it costs nothing
	RateLimit   string `json:"rate_limit,omitzero"` // as in 1000/1h
}

// AgentDoorRateLimits is a part of [AgentDoorDiscovery], each as in 10/1h.
type AgentDoorRateLimits struct {
	Registration string `json:"registration"`
	Default      string `json:"default"`
}

// AgentDoorPayment says how a service wants to be paid.
type AgentDoorPayment struct {
	Protocol string   `json:"protocol"` // "x402"
	Version  string   `json:"version"`
	Networks []string `json:"networks"`
	Currency []string `json:"currency"`
}

// AgentDoorRegisterRequest is the body of a POST to [AgentDoorRegisterPath].
type AgentDoorRegisterRequest struct {
	PublicKey       string         `json:"public_key"` // base64 of 32 bytes
	ScopesRequested []string       `json:"scopes_requested"`
	X402Wallet      string         `json:"x402_wallet,omitzero"`
	Metadata        map[string]any `json:"metadata,omitzero"`
}

// AgentDoorPending is what a POST to [AgentDoorRegisterPath] answers.
type AgentDoorPending struct {
	AgentID   string             `json:"agent_id"`
	Challenge AgentDoorChallenge `json:"challenge"`
}

// AgentDoorChallenge is what is to be signed.
type AgentDoorChallenge struct {
	Nonce     string    `json:"nonce"` // opaque
	Message   string    `json:"message"`
	ExpiresAt MilliTime `json:"expires_at"`
}

// AgentDoorVerifyRequest is the body of a POST to [AgentDoorVerifyPath].
type AgentDoorVerifyRequest struct {
	AgentID   string `json:"agent_id"`
	Signature string `json:"signature"` // base64 of 64 bytes
}

// AgentDoorRegistered is what a POST to [AgentDoorVerifyPath] answers. APIKey
// is returned this once.
type AgentDoorRegistered struct {
	AgentID        string             `json:"agent_id"`
	APIKey         string             `json:"api_key"`
	ScopesGranted  []string           `json:"scopes_granted"`
	Token          string             `json:"token"`
	TokenExpiresAt MilliTime          `json:"token_expires_at"`
	RateLimit      AgentDoorRateLimit `json:"rate_limit"`
	X402           *AgentDoorX402     `json:"x402,omitzero"`
}

// AgentDoorRateLimit is how many requests an agent may make in a window such as
// 1h.
type AgentDoorRateLimit struct {
	Requests int    `json:"requests"`
	Window   string `json:"window"`
}

// AgentDoorX402 says where payments go.
type AgentDoorX402 struct {
	PaymentAddress string `json:"payment_address"`
	Network        string `json:"network"`
	Currency       string `json:"currency"`
}

// AgentDoorAuthRequest is the body of a POST to [AgentDoorAuthPath].
type AgentDoorAuthRequest struct {
	AgentID   string `json:"agent_id"`
	Timestamp string `json:"timestamp"` // ISO 8601, the exact string that was signed
	Signature string `json:"signature"` // base64 of 64 bytes
}

// AgentDoorToken is what a POST to [AgentDoorAuthPath] answers.
type AgentDoorToken struct {
	Token     string    `json:"token"`
	ExpiresAt MilliTime `json:"expires_at"`
}

// AgentDoorHealth is what a GET of [AgentDoorHealthPath] answers.
type AgentDoorHealth struct {
	Status string `json:"status"` // "healthy"
}

// AgentDoorWhoAmI is what a GET of [AgentDoorWhoAmIPath] answers.
type AgentDoorWhoAmI struct {
	AgentID string   `json:"agent_id"`
	Scopes  []string `json:"scopes"`
}

// AgentDoorError is the body of every error. Which of the last three are there
// depends on the code.
type AgentDoorError struct {
	Error           string   `json:"error"`
	Message         string   `json:"message"`
	AgentID         string   `json:"agent_id,omitzero"`
	AvailableScopes []string `json:"available_scopes,omitzero"`
	RetryAfter      int      `json:"retry_after,omitzero"` // seconds
}
