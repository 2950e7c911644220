package admin_test

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/chromium"
)

// pagesOf are all the pages that there are, by names for pictures.
func (r *rig) pagesOf(agent string) map[string]string {
	q := url.Values{"protocol": {"lithtrix"}, "agent": {agent}}.Encode()
	return map[string]string{
		"overview": "/", "agents": "/agents", "agents-none": "/agents?q=nobody", "agent": "/agent?" + q,
		"suspend": "/agent/suspend?" + q, "resume": "/agent/resume?" + q, "delete": "/agent/delete?" + q,
		"revoke":  "/key/revoke?" + q + "&key=" + r.keyOf("lithtrix", agent),
		"invites": "/invites", "outbox": "/outbox", "events": "/events",
	}
}

func TestPagesOnEveryScreen(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	agent := r.populate()
	for name, s := range screens() {
		t.Run(name, func(t *testing.T) {
			p := r.tab(chrome, t, s)
			p.open("/sign-in")
			p.awaitTitle("Sign in")
			p.wantGood(s)
			p.shoot(name + "-sign-in")
			p.signIn()
			for page, path := range r.pagesOf(agent) {
				p.open(path)
				p.wantGood(s)
				p.shoot(name + "-" + page)
			}
		})
	}
}

// TestAnOperatorWithoutAMouse goes through a day of the operator's by the keys
// alone, at a desk and on a phone.
func TestAnOperatorWithoutAMouse(t *testing.T) {
	chrome := chromium.Start(t)
	for _, name := range []string{"desktop", "small-phone"} {
		t.Run(name, func(t *testing.T) {
			s := screens()[name]
			r := newRig(t, nil)
			agent, key := r.lithtrix("harbour-pilot", "harbour@example.com")
			r.lithtrix("weather-scout", "me@example.com")
			works := func() bool { return r.call("/v1/me", nil, "Authorization", "Bearer "+key)["status"] == http.StatusOK }
			p := r.tab(chrome, t, s)

			// A wrong token first; the field has the focus again.
			p.open("/agents?q=harbour")
			p.awaitTitle("Sign in")
			p.press("something else" + kb.Enter)
			p.await(`document.querySelector('[role=alert]')?.textContent === 'This is not the token of this gateway.'`)
			if said := p.Said(); len(said) != 1 || !strings.Contains(said[0], "401") {
				t.Errorf("on the console: %q", said)
			}
			p.wantGood(s)
			p.press(operatorToken + kb.Enter)
			p.awaitTitle("Agents") // where it was going
			if got := chromium.Eval[string](p.Tab, `document.getElementById('q').value`); got != "harbour" {
				t.Errorf("it searched for %q", got)
			}

			// The first thing that Tab leads to goes past the navigation.
			p.open("/")
			p.tabTo("Skip to the content")
			p.press(kb.Enter)
			p.await(`document.activeElement.id === 'main'`)

			p.tabTo("Agents")
			p.press(kb.Enter)
			p.awaitTitle("Agents")
			p.tabTo("Name, id or owner begins with; or a whole email")
			p.press("HARB" + kb.Enter)
			p.await(`location.search.includes('q=HARB') && document.querySelectorAll('.name').length === 1`)
			p.tabTo("harbour-pilot")
			p.press(kb.Enter)
			p.awaitTitle("harbour-pilot")

			// Thinking twice.
			revoke := "Revoke… key " + r.keyOf("lithtrix", agent)
			p.tabTo(revoke)
			p.press(kb.Enter)
			p.awaitTitle("Revoke a key of harbour-pilot")
			p.tabTo("Leave it as it is")
			p.press(kb.Enter)
			p.awaitTitle("harbour-pilot")
			if !works() {
				t.Fatal("the key was revoked by a question")
			}

			p.tabTo(revoke)
			p.press(kb.Enter)
			p.awaitTitle("Revoke a key of harbour-pilot")
			p.tabTo("Revoke the key")
			p.press(kb.Enter)
			p.await(`document.querySelector('[role=status]')?.textContent.startsWith('The key is revoked.')`)
			if works() {
				t.Error("the key works after it was revoked")
			}
			p.wantGood(s)

			p.tabTo("Suspend…")
			p.press(kb.Enter)
			p.awaitTitle("Suspend harbour-pilot")
			p.tabTo("Suspend the agent")
			p.press(kb.Enter)
			p.await(`document.querySelector('[role=status]')?.textContent.startsWith('The agent is suspended.')`)
			p.wantGood(s)
			p.shoot(name + "-suspended")
			p.tabTo("Delete…")
			p.press(kb.Enter)
			p.awaitTitle("Delete harbour-pilot")
			p.tabTo("Delete the agent")
			p.press(kb.Enter)
			p.await(`document.querySelector('[role=status]')?.textContent.startsWith('The agent is deleted.')`)

			p.tabTo("Sign out")
			p.press(kb.Enter)
			p.awaitTitle("Sign in")
			p.open("/agents")
			p.awaitTitle("Sign in")
		})
	}
}

func TestLettersInABrowser(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	r.fluxra("weather-bot", "bot@example.com")
	for name, s := range screens() {
		t.Run(name, func(t *testing.T) {
			p := r.tab(chrome, t, s)
			p.signIn()
			p.open("/outbox")
			p.tabTo("Read the letter to bot@example.com")
			p.press(kb.Enter)
			p.awaitTitle("A letter")
			if text := chromium.Eval[string](p.Tab, "document.body.innerText"); !strings.Contains(text, "/api/auth/verify-email?token=evt_") {
				t.Errorf("the letter is not shown: %s", text)
			}
			p.wantGood(s)
			p.shoot(name + "-letter")
		})
	}
}

func TestNumbersAreLive(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	p := r.tab(chrome, t, screens()["desktop"])
	p.signIn()
	before := chromium.Eval[string](p.Tab, `document.getElementById('bars-registrations').getAttribute('d')`)
	r.lithtrix("scout", "me@example.com")
	r.gw.Clock.Advance(30 * time.Second) // what there is in all is not counted all the time
	p.await(`document.getElementById('n-agents').textContent === '1' && document.getElementById('total-registrations').textContent === '1'`)
	if after := chromium.Eval[string](p.Tab, `document.getElementById('bars-registrations').getAttribute('d')`); after == before || after == "" {
		t.Errorf("the chart still is %q", after)
	}

	// Who reads it can have it stand still.
	p.tabTo("Live: pause")
	p.press(kb.Enter)
	p.await(`document.getElementById('live').textContent === 'Paused: go on' && document.getElementById('live').getAttribute('aria-pressed') === 'false'`)
	r.lithtrix("scout-two", "me@example.com")
	if got := chromium.Eval[string](p.Tab, `document.getElementById('n-agents').textContent`); got != "1" {
		t.Errorf("paused, it shows %s agents", got)
	}
	r.gw.Clock.Advance(30 * time.Second)
	p.press(kb.Enter)
	p.await(`document.getElementById('n-agents').textContent === '2'`)

	// Its session ends under it.
	r.setToken("enlist_admin_another_token_of_a_test_0123456789")
	p.await(`document.getElementById('live').textContent === 'The session has ended: sign in again'`)
	if said := p.Said(); len(said) != 1 || !strings.Contains(said[0], "401") {
		t.Errorf("on the console: %q", said)
	}
	p.press(kb.Enter)
	p.awaitTitle("Sign in")
}

// TestPagesWorkWithoutAScript: what can be done can be done without it, and what
// only it does is not offered.
func TestPagesWorkWithoutAScript(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	agent, _ := r.lithtrix("harbour-pilot", "harbour@example.com")
	p := r.tab(chrome, t, screens()["desktop"])
	p.Do(chromedp.Func(func(ctx context.Context, to *chromedp.Target) error {
		_, err := cdp.Call(ctx, to, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	p.open("/")
	p.Do(chromedp.SendKeys(chromedp.CSS("#token"), operatorToken+kb.Enter), chromedp.WaitVisible(chromedp.CSS("#minutes")))
	if n := chromium.Eval[int](p.Tab, `document.querySelectorAll('#live:not([hidden]), .copy:not([hidden])').length`); n != 0 {
		t.Errorf("%d buttons are there that do nothing", n)
	}
	p.open("/agent/suspend?" + url.Values{"protocol": {"lithtrix"}, "agent": {agent}}.Encode())
	p.Do(chromedp.Click(chromedp.CSS("button.main")), chromedp.WaitVisible(chromedp.CSS("p.said")))
}

// What the tests above rely on is that the browser tells them of a bad page.
func TestTheBrowserTellsOfABadPage(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	bad := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_, _ = w.Write([]byte(`<meta name="viewport" content="width=device-width"><title>Bad</title><h2>Bad</h2>
<p style="width:900px;font-size:8px;color:#ccc;background:#fff">wide, small and pale and so long that it cannot possibly fit into what a phone has to offer to whoever holds it in their hand</p><button tabindex="3"></button><script>console.log("x")</script>`))
	})
	var h http.Handler = bad
	r.page.Store(&h)
	p := r.tab(chrome, t, screens()["phone"])
	p.open("/")
	l := chromium.Eval[look](p.Tab, measure)
	if l.Wide < 900 || l.Smallest != 8 || len(l.Weak) != 1 || len(l.Cut) != 1 || len(l.Unnamed) != 1 || l.Positive != 1 || l.Headings != "h2" {
		t.Errorf("got %+v", l)
	}
	if said := p.Said(); !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "Content Security Policy") }) {
		t.Errorf("on the console: %q", said)
	}
}
