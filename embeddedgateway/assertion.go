package embeddedgateway

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
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

// assertionClaims is what a token says.
type assertionClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expiry   int64  `json:"exp"`
	ID       string `json:"jti"`

	// The same as the headers.
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
	by         jose.Signer
	asked      time.Time // when the key of by was looked up
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
	token, err := a.sign(ctx, now, c, who.scopes)
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

// sign makes a token. Everything in it is ours, so it is put together at once:
// that costs half of what [signer.sign] does, which merges claims of others.
func (a *assertions) sign(ctx context.Context, now time.Time, c Caller, scopes string) (string, error) {
	by, err := a.current(ctx, now)
	if err != nil {
		return "", err
	}
	id, err := newTokenID()
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(assertionClaims{
		Issuer: a.signer.issuer, Subject: c.String(), Audience: assertionAudience, ID: id,
		IssuedAt: now.Unix(), Expiry: now.Add(assertionLife).Unix(),
		Protocol: c.Protocol, Agent: c.Agent, Scope: scopes, KeyID: c.KeyID,
	})
	if err != nil {
		return "", fmt.Errorf("encode a token for the API: %w", err)
	}
	signed, err := by.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("sign a token for the API: %w", err)
	}
	return signed.CompactSerialize()
}

// current returns what signs. The key is looked up again now and then, as another
// process may have rotated it: the one before is published for an hour longer than
// anything that it signs here lives.
func (a *assertions) current(ctx context.Context, now time.Time) (jose.Signer, error) {
	a.mu.Lock()
	by, asked := a.by, a.asked
	a.mu.Unlock()
	if by != nil && fresh(asked, now) {
		return by, nil
	}
	key, err := a.signer.current(ctx)
	if err != nil {
		return nil, err
	}
	if by, err = key.signer(assertionType); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.by, a.asked = by, now
	return by, nil
}
