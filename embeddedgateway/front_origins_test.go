package embeddedgateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/chromium"
)

const app = "https://app.example.com"

func TestOriginsAreSpelledAsBrowsersSendThem(t *testing.T) {
	for origins, want := range map[string]string{
		"":                              "",
		app:                             "",
		app + " http://127.0.0.1:3000":  "",
		"http://[::1]:3000":             "",
		"*":                             "",
		"* " + app:                      "leave the others out",
		app + "/":                       "write it as browsers send it, without a path: " + app,
		app + "/page?q=1#x":             "write it as browsers send it, without a path: " + app,
		"https://App.Example.com:443":   "write it as browsers send it, without a path: " + app,
		"http://app.example.com:80":     "write it as browsers send it, without a path: http://app.example.com",
		"app.example.com":               "want origins such as",
		"null":                          "want origins such as",
		"https://*.example.com/":        "write it as browsers send it",
		"file:///tmp/x":                 "want origins such as",
		"https://me:secret@example.com": "want origins such as",
	} {
		err := embeddedgateway.CheckOrigins(strings.Fields(origins))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: got %v, want %q", origins, err, want)
		}
	}
}

// Only the origins that the operator named may read a refusal, whatever refuses;
// and none with cookies where all may.
func TestARefusalIsForThePagesThatMayReadIt(t *testing.T) {
	rules := []embeddedgateway.Rule{{Path: "/closed", Scopes: []string{"anything"}}}
	for _, tt := range []struct {
		origins    []string
		from       []string
		allowed    string
		credential string
		vary       bool
	}{
		{nil, []string{app}, "", "", false},
		{[]string{app}, []string{app}, app, "true", true},
		{[]string{"https://other.example.com", app}, []string{app}, app, "true", true},
		{[]string{app}, nil, "", "", true},
		{[]string{app}, []string{"null"}, "", "", true},
		{[]string{app}, []string{"https://app.example.com.evil.com"}, "", "", true},
		{[]string{app}, []string{"http://app.example.com"}, "", "", true},
		{[]string{app}, []string{app, app}, "", "", true},
		{[]string{"*"}, []string{app}, "*", "", false},
		{[]string{"*"}, nil, "*", "", false},
	} {
		gw, key := inFront(t, hello, embeddedgateway.Front{Origins: tt.origins, Rules: rules, KeyLimit: perMinute(3), MaxBody: 1})
		for _, c := range []struct {
			method, path, body, key string
			status                  int
		}{
			{"GET", "/r", "", "", 401},
			{"GET", "/a//b", "", key, 400},
			{"GET", "/closed", "", key, 403},
			{"POST", "/r", "long", key, 413},
			{"GET", "/r", "", key, 200},
			{"GET", "/r", "", key, 429},
		} {
			h := header{}
			for _, from := range tt.from {
				h["Origin"] = from
			}
			if c.key != "" {
				h["Authorization"] = "Bearer " + c.key
			}
			a := send(t, gw, c.method, c.path, c.body, h)
			if len(tt.from) > 1 {
				resp, _, _ := exchanged(t, gw, c.method, c.method+" "+c.path+" HTTP/1.1\r\nHost: x\r\nOrigin: "+app+"\r\nOrigin: "+app+"\r\n\r\n")
				a.status, a.header, c.status = resp.StatusCode, resp.Header, resp.StatusCode
			}
			allowed, credential, vary := tt.allowed, tt.credential, tt.vary
			if c.status == http.StatusOK { // the API's own to say
				allowed, credential, vary = "", "", false
			}
			told := a.header.Get("Access-Control-Expose-Headers") != ""
			if a.status != c.status || a.header.Get("Access-Control-Allow-Origin") != allowed || told != (allowed != "") ||
				a.header.Get("Access-Control-Allow-Credentials") != credential ||
				vary != strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
				t.Errorf("%q from %q: %s %s: got %d, want %d; %v", tt.origins, tt.from, c.method, c.path, a.status, c.status, a.header)
			}
		}
	}
}

func TestAPageReadsARefusalInABrowser(t *testing.T) {
	chrome := chromium.Start(t)
	page := func() *httptest.Server {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<title>A page</title>")
		}))
		t.Cleanup(ts.Close)
		return ts
	}
	ours, other := page(), page()
	api := func(w http.ResponseWriter, r *http.Request) { // it answers preflights, and lets all pages read
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Allow-Headers", "authorization")
		io.WriteString(w, "hello")
	}
	gw, key := inFront(t, api, embeddedgateway.Front{
		Preflights: true, Origins: []string{ours.URL}, KeyLimit: perMinute(2),
		Rules: []embeddedgateway.Rule{{Path: "/closed", Scopes: []string{"anything"}}},
	})
	ask := func(from, path, key string) (said string) {
		tab := chromium.Open(chrome, t, screens()["desktop"])
		tab.Do(chromedp.Navigate(from))
		asked, err := json.Marshal([]string{gw.URL + path, "Bearer " + key})
		if err != nil {
			t.Fatal(err)
		}
		chromium.Eval[bool](tab, `(() => {
			const [url, authorization] = `+string(asked)+`
			fetch(url, { headers: { authorization }, credentials: 'include' }).then(async r =>
				{ window.said = r.status + ' ' + await r.text() + ' ' + r.headers.get('ratelimit') }, e => { window.said = String(e) })
			return true
		})()`)
		said, err = chromedp.Run(tab.Context, chromedp.Poll[string]("window.said"))
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	for _, tt := range []struct{ from, path, key, want string }{
		{ours.URL, "/r", "ltx_nobodys", `401 {"error":{"code":"`},
		{other.URL, "/r", "ltx_nobodys", "TypeError: "},
		{ours.URL, "/r", key, "200 hello"},
		{ours.URL, "/closed", key, `403 {"error":{"code":"insufficient_scope"`},
		{ours.URL, "/r", key, `429 {"error":{"code":"rate_limited"`},
		{other.URL, "/r", key, "TypeError: "},
	} {
		got := ask(tt.from, tt.path, tt.key)
		if !strings.HasPrefix(got, tt.want) || strings.HasPrefix(tt.want, "4") && tt.key == key && !strings.HasSuffix(got, `"key";r=0;t=60`) {
			t.Errorf("%s with %t from %s: got %s, want %s", tt.path, tt.key == key, tt.from, got, tt.want)
		}
	}
}
