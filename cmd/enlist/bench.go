package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What a load is made of.
const (
	benchRegister = "register" // accounts
	benchUse      = "request"  // authenticated requests
	benchMixed    = "mixed"    // an account in twenty, requests with it
	benchMix      = 20
)

// benchFlags is the command line of `enlist bench`.
type benchFlags struct {
	protocol, mode         string
	clients, accounts      int
	requests               int
	duration               time.Duration
	jwt, spread, own, json bool
}

func (p *program) benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench URL",
		Short: "Measure how many agents and requests a gateway takes",
		Long: `Measure how many registrations and authenticated requests the gateway at a URL
answers, over keep-alive connections that each ask again when they are answered.

--mode request (the default) registers accounts, and makes requests with them;
--mode register makes accounts and nothing else: for AgentDoor that is to register
and to verify, for Fluxra an account, a key and a token; --mode mixed does one in twenty times that, and else requests. The accounts
are left behind: take a gateway whose database you can throw away.

Lona registers by the secret in LONA_AGENT_REGISTRATION_SECRET or, without it, by
invites. No credential is printed or kept.

A gateway limits registrations by address (10 an hour, invites 3) and requests by
key. A client that is told to wait does so; what was refused is counted. To
rehearse a load all the same, have the gateway believe this machine
(ENLIST_TRUSTED_PROXIES=127.0.0.1), and say --spread-addresses: each account then
comes from an address of its own, by X-Forwarded-For.

A URL beyond this machine needs --i-own-this-service.`,
		Example: `  ENLIST_TRUSTED_PROXIES=127.0.0.1 enlist gateway --database sqlite:throwaway.db
  enlist bench http://127.0.0.1:8420 --protocol agentdoor --mode register --spread-addresses`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			at, err := f.check(args[0])
			if err != nil {
				return &usageError{err}
			}
			return p.bench(cmd.Context(), at, f)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.protocol, "protocol", wire.LonaName, "the `protocol` to register and to authenticate by")
	flags.StringVar(&f.mode, "mode", benchUse, "register, request or mixed")
	flags.IntVar(&f.clients, "clients", 32, "how many connections")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long")
	flags.IntVar(&f.accounts, "accounts", 0, "how many accounts make requests: keys have limits of their own (default: one for each client)")
	flags.IntVar(&f.requests, "requests", 0, "stop after so many (default: when the time is over)")
	flags.BoolVar(&f.jwt, "jwt", false, "with AgentDoor, send the JWT and not the API key")
	flags.BoolVar(&f.spread, "spread-addresses", false, "say in X-Forwarded-For that each account has an address of its own")
	flags.BoolVar(&f.own, "i-own-this-service", false, "allow a URL beyond this machine: a load is an attack unless it is yours")
	jsonFlag(cmd, &f.json, "an object: url, protocol, mode, clients, and registrations and requests as far as there were any, each with "+
		"ok, per_second, p50_ms, p90_ms, p99_ms, max_ms, refused (how many by status; 0: no answer) and waits.")
	return cmd
}

// check finds what is wrong with the command line, and returns where to go.
func (f *benchFlags) check(text string) (*url.URL, error) {
	var err error
	if f.protocol, err = benchProtocol(f.protocol); err != nil {
		return nil, err
	}
	at, err := url.Parse(text)
	switch {
	case err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Hostname() == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "":
		return nil, errors.New("want a URL such as http://127.0.0.1:8420, without a user, a query and a fragment")
	case !slices.Contains([]string{benchRegister, benchUse, benchMixed}, f.mode):
		return nil, fmt.Errorf("--mode: want %s, %s or %s", benchRegister, benchUse, benchMixed)
	case f.clients < 1 || f.clients > 10_000:
		return nil, errors.New("--clients: want 1 to 10000")
	case f.accounts < 0:
		return nil, errors.New("--accounts: want a number above 0")
	case f.duration <= 0:
		return nil, errors.New("--duration: want such as 10s")
	case f.requests < 0:
		return nil, errors.New("--requests: want a number above 0")
	case f.jwt && f.protocol != wire.AgentDoorName:
		return nil, errors.New("--jwt is for --protocol agentdoor")
	case !f.own && !onThisMachine(at.Hostname()):
		return nil, fmt.Errorf("%s is not on this machine: a load is an attack unless the service is yours; say so with --i-own-this-service", at.Host)
	case f.spread && !onThisMachine(at.Hostname()):
		return nil, errors.New("--spread-addresses is for a gateway on this machine: one that believes others' X-Forwarded-For believes anybody")
	}
	at.Path, at.RawPath = strings.TrimRight(at.Path, "/"), ""
	return at, nil
}

// onThisMachine reports whether a host is a loopback one by its very name.
func onThisMachine(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// benchFigures is what was measured of one kind of operation.
type benchFigures struct {
	OK        int            `json:"ok"`
	PerSecond float64        `json:"per_second"`
	P50       float64        `json:"p50_ms"`
	P90       float64        `json:"p90_ms"`
	P99       float64        `json:"p99_ms"`
	Max       float64        `json:"max_ms"`
	Refused   map[string]int `json:"refused"`
	Waits     int            `json:"waits"`
}

// benchReport is what `enlist bench` prints.
type benchReport struct {
	URL           string        `json:"url"`
	Protocol      string        `json:"protocol"`
	Mode          string        `json:"mode"`
	Clients       int           `json:"clients"`
	Registrations *benchFigures `json:"registrations,omitempty"`
	Requests      *benchFigures `json:"requests,omitempty"`
}

// bench makes the load and prints what came of it.
func (p *program) bench(ctx context.Context, at *url.URL, f benchFlags) error {
	load := newBenchLoad(at, p.now)
	load.secret, load.jwt, load.spread = p.env("LONA_AGENT_REGISTRATION_SECRET"), f.jwt, f.spread
	conns := make([]*benchConn, f.clients)
	for i := range conns {
		conns[i] = newBenchConn(at)
		defer conns[i].close()
	}
	ctx, cancel := context.WithTimeout(ctx, f.duration)
	defer cancel()
	report := benchReport{URL: at.String(), Protocol: f.protocol, Mode: f.mode, Clients: f.clients}
	made, used, err := load.drive(ctx, conns, f)
	if made != nil {
		report.Registrations = made.figures()
	}
	if used != nil {
		report.Requests = used.figures()
	}
	if err != nil {
		return err
	}
	return p.printBench(report, f.json, made, used)
}

// drive registers and makes requests, as the mode says. An error is there only if
// nothing could be measured.
func (l *benchLoad) drive(ctx context.Context, conns []*benchConn, f benchFlags) (made, used *benchTally, err error) {
	var mu sync.Mutex
	var accounts []*benchAccount
	register := func(ctx context.Context, _ int, c *benchConn) (benchAnswer, error) {
		a, err := l.register(ctx, c, f.protocol)
		if err != nil {
			return benchAnswer{}, err
		}
		if f.mode != benchRegister {
			mu.Lock()
			defer mu.Unlock()
			accounts = append(accounts, a)
		}
		return benchAnswer{status: http.StatusCreated}, nil
	}
	if f.mode == benchRegister {
		made = drive(ctx, conns, upTo(f.requests), register)
		return made, nil, made.nothing()
	}
	made = drive(ctx, conns, upTo(cmp.Or(f.accounts, len(conns))), register)
	if len(accounts) == 0 {
		return made, nil, cmp.Or(made.nothing(), errors.New("no account could be made: there is nothing to make requests with"))
	}
	var n atomic.Int64
	use := func(ctx context.Context, _ int, c *benchConn) (benchAnswer, error) {
		return l.use(ctx, c, accounts[int(n.Add(1))%len(accounts)])
	}
	if f.mode == benchUse {
		used = drive(ctx, conns, upTo(f.requests), use)
		return made, used, used.nothing()
	}
	return l.mix(ctx, conns, f, use)
}

// mix makes requests, and before each twentieth an account: the clients are
// counted together, so that how many accounts come of a load does not depend on
// which of them was the faster.
func (l *benchLoad) mix(ctx context.Context, conns []*benchConn, f benchFlags, use benchOp) (made, used *benchTally, err error) {
	made = &benchTally{statuses: map[int]int{}}
	var turns atomic.Int64
	results := make([]benchTally, len(conns))
	for i := range results {
		results[i].statuses = map[int]int{}
	}
	used = drive(ctx, conns, upTo(f.requests), func(ctx context.Context, client int, c *benchConn) (benchAnswer, error) {
		if turns.Add(1)%benchMix == 0 {
			results[client].one(ctx, client, c, func(ctx context.Context, _ int, c *benchConn) (benchAnswer, error) {
				_, err := l.register(ctx, c, f.protocol)
				return benchAnswer{status: http.StatusCreated}, err
			})
		}
		return use(ctx, client, c)
	})
	for i := range results {
		made.add(&results[i])
	}
	slices.Sort(made.took)
	made.elapsed = used.elapsed
	return made, used, used.nothing()
}

// nothing is why nothing was answered as hoped; nil if something was.
func (t *benchTally) nothing() error {
	switch _, asked := t.statuses[http.StatusTooManyRequests]; {
	case len(t.took) > 0 || t.failed() == 0:
		return nil
	case t.first != nil:
		var op *net.OpError
		if errors.As(t.first, &op) {
			return fmt.Errorf("the service cannot be reached: %w", op)
		}
		return t.first
	case asked:
		return errors.New("every attempt was over a limit of the service: see --spread-addresses in enlist bench --help")
	}
	return fmt.Errorf("every attempt was refused, with %s", statuses(t.statuses))
}

// figures is the tally as it is printed.
func (t *benchTally) figures() *benchFigures {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	f := &benchFigures{
		OK: len(t.took), PerSecond: float64(int(t.rate()*10)) / 10, Refused: map[string]int{}, Waits: t.waits,
		P50: ms(t.percentile(50)), P90: ms(t.percentile(90)), P99: ms(t.percentile(99)), Max: ms(t.percentile(100)),
	}
	for status, n := range t.statuses {
		f.Refused[fmt.Sprint(status)] = n
	}
	return f
}

// statuses is how many answers there were of each status.
func statuses(counts map[int]int) string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		name := fmt.Sprintf("status %d", status)
		if status == 0 {
			name = "no answer"
		}
		parts = append(parts, fmt.Sprintf("%s: %d", name, counts[status]))
	}
	return strings.Join(parts, ", ")
}

func (p *program) printBench(r benchReport, asJSON bool, made, used *benchTally) error {
	if asJSON {
		return printJSON(p.stdout, r)
	}
	s := p.screen()
	t := titled("WHAT", "OK", "A SECOND", "P50", "P90", "P99", "LONGEST")
	for _, row := range []struct {
		name string
		f    *benchFigures
	}{{"registrations", r.Registrations}, {"requests", r.Requests}} {
		if row.f != nil {
			ms := func(v float64) string { return fmt.Sprintf("%.2f ms", v) }
			t.row(row.name, fmt.Sprint(row.f.OK), fmt.Sprintf("%.0f", row.f.PerSecond), ms(row.f.P50), ms(row.f.P90), ms(row.f.P99), ms(row.f.Max))
		}
	}
	if err := s.print(t); err != nil {
		return err
	}
	for _, tally := range []*benchTally{made, used} {
		if tally == nil || tally.failed() == 0 {
			continue
		}
		fmt.Fprintf(p.stdout, "Not answered as hoped: %s.\n", statuses(tally.statuses))
		if tally.statuses[http.StatusTooManyRequests] > 0 {
			fmt.Fprintf(p.stdout, "429: a limit of the service; clients waited or stopped, as they were told. Against limits by key say --accounts, "+
				"against those by address --spread-addresses: enlist bench --help.\n")
		}
	}
	return nil
}
