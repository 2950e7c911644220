package main

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// TestBenchAccounts: an account of every protocol is let in until its credential
// is ended, and then it is not.
func TestBenchAccounts(t *testing.T) {
	secret := "the registration secret of TestBenchAccounts"
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.1/32")),
		gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret}))
	at, err := url.Parse(gw.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range wire.Protocols() {
		t.Run(p.Name, func(t *testing.T) {
			load := newBenchLoad(at, gw.Clock.Now)
			load.secret, load.spread = secret, true
			conn := newBenchConn(at)
			defer conn.close()
			account, err := load.register(t.Context(), conn, p.Name)
			if err != nil {
				t.Fatal(err)
			}
			use := func(want int) {
				t.Helper()
				a, err := load.use(t.Context(), conn, account)
				if err != nil || a.status != want {
					t.Errorf("got status %d, error %v; want %d", a.status, err, want)
				}
			}
			use(http.StatusOK)
			_, err = load.revoke(t.Context(), conn, account)
			if p.Name == wire.AgentDoorName {
				if err != errNoEnd { //nolint:errorlint // exactly that
					t.Errorf("got error %v, want %v", err, errNoEnd)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			use(http.StatusUnauthorized)
		})
	}
}

// TestBenchAnswers: what an answer may look like, and that the connection goes on
// behind it.
func TestBenchAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string // "": none
		header http.Header
	}{
		"with a length": {answer: "hello"},
		"in chunks":     {answer: strings.Repeat("hello", 5000)},
		"empty":         {},
		"closing":       {answer: "hello", header: http.Header{"Connection": {"close"}}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for name, values := range tt.header {
					w.Header()[name] = values
				}
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusTooManyRequests)
				for part := range strings.SplitSeq(tt.answer, "") {
					_, _ = w.Write([]byte(part))
				}
			}))
			defer server.Close()
			at, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			conn := newBenchConn(at)
			defer conn.close()
			for range 3 {
				a, err := conn.do(t.Context(), benchRequest(at, "GET", "/", nil, nil), true)
				if err != nil {
					t.Fatal(err)
				}
				if a.status != http.StatusTooManyRequests || a.retryAfter.Seconds() != 7 || string(a.body) != tt.answer {
					t.Errorf("got %d after %s and %d bytes, want 429 after 7s and %d", a.status, a.retryAfter, len(a.body), len(tt.answer))
				}
			}
		})
	}
}

// TestBenchAddresses: no two accounts of a run share what limits go by.
func TestBenchAddresses(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for _, n := range []uint32{0, 1, 2, 255, 256, 65535, 65536, 1<<24 - 1, 1 << 24, 1<<32 - 1} {
		ip, err := netip.ParseAddr(benchAddress(n))
		if err != nil {
			t.Fatal(err)
		}
		network := netip.PrefixFrom(ip, 64).Masked()
		if seen[network] {
			t.Errorf("account %d: %s was there before", n, network)
		}
		seen[network] = true
	}
}
