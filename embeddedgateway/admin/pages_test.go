package admin_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// nasty is what somebody writes who wants a page to do something else.
const nasty = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}`

// wantTame fails if a page holds an element or an attribute that nobody of us
// wrote there, or what would turn its text around.
func wantTame(t *testing.T, path, body string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var scripts int
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if n.Data == "script" {
			scripts++
		}
		if n.Data == "img" || n.Data == "style" || n.Data == "iframe" || n.Data == "base" {
			t.Errorf("%s has an element %s", path, n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc" || strings.HasPrefix(a.Val, "javascript:") {
				t.Errorf("%s has an attribute %s=%q", path, a.Key, a.Val)
			}
			if (a.Key == "src" || a.Key == "href" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") || strings.HasPrefix(a.Val, "//") {
				t.Errorf("%s leads to %q", path, a.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%s has %d scripts, want its own one", path, scripts)
	}
	if strings.ContainsAny(body, "\u202e\u202d\u2066\u200f\x1b\x00") {
		t.Errorf("%s holds characters that turn its text around", path)
	}
}

func TestWhatAgentsWriteStaysText(t *testing.T) {
	r := newRig(t, func(c *admin.Config) { c.PublicURL = "http://127.0.0.1/" })
	name := "agent " + nasty + "\u202egnp.exe"
	r.lona("nasty-one", name[:min(len(name), 100)], true)
	lumina(r)
	r.lithtrix("plain", `o"'<b>@example.com`)
	r.fluxra("mailed-bot", "bot@example.com")
	b := r.browser().signIn()
	if a := b.get("/agents"); !strings.Contains(a.body, "&lt;script&gt;") {
		t.Fatalf("the name is not there at all: %s", a.body)
	}
	q := func(pairs ...string) string {
		values := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			values.Set(pairs[i], pairs[i+1])
		}
		return values.Encode()
	}
	one := q("protocol", "lona", "agent", "nasty-one")
	paths := []string{
		"/", "/agents", "/agent?" + one, "/agent/suspend?" + one, "/agent/delete?" + one, "/agent/resume?" + one,
		"/key/revoke?" + one + "&key=" + r.keyOf("lona", "nasty-one"), "/events", "/invites", "/outbox",
		agentURL("lithtrix", `plain/o"'<b>@example.com`),
		"/agents?" + q("q", nasty), "/agents?" + q("protocol", nasty), "/agents?" + q("state", nasty), "/agents?" + q("after", nasty),
		"/events?" + q("agent", nasty, "protocol", nasty), "/events?" + q("before", nasty), "/agent?" + q("agent", nasty, "protocol", nasty),
		"/key/revoke?" + one + "&" + q("key", nasty), "/nowhere/" + url.PathEscape(nasty), "/agents?" + q("said", nasty, "by", nasty),
		"/invites?" + q("after", nasty), "/agents?q=%ff%00%e2%80%ae",
	}
	for _, path := range paths {
		wantTame(t, path, b.get(path).body)
	}
	out := r.browser()
	wantTame(t, "/sign-in", out.get("/sign-in?"+q("next", nasty)).body)
	wantTame(t, "/sign-in", out.ask("POST", "/sign-in", url.Values{"token": {nasty}, "next": {nasty}}).body)
}

// lumina asks for something at Lumina that is refused, so that the trail has more
// than what went well.
func lumina(r *rig) {
	r.call("/api/v1/agent/onboard", map[string]any{"address": nasty, "label": nasty})
}

func TestAgentsArePagedAndSearched(t *testing.T) {
	r := newRig(t, nil)
	for i := range 53 {
		r.lithtrix("scout-"+string(rune('a'+i/26))+string(rune('a'+i%26)), "me@example.com")
	}
	r.lona("other", "Écluse", true)
	b := r.browser().signIn()
	names := regexp.MustCompile(`class="name"`)
	first := b.get("/agents")
	if got := len(names.FindAllString(first.body, -1)); got != 50 || strings.Contains(first.body, "First page") {
		t.Errorf("the first page has %d agents", got)
	}
	next := regexp.MustCompile(`href="(/agents\?after=[^"]+)"[^>]*>Next page`).FindStringSubmatch(first.body)
	if next == nil {
		t.Fatal("there is no next page")
	}
	second := b.get(strings.ReplaceAll(next[1], "&amp;", "&"))
	if got := len(names.FindAllString(second.body, -1)); got != 4 || strings.Contains(second.body, "Next page") || !strings.Contains(second.body, "First page") {
		t.Errorf("the second page has %d agents", got)
	}
	for query, want := range map[string]int{
		"q=scout-a": 26, "q=SCOUT-AB": 1, "q=%C3%A9clu": 1, "q=other": 1, "q=nobody": 0, "protocol=lona": 1, "protocol=lithtrix&q=other": 0,
		"state=suspended": 0, "q=me%40example.com&protocol=lona": 0,
	} {
		a := b.want(b.get("/agents?"+query), http.StatusOK)
		if got := len(names.FindAllString(a.body, -1)); got != want {
			t.Errorf("%s finds %d, want %d", query, got, want)
		}
		if want == 0 && !strings.Contains(a.body, "No agent is like that") {
			t.Errorf("%s: nothing is said of it", query)
		}
	}
	b.want(b.get("/agents?after=nonsense"), http.StatusBadRequest)
	b.want(b.get("/agents?state=nonsense"), http.StatusBadRequest)
	b.want(b.get("/agents?q="+strings.Repeat("x", 201)), http.StatusBadRequest)
	b.want(b.get("/events?before=x"), http.StatusBadRequest)
}

func TestWhatTheOperatorDoes(t *testing.T) {
	r := newRig(t, nil)
	agent, key := r.lithtrix("scout", "me@example.com")
	b := r.browser().signIn()
	works := func() bool { return r.call("/v1/me", nil, "Authorization", "Bearer "+key)["status"] == http.StatusOK }
	if !works() {
		t.Fatal("the key does not work")
	}
	of := []string{"protocol", "lithtrix", "agent", agent}
	keyID := r.keyOf("lithtrix", agent)
	for _, path := range []string{"/agent/suspend", "/agent/delete", "/key/revoke"} { // asking does nothing
		b.want(b.get(path+"?"+url.Values{"protocol": {"lithtrix"}, "agent": {agent}, "key": {keyID}}.Encode()), http.StatusOK)
	}
	if !works() {
		t.Fatal("a question did what it asked")
	}
	b.want(b.do("/key/revoke", append(of, "key", keyID)...), http.StatusSeeOther)
	if works() {
		t.Error("the key is revoked and works")
	}
	a := b.want(b.do("/key/revoke", append(of, "key", keyID)...), http.StatusSeeOther)
	if a = b.get(a.header.Get("Location")); !strings.Contains(a.body, "had ended already") {
		t.Errorf("the second time: %s", a.body)
	}
	b.want(b.do("/key/revoke", append(of, "key", "nonsense")...), http.StatusNotFound)
	b.want(b.do("/agent/suspend", of...), http.StatusSeeOther)
	if a = b.get("/agents?state=suspended"); !strings.Contains(a.body, "scout") {
		t.Error("it is not among the suspended")
	}
	b.want(b.do("/agent/resume", of...), http.StatusSeeOther)
	b.want(b.do("/agent/delete", of...), http.StatusSeeOther)
	b.want(b.get(agentURL("lithtrix", agent)), http.StatusNotFound)
	b.want(b.do("/agent/delete", of...), http.StatusNotFound)
	seen := map[string]string{}
	for _, e := range r.gw.Audit(t) {
		seen[e.Name] = e.Detail
	}
	for _, name := range []string{"key_revoked", "agent_suspended", "agent_resumed", "agent_deleted"} {
		if seen[name] != "by the page, from 127.0.0.1" {
			t.Errorf("%s stands in the trail with %q", name, seen[name])
		}
	}
}

func TestLettersAreReadOneByOneAndTheTrailSaysSo(t *testing.T) {
	r := newRig(t, nil)
	r.fluxra("weather-bot", "bot@example.com")
	secret := regexp.MustCompile(`evt_[a-z0-9]+`).FindString(r.gw.Outbox(t)[0].Text)
	if secret == "" {
		t.Fatal("the letter has no link")
	}
	b := r.browser().signIn()
	list := b.want(b.get("/outbox"), http.StatusOK)
	if strings.Contains(list.body, secret) || !strings.Contains(list.body, "bot@example.com") {
		t.Errorf("the list shows what is in a letter, or not whose it is: %s", list.body)
	}
	name := regexp.MustCompile(`name="letter" value="([^"]+)"`).FindStringSubmatch(list.body)[1]
	b.want(b.get("/outbox/read?letter="+name), http.StatusMethodNotAllowed)
	if a := b.want(b.do("/outbox/read", "letter", name), http.StatusOK); !strings.Contains(a.body, secret) {
		t.Errorf("the letter is not shown: %s", a.body)
	}
	b.want(b.do("/outbox/read", "letter", "nonsense"), http.StatusNotFound)
	n := 0
	for _, e := range r.gw.Audit(t) {
		if e.Name == "outbox_read" && e.Detail == "letter "+name && e.IP == "127.0.0.1" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the trail notes %d readings, want 1", n)
	}
}

func TestLiveNumbersAreThoseOfThePage(t *testing.T) {
	r := newRig(t, nil)
	r.lithtrix("scout", "me@example.com")
	b := r.browser().signIn()
	page, live := b.get("/").body, b.get("/live")
	if live.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v", live.header)
	}
	ids := regexp.MustCompile(`id="((?:n|note|total|top|desc|bars|m\d+)-[a-z]+)"`).FindAllStringSubmatch(page, -1)
	if len(ids) < 60*4+10 {
		t.Fatalf("the page has %d numbers", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(live.body, `"`+id[1]+`":`) {
			t.Errorf("%s is not live", id[1])
		}
	}
	if n := strings.Count(live.body, `":"`); n != len(ids)+1 {
		t.Errorf("%d numbers are live, the page has %d", n, len(ids))
	}
}

func TestTimesAreRelativeAndExact(t *testing.T) {
	r := newRig(t, nil)
	r.lona("my-agent", "Mine", true)
	made := r.gw.Clock.Now()
	r.gw.Clock.Advance(3 * time.Minute)
	b := r.browser().signIn()
	want := `<time datetime="` + made.UTC().Format(time.RFC3339) + `" title="` + made.UTC().Format("2 January 2006, 15:04:05 UTC") + `">3 minutes ago</time>`
	if a := b.get("/agents"); !strings.Contains(a.body, want) {
		t.Errorf("want %s in %s", want, a.body)
	}
	if a := b.get(agentURL("lona", "my-agent")); !strings.Contains(a.body, ">in 4 weeks</time>") {
		t.Errorf("it does not say when the key ends: %s", a.body)
	}
}

func TestEmptyPagesSayWhatToDo(t *testing.T) {
	b := newRig(t, nil).browser().signIn()
	for path, want := range map[string]string{
		"/": "enlist call lona_register_agent", "/agents": "No agent has registered yet", "/invites": "No invite is out", "/outbox": "No mail waits",
		"/events?protocol=lumina": "Show all events", "/nowhere": "Go to the overview",
	} {
		if a := b.get(path); !strings.Contains(a.body, want) {
			t.Errorf("%s does not say %q: %s", path, want, a.body)
		}
	}
}

// TestAnAgentWithoutANameIsNamedOnce: its id is not there twice, one below the other.
func TestAnAgentWithoutANameIsNamedOnce(t *testing.T) {
	r := newRig(t, nil)
	w, err := eip191.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at := r.gw.Clock.Now().Unix()
	signature, err := w.Sign(wire.LuminaMessage(w.Address(), at))
	if err != nil {
		t.Fatal(err)
	}
	r.call(wire.LuminaOnboardPath, map[string]any{"walletAddress": w.Address(), "signature": signature, "timestamp": at})
	r.lithtrix("scout", "me@example.com")
	page := r.browser().signIn().get("/agents").body
	shown := func(id string) int { return strings.Count(page, "<bdi>"+id+"</bdi>") }
	if n := shown(strings.ToLower(w.Address())); n != 1 {
		t.Errorf("the wallet is shown %d times", n)
	}
	if shown("scout") != 1 || shown("scout/me@example.com") != 1 {
		t.Error("an agent with a name is not shown with its id")
	}
}
