package embeddedgateway

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// kind is what kind of refusal a problem is. The set is closed: a protocol
// adds codes, not kinds.
type kind int

const (
	kindInvalid kind = iota
	kindTooLarge
	kindMediaType
	kindMethod
	kindNotFound
	kindUnauthorized
	kindForbidden
	kindConflict
	kindGone
	kindLimited
	kindUnavailable
	kindInternal
)

// kinds says how each kind is called in the audit trail, and its HTTP status.
func kinds() [kindInternal + 1]struct {
	name   string
	status int
} {
	return [...]struct {
		name   string
		status int
	}{
		kindInvalid:      {"invalid_request", http.StatusBadRequest},
		kindTooLarge:     {"too_large", http.StatusRequestEntityTooLarge},
		kindMediaType:    {"media_type", http.StatusUnsupportedMediaType},
		kindMethod:       {"method", http.StatusMethodNotAllowed},
		kindNotFound:     {"not_found", http.StatusNotFound},
		kindUnauthorized: {"unauthorized", http.StatusUnauthorized},
		kindForbidden:    {"forbidden", http.StatusForbidden},
		kindConflict:     {"conflict", http.StatusConflict},
		kindGone:         {"gone", http.StatusGone},
		kindLimited:      {"rate_limited", http.StatusTooManyRequests},
		kindUnavailable:  {"unavailable", http.StatusServiceUnavailable},
		kindInternal:     {"internal", http.StatusInternalServerError},
	}
}

// status is the HTTP status of the kind.
func (k kind) status() int { return kinds()[k].status }

// fault reports whether the gateway is to blame, not the client.
func (k kind) fault() bool { return k == kindUnavailable || k == kindInternal }

// problem is why a request is refused. It is an error, so that a handler
// returns it from wherever it is; each protocol puts it into its own words.
//
// Its message goes to the client and must not repeat what the client sent.
type problem struct {
	kind    kind
	code    string // the protocol's own code; "": the one it has for the kind
	message string // for people

	allow      string        // with kindMethod: the methods that are allowed
	retryAfter time.Duration // with kindLimited, kindUnavailable
	header     http.Header   // what else the answer has
	page       page          // what people are shown in the place of the protocol's words
	detail     any           // what the protocol says beside code and message
}

// Error implements error.
func (p *problem) Error() string { return p.event() + ": " + p.message }

// event is what the problem is called in the audit trail.
func (p *problem) event() string {
	if p.code != "" {
		return p.code
	}
	return kinds()[p.kind].name
}

// seconds is how long to wait, in whole seconds: never too short, never 0.
func (p *problem) seconds() int {
	return max(1, int(math.Ceil(p.retryAfter.Seconds())))
}

func invalid(format string, args ...any) *problem {
	return &problem{kind: kindInvalid, message: fmt.Sprintf(format, args...)}
}

func tooLarge(limit int) *problem {
	return &problem{kind: kindTooLarge, message: fmt.Sprintf("the body is larger than %d bytes", limit)}
}

func mediaType() *problem {
	return &problem{kind: kindMediaType, message: "the Content-Type must be application/json"}
}

func methodNotAllowed(allow string) *problem {
	return &problem{kind: kindMethod, message: "the method is not allowed here; allowed: " + allow, allow: allow}
}

func notFound() *problem {
	return &problem{kind: kindNotFound, message: "there is nothing at this path"}
}

func unauthorized(code, message string) *problem {
	return &problem{kind: kindUnauthorized, code: code, message: message}
}

func forbidden(code, message string) *problem {
	return &problem{kind: kindForbidden, code: code, message: message}
}

func conflict(code, message string) *problem {
	return &problem{kind: kindConflict, code: code, message: message}
}

func gone(code, message string) *problem {
	return &problem{kind: kindGone, code: code, message: message}
}

func limited(l limit, retryAfter time.Duration) *problem {
	p := &problem{kind: kindLimited, retryAfter: retryAfter}
	p.message = fmt.Sprintf("too many requests: at most %d in %s from one address; try again in %d seconds",
		l.n, l.per, p.seconds())
	return p
}

func unavailable() *problem {
	return &problem{kind: kindUnavailable, message: "the gateway is busy or shutting down; try again", retryAfter: time.Second}
}

func internal(id string) *problem {
	return &problem{kind: kindInternal, message: "internal error " + id}
}
