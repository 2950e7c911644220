package embeddedgateway_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// maxRuns is more often than any of the operations below commits, each COMMIT being
// cut as often as nthCommit says.
const maxRuns = 24

// nthCommit is the COMMIT of an operation that is cut next, the first being 0. The
// gateway commits for itself, too, such as when keys were used last. So where the
// operation came through although something was cut, it is cut at the same place
// again, up to three times.
type nthCommit struct{ n, through int }

func (c *nthCommit) next(lost bool) {
	if c.through++; lost || c.through == 3 {
		c.n, c.through = c.n+1, 0
	}
}

// cutting runs a test at a gateway whose connections to PostgreSQL can be cut:
// before the server gets a COMMIT, and before its answer is back.
func cutting(t *testing.T, f func(t *testing.T, gw *gatewaytest.Gateway, way *pgtest.Cutter, at string, cut func(skip int), done bool)) {
	t.Helper()
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("committed %v", done), func(t *testing.T) {
			t.Parallel()
			at := pgtest.Ready(t)
			way := pgtest.Cut(t, at)
			gw := gatewaytest.New(t, gatewaytest.PostgreSQL(way.URL), gatewaytest.Standalone(),
				gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")))
			cut := way.Before
			if done {
				cut = way.After
			}
			f(t, gw, way, at, cut, done)
		})
	}
}

// TestAnInviteIsUsedOnceWhereTheAnswerToACommitIsLost has the connection to the
// database end at every COMMIT of a registration by invite. The client is told
// that nobody knows; the invite makes one token at most, and exactly one as soon
// as somebody was told that it has.
func TestAnInviteIsUsedOnceWhereTheAnswerToACommitIsLost(t *testing.T) {
	t.Parallel()
	cutting(t, func(t *testing.T, gw *gatewaytest.Gateway, way *pgtest.Cutter, at string, cut func(int), done bool) {
		lost := 0
		var commit nthCommit
		for run := range maxRuns {
			agent := fmt.Sprint("agent-", run)
			ip := header{"X-Forwarded-For": fmt.Sprint("203.0.113.", run)}
			invite := postJSON(t, gw, "/api/v1/agents/request-invite", map[string]any{"agent_id": agent, "agent_name": "A"}, ip)
			wantStatus(t, invite, http.StatusCreated, "")
			code := invite.at("data", "invite_code")
			cuts := way.Cuts()
			cut(commit.n)
			a := withInvite(t, gw, agent, code, ip)
			way.Nowhere()
			if way.Cuts() == cuts {
				break // it has no more
			}
			commit.next(a.status != http.StatusCreated)
			told := 0
			if a.status == http.StatusCreated {
				told++
			} else {
				wantStatus(t, a, http.StatusServiceUnavailable, "internal")
				lost++
			}
			for range 2 {
				again := withInvite(t, gw, agent, code, ip)
				if again.status == http.StatusCreated {
					told++
					a = again
					continue
				}
				wantStatus(t, again, http.StatusUnauthorized, "invalid_invite")
			}
			issued := countedIn(t, at, "SELECT count(*) FROM credentials c JOIN agents a ON a.id = c.agent_id WHERE a.name = $1", agent)
			if told > 1 || issued != 1 {
				t.Errorf("run %d: the invite was acknowledged %d times and made %d tokens", run, told, issued)
			}
			if told == 1 {
				wantStatus(t, strategies(t, gw, agent, a.at("data", "token")), http.StatusOK, "")
			}
		}
		if lost == 0 {
			t.Errorf("no registration was cut, committed: %v", done)
		}
	})
}

// TestAnAttemptIsMadeOnceWhereTheAnswerToACommitIsLost does the same to what
// takes an Idempotency-Key: whoever repeats it gets what was lost, and no other
// agent.
func TestAnAttemptIsMadeOnceWhereTheAnswerToACommitIsLost(t *testing.T) {
	t.Parallel()
	for _, op := range attempters() {
		if op.name == "lona" {
			continue // its attempts ask for an invite each: see above
		}
		t.Run(op.name, func(t *testing.T) {
			cutting(t, func(t *testing.T, gw *gatewaytest.Gateway, way *pgtest.Cutter, at string, cut func(int), done bool) {
				lost := 0
				var commit nthCommit
				for run := range maxRuns {
					agent := fmt.Sprint("agent-", run)
					key := quoted(attemptKey + agent)
					try := op.begin(t, gw, agent)
					cuts := way.Cuts()
					cut(commit.n)
					first := try(key, fmt.Sprintf("203.0.%d.1", run))
					way.Nowhere()
					if way.Cuts() == cuts {
						break
					}
					commit.next(first.status != op.ok)
					if first.status != op.ok {
						lost++
					}
					again := try(key, fmt.Sprintf("203.0.%d.2", run))
					if again.status != op.ok || !op.works(t, gw, agent, again) {
						t.Fatalf("run %d: again: got %d %s, want a secret that works", run, again.status, again.body)
					}
					last := try(key, fmt.Sprintf("203.0.%d.3", run))
					if last.status != op.ok || last.at(op.id...) != again.at(op.id...) || !op.works(t, gw, agent, last) {
						t.Errorf("run %d: once more: got %d %s, want the same agent", run, last.status, last.body)
					}
					for _, a := range []answer{first, again} {
						if a.status == op.ok && op.works(t, gw, agent, a) {
							t.Errorf("run %d: two secrets work", run)
						}
					}
					if got := countedIn(t, at, "SELECT count(*) FROM agents WHERE protocol = $1", op.protocol); got != run+1 {
						t.Errorf("run %d: there are %d agents, want %d", run, got, run+1)
					}
				}
				if lost == 0 {
					t.Errorf("nothing was cut, committed: %v", done)
				}
			})
		})
	}
}

// counted is a number that the database of a URL has.
func countedIn(t *testing.T, at, q string, args ...any) (n int) {
	t.Helper()
	db, err := sql.Open("pgx", at)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), q, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
