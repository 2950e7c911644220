package tools

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Failure is the structured content of every tool error.
type Failure struct {
	Code              string `json:"code"`
	WhatHappened      string `json:"what_happened"`
	WhatIsStored      string `json:"what_is_stored"`
	NextStep          string `json:"next_step"`
	Protocol          string `json:"protocol,omitzero"`
	Origin            string `json:"origin,omitzero"`
	Status            int    `json:"status,omitzero"`
	RetryAfterSeconds int    `json:"retry_after_seconds,omitzero"`
	// ServiceSaid holds the service's words, and no other field does.
	ServiceSaid string `json:"service_said,omitzero"`
}

// Codes of a [Failure] beside those of package gateway and of the services.
const (
	CodeInvalidArguments = "invalid_arguments"
	CodeInternal         = "internal"
	CodeNoCredential     = "no_such_credential" //nolint:gosec // an error code, not a credential
	CodeWhichCredential  = "which_credential"   //nolint:gosec // an error code, not a credential
	CodeRefused          = "refused"
	CodeUnsupported      = "unsupported"
	CodeNotStored        = "not_stored"
	CodeStoreUnavailable = "store_unavailable"
	CodeStoreDamaged     = "store_damaged"
	CodeStoreTooSmall    = "store_too_small"
	CodeLocalFailure     = "local_failure" // Enlist itself, not the service, is the reason
	CodePolicy           = "policy"        // the person's policy does not allow it

	CodeMissingArgument = "missing_argument" // only the person can say it, and cannot be asked
	CodeInputDeclined   = "input_declined"   // they were asked and declined
	CodeInputUnanswered = "input_unanswered" // they were asked and did not answer
	CodeInvalidAnswer   = "invalid_answer"   // what came back for their answer cannot be one
)

// isOwnCode reports whether a code is one of those above.
func isOwnCode(code string) bool {
	switch code {
	case CodeInvalidArguments, CodeInternal, CodeNoCredential, CodeWhichCredential, CodeRefused, CodeUnsupported,
		CodeNotStored, CodeStoreUnavailable, CodeStoreDamaged, CodeStoreTooSmall, CodeLocalFailure,
		CodePolicy, CodeMissingArgument, CodeInputDeclined, CodeInputUnanswered, CodeInvalidAnswer, gateway.ApprovalNeeded, gateway.ApprovalDeclined, gateway.ApprovalUnanswered:
		return true
	}
	return false
}

// failed makes a tool error of a failure.
func failed(f Failure) *mcp.CallToolResult {
	res := mcp.NewToolResultStructuredOnly(f)
	res.IsError = true
	return res
}

// Internal returns the result for a bug of ours. id is what it is logged under.
func Internal(id string) *mcp.CallToolResult {
	return failed(Failure{
		Code:         CodeInternal,
		WhatHappened: "Enlist made a mistake. It is in its log under " + id + ".",
		WhatIsStored: "What was stored before is still stored; list_credentials shows it.",
		NextStep:     "Call list_credentials to see how things stand. If the same call fails again, give the person this id: " + id + ".",
	})
}

// explain says what an error means to a model.
func (d Deps) explain(ctx context.Context, s spec, err error) Failure {
	var (
		notStored   *gateway.NotStoredError
		service     *gateway.Error
		resolve     *gateway.ResolveError
		refused     *gateway.RefusedError
		full        *gateway.KeysFullError
		unsupported *gateway.UnsupportedError
		local       *gateway.LocalError
		half        *gateway.HalfRotatedError
	)
	ctx = context.WithoutCancel(ctx) // words are cleaned even when the time is up
	switch {
	case errors.As(err, &half):
		return d.explainHalfRotated(ctx, s, half)
	case errors.As(err, &notStored):
		return Failure{
			Code: CodeNotStored, Protocol: notStored.Protocol, Origin: notStored.Origin,
			WhatHappened: fmt.Sprintf("%s issued a credential, but it could not be stored: %s.", notStored.Origin, d.ours(notStored.Cause)),
			WhatIsStored: "Nothing new. What was stored before may have ended at the service.",
			NextStep:     "Ask the person to put the credential store right, then " + s.again() + ". " + d.ours(errors.New(notStored.Remedy)),
		}
	case errors.As(err, &local):
		return Failure{
			Code: CodeLocalFailure, WhatHappened: d.ours(errors.New(local.Why)), WhatIsStored: s.kept,
			NextStep: d.ours(errors.New(local.Remedy)),
		}
	case errors.As(err, &full):
		return d.explainFull(ctx, s, full)
	case errors.As(err, &service):
		return d.explainService(ctx, s, service)
	case errors.As(err, &resolve):
		return d.explainResolve(s, resolve)
	case errors.As(err, &refused):
		next := s.retry() + " with that put right."
		if refused.Tool != "" {
			next = "Call " + refused.Tool + " instead."
		}
		return Failure{Code: CodeRefused, WhatHappened: refused.Why, WhatIsStored: s.kept, NextStep: next}
	case errors.As(err, &unsupported):
		return d.explainUnsupported(s, unsupported)
	}
	if f, ok := d.explainStore(s, err); ok {
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Failure{Code: gateway.CodeCancelled, WhatHappened: "The call was cancelled.", WhatIsStored: s.kept, NextStep: s.retry() + "."}
	case errors.Is(err, context.DeadlineExceeded):
		return Failure{Code: gateway.CodeTimeout, WhatHappened: "The call took too long and was ended.", WhatIsStored: s.kept, NextStep: s.later()}
	case errors.Is(err, errors.ErrUnsupported):
		return Failure{
			Code: CodeUnsupported, WhatHappened: d.said(ctx, err), WhatIsStored: s.kept,
			NextStep: "Ask the person to update Enlist.",
		}
	}
	id := strings.ToLower(rand.Text()[:10])
	d.Logger.ErrorContext(ctx, "a tool failed in a way that nobody thought of", "bug_id", id, "tool", s.name, "error", d.said(ctx, err))
	f, _ := Internal(id).StructuredContent.(Failure)
	return f
}

// explainUnsupported is about a call that a protocol does not have.
func (d Deps) explainUnsupported(s spec, e *gateway.UnsupportedError) Failure {
	const forget = "call forget_credential, if the person agrees"
	step := sentence(forget)
	if d.rotates(e.Protocol) {
		step = "Call rotate_credential; or " + forget + "."
	}
	if e.Op == "rotate" {
		step = sentence(protocols()[e.Protocol].anew(d) + ", then " + forget)
	}
	return Failure{
		Code: CodeUnsupported, Protocol: e.Protocol, WhatIsStored: s.kept,
		WhatHappened: fmt.Sprintf("The protocol %s has no call to %s a credential, so nothing was done.", e.Protocol, e.Op),
		NextStep:     step + " " + e.Instead,
	}
}

// sentence makes a sentence of a part of one.
func sentence(part string) string { return strings.ToUpper(part[:1]) + part[1:] + "." }

// same says how to register an agent again, as a part of a sentence.
func (p protocol) same(k credstore.Key) string {
	step := "call " + p.register
	switch {
	case p.names != "label":
		step += " with " + p.names + " " + value(k.Agent)
		if p.takesURL {
			step += " and service_url " + k.Origin
		}
		if k.Label != "" {
			step += " and label " + value(k.Label)
		}
	case k.Label != "":
		step += " with label " + value(k.Label)
	}
	return step
}

// value returns a stored name as it stands in a sentence: in quotes, unless it is
// plainly one name. Whoever chose it, another client perhaps, does not speak for
// Enlist.
func value(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return strconv.Quote(name)
}

// plainName matches what is one name and no words.
var plainName = wire.NewPattern(`^[A-Za-z0-9._@/:-]{1,100}$`)

// anew says how to come to another credential of a protocol, as a part of a
// sentence.
func (p protocol) anew(d Deps) string {
	if p.register == "" {
		return d.toRegister()
	}
	return "call " + p.register + " with another " + p.names
}

// rotates reports whether a protocol can replace a credential by a new one.
func (d Deps) rotates(name string) bool {
	return slices.ContainsFunc(d.Client.All(), func(p gateway.Protocol) bool {
		_, ok := p.(gateway.Rotator)
		return ok && p.Wire().Name == name
	})
}

// renews reports whether a protocol renews a credential by itself.
func (d Deps) renews(name string) bool {
	return slices.ContainsFunc(d.Client.All(), func(p gateway.Protocol) bool {
		_, ok := p.(gateway.Renewer)
		return ok && p.Wire().Name == name
	})
}

// usedNow reports whether an origin is the one that a protocol's own tools go to.
func (d Deps) usedNow(name, origin string) bool {
	return slices.ContainsFunc(d.Client.All(), func(p gateway.Protocol) bool {
		return p.Wire().Name == name && p.Origin() == origin
	})
}

// said returns the words of an error without secrets, on one line.
func (d Deps) said(ctx context.Context, err error) string {
	if err == nil {
		return ""
	}
	return d.Client.Scrubber.Said(ctx, err.Error())
}

// ours returns the words of an error that no service had a part in. They are
// said even when the store cannot be read, which they may be about.
func (d Deps) ours(err error) string {
	if err == nil {
		return ""
	}
	return d.Client.Scrubber.Own(err.Error())
}

// retry says to call the tool again, at the beginning of a sentence.
func (s spec) retry() string { return "Call " + s.name + " again" }

// again says so within one.
func (s spec) again() string { return "call " + s.name + " again" }

// later says to do so when something may have passed.
func (s spec) later() string { return "Wait a minute, then " + s.again() + "." }

// here puts the tool that was called into a step that holds for several: {Again}
// begins a sentence, {again} does not.
func (s spec) here(step string) string {
	return strings.NewReplacer("{Again}", s.retry(), "{again}", s.again()).Replace(step)
}

// explainResolve is about a handle that names no credential, or not just one.
func (d Deps) explainResolve(s spec, e *gateway.ResolveError) Failure {
	f := Failure{Code: CodeNoCredential, WhatHappened: e.Why, WhatIsStored: "Nothing changed."}
	switch list := strings.Join(e.Candidates, ", "); {
	case list != "":
		f.WhatIsStored = "Nothing changed. Stored are: " + list + "."
		f.NextStep = fmt.Sprintf("%s with credential %s, or register: %s.", s.retry(), strings.Join(e.Candidates, ", or with "), d.toRegister())
		if e.Handle == "" && len(e.Candidates) > 1 {
			f.Code = CodeWhichCredential
		}
	case e.Handle != "":
		f.NextStep = "Call list_credentials: it has the handles of all credentials."
	default:
		f.NextStep = sentence(d.toRegister())
	}
	return f
}

// explainStore is about the place where credentials are kept.
func (d Deps) explainStore(s spec, err error) (Failure, bool) {
	f := Failure{WhatIsStored: s.kept}
	what := d.ours(err)
	var known *credstore.Error
	if errors.As(err, &known) {
		// The remedy is said in next_step.
		what = d.ours(&credstore.Error{Op: known.Op, Place: known.Place, Kind: known.Kind, Cause: known.Cause})
	}
	switch {
	case errors.Is(err, credstore.ErrNotFound):
		f.Code, f.WhatHappened = CodeNoCredential, "There is no such credential any more."
		f.NextStep = "Call list_credentials."
		return f, true
	case errors.Is(err, credstore.ErrTooLarge):
		f.Code = CodeStoreTooSmall
		f.NextStep = "Ask the person to set ENLIST_STORE=file for Enlist and to restart it, then " + s.again() + "."
	case errors.Is(err, credstore.ErrDamaged):
		f.Code = CodeStoreDamaged
		f.NextStep = sentence(d.toRegister())
	case known != nil, errors.Is(err, credstore.ErrUnavailable):
		f.Code = CodeStoreUnavailable
		f.NextStep = "Ask the person to unlock or repair the credential store, then " + s.again() + "."
	default:
		return f, false
	}
	f.WhatHappened = "The credential store could not be used: " + strings.TrimSuffix(what, ".") + "."
	if known != nil && known.Remedy != "" {
		remedy := strings.TrimSuffix(d.ours(errors.New(known.Remedy)), ".")
		f.NextStep = fmt.Sprintf("Ask the person to do this: %s. Then %s.", remedy, s.again())
	}
	return f, true
}

// explainService is about a service that did not do what it was asked for.
func (d Deps) explainService(ctx context.Context, s spec, e *gateway.Error) Failure {
	p := protocols()[e.Protocol]
	f := Failure{
		Code: e.Code, Protocol: e.Protocol, Origin: e.Origin, Status: e.Status,
		RetryAfterSeconds: int(math.Ceil(e.RetryAfter.Seconds())),
		ServiceSaid:       d.Client.Scrubber.Said(ctx, e.Message),
		WhatIsStored:      s.kept,
	}
	if e.Sent {
		f.WhatIsStored = s.lost
	}
	code := e.Code
	if e.Theirs {
		code = "" // whatever it is, it says nothing of ours
		if isOwnCode(e.Code) {
			f.Code, f.ServiceSaid = gateway.CodeHTTPStatus, d.Client.Scrubber.Said(ctx, strings.TrimSuffix(e.Code+": "+e.Message, ": "))
		}
	}
	switch code {
	case gateway.CodeInvalidInput:
		f = badArguments(s.name, "Refused before any request was made: "+d.ours(e.Cause)+".")
		f.Code, f.Protocol, f.Origin = e.Code, e.Protocol, e.Origin
		return f
	case gateway.CodeKeyLost:
		f.WhatHappened = e.Origin + " replaced the key, but the answer with the new one never came: the old one has ended, and the new one is lost."
		f.WhatIsStored = "The old key, marked as revoked."
		f.NextStep = s.here(p.advice[e.Code])
		return f
	}
	if code == gateway.CodeRecovery {
		f.WhatHappened = e.Origin + " accepts none of the account's stored keys, or what would make another is not stored" + d.own(ctx, e.Cause) + "."
		f.NextStep = p.advice[e.Code]
		if !d.usedNow(e.Protocol, e.Origin) {
			f.NextStep = fmt.Sprintf("Ask the person to set %s=%s in Enlist's environment and to restart Enlist first: the tools that recover or register go to the service that is set. %s",
				p.setting, e.Origin, f.NextStep)
		}
		return f
	}
	d.explainAnswer(ctx, s, e, code, &f)
	// What is not the protocol's will not become it by asking again.
	again := s.here(cmp.Or(p.lost[e.Op], s.lostStep))
	if e.Sent && again != "" && code != gateway.CodeBadAnswer && code != gateway.CodeTooLarge && code != gateway.CodeRedirect {
		f.NextStep = again
	}
	if e.RetryAfter > 0 {
		f.NextStep = fmt.Sprintf("Wait %s, then %s.", e.RetryAfter.Round(time.Second), s.again())
	}
	return f
}

// explainAnswer says what came of a request, by its code where that is ours.
func (d Deps) explainAnswer(ctx context.Context, s spec, e *gateway.Error, code string, f *Failure) {
	p := protocols()[e.Protocol]
	base := "Ask the person whether the service's base URL is right"
	if p.setting != "" {
		base += " (" + p.setting + " in Enlist's environment)"
	}
	switch code {
	case gateway.CodeUnreachable:
		f.WhatHappened = e.Origin + " could not be reached, or the connection broke."
		f.ServiceSaid = d.said(ctx, e.Cause) // the system's words, which may quote the service's
		f.NextStep = s.later() + " If it fails again, ask the person whether this machine is online, the service is running and its base URL is right, then " + s.again() + "."
	case gateway.CodeTimeout:
		f.WhatHappened = e.Origin + " did not answer in time."
		f.NextStep = s.later()
	case gateway.CodeCancelled:
		f.WhatHappened = "The call was cancelled."
		f.NextStep = s.retry() + " if the person still wants it."
	case gateway.CodeRedirect:
		f.WhatHappened = e.Origin + " answered with a redirect. It was not followed: a key goes to the service that issued it only."
		f.ServiceSaid = d.said(ctx, e.Cause) // it names the other host
		f.NextStep = cmp.Or(s.moved, base+".")
	case gateway.CodeBadAnswer:
		f.WhatHappened = e.Origin + " answered with something that is not the protocol's JSON" + d.own(ctx, e.Cause) + "."
		f.NextStep = base + "."
	case gateway.CodeTooLarge:
		f.WhatHappened = e.Origin + " answered with far more than the protocol's answers can be" + d.own(ctx, e.Cause) + "."
		f.NextStep = base + "."
	case gateway.CodeInsecure:
		f.WhatHappened = "Plain http to " + e.Origin + " would show the key to anybody on the way. No request was made."
		f.NextStep = base + ": it must begin with https."
	case gateway.CodeAddressRefused:
		d.explainAddress(e, f)
	case gateway.CodeWithheld:
		f.WhatHappened = e.Origin + " answered, but the stored secrets could not be read to take them out of the answer, so it is withheld."
		f.NextStep = "Ask the person to unlock the credential store, then " + s.again() + "."
	case gateway.CodeChallenge:
		f.WhatHappened = e.Origin + " wants something signed that is not for this registration" + d.own(ctx, e.Cause) + ". Nothing was signed."
		f.NextStep = s.here(p.advice[code])
	case gateway.CodeNoScope:
		f.WhatHappened = "Nothing was asked for at " + e.Origin + d.own(ctx, e.Cause) + "."
		f.NextStep = s.here(p.advice[code])
	default:
		f.WhatHappened = fmt.Sprintf("%s refused to %s (HTTP %d).", e.Origin, cmp.Or(e.Op, "do it"), e.Status)
		f.NextStep = d.refusalStep(s, p, e)
	}
}

// explainAddress is about a host that leads to where no request goes. What was
// resolved is in the words of ours, and no resolver's are.
func (d Deps) explainAddress(e *gateway.Error, f *Failure) {
	f.WhatHappened = "No request was made: " + d.ours(e.Cause) + "."
	f.NextStep = "Ask the person whether the service has a public address, and which."
	var refused *gateway.AddressError
	if !errors.As(e.Cause, &refused) || !refused.Choosable {
		return
	}
	setting := protocols()[e.Protocol].setting
	if setting == "" {
		var all []string
		for _, p := range protocols() {
			if p.setting != "" {
				all = append(all, p.setting)
			}
		}
		slices.Sort(all)
		setting = "the one that is for its protocol of " + strings.Join(all, ", ")
	}
	f.NextStep += " If it is a service of the person's own network, they can set its base URL in Enlist's environment (" +
		setting + ") and restart Enlist, or name the network as private_networks in " + gateway.PolicyFile + "."
}

// own returns the words of a cause where they are ours alone, and nothing
// where they repeat an error of the service.
func (d Deps) own(ctx context.Context, cause error) string {
	var inner *gateway.Error
	if cause == nil || errors.As(cause, &inner) {
		return ""
	}
	return " (" + d.said(ctx, cause) + ")"
}

// refusalStep is the next step after a service's own error code, or after a
// status where the code says nothing.
func (d Deps) refusalStep(s spec, p protocol, e *gateway.Error) string {
	// Some services write their codes in another case of letters.
	if step := cmp.Or(p.advice[e.Code], p.advice[strings.ToLower(e.Code)]); step != "" && e.Theirs {
		return s.here(step)
	}
	switch {
	case e.Status == http.StatusPaymentRequired:
		return "Tell the person that the service wants to be paid. Enlist does not pay."
	case e.Status == http.StatusTooManyRequests:
		return "Wait an hour, then " + s.again() + ": the service gives no time."
	case e.Status >= http.StatusInternalServerError:
		return s.later() + " If it fails again, tell the person that the service is out of order."
	case (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) && !d.rotates(e.Protocol):
		return "Tell the person what service_said says; there is no other key to be had for this agent."
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return "Call rotate_credential, then " + s.again() + ". If it fails again, " + p.anew(d) + "."
	case e.Status == http.StatusNotFound, e.Status == http.StatusMethodNotAllowed:
		return "Ask the person whether the service's base URL is right."
	}
	return s.retry() + " with what service_said says put right. If it fails again, tell the person what it says."
}
