package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lonaOptions is what the user set for Lona.
type lonaOptions struct {
	origin  string
	secret  credstore.Secret // the registration secret
	apiKey  credstore.Secret // an existing token, to be taken over
	userID  string           // who the existing token belongs to
	agentID string           // to be registered at the start
}

// newLonaOptions reads the user's settings. An error names the one that is
// wrong and does not repeat it.
func newLonaOptions(o Options) (lonaOptions, error) {
	l := lonaOptions{
		secret:  credstore.NewSecret(o.Env("LONA_AGENT_REGISTRATION_SECRET")),
		apiKey:  credstore.NewSecret(o.Env("LONA_API_KEY")),
		userID:  o.Env("LONA_USER_ID"),
		agentID: o.Env("LONA_AGENT_ID"),
	}
	if o.Origins[wire.LonaName] != "" {
		l.apiKey, l.userID = credstore.Secret{}, "" // of the gateway that is set, not of this one
	}
	var err error
	if l.origin, err = o.setting(wire.LonaName, "LONA_GATEWAY_URL", wire.LonaOrigin); err != nil {
		return l, err
	}
	switch {
	case !l.secret.IsZero() && !presentable(l.secret.Reveal(), minSetting):
		return l, fmt.Errorf("LONA_AGENT_REGISTRATION_SECRET: want at least %d printable ASCII characters without spaces, as openssl rand -hex 32 makes them", minSetting)
	case !l.apiKey.IsZero() && !presentable(l.apiKey.Reveal(), minSecret):
		return l, fmt.Errorf("LONA_API_KEY: want a token as Lona issues them: at least %d printable ASCII characters without spaces", minSecret)
	case l.apiKey.IsZero() != (l.userID == ""):
		return l, errors.New("LONA_API_KEY and LONA_USER_ID: want both or neither: a token is used together with its user id")
	case l.userID != "" && !lonaUser(l.userID):
		return l, errors.New("LONA_USER_ID: want up to 128 printable ASCII characters without spaces")
	case l.agentID != "" && !wire.CheckLonaAgentID(l.agentID):
		return l, errors.New("LONA_AGENT_ID: " + lonaWantAgentID)
	}
	return l, nil
}

// Start implements [Starter]: it takes over LONA_API_KEY and registers
// LONA_AGENT_ID where no usable token of it is stored.
func (l *Lona) Start(ctx context.Context) error {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	var errs []error
	if !l.apiKey.IsZero() {
		errs = append(errs, l.adopt(ctx))
	}
	if l.agentID != "" {
		act := Act{Action: ActRegister, Key: l.key(l.agentID)}
		_, err := does(ctx, l.steward, act, func(ctx context.Context) (Registration, error) {
			return l.register(ctx, ActRegister, act.Key, LonaRegistration{AgentID: l.agentID, AgentName: l.agentID}, true)
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// lonaMark tells tokens apart, and of one says nothing.
func lonaMark(token credstore.Secret) string {
	sum := sha256.Sum256([]byte(token.Reveal()))
	return hex.EncodeToString(sum[:8])
}

// adopt takes LONA_API_KEY over into the store. A setting stays while tokens
// are rotated, so one that was taken over before is older than what is stored
// and does not come back; and nothing that is usable is replaced.
func (l *Lona) adopt(ctx context.Context) error {
	agent, keyID, ok := wire.ParseLonaToken(l.apiKey.Reveal())
	if !ok {
		agent = cmp.Or(l.agentID, l.userID)
	}
	if !wire.CheckLonaAgentID(agent) {
		return errors.New("LONA_API_KEY: it does not say which agent it is for, and LONA_USER_ID cannot be one: set LONA_AGENT_ID")
	}
	k := l.key(agent)
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	held, err := l.stored(ctx, k)
	if err != nil {
		return err
	}
	mark := lonaMark(l.apiKey)
	attrs := maps.Clone(held.Attrs)
	if attrs == nil {
		attrs = make(map[string]string)
	}
	attrs[lonaUserID], attrs[lonaAdopted] = l.userID, mark
	c := credstore.Credential{Secret: l.apiKey, Info: credstore.Info{
		Key: k, State: credstore.StateActive, KeyID: keyID, CreatedAt: l.createdNow(), Attrs: attrs,
	}}
	switch {
	case same(held, c):
		if held.Attrs[lonaUserID] == l.userID {
			return nil
		}
		c.Info, c.Attrs = held.Info, attrs // only whose it is has changed
	case held.Attrs[lonaAdopted] == mark:
		return nil
	case held.UsableAt(l.now()):
		l.log.WarnContext(ctx, "LONA_API_KEY was not taken over: another usable token of the agent is stored; forget that one first if this is the newer", "agent", agent)
		return nil
	}
	if _, err := keep(ctx, l.store, c, lonaUserID, lonaAdopted); err != nil {
		return fmt.Errorf("store the token of LONA_API_KEY: %w", err)
	}
	l.log.InfoContext(ctx, "LONA_API_KEY was taken over", "origin", k.Origin, "agent", agent)
	return nil
}
