package admin

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// maxSearch is how many characters are searched for: no name is longer.
const maxSearch = 200

// agentsView is a page of agents.
type agentsView struct {
	embeddedgateway.AgentPage
	Query    embeddedgateway.AgentQuery
	Filtered bool
	Next     string // the page after, "": this is the last
	First    string // the first page, "": this is it
}

func (s *site) agents(w http.ResponseWriter, r *http.Request, v *visit) {
	asked := r.URL.Query()
	q := embeddedgateway.AgentQuery{
		Search: strings.TrimSpace(asked.Get("q")), Protocol: asked.Get("protocol"), State: asked.Get("state"),
		After: asked.Get("after"),
	}
	if len(q.Search) > maxSearch {
		s.fail(w, r, v, http.StatusBadRequest, "nothing has a name as long as that: search for how it begins")
		return
	}
	found, err := s.Gateway.Agents(r.Context(), q)
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	view := agentsView{AgentPage: found, Query: q, Filtered: q.Search != "" || q.Protocol != "" || q.State != ""}
	filters := []string{"q", q.Search, "protocol", q.Protocol, "state", q.State}
	if found.Next != "" {
		view.Next = link("/agents", append(filters, "after", found.Next)...)
	}
	if q.After != "" {
		view.First = link("/agents", filters...)
	}
	s.render(w, r, v, http.StatusOK, "agents", "Agents", view)
}

// agentView is one agent with all that is known of it.
type agentView struct {
	embeddedgateway.AgentDetail
	Attributes []attr
	Active     int // keys
}

func (s *site) agent(w http.ResponseWriter, r *http.Request, v *visit) {
	found, ok := s.findAgent(w, r, v)
	if !ok {
		return
	}
	view := agentView{AgentDetail: found, Attributes: sortedAttrs(found.Attrs), Active: activeKeys(found.Keys)}
	s.render(w, r, v, http.StatusOK, "agent", nameOf(found.AgentInfo), view)
}

// nameOf is what an agent calls itself, or its id.
func nameOf(a embeddedgateway.AgentInfo) string {
	if a.Name != "" {
		return plain(a.Name)
	}
	return plain(a.Agent)
}

func activeKeys(keys []embeddedgateway.KeyInfo) (n int) {
	for _, k := range keys {
		if k.State == "active" {
			n++
		}
	}
	return n
}

func (s *site) findAgent(w http.ResponseWriter, r *http.Request, v *visit) (embeddedgateway.AgentDetail, bool) {
	found, err := s.Gateway.Agent(r.Context(), r.FormValue("protocol"), r.FormValue("agent"))
	if err != nil {
		s.broken(w, r, v, err)
	}
	return found, err == nil
}

// invitesView is a page of invites.
type invitesView struct {
	embeddedgateway.InvitePage
	Next, First string
}

func (s *site) invites(w http.ResponseWriter, r *http.Request, v *visit) {
	after := r.URL.Query().Get("after")
	found, err := s.Gateway.Invites(r.Context(), embeddedgateway.InviteQuery{After: after})
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	view := invitesView{InvitePage: found}
	if found.Next != "" {
		view.Next = link("/invites", "after", found.Next)
	}
	if after != "" {
		view.First = "/invites"
	}
	s.render(w, r, v, http.StatusOK, "invites", "Invites", view)
}

// someEvents is how many events a page has.
const someEvents = 100

// eventsView is what happened.
type eventsView struct {
	Events   []store.Event
	Protocol string
	Agent    string
	Next     string // the page after, "": this is the last
	First    string // the first page, "": this is it
}

func (s *site) events(w http.ResponseWriter, r *http.Request, v *visit) {
	asked := r.URL.Query()
	q := store.EventQuery{Protocol: asked.Get("protocol"), Agent: strings.TrimSpace(asked.Get("agent")), Limit: someEvents + 1}
	if before := asked.Get("before"); before != "" {
		var err error
		if q.Before, err = strconv.ParseInt(before, 10, 64); err != nil || q.Before < 1 {
			s.fail(w, r, v, http.StatusBadRequest, "there is no such page of events: begin at the first")
			return
		}
	}
	found, err := s.Gateway.Audit(r.Context(), q)
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	view := eventsView{Events: found, Protocol: q.Protocol, Agent: q.Agent}
	filters := []string{"protocol", q.Protocol, "agent", q.Agent}
	if len(found) > someEvents {
		view.Events = found[:someEvents]
		view.Next = link("/events", append(filters, "before", strconv.FormatInt(found[someEvents-1].ID, 10))...)
	}
	if q.Before > 0 {
		view.First = link("/events", filters...)
	}
	s.render(w, r, v, http.StatusOK, "events", "Events", view)
}
