package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	speedClients = 32   // keep-alive connections
	speedSlice   = 1600 // requests before it is another handler's turn
	speedSecret  = "a registration secret of the benchmarks"

	// agentsVariable is how many agents the database of a benchmark has.
	agentsVariable = "ENLIST_BENCH_AGENTS"
)

// speedAgents is 10,000 unless the environment says otherwise: a run in CI is to
// take seconds.
func speedAgents(b testing.TB) int {
	b.Helper()
	text := os.Getenv(agentsVariable)
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("%s: want a number", agentsVariable)
	}
	return n
}

// speedGateway is a gateway as `enlist gateway` serves it, on a database with
// many agents of Lona.
type speedGateway struct {
	*benchLoad
	agents []speedAgent
	clock  *atomic.Int64 // how far the gateway's clock is ahead
	step   time.Duration // by how much more after each turn
}

// speedAgent is one of the agents that were in the database before.
type speedAgent struct{ id, token string }

// newSpeedGateway serves a gateway on a database until the benchmark ends.
func newSpeedGateway(b testing.TB, database string, agents []speedAgent) *speedGateway {
	b.Helper()
	// Or the limits of the keys would be used up.
	g := &speedGateway{clock: &atomic.Int64{}, agents: agents, step: 20 * time.Second}
	now := func() time.Time { return time.Now().Add(time.Duration(g.clock.Load())) }
	wallets := make([]eip191.Wallet, 128)
	var paid []string
	for i := range wallets {
		wallets[i], _ = eip191.ParseKey(fmt.Sprintf("%064x", i+1))
		paid = append(paid, wallets[i].Address())
	}
	at := serveGateway(b, embeddedgateway.Config{
		Database: database, Now: now, Standalone: true, ServerKey: make([]byte, 32),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Env: func(name string) string {
			return map[string]string{
				"AGENT_REGISTRATION_SECRET": speedSecret, "AGENTDOOR_RATE_LIMIT": "1000/1m", "LUMINA_PAID_WALLETS": strings.Join(paid, ","),
			}[name]
		},
	})
	g.benchLoad = newBenchLoad(at, now)
	g.secret, g.spread = speedSecret, true
	var n atomic.Int64
	g.wallet = func() (eip191.Wallet, error) { return wallets[n.Add(1)%int64(len(wallets))], nil }
	return g
}

// serveGateway serves a gateway until the benchmark ends.
func serveGateway(b testing.TB, config embeddedgateway.Config) *url.URL {
	b.Helper()
	collectLess(os.Getenv) // as the command does
	g, err := embeddedgateway.New(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx, ln) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	})
	return &url.URL{Scheme: "http", Host: ln.Addr().String()}
}

// bare serves a handler that does nothing but look a key up, and gives the answer
// that another one gave.
func bare(b testing.TB, keys map[[32]byte]bool, header string, answer http.Header, body []byte) *url.URL {
	b.Helper()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !keys[sha256.Sum256([]byte(r.Header.Get(header)))] {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		to := w.Header()
		for name, values := range answer {
			to[name] = values
		}
		_, _ = w.Write(body)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(ln) }()
	b.Cleanup(func() { _ = s.Close() })
	return &url.URL{Scheme: "http", Host: ln.Addr().String()}
}

// contender is one of several that take turns in a benchmark.
type contender struct {
	name  string
	op    benchOp
	conns []*benchConn
	rates []float64 // of each turn
	cpu   []float64 // seconds of the processor for a request, of each turn
	took  []time.Duration
}

// newContender is a contender that does op over connections of its own.
func newContender(b testing.TB, name string, at *url.URL, op benchOp) *contender {
	c := &contender{name: name, op: op}
	for range speedClients {
		conn := newBenchConn(at)
		b.Cleanup(conn.close)
		c.conns = append(c.conns, conn)
	}
	return c
}

// sending is sending requests, one after the other.
func sending(requests [][]byte) benchOp {
	var n atomic.Int64
	return func(ctx context.Context, _ int, c *benchConn) (benchAnswer, error) {
		return c.do(ctx, requests[int(n.Add(1))%len(requests)], false)
	}
}

// turn does n operations over all connections.
func (c *contender) turn(b testing.TB, n int) {
	b.Helper()
	before := cpuTime(b)
	t := drive(b.Context(), c.conns, upTo(n), c.op)
	if t.failed() > 0 {
		b.Fatalf("%s: %v, %v", c.name, t.statuses, t.first)
	}
	c.cpu = append(c.cpu, (cpuTime(b)-before).Seconds()/float64(n))
	c.rates, c.took = append(c.rates, t.rate()), append(c.took, t.took...)
}

// median is the middle of the rates of all turns.
func (c *contender) median() float64 { return median(slices.Clone(c.rates)) }

// report says how a contender compares with the bare handler.
func (c *contender) report(b *testing.B, bare *contender) {
	slices.Sort(c.took)
	b.ReportMetric(0, "ns/op") // it would be of both
	b.ReportMetric(c.median(), "req/s")
	b.ReportMetric(c.median()/bare.median(), "of-bare")
	b.ReportMetric(median(slices.Clone(bare.cpu))/median(slices.Clone(c.cpu)), "of-bare-by-cpu")
	b.ReportMetric(float64(c.took[len(c.took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(c.took[len(c.took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkAuthenticated makes requests with a credential of each kind, by turns
// with requests to a bare handler that looks a key up and gives the answer of Lona:
//
//	ENLIST_BENCH_AGENTS=1000000 go test ./cmd/enlist -run '^$' -bench Authenticated -benchtime 100x
//
// of-bare is how many requests the gateway answers for each of the bare handler,
// of-bare-by-cpu the same by the time that the processor was used, whoever else
// used it. Both have the generator's part in it.
func BenchmarkAuthenticated(b *testing.B) {
	db := sqliteWith(b, speedAgents(b))
	for _, way := range []struct {
		name, protocol string
		jwt            bool
	}{
		{"lona", "", false},
		{"lithtrix", wire.LithtrixName, false},
		{"agentdoor key", wire.AgentDoorName, false},
		{"agentdoor jwt", wire.AgentDoorName, true},
		{"fluxra jwt", wire.FluxraName, false},
		{"lumina", wire.LuminaName, false},
	} {
		b.Run(way.name, func(b *testing.B) {
			g := newSpeedGateway(b, db.url, db.agents)
			requests := g.lonaRequests()
			warm := len(requests) // each once
			if way.protocol != "" {
				g.jwt = way.jwt
				requests = g.accounts(b, way.protocol, 128)
				warm = speedSlice // keys have limits
			}
			g.compare(b, newContender(b, way.name, g.at, sending(requests)), warm)
		})
	}
}

// compare lets a contender and the bare handler take turns, after so many requests
// to warm them, and reports.
func (g *speedGateway) compare(b *testing.B, ours *contender, warm int) {
	b.Helper()
	plain := bareOf(b, g, lonaRequest)
	g.against(b, plain, ours, warm)
}

// against is compare with a bare handler that is there.
func (g *speedGateway) against(b *testing.B, plain, ours *contender, warm int) {
	b.Helper()
	for _, c := range []*contender{plain, ours} {
		c.turn(b, warm)
		c.rates, c.took, c.cpu = nil, nil, nil
	}
	for b.Loop() {
		plain.turn(b, speedSlice)
		ours.turn(b, speedSlice)
		g.clock.Add(int64(g.step))
	}
	ours.report(b, plain)
	b.ReportMetric(float64(speedAgents(b)), "agents")
}

// BenchmarkVerify asks /.enlist/verify, as a proxy in front of an API does for each
// of its requests, about requests of 4,096 of the agents, by turns with a bare handler
// that gives the same answer, one token of a caller included:
//
//	ENLIST_BENCH_AGENTS=1000000 go test ./cmd/enlist -run '^$' -bench Verify -benchtime 100x
func BenchmarkVerify(b *testing.B) {
	db := sqliteWith(b, speedAgents(b))
	b.Run("lona", func(b *testing.B) {
		g := newSpeedGateway(b, db.url, db.agents[:min(4096, len(db.agents))])
		g.step = 0 // what a caller is told of serves for half a minute
		var requests [][]byte
		for _, a := range g.agents {
			requests = append(requests, verifyRequest(g.at, a))
		}
		g.against(b, bareOf(b, g, verifyRequest), newContender(b, "verify", g.at, sending(requests)), len(requests))
	})
}

// verifyRequest is what nginx asks about a request.
func verifyRequest(at *url.URL, a speedAgent) []byte {
	return benchRequest(at, "GET", "/.enlist/verify", [][2]string{
		{wire.LonaKeyHeader, a.token}, {wire.LonaUserHeader, a.id}, {"X-Original-Method", "GET"}, {"X-Original-URI", "/orders?page=2"},
	}, nil)
}

// lonaRequests is a request of each of the agents that were there before.
func (g *speedGateway) lonaRequests() (requests [][]byte) {
	for _, a := range g.agents {
		requests = append(requests, lonaRequest(g.at, a))
	}
	return requests
}

// bareOf is a bare handler with the keys of a gateway's agents, which answers what the
// gateway answers them.
func bareOf(b testing.TB, g *speedGateway, request func(*url.URL, speedAgent) []byte) *contender {
	b.Helper()
	keys := map[[32]byte]bool{}
	for _, a := range g.agents {
		keys[sha256.Sum256([]byte(a.token))] = true
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request(g.at, g.agents[0]))))
	if err != nil {
		b.Fatal(err)
	}
	req.RequestURI, req.URL.Scheme, req.URL.Host = "", g.at.Scheme, g.at.Host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	resp.Body.Close()
	for _, name := range []string{"Date", "Content-Length"} { // net/http adds them
		resp.Header.Del(name)
	}
	at := bare(b, keys, wire.LonaKeyHeader, resp.Header, body.Bytes())
	var requests [][]byte
	for _, a := range g.agents {
		requests = append(requests, request(at, a))
	}
	return newContender(b, "bare", at, sending(requests))
}

func lonaRequest(at *url.URL, a speedAgent) []byte {
	return benchRequest(at, "GET", wire.LonaStrategiesPath, [][2]string{{wire.LonaKeyHeader, a.token}, {wire.LonaUserHeader, a.id}}, nil)
}

// accounts registers accounts by a protocol and returns a request of each.
func (g *speedGateway) accounts(b testing.TB, protocol string, n int) (requests [][]byte) {
	b.Helper()
	conn := newBenchConn(g.at)
	defer conn.close()
	for range n {
		a, err := g.register(b.Context(), conn, protocol)
		if err != nil {
			b.Fatalf("%s: %v", protocol, err)
		}
		requests = append(requests, a.request)
	}
	return requests
}

// cpuTime is how long this process has used processors, with the PostgreSQL server
// that it has started.
func cpuTime(b testing.TB) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano()+used.Stime.Nano()) + postgresTime(b)
}

// postgresTime is how long the processes of this one's PostgreSQL that run now have
// used processors: proc_pid_stat(5), in ticks of 10 ms.
func postgresTime(b testing.TB) (sum time.Duration) {
	b.Helper()
	const tick = 10 * time.Millisecond
	for _, server := range children(b, "self") {
		for _, pid := range append(children(b, server), server) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil {
				continue // it has ended
			}
			_, rest, ok := strings.Cut(string(stat), " (postgres) ")
			fields := strings.Fields(rest)
			if !ok || len(fields) < 13 {
				continue
			}
			user, errUser := strconv.Atoi(fields[11])
			system, errSystem := strconv.Atoi(fields[12])
			if err := errors.Join(errUser, errSystem); err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(user+system) * tick
		}
	}
	return sum
}

// children are the processes that a process has started.
func children(b testing.TB, pid string) (pids []string) {
	b.Helper()
	files, err := filepath.Glob("/proc/" + pid + "/task/*/children")
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		list, err := os.ReadFile(file)
		if err != nil {
			continue // its thread has ended
		}
		pids = append(pids, strings.Fields(string(list))...)
	}
	return pids
}
