package embeddedgateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
	"github.com/go-json-experiment/json"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	agentDoorKey       = "api-key"    // the kind of credential
	agentDoorIdentity  = "public-key" // the kind of credential that claims a public key for one agent
	agentDoorChallenge = "challenge"  // the kind of ticket, found by its agent_id
	agentDoorSeen      = "signature"  // the kind of ticket: a signature that was accepted
	agentDoorIssued    = "issued-key" // the kind of ticket that an API key leaves when its agent is deleted

	// What a challenge carries to the agent that comes of it.
	agentDoorPublicKey = "public_key"
	agentDoorMessage   = "message"
	agentDoorScopes    = "scopes" // between spaces
	agentDoorWallet    = "x402_wallet"
	agentDoorMetadata  = "metadata" // JSON

	agentDoorTries       = 5   // failed signatures until a challenge is void
	agentDoorMaxWallet   = 128 // characters
	agentDoorMaxMetadata = 4 << 10
)

// agentDoor is the server half of the AgentDoor protocol.
type agentDoor struct {
	agentDoorConfig
	mint   minter
	now    func() time.Time
	uses   *lastUse
	signer *signer
	rate   *keyLimit // of requests, by agent
	auths  *keyLimit // of JWTs, by agent: each leaves a ticket
	opened *recent   // challenges
}

func newAgentDoor(d deps) protocol {
	a := &agentDoor{
		agentDoorConfig: readAgentDoorConfig(d), mint: d.mint, now: d.Now, uses: d.uses, signer: d.signer,
		opened: newRecent(),
	}
	a.rate = d.usage.limit("agentdoor/requests", a.limit.Requests, a.window, d.Now)
	a.auths = d.usage.limit("agentdoor/tokens", a.limit.Requests, a.window, d.Now)
	return a
}

func (*agentDoor) name() string { return wire.AgentDoorName }

func (a *agentDoor) routes() []route {
	return []route{
		get(wire.AgentDoorDiscoveryPath, a.discover),
		post(wire.AgentDoorRegisterPath, http.StatusCreated, a.register),
		post(wire.AgentDoorVerifyPath, http.StatusOK, a.verify).registering(),
		post(wire.AgentDoorAuthPath, http.StatusOK, a.auth),
		get(wire.AgentDoorHealthPath, a.health),
		get(wire.AgentDoorWhoAmIPath, a.whoAmI),
		rest("/agentdoor"),
	}
}

// refuse implements protocol.
func (*agentDoor) refuse(p *problem) (int, any) {
	body, _ := p.detail.(wire.AgentDoorError)
	body.Error, body.Message = cmp.Or(p.code, agentDoorCodes()[p.kind]), p.message
	if p.kind == kindLimited {
		body.RetryAfter = p.seconds()
	}
	return p.kind.status(), body
}

// agentDoorCodes says which code a kind of problem has that brings none.
func agentDoorCodes() map[kind]string {
	return map[kind]string{
		kindInvalid:      wire.AgentDoorInvalidRequest,
		kindTooLarge:     wire.AgentDoorInvalidRequest,
		kindMediaType:    wire.AgentDoorInvalidRequest,
		kindMethod:       wire.AgentDoorInvalidRequest,
		kindNotFound:     wire.AgentDoorNotFound,
		kindUnauthorized: wire.AgentDoorUnauthorized,
		kindForbidden:    wire.AgentDoorForbidden,
		kindConflict:     wire.AgentDoorAlreadyRegistered,
		kindGone:         wire.AgentDoorChallengeExpired,
		kindLimited:      wire.AgentDoorRateLimited,
		kindUnavailable:  wire.AgentDoorInternal,
		kindInternal:     wire.AgentDoorInternal,
	}
}

// agentDoorInvalid is a request that is wrong in a way that has a code of its own.
func agentDoorInvalid(code, format string, args ...any) *problem {
	p := invalid(format, args...)
	p.code = code
	return p
}

// agentDoorRegisterBody is what is sent to register.
type agentDoorRegisterBody struct{ wire.AgentDoorRegisterRequest }

func (b agentDoorRegisterBody) check() error {
	key, ok := wire.DecodeAgentDoorKey(b.PublicKey)
	switch {
	case !ok:
		return invalid("public_key must be an Ed25519 public key: 32 bytes in standard base64 with padding")
	case !usablePoint(key):
		return invalid("public_key is not an Ed25519 public key that proves anything: " +
			"it must be the canonical form of a point, and not one of small order")
	case len(b.ScopesRequested) == 0:
		return invalid("scopes_requested must name at least one scope: they are in " + wire.AgentDoorDiscoveryPath)
	case len(b.X402Wallet) > agentDoorMaxWallet || strings.ContainsFunc(b.X402Wallet, func(r rune) bool { return r <= ' ' || r > '~' }):
		return invalid("x402_wallet must be an address: at most %d visible ASCII characters", agentDoorMaxWallet)
	}
	text, err := b.metadata()
	switch {
	case err != nil:
		return err
	case len(text) > agentDoorMaxMetadata:
		return invalid("metadata is larger than %d bytes", agentDoorMaxMetadata)
	case wire.Mask(text) != text || wire.Mask(b.X402Wallet) != b.X402Wallet:
		// It would be stored and shown. Somebody has pasted into the wrong field.
		return invalid("metadata and x402_wallet are public: something in them looks like a key")
	}
	return nil
}

// metadata returns the metadata as JSON, "" where there is none.
func (b agentDoorRegisterBody) metadata() (string, error) {
	if len(b.Metadata) == 0 {
		return "", nil
	}
	text, err := json.Marshal(b.Metadata, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("encode the metadata: %w", err)
	}
	return string(text), nil
}

// usablePoint reports whether 32 bytes are the canonical form of a point that
// is not of small order: for one of those, signatures exist that fit messages
// which nobody has signed, and in two forms one key would register twice. A point has
// a form that is not canonical if its y is not below the field's prime, or if it says
// that an x of 0 is negative (RFC 8032, 5.1.3); those with an x of 0 are of small order.
func usablePoint(key []byte) bool {
	p, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return false
	}
	sign := key[31] & 0x80
	y, err := new(field.Element).SetBytes(key) // without the sign
	if err != nil {
		return false
	}
	canonical := y.Bytes()
	canonical[31] |= sign
	return bytes.Equal(canonical, key) &&
		new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
}

// identity is the claim of a public key: a protocol has one credential of a
// hash, so a key is one agent's, also when that one is suspended.
func identity(publicKey string) [32]byte { return digest(agentDoorIdentity + ":" + publicKey) }

// register answers with a challenge. Nothing is taken from anybody by it: any
// number may pend for one key, because who knows a public key need not have it. So it
// does not wait for the disk: whose challenge is lost when the power fails registers
// again.
func (a *agentDoor) register(ctx context.Context, c *call, in agentDoorRegisterBody) (wire.AgentDoorPending, error) {
	var none wire.AgentDoorPending
	scopes, err := a.choose(in.ScopesRequested)
	if err != nil {
		return none, err
	}
	if a.x402 != nil && in.X402Wallet == "" {
		return none, invalid("x402_wallet is required here: this service is paid by x402")
	}
	metadata, err := in.metadata()
	if err != nil {
		return none, err
	}
	now := a.now().UTC().Truncate(time.Millisecond) // as it is written
	agentID, nonce, err := a.newChallenge(now)
	if err != nil {
		return none, err
	}
	message := wire.AgentDoorChallengeMessage(agentID, now.Unix(), nonce)
	ticket := store.Ticket{
		Protocol: wire.AgentDoorName, Kind: agentDoorChallenge, Hash: challengeHash(agentID), Subject: agentID,
		ExpiresAt: now.Add(wire.AgentDoorChallengeSeconds * time.Second),
		Data: map[string]string{
			agentDoorPublicKey: in.PublicKey, agentDoorMessage: message, agentDoorScopes: strings.Join(scopes, " "),
			agentDoorWallet: in.X402Wallet, agentDoorMetadata: metadata,
		},
	}
	err = c.within(ctx, limit{"register", agentDoorRegistrations, time.Hour}, c.store.TxPassing, func(tx *store.Tx) error {
		if err := unclaimedKey(tx, c, in.PublicKey); err != nil {
			return err
		}
		if err := tx.OpenTicket(ticket, false); err != nil {
			return err
		}
		c.agent = agentID
		return tx.Audit(c.event("challenge_issued"))
	})
	if err != nil {
		return none, err
	}
	a.opened.put(ticket)
	return wire.AgentDoorPending{AgentID: agentID, Challenge: wire.AgentDoorChallenge{
		Nonce: nonce, Message: message, ExpiresAt: wire.MilliTime(ticket.ExpiresAt),
	}}, nil
}

// choose returns the scopes that are asked for, each once.
func (a *agentDoor) choose(asked []string) (scopes []string, err error) {
	offered := make([]string, len(a.scopes))
	for i, s := range a.scopes {
		offered[i] = s.ID
	}
	for _, scope := range asked {
		if !slices.Contains(offered, scope) {
			p := agentDoorInvalid(wire.AgentDoorInvalidScopes, "scopes_requested has a scope that is not offered here; available_scopes lists those that are")
			p.detail = wire.AgentDoorError{AvailableScopes: offered}
			return nil, p
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// agentDoorIDTime is how many characters of an agent_id say when it was made.
const agentDoorIDTime = 9

// newChallenge makes an agent_id and a nonce of 32 characters. Of the 21 characters of
// the id agentDoorIDTime say when it was made, to the millisecond (that is enough until
// 3084): agents that come at the same time then lie side by side in every index that
// has their names, and the database writes one page for many of them instead of one
// for each. Twelve are random.
func (a *agentDoor) newChallenge(now time.Time) (agentID, nonce string, err error) {
	id, err := a.mint.urlSafe(9)
	if err != nil {
		return "", "", err
	}
	nonce, err = a.mint.urlSafe(24)
	return wire.FormatAgentDoorAgentID(strconv.FormatInt(now.UnixMilli(), 32) + id), nonce, err
}

// unclaimedKey refuses a public key that an agent has.
func unclaimedKey(tx *store.Tx, c *call, publicKey string) error {
	owner, err := tx.Credential(wire.AgentDoorName, identity(publicKey))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	c.agent = owner.AgentName
	p := conflict(wire.AgentDoorAlreadyRegistered, "this public key is registered: get a JWT with its agent_id at "+wire.AgentDoorAuthPath)
	p.detail = wire.AgentDoorError{AgentID: owner.AgentName}
	return p
}

// agentDoorVerifyBody is what is sent to verify.
type agentDoorVerifyBody struct{ wire.AgentDoorVerifyRequest }

func (b agentDoorVerifyBody) check() error { return checkSigned(b.AgentID, b.Signature) }

// checkSigned judges the form of what is signed.
func checkSigned(agentID, signature string) error {
	if !wire.CheckAgentDoorAgentID(agentID) {
		return invalid("agent_id must be the one that registering answered: ag_ and letters, digits, dashes and underscores")
	}
	if _, ok := wire.DecodeAgentDoorSignature(signature); !ok {
		return invalid("signature must be an Ed25519 signature: 64 bytes in standard base64 with padding")
	}
	return nil
}

// signed reports whether a message was signed by a public key. The signature is
// in its one canonical form: crypto/ed25519 refuses every other.
func signed(publicKey, message, signature string) (bool, error) {
	key, ok := wire.DecodeAgentDoorKey(publicKey)
	if !ok {
		return false, errors.New("a public key in the database is none")
	}
	raw, ok := wire.DecodeAgentDoorSignature(signature)
	return ok && ed25519.Verify(key, []byte(message), raw), nil
}

// verify registers the agent whose challenge is signed.
func (a *agentDoor) verify(ctx context.Context, c *call, in agentDoorVerifyBody) (wire.AgentDoorRegistered, error) {
	var none wire.AgentDoorRegistered
	c.agent = in.AgentID
	ticket, known := a.opened.take(challengeHash(in.AgentID))
	var err error
	if !known {
		ticket, err = challengeOf(ctx, c)
	}
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && !ticket.UsedAt.IsZero():
		return none, noChallenge()
	case err != nil:
		return none, err
	case !a.now().Before(ticket.ExpiresAt):
		return none, expireChallenge(ctx, c, ticket.Hash)
	}
	ok, err := signed(ticket.Data[agentDoorPublicKey], ticket.Data[agentDoorMessage], in.Signature)
	if err != nil {
		return none, err
	}
	if !ok {
		return none, strikeChallenge(ctx, c, ticket.Hash)
	}
	return a.admit(ctx, c, ticket)
}

// challengeHash is what a challenge is found by. Who knows it knows nothing: the
// agent_id is public. It begins with the part of that which says when it was made, for
// the same reason (see newChallenge): challenges that are made and answered at one time
// lie side by side, and of a batch of them a page or two of the index is written and
// not one for each. The other 23 bytes are of its SHA-256.
func challengeHash(agentID string) (hash [32]byte) {
	sum := digest(agentID)
	id := strings.TrimPrefix(agentID, wire.FormatAgentDoorAgentID(""))
	n := copy(hash[:agentDoorIDTime], id)
	copy(hash[n:], sum[:])
	return hash
}

// challengeOf reads the challenge of the call's agent. The version before this one
// made its hash of all of the agent_id; who had one from it may answer here.
func challengeOf(ctx context.Context, c *call) (store.Ticket, error) {
	ticket, err := c.store.Ticket(ctx, wire.AgentDoorName, agentDoorChallenge, challengeHash(c.agent))
	if errors.Is(err, store.ErrNotFound) {
		return c.store.Ticket(ctx, wire.AgentDoorName, agentDoorChallenge, digest(c.agent))
	}
	return ticket, err
}

func noChallenge() *problem {
	p := notFound()
	p.message = "no registration pends for this agent_id: it was verified, failed too often, or expired; register again"
	return p
}

// pending tells a challenge that can still be acted on from one that somebody else
// was faster with.
func pending(tx *store.Tx, hash [32]byte) error {
	ticket, err := tx.Ticket(wire.AgentDoorName, agentDoorChallenge, hash)
	if errors.Is(err, store.ErrNotFound) || err == nil && !ticket.UsedAt.IsZero() {
		return noChallenge()
	}
	return err
}

// expireChallenge drops a challenge and says once that it has expired.
func expireChallenge(ctx context.Context, c *call, hash [32]byte) error {
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		if err := pending(tx, hash); err != nil {
			return err
		}
		return tx.DropTicket(wire.AgentDoorName, agentDoorChallenge, hash)
	})
	if err != nil {
		return err
	}
	return gone(wire.AgentDoorChallengeExpired, "the challenge has expired: register again")
}

// strikeChallenge counts a wrong signature.
func strikeChallenge(ctx context.Context, c *call, hash [32]byte) error {
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		if err := pending(tx, hash); err != nil {
			return err
		}
		_, err := tx.Strike(wire.AgentDoorName, agentDoorChallenge, c.agent, agentDoorTries)
		return err
	})
	if err != nil {
		return err
	}
	return agentDoorInvalid(wire.AgentDoorInvalidSignature,
		"the signature is not one of the challenge's message, byte for byte, by the key that registered")
}

// admit uses the challenge up and issues the agent's credentials. What refuses
// it undoes that, so that a challenge whose key was registered by another one
// tells every time whose it is: an answer that is lost can be asked for again.
func (a *agentDoor) admit(ctx context.Context, c *call, ticket store.Ticket) (wire.AgentDoorRegistered, error) {
	var none wire.AgentDoorRegistered
	publicKey, scopes := ticket.Data[agentDoorPublicKey], strings.Fields(ticket.Data[agentDoorScopes])
	key, cred, err := a.newKey(scopes)
	if err != nil {
		return none, err
	}
	token, err := a.token(ctx, c.agent, publicKey, scopes, 0)
	if err != nil {
		return none, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		c.agent = ticket.Subject
		err := tx.Spend(wire.AgentDoorName, agentDoorChallenge, ticket.Hash, ticket.Subject)
		if errors.Is(err, store.ErrNotFound) {
			return noChallenge()
		}
		if err != nil {
			return err
		}
		return enroll(tx, c, ticket, cred, token)
	})
	if err != nil {
		return none, err
	}
	return wire.AgentDoorRegistered{
		AgentID: ticket.Subject, APIKey: key, ScopesGranted: scopes,
		Token: token.text, TokenExpiresAt: token.expires, RateLimit: a.limit, X402: a.x402,
	}, nil
}

// newKey makes an API key and what is stored of it. It has 43 characters behind
// its prefix and not 32, so that 256 bits of it are random.
func (a *agentDoor) newKey(scopes []string) (string, store.Credential, error) {
	secret, err := a.mint.urlSafe(secretBytes)
	if err != nil {
		return "", store.Credential{}, err
	}
	keyID, err := a.mint.keyID()
	if err != nil {
		return "", store.Credential{}, err
	}
	key := wire.FormatAgentDoorKey(secret, a.test)
	return key, store.Credential{Kind: agentDoorKey, KeyID: keyID, Hash: digest(key), Scopes: scopes}, nil
}

// enroll stores an agent, its claim of the public key, and its API key.
func enroll(tx *store.Tx, c *call, ticket store.Ticket, cred store.Credential, token agentDoorJWT) error {
	attrs := map[string]string{}
	for _, name := range []string{agentDoorPublicKey, agentDoorScopes, agentDoorWallet, agentDoorMetadata} {
		if value := ticket.Data[name]; value != "" {
			attrs[name] = value
		}
	}
	agent, err := tx.AddAgent(store.Agent{
		Protocol: wire.AgentDoorName, Name: ticket.Subject, DisplayName: ticket.Subject, Attrs: attrs,
	})
	if err != nil {
		return err
	}
	publicKey := ticket.Data[agentDoorPublicKey]
	claim := store.Credential{Kind: agentDoorIdentity, KeyID: publicKey, Hash: identity(publicKey)}
	if err := tx.IssueBoth(agent.ID, claim, cred); errors.Is(err, store.ErrExists) {
		// What was stored of it is undone.
		return cmp.Or(unclaimedKey(tx, c, publicKey), err)
	} else if err != nil {
		return err
	}
	event := c.event("key_issued")
	event.KeyID = cred.KeyID
	if err := tx.Audit(event); err != nil {
		return err
	}
	return token.audit(tx, c, "at registration")
}

// outlastAgentDoor keeps what tells a key of an agent that is deleted next from one
// that was never issued.
func outlastAgentDoor(tx *store.Tx, agent store.Agent) error {
	if agent.Protocol != wire.AgentDoorName {
		return nil
	}
	return tx.KeepHashes(agent.ID, agentDoorKey, agentDoorIssued)
}

// limitsOf implements limiter.
func (a *agentDoor) limitsOf(agent store.Agent, _ []store.Credential) []LimitInfo {
	return []LimitInfo{a.rate.info("requests of the agent", agent.ID), a.auths.info("tokens by signature", agent.ID)}
}
