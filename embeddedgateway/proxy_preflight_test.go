package embeddedgateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

func TestOnlyAPreflightGetsToTheAPIAsNobodys(t *testing.T) {
	got := make(chan http.Header, 1)
	api := func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.WriteHeader(http.StatusNoContent)
	}
	rules := []embeddedgateway.Rule{{Path: "/", Scopes: []string{"anything"}}}
	gw, key := inFront(t, api, embeddedgateway.Front{Preflights: true, Rules: rules})
	closed, _ := inFront(t, api, embeddedgateway.Front{Rules: rules})
	const asks = "Origin: https://app.example.com\r\nAccess-Control-Request-Method: DELETE\r\n"
	for request, want := range map[string]int{
		"OPTIONS /r?a=b HTTP/1.1\r\n" + asks + "Access-Control-Request-Headers: authorization\r\nCookie: a=b\r\nX-Enlist-Agent: lona/root\r\nX-Forwarded-For: 6.6.6.6\r\n": 204,
		"OPTIONS /r HTTP/1.1\r\nOrigin: https://app.example.com\r\n":                                           401,
		"OPTIONS /r HTTP/1.1\r\nAccess-Control-Request-Method: GET\r\n":                                        401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Origin: https://other.example.com\r\n":                             401,
		"GET /r HTTP/1.1\r\n" + asks:                                                                           401,
		"POST /r HTTP/1.1\r\n" + asks + "Content-Length: 0\r\n":                                                401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Content-Length: 2\r\nConnection: close\r\n\r\nhi":                  401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n":                401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Connection: Upgrade\r\nUpgrade: websocket\r\n":                     401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "X_API_Key: lk_x\r\n":                                               401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "X-User-Id: trader\r\n":                                             401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Authorization: Bearer ltx_nobodys\r\n":                             401,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "Authorization: Bearer " + key + "\r\n":                             403, // by the rule
		"OPTIONS /a/../r HTTP/1.1\r\n" + asks:                                                                  400,
		"OPTIONS /r HTTP/1.1\r\n" + asks + "X-HTTP-Method-Override: DELETE\r\n":                                400,
		"OPTIONS /.enlist/x HTTP/1.1\r\n" + asks:                                                               404,
		"OPTIONS /.enlist/verify HTTP/1.1\r\n" + asks + "X-Original-Method: OPTIONS\r\nX-Original-URI: /r\r\n": 403, // of nobody who is trusted
	} {
		line, rest, _ := strings.Cut(request, "\r\n")
		resp, _, _ := exchanged(t, gw, "OPTIONS", line+"\r\nHost: agents.example.com\r\n"+rest+"\r\n")
		if resp.StatusCode != want {
			t.Errorf("%q: got %d, want %d", request, resp.StatusCode, want)
		}
		if want != http.StatusNoContent {
			continue
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("the browser got %v", resp.Header)
		}
		h := <-got
		if h.Get("Origin") == "" || h.Get("Access-Control-Request-Headers") != "authorization" || h.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("the API got %v", h)
		}
		for name := range h {
			if strings.HasPrefix(name, "X-Enlist") || name == "Cookie" {
				t.Errorf("the API got %s: %q", name, h[name])
			}
		}
		resp, _, _ = exchanged(t, closed, "OPTIONS", line+"\r\nHost: agents.example.com\r\n"+rest+"\r\n")
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("unless the operator says so: got %d", resp.StatusCode)
		}
	}
	if len(got) != 0 {
		t.Error("the API got what was refused")
	}
}

// TestAPreflightIsNoneWhoseCredentialHasEnded: it has none, and lives on while the
// gateway looks at the credentials of what goes on; but not for ever.
func TestAPreflightIsNoneWhoseCredentialHasEnded(t *testing.T) {
	for looks, want := range map[int]int{1: 200, 6: 401} {
		t.Run(fmt.Sprint(looks), func(t *testing.T) {
			come, goOn := make(chan bool), make(chan bool)
			gw, _ := inFront(t, func(_ http.ResponseWriter, r *http.Request) {
				close(come)
				select {
				case <-goOn:
				case <-r.Context().Done():
				}
			}, embeddedgateway.Front{Preflights: true})
			status := make(chan int)
			go func() {
				status <- send(t, gw, "OPTIONS", "/r", "", header{"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}).status
			}()
			<-come
			for range looks {
				embeddedgateway.Recheck(gw.Embedded())
			}
			if want == http.StatusOK {
				close(goOn)
			}
			if got := <-status; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}
