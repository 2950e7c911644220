package embeddedgateway

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// A token for the API has a type and an audience of its own, so that it is
	// no credential here, and no credential is taken for it there.
	assertionType     = "enlist-caller+jwt"
	assertionAudience = "enlist-upstream"

	assertionLife  = time.Minute
	assertionReuse = assertionLife / 2 // how long one serves for the requests of one key
	maxAssertions  = 1 << 14           // that are remembered; some 1 KiB each
)

// assertionClaims is what a token says of a caller beyond iss, sub, aud, iat, exp
// and jti, as the headers do.
type assertionClaims struct {
	Protocol string `json:"protocol"`
	Agent    string `json:"agent"`
	Scope    string `json:"scope"`
	KeyID    string `json:"key_id"`
}

// assertions makes the headers that tell the API who makes a request, the signed
// one among them. To sign costs more than everything else that a request does, so
// the same headers serve the same caller for half of the token's life. Only what
// is said of a caller is remembered, never that it may: it is asked for when the
// caller has authenticated.
//
// What it remembers lies in two halves, as in [keyLimit].
type assertions struct {
	signer *signer
	now    func() time.Time

	mu         sync.Mutex
	since      time.Time // when newer began
	newer, old map[assertedCaller]assertion
	key        signingKey // that signs
	asked      time.Time  // when key was looked up
}

// assertedCaller is what an assertion says.
type assertedCaller struct{ protocol, agent, keyID, scopes string }

// assertion is what the API gets.
type assertion struct {
	header http.Header
	made   time.Time
}

func newAssertions(s *signer, now func() time.Time) *assertions {
	return &assertions{signer: s, now: now, newer: map[assertedCaller]assertion{}}
}

// of returns the headers about a caller. They are not to be changed.
func (a *assertions) of(ctx context.Context, c Caller) (http.Header, error) {
	now := a.now()
	who := assertedCaller{c.Protocol, c.Agent, c.KeyID, scopeText(c.Scopes)}
	if h := a.known(who, now); h != nil {
		return h, nil
	}
	key, err := a.signingKey(ctx, now)
	if err != nil {
		return nil, err
	}
	token, _, err := a.signer.issue(key, assertionType, assertionLife,
		jwt.Claims{Subject: c.String(), Audience: jwt.Audience{assertionAudience}},
		assertionClaims{Protocol: c.Protocol, Agent: c.Agent, Scope: who.scopes, KeyID: c.KeyID})
	if err != nil {
		return nil, err
	}
	h := http.Header{
		protocolHeader: {c.Protocol},
		agentHeader:    {c.Protocol + "/" + visible(c.Agent)},
		scopesHeader:   {who.scopes},
		keyIDHeader:    {visible(c.KeyID)},
		assertedHeader: {token},
	}
	a.remember(who, assertion{h, now})
	return h, nil
}

// fresh reports whether something of a time is young enough to be used again. A
// clock may be set back.
func fresh(made, now time.Time) bool {
	age := now.Sub(made)
	return age >= 0 && age < assertionReuse
}

// known returns headers that were made a moment ago, or nil.
func (a *assertions) known(who assertedCaller, now time.Time) http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, half := range []map[assertedCaller]assertion{a.newer, a.old} {
		if made, ok := half[who]; ok && fresh(made.made, now) {
			return made.header
		}
	}
	return nil
}

func (a *assertions) remember(who assertedCaller, made assertion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !fresh(a.since, made.made) || len(a.newer) >= maxAssertions/2 {
		a.since, a.newer, a.old = made.made, map[assertedCaller]assertion{}, a.newer
	}
	a.newer[who] = made
}

// signingKey returns the key to sign with. It is looked up again now and then, as
// another process may have rotated it: the one before is published for an hour
// longer than anything that it signs here lives.
func (a *assertions) signingKey(ctx context.Context, now time.Time) (signingKey, error) {
	a.mu.Lock()
	key, asked := a.key, a.asked
	a.mu.Unlock()
	if key.kid != "" && fresh(asked, now) {
		return key, nil
	}
	key, err := a.signer.current(ctx)
	if err != nil {
		return key, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key, a.asked = key, now
	return key, nil
}
