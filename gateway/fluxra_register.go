package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Register gets the agent an account, an API key and an access token, and
// stores each before it asks for the next. What is stored of it already is not
// asked for again: a registration that was broken off goes on where it stopped.
//
// Names are not unique at the service, and registering is idempotent only where
// it honours the idempotency key, which a service need not say. So it is not
// tried again by itself: when the answer is lost the credential is pending, and
// registering again gets the account of the lost answer, or else another one,
// and the first stays behind without anybody who has a key of it.
func (f *Fluxra) Register(ctx context.Context, r FluxraRegistration) (FluxraRegistered, error) {
	return does(ctx, f.steward, f.act(f.origin, r.AgentName), func(ctx context.Context) (FluxraRegistered, error) {
		return f.register(ctx, r)
	})
}

// act is a step of registering or recovering an agent; "": it is not known which.
func (f *Fluxra) act(origin, agent string) Act {
	return Act{Action: ActRegister, Key: credstore.Key{Protocol: wire.FluxraName, Origin: origin, Agent: agent, Kind: credstore.KindAPIKey}}
}

func (f *Fluxra) register(ctx context.Context, r FluxraRegistration) (_ FluxraRegistered, err error) {
	op := call{protocol: wire.FluxraName, origin: f.origin, op: "register", acts: true}
	if err := r.check(); err != nil {
		return FluxraRegistered{}, op.fail(CodeInvalidInput, err)
	}
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	k := credstore.Key{Protocol: wire.FluxraName, Origin: f.origin, Agent: r.AgentName, Kind: credstore.KindAPIKey}
	if r.Label != "" && slug(r.Label) != r.AgentName {
		k.Label = slug(r.Label)
	}
	unlock, err := lockHandle(ctx, f.store, k)
	if err != nil {
		return FluxraRegistered{}, err
	}
	defer unlock()
	if _, err := f.settle(ctx, k); err != nil {
		return FluxraRegistered{}, err
	}
	held, recovery, err := f.account(ctx, k)
	if err != nil {
		return FluxraRegistered{}, err
	}
	if err := f.taken(ctx, op, k, r, held, recovery); err != nil {
		return FluxraRegistered{}, err
	}
	usable := held.UsableAt(f.now()) && !held.Secret.IsZero()
	if !usable {
		act := ActRegister
		if !recovery.Secret.IsZero() {
			act = ActRotate // there is an account: it gets another key
		}
		var begun *operation
		if ctx, begun, err = f.steward.begin(ctx, act, k); err != nil {
			return FluxraRegistered{}, err
		}
		defer func() { begun.end(ctx, err) }()
	}
	if !usable && recovery.Secret.IsZero() {
		if recovery, err = f.open(ctx, op, k, r, held); err != nil {
			return FluxraRegistered{}, err
		}
	}
	asked, err := f.finish(ctx, k, !usable)
	if err != nil {
		return FluxraRegistered{}, err
	}
	info, err := f.info(ctx, k)
	return FluxraRegistered{
		Registration: Registration{Info: info, Reused: !asked},
		Mail:         FluxraMail(info.Attrs[fluxraMail]), MailEnds: fluxraTime(info.Attrs[fluxraMailEnds]),
	}, err
}

// taken refuses a handle that another account has: one of another agent_name,
// or of another email.
func (f *Fluxra) taken(ctx context.Context, op call, k credstore.Key, r FluxraRegistration, mine ...credstore.Credential) error {
	other := false
	for _, c := range mine {
		opened := c.Attrs[fluxraAgentID] != ""
		other = other || opened && r.Email != "" && !strings.EqualFold(r.Email, c.Attrs[fluxraEmail])
	}
	all, err := f.store.List(ctx, wire.FluxraName)
	if err != nil {
		return err
	}
	for _, i := range all {
		other = other || i.Origin == k.Origin && i.Kind == k.Kind && i.Key != k && bareHandle(i.Key) == bareHandle(k)
	}
	if !other {
		return nil
	}
	return op.fail(CodeInvalidInput, fmt.Errorf(
		"label: the handle %s belongs to another stored account (another agent_name or email): give a label that no handle has, and this one is called by it", bareHandle(k)))
}

// open gets an account, and stores its recovery key. Before that a pending
// credential says that it was begun, and shows that the store can be written.
func (f *Fluxra) open(ctx context.Context, op call, k credstore.Key, r FluxraRegistration, held credstore.Credential) (credstore.Credential, error) {
	attrs := map[string]string{fluxraEmail: r.Email}
	from, err := f.begun.seeded(ctx, k, held, attrs, fluxraNeeded()...)
	if err != nil {
		return credstore.Credential{}, err
	}
	if held.State == credstore.StatePending {
		f.log.WarnContext(ctx, "registering again: an account of the registration before may be left at the service, unless it knows that this is the same attempt", "origin", k.Origin, "agent", k.Agent)
	}
	body := wire.FluxraRegisterRequest{AgentName: r.AgentName, Email: r.Email}
	if r.Metadata != (wire.FluxraMetadata{}) {
		body.Metadata = &r.Metadata
	}
	a, fields, err := f.ask(ctx, op, from, body)
	if err != nil {
		f.begun.withdraw(ctx, k, held, err)
		return credstore.Credential{}, err
	}
	recovery, err := f.recoveryKey(op, a, fields)
	if err != nil {
		return credstore.Credential{}, err
	}
	recovery.Key = ofKind(k, credstore.KindRecovery)
	recovery.Attrs[fluxraEmail] = r.Email
	var sent *bool
	if json.Unmarshal(fields["email_verification_sent"], &sent) == nil && sent != nil && r.Email != "" {
		recovery.Attrs[fluxraMail] = string(FluxraNotSent)
		if *sent {
			recovery.Attrs[fluxraMail] = string(FluxraSent)
		}
	}
	if ends := fluxraTime(scalar(fields, "email_verification_expires_at")); !ends.IsZero() && recovery.Attrs[fluxraMail] == string(FluxraSent) {
		recovery.Attrs[fluxraMailEnds] = ends.Format(time.RFC3339)
	}
	return f.keep(ctx, recovery)
}

// ask registers. Another name or another email is another attempt.
func (f *Fluxra) ask(ctx context.Context, op call, from credstore.Credential, body wire.FluxraRegisterRequest) (answer, map[string]json.RawMessage, error) {
	u, err := url.Parse(op.origin + wire.FluxraRegisterPath)
	if err != nil {
		return answer{}, nil, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	header := f.http.attempt(op, from, body.AgentName, strings.ToLower(body.Email))
	a, err := f.http.exchange(ctx, op, message{method: http.MethodPost, url: u, header: header}, body, false)
	if err != nil {
		return a, nil, err
	}
	var fields map[string]json.RawMessage
	err = f.http.decode(op, a, &fields)
	return a, fields, err
}

// recoveryKey reads a recovery key and whose it is out of an answer.
func (f *Fluxra) recoveryKey(op call, a answer, fields map[string]json.RawMessage) (credstore.Credential, error) {
	secret, err := f.secret(op, a, fields, "recovery_key")
	if err != nil {
		return credstore.Credential{}, err
	}
	id := scalar(fields, "agent_id")
	if !f.clean(id) {
		return credstore.Credential{}, op.unreadable(a, "the answer has no agent_id that could be put into a path")
	}
	return credstore.Credential{Secret: secret, Info: credstore.Info{
		State: credstore.StateActive, KeyID: fingerprint(secret), CreatedAt: f.createdNow(),
		Attrs: map[string]string{fluxraAgentID: id},
	}}, nil
}
