package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// The times that [Options] default to. An operation ends before a client of
// ours gives up on us: MCP clients wait 30 to 60 seconds for a tool.
const (
	defaultTimeout  = 10 * time.Second
	defaultDeadline = 25 * time.Second
)

// Options is what a [Client] is made of. Store and Now are required.
type Options struct {
	// Store keeps the credentials.
	Store credstore.Store
	// Home is the folder of the journal, the policy and what else is kept beside
	// the store, such as answers that are too long to be returned. "": the journal
	// is in memory, there is no policy file, and such answers are cut.
	Home string
	// Policy is the path of the policy file; "": the one in Home.
	Policy string
	// Env reads the user's settings; each protocol knows its own names. nil: none are set.
	Env func(name string) string
	// Origins sets the base URL of a protocol, by its name, whatever Env says:
	// it is what a command line asked for, such as --embedded.
	Origins map[string]string
	// Transport makes the connections. nil: NewTransport(nil).
	Transport http.RoundTripper
	// Timeout is for one request with its answer; 0: 10 seconds.
	Timeout time.Duration
	// Deadline is for a whole operation with its retries; 0: 25 seconds.
	Deadline time.Duration
	// Now is the clock.
	Now func() time.Time
	// Sleep waits between two tries, or less long when ctx ends. nil: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Idle waits between two looks of [Lifecycle.Keep]. nil: a timer.
	Idle func(ctx context.Context, d time.Duration) error
	// Random returns a number in [0, 1): it spreads renewals over time. nil: one
	// that nobody can foresee.
	Random func() float64
	// Logger gets what is done, never what is said. nil: nothing is logged.
	Logger *slog.Logger
	// Version goes into the User-Agent; "": "dev".
	Version string

	// chosen collects the origins that Origins and Env set.
	chosen map[string]bool
	// steward stands around what is done with credentials.
	steward *steward
	// spread says when they are renewed.
	spread *spread
}

// Client is the client half of every protocol over one store. Its protocols,
// here and where New makes them, are one of the four lists that a new one is
// added to; the manual names them, in adding-a-protocol.
type Client struct {
	AgentDoor *AgentDoor
	Fluxra    *Fluxra
	Lithtrix  *Lithtrix
	Lona      *Lona
	Lumina    *Lumina
	Lifecycle *Lifecycle
	Scrubber  *Scrubber

	protocols []Protocol
	journal   *journal
}

// New returns a Client. An error names the setting that is wrong; it never
// holds a secret.
func New(o Options) (*Client, error) {
	if o.Store == nil || o.Now == nil {
		return nil, errors.New("gateway: Options.Store and Options.Now are required")
	}
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.chosen = make(map[string]bool)
	scrubber := newScrubber(o.Store)
	o.Store = scrubber.watch()
	o.steward = newSteward(o, scrubber)
	o.spread = newSpread(o.Random)
	m := &making{options: o, http: newCaller(o, scrubber)}
	c := &Client{
		AgentDoor: made(m, newAgentDoor),
		Fluxra:    made(m, newFluxra),
		Lithtrix:  made(m, newLithtrix),
		Lona:      made(m, newLona),
		Lumina:    made(m, newLumina),
		Scrubber:  scrubber,
		journal:   o.steward.journal,
	}
	if err := errors.Join(m.errs...); err != nil {
		return nil, err
	}
	c.protocols = m.protocols
	slices.SortFunc(c.protocols, func(a, b Protocol) int { return strings.Compare(a.Wire().Name, b.Wire().Name) })
	c.Lifecycle = newLifecycle(o, m.http, c.protocols)
	o.steward.policy.handle = c.Lifecycle.Handle
	return c, nil
}

// making is what protocols are made of, and those that were made.
type making struct {
	options   Options
	http      *caller
	protocols []Protocol
	errs      []error
}

// made makes a protocol.
func made[P Protocol](m *making, f func(Options, *caller) (P, error)) P {
	p, err := f(m.options, m.http)
	m.protocols, m.errs = append(m.protocols, p), append(m.errs, err)
	return p
}

// All returns every protocol, sorted by name.
func (c *Client) All() []Protocol { return slices.Clone(c.protocols) }

// Close closes the journal. The client can be used on, and opens it again.
func (c *Client) Close() error { return c.journal.Close() }

// Start does what the user's settings ask for at the start of the program:
// every [Starter] once. One that fails does not keep the next from starting.
func (c *Client) Start(ctx context.Context) error {
	ctx = WithCaller(ctx, Caller{Kind: CallerSelf, Name: "enlist"})
	var errs []error
	for _, p := range c.protocols {
		s, ok := p.(Starter)
		if !ok {
			continue
		}
		if err := s.Start(ctx); err != nil {
			errs = append(errs, fmt.Errorf("start %s: %w", p.Wire().Name, err))
		}
	}
	return errors.Join(errs...)
}

// setting returns the base URL of a protocol: what Options.Origins says, else
// what the user set under name, else the protocol's own.
func (o Options) setting(protocol, name, own string) (string, error) {
	base, source := o.Origins[protocol], "the base URL of "+protocol
	if base == "" {
		base, source = o.Env(name), name
	}
	if base == "" {
		return own, nil
	}
	origin, err := parseOrigin(base)
	if err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	if o.chosen != nil {
		o.chosen[origin] = true
	}
	return origin, nil
}
