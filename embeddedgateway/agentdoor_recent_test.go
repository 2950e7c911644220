package embeddedgateway_test

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// A challenge that this process still remembers is used up by another one.
func TestAgentDoorChallengeIsGoodOnceForAllReplicas(t *testing.T) {
	for name, test := range map[string]struct {
		first  func(t *testing.T, other *gatewaytest.Gateway, id, message string)
		status int
		code   string
	}{
		"verified": {func(t *testing.T, other *gatewaytest.Gateway, id, message string) {
			wantDoor(t, doorVerify(t, other, id, pair("one").sign(message)), http.StatusOK, "")
		}, http.StatusNotFound, "not_found"},
		"failed too often": {func(t *testing.T, other *gatewaytest.Gateway, id, _ string) {
			for range 5 {
				wantDoor(t, doorVerify(t, other, id, pair("one").sign("another message")), http.StatusBadRequest, "invalid_signature")
			}
		}, http.StatusNotFound, "not_found"},
		"dropped because it expired": {func(t *testing.T, other *gatewaytest.Gateway, id, message string) {
			other.Clock.Advance(time.Hour)
			wantDoor(t, doorVerify(t, other, id, pair("one").sign(message)), http.StatusGone, "challenge_expired")
		}, http.StatusNotFound, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, behind(), gatewaytest.SQLite())
			other := gatewaytest.New(t, behind(), gatewaytest.Config(func(c *embeddedgateway.Config) {
				c.Database, c.ServerKey = "sqlite:"+gw.Database, nil
			}))
			id, message := doorPending(t, gw, pair("one"), 1)
			test.first(t, other, id, message)
			for range 2 { // from memory, and from the database
				wantDoor(t, doorVerify(t, gw, id, pair("one").sign(message)), test.status, test.code)
			}
		})
	}
}

// What is too large to be remembered is read again.
func TestAgentDoorChallengeWithMuchMetadata(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	a := doorBegin(t, gw, pair("one").public(), map[string]any{"metadata": map[string]string{"about": strings.Repeat("x", 3000)}}, nil)
	wantDoor(t, a, http.StatusCreated, "")
	wantDoor(t, doorVerify(t, gw, a.at("agent_id"), pair("one").sign(a.at("challenge", "message"))), http.StatusOK, "")
}

// Challenges lie in the index in the order in which they were made, so that a batch of
// them is a page or two of it and not one for each.
func TestAgentDoorChallengesLieInTheOrderInWhichTheyCome(t *testing.T) {
	gw := gatewaytest.New(t, behind())
	var came []string
	for n := range 12 {
		id, _ := doorPending(t, gw, pair("one"), n)
		came = append(came, id)
		gw.Clock.Advance(time.Second)
	}
	rows, err := gw.Bare(t).QueryContext(t.Context(), `SELECT subject FROM tickets WHERE protocol = 'agentdoor' AND kind = 'challenge' ORDER BY hash`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var lie []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		lie = append(lie, id)
	}
	if err := rows.Err(); err != nil || !slices.Equal(lie, came) {
		t.Errorf("got %q, %v by the hash, want %q", lie, err, came)
	}
}

// Who was given a challenge by a gateway of the version before may answer it at this
// one: it found them by the SHA-256 of all of the agent_id.
func TestAgentDoorChallengeOfTheVersionBefore(t *testing.T) {
	for name, test := range map[string]struct {
		later  time.Duration
		by     string
		tries  int
		status int
		code   string
	}{
		"signed":           {0, "one", 1, http.StatusOK, ""},
		"by another key":   {0, "two", 5, http.StatusBadRequest, "invalid_signature"},
		"when it was over": {time.Hour, "one", 1, http.StatusGone, "challenge_expired"},
	} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, behind())
			id, message := doorPending(t, gw, pair("one"), 1)
			hash := sha256.Sum256([]byte(id))
			set, args := `UPDATE tickets SET hash = $1 WHERE subject = $2`, []any{hash[:], id}
			if r, err := gw.Bare(t).ExecContext(t.Context(), set, args...); err != nil {
				t.Fatal(err)
			} else if n, _ := r.RowsAffected(); n != 1 {
				t.Fatalf("%d tickets, want 1", n)
			}
			gw.Restart(t) // or it would remember its own
			gw.Clock.Advance(test.later)
			for range test.tries {
				wantDoor(t, doorVerify(t, gw, id, pair(test.by).sign(message)), test.status, test.code)
			}
			wantDoor(t, doorVerify(t, gw, id, pair("one").sign(message)), http.StatusNotFound, "not_found")
		})
	}
}
