package wire

import (
	"net/url"
	"strings"
)

// Where Fluxra lives and what its routes are called (seed; those of the agents
// API and the health check are in the service's other documents, the deletion
// of a key is Enlist's choice).
const (
	FluxraName                = "fluxra"
	FluxraOrigin              = "https://chat.tryfluxra.com"
	FluxraRegisterPath        = "/api/auth/register"
	FluxraVerifyEmailPath     = "/api/auth/verify-email"
	FluxraResendPath          = "/api/auth/verification/resend"
	FluxraTokenPath           = "/api/auth/token" //nolint:gosec // a path
	FluxraRefreshPath         = "/api/auth/refresh"
	FluxraLogoutPath          = "/api/auth/logout"
	FluxraRecoveryRequestPath = "/api/auth/recovery/request"
	FluxraRecoveryVerifyPath  = "/api/auth/recovery/verify"
	FluxraAgentsPath          = "/api/agents" // with /{agent_id}, and /keys/{key_id} behind it
	FluxraHealthPath          = "/health"
)

// FluxraHeader carries every credential: Basic agent_id:recovery_key, Basic
// agent_id:api_key, or a bearer token.
const FluxraHeader = "Authorization"

// Fluxra's error codes.
const (
	FluxraInvalidAgentName = "INVALID_AGENT_NAME"  // 400
	FluxraInvalidRequest   = "INVALID_REQUEST"     // 400; 405, 413 and 415 too
	FluxraInvalidEmail     = "INVALID_EMAIL"       // 400
	FluxraInvalidAgentID   = "INVALID_AGENT_ID"    // 400
	FluxraInvalidKeyName   = "INVALID_KEY_NAME"    // 400
	FluxraUnauthorized     = "UNAUTHORIZED"        // 401
	FluxraInvalidToken     = "INVALID_TOKEN"       // 401: of a verification or recovery
	FluxraForbidden        = "FORBIDDEN"           // 403
	FluxraNotFound         = "NOT_FOUND"           // 404
	FluxraCodeUsed         = "CODE_ALREADY_USED"   // 409
	FluxraRateLimited      = "RATE_LIMIT_EXCEEDED" // 429
	FluxraInternal         = "INTERNAL_ERROR"      // 500
	FluxraUnavailable      = "SERVICE_UNAVAILABLE" // 503
)

// Fluxra's numbers: how long a JWT, a verification token and a recovery code
// live, in seconds (seed).
const (
	FluxraTokenSeconds        = 3600
	FluxraVerificationSeconds = 3600
	FluxraRecoverySeconds     = 900
)

// What Fluxra says in its answers (seed).
const (
	FluxraWarning   = "Save recovery_key securely. It will NOT be shown again."
	FluxraVerified  = "Email verified successfully."
	FluxraResent    = "If an account with this email exists and is unverified, a verification message was sent."
	FluxraRevoked   = "Token revoked successfully."
	FluxraRequested = "If an agent is registered with this email, a recovery code will be sent."
	FluxraRecovered = "Recovery key reset successfully. Save the new recovery key securely."
	FluxraHealthy   = "healthy"
	FluxraGrant     = "client_credentials"
	FluxraBearer    = "Bearer"
)

// The headers of the answer to a request for a recovery code (seed). Reset is
// Unix time in seconds.
const (
	FluxraIPLimit        = "X-RateLimit-IP-Limit"
	FluxraIPRemaining    = "X-RateLimit-IP-Remaining"
	FluxraIPReset        = "X-RateLimit-IP-Reset"
	FluxraEmailLimit     = "X-RateLimit-Email-Limit"
	FluxraEmailRemaining = "X-RateLimit-Email-Remaining"
	FluxraEmailReset     = "X-RateLimit-Email-Reset"
)

const (
	fluxraAgentPrefix    = "agt_"
	fluxraKeyIDPrefix    = "aky_"
	fluxraRecoveryPrefix = "rk_"
	fluxraKeyPrefix      = "sk_"
	fluxraMailPrefix     = "evt_"

	fluxraMaxEmail    = 254 // characters, RFC 5321
	fluxraMaxMetadata = 500
	fluxraMaxKeyName  = 100
)

var (
	fluxraAgentName = NewPattern(`^[a-zA-Z0-9-]{3,50}$`) // seed
	fluxraAgentID   = NewPattern(`^agt_[0-9a-f]{32}$`)
	fluxraCode      = NewPattern(`^[0-9]{6}$`)
	// Only where a word begins: "risk_management_parameters" is no secret.
	fluxraRecoveryShape = NewPattern(`\brk_[A-Za-z0-9_-]{16,}`)
	fluxraKeyShape      = NewPattern(`\bsk_[A-Za-z0-9_-]{16,}`)
	fluxraMailShape     = NewPattern(`\bevt_[A-Za-z0-9_-]{16,}`)
)

// Fluxra describes the protocol of Fluxra.
func Fluxra() Protocol {
	return Protocol{
		Name:   FluxraName,
		Origin: FluxraOrigin,
		Reserved: []Route{
			{Path: FluxraRegisterPath, Tool: "fluxra_register_agent"},
			{Path: FluxraVerifyEmailPath, Tool: "fluxra_verify_email"},
			{Path: FluxraResendPath, Tool: "fluxra_verify_email"},
			{Path: "/api/auth/recovery/*", Tool: "fluxra_recover_account"},
			{Path: FluxraLogoutPath, Tool: "revoke_credential"},
			{Path: "/api/auth/*", Tool: "rotate_credential"},
			{Method: "POST", Path: FluxraAgentsPath + "/*", Tool: "rotate_credential"},
			{Method: "DELETE", Path: FluxraAgentsPath + "/*", Tool: "revoke_credential"},
		},
		Headers: []string{FluxraHeader},
		Shapes: []Shape{
			{Pattern: fluxraRecoveryShape, Mask: fluxraRecoveryPrefix + "…"},
			{Pattern: fluxraKeyShape, Mask: fluxraKeyPrefix + "…"},
			{Pattern: fluxraMailShape, Mask: fluxraMailPrefix + "…"},
			JWTShape(),
		},
	}
}

// FluxraScopes are the scopes that a key has unless it is asked for others.
func FluxraScopes() []string {
	return []string{"messages:read", "messages:write", "conversations:read", "presence:update"}
}

// FormatFluxraAgentID puts an agent's id together of 32 hex digits, and the
// other four what they are called after of what was drawn for them.
func FormatFluxraAgentID(hex string) string { return fluxraAgentPrefix + hex }

// FormatFluxraKeyID puts the public name of an API key together.
func FormatFluxraKeyID(id string) string { return fluxraKeyIDPrefix + id }

// FormatFluxraRecoveryKey puts a recovery key together.
func FormatFluxraRecoveryKey(secret string) string { return fluxraRecoveryPrefix + secret }

// FormatFluxraKey puts an API key together.
func FormatFluxraKey(secret string) string { return fluxraKeyPrefix + secret }

// IsFluxraKey reports whether text begins as every API key does.
func IsFluxraKey(text string) bool { return strings.HasPrefix(text, fluxraKeyPrefix) }

// FormatFluxraMailToken puts the token of a verification together.
func FormatFluxraMailToken(secret string) string { return fluxraMailPrefix + secret }

// CheckFluxraAgentName reports whether s can be an agent_name: 3 to 50 ASCII
// letters, digits and dashes (seed).
func CheckFluxraAgentName(s string) bool { return fluxraAgentName.MatchString(s) }

// CheckFluxraAgentID reports whether s has the form of an agent_id.
func CheckFluxraAgentID(s string) bool { return fluxraAgentID.MatchString(s) }

// CheckFluxraCode reports whether s has the form of a recovery code: six digits.
func CheckFluxraCode(s string) bool { return fluxraCode.MatchString(s) }

// CheckFluxraEmail reports whether s may be an email address as far as its
// length and characters go: printable ASCII or letters, no space, one or more
// characters on each side of its last @. Whoever sends mail parses it further.
func CheckFluxraEmail(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return printable(s, fluxraMaxEmail) && at > 0 && at < len(s)-1 && !strings.ContainsAny(s, " ,;<>\"\\")
}

// CheckFluxraKeyName reports whether s can be the name of an API key: 1 to 100
// printable characters.
func CheckFluxraKeyName(s string) bool { return s != "" && printable(s, fluxraMaxKeyName) }

// CheckFluxraMetadata reports whether s can be a value of the metadata: at most
// 500 printable characters.
func CheckFluxraMetadata(s string) bool { return printable(s, fluxraMaxMetadata) }

// FluxraAgentPath is the path of an agent: a POST makes an API key, a GET lists
// the keys.
func FluxraAgentPath(agentID string) string { return FluxraAgentsPath + "/" + url.PathEscape(agentID) }

// FluxraKeyPath is the path of one API key.
func FluxraKeyPath(agentID, keyID string) string {
	return FluxraAgentPath(agentID) + "/keys/" + url.PathEscape(keyID)
}

// FluxraRegisterRequest is the body of a POST to [FluxraRegisterPath].
type FluxraRegisterRequest struct {
	AgentName string          `json:"agent_name"`
	Email     string          `json:"email,omitzero"`
	Metadata  *FluxraMetadata `json:"metadata,omitzero"`
}

// FluxraMetadata describes an agent. All of it is optional.
type FluxraMetadata struct {
	Description string `json:"description,omitzero"`
	Owner       string `json:"owner,omitzero"`
	Version     string `json:"version,omitzero"`
}

// FluxraRegistered is what a POST to [FluxraRegisterPath] answers. RecoveryKey
// is returned this once. The last two are there with an email only.
type FluxraRegistered struct {
	AgentID                    string      `json:"agent_id"`
	AgentName                  string      `json:"agent_name"`
	RecoveryKey                string      `json:"recovery_key"`
	CreatedAt                  SecondTime  `json:"created_at"`
	Warning                    string      `json:"warning"`
	EmailVerificationSent      *bool       `json:"email_verification_sent,omitzero"`
	EmailVerificationExpiresAt *SecondTime `json:"email_verification_expires_at,omitzero"`
}

// FluxraVerifyEmailRequest is the body of a POST to [FluxraVerifyEmailPath].
type FluxraVerifyEmailRequest struct {
	Token string `json:"token"`
}

// FluxraEmailVerified is what both methods of [FluxraVerifyEmailPath] answer.
type FluxraEmailVerified struct {
	AgentID       string `json:"agent_id"`
	EmailVerified bool   `json:"email_verified"`
	Message       string `json:"message"`
}

// FluxraEmailRequest is the body of a POST to [FluxraResendPath] and to
// [FluxraRecoveryRequestPath].
type FluxraEmailRequest struct {
	Email string `json:"email"`
}

// FluxraMessage is what a POST to [FluxraResendPath] answers.
type FluxraMessage struct {
	Message string `json:"message"`
}

// FluxraKeyRequest is the body of a POST to [FluxraAgentPath].
type FluxraKeyRequest struct {
	Name          string   `json:"name"`
	Scopes        []string `json:"scopes,omitzero"`
	ExpiresInDays *int     `json:"expires_in_days,omitzero"`
}

// FluxraIssuedKey is what a POST to [FluxraAgentPath] answers. APIKey is
// returned this once.
type FluxraIssuedKey struct {
	KeyID     string      `json:"key_id"`
	Name      string      `json:"name"`
	APIKey    string      `json:"api_key"`
	Scopes    []string    `json:"scopes"`
	ExpiresAt *SecondTime `json:"expires_at"` // null: never
	CreatedAt SecondTime  `json:"created_at"`
}

// FluxraKeys is what a GET of [FluxraAgentPath] answers: the agent's keys,
// revoked ones too, without the keys themselves.
type FluxraKeys struct {
	Keys       []FluxraKey `json:"keys"`
	NextCursor *string     `json:"next_cursor"` // null: these are the last
	HasMore    bool        `json:"has_more"`
}

// FluxraKey is one element of [FluxraKeys].
type FluxraKey struct {
	KeyID      string      `json:"key_id"`
	Name       string      `json:"name"`
	Scopes     []string    `json:"scopes"`
	CreatedAt  SecondTime  `json:"created_at"`
	ExpiresAt  *SecondTime `json:"expires_at"`
	LastUsedAt *SecondTime `json:"last_used_at"`
	RevokedAt  *SecondTime `json:"revoked_at"`
}

// FluxraTokenRequest is the body of a POST to [FluxraTokenPath]. The service
// recommends it and does not look at it (seed).
type FluxraTokenRequest struct {
	GrantType string `json:"grant_type,omitzero"`
}

// FluxraToken is what a POST to [FluxraTokenPath] and to [FluxraRefreshPath]
// answers.
type FluxraToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"` // "Bearer"
	ExpiresIn   int64  `json:"expires_in"` // seconds
	Scope       string `json:"scope"`      // separated by spaces
	KeyID       string `json:"key_id,omitzero"`
}

// FluxraLoggedOut is what a POST to [FluxraLogoutPath] answers.
type FluxraLoggedOut struct {
	Message   string     `json:"message"`
	RevokedAt SecondTime `json:"revoked_at"`
}

// FluxraRecoveryRequested is what a POST to [FluxraRecoveryRequestPath]
// answers, whoever asks for whatever email. AgentID is always empty.
type FluxraRecoveryRequested struct {
	AgentID       string     `json:"agent_id"`
	Email         string     `json:"email"`
	CodeExpiresAt SecondTime `json:"code_expires_at"`
	Message       string     `json:"message"`
}

// FluxraRecoveryVerifyRequest is the body of a POST to
// [FluxraRecoveryVerifyPath].
type FluxraRecoveryVerifyRequest struct {
	Email string `json:"email"`
	Code  string `json:"code"`
}

// FluxraRecoveredKey is what a POST to [FluxraRecoveryVerifyPath] answers.
// RecoveryKey is returned this once, and the one before it is dead.
type FluxraRecoveredKey struct {
	AgentID     string `json:"agent_id"`
	RecoveryKey string `json:"recovery_key"`
	Message     string `json:"message"`
}

// FluxraHealth is what a GET of [FluxraHealthPath] answers.
type FluxraHealth struct {
	Status    string     `json:"status"` // "healthy"
	Timestamp SecondTime `json:"timestamp"`
	Version   string     `json:"version"`
}

// FluxraError is the body of every error that the service itself answers. What
// stands before it may answer plain text.
type FluxraError struct {
	Error FluxraErrorDetail `json:"error"`
}

// FluxraErrorDetail is a part of [FluxraError].
type FluxraErrorDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}
