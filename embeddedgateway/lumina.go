package embeddedgateway

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// luminaPaidVar names the wallets of the paid tier (Enlist's choice: the
// protocol does not say how one gets there).
const luminaPaidVar = "LUMINA_PAID_WALLETS"

const (
	luminaKey  = "key"       // the kind of credential
	luminaSeen = "signature" // the kind of ticket: a signature that was accepted
)

// luminaID is a keyId as it stands in a path.
var luminaID = wire.NewPattern(`^[1-9][0-9]{0,15}$`)

// lumina is the server half of Lumina's protocol.
type lumina struct {
	mint       minter
	now        func() time.Time
	uses       *lastUse
	paid       []string // wallets, in lower case
	free, fast *keyLimit
	late       latecomers
}

func newLumina(d deps) protocol {
	l := &lumina{
		mint: d.mint, now: d.Now, uses: d.uses,
		free: d.usage.limit("lumina/free", wire.LuminaFreeRPM, time.Minute, d.Now),
		fast: d.usage.limit("lumina/paid", wire.LuminaPaidRPM, time.Minute, d.Now),
	}
	for _, text := range d.env.list(luminaPaidVar) {
		wallet, err := eip191.ParseAddress(text)
		if err != nil {
			d.env.wrong(luminaPaidVar, "want Ethereum addresses separated by commas: %v", err)
		}
		l.paid = append(l.paid, wallet)
	}
	return l
}

func (*lumina) name() string { return wire.LuminaName }

func (l *lumina) routes() []route {
	return []route{
		post(wire.LuminaOnboardPath, http.StatusCreated, l.onboard).registering(),
		get(wire.LuminaKeysPath, l.list),
		del(wire.LuminaKeysPath+"/{keyId}", http.StatusNoContent, l.revoke),
		rest("/api/v1/agent"),
	}
}

// refuse implements protocol.
func (*lumina) refuse(p *problem) (int, any) {
	code := cmp.Or(p.code, luminaCodes()[p.kind])
	return p.kind.status(), wire.LuminaError{Error: code, Code: code, Message: p.message}
}

// luminaCodes says which code a kind of problem has that brings none.
func luminaCodes() map[kind]string {
	return map[kind]string{
		kindInvalid:      wire.LuminaInvalidBody,
		kindTooLarge:     wire.LuminaInvalidBody,
		kindMediaType:    wire.LuminaInvalidBody,
		kindMethod:       wire.LuminaInvalidBody,
		kindNotFound:     wire.LuminaNotFound,
		kindUnauthorized: wire.LuminaInvalidAPIKey,
		kindConflict:     wire.LuminaCapReached,
		kindLimited:      wire.LuminaRateLimit,
		kindUnavailable:  wire.LuminaInternal,
		kindInternal:     wire.LuminaInternal,
	}
}

// luminaBody is what is sent to onboard. What is wrong with its form is said
// before a limit is spent; what is wrong with its time or its signature, after.
type luminaBody struct{ wire.LuminaOnboardRequest }

func (b luminaBody) check() error {
	_, err := eip191.ParseAddress(b.WalletAddress)
	switch {
	case err != nil:
		return invalid("walletAddress must be 0x and 40 hex digits, all in one case or with the EIP-55 checksum")
	case !wire.CheckLuminaSignature(b.Signature):
		return invalid("signature must be 0x and 130 hex digits: 65 bytes")
	case b.Timestamp == nil:
		return invalid("timestamp must be the time in whole seconds since 1970")
	case !wire.CheckLuminaLabel(b.Label):
		return invalid("label must be at most 50 characters without control characters")
	case wire.Mask(b.Label) != b.Label:
		return invalid("label is public, and this one looks like a key")
	}
	return nil
}

// onboard issues a key to whoever shows by a signature that the wallet is
// theirs.
func (l *lumina) onboard(ctx context.Context, c *call, in luminaBody) (wire.LuminaOnboarded, error) {
	var none wire.LuminaOnboarded
	wallet, err := eip191.ParseAddress(in.WalletAddress)
	if err != nil {
		return none, err
	}
	key, cred, err := l.newKey(in.Label)
	if err != nil {
		return none, err
	}
	var seen store.Ticket
	var issued store.Credential
	err = c.proven(ctx, limit{"onboard", 10, time.Hour}, &l.late, func() (err error) {
		c.agent = wallet
		seen, err = l.proven(wallet, in)
		return err
	}, func(tx *store.Tx) (err error) {
		issued, err = issueLumina(tx, c, wallet, cred, seen)
		return err
	})
	if err != nil {
		return none, err
	}
	keyID, err := strconv.ParseInt(issued.KeyID, 10, 64)
	if err != nil {
		return none, err
	}
	return wire.LuminaOnboarded{
		OK: true, APIKey: key, KeyID: keyID, Wallet: wallet, Tier: l.tier(wallet), Label: luminaLabel(issued),
		CreatedAt: wire.MilliTime(issued.CreatedAt),
		RateLimit: wire.LuminaRateLimits{
			Free: wire.LuminaRPM{RPM: wire.LuminaFreeRPM},
			Paid: wire.LuminaRPM{RPM: wire.LuminaPaidRPM},
		},
		Warning: "Store this key now: it is not shown again.",
	}, nil
}

// proven judges the time and the signature of an onboarding, and returns the
// ticket that makes the signature good for one.
func (l *lumina) proven(wallet string, in luminaBody) (store.Ticket, error) {
	now, at := l.now().Unix(), *in.Timestamp
	if at < now-wire.LuminaWindowSeconds || at > now+wire.LuminaWindowSeconds {
		p := invalid("the timestamp is more than %d seconds off; here it is %d", wire.LuminaWindowSeconds, now)
		p.code = wire.LuminaStaleTimestamp
		return store.Ticket{}, p
	}
	wrong := unauthorized(wire.LuminaInvalidSignature, "the signature is not one of the message by walletAddress: "+
		"want personal_sign of it, 65 bytes, v 0, 1, 27 or 28, the low s, and the address spelled as in walletAddress")
	signature, err := eip191.ParseSignature(in.Signature)
	if err != nil {
		return store.Ticket{}, wrong
	}
	signer, err := signature.Recover(wire.LuminaMessage(in.WalletAddress, at))
	if err != nil || signer != wallet {
		return store.Ticket{}, wrong
	}
	// It is nobody's: it must stay when the wallet's agent is deleted.
	return store.Ticket{
		Protocol: wire.LuminaName, Kind: luminaSeen, Hash: digest(string(signature[:])),
		ExpiresAt: time.Unix(at+wire.LuminaWindowSeconds+1, 0),
	}, nil
}

// newKey makes a key and what is stored of it. The keyId is a random number,
// small enough for a float: it tells nobody how many keys there are.
func (l *lumina) newKey(label string) (key string, c store.Credential, err error) {
	var secret [secretBytes]byte
	var id [8]byte
	for _, raw := range [][]byte{secret[:], id[2:]} {
		if _, err := io.ReadFull(l.mint.rand, raw); err != nil {
			return "", c, fmt.Errorf("read random bytes: %w", err)
		}
	}
	key = wire.FormatLuminaKey(secret)
	return key, store.Credential{
		Kind: luminaKey, KeyID: strconv.FormatUint(binary.BigEndian.Uint64(id[:])|1, 10), Hash: digest(key), Label: label,
	}, nil
}

// issueLumina uses the signature up and stores the key. What refuses it undoes
// both: a signature that met the cap is good again when there is room.
func issueLumina(tx *store.Tx, c *call, wallet string, cred store.Credential, seen store.Ticket) (store.Credential, error) {
	agent, _, err := tx.EnsureAgent(store.Agent{Protocol: wire.LuminaName, Name: wallet, DisplayName: wallet})
	if err != nil {
		return cred, err
	}
	if err := suspended(agent); err != nil {
		return cred, err
	}
	err = tx.OpenTicket(seen, false)
	if errors.Is(err, store.ErrExists) {
		return cred, unauthorized(wire.LuminaInvalidSignature, "this signature was accepted before: sign again with the time of now")
	}
	if err != nil {
		return cred, err
	}
	cred.AgentID = agent.ID
	cred, err = tx.Issue(cred, wire.LuminaMaxKeys)
	if errors.Is(err, store.ErrCap) {
		return cred, conflict(wire.LuminaCapReached, fmt.Sprintf("the wallet has %d active keys: revoke one first", wire.LuminaMaxKeys))
	}
	if err != nil {
		return cred, err
	}
	event := c.event("key_issued")
	event.KeyID = cred.KeyID
	return cred, tx.Audit(event)
}

// authenticate returns the key that a call comes with, and counts it.
func (l *lumina) authenticate(ctx context.Context, c *call) (store.Credential, error) {
	cred, err := l.holder(ctx, c)
	if err != nil {
		return cred, err
	}
	limit := l.free
	if l.tier(cred.AgentName) == wire.LuminaPaid {
		limit = l.fast
	}
	if err := limit.hit(ctx, cred.ID); err != nil {
		return cred, err
	}
	l.uses.note(cred.ID, l.now())
	return cred, nil
}

// holder is authenticate without the count.
func (*lumina) holder(ctx context.Context, c *call) (store.Credential, error) {
	if c.Header.Get(wire.LuminaKeyHeader) == "" {
		return store.Credential{}, unauthorized(wire.LuminaMissingAPIKey, "send a key in the header x-api-key")
	}
	cred, err := authenticate(ctx, c.store, wire.LuminaName, c.sent(wire.LuminaKeyHeader))
	if errors.Is(err, store.ErrNotFound) {
		return cred, unauthorized(wire.LuminaInvalidAPIKey, "the key is unknown or revoked: onboard for a new one")
	}
	if err != nil {
		return cred, err
	}
	c.agent, c.keyID = cred.AgentName, cred.KeyID
	return cred, nil
}

// list answers with the active keys of the wallet.
func (l *lumina) list(ctx context.Context, c *call) (wire.LuminaKeys, error) {
	var none wire.LuminaKeys
	cred, err := l.authenticate(ctx, c)
	if err != nil {
		return none, err
	}
	active, err := c.store.Credentials(ctx, cred.AgentID, luminaKey, wire.LuminaMaxKeys)
	if err != nil {
		return none, err
	}
	out := wire.LuminaKeys{OK: true, Wallet: cred.AgentName, Keys: []wire.LuminaKey{}}
	for _, a := range active {
		keyID, err := strconv.ParseInt(a.KeyID, 10, 64)
		if err != nil {
			return none, err
		}
		k := wire.LuminaKey{KeyID: keyID, Label: luminaLabel(a), CreatedAt: wire.MilliTime(a.CreatedAt), Tier: l.tier(a.AgentName)}
		if used := l.uses.of(a); !used.IsZero() {
			k.LastUsedAt = new(wire.MilliTime(used))
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

// revoke ends a key of the wallet, also the one that it is called with.
func (l *lumina) revoke(ctx context.Context, c *call) (answered, error) {
	cred, err := l.authenticate(ctx, c)
	if err != nil {
		return answered{}, err
	}
	id := c.PathValue("keyId")
	if !luminaID.MatchString(id) {
		p := invalid("a keyId is a whole number")
		p.code = wire.LuminaInvalidID
		return answered{}, p
	}
	var ended bool
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		target, err := tx.CredentialByID(cred.AgentID, luminaKey, id)
		if errors.Is(err, store.ErrNotFound) {
			p := notFound()
			p.code, p.message = wire.LuminaKeyNotFound, "the wallet has no such key"
			return p
		}
		if err != nil {
			return err
		}
		if ended, err = tx.Revoke(target.ID); err != nil || !ended {
			return err
		}
		event := c.event("key_revoked")
		event.KeyID = id
		return tx.Audit(event)
	})
	if err != nil || ended {
		return answered{status: http.StatusNoContent}, err
	}
	return answered{status: http.StatusOK, body: wire.LuminaAlreadyRevoked{OK: true, AlreadyRevoked: true}}, nil
}

// tier is what a wallet may do.
func (l *lumina) tier(wallet string) string {
	if slices.Contains(l.paid, wallet) {
		return wire.LuminaPaid
	}
	return wire.LuminaFree
}

// luminaLabel is a label as it goes over the wire.
func luminaLabel(c store.Credential) *string {
	if c.Label == "" {
		return nil
	}
	return &c.Label
}

// limitsOf implements limiter.
func (l *lumina) limitsOf(a store.Agent, keys []store.Credential) []LimitInfo {
	return perKey(keys, func(store.Credential) *keyLimit {
		if l.tier(a.Name) == wire.LuminaPaid {
			return l.fast
		}
		return l.free
	})
}
