package conform_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/conform"
)

// partnerSecret is what trusted partners of Lona register with in these tests.
const partnerSecret = "5e1f0c7a9b3d482e6f7081920a1b2c3d4e5f60718293a4b5c6d7e8f901234567"

// gateway is Enlist's own, set up so that everything of it can be graded.
func gateway(t *testing.T, opts ...gatewaytest.Option) *gatewaytest.Gateway {
	t.Helper()
	return gatewaytest.New(t, append([]gatewaytest.Option{gatewaytest.Env(map[string]string{
		"AGENT_REGISTRATION_SECRET": partnerSecret,
		"AGENTDOOR_RATE_LIMIT":      "40/1h",
		"AGENTDOOR_SCOPES":          `[{"id":"api.access","description":"Use the API"},{"id":"reports.write","description":"Write"}]`,
	}), gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Front = &embeddedgateway.Front{
			Upstream: behind(t), Rules: []embeddedgateway.Rule{{Path: "/reports", Scopes: []string{"reports.write"}}},
		}
	})}, opts...)...)
}

// behind is an API behind a gateway, which answers whoever gets through.
func behind(t *testing.T) *url.URL {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"reports":[]}`))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// whole has all of a gateway's protocol graded: its mail is read, its clock is
// moved, its limits are used up, and its operator suspends agents.
func whole(t *testing.T, gw *gatewaytest.Gateway, protocol string) conform.Options {
	t.Helper()
	return conform.Options{
		URL: gw.URL, Protocol: protocol, Now: gw.Clock.Now, LonaSecret: partnerSecret, Exhaust: true,
		Scope: "reports.write", ScopedPath: "/reports",
		Suspend: func(ctx context.Context, agent string) error { return gw.Embedded().Suspend(ctx, protocol, agent) },
		Mail: func(_ context.Context, to string) (texts []string, err error) {
			for _, m := range gw.Outbox(t) {
				if m.To == to {
					texts = append(texts, m.Text)
				}
			}
			return texts, nil
		},
		Wait: func(_ context.Context, d time.Duration) error {
			gw.Clock.Advance(d)
			return nil
		},
	}
}

func run(t *testing.T, o conform.Options) conform.Report {
	t.Helper()
	report, err := conform.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// outcomes are the ids of the checks that had an outcome.
func outcomes(r conform.Report, o conform.Outcome) (ids []string) {
	for _, result := range r.Results {
		if result.Outcome == o {
			ids = append(ids, result.ID)
		}
	}
	return ids
}

// TestEnlistsGatewayConforms: everything is graded, and everything passes.
func TestEnlistsGatewayConforms(t *testing.T) {
	for _, protocol := range conform.Protocols() {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			for name, opt := range map[string]gatewaytest.Option{
				"alone":  gatewaytest.Standalone(),
				"within": gatewaytest.Config(func(*embeddedgateway.Config) {}),
			} {
				gw := gateway(t, opt)
				report := run(t, whole(t, gw, protocol))
				for _, r := range report.Results {
					if r.Outcome != conform.Pass {
						t.Errorf("%s: %s %s: %s %v", name, r.ID, r.Outcome, r.Reason, r.Evidence)
					}
				}
				if !report.OK() || len(report.Results) != len(conform.Checks(protocol)) || len(report.Results) < 20 {
					t.Errorf("%s: %d of %d checks", name, len(report.Results), len(conform.Checks(protocol)))
				}
				t.Logf("%s: %d checks, %d requests", name, len(report.Results), report.Requests)
			}
		})
	}
}
