package wire

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// How Lumina's routes are called (seed). It has no fixed origin.
const (
	LuminaName        = "lumina"
	LuminaOnboardPath = "/api/v1/agent/onboard"
	LuminaKeysPath    = "/api/v1/agent/keys"
)

// LuminaKeyHeader is the header that carries a key (seed). A key in a URL
// counts for nothing.
const LuminaKeyHeader = "X-Api-Key"

// Lumina's error codes.
const (
	LuminaInvalidBody      = "invalid_body"      // 400 (seed); 405, 413 and 415 too
	LuminaStaleTimestamp   = "stale_timestamp"   // 400 (seed)
	LuminaInvalidSignature = "invalid_signature" // 401 (seed): another signer, or seen before
	LuminaCapReached       = "cap_reached"       // 409 (seed)
	LuminaRateLimit        = "rate_limit"        // 429 (seed)
	LuminaMissingAPIKey    = "missing_api_key"   // 401
	LuminaInvalidAPIKey    = "invalid_api_key"   // 401: unknown or revoked
	LuminaInvalidID        = "invalid_id"        // 400: a keyId that is no number
	LuminaKeyNotFound      = "key_not_found"     // 404: unknown, or another wallet's
	LuminaNotFound         = "not_found"         // 404: no such route
	LuminaInternal         = "internal"          // 500

	// What live servers say instead.
	LuminaKeyLimitReached   = "key_limit_reached"  // for cap_reached
	LuminaSignatureMismatch = "signature_mismatch" // for invalid_signature
	LuminaRateLimited       = "rate_limited"       // for rate_limit
)

// Lumina's numbers (seed).
const (
	LuminaMaxKeys       = 3   // active keys a wallet
	LuminaWindowSeconds = 300 // a timestamp is this far off at most, either way
	LuminaFreeRPM       = 10  // requests a minute and key
	LuminaPaidRPM       = 100
)

// Lumina's tiers (seed).
const (
	LuminaFree = "free"
	LuminaPaid = "paid"
)

const (
	luminaPrefix   = "lk_"
	luminaMaxLabel = 50
)

var (
	luminaKeyShape  = NewPattern(`lk_[0-9a-fA-F]{64}`)
	luminaSignature = NewPattern(`^0x[0-9a-fA-F]{130}$`)
)

// Lumina describes the protocol of Lumina.
func Lumina() Protocol {
	return Protocol{
		Name: LuminaName,
		Reserved: []Route{
			{Path: LuminaOnboardPath, Tool: "lumina_register_agent"},
			{Method: "DELETE", Path: LuminaKeysPath + "/*", Tool: "revoke_credential"},
		},
		Headers: []string{LuminaKeyHeader},
		Shapes:  []Shape{{Pattern: luminaKeyShape, Mask: luminaPrefix + "…"}},
	}
}

// LuminaMessage is what a wallet signs with personal_sign (seed). address is
// spelled as in walletAddress.
func LuminaMessage(address string, timestamp int64) string {
	return fmt.Sprintf("Lumina onboarding for %s at %d", address, timestamp)
}

// FormatLuminaKey puts a key together.
func FormatLuminaKey(secret [32]byte) string { return luminaPrefix + hex.EncodeToString(secret[:]) }

// IsLuminaKey reports whether text begins as every key does.
func IsLuminaKey(text string) bool { return strings.HasPrefix(text, luminaPrefix) }

// CheckLuminaLabel reports whether s can be a label: at most 50 characters of
// valid UTF-8 without control characters. It may be empty.
func CheckLuminaLabel(s string) bool { return printable(s, luminaMaxLabel) }

// CheckLuminaSignature reports whether s has the form of a signature: 0x and
// 130 hex digits. It says nothing about whose it is.
func CheckLuminaSignature(s string) bool { return luminaSignature.MatchString(s) }

// LuminaKeyPath is the path of one key.
func LuminaKeyPath(keyID int64) string { return LuminaKeysPath + "/" + strconv.FormatInt(keyID, 10) }

// LuminaOnboardRequest is the body of a POST to [LuminaOnboardPath].
type LuminaOnboardRequest struct {
	WalletAddress string `json:"walletAddress"`
	Signature     string `json:"signature"` // 0x and 130 hex digits
	Timestamp     *int64 `json:"timestamp"` // Unix time in seconds; required
	Label         string `json:"label,omitzero"`
}

// LuminaOnboarded is what a POST to [LuminaOnboardPath] answers. APIKey is
// returned this once.
type LuminaOnboarded struct {
	OK        bool             `json:"ok"`
	APIKey    string           `json:"apiKey"`
	KeyID     int64            `json:"keyId"`
	Wallet    string           `json:"wallet"` // in lower case
	Tier      string           `json:"tier"`
	Label     *string          `json:"label"` // null: none
	CreatedAt MilliTime        `json:"createdAt"`
	RateLimit LuminaRateLimits `json:"rateLimit"`
	Warning   string           `json:"warning"`
}

// LuminaRateLimits says how many requests a key may make, by tier.
type LuminaRateLimits struct {
	Free LuminaRPM `json:"free"`
	Paid LuminaRPM `json:"paid"`
}

// LuminaRPM is requests a minute.
type LuminaRPM struct {
	RPM int `json:"rpm"`
}

// LuminaKeys is what a GET of [LuminaKeysPath] answers: the wallet's active
// keys, without the keys themselves.
type LuminaKeys struct {
	OK     bool        `json:"ok"`
	Wallet string      `json:"wallet"`
	Keys   []LuminaKey `json:"keys"`
}

// LuminaKey is one element of [LuminaKeys].
type LuminaKey struct {
	KeyID      int64      `json:"keyId"`
	Label      *string    `json:"label"` // null: none
	CreatedAt  MilliTime  `json:"createdAt"`
	LastUsedAt *MilliTime `json:"lastUsedAt"` // null: never
	Tier       string     `json:"tier"`
}

// LuminaAlreadyRevoked is what a DELETE of a key answers that was revoked
// before. One that was not is answered with 204 and no body.
type LuminaAlreadyRevoked struct {
	OK             bool `json:"ok"`
	AlreadyRevoked bool `json:"alreadyRevoked"`
}

// LuminaError is the body of every error. Error and Code are the same.
type LuminaError struct {
	Error   string `json:"error"`
	Code    string `json:"code"`
	Message string `json:"message"`
}
