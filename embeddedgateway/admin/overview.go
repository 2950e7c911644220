package admin

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// newest is how many events the overview shows.
const newest = 8

// overviewView is the page that one begins at.
type overviewView struct {
	embeddedgateway.Numbers
	Figures []figure
	Charts  []chart
	Events  []store.Event
	URL     string // where agents register
	Empty   bool   // nobody has registered yet
}

// figure is a number that the page shows large.
type figure struct {
	ID, Name, Value, Note, Link string
}

func figures(n embeddedgateway.Numbers) []figure {
	var agents, suspended, keys, requests, refused int
	for _, p := range n.Protocols {
		agents, suspended, keys = agents+p.Agents, suspended+p.Suspended, keys+p.Active
	}
	for _, m := range n.Minutes {
		requests, refused = requests+m.Requests, refused+m.Refused
	}
	comma := func(n int) string { return humanize.Comma(int64(n)) }
	return []figure{
		{"agents", "Agents", comma(agents), comma(suspended) + " suspended", "/agents"},
		{"keys", "Active keys", comma(keys), "of all agents", ""},
		{"asked", "Requests", comma(requests), "in the last hour, to this process", ""},
		{"refused", "Refusals", comma(refused), "in the last hour", "/events"},
		{"mail", "Letters", comma(n.Mail), "wait in the outbox", "/outbox"},
	}
}

func (s *site) overview(w http.ResponseWriter, r *http.Request, v *visit) {
	n, err := s.Gateway.Numbers(r.Context())
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	view := overviewView{Numbers: n, Figures: figures(n), Charts: charts(n.Minutes), URL: s.PublicURL, Empty: true}
	for _, p := range n.Protocols {
		view.Empty = view.Empty && p.Agents == 0
	}
	if view.Empty { // the numbers may be some seconds old
		first, err := s.Gateway.Agents(r.Context(), embeddedgateway.AgentQuery{Limit: 1})
		if err != nil {
			s.broken(w, r, v, err)
			return
		}
		view.Empty = len(first.Agents) == 0
	}
	if view.Events, err = s.Gateway.Audit(r.Context(), store.EventQuery{Limit: newest}); err != nil {
		s.broken(w, r, v, err)
		return
	}
	s.render(w, r, v, http.StatusOK, "overview", "Overview", view)
}

// liveNumbers are what the page's script puts in the place of what it shows: the
// texts of elements and the paths of charts, by their ids.
type liveNumbers struct {
	Text map[string]string `json:"text"`
	Path map[string]string `json:"path"`
	At   string            `json:"at"`
}

func (s *site) live(w http.ResponseWriter, r *http.Request, v *visit) {
	n, err := s.Gateway.Numbers(r.Context())
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	out := liveNumbers{Text: map[string]string{}, Path: map[string]string{}, At: n.At.UTC().Format("15:04:05")}
	for _, f := range figures(n) {
		out.Text["n-"+f.ID], out.Text["note-"+f.ID] = f.Value, f.Note
	}
	for _, c := range charts(n.Minutes) {
		out.Text["total-"+c.ID] = humanize.Comma(int64(c.Total))
		out.Text["top-"+c.ID] = humanize.Comma(int64(c.Top))
		out.Text["desc-"+c.ID] = c.Summary
		out.Path["bars-"+c.ID] = c.Path
	}
	for i, m := range n.Minutes {
		for name, value := range map[string]string{
			"at": m.At.UTC().Format("15:04"), "requests": strconv.Itoa(m.Requests),
			"registrations": strconv.Itoa(m.Registered), "refusals": strconv.Itoa(m.Refused),
		} {
			out.Text[fmt.Sprintf("m%d-%s", i, name)] = value
		}
	}
	writeJSON(w, http.StatusOK, out)
}
