package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// FluxraRecovery is what came of asking for a recovery code.
type FluxraRecovery struct {
	Ends time.Time // when the code expires; zero: the service did not say
	Left int       // how many more may be asked for before the service refuses; -1: it did not say
}

// FluxraRecovered is the outcome of recovering an account.
type FluxraRecovered struct {
	credstore.Info
	// Incomplete says that the recovery key is stored and that an API key or an
	// access token could not be had with it yet. The next use, or a rotation,
	// tries again.
	Incomplete bool
}

// VerifyEmail tells a service the token of the mail that it sent, or the whole
// link. k says which service and may be empty. It returns the credential whose
// email that is; it is empty where none is stored.
//
// A token is good once. When the answer is lost, it may have been used up.
func (f *Fluxra) VerifyEmail(ctx context.Context, k credstore.Key, token string) (credstore.Info, error) {
	act := f.act(cmp.Or(k.Origin, f.origin), k.Agent)
	return does(ctx, f.steward, act, func(ctx context.Context) (credstore.Info, error) { return f.verifyEmail(ctx, k, token) })
}

func (f *Fluxra) verifyEmail(ctx context.Context, k credstore.Key, token string) (credstore.Info, error) {
	op := call{protocol: wire.FluxraName, origin: cmp.Or(k.Origin, f.origin), op: "verify the email", acts: true}
	token = strings.TrimSpace(token)
	if u, err := url.Parse(token); err == nil && u.Query().Get("token") != "" {
		token = u.Query().Get("token")
	}
	if !presentable(token, minSetting) {
		return credstore.Info{}, op.fail(CodeInvalidInput, errors.New("token: want what the link in the mail has behind token="))
	}
	f.http.scrub.learn(credstore.NewSecret(token))
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	a, fields, err := f.post(ctx, op, wire.FluxraVerifyEmailPath, "", wire.FluxraVerifyEmailRequest{Token: token}, false)
	if err != nil {
		return credstore.Info{}, err
	}
	verified := true // its status says so where nothing else does
	if json.Unmarshal(fields["email_verified"], &verified) == nil && !verified {
		return credstore.Info{}, op.unreadable(a, "the answer says that the email is not verified")
	}
	mine, err := f.of(ctx, op.origin, scalar(fields, "agent_id"))
	if err != nil || len(mine) == 0 {
		// It is verified at the service, whatever is known of it here.
		return credstore.Info{}, nil //nolint:nilerr // the token is used up: an error would have it sent again
	}
	return f.verified(ctx, mine[0]), nil
}

// verified notes that the email of an account is verified, and returns its
// credential.
func (f *Fluxra) verified(ctx context.Context, k credstore.Key) credstore.Info {
	unlock, err := f.store.Lock(ctx, k)
	if err != nil {
		return credstore.Info{Key: k}
	}
	defer unlock()
	return f.noteVerified(ctx, k)
}

// noteVerified is verified for whoever holds the lock.
func (f *Fluxra) noteVerified(ctx context.Context, k credstore.Key) credstore.Info {
	info := credstore.Info{Key: k}
	for _, item := range []credstore.Key{k, ofKind(k, credstore.KindRecovery)} {
		c, err := f.store.Get(ctx, item)
		if err != nil {
			continue
		}
		c.Attrs = maps.Clone(c.Attrs)
		if c.Attrs == nil {
			c.Attrs = make(map[string]string)
		}
		c.Attrs[fluxraMail] = string(FluxraVerified)
		delete(c.Attrs, fluxraMailEnds)
		if _, err := keep(ctx, f.store, c, fluxraNeeded()...); err != nil {
			f.log.WarnContext(ctx, "that an email is verified could not be stored", "agent", k.Agent, "error", f.http.scrub.Own(err.Error()))
		}
		if item == k {
			info = c.Info
		}
	}
	return info
}

// of returns the handles of the stored accounts with an agent_id.
func (f *Fluxra) of(ctx context.Context, origin, agentID string) ([]credstore.Key, error) {
	if agentID == "" {
		return nil, nil
	}
	all, err := f.store.List(ctx, wire.FluxraName)
	if err != nil {
		return nil, err
	}
	var keys []credstore.Key
	seen := make(map[credstore.Key]bool)
	for _, i := range all {
		k := ofKind(i.Key, credstore.KindAPIKey)
		if i.Origin == origin && i.Attrs[fluxraAgentID] == agentID && !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// ResendVerification asks a service to send the mail that verifies an email
// once more. It answers the same whether there is such an account or not. k
// says which service and may be empty.
func (f *Fluxra) ResendVerification(ctx context.Context, k credstore.Key, email string) error {
	act := f.act(cmp.Or(k.Origin, f.origin), k.Agent)
	_, err := does(ctx, f.steward, act, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f.resendVerification(ctx, k, email)
	})
	return err
}

func (f *Fluxra) resendVerification(ctx context.Context, k credstore.Key, email string) error {
	op := call{protocol: wire.FluxraName, origin: cmp.Or(k.Origin, f.origin), op: "send the verification again"}
	if !wire.CheckFluxraEmail(email) {
		return op.fail(CodeInvalidInput, errWantEmail)
	}
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	_, err := f.send(ctx, op, "POST", wire.FluxraResendPath, "", wire.FluxraEmailRequest{Email: email}, false)
	return err
}

var errWantEmail = errors.New("email: want the email address that the account was registered with")

// RecoverRequest asks for a code that recovers the account of a verified email.
// The service answers the same whether there is one or not.
func (f *Fluxra) RecoverRequest(ctx context.Context, email string) (FluxraRecovery, error) {
	return does(ctx, f.steward, f.act(f.origin, ""), func(ctx context.Context) (FluxraRecovery, error) {
		return f.recoverRequest(ctx, email)
	})
}

func (f *Fluxra) recoverRequest(ctx context.Context, email string) (FluxraRecovery, error) {
	op := call{protocol: wire.FluxraName, origin: f.origin, op: "ask for a recovery code"}
	if !wire.CheckFluxraEmail(email) {
		return FluxraRecovery{}, op.fail(CodeInvalidInput, errWantEmail)
	}
	ctx, cancel := f.http.begin(ctx)
	defer cancel()
	// Not made again after an error: each counts against a small limit.
	a, err := f.send(ctx, op, "POST", wire.FluxraRecoveryRequestPath, "", wire.FluxraEmailRequest{Email: email}, false)
	if err != nil {
		return FluxraRecovery{}, err
	}
	out := FluxraRecovery{Left: -1}
	var fields map[string]json.RawMessage
	if json.Unmarshal(a.body, &fields) == nil {
		out.Ends = fluxraTime(scalar(fields, "code_expires_at"))
	}
	for _, name := range []string{wire.FluxraIPRemaining, wire.FluxraEmailRemaining} {
		left, err := strconv.Atoi(a.header.Get(name))
		if err == nil && left >= 0 && (out.Left < 0 || left < out.Left) {
			out.Left = left
		}
	}
	return out, nil
}

// withoutCode returns an error of a service that does not repeat a code. A code
// is too short to be masked wherever it stands.
func withoutCode(err error, code string) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	digits := regexp.MustCompile(strings.Join(strings.Split(code, ""), `[^0-9A-Za-z]?`))
	if digits.MatchString(e.Code) {
		e.Code, e.Theirs = CodeHTTPStatus, false
	}
	e.Message = digits.ReplaceAllString(e.Message, masked)
	if e.Cause != nil && digits.MatchString(e.Cause.Error()) {
		e.Cause = nil
	}
	return err
}
