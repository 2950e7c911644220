package embeddedgateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The sizes of what an operator is shown.
const (
	operatorPage = 50
	operatorMost = 500
	detailMost   = 100 // keys and events of an agent
)

// The states of an agent, a key and an invite.
const (
	stateActive    = "active"
	stateSuspended = "suspended"
	stateExpired   = "expired"
	stateRevoked   = "revoked"
	stateOpen      = "open"
	stateUsed      = "used"
)

// ErrQuery says that what an operator asks for is not in order.
var ErrQuery = errors.New("cannot be asked for")

// pageSize returns the size of a page.
func pageSize(limit int) (int, error) {
	switch {
	case limit == 0:
		return operatorPage, nil
	case limit < 0 || limit > operatorMost:
		return 0, fmt.Errorf("%w: limit must be 1 to %d", ErrQuery, operatorMost)
	}
	return limit, nil
}

// wrongQuery says what is wrong with a query that the store has refused.
func wrongQuery(err error) error {
	switch {
	case errors.Is(err, store.ErrCursor):
		return fmt.Errorf("%w: after must be the next of the page before", ErrQuery)
	case errors.Is(err, store.ErrText):
		return fmt.Errorf("%w: it is not text", ErrQuery)
	}
	return err
}

// Agents returns a page of agents: the newest first, and those that are searched
// for in the order of what they were found by. What is wrong with the query is an
// error that wraps [ErrQuery].
func (g *Gateway) Agents(ctx context.Context, q AgentQuery) (AgentPage, error) {
	page, err := g.agents(ctx, q)
	if err != nil {
		return AgentPage{}, fmt.Errorf("list the agents: %w", wrongQuery(err))
	}
	return page, nil
}

func (g *Gateway) agents(ctx context.Context, q AgentQuery) (AgentPage, error) {
	in := store.AgentQuery{Protocol: q.Protocol, Prefix: q.Search, After: q.After}
	var err error
	if in.Limit, err = pageSize(q.Limit); err != nil {
		return AgentPage{}, err
	}
	switch q.State {
	case "":
	case stateActive:
		in.Suspension = store.Active
	case stateSuspended:
		in.Suspension = store.Suspended
	default:
		return AgentPage{}, fmt.Errorf("%w: state must be %s or %s", ErrQuery, stateActive, stateSuspended)
	}
	out := AgentPage{Agents: []AgentInfo{}}
	if q.Search != "" {
		// A version before this one may be serving beside it.
		if _, err := g.store.MakeUpTerms(ctx, termsPart); err != nil {
			return AgentPage{}, err
		}
		if q.After == "" {
			found, err := g.byEmail(ctx, q)
			if err != nil {
				return AgentPage{}, err
			}
			out.Agents = append(out.Agents, found...)
		}
	}
	page, err := g.store.Agents(ctx, in)
	if err != nil {
		return AgentPage{}, err
	}
	out.Next = page.Next
	for _, a := range page.Agents {
		if len(out.Agents) > 0 && out.Agents[0].Protocol == a.Protocol && out.Agents[0].Agent == a.Name {
			continue // found by its email, too
		}
		one, err := g.info(ctx, a)
		if err != nil {
			return AgentPage{}, err
		}
		out.Agents = append(out.Agents, one)
	}
	return out, nil
}

// byEmail finds the agent that an email address was verified for. The address is
// stored under a key only, so it is found whole or not at all.
func (g *Gateway) byEmail(ctx context.Context, q AgentQuery) ([]AgentInfo, error) {
	address, ok := fluxraAddress(q.Search)
	if !ok || q.Protocol != "" && q.Protocol != wire.FluxraName {
		return nil, nil
	}
	holder, err := g.store.Credential(ctx, wire.FluxraName, emailHash(g.mail.vault, address))
	if errors.Is(err, store.ErrNotFound) || err == nil && holder.Kind != fluxraEmail {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := g.store.Agent(ctx, wire.FluxraName, holder.AgentName)
	suspended := !a.DisabledAt.IsZero()
	if errors.Is(err, store.ErrNotFound) || q.State == stateActive && suspended || q.State == stateSuspended && !suspended {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	one, err := g.info(ctx, a)
	return []AgentInfo{one}, err
}

// info is an agent in a list, with its email where it has one.
func (g *Gateway) info(ctx context.Context, a store.Agent) (AgentInfo, error) {
	one := info(a)
	if a.Protocol != wire.FluxraName {
		return one, nil
	}
	verified, err := g.store.Issued(ctx, a.ID, fluxraEmail, 0, 1)
	if err == nil && len(verified) > 0 {
		one.Email = openEmail(g.mail.vault, verified[0])
	}
	return one, err
}

// Agent returns all that is known of one agent. There is no such agent: the error
// wraps [store.ErrNotFound].
func (g *Gateway) Agent(ctx context.Context, protocol, agent string) (AgentDetail, error) {
	d, err := g.detail(ctx, protocol, agent)
	if err != nil {
		return AgentDetail{}, fmt.Errorf("show an agent of %s: %w", protocol, wrongQuery(err))
	}
	return d, nil
}

func (g *Gateway) detail(ctx context.Context, protocol, agent string) (d AgentDetail, err error) {
	a, err := g.store.Agent(ctx, protocol, agent)
	if err != nil {
		return d, err
	}
	if d.AgentInfo, err = g.info(ctx, a); err != nil {
		return d, err
	}
	issued, err := g.store.CredentialsOf(ctx, a.ID, detailMost+len(claims(protocol)))
	if err != nil {
		return d, err
	}
	issued = slices.DeleteFunc(issued, isClaim)
	issued = issued[:min(len(issued), detailMost)]
	d.Attrs, d.Keys = attrs(a), []KeyInfo{}
	for _, c := range issued {
		d.Keys = append(d.Keys, g.key(c))
	}
	d.Limits = g.limitsOf(a, issued)
	events, err := g.store.Events(ctx, store.EventQuery{Protocol: protocol, Agent: wire.Mask(agent), Limit: detailMost})
	d.Events = append([]store.Event{}, events...)
	return d, err
}

// key is a credential as an operator sees it.
func (g *Gateway) key(c store.Credential) KeyInfo {
	return KeyInfo{
		KeyID: c.KeyID, Kind: c.Kind, Label: c.Label, Scopes: append([]string{}, c.Scopes...),
		CreatedAt: c.CreatedAt, ExpiresAt: c.ExpiresAt, RevokedAt: c.RevokedAt, LastUsedAt: g.uses.of(c),
		State: stateOf(c, g.cfg.Now()),
	}
}

func stateOf(c store.Credential, now time.Time) string {
	switch {
	case !c.RevokedAt.IsZero():
		return stateRevoked
	case !c.ActiveAt(now):
		return stateExpired
	}
	return stateActive
}

// Invites returns a page of the invites that were handed out, the newest first.
// One is forgotten an hour after it has expired.
func (g *Gateway) Invites(ctx context.Context, q InviteQuery) (InvitePage, error) {
	limit, err := pageSize(q.Limit)
	var list []store.Ticket
	page := InvitePage{Invites: []InviteInfo{}}
	if err == nil {
		list, page.Next, err = g.store.Invites(ctx, q.After, limit)
	}
	if err != nil {
		return InvitePage{}, fmt.Errorf("list the invites: %w", wrongQuery(err))
	}
	now := g.cfg.Now()
	for _, k := range list {
		one := InviteInfo{
			Protocol: k.Protocol, Agent: k.Subject,
			CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, UsedAt: k.UsedAt, State: stateOpen,
		}
		switch {
		case !k.UsedAt.IsZero():
			one.State = stateUsed
		case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
			one.State = stateExpired
		}
		page.Invites = append(page.Invites, one)
	}
	return page, nil
}

const (
	termsPart  = 200
	termsPause = 20 * time.Millisecond // others write, too
)

// makeUp stores what agents are found by that a version without search has
// stored, a few at a time, until there are none.
func (g *Gateway) makeUp(ctx context.Context) {
	pause := time.NewTicker(termsPause)
	defer pause.Stop()
	for {
		n, err := g.store.MakeUpTerms(ctx, termsPart)
		if err != nil && ctx.Err() == nil {
			g.cfg.Logger.WarnContext(ctx, "preparing agents for search failed; it is tried again", "error", err)
		}
		if err != nil || n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}
