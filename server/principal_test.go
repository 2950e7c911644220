package server_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/server"
)

// door lets in whoever comes with the bearer token of the rig and the name of a
// guest behind it, until that guest is shut out.
type door struct {
	mu    sync.Mutex
	shut  []string
	ticks chan time.Time
}

func newDoor() *door { return &door{ticks: make(chan time.Time)} }

func (d *door) config() server.HTTPConfig {
	return server.HTTPConfig{
		Verify: func(token string) (server.Principal, bool) {
			name, ok := strings.CutPrefix(token, bearer)
			p := server.Principal{Name: name, ID: "id of " + name}
			return p, ok && d.good(p)
		},
		Good: d.good,
		Tick: func() (<-chan time.Time, func()) { return d.ticks, func() {} },
	}
}

func (d *door) good(p server.Principal) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.Contains(d.shut, p.Name)
}

// shutOut has a token good no more, and returns when the server has looked.
func (d *door) shutOut(names ...string) {
	d.mu.Lock()
	d.shut = names
	d.mu.Unlock()
	d.ticks <- time.Time{}
	d.ticks <- time.Time{} // it is taken when the first has been dealt with
}

// as returns the headers of a guest's request, with more of them.
func as(name string, more ...map[string]string) map[string]string {
	h := map[string]string{"Authorization": "Bearer " + bearer + name}
	for _, m := range more {
		for k, v := range m {
			h[k] = v
		}
	}
	return h
}

// sessionOf begins a guest's session.
func (r *rig) sessionOf(name, url, version string) map[string]string {
	r.t.Helper()
	begin := strings.Replace(initialize, legacy, version, 1)
	resp := r.request(http.MethodPost, url+"/mcp", message(1, "initialize", begin), as(name))
	id := resp.Header.Get("Mcp-Session-Id")
	if resp.StatusCode != http.StatusOK || id == "" {
		r.t.Fatalf("initialize: got %s, session %q: %s", resp.Status, id, r.body(resp))
	}
	return as(name, map[string]string{"Mcp-Session-Id": id, "Mcp-Protocol-Version": version})
}

// holding adds a tool that waits until it is released or cancelled.
func (r *rig) holding() (began <-chan struct{}, release chan<- struct{}, cancelled <-chan struct{}) {
	in, out, off := make(chan struct{}, 16), make(chan struct{}), make(chan struct{}, 16)
	r.tool("hold", func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		in <- struct{}{}
		select {
		case <-out:
			return mcp.NewToolResultText("done"), nil
		case <-ctx.Done():
			off <- struct{}{}
			return mcp.NewToolResultText("cancelled"), nil
		}
	})
	return in, out, off
}

const hold = `"name":"hold"`

// A session is as good as not there for whoever came with another token.
func TestASessionBelongsToTheTokenThatBeganIt(t *testing.T) {
	r := newRig(t, nowhere)
	began, release, _ := r.holding()
	url := r.serveWith(newDoor().config())
	alice := r.sessionOf("alice", url, legacy)
	bob := as("bob", map[string]string{"Mcp-Session-Id": alice["Mcp-Session-Id"], "Mcp-Protocol-Version": legacy})
	s := r.openSSEAs("alice", url)
	s.post(message(0, "initialize", initialize))
	s.next()

	answer := async(func() []rpc {
		return r.messages(r.request(http.MethodPost, url+"/mcp", message(7, "tools/call", hold), alice))
	})
	<-began
	for name, req := range map[string]struct{ method, path, body, after string }{
		"a list":         {method: "POST", path: "/mcp", body: message(2, "tools/list", "")},
		"a call":         {method: "POST", path: "/mcp", body: message(2, "tools/call", hold)},
		"a cancellation": {method: "POST", path: "/mcp", body: message(nil, "notifications/cancelled", `"requestId":7`)},
		"an answer":      {method: "POST", path: "/mcp", body: `{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}`},
		"listening":      {method: "GET", path: "/mcp"},
		"the rest":       {method: "GET", path: "/mcp", after: "1-0"},
		"its end":        {method: "DELETE", path: "/mcp"},
		"a message":      {method: "POST", path: strings.TrimPrefix(s.message, url), body: message(2, "tools/call", hold)},
	} {
		header := as("bob", bob)
		if req.after != "" {
			header["Last-Event-ID"] = req.after
		}
		if got := r.request(req.method, url+req.path, req.body, header); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %s, want 404", name, got.Status)
		}
	}
	close(release)
	if got := <-answer; len(got) != 1 || got[0].ID != 7.0 || got[0].Result.Content[0].Text != "done" {
		t.Errorf("got %+v, want the answer of a call that nobody cancelled", got)
	}
	s.post(message(3, "ping", ""))
	if got := s.next(); got.ID != 3.0 {
		t.Errorf("over SSE: got %+v, want the answer to the ping", got)
	}
}

// What was begun with a token ends with it, whoever else goes on.
func TestWhatATokenBeganEndsWithIt(t *testing.T) {
	r := newRig(t, nowhere)
	began, _, cancelled := r.holding()
	d := newDoor()
	url := r.serveWith(d.config())
	alice, bob := r.sessionOf("alice", url, legacy), r.sessionOf("bob", url, legacy)
	listening := r.request(http.MethodGet, url+"/mcp", "", alice)
	others := r.request(http.MethodGet, url+"/mcp", "", bob)
	s := r.openSSEAs("alice", url)
	s.post(message(0, "initialize", initialize))
	s.next()
	s.post(message(1, "tools/call", hold))
	<-began
	call := async(func() string {
		return r.body(r.request(http.MethodPost, url+"/mcp", message(7, "tools/call", hold), alice))
	})
	<-began
	stateless := async(func() string { return r.body(r.modernPostAs("alice", url, 8, "tools/call", hold)) })
	<-began

	d.shutOut("alice")
	for range 3 {
		<-cancelled
	}
	if _, err := io.ReadAll(listening.Body); err != nil {
		t.Errorf("the listening stream: %v, want its end", err)
	}
	for got := s.data(); got != ""; got = s.data() {
		if !strings.Contains(got, `"cancelled"`) {
			t.Errorf("the SSE stream goes on: %s", got)
		}
	}
	if got := <-call + <-stateless; strings.Contains(got, "done") {
		t.Errorf("the calls were answered: %s", got)
	}
	if got := r.request(http.MethodPost, url+"/mcp", message(2, "ping", ""), alice); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %s, want 401", got.Status)
	}
	if got := r.request(http.MethodPost, url+"/mcp", message(2, "ping", ""), bob); got.StatusCode != http.StatusOK {
		t.Errorf("another's session: got %s, want 200", got.Status)
	}
	d.shutOut("nobody") // alice's token is good again; her session has ended all the same
	if got := r.request(http.MethodPost, url+"/mcp", message(2, "ping", ""), alice); got.StatusCode != http.StatusNotFound {
		t.Errorf("her session afterwards: got %s, want 404", got.Status)
	}
	if !strings.Contains(r.written(), "its token is no longer good") {
		t.Errorf("the log does not say why:\n%s", r.written())
	}
	others.Body.Close()
}

// The audit trail says whose token it was, beside what the client calls itself.
func TestTheAuditNamesTheToken(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serveWith(newDoor().config())
	request := `"name":"send_request","arguments":{"method":"GET","path":"/api/v1/strategies"}`
	r.messages(r.request(http.MethodPost, url+"/mcp", message(2, "tools/call", request), r.sessionOf("alice", url, legacy)))
	r.messages(r.modernPostAs("bob", url, 3, "tools/call", request))
	s := r.openSSEAs("carol", url)
	s.post(message(0, "initialize", initialize))
	s.next()
	s.post(message(1, "tools/call", request))
	s.next()
	events, err := r.client.Lifecycle.Audit(t.Context(), time.Time{}, 10)
	if err != nil || len(events) != 3 {
		t.Fatalf("got %+v (%v), want three events", events, err)
	}
	for i, want := range []string{"alice", "bob", "carol"} {
		if events[i].TokenName != want || events[i].Client != "t" {
			t.Errorf("event %d: got %+v, want the token of %s", i, events[i], want)
		}
	}
}

// A client that begins sessions for ever is told to end some, and the others go on.
func TestThereAreOnlySoManySessions(t *testing.T) {
	r := newRig(t, nowhere)
	c := newDoor().config()
	c.MaxSessions, c.MaxSessionsEach = 5, 3
	url := r.serveWith(c)
	begin := func(name string) *http.Response {
		return r.request(http.MethodPost, url+"/mcp", message(1, "initialize", initialize), as(name))
	}
	first := r.sessionOf("alice", url, legacy)
	stream := r.openSSEAs("alice", url)

	var wg sync.WaitGroup
	statuses := make([]int, 20)
	for i := range statuses {
		wg.Go(func() { statuses[i] = begin("alice").StatusCode })
	}
	wg.Wait()
	slices.Sort(statuses)
	if statuses[0] != http.StatusOK || statuses[1] != http.StatusTooManyRequests || statuses[19] != http.StatusTooManyRequests {
		t.Errorf("got %v, want one session and 429", statuses)
	}
	if got := r.request(http.MethodGet, url+"/sse", "", as("alice")); got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("an SSE session: got %s, want 429 with Retry-After", got.Status)
	}
	r.sessionOf("bob", url, legacy)
	r.sessionOf("bob", url, legacy)
	if got := begin("bob"); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("more than all: got %s, want 503 with Retry-After", got.Status)
	}
	if got := r.request(http.MethodDelete, url+"/mcp", "", first); got.StatusCode != http.StatusOK {
		t.Fatalf("DELETE: got %s", got.Status)
	}
	if got := begin("bob"); got.StatusCode != http.StatusOK {
		t.Errorf("after one has ended: got %s, want 200", got.Status)
	}
	stream.hangUp()
	for begin("alice").StatusCode == http.StatusServiceUnavailable { // until the server has seen it
		continue
	}
}

// The same goes for requests, which need no session.
func TestThereAreOnlySoManyRequests(t *testing.T) {
	r := newRig(t, nowhere)
	began, release, _ := r.holding()
	c := newDoor().config()
	c.MaxSessions, c.MaxSessionsEach = 2, 1
	url := r.serveWith(c)
	var answers []<-chan []rpc
	for i := range 4 {
		answers = append(answers, async(func() []rpc { return r.messages(r.modernPostAs("alice", url, i, "tools/call", hold)) }))
		<-began
	}
	if got := r.modernPostAs("alice", url, 9, "tools/list", ""); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("got %s, want 429", got.Status)
	}
	if got := r.modernPostAs("bob", url, 9, "tools/list", ""); got.StatusCode != http.StatusOK {
		t.Errorf("another: got %s, want 200", got.Status)
	}
	close(release)
	for _, answer := range answers {
		<-answer
	}
	for r.modernPostAs("alice", url, 9, "tools/list", "").StatusCode == http.StatusTooManyRequests {
		continue
	}
}

// What mcp-go keeps of requests does not grow for ever: the session that has made
// the most has to begin anew.
func TestASessionThatHasAskedTooMuchBeginsAnew(t *testing.T) {
	r := newRig(t, nowhere)
	c := newDoor().config()
	c.MaxRequests = 10
	url := r.serveWith(c)
	alice, bob := r.sessionOf("alice", url, legacy), r.sessionOf("bob", url, legacy)
	ping := func(session map[string]string) int {
		return r.request(http.MethodPost, url+"/mcp", message(2, "ping", ""), session).StatusCode
	}
	for i := range 8 {
		if got := ping(alice); got != http.StatusOK {
			t.Fatalf("ping %d: got %d", i, got)
		}
	}
	for i := range 4 {
		if got := ping(bob); got != http.StatusOK {
			t.Fatalf("another's ping %d: got %d", i, got)
		}
	}
	if got := ping(alice); got != http.StatusNotFound {
		t.Errorf("after 12 requests in all: got %d, want 404", got)
	}
}

// TestManySessionsThatAskLittleEndNobodyElses: the token counts that has asked the
// most, in however many sessions.
func TestManySessionsThatAskLittleEndNobodyElses(t *testing.T) {
	r := newRig(t, nowhere)
	c := newDoor().config()
	c.MaxRequests = 10
	url := r.serveWith(c)
	alice := r.sessionOf("alice", url, legacy)
	ping := func(session map[string]string) int {
		return r.request(http.MethodPost, url+"/mcp", message(2, "ping", ""), session).StatusCode
	}
	for range 4 {
		ping(alice)
	}
	for range 4 {
		bob := r.sessionOf("bob", url, legacy)
		for range 3 {
			ping(bob)
		}
	}
	if got := ping(alice); got != http.StatusOK {
		t.Errorf("after what another token asked: got %d, want 200", got)
	}
}
