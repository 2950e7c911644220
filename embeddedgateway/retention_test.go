package embeddedgateway_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

func sweep(t *testing.T, gw *gatewaytest.Gateway) int {
	t.Helper()
	n, err := gw.Embedded().SweepNow(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheAuditTrailIsKeptForAsLongAsItIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		audit time.Duration
		after time.Duration
		kept  bool
	}{
		"not yet":              {90 * 24 * time.Hour, 90*24*time.Hour - time.Minute, true},
		"then":                 {90 * 24 * time.Hour, 90*24*time.Hour + time.Minute, false},
		"where unset":          {0, 10 * 365 * 24 * time.Hour, true},
		"where it is for ever": {-1, 10 * 365 * 24 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, partner(), gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Retention.Audit = c.audit }))
			token(t, gw, "my-agent")
			before := len(gw.Audit(t))
			gw.Clock.Advance(c.after)
			sweep(t, gw)
			if left := len(gw.Audit(t)); before == 0 || (left == before) != c.kept {
				t.Errorf("%d events were there, %d are left", before, left)
			}
		})
	}
}

func TestWhatHasExpiredIsKeptForAsLongAsItIsSaid(t *testing.T) {
	const invite, hour = time.Hour, time.Hour
	for name, c := range map[string]struct {
		tickets, after time.Duration
		kept           bool
	}{
		"not yet":              {3 * hour, invite + 2*hour, true},
		"then":                 {3 * hour, invite + 4*hour, false},
		"where unset, not yet": {0, invite + hour/2, true},
		"where unset":          {0, invite + 2*hour, false},
		"where it is for ever": {-1, 10 * 365 * 24 * hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Retention.Tickets = c.tickets }))
			invited(t, gw, "my-agent")
			gw.Clock.Advance(c.after)
			sweep(t, gw)
			if deleted := strings.Contains(scrape(t, gw), `enlist_pruned_rows_total{table="tickets"} 1`); deleted == c.kept {
				t.Errorf("the invite was deleted: %t", deleted)
			}
		})
	}
}

// TestNoReplayAfterPruning: what was used once is never forgotten while it could
// still be used, whatever is pruned meanwhile.
func TestNoReplayAfterPruning(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Retention.Tickets = 10 * time.Minute }))
	code := invited(t, gw, "my-agent")
	wantStatus(t, withInvite(t, gw, "my-agent", code, nil), 201, "")
	for range 200 { // longer than an invite is good for
		gw.Clock.Advance(10 * time.Minute)
		sweep(t, gw)
		if a := withInvite(t, gw, "my-agent", code, nil); a.status < 400 {
			t.Fatalf("it is taken again: %d %s", a.status, a.body)
		}
	}
}

func TestTwoReplicasDoNotSweepAtOnce(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Retention.Audit = time.Hour }))
	invited(t, gw, "my-agent")
	gw.Clock.Advance(2 * time.Hour)
	other := gatewaytest.New(t, gatewaytest.ReplicaOf(gw),
		gatewaytest.Config(func(cfg *embeddedgateway.Config) { cfg.Retention.Audit = -1 })).Embedded()
	embeddedgateway.Still(gw.Embedded())
	embeddedgateway.Still(other)
	release, err := embeddedgateway.HoldSweep(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if n := sweep(t, gw); n != 0 {
		t.Errorf("%d rows were deleted while another does that", n)
	}
	release()
	if n := sweep(t, gw); n == 0 {
		t.Error("nothing was deleted when the other was done")
	}
	// One that died while it did so does not hold the others up for long.
	if _, err := embeddedgateway.HoldSweep(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	invited(t, gw, "other-agent")
	gw.Clock.Advance(2 * time.Hour)
	if n := sweep(t, gw); n == 0 {
		t.Error("nothing was deleted after the other had died")
	}
}
