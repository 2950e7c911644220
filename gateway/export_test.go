package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// With adds protocols to a client, as a new file and a line in protocols.go do.
func (c *Client) With(ps ...Protocol) {
	c.protocols = append(c.protocols, ps...)
	c.Lifecycle.protocols = c.protocols
}

// Store returns the store as the protocols of a client have it.
func (c *Client) Store() credstore.Store { return c.Lifecycle.store }

// What tests reach directly.
var (
	RefusePath       = refusePath
	Sleep            = sleep
	WithoutSequences = withoutSequences
)

// Reserved reports whether a request would reach one of the routes.
func Reserved(routes []wire.Route, method, path string) bool {
	_, ok := reservedBy(routes, method, path)
	return ok
}

// Permit asks the policy for an act, and returns the answer.
func (c *Client) Permit(ctx context.Context, act Act) error {
	_, err := c.Lifecycle.steward.policy.permit(ctx, act)
	return err
}

// WithNetworks is a context in which the policy lets requests go to networks.
func WithNetworks(ctx context.Context, networks ...netip.Prefix) context.Context {
	return context.WithValue(ctx, networksKey{}, networks)
}

// Recheck judges a connection to a host that the policy admitted once more.
func Recheck(conn net.Conn, host string, networks ...netip.Prefix) {
	recheck(&admittedConn{conn, host}, networks)
}

// Judge returns why a host at an address is refused, or nil.
func Judge(host string, addr netip.Addr, chosen bool) *AddressError { return judge(host, addr, chosen) }

// TransportWith is the usual transport with another resolver. connecting hears
// of each address that was let pass.
func TransportWith(r *net.Resolver, connecting func(netip.AddrPort) error) *http.Transport {
	return NewTransport((&dialer{resolver: r, connecting: connecting}).DialContext)
}

// Signable returns what would be signed of a challenge, or why nothing would be.
func (a *AgentDoor) Signable(agentID, nonce, message string) (string, error) {
	return a.challengeMessage(wire.AgentDoorPending{
		AgentID: agentID, Challenge: wire.AgentDoorChallenge{Nonce: nonce, Message: message},
	}, nil)
}

// Chosen marks a request as one to an origin that a person has set.
func Chosen(ctx context.Context) context.Context { return context.WithValue(ctx, chosenKey{}, true) }

// WithProbes makes sure that a client looks for every protocol that can be
// looked for, also for one whose client half is in no list.
func (c *Client) WithProbes() {
	for _, p := range []probe{{wire: wire.Fluxra(), look: discoverFluxra}} {
		known := slices.ContainsFunc(c.protocols, func(o Protocol) bool { return o.Wire().Name == p.wire.Name })
		if !known {
			c.With(p)
		}
	}
}

// probe is no more of a protocol than what it is found by.
type probe struct {
	Protocol
	wire wire.Protocol
	look func(context.Context, *Site) (*Discovery, error)
}

// Wire implements [Protocol].
func (p probe) Wire() wire.Protocol { return p.wire }

// Origin implements [Protocol].
func (p probe) Origin() string { return p.wire.Origin }

// Discover implements [Discoverer].
func (p probe) Discover(ctx context.Context, s *Site) (*Discovery, error) { return p.look(ctx, s) }

// OnJournal has f fail what a client is about to write into its journal.
func (c *Client) OnJournal(f func(step string) error) { c.journal.fault = f }

// KeepEvents sets how many events a client keeps.
func (c *Client) KeepEvents(n int64) { c.journal.kept = n }

// TagKeys has the names of API keys end with something else than chance.
func (f *Fluxra) TagKeys(tag string) { f.tag = func() string { return tag } }

// Unfinished returns what the journal of a client has.
func (c *Client) Unfinished(ctx context.Context) ([]Unfinished, error) {
	return c.journal.unfinished(ctx)
}

// Sieve is a sieve of so many bytes at a time. held hears how much is held.
func (s *Scrubber) Sieve(size int, out func([]byte) error, held func(int)) io.WriteCloser {
	v := &sieve{size: size, out: out}
	v.masker = func() (*masker, error) {
		held(cap(v.held))
		return s.current(), s.load(context.Background())
	}
	return v
}

// SieveUntil is a sieve that nobody wants any more of from some time on.
func (s *Scrubber) SieveUntil(size int, ended func() error) io.WriteCloser {
	return &sieve{
		size: size, ended: ended, out: func([]byte) error { return nil },
		masker: func() (*masker, error) { return s.current(), nil },
	}
}

// Clean returns what may be seen of a text that is looked through at once.
func (s *Scrubber) Clean(text string) string { return s.current().clean(text) }

// Bare returns a text with all escapes undone.
func (s *Scrubber) Bare(text string) string { return s.current().bare(text) }

// Errors of a sieve.
var (
	ErrHides = errHides
	ErrKnot  = errKnot
)

// Unplain returns the place of the first byte that may begin an escape.
func (*Scrubber) Unplain(text string) int { return unplain(text, 0) }
