package embeddedgateway_test

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// TestTheEndOfTheOperatorsPageEndsNothingElse ends the operator's listener while a
// request to it and a WebSocket of the gateway are under way: the one is
// answered, the other goes on, and new ones may begin.
func TestTheEndOfTheOperatorsPageEndsNothingElse(t *testing.T) {
	gw, key := inFront(t, echo(make(chan error, 2)), embeddedgateway.Front{})
	c := talk(t, gw.URL, key)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		if r.Context().Err() != nil {
			w.WriteHeader(http.StatusGone)
		}
	})
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gw.Embedded().ServeOperator(ctx, ln, page) }()
	status := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-asked
	end()
	for { // until it takes no more
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if got := <-status; got != http.StatusOK {
		t.Errorf("what was under way was answered with %d", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	say(t, c, "still here")
	talk(t, gw.URL, key)
}
