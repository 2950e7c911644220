package admin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/chromium"
)

// away has a tab forget what it asked for elsewhere, in a test in which it does.
func (p *tab) away() {
	p.Said()
	p.Requests()
}

// TestABrowserRunsNothingThatAgentsWrote opens every page about agents whose names,
// ids, owners and letters would run a script if they were HTML. Whatever runs, asks
// for something or is stopped by the policy is found by the tab.
func TestABrowserRunsNothingThatAgentsWrote(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	const run = `"'></a><img src=/x onerror=window.ran=1><script>window.ran=2</script><svg onload=window.ran=3>`
	r.lona("hostile", run, true)
	_, _ = r.lithtrix("plain", `o"'<svg/onload=window.ran=4>@example.com`)
	r.fluxra("mailed-bot", "bot@example.com")
	r.call("/api/v1/agent/onboard", map[string]any{"address": run, "label": run}, "User-Agent", run)
	r.call("/v1/me", nil, "Authorization", "Bearer "+run, "User-Agent", run, "X-Request-Id", run)
	p := r.tab(chrome, t, screens()["desktop"])
	p.signIn()
	about := url.Values{"protocol": {"lona"}, "agent": {"hostile"}}.Encode()
	for _, path := range []string{
		"/", "/agents", "/agent?" + about, "/agent/suspend?" + about, "/agent/delete?" + about, "/invites", "/outbox", "/events",
		"/agents?q=" + url.QueryEscape(run), "/events?agent=" + url.QueryEscape(run), agentURL("lithtrix", `plain/o"'<svg/onload=window.ran=4>@example.com`),
		"/agents?q=x&said=" + url.QueryEscape(run) + "&by=" + url.QueryEscape(run),
	} {
		p.open(path)
		p.await("document.readyState === 'complete'")
		if ran := chromium.Eval[string](p.Tab, `String(window.ran)`); ran != "undefined" {
			t.Errorf("%s: %s was run", path, ran)
		}
		if got := chromium.Eval[int](p.Tab, `document.querySelectorAll('img, [onload], [onerror], [onfocus], svg svg').length`); got != 0 {
			t.Errorf("%s: %d elements are not of the page", path, got)
		}
	}
	p.open("/agents")
	p.awaitTitle("Agents")
	if !strings.Contains(chromium.Eval[string](p.Tab, `document.body.innerText`), "onerror=window.ran=1") {
		t.Error("what the agents wrote is nowhere")
	}
}

// TestAnotherServerOfTheSameHostDoesNothing: its pages are of the same site as the
// operator's, whose session a browser sends with what they ask for, and gets no
// further by that.
func TestAnotherServerOfTheSameHostDoesNothing(t *testing.T) {
	chrome := chromium.Start(t)
	r := newRig(t, nil)
	agent, key := r.lithtrix("scout", "me@example.com")
	form := url.Values{"protocol": {"lithtrix"}, "agent": {agent}}
	var mu sync.Mutex
	var cookies []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		cookies = append(cookies, req.Header.Get("Cookie"))
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>other</title><form method=post action="%[1]s/agent/suspend">
<input name=protocol value=lithtrix><input name=agent value="%[2]s"><input name=csrf value=guess></form><script>
const page = %[1]q, form = %[3]q
const tell = what => what().catch(() => 'refused')
window.attack = async () => [
	await tell(async () => (await fetch(page + '/api/v1/agents', {credentials: 'include'})).text()),
	await tell(async () => (await fetch(page + '/live', {credentials: 'include', mode: 'no-cors'})).text()),
	await tell(async () => (await fetch(page + '/agent/suspend', {method: 'POST', credentials: 'include', mode: 'no-cors', body: new URLSearchParams(form)})).text()),
	await tell(async () => (await fetch(page + '/agents', {method: 'DELETE', credentials: 'include', headers: {'X-CSRF-Token': 'x'}})).text()),
	await tell(() => new Promise((yes, no) => { const s = document.createElement('script'); s.src = page + '/page.js'; s.onload = () => yes('loaded'); s.onerror = no; document.body.append(s) })),
	await tell(() => new Promise((yes, no) => { const s = document.createElement('link'); s.rel = 'stylesheet'; s.href = page + '/style.css'; s.onload = () => yes('loaded'); s.onerror = no; document.head.append(s) })),
]
</script>`, r.url, agent, form.Encode())
	}))
	defer other.Close()
	p := r.tab(chrome, t, screens()["desktop"])
	defer p.away()
	p.signIn()
	p.url = other.URL
	p.open("/")
	p.await("document.title === 'other'")
	_ = chromium.Eval[bool](p.Tab, `attack().then(list => { window.learned = list.join('|') }) && true`)
	p.await(`typeof window.learned === 'string'`)
	got := chromium.Eval[string](p.Tab, `window.learned`)
	if want := strings.Repeat("refused|", 6); got+"|" != want {
		t.Errorf("the other server's page learns %q", got)
	}
	_ = chromium.Eval[bool](p.Tab, `document.forms[0].submit() === undefined`)
	p.await("location.pathname === '/agent/suspend' && document.readyState === 'complete'")
	if said := chromium.Eval[string](p.Tab, `document.body.innerText`); !strings.Contains(said, "another site") {
		t.Errorf("a form of another server: %q", said)
	}
	if r.call("/v1/me", nil, "Authorization", "Bearer "+key)["status"] != http.StatusOK {
		t.Error("another server has suspended an agent")
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(strings.Join(cookies, " "), "enlist-admin") {
		t.Error("the browser sends no session to another port: the manual warns of what does not happen")
	}
}
