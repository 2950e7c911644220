package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// agentDoorFresh is how old a challenge may be, or how far ahead.
	agentDoorFresh = 10 * time.Minute
	// agentDoorSkew is by how much a service's clock may differ from ours: what
	// it says of the time beyond that is not believed.
	agentDoorSkew = time.Hour
	// agentDoorExact is a difference of clocks that does not matter.
	agentDoorExact = 30 * time.Second
	// agentDoorSignings is how often a request for a JWT is signed at most.
	agentDoorSignings = 3
)

// makePair makes a key pair, as it is stored before anything is asked for with it.
func (a *AgentDoor) makePair(k credstore.Key) (credstore.Credential, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return credstore.Credential{}, err
	}
	return credstore.Credential{
		Secret: credstore.NewSecret(base64.StdEncoding.EncodeToString(private.Seed())),
		Info: credstore.Info{
			Key: k, State: credstore.StatePending, KeyID: base64.StdEncoding.EncodeToString(public),
			CreatedAt: a.now().UTC().Truncate(time.Millisecond),
		},
	}, nil
}

// openPair returns the private key of a stored key pair.
func openPair(c credstore.Credential) (ed25519.PrivateKey, error) {
	seed, err := base64.StdEncoding.DecodeString(c.Secret.Reveal())
	if err == nil && len(seed) == ed25519.SeedSize {
		private := ed25519.NewKeyFromSeed(seed)
		if publicKey(private) == c.KeyID {
			return private, nil
		}
	}
	return nil, &credstore.Error{
		Op: "use", Place: "the key pair of " + c.Agent, Kind: credstore.ErrDamaged,
		Remedy: "forget it, then register again",
	}
}

// publicKey returns the public half as it goes over the wire.
func publicKey(private ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(private[ed25519.SeedSize:])
}

// sign signs a message. Whoever reads a signature could use it for a while.
func (a *AgentDoor) sign(private ed25519.PrivateKey, message string) string {
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(message)))
	a.http.scrub.learn(credstore.NewSecret(signature))
	return signature
}

// Why a challenge is not signed. A service chooses what it wants signed: it
// could be what another service wants of the same key, or a request for a JWT.
var (
	errChallengeAgent = errors.New("its agent_id is not one of the protocol")
	errChallengeNonce = errors.New("its nonce is missing, or holds characters that no nonce has")
	errChallengeForm  = errors.New("its message is not the one of this registration")
	errChallengeStale = errors.New("its time is not now: the message is of another registration, or a clock is wrong")
)

// challengeMessage returns what may be signed of a challenge: the message for
// exactly this agent_id and nonce, of a time that is now by our clock or by
// the service's.
func (a *AgentDoor) challengeMessage(p wire.AgentDoorPending, header http.Header) (string, error) {
	const printed = "!\"#$%&'()*+,-./0123456789;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
	nonce := p.Challenge.Nonce
	switch {
	case !wire.CheckAgentDoorAgentID(p.AgentID):
		return "", errChallengeAgent
	case nonce == "" || len(nonce) > 512 || strings.Trim(nonce, printed) != "":
		return "", errChallengeNonce
	}
	rest, ok := strings.CutSuffix(p.Challenge.Message, ":"+nonce)
	stamp := rest[strings.LastIndexByte(rest, ':')+1:]
	unix, err := strconv.ParseInt(stamp, 10, 64)
	message := wire.AgentDoorChallengeMessage(p.AgentID, unix, nonce)
	if !ok || err != nil || message != p.Challenge.Message {
		return "", errChallengeForm
	}
	issued, now := time.Unix(unix, 0), a.now()
	if skew, ok := a.skewIn(header); near(issued, now, agentDoorFresh) || ok && near(issued, now.Add(skew), agentDoorFresh) {
		return message, nil
	}
	return "", errChallengeStale
}

func near(a, b time.Time, within time.Duration) bool {
	return a.Sub(b).Abs() <= within
}

// skewIn returns how far a service's clock is ahead of ours by its Date header,
// where that is believable and more than the header's own coarseness.
func (a *AgentDoor) skewIn(header http.Header) (time.Duration, bool) {
	at, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, false
	}
	skew := at.Sub(a.now())
	return skew, skew.Abs() > agentDoorExact && skew.Abs() <= agentDoorSkew
}

// signIn gets a JWT with a key pair. The caller holds its lock.
func (a *AgentDoor) signIn(ctx context.Context, c credstore.Credential, agentID, path string) (credstore.Credential, error) {
	op := call{protocol: wire.AgentDoorName, origin: c.Origin, op: "get a token"}
	if !wire.CheckAgentDoorAgentID(agentID) {
		return credstore.Credential{}, op.fail(CodeChallenge, errChallengeAgent)
	}
	private, err := openPair(c)
	if err != nil {
		return credstore.Credential{}, err
	}
	for n := 1; ; n++ {
		stamp := a.timestamp(c.Key)
		ans, err := a.post(ctx, op, path, wire.AgentDoorAuthRequest{
			AgentID: agentID, Timestamp: stamp, Signature: a.sign(private, wire.AgentDoorAuthMessage(agentID, stamp)),
		}, false)
		switch {
		case err == nil:
			return a.issuedToken(op, ans, agentID)
		case n == agentDoorSignings:
			return credstore.Credential{}, err
		case isRefusal(err, wire.AgentDoorTimestampInvalid):
			// Signing is deterministic: the same key at the same time, in
			// another process most likely, gives a signature that is used up.
			// Or one of the clocks is wrong: the service's is what counts.
			skew, ok := a.skewIn(ans.header)
			a.remember(c.Key, func(s *agentDoorSeen) {
				if s.signed = s.signed.Add(time.Second); ok && n == 1 {
					s.skew, s.signed = skew, time.Time{}
				}
			})
		case !passing(err) || !a.http.pause(ctx, firstPause):
			return credstore.Credential{}, err
		}
	}
}

// passing reports whether a request that does no harm twice is worth another try.
func passing(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.RetryAfter == 0 && (e.Code == CodeUnreachable || e.Status >= http.StatusInternalServerError)
}

// timestamp returns a time for a key pair to sign that is later than any that
// it has signed.
func (a *AgentDoor) timestamp(k credstore.Key) string {
	s := a.remember(k, func(s *agentDoorSeen) {
		at := a.now().Add(s.skew).UTC().Truncate(time.Millisecond)
		if !at.After(s.signed) {
			at = s.signed.Add(time.Millisecond)
		}
		s.signed = at
	})
	return wire.MilliTime(s.signed).String()
}

// issuedToken returns the JWT in an answer. It is opaque; the fields for its
// end differ from route to route.
func (a *AgentDoor) issuedToken(op call, ans answer, agentID string) (credstore.Credential, error) {
	var fields map[string]json.RawMessage
	if err := a.http.decode(op, ans, &fields); err != nil {
		return credstore.Credential{}, err
	}
	t, ok := a.issuedSecret(fields, "token", agentID)
	if !ok {
		return t, op.unreadable(ans, "the answer has no token that could be put into a header")
	}
	t.ExpiresAt = agentDoorTime(fields["expires_at"])
	if t.ExpiresAt.IsZero() {
		t.ExpiresAt = agentDoorTime(fields["token_expires_at"])
	}
	if skew, ok := a.skewIn(ans.header); ok && !t.ExpiresAt.IsZero() {
		t.ExpiresAt = t.ExpiresAt.Add(-skew) // by our clock, which is the one that is looked at
	}
	if !t.ExpiresAt.After(a.now()) {
		t.ExpiresAt = time.Time{} // a clock is wrong: it is used until it is refused
	}
	return t, nil
}

// issuedSecret returns a field of an answer as what is stored of it, all but
// under which key.
func (a *AgentDoor) issuedSecret(fields map[string]json.RawMessage, name, agentID string) (credstore.Credential, bool) {
	var text string
	if json.Unmarshal(fields[name], &text) != nil || !presentable(text, minSecret) {
		return credstore.Credential{}, false
	}
	secret := credstore.NewSecret(text)
	a.http.scrub.learn(secret) // before anything else of the answer is looked at
	return credstore.Credential{Secret: secret, Info: credstore.Info{
		State: credstore.StateActive, KeyID: fingerprint(secret),
		CreatedAt: a.now().UTC().Truncate(time.Millisecond), Attrs: map[string]string{agentDoorAgentID: agentID},
	}}, true
}

// agentDoorTime reads a time: RFC 3339, or seconds since 1970. What cannot be
// read is no time: the token is used until it is refused.
func agentDoorTime(raw json.RawMessage) time.Time {
	var at wire.MilliTime
	if string(raw) != "null" && json.Unmarshal(raw, &at) == nil && at.Time().Unix() > 0 && at.Time().Year() < 9999 {
		return at.Time().UTC()
	}
	var seconds int64
	if json.Unmarshal(raw, &seconds) == nil && seconds > 0 && seconds < 253402300800 {
		return time.Unix(seconds, 0).UTC()
	}
	return time.Time{}
}

// post makes a request of the protocol. What was refused is returned beside
// the error.
func (a *AgentDoor) post(ctx context.Context, op call, path string, body any, idempotent bool) (answer, error) {
	u, err := url.Parse(op.origin + path)
	if err != nil || originOf(u) != op.origin {
		return answer{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	ans, err := a.http.exchange(ctx, op, message{method: http.MethodPost, url: u}, body, idempotent)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusTooManyRequests && e.RetryAfter == 0 {
		said := http.Header{"Retry-After": {scalar(fieldsOf(ans), "retry_after")}}
		e.RetryAfter, _ = retryAfter(said, a.now())
	}
	return ans, err
}

// fieldsOf returns the fields of an answer, none where it is no JSON object.
func fieldsOf(ans answer) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(ans.body, &fields)
	return fields
}
