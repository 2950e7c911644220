package embeddedgateway

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The kinds of what Fluxra stores. An agent's name in the store is its agent_id.
const (
	// Credentials. A verified email is one too, so that it is so for one agent
	// at most: its hash is that of the address, and authenticates nobody.
	fluxraRecovery = "recovery"
	fluxraKey      = "key"
	fluxraEmail    = "email"

	// Tickets. The one of an unverified email is never redeemed: it says which
	// agent was registered with it last.
	fluxraVerification = "verification"
	fluxraUnverified   = "unverified"
	fluxraCode         = "code"
	fluxraEnded        = "ended-token"
)

// fluxraVersion is the version of the documentation that this follows.
const fluxraVersion = "0.4.0"

// fluxra is the server half of Fluxra's protocol.
type fluxra struct {
	deps
	rate   *keyLimit // JWTs, by agent
	made   *keyLimit // API keys, by agent: each stays in the database (Enlist's choice)
	page   *template.Template
	letter *template.Template
	csp    string
}

func newFluxra(d deps) protocol {
	return &fluxra{
		deps:   d,
		rate:   d.usage.limit("fluxra/tokens", 60, time.Minute, d.Now),
		made:   d.usage.limit("fluxra/keys", 300, time.Hour, d.Now),
		page:   template.Must(template.New("page").Parse(fluxraPage)),
		letter: template.Must(template.New("letter").Parse(fluxraLetter)),
		csp:    fluxraPolicy(),
	}
}

func (*fluxra) name() string { return wire.FluxraName }

func (f *fluxra) routes() []route {
	const agent = wire.FluxraAgentsPath + "/{agent_id}"
	return []route{
		post(wire.FluxraRegisterPath, http.StatusCreated, f.register, limit{"register", 10, time.Hour}).first(wellNamed).registering(),
		get(wire.FluxraVerifyEmailPath, f.verifyLink),
		post(wire.FluxraVerifyEmailPath, http.StatusOK, f.verifyEmail),
		post(wire.FluxraResendPath, http.StatusOK, f.resend),
		actOn[wire.FluxraTokenRequest](wire.FluxraTokenPath, http.StatusOK, f.token),
		act(wire.FluxraRefreshPath, http.StatusOK, f.refresh),
		act(wire.FluxraLogoutPath, http.StatusOK, f.logout),
		post(wire.FluxraRecoveryRequestPath, http.StatusOK, f.requestCode),
		post(wire.FluxraRecoveryVerifyPath, http.StatusOK, f.recover),
		post(agent, http.StatusCreated, f.issueKey),
		get(agent, f.listKeys),
		del(agent+"/keys/{key_id}", http.StatusNoContent, f.revokeKey),
		get(wire.FluxraHealthPath, f.health),
		rest("/api/auth"),
		rest(wire.FluxraAgentsPath),
	}
}

// refuse implements protocol.
func (*fluxra) refuse(p *problem) (int, any) {
	code := cmp.Or(p.code, fluxraCodes()[p.kind])
	return p.kind.status(), wire.FluxraError{Error: wire.FluxraErrorDetail{Code: code, Message: p.message}}
}

// fluxraCodes says which code a kind of problem has that brings none.
func fluxraCodes() map[kind]string {
	return map[kind]string{
		kindInvalid:      wire.FluxraInvalidRequest,
		kindTooLarge:     wire.FluxraInvalidRequest,
		kindMediaType:    wire.FluxraInvalidRequest,
		kindMethod:       wire.FluxraInvalidRequest,
		kindNotFound:     wire.FluxraNotFound,
		kindUnauthorized: wire.FluxraUnauthorized,
		kindForbidden:    wire.FluxraForbidden,
		kindConflict:     wire.FluxraCodeUsed,
		kindGone:         wire.FluxraNotFound,
		kindLimited:      wire.FluxraRateLimited,
		kindUnavailable:  wire.FluxraUnavailable,
		kindInternal:     wire.FluxraInternal,
	}
}

// coded is an invalid request with a code of its own.
func coded(code, message string) *problem {
	return &problem{kind: kindInvalid, code: code, message: message}
}

// challenged is a 401, which must say by which scheme to authenticate
// (RFC 9110). Routes that take Basic answer no GET: no browser asks a person for
// a password because of it.
func challenged(code, scheme, message string) *problem {
	p := unauthorized(code, message)
	p.header = http.Header{"WWW-Authenticate": {scheme}}
	return p
}

// fluxraRegister is what is sent to register.
type fluxraRegister struct{ wire.FluxraRegisterRequest }

func (b fluxraRegister) check() error {
	if !wire.CheckFluxraAgentName(b.AgentName) {
		return coded(wire.FluxraInvalidAgentName, "agent_name must be 3 to 50 ASCII letters, digits and dashes")
	}
	if _, ok := fluxraAddress(b.Email); b.Email != "" && !ok {
		return badEmail()
	}
	if b.Metadata == nil {
		return nil
	}
	for name, value := range fluxraAttrs(b.Metadata) {
		if !wire.CheckFluxraMetadata(value) {
			return invalid("metadata.%s must be at most 500 characters without control characters", name)
		}
		if wire.Mask(value) != value {
			return invalid("metadata is public, and metadata.%s looks like a key", name)
		}
	}
	return nil
}

// fluxraAttrs is what an agent keeps of its metadata.
func fluxraAttrs(m *wire.FluxraMetadata) map[string]string {
	attrs := map[string]string{}
	if m == nil {
		return attrs
	}
	for name, value := range map[string]string{"description": m.Description, "owner": m.Owner, "version": m.Version} {
		if value != "" {
			attrs[name] = value
		}
	}
	return attrs
}

func badEmail() *problem {
	return coded(wire.FluxraInvalidEmail, "email must be one address such as bot@example.com, in ASCII, without a name, quotes or comments")
}

// fluxraAddress returns the form of an email address in which it is compared,
// kept and written to.
//
// It is lower-case throughout. A mail server may tell Bot@ from bot@, but
// hardly one does, and people write their address either way. Because letters
// go to this form only, the mailbox that verified an address is the one that
// gets its recovery codes, even where it is not the only one. Only ASCII is
// taken: other letters have several spellings and cases that look alike.
func fluxraAddress(given string) (address string, ok bool) {
	parsed, err := mail.ParseAddress(given)
	if !wire.CheckFluxraEmail(given) || err != nil || parsed.Name != "" || parsed.Address != given {
		return "", false
	}
	for _, b := range []byte(given) {
		if b >= 0x80 {
			return "", false
		}
	}
	local, domain, _ := strings.Cut(given, "@")
	if len(local) > 64 || strings.ContainsAny(domain, "[]:@") {
		return "", false
	}
	return strings.ToLower(given), true
}

// emailHash is what is stored of an email address: under a key, because
// addresses can be guessed. The address itself is in no table but encrypted, nor
// in the audit trail.
func (f *fluxra) emailHash(address string) [32]byte { return emailHash(f.vault, address) }

func emailHash(v *vault, address string) [32]byte {
	return v.mac(wire.FluxraName, "email", address)
}

// sealedEmail is the kind that an address is sealed as, which its operator can
// read.
const sealedEmail = "email"

// sealEmail encrypts the address of an agent, for the label of its credential.
func sealEmail(v *vault, agentID, address string) (string, error) {
	data, err := v.seal(sealedEmail, agentID, []byte(address))
	return base64.StdEncoding.EncodeToString(data), err
}

// openEmail reads what sealEmail made; "" where a version before this one has
// stored the credential.
func openEmail(v *vault, c store.Credential) string {
	data, err := base64.StdEncoding.DecodeString(c.Label)
	if err != nil || len(data) == 0 {
		return ""
	}
	address, err := v.open(sealedEmail, c.AgentName, data)
	if err != nil {
		return ""
	}
	return string(address)
}

func (f *fluxra) newAgentID() (string, error) {
	raw := make([]byte, 16)
	if _, err := io.ReadFull(f.mint.rand, raw); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return wire.FormatFluxraAgentID(hex.EncodeToString(raw)), nil
}

// newRecoveryKey makes a recovery key and what is stored of it.
func (f *fluxra) newRecoveryKey() (string, store.Credential, error) {
	return f.newSecret(fluxraRecovery, wire.FormatFluxraRecoveryKey)
}

// newSecret makes a long-lived secret and what is stored of it.
func (f *fluxra) newSecret(kind string, format func(string) string) (string, store.Credential, error) {
	secret, err := f.mint.secret()
	if err != nil {
		return "", store.Credential{}, err
	}
	keyID, err := f.mint.keyID()
	if err != nil {
		return "", store.Credential{}, err
	}
	key := format(secret)
	return key, store.Credential{Kind: kind, KeyID: wire.FormatFluxraKeyID(keyID), Hash: digest(key)}, nil
}

// health answers whether the gateway can do its work, which is to say whether
// its database answers.
func (f *fluxra) health(ctx context.Context, c *call) (wire.FluxraHealth, error) {
	if _, err := c.store.Agent(ctx, wire.FluxraName, ""); err != nil && !errors.Is(err, store.ErrNotFound) {
		return wire.FluxraHealth{}, unavailable()
	}
	return wire.FluxraHealth{
		Status: wire.FluxraHealthy, Timestamp: wire.SecondTime(f.Now()), Version: fluxraVersion,
	}, nil
}

// limitsOf implements limiter.
func (f *fluxra) limitsOf(a store.Agent, _ []store.Credential) []LimitInfo {
	return []LimitInfo{f.rate.info("tokens of the agent", a.ID), f.made.info("keys made", a.ID)}
}
