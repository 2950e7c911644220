package embeddedgateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	shownMinutes = 60
	countEvery   = 10 * time.Second // everything that there is, or less often where it takes long
	countShare   = 20               // of the time may go into counting: one part in so many
	mostMail     = 10_000           // letters are counted up to so many
)

// registering says which event of a protocol is a registration.
func registering(protocol, event string) bool {
	switch protocol {
	case wire.FluxraName:
		return event == "agent_registered"
	case wire.LonaName:
		return event == "token_issued"
	}
	return event == "key_issued"
}

// traffic counts the requests of the last minutes. A slot is of one minute; what
// is in it of an hour ago is forgotten with the first request of the new one.
type traffic struct {
	mu    sync.Mutex
	slots [shownMinutes + 4]struct {
		minute int64
		n      int
	}
}

func (t *traffic) note(now time.Time) {
	minute := now.Unix() / 60
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.slots[minute%int64(len(t.slots))]
	if slot.minute != minute {
		slot.minute, slot.n = minute, 0
	}
	slot.n++
}

func (t *traffic) of(at time.Time) int {
	minute := at.Unix() / 60
	t.mu.Lock()
	defer t.mu.Unlock()
	if slot := t.slots[minute%int64(len(t.slots))]; slot.minute == minute {
		return slot.n
	}
	return 0
}

// counted counts the requests to a handler.
type counted struct {
	http.Handler
	traffic *traffic
	now     func() time.Time
}

// ServeHTTP implements [http.Handler].
func (c counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.traffic.note(c.now())
	c.Handler.ServeHTTP(w, r)
}

// census is what was counted of everything, for a while.
type census struct {
	counting sync.Mutex // by whom there is anything to count

	mu        sync.Mutex
	at        time.Time
	took      time.Duration
	protocols []ProtocolNumbers
	minutes   map[int64]MinuteNumbers // those that are over
}

// due reports whether what was counted is too old.
func (c *census) due(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := now.Sub(c.at)
	return c.at.IsZero() || age < 0 || age >= max(countEvery, countShare*c.took)
}

// Numbers returns how the gateway is doing. What there is in all is counted again
// after ten seconds, or later where that takes long; requests are those to this
// process.
func (g *Gateway) Numbers(ctx context.Context) (Numbers, error) {
	n, err := g.numbers(ctx)
	if err != nil {
		return Numbers{}, fmt.Errorf("count what there is: %w", err)
	}
	return n, nil
}

func (g *Gateway) numbers(ctx context.Context) (n Numbers, err error) {
	n.At = g.cfg.Now().UTC()
	if n.Protocols, err = g.countAll(ctx); err != nil {
		return n, err
	}
	if n.Mail, err = g.store.CountSealed(ctx, letterKind, mostMail); err != nil {
		return n, err
	}
	n.Minutes, err = g.countMinutes(ctx, n.At)
	return n, err
}

// countAll returns what every protocol has. While one counts, the others get what
// was counted before.
func (g *Gateway) countAll(ctx context.Context) ([]ProtocolNumbers, error) {
	c := &g.census
	c.mu.Lock()
	first := c.at.IsZero()
	c.mu.Unlock()
	if c.due(g.cfg.Now()) {
		mine := c.counting.TryLock()
		if !mine && first {
			c.counting.Lock()
			mine = true
		}
		if mine {
			defer c.counting.Unlock()
			if c.due(g.cfg.Now()) {
				if err := g.recount(ctx); err != nil {
					return nil, err
				}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.protocols), nil
}

func (g *Gateway) recount(ctx context.Context) error {
	begun := g.cfg.Now()
	agents, err := g.store.CountAgents(ctx)
	if err != nil {
		return err
	}
	keys, err := g.store.CountKeys(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range g.served {
		names = append(names, p.name())
	}
	for _, a := range agents {
		names = append(names, a.Protocol)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	list, at := make([]ProtocolNumbers, len(names)), map[string]*ProtocolNumbers{}
	for i, name := range names {
		list[i].Protocol, at[name] = name, &list[i]
	}
	for _, a := range agents {
		at[a.Protocol].Agents, at[a.Protocol].Suspended = a.All, a.Suspended
	}
	for _, k := range keys {
		if n := at[k.Protocol]; n != nil && !isClaim(store.Credential{Protocol: k.Protocol, Kind: k.Kind}) {
			n.Active += k.Active
		}
	}
	c := &g.census
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.took, c.protocols = begun, g.cfg.Now().Sub(begun), list
	return nil
}

// countMinutes returns what happened in the last minutes. A minute that was over
// when it was counted is not counted again.
func (g *Gateway) countMinutes(ctx context.Context, now time.Time) ([]MinuteNumbers, error) {
	c := &g.census
	end := now.Truncate(time.Minute)
	from := end.Add(-(shownMinutes - 1) * time.Minute)
	c.mu.Lock()
	kept := map[int64]MinuteNumbers{}
	for minute, n := range c.minutes {
		if !n.At.Before(from) {
			kept[minute] = n
		}
	}
	c.mu.Unlock()
	since := from
	for !since.After(end) {
		if _, ok := kept[since.Unix()]; !ok {
			break
		}
		since = since.Add(time.Minute)
	}
	for at := since; !at.After(end); at = at.Add(time.Minute) {
		kept[at.Unix()] = MinuteNumbers{At: at}
	}
	events, err := g.store.CountEvents(ctx, since, end.Add(time.Minute))
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		n := kept[e.Minute.Unix()]
		switch {
		case e.Refusal:
			n.Refused += e.N
		case registering(e.Protocol, e.Name):
			n.Registered += e.N
		}
		kept[e.Minute.Unix()] = n
	}
	list := make([]MinuteNumbers, 0, shownMinutes)
	for at := from; !at.After(end); at = at.Add(time.Minute) {
		n := kept[at.Unix()]
		n.Requests = g.traffic.of(at)
		list = append(list, n)
	}
	// Another process may still write what happened in the minute that is just over.
	delete(kept, end.Unix())
	delete(kept, end.Add(-time.Minute).Unix())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.minutes = kept
	return list, nil
}
