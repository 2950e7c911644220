package embeddedgateway

import (
	"context"
	"errors"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// attemptLife is for how long an attempt can be repeated.
	attemptLife = 24 * time.Hour

	// What the ticket of an attempt carries, all of it public.
	attemptIssued   = "key_id"   // of the credential that was issued
	attemptReplaced = "replaced" // the key_id of the one that it took the place of

	// attemptRepeated is what the audit trail says of a repeated attempt.
	attemptRepeated = "the same attempt again, by its idempotency key"
)

// attempt is what the Idempotency-Key of a request names: one try to be issued
// something, however often it is sent. A client whose answer was lost has nothing
// else to prove by that it is the one who was issued what nobody got, so it may
// try again with the same key: then what was issued ends, and another is issued
// in its place. That is nobody's loss, because the key is known to whoever made
// the attempt only; and once something else was issued to the agent, or what was
// issued has ended, the attempt is over, and its key proves nothing.
//
// What is stored is a ticket with a MAC of the key, on behalf of the agent; it
// is never redeemed.
type attempt struct {
	protocol, kind string
	hash           [32]byte
	named          bool // the request has a key
}

// attemptOf reads the Idempotency-Key of a request for an operation. None is no
// mistake; one that cannot be read is.
func attemptOf(c *call, v *vault, op string) (attempt, error) {
	key, err := c.attemptKey()
	if err != nil || key == "" {
		return attempt{}, err
	}
	return attempt{protocol: c.protocol, kind: "attempt:" + op, hash: v.mac(c.protocol, "attempt", op, key), named: true}, nil
}

// attemptKey returns the Idempotency-Key of a request, or "" where it has none.
func (c *call) attemptKey() (string, error) {
	values := c.Header.Values(wire.IdempotencyHeader)
	if len(values) == 0 {
		return "", nil
	}
	if key, ok := wire.ParseIdempotencyKey(values[0]); ok && len(values) == 1 {
		return key, nil
	}
	return "", invalid("%s must be one string of 32 to 255 printable ASCII characters in double quotes", wire.IdempotencyHeader)
}

// wellNamed refuses an Idempotency-Key that cannot be read before anything is
// counted: a mistake costs nothing.
func wellNamed(_ context.Context, c *call) error {
	_, err := c.attemptKey()
	return err
}

// before returns what is remembered of the same attempt, if there was one.
func (a attempt) before(tx *store.Tx) (store.Ticket, bool, error) {
	if !a.named {
		return store.Ticket{}, false, nil
	}
	t, err := tx.Ticket(a.protocol, a.kind, a.hash)
	if errors.Is(err, store.ErrNotFound) {
		return store.Ticket{}, false, nil
	}
	return t, err == nil && tx.Now().Before(t.ExpiresAt), err
}

// repeats reports whether the attempt was made before for the agent and answered
// with a credential of that kind which has not ended since, and returns what is
// remembered. An attempt of another agent is refused with a protocol's code. The
// agent's row is to be locked.
func (a attempt) repeats(tx *store.Tx, agent store.Agent, kind, code string) (store.Ticket, bool, error) {
	t, ok, err := a.before(tx)
	if err != nil || !ok {
		return t, false, err
	}
	if t.Subject != agent.Name {
		return t, false, reused(code)
	}
	if !agent.DisabledAt.IsZero() {
		return t, false, nil
	}
	issued, err := tx.CredentialByID(agent.ID, kind, t.Data[attemptIssued])
	if errors.Is(err, store.ErrNotFound) {
		return t, false, nil
	}
	return t, err == nil && issued.RevokedAt.IsZero(), err
}

// remember notes what the attempt was answered with, for a day from now. What is
// remembered of other attempts of the agent goes: they are over.
func (a attempt) remember(tx *store.Tx, agent string, data map[string]string) error {
	if !a.named {
		return nil
	}
	if err := tx.DropTicket(a.protocol, a.kind, a.hash); err != nil {
		return err
	}
	err := tx.OpenTicket(store.Ticket{
		Protocol: a.protocol, Kind: a.kind, Hash: a.hash, Subject: agent, Data: data, ExpiresAt: tx.Now().Add(attemptLife),
	}, true)
	if errors.Is(err, store.ErrExists) {
		return unavailable() // the same attempt at the same moment: it comes again
	}
	return err
}

// reused refuses a key that names another attempt.
func reused(code string) *problem {
	return conflict(code, "this Idempotency-Key was sent with another request before: make another key for another attempt")
}
