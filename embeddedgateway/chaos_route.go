package embeddedgateway

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// rehearse puts chaos between the protocols and who asks.
func rehearse(ctx context.Context, cfg Config, served []protocol) ([]protocol, error) {
	if cfg.Chaos == nil {
		return served, nil
	}
	c := *cfg.Chaos
	if err := c.check(); err != nil {
		return nil, err
	}
	for c.Seed == 0 {
		var raw [8]byte
		if _, err := io.ReadFull(cfg.Rand, raw[:4]); err != nil { // somebody may have to type the number
			return nil, fmt.Errorf("read random bytes: %w", err)
		}
		c.Seed = binary.LittleEndian.Uint64(raw[:])
	}
	c.Wait = cmp.Or(c.Wait, DefaultChaos().Wait)
	if c.Pause == nil {
		c.Pause = pause
	}
	cfg.Logger.WarnContext(ctx, "this is a rehearsal: requests fail on purpose, and the same seed repeats it", "chaos", c.String())
	out := make([]protocol, len(served))
	for i, p := range served {
		out[i] = &rehearsed{protocol: p, chaos: c, cfg: cfg}
	}
	return out, nil
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rehearsed is a protocol whose routes fail on purpose.
type rehearsed struct {
	protocol
	chaos Chaos
	cfg   Config
}

// routes implements protocol.
func (r *rehearsed) routes() []route {
	list := r.protocol.routes()
	for i, rt := range list {
		// What monitors ask stays calm.
		if rt.method == "" || rt.path == wire.AgentDoorHealthPath || rt.path == wire.FluxraHealthPath {
			continue
		}
		answer, d := rt.answer, r.chaos.dice(rt.method+" "+rt.path)
		list[i].answer = func(ctx context.Context, c *call) (any, error) {
			return r.meet(ctx, c, d.throw(r.chaos), answer)
		}
	}
	return list
}

// fate is what becomes of one request.
type fate struct{ reject, delay, limit, drop bool }

// dice decide for the requests of one route.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

// dice returns those of a route: what comes to other routes at the same time
// does not change how they fall.
func (c Chaos) dice(route string) *dice {
	h := fnv.New64a()
	_, _ = io.WriteString(h, route)                             // it never fails
	return &dice{rng: rand.New(rand.NewPCG(c.Seed, h.Sum64()))} //nolint:gosec // it is to be repeated, not to be unguessable
}

// throw is one request's fate. All of it is thrown each time, so that to change
// how likely one fault is does not move the others.
func (d *dice) throw(c Chaos) fate {
	d.mu.Lock()
	defer d.mu.Unlock()
	hit := func(p float64) bool { return d.rng.Float64() < p }
	return fate{reject: hit(c.Reject), delay: hit(c.Delay), limit: hit(c.Limit), drop: hit(c.Drop)}
}

// meet answers a request as its fate is.
func (r *rehearsed) meet(ctx context.Context, c *call, f fate, answer func(context.Context, *call) (any, error)) (any, error) {
	var did []string
	strike := func(what string) {
		did = append(did, what)
		r.cfg.Logger.InfoContext(ctx, "chaos: "+what, "fault", what, "protocol", c.protocol, "method", c.Method, "path", c.Pattern)
	}
	if f.delay {
		strike("delay")
		if err := r.chaos.Pause(ctx, r.chaos.Wait); err != nil {
			return nil, fmt.Errorf("rehearse a delay: %w", err)
		}
	}
	if f.limit {
		strike("limit")
		return mark(nil, &problem{
			kind: kindLimited, retryAfter: chaosRetryAfter,
			message: fmt.Sprintf("too many requests, as a rehearsal: try again in %d second", int(chaosRetryAfter.Seconds())),
		}, did)
	}
	if p := rejection(c); f.reject && p != nil {
		strike("reject")
		return mark(nil, p, did)
	}
	out, err := answer(ctx, c)
	if f.drop && err == nil {
		strike("drop")
		panic(http.ErrAbortHandler) // net/http closes the connection
	}
	return mark(out, err, did)
}

// mark says in the header of an answer what was done to it.
func mark(out any, err error, did []string) (any, error) {
	if len(did) == 0 {
		return out, err
	}
	value := strings.Join(did, ",")
	if err != nil {
		if p, ok := errors.AsType[*problem](err); ok {
			p.header = marked(p.header, value)
		}
		return out, err
	}
	a, ok := out.(answered)
	if !ok {
		// With status 0 it has that of its route.
		a = answered{body: out}
	}
	a.header = marked(a.header, value)
	return a, nil
}

func marked(h http.Header, value string) http.Header {
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(ChaosHeader, value)
	return h
}

// rejection refuses the proof that a request brings, in the words that there are
// for one that is wrong; nil: it brings none, or not in the form of one, and then
// the protocol has more to say about it.
func rejection(c *call) *problem {
	const why = " (as a rehearsal: it may have been right, and nothing of it is used up)"
	at := c.Method + " " + c.URL.Path
	is := func(path string) bool { return at == http.MethodPost+" "+path }
	switch {
	case is(wire.AgentDoorVerifyPath) && formed[agentDoorVerifyBody](c):
		return agentDoorInvalid(wire.AgentDoorInvalidSignature, "the signature is not accepted%s", why)
	case is(wire.AgentDoorAuthPath) && formed[agentDoorAuthBody](c):
		return unauthorized(wire.AgentDoorInvalidSignature, "the signature is not accepted"+why)
	case is(wire.LuminaOnboardPath) && formed[luminaBody](c):
		return unauthorized(wire.LuminaInvalidSignature, "the signature is not accepted"+why)
	case is(wire.LonaRegisterPath) && len(c.Header.Values(wire.LonaSecretHeader)) == 0 && formed[lonaInvited](c):
		return unauthorized(wire.LonaInvalidInvite, "the invite_code is not accepted"+why)
	case is(wire.FluxraVerifyEmailPath) && formed[fluxraVerifyBody](c):
		return badToken("the token is not accepted" + why)
	case is(wire.FluxraRecoveryVerifyPath) && formed[fluxraCodeBody](c):
		return badToken("the code is not accepted" + why)
	}
	return nil
}

// formed reports whether the body of a call is in order.
func formed[In checker](c *call) bool {
	in, err := decode[In](c.body)
	return err == nil && in.check() == nil
}

// lonaInvited is a registration that brings an invite.
type lonaInvited struct{ lonaRegisterBody }

func (b lonaInvited) check() error {
	if b.InviteCode == "" {
		return invalid("there is no invite_code")
	}
	return b.lonaRegisterBody.check()
}
