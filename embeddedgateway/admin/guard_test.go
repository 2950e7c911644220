package admin_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// everywhere are paths of every kind that needs the operator.
func everywhere() []string {
	return []string{
		"/", "/live", "/agents", "/agent?protocol=lona&agent=a", "/invites", "/outbox", "/events", "/metrics",
		"/agent/suspend?protocol=lona&agent=a", "/api/v1/agents", "/api/v1/numbers", "/openapi.json", "/nowhere", "/api/nowhere", "/%2e%2e/agents",
	}
}

func metrics(c *admin.Config) {
	c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("enlist_up 1\n")) })
}

func TestNobodyGetsAnythingWithoutTokenOrSession(t *testing.T) {
	r := newRig(t, metrics)
	r.lona("secret-agent", "Secret", true)
	b := r.browser()
	for _, path := range everywhere() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
			a := b.ask(method, path, nil)
			if a.status != http.StatusUnauthorized && (a.status != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/sign-in")) {
				t.Errorf("%s %s: got %d", method, path, a.status)
			}
			if strings.Contains(a.body, "secret-agent") {
				t.Errorf("%s %s tells of an agent: %s", method, path, a.body)
			}
		}
	}
	for _, path := range []string{"/api/v1/agents", "/metrics", "/openapi.json"} {
		a := b.want(b.get(path), http.StatusUnauthorized)
		if a.header.Get("WWW-Authenticate") == "" || !strings.Contains(a.body, "admin-token") || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s does not say how to get in: %v %s", path, a.header, a.body)
		}
	}
}

func TestTheTokenOpensEverything(t *testing.T) {
	r := newRig(t, metrics)
	b := r.browser()
	b.header["Authorization"] = "Bearer " + operatorToken
	for _, path := range []string{"/", "/live", "/agents", "/invites", "/outbox", "/events", "/metrics", "/api/v1/agents", "/openapi.json"} {
		a := b.want(b.get(path), http.StatusOK)
		if len(a.header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s begins a session for a program", path)
		}
	}
	if got := b.get("/metrics").body; got != "enlist_up 1\n" {
		t.Errorf("metrics: got %q", got)
	}
}

func TestWrongTokens(t *testing.T) {
	for name, value := range map[string]string{
		"another": "Bearer enlist_admin_another", "none": "Bearer ", "cut short": "Bearer " + operatorToken[:20],
		"longer": "Bearer " + operatorToken + "x", "another case": "Bearer " + strings.ToUpper(operatorToken),
		"another scheme": "Basic " + operatorToken, "no scheme": operatorToken,
	} {
		t.Run(name, func(t *testing.T) {
			b := newRig(t, nil).browser()
			b.header["Authorization"] = value
			a := b.want(b.get("/api/v1/agents"), http.StatusUnauthorized)
			if strings.Contains(a.body, operatorToken[:12]) {
				t.Errorf("the answer repeats the token: %s", a.body)
			}
		})
	}
}

func TestWrongTokensAreCountedAndAudited(t *testing.T) {
	r := newRig(t, nil)
	wrong, right := r.browser(), r.browser()
	wrong.header["Authorization"], right.header["Authorization"] = "Bearer wrong", "Bearer "+operatorToken
	for range 10 {
		wrong.want(wrong.get("/api/v1/agents"), http.StatusUnauthorized)
	}
	a := wrong.want(wrong.get("/api/v1/agents"), http.StatusTooManyRequests)
	if a.header.Get("Retry-After") != "60" {
		t.Errorf("Retry-After: got %q, want 60", a.header.Get("Retry-After"))
	}
	// Who is over the limit does not learn by the right one either.
	right.want(right.get("/api/v1/agents"), http.StatusTooManyRequests)
	form := url.Values{"token": {operatorToken}}
	page := r.browser()
	if a := page.want(page.ask("POST", "/sign-in", form), http.StatusTooManyRequests); !strings.Contains(a.body, "Try again in 60 seconds") || page.cookie != nil {
		t.Errorf("the page does not say when to try again: %s", a.body)
	}
	// Somebody elsewhere does, behind a proxy that says so.
	elsewhere := r.browser()
	elsewhere.header["X-Forwarded-For"] = "198.51.100.7"
	elsewhere.signIn()
	elsewhere.want(elsewhere.get("/agents"), http.StatusOK)
	// What is not believed says nothing: the limit is of the address that it comes from.
	r.gw.Clock.Advance(time.Minute)
	right.want(right.get("/api/v1/agents"), http.StatusOK)
	events := r.gw.Audit(t)
	i := slices.IndexFunc(events, func(e store.Event) bool { return e.Name == "refused:admin_token" })
	if i < 0 || events[i].Count != 11 || events[i].IP != "127.0.0.1" || !events[i].Refusal {
		t.Errorf("the trail does not count the wrong tokens: %+v", events)
	}
}

func TestWrongTokensOfAllAddressesAreCounted(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.header["Authorization"] = "Bearer wrong"
	for i := range 100 {
		b.header["X-Forwarded-For"] = "203.0." + string(rune('0'+i/50)) + "." + []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}[i%10]
		b.want(b.get("/api/v1/agents"), http.StatusUnauthorized)
	}
	b.header["X-Forwarded-For"] = "198.51.100.8"
	b.want(b.get("/api/v1/agents"), http.StatusTooManyRequests)
}

func TestTheLimitOutlivesARestart(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.header["Authorization"] = "Bearer wrong"
	for range 10 {
		b.want(b.get("/api/v1/agents"), http.StatusUnauthorized)
	}
	r.gw.Restart(t)
	r.open()
	b.want(b.get("/api/v1/agents"), http.StatusTooManyRequests)
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8421": 200, "LOCALHOST:1": 200, "enlist.localhost": 200, "127.0.0.1:9": 200, "127.8.8.8": 200, "[::1]:8421": 200,
		"admin.example.com": 200, "ADMIN.example.com.:443": 200,
		"evil.example.com": 421, "evil.example.com:8421": 421, "127.0.0.1.evil.example.com": 421, "localhost.evil.example.com": 421,
		"192.0.2.1": 421, "0.0.0.0:8421": 421, "[2001:db8::1]": 421, "notlocalhost": 421, "admin.example.com.evil.example.com": 421,
	} {
		t.Run(host, func(t *testing.T) {
			r := newRig(t, func(c *admin.Config) { c.Hosts = []string{"admin.example.com"} })
			b := r.browser()
			b.header["Host"], b.header["Authorization"] = host, "Bearer "+operatorToken
			a := b.want(b.get("/api/v1/agents"), want)
			if want == 421 && !strings.Contains(a.body, "ENLIST_ADMIN_HOSTS") {
				t.Errorf("it does not say what to do: %s", a.body)
			}
			if want == 421 {
				b.header["Authorization"] = ""
				b.want(b.get("/sign-in"), 421)
				b.want(b.get("/style.css"), 421)
			}
		})
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.lona("my-agent", "Mine", true)
	b := r.browser().signIn()
	form := url.Values{"csrf": {b.csrf()}, "protocol": {"lona"}, "agent": {"my-agent"}}
	for name, header := range map[string]map[string]string{
		"cross-site":               {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.com"},
		"another port":             {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
		"an old browser":           {"Origin": "https://evil.example.com"},
		"an old browser, a file":   {"Origin": "null"},
		"an old browser, a port":   {"Origin": "http://127.0.0.1:1"},
		"a page without an origin": {"Sec-Fetch-Site": "cross-site"},
	} {
		t.Run(name, func(t *testing.T) {
			from := *b
			from.header = header
			from.want(from.ask("POST", "/agent/suspend", form), http.StatusForbidden)
			from.want(from.ask("POST", "/sign-in", url.Values{"token": {operatorToken}}), http.StatusForbidden)
			if header["Sec-Fetch-Site"] != "" {
				from.want(from.get("/api/v1/agents"), http.StatusForbidden)
			}
		})
	}
	if d, err := r.gw.Embedded().Agent(t.Context(), "lona", "my-agent"); err != nil || !d.SuspendedAt.IsZero() {
		t.Fatalf("another site suspended an agent: %+v, %v", d, err)
	}
	b.header = map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": r.url}
	b.want(b.ask("POST", "/agent/suspend", form), http.StatusSeeOther)
	// A link from elsewhere is no attack; its browser leaves the session out.
	b.header = map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
	b.want(b.get("/agents"), http.StatusOK)
	b.header["Sec-Fetch-Dest"] = "iframe"
	b.want(b.get("/agents"), http.StatusForbidden)
}

func TestFormsCarryTheTokenOfTheirSession(t *testing.T) {
	r := newRig(t, nil)
	r.lona("my-agent", "Mine", true)
	b, other := r.browser().signIn(), r.browser().signIn()
	for name, csrf := range map[string]string{"none": "", "wrong": strings.Repeat("A", 43), "of another session": other.csrf(), "the session": b.cookie.Value} {
		t.Run(name, func(t *testing.T) {
			form := url.Values{"csrf": {csrf}, "protocol": {"lona"}, "agent": {"my-agent"}, "letter": {"x"}}
			for _, path := range []string{"/agent/suspend", "/agent/delete", "/agent/resume", "/key/revoke", "/outbox/read", "/sign-out"} {
				b.want(b.ask("POST", path, form), http.StatusForbidden)
			}
			b.header = map[string]string{"X-CSRF-Token": csrf}
			b.want(b.ask("DELETE", "/api/v1/agents/lona/my-agent", nil), http.StatusForbidden)
			b.header = nil
		})
	}
	// What is in the address is not in the form.
	b.want(b.ask("POST", "/agent/suspend?csrf="+url.QueryEscape(b.csrf()), url.Values{"protocol": {"lona"}, "agent": {"my-agent"}}), http.StatusForbidden)
	b.header = map[string]string{"X-CSRF-Token": b.csrf()}
	b.want(b.ask("POST", "/api/v1/agents/lona/my-agent/suspend", nil), http.StatusOK)
}

func TestMethods(t *testing.T) {
	b := newRig(t, nil).browser()
	b.header["Authorization"] = "Bearer " + operatorToken
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/agents": "GET, HEAD", "/outbox/read": "POST", "/sign-out": "POST", "/agent/delete": "GET, HEAD, POST", "/sign-in": "GET, HEAD, POST", "/style.css": "GET, HEAD",
	} {
		for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "POST", "GET"} {
			if strings.Contains(allow, method) {
				continue
			}
			a := b.want(b.ask(method, path, nil), http.StatusMethodNotAllowed)
			if a.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow: got %q, want %q", method, path, a.header.Get("Allow"), allow)
			}
		}
	}
	if a := b.want(b.ask("HEAD", "/agents", nil), http.StatusOK); a.body != "" {
		t.Error("HEAD got a body")
	}
}

// TestEveryAnswerHasItsHeaders: also those that refuse, of pages and of files.
func TestEveryAnswerHasItsHeaders(t *testing.T) {
	r := newRig(t, metrics)
	in, token, out := r.browser().signIn(), r.browser(), r.browser()
	token.header["Authorization"] = "Bearer " + operatorToken
	lured, other := r.browser(), r.browser()
	lured.header["Host"] = "evil.example.com"
	other.header["Origin"] = "https://evil.example.com"
	for _, b := range []*browser{in, token, out, lured, other} {
		for _, path := range append(everywhere(), "/sign-in", "/style.css", "/page.js", "/icon.svg") {
			for _, method := range []string{"GET", "POST", "BREW"} {
				h := b.ask(method, path, nil).header
				for name, want := range map[string]string{
					"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
					"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
				} {
					if h.Get(name) != want {
						t.Errorf("%s %s: %s: got %q, want %q", method, path, name, h.Get(name), want)
					}
				}
				csp := h.Values("Content-Security-Policy")
				if len(csp) != 1 || strings.Contains(csp[0], "unsafe") || strings.Contains(csp[0], "*") {
					t.Fatalf("%s %s: Content-Security-Policy: %q", method, path, csp)
				}
				for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'", "script-src 'self'", "style-src 'self'"} {
					if !slices.Contains(strings.Split(csp[0], "; "), want) {
						t.Errorf("%s %s: the policy has no %s", method, path, want)
					}
				}
			}
		}
	}
}

func TestBodiesAreLimited(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	b.want(b.ask("POST", "/agent/suspend", url.Values{"csrf": {b.csrf()}, "agent": {strings.Repeat("x", 70_000)}}), http.StatusForbidden)
	b.want(b.ask("POST", "/sign-in", url.Values{"token": {strings.Repeat("x", 70_000)}}), http.StatusBadRequest)
}

func TestTheDatabaseIsAway(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	if err := r.gw.Embedded().Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/agents", "/sign-in"} {
		a := b.want(b.get(path), http.StatusServiceUnavailable)
		if !strings.Contains(a.body, "cannot answer now") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	b.header = map[string]string{"Authorization": "Bearer " + operatorToken}
	b.want(b.get("/api/v1/agents"), http.StatusServiceUnavailable)
}

func TestTheTokenCannotBeRead(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	r.token.Store(nil)
	b.want(b.get("/agents"), http.StatusServiceUnavailable)
	b = r.browser()
	b.want(b.ask("POST", "/sign-in", url.Values{"token": {operatorToken}}), http.StatusServiceUnavailable)
	if b.cookie != nil {
		t.Error("somebody was let in while nobody knows the token")
	}
}

func TestConfigIsChecked(t *testing.T) {
	gw := gatewaytest.New(t)
	good := admin.Config{Gateway: gw.Embedded(), Now: gw.Clock.Now, Tokens: func() ([][32]byte, error) { return nil, nil }}
	if _, err := admin.New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*admin.Config){
		"Gateway": func(c *admin.Config) { c.Gateway = nil },
		"Now":     func(c *admin.Config) { c.Now = nil },
		"Tokens":  func(c *admin.Config) { c.Tokens = nil },
	} {
		c := good
		spoil(&c)
		if _, err := admin.New(c); err == nil || !strings.Contains(err.Error(), "Config."+name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
