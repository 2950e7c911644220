package gateway_test

import (
	"fmt"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
)

func TestWhichRedirectsAreFollowed(t *testing.T) {
	for _, tt := range []struct {
		name, method string
		status       int
		to           string
		body         any
		followed     bool
	}{
		{"a page that has moved", "GET", 301, "/there", nil, true},
		{"without a body", "HEAD", 302, "/there", nil, true},
		{"see other", "GET", 303, "/there?a=b", nil, true},
		{"relative", "GET", 307, "there", nil, true},
		{"a change, without a body", "DELETE", 307, "/there", nil, true},
		{"a change, for good", "POST", 308, "/there", nil, true},
		{"a change that another method is meant for", "POST", 303, "/there", nil, false},
		{"a change that has moved, as of old", "DELETE", 301, "/there", nil, false},
		{"a change with a body", "POST", 307, "/there", map[string]int{"a": 1}, false},
		{"a change with a body, for good", "PUT", 308, "/there", "text", false},
		{"a route that issues", "GET", 307, invitePath, nil, false},
		{"a route that issues, spelled otherwise", "GET", 307, "/API/v1/agents/Request-Invite;x/", nil, false},
		{"a route that issues, for a change", "POST", 307, registerPath, nil, false},
		{"dots", "GET", 302, "/x/%2e%2e/there", nil, false},
		{"an encoded slash", "GET", 302, "/a%2fthere", nil, false},
		{"another method hidden in the query", "GET", 302, "/there?_method=DELETE", nil, false},
		{"not a redirect", "GET", 304, "/there", nil, false},
		{"a name before the host", "GET", 302, "user@", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			r := f.register(t, "my-agent")
			to := tt.to
			if to == "user@" {
				to = "http://user:pass@" + s.URL[len("http://"):] + "/there"
			}
			s.on("/here", reply(tt.status, "", "Location", to)).on("/there", reply(200, ""))
			before := len(s.seen(""))

			got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: tt.method, Path: "/here", Body: tt.body})
			if err != nil {
				t.Fatal(err)
			}
			want := tt.status
			if tt.followed {
				want = 200
			}
			if asked := len(s.seen("")) - before; got.Status != want || asked == 2 != tt.followed {
				t.Errorf("got %d after %d requests, want %d", got.Status, asked, want)
			}
			for _, r := range s.seen("/there") {
				if r.Method != tt.method || r.Header.Get("X-Api-Key") == "" {
					t.Errorf("sent %+v, want the same request with the credential", r)
				}
			}
		})
	}
}

func TestRedirectsAreFollowedFiveTimes(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	r := f.register(t, "my-agent")
	for n := range 6 {
		s.on(fmt.Sprintf("/%d", n), reply(302, "", "Location", fmt.Sprintf("/%d", n+1)))
	}
	s.on("/6", reply(200, ""))
	for path, want := range map[string]int{"/1": 200, "/0": 302} {
		if got, err := f.Lifecycle.Do(t.Context(), r.Key, get(path)); err != nil || got.Status != want {
			t.Errorf("%s: got %d (%v), want %d", path, got.Status, err, want)
		}
	}
}
