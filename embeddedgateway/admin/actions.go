package admin

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// action is something that the operator does to an agent, after a question.
type action struct {
	Title, Button string
	Grave         bool // it cannot be undone
	what          func(agentView) []string
	do            func(s *site, r *http.Request, protocol, agent, key string) (said string, err error)
}

// actions are they, by the paths that their questions and their forms are at.
func actions() map[string]action {
	return map[string]action{
		"/agent/suspend": {
			Title: "Suspend", Button: "Suspend the agent",
			what: func(v agentView) []string {
				return []string{
					keys(v.Active) + " at once, at every replica: the next request with one is refused. They stay ended when the agent is resumed.",
					"It cannot register again under this name.",
					"What is known of it stays, and it can be resumed.",
				}
			},
			do: func(s *site, r *http.Request, protocol, agent, _ string) (string, error) {
				return "suspended", s.Gateway.Suspend(r.Context(), protocol, agent)
			},
		},
		"/agent/resume": {
			Title: "Resume", Button: "Resume the agent",
			what: func(agentView) []string {
				return []string{
					"It may register again, and gets a new key by that.",
					"The keys that it had stay ended.",
				}
			},
			do: func(s *site, r *http.Request, protocol, agent, _ string) (string, error) {
				return "resumed", s.Gateway.Resume(r.Context(), protocol, agent)
			},
		},
		"/agent/delete": {
			Title: "Delete", Button: "Delete the agent", Grave: true,
			what: func(v agentView) []string {
				return []string{
					keys(v.Active) + " at once, at every replica.",
					"All that is known of it is forgotten but what stands in the audit trail. This cannot be undone.",
					"Its name is free: whoever registers it next is another agent. To keep the name from being used, suspend the agent instead.",
				}
			},
			do: func(s *site, r *http.Request, protocol, agent, _ string) (string, error) {
				return "deleted", s.Gateway.Delete(r.Context(), protocol, agent)
			},
		},
		"/key/revoke": {
			Title: "Revoke a key of", Button: "Revoke the key", Grave: true,
			what: func(agentView) []string {
				return []string{
					"The key ends at once, at every replica: the next request with it is refused. This cannot be undone.",
					"The agent stays registered, and its other keys stay good.",
				}
			},
			do: func(s *site, r *http.Request, protocol, agent, key string) (string, error) {
				revoked, err := s.Gateway.RevokeKey(r.Context(), protocol, agent, key)
				if err == nil && !revoked {
					return "revoked before", nil
				}
				return "revoked", err
			},
		},
	}
}

func keys(active int) string {
	switch active {
	case 0:
		return "It has no active key; whatever else it was issued ends"
	case 1:
		return "Its key ends"
	}
	return fmt.Sprintf("Its %d keys end", active)
}

// questionView is the page that names what will happen.
type questionView struct {
	action
	Path  string
	Agent agentView
	Key   *embeddedgateway.KeyInfo // the one that it is about, or nil
	What  []string
	Back  string
}

// ask shows what will happen, with the form that does it.
func (s *site) ask(w http.ResponseWriter, r *http.Request, v *visit) {
	found, ok := s.findAgent(w, r, v)
	if !ok {
		return
	}
	a := actions()[r.URL.Path]
	q := questionView{
		action: a, Path: r.URL.Path, Agent: agentView{AgentDetail: found, Active: activeKeys(found.Keys)},
		Back: link("/agent", "protocol", found.Protocol, "agent", found.Agent),
	}
	if id := r.FormValue("key"); r.URL.Path == "/key/revoke" {
		for i, k := range found.Keys {
			if k.KeyID == id {
				q.Key = &found.Keys[i]
			}
		}
		if q.Key == nil {
			s.fail(w, r, v, http.StatusNotFound, "the agent has no such key, or has newer ones than are shown")
			return
		}
	}
	q.What = a.what(q.Agent)
	s.render(w, r, v, http.StatusOK, "question", a.Title+" "+nameOf(found.AgentInfo), q)
}

// act does what was asked for, and leads to the page that shows it done.
func (s *site) act(w http.ResponseWriter, r *http.Request, v *visit) {
	protocol, agent := r.PostFormValue("protocol"), r.PostFormValue("agent")
	said, err := actions()[r.URL.Path].do(s, v.acting(r, "the page"), protocol, agent, r.PostFormValue("key"))
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	s.Logger.InfoContext(r.Context(), "the operator changed an agent", "what", strings.TrimPrefix(r.URL.Path, "/"), "protocol", protocol, "client_ip", v.ip)
	to := v.say(said, "/agent", "protocol", protocol, "agent", agent)
	if said == "deleted" {
		to = v.say(said, "/agents")
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}
