package embeddedgateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// screen is what a person holds.
type screen struct {
	width, height int64
	scheme        string
	dark          bool
}

// screens are a phone and a desktop, by day and by night.
func screens() map[string]screen {
	return map[string]screen{
		"phone": {390, 844, "light", false}, "phone at night": {390, 844, "dark", true},
		"small phone": {320, 568, "light", false},
		"desktop":     {1280, 800, "light", false}, "desktop at night": {1280, 800, "dark", true},
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

// chromium starts a browser without a window for the test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	var found string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			found = path
			break
		}
	}
	if found == "" {
		t.Skip("Chromium is not installed; .ci/run installs it")
	}
	// Without its sandbox, which root and many containers may not set up: it
	// opens nothing but what this test serves.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(found), chromedp.NoSandbox)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", found, err)
	}
	return ctx
}

// open shows a page on a screen, in a tab of its own.
func open(browser context.Context, t *testing.T, url string, s screen) look {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser)
	defer cancel()
	var seen look
	var mu sync.Mutex
	err := chromedp.Listen(tab, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			seen.requests = append(seen.requests, e.Request.URL)
		case *log.EventEntryAdded:
			seen.said = append(seen.said, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		case *runtime.EventConsoleAPICalled:
			seen.said = append(seen.said, fmt.Sprintf("console: %s", e.Type))
		case *runtime.EventExceptionThrown:
			seen.said = append(seen.said, "exception: "+e.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	if err := chromedp.Do(tab, showOn(s), chromedp.Navigate(url)); err != nil {
		t.Fatalf("open a page: %v", err)
	}
	measured, err := chromedp.Run(tab, chromedp.Evaluate[look](measure))
	if err != nil {
		t.Fatalf("measure a page: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	measured.requests, measured.said = seen.requests, seen.said
	return measured
}

// showOn makes a tab one of this screen, and has it tell what it asks for and
// what it finds wrong.
func showOn(s screen) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
		_, err2 := cdp.Call(ctx, tab, log.Enable, cdp.Empty{})
		_, err3 := cdp.Call(ctx, tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: s.width, Height: s.height, DeviceScaleFactor: 2, Mobile: s.width < 600,
		})
		_, err4 := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.scheme}},
		})
		return errors.Join(err, err2, err3, err4)
	})
}

// wantReadable checks a page as a person on this screen sees it.
func (l look) wantReadable(t *testing.T, s screen, url string) {
	t.Helper()
	if !slices.Equal(l.requests, []string{url}) {
		t.Errorf("the page asked for %d things, want itself alone", len(l.requests))
	}
	if l.Wide > l.Room || l.Room > float64(s.width) {
		t.Errorf("the page is %v wide, there is room for %v of %d", l.Wide, l.Room, s.width)
	}
	if l.Smallest < 12 || l.Contrast < 4.5 {
		t.Errorf("the smallest letters have %v pixels and the weakest contrast is %.1f: hard to read", l.Smallest, l.Contrast)
	}
	if dark := !strings.HasPrefix(l.Ground, "rgb(255"); dark != s.dark {
		t.Errorf("the ground is %s on a screen that is %s", l.Ground, s.scheme)
	}
	if !strings.Contains(l.Text, l.Title) || l.Title == "" {
		t.Errorf("got the title %q, which the text does not show", l.Title)
	}
}

func TestFluxraPagesInABrowser(t *testing.T) {
	browser := chromium(t)
	// The browser and the gateway go by the real clock.
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, fluxBot)
	link := gw.URL + "/api/auth/verify-email?token=" + lastToken(t, gw)
	first := open(browser, t, link, screens()["phone"])
	first.wantReadable(t, screens()["phone"], link)
	if first.Title != "Email verified" || !strings.Contains(first.Text, agent.id) || len(first.said) > 0 {
		t.Errorf("got %s, and on the console %q", first.Text, first.said)
	}
	for name, s := range screens() {
		t.Run(name, func(t *testing.T) {
			used := open(browser, t, link, s)
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
	browser := chromium(t)
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
				letter := open(browser, t, ts.URL+"/", s)
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
	browser := chromium(t)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src *")
		fmt.Fprint(w, `<meta name="viewport" content="width=device-width"><title>Bad</title><img src="/elsewhere">
<p style="width:900px;font-size:8px;color:#ccc;background:#fff">wide, small and pale</p><script>console.log("x")</script>`)
	}))
	t.Cleanup(ts.Close)
	bad := open(browser, t, ts.URL+"/", screens()["phone"])
	if len(bad.requests) < 2 || bad.Wide < 900 || bad.Smallest != 8 {
		t.Errorf("got %d requests, %v wide, letters of %v", len(bad.requests), bad.Wide, bad.Smallest)
	}
	if !slices.ContainsFunc(bad.said, func(s string) bool { return strings.Contains(s, "Content Security Policy") }) {
		t.Errorf("on the console: %q", bad.said)
	}
}
