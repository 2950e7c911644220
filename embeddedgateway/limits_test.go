package embeddedgateway_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

func TestInvitesAreThreeAnHourExactly(t *testing.T) {
	gw := gatewaytest.New(t)
	limited := func(retryAfter int) {
		t.Helper()
		a := requestInvite(t, gw, "my-agent")
		wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
		if got, want := a.header.Get("Retry-After"), strconv.Itoa(retryAfter); got != want {
			t.Errorf("got Retry-After %s, want %s", got, want)
		}
	}
	for range 3 { // at 0, 10 and 20 minutes
		invited(t, gw, "my-agent")
		gw.Clock.Advance(10 * time.Minute)
	}
	limited(1800)
	gw.Restart(t)
	limited(1800) // refused ones did not count, and the count has survived
	gw.Clock.Advance(30*time.Minute - 1500*time.Millisecond)
	limited(2) // never too short
	gw.Clock.Advance(1500*time.Millisecond - time.Microsecond)
	limited(1)
	gw.Clock.Advance(time.Microsecond)
	invited(t, gw, "my-agent")
	limited(600) // the window slides
}

func TestInvitesAtOnceAreThree(t *testing.T) {
	gw := gatewaytest.New(t)
	issued := 0
	for _, a := range race(64, func(i int) answer { return requestInvite(t, gw, fmt.Sprintf("agent-%d", i)) }) {
		if a.status == http.StatusCreated {
			issued++
		} else {
			wantStatus(t, a, http.StatusTooManyRequests, "rate_limited")
		}
	}
	if issued != 3 {
		t.Errorf("got %d invites, want 3", issued)
	}
	if got, want := refusals(t, gw), 61; got != want {
		t.Errorf("got %d refusals in the audit trail, want %d", got, want)
	}
}

func TestClientsAreWhoTheyAreNotWhoTheySay(t *testing.T) {
	ask := func(t *testing.T, gw *gatewaytest.Gateway, forwardedFor string) answer {
		t.Helper()
		return postJSON(t, gw, invitePath, map[string]any{"agent_id": "my-agent", "agent_name": "A"}, header{"X-Forwarded-For": forwardedFor})
	}
	t.Run("a stranger's X-Forwarded-For counts for nothing", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("10.0.0.0/8")))
		for i := range 3 {
			wantStatus(t, ask(t, gw, fmt.Sprintf("203.0.113.%d", i)), http.StatusCreated, "")
		}
		wantStatus(t, ask(t, gw, "203.0.113.9"), http.StatusTooManyRequests, "rate_limited")
		if got, want := last(t, gw).IP, "127.0.0.1"; got != want {
			t.Errorf("got the client %s, want %s", got, want)
		}
	})
	t.Run("a proxy's names the client, whatever that one says", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
		for i := range 3 {
			wantStatus(t, ask(t, gw, fmt.Sprintf("198.51.100.%d, 203.0.113.7", i)), http.StatusCreated, "")
		}
		wantStatus(t, ask(t, gw, "198.51.100.77, 203.0.113.7"), http.StatusTooManyRequests, "rate_limited")
		if got, want := last(t, gw).IP, "203.0.113.7"; got != want {
			t.Errorf("got the client %s, want %s", got, want)
		}
		wantStatus(t, ask(t, gw, "203.0.113.8"), http.StatusCreated, "")
	})
	t.Run("an IPv6 client counts by its /64", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
		for i := range 3 {
			wantStatus(t, ask(t, gw, fmt.Sprintf("2001:db8:0:1::%d", i)), http.StatusCreated, "")
		}
		wantStatus(t, ask(t, gw, "2001:db8:0:1:ffff::"), http.StatusTooManyRequests, "rate_limited")
		if e := last(t, gw); e.IP != "2001:db8:0:1::/64" || e.Detail != "2001:db8:0:1:ffff::" {
			t.Errorf("got the event %+v, want it to count the /64 and name the address", e)
		}
		wantStatus(t, ask(t, gw, "2001:db8:0:1:eeee::"), http.StatusTooManyRequests, "rate_limited")
		if e := last(t, gw); e.Count != 2 {
			t.Errorf("got the event %+v, want both refusals in one", e)
		}
		wantStatus(t, ask(t, gw, "2001:db8:0:2::"), http.StatusCreated, "")
	})
}

func TestClientIP(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, tt := range map[string]struct {
		peer     string
		forward  []string
		ip, what string
	}{
		"a peer":                        {"203.0.113.7:1234", nil, "203.0.113.7", "203.0.113.7"},
		"a peer by IPv6":                {"[2001:db8::1]:1234", nil, "2001:db8::1", "2001:db8::/64"},
		"a peer with a zone":            {"[fe80::1%eth0]:1234", nil, "fe80::1", "fe80::/64"},
		"a mapped peer":                 {"[::ffff:203.0.113.7]:1234", nil, "203.0.113.7", "203.0.113.7"},
		"a mapped proxy":                {"[::ffff:10.0.0.1]:1234", []string{"203.0.113.7"}, "203.0.113.7", "203.0.113.7"},
		"a peer without an address":     {"@", []string{"203.0.113.7"}, "::", "::/64"},
		"a proxy that says nothing":     {"10.0.0.1:1", nil, "10.0.0.1", "10.0.0.1"},
		"a proxy that says an empty":    {"10.0.0.1:1", []string{""}, "10.0.0.1", "10.0.0.1"},
		"a proxy":                       {"10.0.0.1:1", []string{"203.0.113.7"}, "203.0.113.7", "203.0.113.7"},
		"a proxy that names the port":   {"10.0.0.1:1", []string{"203.0.113.7:99"}, "203.0.113.7", "203.0.113.7"},
		"a proxy that names IPv6":       {"[fd00::1]:1", []string{"[2001:db8::1]:99"}, "2001:db8::1", "2001:db8::/64"},
		"two proxies":                   {"10.0.0.1:1", []string{"203.0.113.7, 10.0.0.2"}, "203.0.113.7", "203.0.113.7"},
		"two proxies in two headers":    {"10.0.0.1:1", []string{"203.0.113.7", "10.0.0.2"}, "203.0.113.7", "203.0.113.7"},
		"nobody but proxies":            {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3", "10.0.0.3"},
		"a client that lies":            {"10.0.0.1:1", []string{"198.51.100.1, 203.0.113.7"}, "203.0.113.7", "203.0.113.7"},
		"a client that lies of a proxy": {"10.0.0.1:1", []string{"198.51.100.1, 10.0.0.9, 203.0.113.7"}, "203.0.113.7", "203.0.113.7"},
		"a client that sends nonsense":  {"10.0.0.1:1", []string{"198.51.100.1, nonsense, 10.0.0.2"}, "10.0.0.2", "10.0.0.2"},
		"a stranger":                    {"203.0.113.7:1", []string{"198.51.100.1"}, "203.0.113.7", "203.0.113.7"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{"X-Forwarded-For": tt.forward}}
			ip, what := embeddedgateway.ClientIP(r, proxies)
			if ip != tt.ip || what != tt.what {
				t.Errorf("got %s, limited by %s, want %s, by %s", ip, what, tt.ip, tt.what)
			}
		})
	}
}
