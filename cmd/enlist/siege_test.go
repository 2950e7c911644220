package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

var (
	siegeTime   = flag.Duration("siege", 60*time.Second, "how long TestReplicasSurviveASiege lasts")
	siegeRounds = flag.Int("siege-rounds", 20, "how many gateways TestAGatewayOnSQLiteSurvivesKills kills")
)

const (
	siegeWorkers  = 8
	siegeReplicas = 3
	siegeRacers   = 4
	// killEvery is how often one of the replicas is killed.
	killEvery = 5 * time.Second
	// perKey is how often a Lithtrix key may be used in a minute, and beat how
	// often it is used here.
	perKey = 60
	beat   = 100 * time.Millisecond
)

// TestReplicasSurviveASiege runs three gateways over one PostgreSQL under load,
// kills one of them every five seconds, and ends the server twice, once without
// warning. Whatever was acknowledged holds: who was registered gets in, who was
// revoked does not, at any replica and from the very next request on; no invite
// was good twice, and no limit was exceeded by more than a window's edge.
func TestReplicasSurviveASiege(t *testing.T) {
	if testing.Short() {
		t.Skip("it lasts a minute")
	}
	t.Parallel()
	server := pgtest.Start(t)
	database := server.URL(t)
	s := newSiege(t, "ENLIST_DATABASE_URL="+database)
	for range siegeReplicas {
		s.replicas = append(s.replicas, startReplica(t, s.env))
	}
	stop := s.load(t)
	end := time.NewTimer(*siegeTime)
	kill := time.NewTicker(killEvery)
	defer kill.Stop()
	restarts := []<-chan time.Time{time.After(*siegeTime / 3), time.After(*siegeTime * 2 / 3)}
	for over := false; !over; {
		select {
		case <-end.C:
			over = true
		case <-kill.C:
			s.replicas[rand.IntN(len(s.replicas))].again(t)
			s.count("replica killed")
		case <-restarts[0]:
			server.Stop(t)
			server.Start(t)
			s.count("PostgreSQL stopped and started")
		case <-restarts[1]:
			server.Crash(t)
			server.Start(t)
			s.count("PostgreSQL crashed and started")
		}
	}
	stop()
	s.check(t, store.Options{URL: database, Now: time.Now})
}

// TestAGatewayOnSQLiteSurvivesKills kills a gateway over a SQLite file under load
// at random moments, and starts another in its place. What was acknowledged
// holds, as above.
func TestAGatewayOnSQLiteSurvivesKills(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := newSiege(t, "ENLIST_DATABASE_URL=sqlite:"+path)
	s.replicas = []*replica{startReplica(t, s.env)}
	stop := s.load(t)
	for range *siegeRounds {
		s.progress(t)
		<-time.After(rand.N(600 * time.Millisecond))
		s.replicas[0].again(t)
		s.replicas[0].wait(t) // it is killed when it works, not while it starts
		s.count("gateway killed")
	}
	stop()
	s.check(t, store.Options{Path: path, Now: time.Now})
}

// siege is a load on gateways that are killed, and what it was told.
type siege struct {
	env      []string
	replicas []*replica
	bench    *benchLoad

	mu      sync.Mutex
	live    []*benchAccount // registered, and told so
	ended   []*benchAccount // revoked, and told so
	invited []string        // Lona's agents whose one invite was raced for
	crowd   []string        // Lithtrix's agents who registered from one address
	admit   int             // how many of them were told that they are
	beats   []time.Time     // when the key that has a limit was let in
	counts  map[string]int
}

func newSiege(t *testing.T, env ...string) *siege {
	t.Helper()
	const secret = "the-secret-of-the-siege-is-long-enough"
	load := newBenchLoad(&url.URL{Scheme: "http", Host: "gateway.test"}, time.Now)
	load.secret, load.spread = secret, true
	return &siege{
		bench: load, counts: map[string]int{},
		env: append(env,
			"ENLIST_HOME="+t.TempDir(), "ENLIST_SERVER_KEY="+strings.Repeat("07", 32), "ENLIST_ADMIN_LISTEN=off",
			"ENLIST_TRUSTED_PROXIES=127.0.0.1", "AGENT_REGISTRATION_SECRET="+secret),
	}
}

func (s *siege) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// progress returns when some more have registered: on a machine that is slow, kills
// would else leave time for nothing.
func (s *siege) progress(t *testing.T) {
	t.Helper()
	const more, patience = 3, 30 * time.Second
	late := time.After(patience)
	for before := s.registered(); s.registered() < before+more; {
		select {
		case <-late:
			t.Fatalf("%d have not registered in %v", more, patience)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// registered is how many have.
func (s *siege) registered() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, count := range s.counts {
		if strings.HasPrefix(what, "registered at ") {
			n += count
		}
	}
	return n
}

// any returns one of the replicas.
func (s *siege) any() *replica { return s.replicas[rand.IntN(len(s.replicas))] }

// load begins the load. What it returns ends it.
func (s *siege) load(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for range siegeWorkers {
		workers.Go(func() { s.work(ctx, t) })
	}
	workers.Go(func() { s.crowdIn(ctx) })
	workers.Go(func() { s.keepBeat(ctx) })
	return func() {
		cancel()
		workers.Wait()
	}
}

// work registers, uses, revokes and races until ctx ends.
func (s *siege) work(ctx context.Context, t *testing.T) {
	var mine []*benchAccount
	for ctx.Err() == nil {
		switch dice := rand.IntN(100); {
		case dice < 50 || len(mine) == 0:
			if a := s.register(ctx); a != nil {
				mine = append(mine, a)
			}
		case dice < 75:
			a := mine[rand.IntN(len(mine))]
			s.wantIn(ctx, t, s.any(), a)
		case dice < 96:
			i := rand.IntN(len(mine))
			if a := mine[i]; a.end != nil {
				mine = slices.Delete(mine, i, i+1)
				s.revoke(ctx, t, a)
			}
		default:
			s.race(ctx, t)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, mine...)
}

// register makes an account and returns it if that was acknowledged.
func (s *siege) register(ctx context.Context) *benchAccount {
	protocols := wire.Protocols()
	protocol := protocols[rand.IntN(len(protocols))].Name
	conn := s.any().conn()
	defer conn.close()
	a, err := s.bench.register(ctx, conn, protocol)
	if err != nil {
		s.count("registration failed")
		<-time.After(time.Millisecond) // nobody may be there
		return nil
	}
	s.count("registered at " + protocol)
	return a
}

// wantIn uses an account, which must not be refused.
func (s *siege) wantIn(ctx context.Context, t *testing.T, r *replica, a *benchAccount) {
	conn := r.conn()
	defer conn.close()
	answer, err := s.bench.use(ctx, conn, a)
	if err == nil && (answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden) {
		t.Errorf("%s: an account that was acknowledged is refused with %d", a.protocol, answer.status)
	}
	s.count("used")
}

// revoke ends a credential. When that was acknowledged, every replica refuses it
// from the next request on.
func (s *siege) revoke(ctx context.Context, t *testing.T, a *benchAccount) {
	conn := s.any().conn()
	defer conn.close()
	answer, err := s.bench.revoke(ctx, conn, a)
	if err != nil || !answer.ok() {
		s.count("revocation failed") // it may have been done
		return
	}
	s.count("revoked")
	for _, r := range s.replicas {
		s.wantOut(ctx, t, r, a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, a)
}

func (s *siege) wantOut(ctx context.Context, t *testing.T, r *replica, a *benchAccount) {
	conn := r.conn()
	defer conn.close()
	answer, err := s.bench.use(ctx, conn, a)
	if err == nil && answer.ok() {
		t.Errorf("%s: a credential whose revocation was acknowledged is let in", a.protocol)
	}
}

// race asks for an invite and spends it at several replicas at once.
func (s *siege) race(ctx context.Context, t *testing.T) {
	n := s.bench.n.Add(1)
	agent := fmt.Sprintf("race-%s-%d", s.bench.run, n)
	header := [][2]string{{"X-Forwarded-For", benchAddress(n)}}
	ask := func(path string, in, out any) error {
		conn := s.any().conn()
		defer conn.close()
		up := &benchSignUp{benchLoad: s.bench, ctx: ctx, conn: conn}
		return up.step("race", http.MethodPost, path, header, in, out)
	}
	var invite wire.LonaData[wire.LonaInvite]
	if ask(wire.LonaInvitePath, wire.LonaInviteRequest{AgentID: agent, AgentName: agent, Source: "siege"}, &invite) != nil {
		return
	}
	s.mu.Lock()
	s.invited = append(s.invited, agent)
	s.mu.Unlock()
	in := wire.LonaRegisterRequest{AgentID: agent, AgentName: agent, InviteCode: invite.Data.InviteCode, Source: "siege"}
	var all sync.WaitGroup
	var wins, unsure atomic.Int64 // unsure: no answer came, or one of a gateway that could not
	for range siegeRacers {
		all.Go(func() {
			var out wire.LonaData[wire.LonaRegistered]
			err := ask(wire.LonaRegisterPath, in, &out)
			if refused, told := errors.AsType[*refusedError](err); err == nil {
				wins.Add(1)
			} else if !told || refused.answer.status >= http.StatusInternalServerError || refused.answer.status == http.StatusTooManyRequests {
				unsure.Add(1)
			}
		})
	}
	all.Wait()
	switch {
	case wins.Load() > 1:
		t.Errorf("an invite was good %d times", wins.Load())
	case wins.Load() == 0 && unsure.Load() == 0:
		t.Error("an invite was good for nobody, and everybody was told so")
	}
	s.count(fmt.Sprintf("invite raced for, %d won", wins.Load()))
}

// crowdIn registers from one address as often as it can.
func (s *siege) crowdIn(ctx context.Context) {
	header := [][2]string{{"X-Forwarded-For", netip.AddrFrom4([4]byte{203, 0, 113, 77}).String()}}
	for n := 0; ctx.Err() == nil; n++ {
		conn := s.any().conn()
		name := fmt.Sprintf("crowd-%s-%d", s.bench.run, n)
		up := &benchSignUp{benchLoad: s.bench, ctx: ctx, conn: conn}
		var out wire.LithtrixKey
		err := up.step("crowd", http.MethodPost, wire.LithtrixRegisterPath, header,
			wire.LithtrixRegisterRequest{AgentName: name, OwnerIdentifier: "siege"}, &out)
		conn.close()
		s.mu.Lock()
		s.crowd = append(s.crowd, name+"/siege")
		if err == nil {
			s.admit++
		}
		s.mu.Unlock()
		<-time.After(beat)
	}
}

// keepBeat uses one key more often than it may be used.
func (s *siege) keepBeat(ctx context.Context) {
	var a *benchAccount
	for a == nil && ctx.Err() == nil {
		conn := s.any().conn()
		a, _ = s.bench.register(ctx, conn, wire.LithtrixName)
		conn.close()
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		conn := s.any().conn()
		answer, err := s.bench.use(ctx, conn, a)
		conn.close()
		if err == nil && answer.ok() {
			s.mu.Lock()
			s.beats = append(s.beats, time.Now())
			s.mu.Unlock()
		}
	}
}

// check asks for everything that was acknowledged, when nobody is killed any more.
func (s *siege) check(t *testing.T, at store.Options) {
	t.Helper()
	t.Logf("%d accounts live, %d credentials ended", len(s.live), len(s.ended))
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%6d %s", s.counts[what], what)
	}
	if len(s.live) == 0 || len(s.ended) == 0 || len(s.invited) == 0 || s.admit == 0 || len(s.beats) == 0 {
		t.Error("the load did not do all that it is for")
	}
	conns := make([]*benchConn, len(s.replicas))
	for i, r := range s.replicas {
		r.wait(t)
		conns[i] = r.conn()
		defer conns[i].close()
	}
	for i, a := range s.live {
		answer, err := s.bench.use(t.Context(), conns[i%len(conns)], a)
		if err != nil || !answer.ok() && answer.status != http.StatusTooManyRequests {
			t.Errorf("%s: an account that was acknowledged: status %d, error %v", a.protocol, answer.status, err)
		}
	}
	for _, a := range s.ended {
		for _, conn := range conns {
			answer, err := s.bench.use(t.Context(), conn, a)
			if err != nil || answer.status != http.StatusUnauthorized {
				t.Errorf("%s: a credential whose revocation was acknowledged: status %d, error %v", a.protocol, answer.status, err)
			}
		}
	}
	s.checkLimits(t)
	s.checkStore(t, at)
}

func (s *siege) checkLimits(t *testing.T) {
	t.Helper()
	most := 0 // in any minute
	for i, from := range s.beats {
		within := 0
		for _, b := range s.beats[i:] {
			if b.Sub(from) < time.Minute {
				within++
			}
		}
		most = max(most, within)
	}
	t.Logf("a key that may be used %d times a minute was let in %d times in one, of %d", perKey, most, len(s.beats))
	// What a replica has not told when it is killed is lost.
	if most > perKey*3/2 {
		t.Errorf("a key that may be used %d times a minute was let in %d times", perKey, most)
	}
	if s.admit > 10 {
		t.Errorf("%d were told that they are registered from one address, want 10 an hour at most", s.admit)
	}
}

// checkStore looks for what nobody was told of.
func (s *siege) checkStore(t *testing.T, at store.Options) {
	t.Helper()
	db, err := store.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, name := range s.invited {
		a, err := db.Agent(t.Context(), wire.LonaName, name)
		if err != nil {
			continue // every answer was lost, or every racer
		}
		if list, err := db.Issued(t.Context(), a.ID, "token", 0, 10); err != nil || len(list) > 1 {
			t.Errorf("an invite made %d tokens, %v", len(list), err)
		}
	}
	registered := 0
	for _, name := range s.crowd {
		if _, err := db.Agent(t.Context(), wire.LithtrixName, name); err == nil {
			registered++
		}
	}
	if registered > 10 {
		t.Errorf("%d agents were registered from one address, want 10 an hour at most", registered)
	}
}
