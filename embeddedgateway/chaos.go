package embeddedgateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ChaosHeader is in every answer that [Chaos] had a hand in, and says what it
// did: reject, delay, limit, or several of them separated by commas. What was
// dropped has no answer to say so in.
const ChaosHeader = "X-Enlist-Chaos"

// ChaosForm is what [ParseChaos] reads.
const ChaosForm = "reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=7"

const (
	// maxChaosDelay leaves a request time for what it is about.
	maxChaosDelay = 8 * time.Second
	// chaosRetryAfter is what a 429 of rehearsal asks for.
	chaosRetryAfter = time.Second
)

// Chaos is a rehearsal for people who write agents: what goes wrong with a real
// service once a month goes wrong with this one every few requests. It strikes
// on the routes of the protocols, never on what tells how the gateway is, on its
// public keys, or on what its operator uses.
//
// Each is how likely it is, from 0 to 1. Whether a request is struck depends on
// Seed, on its route, and on how many requests came to that route before; so what
// a program that asks one by one has met can be met again.
type Chaos struct {
	// Reject refuses a proof that may be good, and uses nothing of it up: a
	// signature at AgentDoor and Lumina, an invite at Lona, what a letter brought
	// at Fluxra. Lithtrix asks for none.
	Reject float64
	// Delay holds an answer back for Wait; 0: 2 seconds.
	Delay float64
	Wait  time.Duration
	// Limit answers 429 with a Retry-After of a second, and does nothing.
	Limit float64
	// Drop closes the connection in the place of an answer, when all is done.
	Drop float64
	// Seed is where chance begins. 0: somewhere else at every start; the log says
	// where, so that it can be repeated.
	Seed uint64
	// Pause waits, or less long when ctx ends. Nil: a timer.
	Pause func(ctx context.Context, d time.Duration) error
}

// DefaultChaos is what there is of it unless somebody says otherwise.
func DefaultChaos() Chaos {
	return Chaos{Reject: 0.05, Delay: 0.1, Wait: 2 * time.Second, Limit: 0.05, Drop: 0.05}
}

// ParseChaos reads what should go wrong, in the form of [ChaosForm]. What is not
// named does not go wrong; nothing at all named is [DefaultChaos].
func ParseChaos(text string) (Chaos, error) {
	if strings.TrimSpace(text) == "" {
		return DefaultChaos(), nil
	}
	var c Chaos
	var seen []string
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || slices.Contains(seen, name) {
			return Chaos{}, fmt.Errorf("%q: want each of them once, as in %s", part, ChaosForm)
		}
		seen = append(seen, name)
		if err := c.set(name, value); err != nil {
			return Chaos{}, err
		}
	}
	return c, c.check()
}

// set sets what one part of a [ChaosForm] says.
func (c *Chaos) set(name, value string) (err error) {
	switch name {
	case "reject":
		c.Reject, err = chance(value)
	case "limit":
		c.Limit, err = chance(value)
	case "drop":
		c.Drop, err = chance(value)
	case "delay":
		often, wait, timed := strings.Cut(value, ":")
		if timed {
			if c.Wait, err = time.ParseDuration(wait); err != nil || c.Wait <= 0 {
				return fmt.Errorf("delay=%s: want how often and how long, such as delay=10%%:2s", value)
			}
		}
		c.Delay, err = chance(often)
	case "seed":
		if c.Seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			return fmt.Errorf("seed=%s: want a whole number", value)
		}
	default:
		return fmt.Errorf("%q is none of reject, delay, limit, drop and seed: want such as %s", name, ChaosForm)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: %w", name, value, err)
	}
	return nil
}

// chance reads how likely something is: 5% or 0.05.
func chance(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	p, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("want how often, such as 5% or 0.05")
	}
	if percent {
		p /= 100
	}
	return p, nil
}

// check reports what is wrong with the values.
func (c Chaos) check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"reject", c.Reject}, {"delay", c.Delay}, {"limit", c.Limit}, {"drop", c.Drop}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("chaos: %s is not between 0%% and 100%%", p.name)
		}
	}
	if c.Wait < 0 || c.Wait > maxChaosDelay {
		return fmt.Errorf("chaos: a delay is at most %s: a request has not more time than that", maxChaosDelay)
	}
	return nil
}

// String returns the values in the form of [ChaosForm].
func (c Chaos) String() string {
	percent := func(p float64) string { return strconv.FormatFloat(p*100, 'f', -1, 64) + "%" }
	return fmt.Sprintf("reject=%s,delay=%s:%s,limit=%s,drop=%s,seed=%d",
		percent(c.Reject), percent(c.Delay), cmp.Or(c.Wait, DefaultChaos().Wait), percent(c.Limit), percent(c.Drop), c.Seed)
}
