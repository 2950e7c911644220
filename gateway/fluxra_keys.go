package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// fluxraMaxKept is the length of the longest access token that is stored.
	// It can be had again, and one keyring takes no item that is larger.
	fluxraMaxKept = 2560
	// fluxraMaxLife bounds what a service may say of an access token's life, so
	// that it can be calculated with.
	fluxraMaxLife = 365 * 24 * time.Hour
	// fluxraMaxLost is how many API keys are lost on their way before none is
	// asked for unless somebody says so, and fluxraMaxAsked how many of those
	// are remembered.
	fluxraMaxLost  = 3
	fluxraMaxAsked = 16
)

// usable returns the API key of a credential that requests may be made with:
// one that a person had revoked is not brought back to life.
func (f *Fluxra) usable(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	held, ok := f.unstored.waiting(k)
	var err error
	if !ok {
		held, err = f.store.Get(ctx, k)
	}
	if err != nil {
		return held, err
	}
	switch held.State {
	case credstore.StateRevoked:
		return held, &RefusedError{
			Why:  "The credential was revoked, so no request was made. Rotating it gets it a new key, if the person wants that.",
			Tool: "rotate_credential",
		}
	case credstore.StatePending:
		recovery, err := f.stored(ctx, ofKind(k, credstore.KindRecovery))
		if err != nil {
			return held, err
		}
		if recovery.Secret.IsZero() {
			return held, &RefusedError{
				Why:  "There is no key of the agent " + k.Agent + ": its registration did not come to an end. It must be registered again.",
				Tool: fluxraRegisterTool,
			}
		}
	}
	return held, nil
}

// token returns the access token that was had with an API key, or none. It is
// in memory where no store could keep it.
func (f *Fluxra) token(ctx context.Context, held credstore.Credential) (credstore.Credential, error) {
	k := ofKind(held.Key, credstore.KindAccess)
	c, err := f.store.Get(ctx, k)
	if err != nil && !errors.Is(err, credstore.ErrNotFound) && !errors.Is(err, credstore.ErrDamaged) {
		return credstore.Credential{}, err
	}
	if m, ok := f.unstored.waiting(k); ok && (err != nil || !m.CreatedAt.Before(c.CreatedAt)) {
		c, err = m, nil
	}
	if err != nil || c.Attrs[fluxraKeyID] != held.KeyID || !presentable(c.Secret.Reveal(), 1) {
		return credstore.Credential{}, nil
	}
	return c, nil
}

// fresh reports whether an access token need not be renewed. refused is the
// header that the service refused; "": none.
func (f *Fluxra) fresh(token credstore.Credential, refused string) bool {
	return f.alive(token, refused) && f.spread.fresh(token.Info, f.now())
}

// alive reports whether a service can be expected to accept an access token.
func (f *Fluxra) alive(token credstore.Credential, refused string) bool {
	return !token.Secret.IsZero() && token.UsableAt(f.now()) && bearer(token.Secret) != refused
}

// renewed returns an access token other than the one that was refused. Of many
// callers one renews it, under the lock, and the others find what that stored.
func (f *Fluxra) renewed(ctx context.Context, k credstore.Key, refused string) (credstore.Credential, error) {
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	unlock, err := f.store.Lock(ctx, k)
	if err != nil {
		return credstore.Credential{}, err
	}
	defer unlock()
	if _, err := f.settle(ctx, k); err != nil {
		f.log.WarnContext(ctx, "a key is in memory only", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
	}
	held, err := f.usable(ctx, k)
	if err != nil {
		return credstore.Credential{}, err
	}
	token, err := f.token(ctx, held)
	if err != nil || f.fresh(token, refused) {
		return token, err
	}
	token, err = f.session(ctx, held, token, refused)
	var e *Error
	if errors.As(err, &e) {
		e.Sent = false // whatever was asked for here: the caller's request was not made
	}
	return token, err
}

// session gets an access token: by refreshing the one that there is, else with
// the API key, else with a new API key that the recovery key makes. Only a 401
// leads to the last, and only once: a service that refuses the new key too would
// get another with each request. After a refresh whose answer was lost the old
// token may be dead. Where all else fails for another reason, one that has not expired is
// better than none.
func (f *Fluxra) session(ctx context.Context, held, token credstore.Credential, refused string) (_ credstore.Credential, err error) {
	ctx, begun, err := f.steward.begin(ctx, ActRenew, held.Key)
	if err != nil {
		return credstore.Credential{}, err
	}
	defer func() { begun.end(ctx, err) }()
	alive := f.alive(token, refused)
	if presentable(issuedSecret(held).Reveal(), minSecret) {
		if alive {
			next, err := f.refresh(ctx, held, token)
			var e *Error
			switch {
			case err == nil:
				return next, nil
			case !errors.As(err, &e), ctx.Err() != nil:
				return next, err
			case e.Status == http.StatusTooManyRequests, e.Status == 0 && !e.Sent, unasked(ctx) && !unauthorized(err):
				f.log.WarnContext(ctx, "an access token could not be refreshed yet", "origin", held.Origin, "agent", held.Agent, "code", e.Code, "status", e.Status)
				return token, nil
			}
			f.log.InfoContext(ctx, "an access token could not be refreshed; taking a new one", "origin", held.Origin, "agent", held.Agent, "code", e.Code, "status", e.Status)
		}
		next, err := f.exchange(ctx, held)
		switch {
		case err == nil:
			f.prove(ctx, held)
			return next, nil
		case !unauthorized(err):
			if alive && ctx.Err() == nil {
				return token, nil
			}
			return next, err
		case held.Attrs[fluxraUnproven] != "", len(split(held.Attrs[fluxraAsked])) >= fluxraMaxLost:
			return next, err
		}
		f.log.WarnContext(ctx, "the service refuses the API key; making another with the recovery key", "origin", held.Origin, "agent", held.Agent, "key_id", held.KeyID)
	}
	if len(split(held.Attrs[fluxraAsked])) >= fluxraMaxLost {
		return credstore.Credential{}, &RefusedError{
			Why:  "The answers with the API keys of the agent " + held.Agent + " were all lost, so no other was asked for.",
			Tool: fluxraRegisterTool,
		}
	}
	if held, err = f.another(ctx, held.Key, held); err != nil {
		return credstore.Credential{}, err
	}
	next, err := f.exchange(ctx, held)
	if err == nil {
		f.trySweep(ctx, f.prove(ctx, held), next)
	}
	return next, err
}

// prove notes that an access token was had with an API key.
func (f *Fluxra) prove(ctx context.Context, held credstore.Credential) credstore.Credential {
	if held.Attrs[fluxraUnproven] == "" {
		return held
	}
	held.Attrs = maps.Clone(held.Attrs)
	delete(held.Attrs, fluxraUnproven)
	if _, err := keep(ctx, f.store, held, fluxraNeeded()...); err != nil {
		f.log.WarnContext(ctx, "that an API key works could not be stored", "agent", held.Agent, "error", f.http.scrub.Own(err.Error()))
	}
	return held
}

func unauthorized(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusUnauthorized
}

// refresh gets a new access token for one that the service then refuses.
func (f *Fluxra) refresh(ctx context.Context, held, token credstore.Credential) (credstore.Credential, error) {
	op := call{protocol: wire.FluxraName, origin: held.Origin, op: "refresh the access token", acts: true}
	a, fields, err := f.post(ctx, op, wire.FluxraRefreshPath, bearer(token.Secret), struct{}{}, false)
	if err != nil {
		return credstore.Credential{}, err
	}
	return f.keepToken(ctx, op, held, a, fields)
}

// exchange gets an access token with an API key.
func (f *Fluxra) exchange(ctx context.Context, held credstore.Credential) (credstore.Credential, error) {
	op := call{protocol: wire.FluxraName, origin: held.Origin, op: "get an access token"}
	a, fields, err := f.post(ctx, op, wire.FluxraTokenPath, basic(held.Attrs[fluxraAgentID], held.Secret),
		wire.FluxraTokenRequest{GrantType: wire.FluxraGrant}, true)
	if err != nil {
		return credstore.Credential{}, err
	}
	return f.keepToken(ctx, op, held, a, fields)
}

// basic returns the header for one of the long-lived keys.
func basic(agentID string, secret credstore.Secret) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(agentID+":"+secret.Reveal()))
}

// keepToken stores the access token of an answer. One that is not stored is
// kept in memory: it can be had again.
func (f *Fluxra) keepToken(ctx context.Context, op call, held credstore.Credential, a answer, fields map[string]json.RawMessage) (credstore.Credential, error) {
	secret, err := f.secret(op, a, fields, "access_token")
	if err != nil {
		return credstore.Credential{}, err
	}
	now := f.createdNow()
	c := credstore.Credential{Secret: secret, Info: credstore.Info{
		Key: ofKind(held.Key, credstore.KindAccess), State: credstore.StateActive, KeyID: fingerprint(secret),
		CreatedAt: now, ExpiresAt: now.Add(lifetime(fields)), Attrs: map[string]string{fluxraKeyID: held.KeyID},
	}}
	if id := scalar(fields, "key_id"); f.clean(id) {
		c.Attrs[fluxraIssuer] = id
	}
	if len(secret.Reveal()) > fluxraMaxKept {
		f.unstored.hold(c)
		return c, nil
	}
	if _, err := keep(ctx, f.store, c, fluxraNeeded()...); err != nil {
		f.unstored.hold(c)
		f.log.WarnContext(ctx, "an access token was not stored and is in memory only",
			"protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "error", f.http.scrub.Own(err.Error()))
		return c, nil
	}
	received(ctx)
	f.unstored.drop(c.Key)
	f.log.InfoContext(ctx, "access token stored", "protocol", c.Protocol, "origin", c.Origin, "agent", c.Agent, "expires_at", c.ExpiresAt)
	return c, nil
}

// lifetime reads how long an access token lives: a number, or one in a string.
func lifetime(fields map[string]json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(scalar(fields, "expires_in"), 64)
	if err != nil || !(seconds >= 1) {
		seconds = wire.FluxraTokenSeconds
	}
	return time.Duration(min(seconds, fluxraMaxLife.Seconds()) * float64(time.Second))
}

// another makes an API key with the recovery key and stores it in the place of
// the one that is held. Before it asks for one it notes what that will be
// called: a key whose answer is lost is found by it, and deleted.
func (f *Fluxra) another(ctx context.Context, k credstore.Key, held credstore.Credential) (credstore.Credential, error) {
	op := call{protocol: wire.FluxraName, origin: k.Origin, op: "make an API key", acts: true}
	recovery, err := f.recovery(ctx, op, k)
	if err != nil {
		return held, err
	}
	if held.Key != k {
		held.Info = credstore.Info{Key: k, State: credstore.StatePending, CreatedAt: f.createdNow()}
	}
	name := "enlist-" + f.now().UTC().Format("20060102-150405") + f.tag()
	mark := held
	mark.Attrs = make(map[string]string)
	maps.Copy(mark.Attrs, held.Attrs)
	maps.Copy(mark.Attrs, recovery.Attrs)
	asked := split(join(mark.Attrs[fluxraAsked], name))
	mark.Attrs[fluxraAsked] = strings.Join(asked[max(0, len(asked)-fluxraMaxAsked):], ",")
	if _, err := keep(ctx, f.store, mark, fluxraNeeded()...); err != nil {
		return held, err
	}
	f.unstored.drop(k)
	a, fields, err := f.post(ctx, op, wire.FluxraAgentPath(recovery.Attrs[fluxraAgentID]),
		basic(recovery.Attrs[fluxraAgentID], recovery.Secret), wire.FluxraKeyRequest{Name: name}, false)
	var secret credstore.Secret
	if err == nil {
		secret, err = f.secret(op, a, fields, "api_key")
	}
	if err != nil {
		var e *Error
		if errors.As(err, &e) && !e.Sent { // nothing was made
			if _, err := keep(ctx, f.store, held, fluxraNeeded()...); err != nil {
				f.log.WarnContext(ctx, "what was noted for a new key could not be taken back", "agent", k.Agent, "error", f.http.scrub.Own(err.Error()))
			}
		}
		return held, personNeeded(op, err)
	}
	next := credstore.Credential{Secret: secret, Info: credstore.Info{
		Key: k, State: credstore.StateActive, CreatedAt: f.createdNow(),
		ExpiresAt: fluxraTime(scalar(fields, "expires_at")), Attrs: maps.Clone(mark.Attrs),
	}}
	next.Attrs[fluxraAgentID] = recovery.Attrs[fluxraAgentID]
	if next.KeyID = scalar(fields, "key_id"); !f.clean(next.KeyID) {
		next.KeyID = ""
	}
	setAttr(next.Attrs, fluxraAsked, held.Attrs[fluxraAsked])
	next.Attrs[fluxraUnproven] = "yes"
	if old := f.keyID(ctx, held); !issuedSecret(held).IsZero() && held.State != credstore.StateRevoked && old != next.KeyID {
		setAttr(next.Attrs, fluxraReplaces, join(held.Attrs[fluxraReplaces], old))
	}
	var scopes []string
	_ = json.Unmarshal(fields["scopes"], &scopes) // those that it has or none
	setAttr(next.Attrs, permissionsAttr, joinPermissions(scopes, f.http.scrub))
	return f.keep(ctx, next)
}

// keyID returns the id of an API key, which only an access token came with where
// the service forgot it before.
func (f *Fluxra) keyID(ctx context.Context, held credstore.Credential) string {
	if held.KeyID != "" || held.Key == (credstore.Key{}) {
		return held.KeyID
	}
	token, err := f.token(ctx, held)
	if err != nil {
		return ""
	}
	return token.Attrs[fluxraIssuer]
}

// setAttr sets an attribute, or removes it for "".
func setAttr(attrs map[string]string, name, value string) {
	if attrs[name] = value; value == "" {
		delete(attrs, name)
	}
}

// join adds a value to a list in an attribute, once.
func join(list, value string) string {
	all := split(list)
	if value != "" && !slices.Contains(all, value) {
		all = append(all, value)
	}
	return strings.Join(all, ",")
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// recovery returns the recovery key of an account.
func (f *Fluxra) recovery(ctx context.Context, op call, k credstore.Key) (credstore.Credential, error) {
	c, err := f.stored(ctx, ofKind(k, credstore.KindRecovery))
	if err != nil {
		return c, err
	}
	if !presentable(c.Secret.Reveal(), minSecret) || !f.clean(c.Attrs[fluxraAgentID]) {
		return c, op.fail(CodeRecovery, errors.New("no recovery key of the account is stored"))
	}
	return c, nil
}

// personNeeded returns the error for a recovery key that the service refuses:
// there is nothing left to try.
func personNeeded(op call, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
		return err
	}
	person := op.fail(CodeRecovery, errors.New("the service refuses the recovery key"))
	person.Status, person.Message = e.Status, e.Message
	if e.Theirs {
		person.Message = strings.TrimSuffix(e.Code+": "+e.Message, ": ")
	}
	return person
}
