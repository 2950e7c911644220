package embeddedgateway_test

import (
	"net/http"
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
