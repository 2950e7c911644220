package embeddedgateway_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestHealthAndReadiness(t *testing.T) {
	gw := gatewaytest.New(t)
	events := len(gw.Audit(t))
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodGet, "/healthz", `{"status":"alive"}`, 200},
		{http.MethodHead, "/healthz", "", 200},
		{http.MethodGet, "/readyz", `{"status":"ready"}`, 200},
		{http.MethodHead, "/readyz", "", 200},
		{http.MethodPost, "/readyz", `{"error":{"code":"method","message":"allowed: GET, HEAD"}}`, 405},
		{http.MethodDelete, "/healthz", `{"error":{"code":"method","message":"allowed: GET, HEAD"}}`, 405},
	} {
		a := send(t, gw, c.method, c.path, "", nil)
		if a.status != c.status || string(a.body) != c.body || a.header.Get("Content-Type") != "application/json" ||
			a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: got %d %s %v", c.method, c.path, a.status, a.body, a.header)
		}
	}
	for range 500 { // no limit
		if a := send(t, gw, http.MethodGet, "/readyz", "", nil); a.status != 200 {
			t.Fatalf("got %d %s", a.status, a.body)
		}
	}
	if n := len(gw.Audit(t)); n != events {
		t.Errorf("%d events more are in the audit trail", n-events)
	}
}

func TestTheDatabaseIsAskedOnceASecond(t *testing.T) {
	clock := gatewaytest.NewClock(time.Unix(1_800_000_000, 0))
	asked, answer := 0, error(nil)
	ready := embeddedgateway.Prober(clock.Now, func(context.Context) error { asked++; return answer })
	for _, step := range []struct {
		after  time.Duration
		answer error
		asked  int
		well   bool
	}{
		{0, nil, 1, true},
		{0, os.ErrClosed, 1, true},
		{time.Second - 1, os.ErrClosed, 1, true},
		{1, os.ErrClosed, 2, false},
		{500 * time.Millisecond, nil, 2, false},
		{500 * time.Millisecond, nil, 3, true},
		{-time.Hour, nil, 4, true}, // a clock that is set back must not stop it
	} {
		clock.Advance(step.after)
		answer = step.answer
		if well := ready(t.Context()) == nil; well != step.well || asked != step.asked {
			t.Errorf("after %s: got %t, asked %d times, want %t and %d", step.after, well, asked, step.well, step.asked)
		}
	}
}

func TestWhoeverAsksWhileTheDatabaseIsAskedWaitsForThat(t *testing.T) {
	clock := gatewaytest.NewClock(time.Unix(1_800_000_000, 0))
	asked, answered := make(chan struct{}), make(chan struct{})
	ready := embeddedgateway.Prober(clock.Now, func(context.Context) error {
		asked <- struct{}{} // a second one would block
		<-answered
		return nil
	})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if err := ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	<-asked
	close(answered)
	all.Wait()
}

func TestADatabaseThatHangsIsNotReady(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	ready := embeddedgateway.Prober(time.Now, func(context.Context) error { <-never; return nil })
	if err := ready(t.Context()); err == nil {
		t.Error("it is said to be there")
	}
}

func TestAGatewayThatIsClosedIsNotReady(t *testing.T) {
	gw := gatewaytest.New(t)
	gw.Clock.Advance(time.Minute)
	if err := gw.Embedded().Close(); err != nil {
		t.Fatal(err)
	}
	a := send(t, gw, http.MethodGet, "/readyz", "", nil)
	if a.status != 503 || string(a.body) != `{"status":"not ready","reason":"database"}` || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if a := send(t, gw, http.MethodGet, "/healthz", "", nil); a.status != 200 {
		t.Errorf("the process is alive: got %d", a.status)
	}
}

// scrape returns what /metrics says.
func scrape(t *testing.T, gw *gatewaytest.Gateway) string {
	t.Helper()
	w := httptest.NewRecorder()
	gw.Embedded().Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetricsCountWhatHappens(t *testing.T) {
	gw := gatewaytest.New(t, partner(), gatewaytest.Config(func(c *embeddedgateway.Config) { c.Version = "v1.2.3" }))
	key := token(t, gw, "my-agent")
	for range 3 {
		wantStatus(t, strategies(t, gw, "my-agent", key), 200, "")
	}
	strategies(t, gw, "my-agent", "lona_partner_nobody_abc123xyz456_NotARealSecretAtAll")
	send(t, gw, http.MethodGet, "/nowhere/at/all", "", nil)
	send(t, gw, "BREW", strategiesPath, "", nil)
	got := scrape(t, gw)
	for _, want := range []string{
		`enlist_http_requests_total{method="GET",protocol="lona",route="/api/v1/strategies",status="2xx"} 3`,
		`enlist_http_requests_total{method="GET",protocol="lona",route="/api/v1/strategies",status="4xx"} 1`,
		`enlist_http_requests_total{method="other",protocol="lona",route="/api/v1/strategies",status="4xx"} 1`,
		`enlist_http_requests_total{method="GET",protocol="none",route="none",status="4xx"} 1`,
		`enlist_http_request_duration_seconds_count{protocol="lona",route="/api/v1/strategies"} 5`,
		`enlist_http_requests_in_flight 0`,
		`enlist_events_total{event="token_issued",protocol="lona"} 1`,
		`enlist_refusals_total{code="method",protocol="lona"} 1`,
		`enlist_registrations_total{outcome="registered",protocol="lona"} 1`,
		`enlist_registrations_total{outcome="limited",protocol="lona"} 0`,
		`enlist_registrations_total{outcome="failed",protocol="lumina"} 0`,
		`enlist_authentications_total{protocol="lona",result="good"} 3`,
		`enlist_authentications_total{protocol="lona",result="refused"} 1`,
		`enlist_mail_waiting 0`,
		`enlist_ready 1`,
		`version="v1.2.3"`,
		`enlist_database_transactions_total{result="committed"} `,
		`enlist_database_retries_total 0`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, own(got))
		}
	}
}

func TestMetricsTellOfTheOneWriterOfSQLite(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.SQLite())
	invited(t, gw, "my-agent")
	got := scrape(t, gw)
	for _, want := range []string{
		`enlist_database_waiting_writers 0`,
		`enlist_database_batch_transactions_count `,
		`enlist_database_wal_bytes `,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, own(got))
		}
	}
}

// TestRegistrationsAreCounted: by protocol and by what came of them, from zero on.
func TestRegistrationsAreCounted(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	counted := func(protocol string, registered, refused, limited, failed int) {
		t.Helper()
		got := scrape(t, gw)
		for outcome, n := range map[string]int{"registered": registered, "refused": refused, "limited": limited, "failed": failed} {
			want := fmt.Sprintf("enlist_registrations_total{outcome=%q,protocol=%q} %d\n", outcome, protocol, n)
			if !strings.Contains(got, want) {
				t.Errorf("there is no %s in\n%s", want, own(got))
			}
		}
	}
	for _, p := range wire.Protocols() {
		counted(p.Name, 0, 0, 0, 0)
	}
	body := func(i int) map[string]any {
		return map[string]any{"agent_name": fmt.Sprintf("scout-%d", i), "owner_identifier": "me@example.com"}
	}
	for i := range 11 {
		postJSON(t, gw, wire.LithtrixRegisterPath, body(i), nil)
	}
	postJSON(t, gw, wire.LithtrixRegisterPath, map[string]any{"agent_name": "no owner"}, nil)
	send(t, gw, http.MethodGet, wire.LithtrixRegisterPath, "", nil) // is none
	counted("lithtrix", 10, 1, 1, 0)

	token(t, gw, "my-agent")
	postJSON(t, gw, wire.LonaRegisterPath, map[string]any{"agent_id": "other", "agent_name": "A", "invite_code": "lona_invite_NobodyHasThis"}, nil)
	counted("lona", 1, 1, 0, 0)
	if err := gw.Embedded().Close(); err != nil {
		t.Fatal(err)
	}
	postJSON(t, gw, wire.LonaRegisterPath, map[string]any{"agent_id": "other", "agent_name": "A", "invite_code": "lona_invite_NobodyHasThis"}, nil)
	counted("lona", 1, 1, 0, 1)
	counted("agentdoor", 0, 0, 0, 0)
}

// own is what is the gateway's own of a scrape.
func own(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "enlist_") && !strings.Contains(line, "_bucket") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Whatever strangers send, there are no more labels.
func TestMetricsDoNotGrowWithWhatIsSent(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	attack := func(round string) {
		for _, r := range embeddedgateway.Routes() {
			path := strings.NewReplacer("{", "", "}", "").Replace(r.Path)
			for _, method := range []string{r.Method, "X" + round} {
				if method != "" {
					send(t, gw, method, path, `{"agent_id":"`+round+`"}`, header{"X-API-Key": round, "Authorization": "Bearer " + round, "X-Forwarded-For": round})
				}
			}
		}
		send(t, gw, http.MethodGet, "/"+round, "", header{"X-API-Key": round})
		gw.Clock.Advance(24 * time.Hour)
	}
	series := regexp.MustCompile(`(?m)^enlist_\S+`)
	attack("first")
	attack("again") // what is counted when a limit is over, too
	before := series.FindAllString(scrape(t, gw), -1)
	for _, round := range []string{"one", "two", "three", "four"} {
		attack(round)
	}
	text := scrape(t, gw)
	if after := series.FindAllString(text, -1); len(after) != len(before) || len(before) < 100 {
		t.Errorf("there were %d series, now %d", len(before), len(after))
	}
	for _, word := range []string{"first", "three", "127.0.0.1"} {
		if strings.Contains(text, word) {
			t.Errorf("%s is in it", word)
		}
	}
}

func TestAccessLog(t *testing.T) {
	for _, c := range []struct {
		access string
		lines  int
	}{{embeddedgateway.AccessAll, 3}, {embeddedgateway.AccessErrors, 1}, {embeddedgateway.AccessOff, 0}, {"", 0}} {
		t.Run("it is "+c.access, func(t *testing.T) {
			var log bytes.Buffer
			gw := gatewaytest.New(t, partner(), gatewaytest.Logger(slog.New(slog.NewTextHandler(&log, nil))),
				gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.AccessLog = c.access }))
			key := token(t, gw, "my-agent")
			strategies(t, gw, "my-agent", key)
			if err := gw.Embedded().Close(); err != nil {
				t.Fatal(err)
			}
			strategies(t, gw, "my-agent", key) // 503
			got := log.String()
			if n := strings.Count(got, "msg=request"); n != c.lines {
				t.Errorf("got %d lines, want %d:\n%s", n, c.lines, got)
			}
			wantNone(t, "the log", log.Bytes(), gw.Secrets()...)
			if c.lines == 0 {
				return
			}
			for _, want := range []string{"protocol=lona", "method=GET", "route=/api/v1/strategies", "status=503", "duration=", "client_ip=127.0.0.1", "level=WARN"} {
				if !strings.Contains(got, want) {
					t.Errorf("there is no %s in\n%s", want, got)
				}
			}
			if c.lines == 3 && !regexp.MustCompile(`status=200 .*agent=my-agent key_id=\w+`).MatchString(got) {
				t.Errorf("it does not say whose request it was:\n%s", got)
			}
		})
	}
}

// TestNoSecretIsLogged puts secrets wherever a client can.
func TestNoSecretIsLogged(t *testing.T) {
	var log bytes.Buffer
	gw := gatewaytest.New(t, partner(), gatewaytest.Logger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.AccessLog = embeddedgateway.AccessAll }))
	key := token(t, gw, "my-agent")
	query := "?key=" + key + "&token=query-" + key
	for _, r := range embeddedgateway.Routes() {
		if r.Method == "" {
			continue
		}
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(r.Path, key)
		send(t, gw, r.Method, path+query, `{"agent_id":"`+key+`","agent_name":"`+key+`","label":"`+key+`"}`, header{
			"X-API-Key": key, "X-User-Id": key, "Authorization": "Bearer " + key, "X-Request-Id": key,
			"User-Agent": key, "Referer": "http://" + key, "Idempotency-Key": key, "X-Forwarded-For": key,
		})
		send(t, gw, "X"+r.Method, path+query, "", header{"X-API-Key": key})
	}
	send(t, gw, http.MethodGet, "/"+key+query, "", nil)
	if !strings.Contains(log.String(), `"msg":"request"`) {
		t.Fatal("nothing is logged")
	}
	wantNone(t, "the log", log.Bytes(), append(gw.Secrets(), "?key=")...)
	wantNone(t, "the metrics", []byte(scrape(t, gw)), gw.Secrets()...)
}
