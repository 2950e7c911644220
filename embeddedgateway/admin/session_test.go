package admin_test

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

func TestTheCookieOfASession(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	c := b.cookie
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || len(c.Value) != 43 || c.Secure || c.MaxAge != 3600 {
		t.Errorf("the cookie is %+v", c)
	}
	if port := r.url[strings.LastIndex(r.url, ":")+1:]; c.Name != "enlist-admin-"+port {
		t.Errorf("got the name %q", c.Name)
	}
	other := r.browser().signIn()
	if other.cookie.Value == c.Value {
		t.Error("two sessions are the same")
	}
}

func TestTheCookieOfASessionByHTTPS(t *testing.T) {
	r := newRig(t, nil)
	behind := r.browser()
	behind.header["X-Forwarded-Proto"] = "https"
	behind.header["Host"] = "localhost"
	secure := httptest.NewTLSServer(*r.page.Load())
	t.Cleanup(secure.Close)
	req, err := http.NewRequest("POST", secure.URL+"/sign-in", strings.NewReader(url.Values{"token": {operatorToken}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := (&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, c := range map[string]*http.Cookie{"behind a proxy": behind.signIn().cookie, "itself": resp.Cookies()[0]} {
		// Else a browser does not take a cookie of such a name.
		if c.Name != "__Host-enlist-admin" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
			t.Errorf("%s: the cookie is %+v", name, c)
		}
	}
	// It is no session by http, nor is the other one by https.
	behind.header["X-Forwarded-Proto"] = ""
	behind.want(behind.get("/agents"), http.StatusSeeOther)
}

func TestWhoIsNoTrustedProxyCannotSayHTTPS(t *testing.T) {
	gw := gatewaytest.New(t)
	req := httptest.NewRequest("GET", "/", nil)
	req.Header.Set("X-Forwarded-Proto", "https")
	req.Header.Set("X-Forwarded-For", "198.51.100.1")
	if ip, https := gw.Embedded().Peer(req); https || ip.String() != "192.0.2.1" {
		t.Errorf("got %s, https %v", ip, https)
	}
}

func TestSessionsEnd(t *testing.T) {
	for name, end := range map[string]func(*rig, *browser){
		"by idling":      func(r *rig, _ *browser) { r.gw.Clock.Advance(time.Hour) },
		"by signing out": func(_ *rig, b *browser) { b.want(b.do("/sign-out"), http.StatusSeeOther) },
		"by another token": func(r *rig, _ *browser) {
			r.setToken("enlist_admin_another_token_of_a_test_0123456789")
		},
		"by age": func(r *rig, b *browser) {
			for range 23 { // it is used all the time
				r.gw.Clock.Advance(31 * time.Minute)
				b.want(b.get("/agents"), http.StatusOK)
			}
			r.gw.Clock.Advance(7 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			b := r.browser().signIn()
			b.want(b.get("/agents"), http.StatusOK)
			form := url.Values{"csrf": {b.csrf()}, "protocol": {"lona"}, "agent": {"a"}}
			end(r, b)
			if b.cookie == nil && name != "by signing out" {
				t.Fatal("the browser has lost its cookie")
			}
			for range 2 {
				b.want(b.get("/agents"), http.StatusSeeOther)
				b.want(b.get("/api/v1/agents"), http.StatusUnauthorized)
			}
			if a := b.want(b.ask("POST", "/agent/suspend", form), http.StatusUnauthorized); !strings.Contains(a.body, "nothing was changed") {
				t.Errorf("the page does not say so: %s", a.body)
			}
		})
	}
}

// A cookie that somebody kept is worth nothing after its session was ended.
func TestSigningOutEndsTheSessionItself(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	kept, other := b.cookie, r.browser().signIn()
	b.want(b.do("/sign-out"), http.StatusSeeOther)
	if b.cookie != nil {
		t.Error("the browser still has the cookie")
	}
	b.cookie = kept
	b.want(b.get("/agents"), http.StatusSeeOther)
	other.want(other.get("/agents"), http.StatusOK)
	var seen []string
	for _, e := range r.gw.Audit(t) {
		seen = append(seen, e.Name)
	}
	if got := strings.Join(seen, " "); !strings.Contains(got, "admin_signed_in admin_signed_in admin_signed_out") {
		t.Errorf("the trail has %s", got)
	}
}

func TestLookingAtNumbersDoesNotKeepASession(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	for range 12 {
		r.gw.Clock.Advance(5 * time.Minute)
		a := b.get("/live")
		if len(a.header.Values("Set-Cookie")) > 0 {
			t.Fatal("a page that nobody looks at keeps its session")
		}
	}
	b.want(b.get("/live"), http.StatusUnauthorized)
}

func TestSessionsOutliveARestart(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	r.gw.Restart(t)
	r.open()
	b.want(b.get("/agents"), http.StatusOK)
}

// Two gateways on a database are one to their operator: what ends at one has
// ended at the other.
func TestSessionsHoldAtEveryReplica(t *testing.T) {
	for name, database := range map[string]func(*testing.T) gatewaytest.Option{
		"SQLite": func(t *testing.T) gatewaytest.Option {
			path := "sqlite:" + filepath.Join(t.TempDir(), "shared.db")
			return gatewaytest.Config(func(c *embeddedgateway.Config) { c.Database, c.ServerKey = path, nil })
		},
		"PostgreSQL": func(t *testing.T) gatewaytest.Option { return gatewaytest.PostgreSQL(pgtest.URL(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			shared := database(t)
			r := newRig(t, nil, shared)
			replica := newRig(t, nil, shared, gatewaytest.At(r.gw.Clock.Now()))
			here := r.browser().signIn()
			there := replica.browser()
			there.cookie = &http.Cookie{Name: "enlist-admin-" + replica.url[strings.LastIndex(replica.url, ":")+1:], Value: here.cookie.Value}
			there.want(there.get("/agents"), http.StatusOK)
			here.want(here.do("/sign-out"), http.StatusSeeOther)
			there.want(there.get("/agents"), http.StatusSeeOther)

			// So do wrong tokens: each replica is not another ten.
			for i := range 10 {
				b := []*browser{r.browser(), replica.browser()}[i%2]
				b.header["Authorization"] = "Bearer wrong"
				b.want(b.get("/api/v1/agents"), http.StatusUnauthorized)
			}
			for _, b := range []*browser{r.browser(), replica.browser()} {
				b.header["Authorization"] = "Bearer wrong"
				b.want(b.get("/api/v1/agents"), http.StatusTooManyRequests)
			}
		})
	}
}

// Whatever session a browser has when somebody signs in there, the one that they
// then have is another: nobody can have put it there.
func TestASessionCannotBeFixed(t *testing.T) {
	r := newRig(t, nil)
	attacker := r.browser().signIn()
	victim := r.browser()
	victim.cookie = attacker.cookie
	victim.signIn()
	if victim.cookie.Value == attacker.cookie.Value {
		t.Fatal("the victim goes on in the attacker's session")
	}
	attacker.want(attacker.get("/agents"), http.StatusSeeOther)
	victim.want(victim.get("/agents"), http.StatusOK)

	made := r.browser()
	made.cookie = &http.Cookie{Name: attacker.cookie.Name, Value: strings.Repeat("A", 43)}
	made.want(made.get("/agents"), http.StatusSeeOther)
	made.signIn()
	if made.cookie.Value == strings.Repeat("A", 43) {
		t.Error("a session that somebody made up is good now")
	}
}

// Cookies of one name do not know their port: another server of this machine can
// put one beside ours, and does not sign anybody out by that.
func TestAnotherCookieOfTheSameName(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser().signIn()
	b.header["Cookie"] = b.cookie.Name + "=" + strings.Repeat("B", 43) + "; " + b.cookie.Name + "=" + b.cookie.Value
	b.want(b.get("/agents"), http.StatusOK)
}

func TestSigningInLeadsOn(t *testing.T) {
	r := newRig(t, nil)
	for next, want := range map[string]string{
		"/agents?q=scout": "/agents?q=scout", "/agent?protocol=lona&agent=a": "/agent?protocol=lona&agent=a", "": "/",
		"https://evil.example.com/": "/", "//evil.example.com/agents": "/", "/\\evil.example.com": "/", "\\\\evil.example.com": "/",
		"javascript:alert(1)": "/", "/sign-out": "/", "/sign-in": "/", "/live": "/", "/nowhere": "/", "agents": "/", "/agents\r\nX: y": "/",
		"http:///agents": "/", "/agents/../..//evil.example.com": "/",
	} {
		b := r.browser()
		a := b.want(b.ask("POST", "/sign-in", url.Values{"token": {operatorToken}, "next": {next}}), http.StatusSeeOther)
		if got := a.header.Get("Location"); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
	b := r.browser()
	a := b.want(b.get("/agents?q=scout"), http.StatusSeeOther)
	if got := a.header.Get("Location"); got != "/sign-in?next=%2Fagents%3Fq%3Dscout" {
		t.Errorf("to sign in: got %q", got)
	}
	if a = b.want(b.get(a.header.Get("Location")), http.StatusOK); !strings.Contains(a.body, `value="/agents?q=scout"`) {
		t.Errorf("the page has lost where it leads: %s", a.body)
	}
}

func TestSigningInNeedsTheToken(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	if a := b.want(b.ask("POST", "/sign-in", url.Values{"token": {"not the token at all"}}), http.StatusUnauthorized); b.cookie != nil || strings.Contains(a.body, "not the token at all") {
		t.Errorf("a wrong token: %s", a.body)
	}
	b.want(b.ask("POST", "/sign-in", url.Values{"token": {""}}), http.StatusBadRequest)
	b.want(b.ask("POST", "/sign-in?token="+operatorToken, url.Values{}), http.StatusBadRequest) // addresses are written down everywhere
	b.want(b.ask("POST", "/sign-in", url.Values{"token": {" " + operatorToken + "\n"}}), http.StatusSeeOther)
}

// TestNothingOfTheTokenIsKept: neither it nor a session is in the database.
func TestNothingOfTheTokenIsKept(t *testing.T) {
	r := newRig(t, nil, gatewaytest.SQLite())
	b := r.browser().signIn()
	for _, secret := range []string{operatorToken, b.cookie.Value} {
		r.gw.Issued(secret)
	}
	if found := inDatabase(t, r.gw.Database, operatorToken, b.cookie.Value); found != "" {
		t.Errorf("the database holds %s", found)
	}
}

func TestWhatWasDoneCannotBeMadeUp(t *testing.T) {
	r := newRig(t, nil)
	r.lona("my-agent", "Mine", true)
	b := r.browser().signIn()
	page := agentURL("lona", "my-agent")
	if a := b.get(page + "&said=suspended&by=AAAA"); strings.Contains(a.body, `role="status"`) {
		t.Error("a link makes the page say that something was done")
	}
	a := b.want(b.do("/agent/suspend", "protocol", "lona", "agent", "my-agent"), http.StatusSeeOther)
	if shown := b.get(a.header.Get("Location")); !strings.Contains(shown.body, "The agent is suspended.") {
		t.Errorf("it does not say what was done: %s", shown.body)
	}
	other := r.browser().signIn()
	if shown := other.get(a.header.Get("Location")); strings.Contains(shown.body, "The agent is suspended.") {
		t.Error("another session says that it was done there")
	}
}

// inDatabase returns which of some texts a database holds, or "".
func inDatabase(t *testing.T, path string, texts ...string) string {
	t.Helper()
	for _, name := range []string{path, path + "-wal"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if bytes.Contains(data, []byte(text)) {
				return text
			}
		}
	}
	return ""
}
