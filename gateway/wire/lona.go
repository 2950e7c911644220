package wire

import (
	"strings"
	"unicode/utf8"
)

// Where Lona lives and what its routes are called (seed).
const (
	LonaName           = "lona"
	LonaOrigin         = "https://gateway.lona.agency"
	LonaInvitePath     = "/api/v1/agents/request-invite"
	LonaRegisterPath   = "/api/v1/agents/register"
	LonaStrategiesPath = "/api/v1/strategies"
)

// Lona's headers (seed).
const (
	LonaSecretHeader = "X-Agent-Registration-Secret" //nolint:gosec // the name of a header, not a secret
	LonaKeyHeader    = "X-Api-Key"
	LonaUserHeader   = "X-User-Id"
)

// Lona's error codes. The seed names none; these are Enlist's choice.
const (
	LonaInvalidRequest            = "invalid_request"             // 400; 405, 413 and 415 too
	LonaInvalidInvite             = "invalid_invite"              // 401: unknown, expired, used, or another agent's: one answer for all four
	LonaInvalidRegistrationSecret = "invalid_registration_secret" // 401
	LonaInvitesDisabled           = "invites_disabled"            // 403
	LonaAgentExists               = "agent_exists"                // 409
	LonaRateLimited               = "rate_limited"                // 429
	LonaUnauthorized              = "unauthorized"                // 401: token unknown, expired or revoked, or X-User-Id is another agent
	LonaNotFound                  = "not_found"                   // 404: no such route
	LonaInternal                  = "internal"                    // 500
)

// Lona's token and invite prefixes (seed).
const (
	lonaTokenPrefix  = "lona_partner_"
	lonaInvitePrefix = "lona_invite_"
	// lonaKeyIDLen is the length of the public part of a token (seed: 12 characters).
	lonaKeyIDLen = 12
)

// The longest values of Lona's text fields, in characters (Enlist's choice).
const (
	lonaMaxName   = 100
	lonaMaxSource = 64
)

// Lona describes the protocol of Lona.
func Lona() Protocol {
	return Protocol{
		Name:   LonaName,
		Origin: LonaOrigin,
		Reserved: []Route{
			{Path: LonaInvitePath, Tool: "lona_register_agent"},
			{Path: LonaRegisterPath, Tool: "lona_register_agent"},
		},
		Headers: []string{LonaSecretHeader, LonaKeyHeader, LonaUserHeader},
		Shapes: []Shape{
			{Pattern: lonaTokenShape, Mask: "${1}_…"},
			{Pattern: lonaInviteShape, Mask: lonaInvitePrefix + "…"},
		},
	}
}

var (
	lonaAgentID = NewPattern(`^[a-zA-Z0-9][a-zA-Z0-9._-]{1,63}$`)
	// The secret part is at least 8 characters, so that the documentation's
	// own "lona_partner_<agent_id>_" is left alone.
	lonaTokenShape  = NewPattern(`(lona_partner_[a-zA-Z0-9][a-zA-Z0-9._-]{1,63}?)_[a-zA-Z0-9]{12}_[a-zA-Z0-9_-]{8,}`)
	lonaInviteShape = NewPattern(`lona_invite_[a-zA-Z0-9_-]{8,}`)
)

// LonaInviteRequest is the body of a POST to [LonaInvitePath].
type LonaInviteRequest struct {
	AgentID   string `json:"agent_id"`
	AgentName string `json:"agent_name"`
	Source    string `json:"source,omitzero"`
}

// LonaInvite is what a POST to [LonaInvitePath] answers, inside [LonaData].
type LonaInvite struct {
	InviteCode string    `json:"invite_code"`
	ExpiresAt  MilliTime `json:"expires_at"`
}

// LonaRegisterRequest is the body of a POST to [LonaRegisterPath].
type LonaRegisterRequest struct {
	AgentID   string `json:"agent_id"`
	AgentName string `json:"agent_name"`
	// InviteCode is left out when the registration secret is sent instead.
	InviteCode string `json:"invite_code,omitzero"`
	Source     string `json:"source,omitzero"`
	// ExpiresInDays is the lifetime asked for; nil leaves it to the service.
	ExpiresInDays *int `json:"expires_in_days,omitzero"`
}

// LonaRegistered is what a POST to [LonaRegisterPath] answers, inside
// [LonaData]. Token is returned this once.
type LonaRegistered struct {
	Token       string    `json:"token"`
	PartnerID   string    `json:"partner_id"`
	PartnerName string    `json:"partner_name"`
	Permissions []string  `json:"permissions"`
	ExpiresAt   MilliTime `json:"expires_at"`
}

// LonaStrategy is one element of the list at [LonaStrategiesPath]. The seed
// does not show one; these fields are Enlist's choice and a client must not
// rely on them.
type LonaStrategy struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitzero"`
}

// LonaData is the envelope of every answer that is not an error (seed).
type LonaData[T any] struct {
	Data T `json:"data"`
}

// LonaError is the body of every error.
type LonaError struct {
	Error LonaErrorDetail `json:"error"`
}

// LonaErrorDetail is the code and the text of a [LonaError].
type LonaErrorDetail struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// CheckLonaAgentID reports whether s can be an agent_id: 2 to 64 ASCII
// letters, digits, dots, underscores and dashes, the first a letter or digit.
func CheckLonaAgentID(s string) bool { return lonaAgentID.MatchString(s) }

// CheckLonaAgentName reports whether s can be an agent_name: 1 to 100
// characters of valid UTF-8 without control characters.
func CheckLonaAgentName(s string) bool {
	return s != "" && printable(s, lonaMaxName)
}

// CheckLonaSource reports whether s can be a source: at most 64 characters of
// valid UTF-8 without control characters. It may be empty.
func CheckLonaSource(s string) bool { return printable(s, lonaMaxSource) }

func printable(s string, limit int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= limit &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}

// FormatLonaToken puts a token together. The key id is 12 letters and digits;
// neither it nor the secret contains an underscore, so that a token can be
// taken apart again whatever the agent_id is.
func FormatLonaToken(agentID, keyID, secret string) string {
	return lonaTokenPrefix + agentID + "_" + keyID + "_" + secret
}

// IsLonaToken reports whether text begins as every token does.
func IsLonaToken(text string) bool { return strings.HasPrefix(text, lonaTokenPrefix) }

// FormatLonaInvite puts an invite code together.
func FormatLonaInvite(secret string) string { return lonaInvitePrefix + secret }

// ParseLonaToken returns the public parts of a token that [FormatLonaToken]
// made: whose it is and which one. It says nothing about whether it is valid.
func ParseLonaToken(token string) (agentID, keyID string, ok bool) {
	rest, ok := strings.CutPrefix(token, lonaTokenPrefix)
	if !ok {
		return "", "", false
	}
	i := strings.LastIndexByte(rest, '_')
	if i < 0 || i == len(rest)-1 {
		return "", "", false
	}
	secret := rest[i+1:]
	rest = rest[:i]
	i = strings.LastIndexByte(rest, '_')
	if i < 0 || len(rest)-i-1 != lonaKeyIDLen {
		return "", "", false
	}
	agentID, keyID = rest[:i], rest[i+1:]
	if !CheckLonaAgentID(agentID) || !alphanumeric(keyID) || !alphanumeric(secret) {
		return "", "", false
	}
	return agentID, keyID, true
}

func alphanumeric(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
