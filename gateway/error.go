package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// Error is what a service answered instead of what was asked for, as it came.
// None of its fields holds a secret, whatever the service said.
type Error struct {
	Protocol   string
	Origin     string
	Op         string        // what was being done, in words: "request an invite"
	Status     int           // the HTTP status; 0: there was no answer
	Code       string        // one of the codes below; with Theirs, the service's own
	Theirs     bool          // Code is the service's: it decides nothing about Enlist
	Message    string        // the service's own words, cleaned; "" for our own codes
	RetryAfter time.Duration // how long the service asked to wait; 0: it did not say
	Sent       bool          // the service may have acted on the request
	Cause      error         // why there was no answer; never holds a secret
}

// Codes of an [Error] where the service gave none, or no answer that can be read.
const (
	CodeUnreachable    = "unreachable"         // no connection, or it broke
	CodeTimeout        = "timeout"             // no answer in time
	CodeCancelled      = "cancelled"           // whoever asked gave up
	CodeRedirect       = "redirect"            // a redirect that is not followed
	CodeBadAnswer      = "bad_answer"          // not the protocol's JSON: HTML, cut short, wrong types
	CodeTooLarge       = "too_large"           // more than the protocol's answers can be
	CodeHTTPStatus     = "http_status"         // an error status with no code of the service's own
	CodeInsecure       = "insecure"            // plain http to a host that is not loopback
	CodeInvalidInput   = "invalid_input"       // refused before any request; Cause says which argument
	CodeKeyLost        = "key_lost"            // the service has replaced a key, and the new one was in an answer that never came
	CodeAddressRefused = "address_refused"     // the host leads to an address that no request goes to
	CodeChallenge      = "challenge_refused"   // what the service wants signed is not for this registration; nothing was signed
	CodeNoScope        = "scope_not_available" // none of what was asked for, or none without a price; no request was made for it
	CodeRecovery       = "recovery"            // the service refuses every stored key of the account: a person must recover it
	CodeWithheld       = "withheld"            // answered, but the stored secrets could not be read to look for them in it
)

// isOwnCode reports whether a code is one of those above.
func isOwnCode(code string) bool {
	switch code {
	case CodeUnreachable, CodeTimeout, CodeCancelled, CodeRedirect, CodeBadAnswer,
		CodeTooLarge, CodeHTTPStatus, CodeInsecure, CodeInvalidInput, CodeWithheld, CodeKeyLost,
		CodeAddressRefused, CodeChallenge, CodeNoScope, CodeRecovery:
		return true
	}
	return false
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s at %s: %s", e.Op, e.Origin, e.Code)
	if e.Status != 0 {
		text += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// UnsupportedError says that a protocol has no call for what was asked.
type UnsupportedError struct {
	Protocol string
	Op       string // "revoke"
	Instead  string // one sentence: what can be done instead
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s has no call to %s a credential. %s", e.Protocol, e.Op, e.Instead)
}

// RefusedError says that Enlist itself refused a request before any was made.
type RefusedError struct {
	Why  string // one sentence
	Tool string // the tool that does what was wanted, or ""
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Tool == "" {
		return e.Why
	}
	return e.Why + " Use " + e.Tool + " instead."
}

// LocalError says that Enlist itself, not the service, is why a request was
// not made. A transport returns it, as the one of the embedded gateway does when
// that cannot start. It is passed on as it is, and the request is not repeated.
// Neither of its fields may hold a secret or words of a service.
type LocalError struct {
	Why    string // one sentence
	Remedy string // one sentence: what can be done
}

// Error implements error.
func (e *LocalError) Error() string { return e.Why + " " + e.Remedy }

// NotStoredError says that a service issued a credential and the store would
// not take it. The secret is gone with this process.
type NotStoredError struct {
	Protocol string
	Origin   string
	Agent    string
	Remedy   string // one sentence: what can be done, and what happens then
	Cause    error  // what the store said
}

// Error implements error.
func (e *NotStoredError) Error() string {
	return fmt.Sprintf("%s issued a credential to %q but it could not be stored: %v. %s", e.Origin, e.Agent, e.Cause, e.Remedy)
}

// Unwrap returns the cause.
func (e *NotStoredError) Unwrap() error { return e.Cause }

// HalfRotatedError says that a credential was rotated, the new key is stored
// and in use, and the service did not end the old one yet. Rotating or
// revoking the credential again does.
type HalfRotatedError struct {
	Info  credstore.Info // of the new key
	Old   string         // what the service calls the old key
	Cause error          // why it is not finished
}

// Error implements error.
func (e *HalfRotatedError) Error() string {
	return fmt.Sprintf("the new key is stored and in use; the old one, %s, may not have ended: %v", e.Old, e.Cause)
}

// Unwrap returns the cause.
func (e *HalfRotatedError) Unwrap() error { return e.Cause }

// ResolveError says that a handle names no credential, or not just one.
type ResolveError struct {
	Handle     string   // as it was given; "": none was
	Why        string   // one sentence
	Candidates []string // the handles that could have been meant
	Usable     bool     // each of the candidates can be used as it is
	Malformed  bool     // it is no handle, whatever is stored
}

// Error implements error.
func (e *ResolveError) Error() string {
	if len(e.Candidates) == 0 {
		return e.Why
	}
	return e.Why + " Stored are: " + strings.Join(e.Candidates, ", ") + "."
}

// mayHaveIssued reports whether the answer to an issuing request was lost on
// its way, so that another try can make up for it. An answer that came and is
// not the protocol's would only come again.
func (e *Error) mayHaveIssued() bool {
	return e.Sent && (e.Status >= http.StatusInternalServerError || e.Code == CodeUnreachable ||
		e.Code == CodeTimeout || errors.Is(e, errCutShort))
}
