package embeddedgateway

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	fluxraVerifyTime = wire.FluxraVerificationSeconds * time.Second
	fluxraCodeTime   = wire.FluxraRecoverySeconds * time.Second
	fluxraCodeTries  = 5 // wrong codes until the right one is void, too

	sealedAddress = "sealed_email" // what a ticket carries to the credential that comes of it

	fluxraFirstLetters = 5 // to one address in an hour, by registering
)

// verification is what an email address is verified with: a token, and the
// letter that brings it.
type verification struct {
	email  [32]byte
	ticket store.Ticket
	sealed store.Sealed
}

// newVerification makes a token and encloses it in a letter about an agent.
func (f *fluxra) newVerification(address, agentID, agentName string) (*verification, error) {
	secret, err := f.mint.secret()
	if err != nil {
		return nil, err
	}
	token := wire.FormatFluxraMailToken(secret)
	sealed, err := sealEmail(f.vault, agentID, address)
	if err != nil {
		return nil, err
	}
	v := &verification{email: f.emailHash(address)}
	v.ticket = store.Ticket{
		Protocol: wire.FluxraName, Kind: fluxraVerification, Hash: digest(token), Subject: agentID,
		Data:      map[string]string{"email": hex.EncodeToString(v.email[:]), sealedAddress: sealed},
		ExpiresAt: f.Now().Add(fluxraVerifyTime),
	}
	l, err := f.verificationLetter(address, agentID, agentName, token, v.ticket.ExpiresAt)
	if err != nil {
		return nil, err
	}
	v.sealed, err = f.mail.enclose(l)
	return v, err
}

// await notes whom a letter that is asked for again is about: the agent that was
// registered with the address last, as long as nobody has verified it.
func (v *verification) await(tx *store.Tx, agentID string) error {
	if err := tx.DropTicket(wire.FluxraName, fluxraUnverified, v.email); err != nil {
		return err
	}
	return tx.OpenTicket(store.Ticket{
		Protocol: wire.FluxraName, Kind: fluxraUnverified, Hash: v.email, Subject: agentID,
	}, false)
}

// sendFirst sends the letter of a registration, and reports whether it does.
// Anybody can register with anybody's address, from as many addresses of the
// network as they have: nobody gets more letters by it than a few. That one is
// not sent is said to whoever registers; it tells how often somebody did so with
// the address, and not whether it is verified for anyone.
func (v *verification) sendFirst(tx *store.Tx, c *call, agentID string) (sent bool, err error) {
	wait, err := tx.Hit(c.protocol+"/register-email/"+hex.EncodeToString(v.email[:]), fluxraFirstLetters, time.Hour)
	if err != nil {
		return false, err
	}
	if wait > 0 {
		if err := v.await(tx, agentID); err != nil {
			return false, err
		}
		return false, dontQueue(tx, c, "verification")
	}
	return true, v.send(tx, c, agentID)
}

// send stores the token, in the place of those that the agent had before, and
// the letter.
func (v *verification) send(tx *store.Tx, c *call, agentID string) error {
	if err := v.await(tx, agentID); err != nil {
		return err
	}
	if err := tx.OpenTicket(v.ticket, true); err != nil {
		return err
	}
	return queue(tx, c, agentID, v.sealed, "verification")
}

// queue stores a letter that goes out.
func queue(tx *store.Tx, c *call, agentID string, sealed store.Sealed, what string) error {
	if err := tx.Seal(sealed); err != nil {
		return err
	}
	event := c.event("mail_queued")
	event.Agent, event.Detail = agentID, what
	return tx.Audit(event)
}

// dontQueue leaves the same trace as [queue] where there is nobody to write to.
func dontQueue(tx *store.Tx, c *call, what string) error {
	event := c.event("mail_declined")
	event.Detail = what
	return tx.Audit(event)
}

// verifyLink verifies an email address by the link in a letter. It is a GET,
// because that is what a link does; but a HEAD, by which mail scanners look
// links up, uses nothing up.
func (f *fluxra) verifyLink(ctx context.Context, c *call) (answered, error) {
	html := prefersHTML(c.Header.Values("Accept"))
	if c.Method == http.MethodHead {
		return f.headOfPage(html), nil
	}
	tokens := c.URL.Query()["token"]
	if len(tokens) != 1 {
		return answered{}, f.withPage(html, invalid("want one token in the query"))
	}
	out, err := f.verifyEmail(ctx, c, fluxraVerifyBody{wire.FluxraVerifyEmailRequest{Token: tokens[0]}})
	if err != nil {
		return answered{}, f.withPage(html, err)
	}
	if !html {
		return answered{status: http.StatusOK, body: out}, nil
	}
	name, err := f.displayName(ctx, c, out.AgentID)
	if err != nil {
		return answered{}, err
	}
	return f.verifiedPage(name, out.AgentID)
}

// fluxraVerifyBody is what is sent to verify an email address.
type fluxraVerifyBody struct{ wire.FluxraVerifyEmailRequest }

func (b fluxraVerifyBody) check() error {
	if b.Token == "" {
		return invalid("token is missing")
	}
	return nil
}

// verifyEmail uses a token up. From then on the address is that agent's alone.
func (f *fluxra) verifyEmail(ctx context.Context, c *call, in fluxraVerifyBody) (wire.FluxraEmailVerified, error) {
	var none wire.FluxraEmailVerified
	if err := in.check(); err != nil {
		return none, err
	}
	hash := digest(in.Token)
	keyID, err := f.mint.keyID()
	if err != nil {
		return none, err
	}
	var agentID string
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		t, err := tx.Ticket(wire.FluxraName, fluxraVerification, hash)
		if err == nil {
			t, err = tx.Redeem(wire.FluxraName, fluxraVerification, hash, t.Subject)
		}
		var agent store.Agent
		if err == nil {
			agent, err = tx.Agent(wire.FluxraName, t.Subject)
		}
		if errors.Is(err, store.ErrNotFound) || err == nil && !agent.DisabledAt.IsZero() {
			return badToken("the token is unknown, was used or has expired: ask for a new one")
		}
		if err != nil {
			return err
		}
		agentID = agent.Name
		return claimEmail(tx, c, agent, t, keyID)
	})
	if err != nil {
		return none, err
	}
	return wire.FluxraEmailVerified{AgentID: agentID, EmailVerified: true, Message: wire.FluxraVerified}, nil
}

func badToken(message string) *problem {
	return challenged(wire.FluxraInvalidToken, fluxraBearerChallenge, message)
}

// claimEmail makes an email address the agent's. Who brings the token reads
// what comes to that address, so they may learn that it is another agent's.
func claimEmail(tx *store.Tx, c *call, agent store.Agent, t store.Ticket, keyID string) error {
	cred := store.Credential{AgentID: agent.ID, Kind: fluxraEmail, KeyID: keyID, Label: t.Data[sealedAddress]}
	if n, err := hex.Decode(cred.Hash[:], []byte(t.Data["email"])); err != nil || n != len(cred.Hash) {
		return errors.New("a verification token without its email address")
	}
	_, err := tx.Issue(cred, 0)
	if errors.Is(err, store.ErrExists) {
		return badToken("this email address is verified for another agent: it can be so for one only")
	}
	if err != nil {
		return err
	}
	if err := tx.DropTicket(wire.FluxraName, fluxraUnverified, cred.Hash); err != nil {
		return err
	}
	event := c.event("email_verified")
	event.Agent = agent.Name
	return tx.Audit(event)
}

// fluxraEmailBody is what is sent to get a letter.
type fluxraEmailBody struct{ wire.FluxraEmailRequest }

func (b fluxraEmailBody) check() error {
	if b.Email == "" {
		return invalid("email is missing")
	}
	if _, ok := fluxraAddress(b.Email); !ok {
		return badEmail()
	}
	return nil
}

// resend queues the letter of registering once more, if an agent waits for it.
// Whether one does shows neither in the answer nor in the work: a token is made
// and a letter enclosed in any case, and then stored or not.
func (f *fluxra) resend(ctx context.Context, c *call, in fluxraEmailBody) (answered, error) {
	address, _ := fluxraAddress(in.Email)
	email := f.emailHash(address)
	header, err := f.spendBoth(ctx, c, "resend", email)
	if err != nil {
		return answered{}, err
	}
	waiting, err := c.store.Ticket(ctx, wire.FluxraName, fluxraUnverified, email)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return answered{}, err
	}
	name, err := f.displayName(ctx, c, waiting.Subject)
	if err != nil {
		return answered{}, err
	}
	v, err := f.newVerification(address, waiting.Subject, name)
	if err != nil {
		return answered{}, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		_, taken := tx.Credential(wire.FluxraName, email)
		if taken != nil && !errors.Is(taken, store.ErrNotFound) {
			return taken
		}
		now, err := tx.Ticket(wire.FluxraName, fluxraUnverified, email)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		agent, err := tx.Agent(wire.FluxraName, now.Subject)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && taken != nil && now.Subject == waiting.Subject && agent.DisabledAt.IsZero() {
			return v.send(tx, c, agent.Name)
		}
		return dontQueue(tx, c, "verification")
	})
	if err != nil {
		return answered{}, err
	}
	f.mail.wake()
	return answered{status: http.StatusOK, header: header, body: wire.FluxraMessage{Message: wire.FluxraResent}}, nil
}

// displayName is what an agent is called, for a letter; nobody is called
// nothing.
func (*fluxra) displayName(ctx context.Context, c *call, agentID string) (string, error) {
	agent, err := c.store.Agent(ctx, wire.FluxraName, agentID)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return agent.DisplayName, err
}

// requestCode queues a letter with a recovery code, if the address is verified
// for an agent. It is as silent about that as resend.
func (f *fluxra) requestCode(ctx context.Context, c *call, in fluxraEmailBody) (answered, error) {
	address, _ := fluxraAddress(in.Email)
	email := f.emailHash(address)
	header, err := f.spendBoth(ctx, c, "recovery", email)
	if err != nil {
		return answered{}, err
	}
	holder, err := c.store.Authenticate(ctx, wire.FluxraName, email)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return answered{}, err
	}
	name, err := f.displayName(ctx, c, holder.AgentName)
	if err != nil {
		return answered{}, err
	}
	code, err := f.newCode()
	if err != nil {
		return answered{}, err
	}
	t := store.Ticket{
		Protocol: wire.FluxraName, Kind: fluxraCode, Hash: f.codeHash(address, code), Subject: holder.AgentName,
		ExpiresAt: f.Now().Add(fluxraCodeTime),
	}
	l, err := f.codeLetter(address, holder.AgentName, name, code, t.ExpiresAt)
	if err != nil {
		return answered{}, err
	}
	sealed, err := f.mail.enclose(l)
	if err != nil {
		return answered{}, err
	}
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		agentID, err := verifiedFor(tx, email)
		if err != nil {
			return err
		}
		worn, err := wornOut(tx, c, email)
		if err != nil {
			return err
		}
		if worn || agentID == "" || agentID != t.Subject {
			return dontQueue(tx, c, "recovery")
		}
		// Six digits come again now and then: what an earlier code was is no
		// reason to draw another.
		if err := tx.DropTicket(t.Protocol, t.Kind, t.Hash); err != nil {
			return err
		}
		if err := tx.OpenTicket(t, true); err != nil {
			return err
		}
		return queue(tx, c, agentID, sealed, "recovery")
	})
	if err != nil {
		return answered{}, err
	}
	f.mail.wake()
	return answered{status: http.StatusOK, header: header, body: wire.FluxraRecoveryRequested{
		Email: in.Email, CodeExpiresAt: wire.SecondTime(t.ExpiresAt), Message: wire.FluxraRequested,
	}}, nil
}

// verifiedFor is the agent that an email address is verified for, or "".
func verifiedFor(tx *store.Tx, email [32]byte) (agentID string, err error) {
	holder, err := tx.Credential(wire.FluxraName, email)
	if errors.Is(err, store.ErrNotFound) || err == nil && !holder.ActiveAt(tx.Now()) {
		return "", nil
	}
	return holder.AgentName, err
}

// newCode draws six digits, each number as likely as any other.
func (f *fluxra) newCode() (string, error) {
	const codes = 1_000_000
	raw := make([]byte, 8)
	if _, err := io.ReadFull(f.mint.rand, raw); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	// Of 2^64 numbers, one code gets at most one more than another.
	return fmt.Sprintf("%06d", binary.BigEndian.Uint64(raw)%codes), nil
}

// codeHash is what is stored of a code: a million of them are soon tried, but
// not without the key.
func (f *fluxra) codeHash(address, code string) [32]byte {
	return f.vault.mac(wire.FluxraName, "code", address, code)
}

// fluxraCodeBody is what is sent to recover an account.
type fluxraCodeBody struct {
	wire.FluxraRecoveryVerifyRequest
}

func (b fluxraCodeBody) check() error {
	if err := (fluxraEmailBody{wire.FluxraEmailRequest{Email: b.Email}}).check(); err != nil {
		return err
	}
	if !wire.CheckFluxraCode(b.Code) {
		return invalid("code must be the six digits of the letter")
	}
	return nil
}

// recover issues a recovery key for a code, in the place of the one before. The
// API keys stay: who recovers has lost a key and need not stop what runs, and
// can end each of them with the new one.
func (f *fluxra) recover(ctx context.Context, c *call, in fluxraCodeBody) (wire.FluxraRecoveredKey, error) {
	var none wire.FluxraRecoveredKey
	address, _ := fluxraAddress(in.Email)
	email, hash := f.emailHash(address), f.codeHash(address, in.Code)
	key, cred, err := f.newRecoveryKey()
	if err != nil {
		return none, err
	}
	var refusal *problem
	err = c.store.Tx(ctx, func(tx *store.Tx) error {
		refusal = nil
		if err := guessed(tx, c); err != nil {
			return err
		}
		agentID, err := verifiedFor(tx, email)
		if err != nil {
			return err
		}
		c.agent = agentID
		worn, err := wornOut(tx, c, email)
		if err != nil {
			return err
		}
		err = store.ErrNotFound
		if !worn {
			_, err = tx.Redeem(wire.FluxraName, fluxraCode, hash, agentID)
		}
		if errors.Is(err, store.ErrNotFound) {
			// What is counted here stays: the refusal is not this one's error.
			refusal, err = wrongCode(tx, c, agentID, email, hash)
		}
		if err != nil || refusal != nil {
			return err
		}
		agent, err := tx.Agent(wire.FluxraName, agentID)
		if err != nil {
			return err
		}
		cred.AgentID = agent.ID
		if _, _, err := rotate(tx, cred); err != nil {
			return err
		}
		event := c.event("recovery_key_reset")
		event.KeyID = cred.KeyID
		return tx.Audit(event)
	})
	if err != nil {
		return none, err
	}
	if refusal != nil {
		return none, refusal
	}
	return wire.FluxraRecoveredKey{AgentID: c.agent, RecoveryKey: key, Message: wire.FluxraRecovered}, nil
}
