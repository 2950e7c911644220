package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// BenchmarkGrowth compares a database of a hundredth of the agents (1,000 at
// least) with one of all: authenticated requests and registrations at the one and
// the other by turns.
//
//	ENLIST_BENCH_AGENTS=1000000 go test ./cmd/enlist -run '^$' -bench Growth -benchtime 100x
func BenchmarkGrowth(b *testing.B) {
	many := sqliteWith(b, speedAgents(b))
	few := sqliteWith(b, max(1000, speedAgents(b)/1000))
	small, large := newSpeedGateway(b, few.url, few.agents), newSpeedGateway(b, many.url, many.agents)
	b.Run("requests", func(b *testing.B) {
		grow(b, len(large.agents), speedSlice, newContender(b, "few", small.at, sending(small.lonaRequests())),
			newContender(b, "many", large.at, sending(large.lonaRequests())))
	})
	b.Run("registrations", func(b *testing.B) {
		grow(b, 10*speedClients, 10*speedClients, newContender(b, "few", small.at, makingAccounts(small.benchLoad, "lona")),
			newContender(b, "many", large.at, makingAccounts(large.benchLoad, "lona")))
	})
}

// grow lets two contenders take turns and reports what the larger database costs:
// 1 is nothing.
func grow(b *testing.B, warm, turn int, few, many *contender) {
	b.Helper()
	for _, c := range []*contender{few, many} {
		c.turn(b, warm)
		c.rates, c.took, c.cpu = nil, nil, nil
	}
	for b.Loop() {
		few.turn(b, turn)
		many.turn(b, turn)
	}
	b.ReportMetric(0, "ns/op") // it would be of both
	b.ReportMetric(few.median(), "few/s")
	b.ReportMetric(many.median(), "many/s")
	b.ReportMetric(few.median()/many.median(), "×time")
	b.ReportMetric(median(many.cpu)/median(few.cpu), "×cpu")
}

// BenchmarkPostgres is BenchmarkAuthenticated by Lona's token on PostgreSQL, on
// this machine and by its socket.
//
//	ENLIST_BENCH_AGENTS=1000000 go test ./cmd/enlist -run '^$' -bench Postgres -benchtime 100x
func BenchmarkPostgres(b *testing.B) {
	db := postgresWith(b, speedAgents(b))
	b.Run("lona", func(b *testing.B) {
		g := newSpeedGateway(b, pgtest.Near(b, db.url), db.agents)
		g.compare(b, newContender(b, "lona", g.at, sending(g.lonaRequests())), len(g.agents))
	})
}

// farAway is how long a message takes to a database in another data center.
const farAway = 3 * time.Millisecond

// BenchmarkReplicas has 64 clients register at one gateway, and by turns at two that
// share a PostgreSQL which is [farAway]. There the connections of a gateway are what
// limits it. (On one machine with the server its processors are, and two gateways
// are no faster than one.)
//
//	go test ./cmd/enlist -run '^$' -bench Replicas -benchtime 50x
func BenchmarkReplicas(b *testing.B) {
	db := postgresWith(b, speedAgents(b))
	url := pgtest.Far(b, db.url, farAway)
	first, second := newSpeedGateway(b, url, db.agents), newSpeedGateway(b, url, db.agents)
	register := makingAccounts(first.benchLoad, wire.LonaName)
	one, two := newContender(b, "one", first.at, register), newContender(b, "two", first.at, register)
	one.conns = append(one.conns, newContender(b, "", first.at, nil).conns...)
	two.conns = append(two.conns, newContender(b, "", second.at, nil).conns...)
	for _, c := range []*contender{one, two} {
		c.turn(b, len(c.conns))
		c.rates, c.took, c.cpu = nil, nil, nil
	}
	for b.Loop() {
		one.turn(b, 2*len(one.conns))
		two.turn(b, 2*len(two.conns))
	}
	b.ReportMetric(0, "ns/op") // it would be of both
	b.ReportMetric(one.median(), "one/s")
	b.ReportMetric(two.median(), "two/s")
	b.ReportMetric(two.median()/one.median(), "×one")
	b.ReportMetric(2*1e3*farAway.Seconds(), "round-trip-ms")
}

// servedAt is what a gateway says first.
var servedAt = regexp.MustCompile(`listening on http://(\S+),`)

// TestIdleClientsAreCheap: 1,000 clients that have made a request and keep their
// connection stay under 150 MiB of the gateway's memory, all in all.
func TestIdleClientsAreCheap(t *testing.T) {
	const clients, limit = 1000, 150 << 10 // KiB
	enlist := filepath.Join(t.TempDir(), "enlist")
	build(t, enlist, ".")
	cmd := exec.CommandContext(t.Context(), enlist, "gateway", "--listen", "127.0.0.1:0", "--database", "sqlite:"+filepath.Join(t.TempDir(), "gateway.db"))
	cmd.Env = []string{"HOME=" + t.TempDir()}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
	}()
	lines := bufio.NewScanner(stderr)
	addr := ""
	for addr == "" && lines.Scan() {
		if m := servedAt.FindStringSubmatch(lines.Text()); m != nil {
			addr = m[1]
		}
	}
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	for range clients {
		conn, err := net.DialTimeout("tcp", addr, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /api/v1/strategies HTTP/1.1\r\nHost: localhost\r\nX-API-Key: none\r\nX-User-Id: nobody\r\n\r\n")
		status := make([]byte, len("HTTP/1.1 401"))
		if _, err := io.ReadFull(conn, status); err != nil || string(status) != "HTTP/1.1 401" {
			t.Fatalf("got %q (%v), want a refusal", status, err)
		}
	}
	got := residentKiB(t, cmd.Process.Pid)
	t.Logf("%d MiB with %d idle clients", got>>10, clients)
	if got > limit {
		t.Errorf("%d MiB are resident with %d idle clients, want less than %d", got>>10, clients, limit>>10)
	}
}
