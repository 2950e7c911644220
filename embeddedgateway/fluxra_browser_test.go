package embeddedgateway_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/chromium"
)

// screens are a phone and a desktop, by day and by night.
func screens() map[string]chromium.Screen {
	return map[string]chromium.Screen{
		"phone": {Width: 390, Height: 844}, "phone at night": {Width: 390, Height: 844, Dark: true},
		"small phone": {Width: 320, Height: 568},
		"desktop":     {Width: 1280, Height: 800}, "desktop at night": {Width: 1280, Height: 800, Dark: true},
	}
}

// look is what a browser makes of a page.
type look struct {
	Title    string
	Text     string
	Wide     float64 // what the page takes, sideways
	Room     float64 // what there is
	Smallest float64 // size of letters, in CSS pixels
	Contrast float64 // the weakest of any text with its ground (WCAG 2)
	Ground   string

	requests []string // everything that the page asked for
	said     []string // on the console: mistakes, and what its policy stopped
}

// measure reads all of look off the page but what happened on the way to it.
const measure = `(() => {
  const light = c => { const [r, g, b] = c.match(/[\d.]+/g).slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const ground = getComputedStyle(document.body).backgroundColor
  let smallest = Infinity, contrast = Infinity
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    if (!texts.currentNode.data.trim()) continue
    const style = getComputedStyle(texts.currentNode.parentElement)
    const [low, high] = [light(style.color), light(ground)].sort((a, b) => a - b)
    smallest = Math.min(smallest, parseFloat(style.fontSize)), contrast = Math.min(contrast, (high + 0.05) / (low + 0.05))
  }
  return { Title: document.title, Text: document.body.innerText, Wide: document.documentElement.scrollWidth, Room: document.documentElement.clientWidth,
    Smallest: smallest, Contrast: contrast, Ground: ground }
})()`

// open shows a page on a screen, in a tab of its own.
func open(chrome context.Context, t *testing.T, url string, s chromium.Screen) look {
	t.Helper()
	tab := chromium.Open(chrome, t, s)
	tab.Do(chromedp.Navigate(url))
	seen := chromium.Eval[look](tab, measure)
	seen.requests, seen.said = tab.Requests(), tab.Said()
	return seen
}

// wantReadable checks a page as a person on this chromium.Screen sees it.
func (l look) wantReadable(t *testing.T, s chromium.Screen, url string) {
	t.Helper()
	if !slices.Equal(l.requests, []string{url}) {
		t.Errorf("the page asked for %d things, want itself alone", len(l.requests))
	}
	if l.Wide > l.Room || l.Room > float64(s.Width) {
		t.Errorf("the page is %v wide, there is room for %v of %d", l.Wide, l.Room, s.Width)
	}
	if l.Smallest < 12 || l.Contrast < 4.5 {
		t.Errorf("the smallest letters have %v pixels and the weakest contrast is %.1f: hard to read", l.Smallest, l.Contrast)
	}
	if dark := !strings.HasPrefix(l.Ground, "rgb(255"); dark != s.Dark {
		t.Errorf("the ground is %s; dark: want %v", l.Ground, s.Dark)
	}
	if !strings.Contains(l.Text, l.Title) || l.Title == "" {
		t.Errorf("got the title %q, which the text does not show", l.Title)
	}
}

func TestFluxraPagesInABrowser(t *testing.T) {
	chrome := chromium.Start(t)
	// The browser and the gateway go by the real clock.
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, fluxBot)
	link := gw.URL + "/api/auth/verify-email?token=" + lastToken(t, gw)
	first := open(chrome, t, link, screens()["phone"])
	first.wantReadable(t, screens()["phone"], link)
	if first.Title != "Email verified" || !strings.Contains(first.Text, agent.id) || len(first.said) > 0 {
		t.Errorf("got %s, and on the console %q", first.Text, first.said)
	}
	for name, s := range screens() {
		t.Run(name, func(t *testing.T) {
			used := open(chrome, t, link, s)
			used.wantReadable(t, s, link)
			// Chromium itself notes the status; nothing else may be there.
			said := slices.DeleteFunc(used.said, func(s string) bool {
				return s == "network: Failed to load resource: the server responded with a status of 401 (Unauthorized)"
			})
			if used.Title != "This email address was not verified" || len(said) > 0 {
				t.Errorf("got %s, and on the console %q", used.Text, said)
			}
		})
	}
}

func TestFluxraLettersInABrowser(t *testing.T) {
	chrome := chromium.Start(t)
	gw := gatewaytest.New(t)
	fluxVerified(t, gw, "a.rather.long.address.of.somebody@a.rather.long.domain.example.com")
	verification := lastLetter(t, gw)
	askCode(t, gw, "a.rather.long.address.of.somebody@a.rather.long.domain.example.com")
	code := lastLetter(t, gw)
	for what, html := range map[string]string{"verification": verification.HTML, "code": code.HTML} {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			// What a letter would fetch shows as a breach of this. Without it the
			// browser asks for the icon of the site that stands for the mail here.
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
			fmt.Fprint(w, html)
		}))
		t.Cleanup(ts.Close)
		for name, s := range screens() {
			t.Run(what+" on a "+name, func(t *testing.T) {
				letter := open(chrome, t, ts.URL+"/", s)
				letter.wantReadable(t, s, ts.URL+"/")
				if len(letter.said) > 0 {
					t.Errorf("on the console: %q", letter.said)
				}
			})
		}
	}
}

// What the tests above rely on is that the browser tells them of a bad page.
func TestTheBrowserTellsOfABadPage(t *testing.T) {
	chrome := chromium.Start(t)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src *")
		fmt.Fprint(w, `<meta name="viewport" content="width=device-width"><title>Bad</title><img src="/elsewhere">
<p style="width:900px;font-size:8px;color:#ccc;background:#fff">wide, small and pale</p><script>console.log("x")</script>`)
	}))
	t.Cleanup(ts.Close)
	bad := open(chrome, t, ts.URL+"/", screens()["phone"])
	if len(bad.requests) < 2 || bad.Wide < 900 || bad.Smallest != 8 {
		t.Errorf("got %d requests, %v wide, letters of %v", len(bad.requests), bad.Wide, bad.Smallest)
	}
	if !slices.ContainsFunc(bad.said, func(s string) bool { return strings.Contains(s, "Content Security Policy") }) {
		t.Errorf("on the console: %q", bad.said)
	}
}
