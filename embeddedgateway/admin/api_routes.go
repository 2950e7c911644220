package admin

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// apiMost is the size of the largest page.
const apiMost = 500

func pageLimit(r *http.Request) (int, error) {
	n, err := number(r, "limit", 1, apiMost)
	return int(n), err
}

// agents answers a page of agents.
func (a *api) agents(r *http.Request) (any, error) {
	limit, err := pageLimit(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	return a.gateway.Agents(r.Context(), embeddedgateway.AgentQuery{
		Protocol: q.Get("protocol"), State: q.Get("state"), Search: q.Get("search"), After: q.Get("after"), Limit: limit,
	})
}

// agent answers all that is known of one agent.
func (a *api) agent(r *http.Request) (any, error) {
	return a.gateway.Agent(r.Context(), r.PathValue("protocol"), r.PathValue("agent"))
}

// act does something to an agent, and answers the agent as it then is, if there
// is one.
func (a *api) act(do func(ctx context.Context, protocol, agent string) error, left bool) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		protocol, agent := r.PathValue("protocol"), r.PathValue("agent")
		if err := do(r.Context(), protocol, agent); err != nil || !left {
			return nil, err
		}
		detail, err := a.gateway.Agent(r.Context(), protocol, agent)
		return detail.AgentInfo, err
	}
}

// keys answers the keys of an agent.
func (a *api) keys(r *http.Request) (any, error) {
	detail, err := a.gateway.Agent(r.Context(), r.PathValue("protocol"), r.PathValue("agent"))
	return map[string][]embeddedgateway.KeyInfo{"keys": detail.Keys}, err
}

// revokeKey ends a key.
func (a *api) revokeKey(r *http.Request) (any, error) {
	revoked, err := a.gateway.RevokeKey(r.Context(), r.PathValue("protocol"), r.PathValue("agent"), r.PathValue("key_id"))
	return map[string]bool{"revoked": revoked}, err
}

// invites answers a page of invites.
func (a *api) invites(r *http.Request) (any, error) {
	limit, err := pageLimit(r)
	if err != nil {
		return nil, err
	}
	return a.gateway.Invites(r.Context(), embeddedgateway.InviteQuery{After: r.URL.Query().Get("after"), Limit: limit})
}

// apiLetter is a letter as the outbox shows it. It names its fields as `enlist
// gateway outbox --json` does.
type apiLetter struct {
	Letter    string    `json:"letter"`
	To        string    `json:"to"`
	Subject   string    `json:"subject"`
	Text      string    `json:"text"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Tries     int       `json:"tries"`
}

// outbox answers the letters that wait, with the links and codes in them: they
// are what it is for. A letter that cannot be read is left out, if not all are.
func (a *api) outbox(r *http.Request) (any, error) {
	list, err := a.gateway.ReadOutbox(r.Context())
	if err != nil && len(list) == 0 {
		return nil, err
	}
	if err != nil {
		a.log.WarnContext(r.Context(), "some letters of the outbox cannot be read", "error", err)
	}
	letters := make([]apiLetter, 0, len(list))
	for _, m := range list {
		letters = append(letters, apiLetter{m.Name, m.To, m.Subject, m.Text, m.Created, m.Expires, m.Tries})
	}
	return map[string]any{
		"warning": "whoever has the links and codes in these letters can take accounts over",
		"letters": letters,
	}, nil
}

// events answers a page of the audit trail.
func (a *api) events(r *http.Request) (any, error) {
	limit, err := pageLimit(r)
	if err != nil {
		return nil, err
	}
	before, err := number(r, "before", 1, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = 50
	}
	q := r.URL.Query()
	list, err := a.gateway.Audit(r.Context(), store.EventQuery{
		Protocol: q.Get("protocol"), Agent: q.Get("agent"), Before: before, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	page := struct {
		Events []store.Event `json:"events"`
		Next   int64         `json:"next,omitempty"`
	}{Events: []store.Event{}}
	page.Events = append(page.Events, list[:min(len(list), limit)]...)
	if len(list) > limit {
		page.Next = list[limit-1].ID
	}
	return page, nil
}

// numbers answers how the gateway is doing.
func (a *api) numbers(r *http.Request) (any, error) { return a.gateway.Numbers(r.Context()) }
