package embeddedgateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// concrete is a path that a pattern matches.
func concrete(pattern string) string { return wildcard.ReplaceAllString(pattern, "x1") }

// bad is a request body that no route takes, and what it gets.
type bad struct {
	name, body  string
	contentType string // "-": none
	status      int    // 0: any 4xx
}

func badBodies(fields []string) []bad {
	const jsonType = "application/json"
	bodies := []bad{
		{"no body", "", jsonType, 400},
		{"no object", "   ", jsonType, 400},
		{"an empty object", "{}", jsonType, 0},
		{"null", "null", jsonType, 400},
		{"an array", "[]", jsonType, 400},
		{"a string", `"{}"`, jsonType, 400},
		{"cut short", `{"agent_id":"a1`, jsonType, 400},
		{"not JSON", `agent_id=a1`, jsonType, 400},
		{"a comment", `{/**/}`, jsonType, 400},
		{"a trailing comma", `{"agent_id":"a1",}`, jsonType, 400},
		{"duplicate keys", `{"agent_id":"a1","agent_id":"a1"}`, jsonType, 400},
		{"duplicate unknown keys", `{"zz":1,"zz":1}`, jsonType, 400},
		{"duplicate keys by escape", `{"agent_id":"a1","agent\u005fid":"a1"}`, jsonType, 400},
		{"invalid UTF-8", "{\"agent_id\":\"a\xff\"}", jsonType, 400},
		{"invalid UTF-8 in a name", "{\"\xc3\x28\":1}", jsonType, 400},
		{"half a surrogate", `{"agent_id":"\ud800"}`, jsonType, 400},
		{"a NUL", "{\"agent_id\":\"a\x00\"}", jsonType, 400},
		{"trailing data", `{} {}`, jsonType, 400},
		{"trailing garbage", `{}x`, jsonType, 400},
		{"a byte order mark", "\ufeff{}", jsonType, 400},
		{"65 KiB", `{"zz":"` + strings.Repeat("z", 65<<10) + `"}`, jsonType, 413},
		{"one byte over", strings.Repeat(" ", embeddedgateway.MaxBody-1) + "{}", jsonType, 413},
		{"nesting 1,000", `{"zz":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, jsonType, 400},
		{"nesting 30,000", `{"zz":` + strings.Repeat(`{"z":`, 10_000), jsonType, 400},
		{"no content type", "{}", "-", 415},
		{"a wrong content type", "{}", "text/plain", 415},
		{"a form", "agent_id=a1", "application/x-www-form-urlencoded", 415},
		{"a wrong charset", "{}", "application/json; charset=latin1", 415},
		{"a broken content type", "{}", "application/json; charset", 415},
		{"no body and no content type", "", "-", 415},
	}
	for _, f := range fields {
		bodies = append(bodies, bad{"the wrong type of " + f, fmt.Sprintf(`{%q:[[1]]}`, f), jsonType, 400})
	}
	return bodies
}

func TestEveryRouteRefusesBadInputInItsProtocolsWords(t *testing.T) {
	for _, r := range embeddedgateway.Routes() {
		if r.Method == "" {
			continue
		}
		gw := gatewaytest.New(t, partner()) // of its own: the whole audit trail is read at every step
		before := 0
		bodies := badBodies(r.Fields)
		switch {
		case r.Bare: // none is in order, and so is any object: then nobody has shown who they are
			for i, b := range bodies {
				if b.body == "" || b.body == "{}" && b.contentType == "application/json" {
					bodies[i].status = 401
				}
			}
		case r.Fields == nil: // whatever comes along is not read
			for i := range bodies {
				bodies[i].status = -1
			}
		}
		for _, b := range bodies {
			t.Run(r.Method+" "+r.Path+" with "+b.name, func(t *testing.T) {
				gw.Clock.Advance(24 * time.Hour) // nothing is limited
				h := header{"Content-Type": strings.TrimPrefix(b.contentType, "-")}
				a := send(t, gw, r.Method, concrete(r.Path), b.body, h)
				if b.status == -1 && a.status < 400 {
					return // anybody may ask
				}
				if a.status != b.status && (b.status > 0 || a.status < 400 || a.status > 499) {
					t.Errorf("got status %d (%s), want %d", a.status, a.body, b.status)
				}
				wantRefusal(t, gw, a, r.Protocol)
				got := refusals(t, gw)
				if want := before + 1; got != want {
					t.Errorf("got %d refusals in the audit trail, want %d", got, want)
				}
				before = got
			})
		}
		wantNothingStored(t, gw)
	}
}

func TestTheLargestBodyIsTaken(t *testing.T) {
	gw := gatewaytest.New(t)
	const body = `{"agent_id":"my-agent","agent_name":"A"}`
	a := send(t, gw, http.MethodPost, invitePath, body+strings.Repeat(" ", embeddedgateway.MaxBody-len(body)), nil)
	wantStatus(t, a, http.StatusCreated, "")
	a = send(t, gw, http.MethodPost, invitePath, body, header{"Content-Type": `Application/JSON; charset="UTF-8"`})
	wantStatus(t, a, http.StatusCreated, "")
}

func TestEveryRouteRefusesOtherMethods(t *testing.T) {
	gw := gatewaytest.New(t, partner())
	allowed := map[[2]string][]string{}
	for _, r := range embeddedgateway.Routes() {
		at := [2]string{r.Protocol, r.Path}
		allowed[at] = append(allowed[at], r.Method)
		if r.Method == http.MethodGet {
			allowed[at] = append(allowed[at], http.MethodHead)
		}
	}
	methods := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodTrace, "BREW",
	}
	for at, allow := range allowed {
		if slices.Contains(allow, "") {
			continue
		}
		slices.Sort(allow)
		for _, method := range methods {
			if slices.Contains(allow, method) {
				continue
			}
			t.Run(method+" "+at[1], func(t *testing.T) {
				gw.Clock.Advance(time.Minute) // each refusal is an event of its own
				before := refusals(t, gw)
				a := send(t, gw, method, concrete(at[1]), "", nil)
				if a.status != http.StatusMethodNotAllowed {
					t.Errorf("got status %d, want 405", a.status)
				}
				if got, want := a.header.Get("Allow"), strings.Join(allow, ", "); got != want {
					t.Errorf("got Allow %q, want %q", got, want)
				}
				if method != http.MethodHead {
					wantRefusal(t, gw, a, at[0])
				}
				if got, want := refusals(t, gw), before+1; got != want {
					t.Errorf("got %d refusals in the audit trail, want %d", got, want)
				}
			})
		}
	}
	wantNothingStored(t, gw)
}

func TestEveryProtocolAnswersForThePathsThatAreItsOwn(t *testing.T) {
	gw := gatewaytest.New(t)
	for _, r := range embeddedgateway.Routes() {
		if r.Method != "" {
			continue
		}
		base := strings.TrimSuffix(concrete(r.Path), "/")
		named := slices.ContainsFunc(embeddedgateway.Routes(), func(o embeddedgateway.Route) bool {
			// Anything that follows is a name, as in /api/agents/{agent_id}.
			return wildcard.ReplaceAllString(o.Path, "") == r.Path
		})
		for _, path := range []string{base + "/", base + "/no-such", base + "/no/such", base + "/a%2Fb", base + "//x", base + "/./x", base + "/x/../y", base + "/%2e%2e/x"} {
			if named && path != base+"/" && strings.Count(path, "/") == strings.Count(base, "/")+1 {
				continue
			}
			t.Run(path, func(t *testing.T) {
				gw.Clock.Advance(time.Minute) // each refusal is an event of its own
				before := refusals(t, gw)
				a := send(t, gw, http.MethodPost, path, "{}", nil)
				if a.status != http.StatusNotFound {
					t.Errorf("got status %d, want 404", a.status)
				}
				wantRefusal(t, gw, a, r.Protocol)
				if got, want := refusals(t, gw), before+1; got != want {
					t.Errorf("got %d refusals in the audit trail, want %d", got, want)
				}
			})
		}
	}
}

func TestEveryKindOfProblemHasItsStatusAndWordsInEveryProtocol(t *testing.T) {
	embeddedgateway.Kinds(func(protocol string, want, got int, body any) {
		if got != want {
			t.Errorf("%s: got status %d, want %d", protocol, got, want)
		}
		if text, err := json.Marshal(body); err != nil || !strings.Contains(string(text), "why") {
			t.Errorf("%s: the body of a %d is %s, %v: it does not say why", protocol, got, text, err)
		}
	})
}

func TestPathsOfNoProtocolAnswerJSON(t *testing.T) {
	gw := gatewaytest.New(t)
	for _, path := range []string{"/", "/favicon.ico", "/api", "/api/v1", "/api/v1/", "//", "/../x", "/api/v1/agentsx", "/%00", "/.git/config"} {
		a := send(t, gw, http.MethodGet, path, "", nil)
		wantStatus(t, a, http.StatusNotFound, "not_found")
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: got Content-Type %q, want application/json", path, got)
		}
	}
	if events := gw.Audit(t); len(events) > 0 {
		t.Errorf("the audit trail has %v, want nothing: strangers' scans are nobody's business", events)
	}
}

func TestRawRequestsNeverGetHTML(t *testing.T) {
	gw := gatewaytest.New(t)
	host := strings.TrimPrefix(gw.URL, "http://")
	post := "POST " + registerPath + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n"
	for name, tt := range map[string]struct {
		request string
		status  int
	}{
		"CONNECT":        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 404},
		"absolute form":  {"GET http://example.com" + strategiesPath + " HTTP/1.1\r\nHost: example.com\r\n\r\n", 401},
		"dot segments":   {"GET /api/v1/x/../agents/register HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 404},
		"cut short":      {post + "Content-Length: 100\r\n\r\n{}", 400},
		"bad chunks":     {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"two types":      {post + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 415},
		"chunked 65 KiB": {post + "Transfer-Encoding: chunked\r\n\r\n10400\r\n" + strings.Repeat(" ", 0x10400) + "\r\n0\r\n\r\n", 413},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatal(err)
			}
			if name == "cut short" { // a server takes who has ended for who has left
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Type"); got != "application/json" || resp.StatusCode != tt.status {
				t.Errorf("got %d %q, want %d in JSON", resp.StatusCode, got, tt.status)
			}
		})
	}
}

// wantRefusal checks that a refusal has the shape of its protocol's.
func wantRefusal(t *testing.T, gw *gatewaytest.Gateway, a answer, protocol string) {
	t.Helper()
	var got, want map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("the body %q is not JSON: %v", a.body, err)
	}
	if err := json.Unmarshal(embeddedgateway.RefusalBody(protocol), &want); err != nil {
		t.Fatal(err)
	}
	if g, w := shape(got), shape(want); g != w {
		t.Errorf("got a body of the shape %s, want %s", g, w)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if g := a.header.Get(name); g != value {
			t.Errorf("got %s %q, want %q", name, g, value)
		}
	}
	if e := last(t, gw); !e.Refusal || e.Protocol != protocol || e.IP != "127.0.0.1" || !strings.HasPrefix(e.Name, "refused:") {
		t.Errorf("the audit trail ends with %+v, want a refusal by %s", e, protocol)
	}
}

// shape is the names and types of a JSON value.
func shape(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprintf("%T", v)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, name+":"+shape(m[name]))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// refusals is how many refusals the audit trail stands for.
func refusals(t testing.TB, gw *gatewaytest.Gateway) int {
	t.Helper()
	n := 0
	for _, e := range gw.Audit(t) {
		if e.Refusal {
			n += e.Count
		}
	}
	return n
}

func wantNothingStored(t *testing.T, gw *gatewaytest.Gateway) {
	t.Helper()
	db := gw.Bare(t)
	for _, table := range []string{"agents", "credentials", "tickets", "counters"} {
		var n int
		if err := db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			t.Errorf("got %d rows in %s, want none", n, table)
		}
	}
}
