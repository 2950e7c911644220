package embeddedgateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// protocol is the server half of one registration protocol.
type protocol interface {
	// name is the protocol's short name: "lona".
	name() string
	// routes lists its routes, and with [rest] the paths that are its own
	// beyond them.
	routes() []route
	// refuse puts a problem into the protocol's words.
	refuse(p *problem) (status int, body any)
}

// maker makes a protocol. What it cannot read of its environment it reports to
// deps.env; the protocol that it returns is then not used.
type maker struct {
	name string
	make func(deps) protocol
}

// makers lists every protocol, sorted by name. It is one of the four lists that
// a new protocol is added to; the manual names them, in adding-a-protocol.
func makers() []maker {
	return []maker{
		{wire.AgentDoorName, newAgentDoor},
		{wire.FluxraName, newFluxra},
		{wire.LithtrixName, newLithtrix},
		{wire.LonaName, newLona},
		{wire.LuminaName, newLumina},
	}
}

// deps is what a protocol is made from.
type deps struct {
	Config
	env    *environ
	mint   minter
	uses   *lastUse
	usage  *usage
	vault  *vault
	signer *signer
	mail   *mailer

	metrics *metrics
}

// choose returns the makers of the named protocols; none named: all.
func choose(names []string) ([]maker, error) {
	all := makers()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, m := range all {
		known = append(known, m.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown protocol %q: known are %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(m maker) bool { return !slices.Contains(names, m.name) }), nil
}

// route is one method of one path.
type route struct {
	method string // "": the path is the protocol's own, but nothing is there
	path   string // a pattern of [http.ServeMux] without method and host
	status int    // of the answer that is not a refusal
	takes  any    // the zero value of what the body is decoded into; nil: no body
	before func(context.Context, *call) error
	answer func(context.Context, *call) (any, error)

	registers bool // what it grants is an agent's registration
}

// registering returns the route as one that registers agents, which is counted.
func (r route) registering() route {
	r.registers = true
	return r
}

// first returns the route with a condition that is judged before the body is
// looked at and a limit is spent, as a kill switch is.
func (r route) first(condition func(context.Context, *call) error) route {
	r.before = condition
	return r
}

// checker is a body that can be wrong in itself. It is judged before a limit is
// spent: a spelling mistake costs nothing.
type checker interface{ check() error }

// post is a route that takes a JSON object. The limits are spent, all or none,
// when the body is in order and before h is called.
func post[In, Out any](path string, status int, h func(context.Context, *call, In) (Out, error), ls ...limit) route {
	var zero In
	return route{
		method: http.MethodPost, path: path, status: status, takes: zero,
		answer: func(ctx context.Context, c *call) (any, error) {
			in, err := decode[In](c.body)
			if err != nil {
				return nil, err
			}
			if in, ok := any(in).(checker); ok {
				if err := in.check(); err != nil {
					return nil, err
				}
			}
			if err := c.spend(ctx, ls...); err != nil {
				return nil, err
			}
			return h(ctx, c, in)
		},
	}
}

// act is a post that needs no body: all that it takes is in its headers. A body
// that comes along must be a JSON object all the same, and is ignored.
func act[Out any](path string, status int, h func(context.Context, *call) (Out, error), ls ...limit) route {
	return actOn[struct{}](path, status, h, ls...)
}

// actOn is an act whose body, where one comes along, must be an In. What it says
// is ignored.
func actOn[In, Out any](path string, status int, h func(context.Context, *call) (Out, error), ls ...limit) route {
	r := get(path, h, ls...)
	r.method, r.status = http.MethodPost, status
	return r.first(func(_ context.Context, c *call) error {
		if c.ContentLength == 0 {
			return nil
		}
		// Some clients send a body of unknown length, which then is empty.
		first := bufio.NewReader(c.Body)
		if _, err := first.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		c.Body = struct {
			io.Reader
			io.Closer
		}{first, c.Body}
		body, err := readBody(nil, c.Request)
		if err != nil {
			return err
		}
		_, err = decode[In](body)
		return err
	})
}

// get is a route that takes no body. It answers HEAD too.
func get[Out any](path string, h func(context.Context, *call) (Out, error), ls ...limit) route {
	return route{
		method: http.MethodGet, path: path, status: http.StatusOK,
		answer: func(ctx context.Context, c *call) (any, error) {
			if err := c.spend(ctx, ls...); err != nil {
				return nil, err
			}
			return h(ctx, c)
		},
	}
}

// del is a route that takes no body and ends what its path names. What it
// answers is an [answered] where it is not always the same status.
func del[Out any](path string, status int, h func(context.Context, *call) (Out, error)) route {
	r := get(path, h)
	r.method, r.status = http.MethodDelete, status
	return r
}

// answered is an answer with a status, and perhaps headers, of its own.
type answered struct {
	status int // 0: that of the route
	body   any // nil: none; a page is HTML, anything else JSON
	header http.Header
}

// page is an answer for people: a whole HTML document.
type page []byte

// rest claims a path and all below it for the protocol: what is not a route of
// its own there is refused in its words.
func rest(path string) route {
	return route{path: strings.TrimSuffix(path, "/") + "/"}
}

// limit is how often something may happen from one client.
type limit struct {
	name string // what is counted, within the protocol
	n    int
	per  time.Duration
}
