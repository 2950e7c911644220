package conform_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/conform"
)

// clock is the time of tests that have no gateway.
func clock() time.Time { return time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC) }

func TestChecksAreDescribed(t *testing.T) {
	for _, protocol := range conform.Protocols() {
		var ids []string
		for _, c := range conform.Checks(protocol) {
			if slices.Contains(ids, c.ID) {
				t.Errorf("%s: two checks are called %s", protocol, c.ID)
			}
			ids = append(ids, c.ID)
			if len(c.Expect) < 10 || !slices.Contains([]conform.Source{conform.Seed, conform.Published, conform.Choice}, c.Source) ||
				!slices.Contains([]conform.Severity{conform.Must, conform.Should}, c.Severity) || strings.Count(c.ID, ".") != 1 {
				t.Errorf("%s: %+v", protocol, c)
			}
		}
	}
	if conform.Checks("nova") != nil {
		t.Error("there are checks for a protocol that cannot be graded")
	}
}

func TestRunRefuses(t *testing.T) {
	for name, o := range map[string]conform.Options{
		"unknown protocol":          {URL: "https://a.example", Protocol: "nova", Now: clock},
		"Now is nil":                {URL: "https://a.example", Protocol: "lona"},
		"want the URL":              {URL: "a.example", Protocol: "lona", Now: clock},
		"in the clear":              {URL: "http://a.example", Protocol: "lona", Now: clock},
		"clear: want https":         {URL: "http://localhost.a.example", Protocol: "lona", Now: clock},
		"without a user":            {URL: "https://me:secret@a.example", Protocol: "lona", Now: clock},
		"a path, a query":           {URL: "https://a.example/x", Protocol: "lona", Now: clock},
		"a query and a fragment, s": {URL: "https://a.example?x=1", Protocol: "lona", Now: clock},
	} {
		if _, err := conform.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want it to say %q", err, name)
		}
	}
	for _, url := range []string{"http://127.0.0.1", "http://[::1]:1", "http://localhost:1/", "http://x.localhost", "https://a.example"} {
		if err := (conform.Options{URL: url, Protocol: "lona", Now: clock}).Check(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := (conform.Options{URL: "http://a.example", Protocol: "lona", Now: clock, InsecureHTTP: true}).Check(); err != nil {
		t.Errorf("although it was allowed: %v", err)
	}
}

// TestNothingIsGraded: a service that cannot be registered at has not passed,
// whatever else it does.
func TestNothingIsGraded(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for name, h := range map[string]http.HandlerFunc{
		"always a limit": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"no answer":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"not JSON":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"data":7},"x"]`) },
		"deep JSON":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("[", 20_000)) },
		"2 MiB":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 2<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			for _, protocol := range conform.Protocols() {
				r, err := conform.Run(t.Context(), conform.Options{URL: s.URL, Protocol: protocol, Now: clock})
				if err != nil || r.OK() || r.Graded() {
					t.Errorf("%s: got %v, %v: it was graded", protocol, r.OK(), err)
				}
				if len(r.Results) != len(conform.Checks(protocol)) {
					t.Errorf("%s: got %d results", protocol, len(r.Results))
				}
			}
		})
	}
	if elsewhere.Load() > 0 {
		t.Error("another origin was asked")
	}
}

func TestARunIsBounded(t *testing.T) {
	gw := gateway(t)
	o := whole(t, gw, "lona")
	o.MaxRequests = 5
	r := run(t, o)
	if r.Requests != 5 || len(outcomes(r, conform.Skip)) < 40 || len(outcomes(r, conform.Fail)) > 0 {
		t.Errorf("got %d requests, %d skipped, failed %q", r.Requests, len(outcomes(r, conform.Skip)), outcomes(r, conform.Fail))
	}

	ctx, cancel := context.WithCancel(t.Context())
	o = whole(t, gw, "lithtrix")
	o.Progress = func(conform.Result) { cancel() }
	r, err := conform.Run(ctx, o)
	if !errors.Is(err, context.Canceled) || len(r.Results) != 1 {
		t.Errorf("got %d results and %v, want it to end", len(r.Results), err)
	}
}

// TestReportsHoldNoSecret: neither what was issued nor what was sent.
func TestReportsHoldNoSecret(t *testing.T) {
	for _, protocol := range conform.Protocols() {
		for _, m := range mutations() {
			if m.name != "has other statuses of success" && m.name != "repeats secrets" && m.name != "reads out secrets" {
				continue
			}
			gw := gateway(t, spoiled(m.spoil()))
			said := fmt.Sprintf("%+v", run(t, whole(t, gw, protocol)))
			for _, secret := range gw.Secrets() {
				if strings.Contains(said, secret) {
					t.Errorf("%s: the report of one that %s has a secret", protocol, m.name)
				}
			}
		}
	}
}

// TestWhatIsMadeIsEnded: what a service has a route for is ended.
func TestWhatIsMadeIsEnded(t *testing.T) {
	gw := gateway(t)
	o := whole(t, gw, "lumina")
	o.Exhaust, o.Wait, o.Suspend = false, nil, nil
	if r := run(t, o); len(r.Left) > 0 {
		t.Errorf("there are left: %q", r.Left)
	}
	var live int
	for _, e := range gw.Audit(t) {
		switch e.Name {
		case "key_issued":
			live++
		case "key_revoked":
			live--
		}
	}
	if live != 0 {
		t.Errorf("%d keys live", live)
	}
}

// TestOnlyWhatTakesNoLongerIsWaitedFor: somebody waits for it.
func TestOnlyWhatTakesNoLongerIsWaitedFor(t *testing.T) {
	gw := gateway(t)
	o := whole(t, gw, "agentdoor")
	var longest time.Duration
	move := o.Wait
	o.MostWait, o.Wait = 6*time.Minute, func(ctx context.Context, d time.Duration) error {
		longest = max(longest, d)
		return move(ctx, d)
	}
	r := run(t, o)
	passed, skipped := outcomes(r, conform.Pass), outcomes(r, conform.Skip)
	if !slices.Contains(passed, "verify.expired") || !slices.Contains(skipped, "token.expires") {
		t.Errorf("passed %q, skipped %q", passed, skipped)
	}
	if longest == 0 || longest > 6*time.Minute || len(outcomes(r, conform.Fail)) > 0 {
		t.Errorf("it waited for %s; failed %q", longest, outcomes(r, conform.Fail))
	}
}

// TestSpreadAddresses: what a limit by address keeps from being graded is graded
// where the service believes them, and nothing fails where it does not.
func TestSpreadAddresses(t *testing.T) {
	for believed, opts := range map[bool][]gatewaytest.Option{
		true:  {gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8"))},
		false: nil,
	} {
		for _, protocol := range conform.Protocols() {
			o := whole(t, gateway(t, append(opts, gatewaytest.Standalone())...), protocol)
			o.Wait, o.SpreadAddresses, o.Exhaust = nil, true, believed
			r := run(t, o)
			met := 0
			for _, result := range r.Results {
				if strings.Contains(result.Reason, "limit was met") {
					met++
				}
			}
			if failed := outcomes(r, conform.Fail); len(failed) > 0 || believed && met > 0 {
				t.Errorf("believed %v: %s fails %q, and %d met a limit", believed, protocol, failed, met)
			}
			if !believed && protocol == "lumina" && met == 0 {
				t.Error("a service that believes nobody met no limit")
			}
		}
	}
}
