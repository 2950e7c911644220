package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// PolicyTemplate is a policy file that changes nothing: what it could say stands
// in it as comments.
const PolicyTemplate = `# What Enlist may do, and for whom. Enlist reads this file whenever it matters: a
# change holds at once. No agent can read or change it. 'enlist policy show' says
# what holds, 'enlist policy check' whether the file is right.
#
# "allow": it is done. "ask": an agent has to wait until you agree, in its MCP
# client; what you type yourself is done; scripts and what Enlist does by itself are
# refused, as nobody can be asked. "deny": it is not done, whoever wants it.
#
# Where this file says nothing, an agent has to ask before it registers at a service
# that is new to you, revokes, or forgets. All else is allowed.

# register = "ask"     # get an account, or recover one
# rotate   = "allow"   # replace a key
# revoke   = "ask"     # end a credential at the service
# forget   = "ask"     # delete a credential here
# write    = "allow"   # requests other than GET, HEAD and OPTIONS

# registrations_per_day = 10

# Nothing but these is used, by anybody. Left out: all.
# services = ["lona", "lithtrix", "fluxra", "lumina", "agentdoor"]
# origins  = ["https://gateway.lona.agency", "http://enlist.localhost"]

# Requests with a credential have one of these methods, and a path under one of
# these. Left out: any.
# methods = ["GET", "POST"]
# paths   = ["/api/v1"]

# Requests go to public addresses, to this machine, and to these networks.
# private_networks = ["10.1.0.0/16"]

# Other rules for a service, an origin or a credential, or for what is all of those
# that are named. The closest rule holds: that for a credential before that for an
# origin, that for an origin before that for a service; of two as close, the stricter.
# These blocks stand at the end of the file.
#
# [[for]]
# credential = "lona/my-agent"
# revoke     = "deny"
# write      = "ask"
#
# [[for]]
# origin   = "https://api.example.com"
# register = "allow"
# methods  = ["GET"]
`

// PolicyView is what a policy says, for people.
type PolicyView struct {
	Written bool         // there is a file
	Rules   []PolicyRule // what holds for each action
	Lists   []PolicyList
}

// PolicyRule is what becomes of an action, by who wants it done.
type PolicyRule struct {
	For                           string // what it is for; "": everything else
	Action                        Action
	Model, Script, Person, Itself string
}

// PolicyList is a list of a policy.
type PolicyList struct {
	For    string
	Name   string
	Values []string
	Any    bool // there is none
}

// ViewPolicy reads a policy file. That there is none is no error.
func ViewPolicy(path string, now func() time.Time) (PolicyView, error) {
	_, err := os.Lstat(path)
	view := PolicyView{Written: !errors.Is(err, fs.ErrNotExist)}
	d, err := (&policyCache{path: path, now: now}).current()
	if err != nil {
		return view, err
	}
	for _, a := range judged() {
		view.Rules = append(view.Rules, ruleOf("", a, d.of(a)))
	}
	for _, e := range d.For {
		for _, a := range judged() {
			if v := e.of(a); v != "" {
				view.Rules = append(view.Rules, ruleOf(e.String(), a, v))
			}
		}
	}
	list := func(of, name string, values []string, known bool) {
		view.Lists = append(view.Lists, PolicyList{For: of, Name: name, Values: values, Any: !known})
	}
	list("", "services", each(d.Services, func(s policyService) string { return s.string }), d.Services != nil)
	list("", "origins", each(d.Origins, func(o policyOrigin) string { return o.string }), d.Origins != nil)
	if d.RegistrationsPerDay == nil {
		list("", "registrations_per_day", nil, false)
	} else {
		list("", "registrations_per_day", []string{fmt.Sprint(*d.RegistrationsPerDay)}, true)
	}
	list("", "private_networks", each(d.PrivateNetworks, func(n policyNetwork) string { return n.String() }), true)
	method := func(m policyMethod) string { return m.string }
	prefix := func(p policyPath) string { return p.string }
	list("", "methods", each(d.Methods, method), d.Methods != nil)
	list("", "paths", each(d.Paths, prefix), d.Paths != nil)
	for _, e := range d.For {
		if e.Methods != nil {
			list(e.String(), "methods", each(e.Methods, method), true)
		}
		if e.Paths != nil {
			list(e.String(), "paths", each(e.Paths, prefix), true)
		}
	}
	return view, nil
}

func each[T any](all []T, f func(T) string) []string {
	var out []string
	for _, v := range all {
		out = append(out, f(v))
	}
	return out
}

// ruleOf says what a verdict means, and what its absence does.
func ruleOf(of string, a Action, v Verdict) PolicyRule {
	r := PolicyRule{For: of, Action: a, Model: string(v), Script: string(v), Person: string(v), Itself: string(v)}
	switch v {
	case Ask:
		r.Script, r.Itself, r.Person = string(Deny), string(Deny), string(Allow)
	case "":
		r.Model, r.Script, r.Person, r.Itself = string(Allow), string(Allow), string(Allow), string(Allow)
		switch a {
		case ActRegister:
			r.Model = "ask at a new service"
		case ActRevoke, ActForget:
			r.Model = string(Ask)
		}
	}
	return r
}
