package gateway

import (
	"slices"

	"github.com/enlist-mcp/enlist/credstore"
)

// matching returns the exceptions that are about a credential, those that are
// drawn closer behind those that are drawn wider. In a group are those that are
// drawn as closely.
func (d *policyDocument) matching(k credstore.Key) [][]exception {
	var groups [][]exception
	for rank := 1; rank < 1<<3; rank++ {
		var group []exception
		for _, e := range d.For {
			if e.rank() == rank && e.matches(k) {
				group = append(group, e)
			}
		}
		if group != nil {
			groups = append(groups, group)
		}
	}
	return groups
}

// verdict returns what the policy says of an act; "": nothing. The exception that
// is drawn closest decides, and of several such the strictest.
func (d *policyDocument) verdict(act Act) Verdict {
	v := d.of(act.Action)
	for _, group := range d.matching(act.Key) {
		var said []Verdict
		for _, e := range group {
			said = append(said, e.of(act.Action))
		}
		for _, strict := range []Verdict{Deny, Ask, Allow} {
			if slices.Contains(said, strict) {
				v = strict
				break
			}
		}
	}
	return v
}

// requests returns what the methods and paths of requests must be in: in each
// of the lists; none: they may be any. The exceptions that are drawn closest
// decide, all of them.
func (d *policyDocument) requests(k credstore.Key) (methods [][]policyMethod, paths [][]policyPath) {
	if d.Methods != nil {
		methods = append(methods, d.Methods)
	}
	if d.Paths != nil {
		paths = append(paths, d.Paths)
	}
	for _, group := range d.matching(k) {
		var m [][]policyMethod
		var p [][]policyPath
		for _, e := range group {
			if e.Methods != nil {
				m = append(m, e.Methods)
			}
			if e.Paths != nil {
				p = append(p, e.Paths)
			}
		}
		if m != nil {
			methods = m
		}
		if p != nil {
			paths = p
		}
	}
	return methods, paths
}
