package gateway

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// RecoverVerify gets an account a new recovery key with a code, and stores it
// at once in the place of the one before, which has ended. An account that is
// not stored is stored by its agent_id. Then it gets what else is needed to
// use the account.
//
// A code is good once. When the answer is lost, the new recovery key may be
// lost with it, and only another code helps.
func (f *Fluxra) RecoverVerify(ctx context.Context, email, code string) (FluxraRecovered, error) {
	return does(ctx, f.steward, f.act(f.origin, ""), func(ctx context.Context) (FluxraRecovered, error) {
		return f.recoverVerify(ctx, email, code)
	})
}

func (f *Fluxra) recoverVerify(ctx context.Context, email, code string) (_ FluxraRecovered, err error) {
	op := call{protocol: wire.FluxraName, origin: f.origin, op: "recover the account", acts: true}
	code = strings.TrimSpace(code)
	switch {
	case !wire.CheckFluxraEmail(email):
		return FluxraRecovered{}, op.fail(CodeInvalidInput, errWantEmail)
	case !wire.CheckFluxraCode(code):
		return FluxraRecovered{}, op.fail(CodeInvalidInput, errors.New("code: want the six digits of the mail"))
	}
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	begun, err := f.beginRecovery(ctx, email)
	defer func() { begun.end(err) }()
	if err != nil {
		return FluxraRecovered{}, err
	}
	a, fields, err := f.post(ctx, op, wire.FluxraRecoveryVerifyPath, "", wire.FluxraRecoveryVerifyRequest{Email: email, Code: code}, false)
	var recovery credstore.Credential
	if err == nil {
		recovery, err = f.recoveryKey(op, a, fields)
	}
	if err != nil {
		return FluxraRecovered{}, withoutCode(err, code)
	}
	k, err := f.recovered(ctx, begun, recovery, email)
	if err != nil {
		return FluxraRecovered{}, err
	}
	ctx = begun.within(ctx, k)
	f.noteVerified(ctx, k) // only a verified email recovers an account
	info, incomplete := f.complete(ctx, k)
	if incomplete != nil {
		begun.set(k, incomplete)
		f.log.WarnContext(ctx, "an account was recovered, and is not usable yet", "origin", k.Origin, "agent", k.Agent, "error", f.http.scrub.Own(incomplete.Error()))
	}
	return FluxraRecovered{Info: info, Incomplete: incomplete != nil}, nil
}

// fluxraRecoveries are the recoveries that one code may be: an email can stand
// beside several accounts, and which of them it recovers only the answer says.
type fluxraRecoveries struct {
	fluxra *Fluxra
	all    map[credstore.Key]*fluxraRecovering
	order  []credstore.Key
}

// fluxraRecovering is one of them.
type fluxraRecovering struct {
	ctx    context.Context //nolint:containedctx // it says which operation is under way
	op     *operation
	unlock func()
	err    error // what is left to do
}

// errNotRecovered: the code was another account's.
var errNotRecovered = errors.New("the code was another account's")

// beginRecovery takes the locks of the accounts of an email, shows that their
// recovery keys can be written, before a code is used that ends them, and notes
// that they may be recovered. What it returns must be ended, error or not.
func (f *Fluxra) beginRecovery(ctx context.Context, email string) (*fluxraRecoveries, error) {
	r := &fluxraRecoveries{fluxra: f, all: make(map[credstore.Key]*fluxraRecovering)}
	all, err := f.store.List(ctx, wire.FluxraName)
	if err != nil {
		return r, err
	}
	for _, i := range all { // in the order of the list, so that two do not wait for each other
		if i.Origin != f.origin || i.Kind != credstore.KindRecovery || !strings.EqualFold(i.Attrs[fluxraEmail], email) {
			continue
		}
		if err := r.begin(ctx, ofKind(i.Key, credstore.KindAPIKey), f.http.left(ctx)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// begin begins the recovery of one account, unless that was done. It waits for
// its lock so long at most.
func (r *fluxraRecoveries) begin(ctx context.Context, k credstore.Key, wait time.Duration) error {
	f := r.fluxra
	if r.all[k] != nil {
		return nil
	}
	locking, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	unlock, err := f.store.Lock(locking, k)
	if err != nil {
		return err
	}
	c, err := f.store.Get(ctx, ofKind(k, credstore.KindRecovery))
	if err == nil {
		_, err = keep(ctx, f.store, c, fluxraNeeded()...)
	}
	if err == nil || errors.Is(err, credstore.ErrNotFound) || errors.Is(err, credstore.ErrDamaged) {
		one := &fluxraRecovering{unlock: unlock, err: errNotRecovered}
		if one.ctx, one.op, err = f.steward.begin(ctx, ActRecover, k); err == nil {
			r.all[k], r.order = one, append(r.order, k)
			return nil
		}
	}
	unlock()
	return err
}

// within returns the context in which an account is recovered.
func (r *fluxraRecoveries) within(ctx context.Context, k credstore.Key) context.Context {
	if one := r.all[k]; one != nil {
		return one.ctx
	}
	return ctx
}

// set says what is left to do of the recovery of an account; nil: nothing is.
func (r *fluxraRecoveries) set(k credstore.Key, err error) {
	if one := r.all[k]; one != nil {
		one.err = err
	}
}

// end ends the recoveries after err, and lets go of the accounts.
func (r *fluxraRecoveries) end(err error) {
	for _, k := range slices.Backward(r.order) {
		one := r.all[k]
		one.op.end(one.ctx, cmp.Or(err, one.err))
		one.unlock()
	}
}

// recovered stores a new recovery key for every handle of its account, and
// returns the first of them. Nothing is looked at before that which could keep
// it from being stored.
func (f *Fluxra) recovered(ctx context.Context, begun *fluxraRecoveries, recovery credstore.Credential, email string) (credstore.Key, error) {
	id := recovery.Attrs[fluxraAgentID]
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	mine, err := f.of(look, f.origin, id)
	if err != nil || len(mine) == 0 {
		mine = []credstore.Key{{Protocol: wire.FluxraName, Origin: f.origin, Agent: id, Kind: credstore.KindAPIKey}}
	}
	for _, k := range mine {
		if err := begun.begin(ctx, k, busyTime); err != nil {
			f.log.WarnContext(ctx, "that an account is recovered could not be noted", "agent", k.Agent, "error", f.http.scrub.Own(err.Error()))
		}
		recovery.Key = ofKind(k, credstore.KindRecovery)
		recovery.Attrs = map[string]string{fluxraAgentID: id, fluxraEmail: email, fluxraMail: string(FluxraVerified)}
		if _, err := f.keep(begun.within(ctx, k), recovery); err != nil {
			return k, err
		}
		begun.set(k, nil)
	}
	return mine[0], nil
}

// complete gets what an account with a recovery key still lacks, and ends what
// stands behind it at the service. The caller holds its lock, unless that could
// not be had.
func (f *Fluxra) complete(ctx context.Context, k credstore.Key) (credstore.Info, error) {
	held, recovery, err := f.account(ctx, k)
	if err != nil {
		return credstore.Info{Key: k}, err
	}
	if held.Key != k { // so that it has a handle, whatever comes
		held = credstore.Credential{Info: credstore.Info{
			Key: k, State: credstore.StatePending, CreatedAt: f.createdNow(), Attrs: maps.Clone(recovery.Attrs),
		}}
		if _, err := keep(ctx, f.store, held, fluxraNeeded()...); err != nil {
			return held.Info, err
		}
	}
	usable := held.UsableAt(f.now()) && !held.Secret.IsZero()
	if _, err = f.finish(ctx, k, !usable); err == nil {
		err = f.clear(ctx, k)
	}
	info, infoErr := f.info(ctx, k)
	if infoErr != nil {
		info = held.Info
	}
	return info, cmp.Or(err, infoErr)
}

// clear ends the API keys that a stored one replaces, and those that never
// arrived, where there are any.
func (f *Fluxra) clear(ctx context.Context, k credstore.Key) error {
	held, err := f.stored(ctx, k)
	if err != nil || held.Attrs[fluxraAsked] == "" && held.Attrs[fluxraReplaces] == "" {
		return err
	}
	token, err := f.token(ctx, held)
	if err == nil && !f.alive(token, "") {
		token, err = f.session(ctx, held, token, "") // the keys are listed with it
	}
	if err == nil {
		_, err = f.sweep(ctx, held, token)
	}
	return err
}
