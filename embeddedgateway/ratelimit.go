package embeddedgateway

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The header fields that tell a client of its limits, as draft 10 of "RateLimit
// header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers) spells them:
//
//	RateLimit-Policy: "agent";q=1000;w=3600, "key";q=100;w=60
//	RateLimit: "agent";r=998;t=3541, "key";r=98;t=2
//
// q is how many requests there may be in w seconds; r is how many are left, and
// in t seconds there are more again.
const (
	rateLimitHeader       = "Ratelimit" // in the form of http.Header; case does not matter
	rateLimitPolicyHeader = "Ratelimit-Policy"
)

const (
	maxRate    = 1_000_000_000
	maxRatePer = 24 * time.Hour
)

// check reports why a rate cannot be kept. setting is what the operator calls it.
func (r Rate) check(setting string) error {
	switch {
	case r == Rate{}:
		return nil
	case r.N < 1 || r.N > maxRate:
		return fmt.Errorf("%s: a limit must allow from 1 to %d requests, got %d", setting, maxRate, r.N)
	case r.Per < time.Second || r.Per > maxRatePer || r.Per%time.Second != 0:
		return fmt.Errorf("%s: the time of a limit must be whole seconds, from 1s to 24h, got %s", setting, r.Per)
	}
	return nil
}

// frontLimits is how often agents may ask for what is behind the gateway.
type frontLimits struct {
	list  []namedLimit
	usage *usage
}

// namedLimit is one of the limits, and what is counted by it.
type namedLimit struct {
	*keyLimit
	name string // in the headers, and in LimitInfo
	what string // for people
	of   func(Caller) int64
}

// newFrontLimits makes the limits that are set.
func newFrontLimits(u *usage, f *Front, now func() time.Time) *frontLimits {
	l := &frontLimits{usage: u}
	if f == nil {
		return l
	}
	add := func(name, what string, r Rate, of func(Caller) int64) {
		if r != (Rate{}) {
			l.list = append(l.list, namedLimit{u.limit("front/"+name, r.N, r.Per, now), name, what, of})
		}
	}
	add("agent", "by one agent", f.AgentLimit, func(c Caller) int64 { return c.AgentID })
	add("key", "with one key", f.KeyLimit, keyOf)
	return l
}

// keyOf is what the limit of keys counts by: the key or, where a token hangs on
// none, all such tokens of the agent together. New tokens are no new limit.
func keyOf(c Caller) int64 {
	if c.CredentialID == 0 {
		return -c.AgentID
	}
	return c.CredentialID
}

// count is spend for [front]: a refusal has the header fields, too.
func (l *frontLimits) count(ctx context.Context, c Caller) (http.Header, error) {
	if len(l.list) == 0 {
		return nil, nil
	}
	h := make(http.Header, 2)
	var p *problem
	try := func(wait bool) (due bool) {
		due, p = l.spend(c, h, wait)
		return due
	}
	l.usage.settled(ctx, try)
	if p != nil {
		p.header = h
		return h, p
	}
	return h, nil
}

// spend counts a request of a caller against all limits or, where one is used
// up, against none. What is left of them goes into h in either case. If it may
// wait for an exchange, and one is due, it does nothing.
func (l *frontLimits) spend(c Caller, h http.Header, wait bool) (due bool, refusal *problem) {
	if len(l.list) == 0 {
		return false, nil
	}
	for _, k := range l.list { // always in this order
		k.mu.Lock()
		defer k.mu.Unlock()
	}
	tallies := make([]*tally, len(l.list))
	at := l.list[0].now()
	for i, k := range l.list {
		full, t := k.room(k.of(c), at)
		tallies[i] = t
		due = due || wait && k.exchanged != nil && k.due(k.of(c), k.n-t.sum)
		if full > 0 && (refusal == nil || full > refusal.retryAfter) {
			refusal = &problem{kind: kindLimited, retryAfter: full}
			refusal.message = fmt.Sprintf("too many requests: at most %d in %s %s; try again in %d seconds",
				k.n, k.per, k.what, refusal.seconds())
		}
	}
	if refusal == nil && due {
		return true, nil
	}
	policies, left := make([]string, 0, 2), make([]string, 0, 2)
	for i, k := range l.list {
		if refusal == nil {
			k.use(k.of(c), at)
		}
		policies = append(policies, k.policy())
		left = append(left, k.left(tallies[i], at))
	}
	h[rateLimitPolicyHeader] = []string{strings.Join(policies, ", ")}
	h[rateLimitHeader] = []string{strings.Join(left, ", ")}
	return false, refusal
}

// policy spells a limit as an item of RateLimit-Policy.
func (k namedLimit) policy() string {
	return `"` + k.name + `";q=` + strconv.Itoa(k.n) + ";w=" + strconv.FormatInt(int64(k.per/time.Second), 10)
}

// left spells how much of a limit is left as an item of RateLimit.
func (k namedLimit) left(t *tally, at time.Time) string {
	leaves := t.leaves(max(1, t.sum-k.n+1), at, k.per)
	return `"` + k.name + `";r=` + strconv.Itoa(max(0, k.n-t.sum)) +
		";t=" + strconv.Itoa(int(math.Ceil(leaves.Seconds())))
}

// info returns how much of their limits an agent and its keys have used up.
func (l *frontLimits) info(agentID int64, keys map[string]int64) (list []LimitInfo) {
	for _, k := range l.list {
		if k.name == "agent" {
			list = append(list, LimitInfo{Name: "requests to the API by the agent", Limit: k.n, Per: k.per, Used: k.used(agentID)})
			continue
		}
		for _, keyID := range slices.Sorted(maps.Keys(keys)) {
			id := keys[keyID]
			list = append(list, LimitInfo{Name: "requests to the API with the key " + keyID, Limit: k.n, Per: k.per, Used: k.used(id)})
		}
	}
	return list
}
