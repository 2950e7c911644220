package embeddedgateway_test

import (
	"net/http"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// TestARevocationHoldsAtEveryReplica revokes at one gateway and asks another over
// the same database a thousand times.
func TestARevocationHoldsAtEveryReplica(t *testing.T) {
	t.Parallel()
	on := gatewaytest.PostgreSQL(pgtest.Ready(t))
	one, other := gatewaytest.New(t, on, partner()), gatewaytest.New(t, on, partner())
	old := token(t, one, "my-agent")
	head := header{"X-Api-Key": old, "X-User-Id": "my-agent"}
	if a := send(t, other, http.MethodGet, strategiesPath, "", head); a.status != http.StatusOK {
		t.Fatalf("before: got %d", a.status)
	}
	token(t, one, "my-agent") // ends the one before
	for i := range 1000 {
		if a := send(t, other, http.MethodGet, strategiesPath, "", head); a.status != http.StatusUnauthorized {
			t.Fatalf("request %d after the revocation: got %d", i+1, a.status)
		}
	}
}
