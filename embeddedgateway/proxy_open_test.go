package embeddedgateway_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func TestAnAgentHasOnlySoManyWebSockets(t *testing.T) {
	const most, tries = 3, 24
	gone := make(chan error, tries)
	gw, key := inFront(t, echo(gone), embeddedgateway.Front{MaxOpen: most, KeyLimit: perMinute(1000)})
	other := ltxKey(t, gw, "other")
	dial := func(key string) (*websocket.Conn, *http.Response) {
		c, resp, err := websocket.Dial(t.Context(), gw.URL+"/talk", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + key}}})
		if err != nil {
			return nil, resp
		}
		return c, resp
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []*websocket.Conn
	for range tries {
		all.Go(func() {
			c, resp := dial(key)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case c != nil:
				open = append(open, c)
			case resp == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" ||
				resp.Header.Get("RateLimit") == "" || resp.Header.Get("X-Request-Id") == "":
				t.Errorf("got %v", resp)
			}
		})
	}
	all.Wait()
	if len(open) != most {
		t.Fatalf("%d are open, want %d", len(open), most)
	}
	for _, c := range open {
		defer c.CloseNow()
		say(t, c, "hello")
	}
	got := scrape(t, gw)
	for _, want := range []string{
		"enlist_upstream_open 3\n", "enlist_upstream_streams 3\n", `enlist_refusals_total{code="too_many_open",protocol="lithtrix"} 21` + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, own(got))
		}
	}
	wantStatus(t, send(t, gw, "GET", "/talk", "", bearer(key)), http.StatusTooManyRequests, "too_many_open")
	c, _ := dial(other)
	if c == nil {
		t.Fatal("another agent is refused")
	}
	defer c.CloseNow()
	if !slices.ContainsFunc(gw.Audit(t), func(e store.Event) bool {
		return e.Name == "refused:too_many_open" && e.Agent == "scout/"+owner && e.Protocol == "lithtrix"
	}) {
		t.Errorf("got %+v", gw.Audit(t))
	}

	open[0].CloseNow()
	<-gone
	for c = nil; c == nil; { // the gateway hears of it, too
		c, _ = dial(key)
	}
	c.CloseNow()
}

// A database that is away is waited for once for all that goes on: each for itself
// they would not end in a minute, as they are to.
func TestADatabaseThatIsAwayIsAskedOnceForAll(t *testing.T) {
	gone := make(chan error, 3)
	gw, key := inFront(t, echo(gone), embeddedgateway.Front{})
	var open []*websocket.Conn
	for range 3 {
		open = append(open, talk(t, gw.URL, key))
	}
	for i := range embeddedgateway.MaxUnknown {
		for _, c := range open {
			say(t, c, "still here")
		}
		if asked := embeddedgateway.RecheckAway(gw.Embedded()); asked != 1 {
			t.Errorf("look %d: it was asked %d times, want once", i+1, asked)
		}
	}
	for range open {
		<-gone
	}
}

// Whatever is under way counts, and nothing that is over; without a limit nothing
// does.
func TestRequestsUnderWayAreCounted(t *testing.T) {
	for _, tt := range []struct{ most, under, want int }{{1, 1, 429}, {2, 1, 200}, {1, 0, 200}, {-1, 300, 200}, {0, 256, 429}, {0, 255, 200}} {
		begun, finish := make(chan bool), make(chan bool)
		gw, key := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				begun <- true
				<-finish
			}
		}, embeddedgateway.Front{MaxOpen: tt.most})
		for range 2 { // those that are over
			wantStatus(t, send(t, gw, "GET", "/r", "", bearer(key)), http.StatusOK, "")
		}
		var all sync.WaitGroup
		for range tt.under {
			all.Go(func() { wantStatus(t, send(t, gw, "GET", "/slow", "", bearer(key)), http.StatusOK, "") })
		}
		for range tt.under {
			<-begun
		}
		if a := send(t, gw, "GET", "/r", "", bearer(key)); a.status != tt.want {
			t.Errorf("at most %d, and %d under way: got %d, want %d", tt.most, tt.under, a.status, tt.want)
		}
		close(finish)
		all.Wait()
	}
}
