package admin_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/chromedp/chromedp/kb"
)

// shots is a folder that pictures of the pages are put into, to be looked at.
var shots = flag.String("shots", "", "write screenshots to this folder")

// screen is what a person looks at the pages on.
type screen struct {
	width, height int64
	dark          bool
}

// screens are a desktop and phones, by day and by night.
func screens() map[string]screen {
	return map[string]screen{
		"desktop": {1280, 900, false}, "desktop-at-night": {1280, 900, true},
		"tablet": {768, 1024, false},
		"phone":  {390, 844, false}, "phone-at-night": {390, 844, true}, "small-phone": {320, 568, false},
	}
}

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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
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

// tab is a tab of a browser, and the person before it, who has no mouse.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	requests []string
	said     []string // on the console: mistakes, and what the policy stopped
}

func (r *rig) tab(browser context.Context, t *testing.T, s screen) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx, url: r.url}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	scheme := map[bool]string{false: "light", true: "dark"}[s.dark]
	p.do(chromedp.Func(func(ctx context.Context, to *chromedp.Target) error {
		_, err := cdp.Call(ctx, to, network.Enable, network.EnableParams{})
		_, err2 := cdp.Call(ctx, to, log.Enable, cdp.Empty{})
		_, err3 := cdp.Call(ctx, to, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: s.width, Height: s.height, DeviceScaleFactor: 1, Mobile: s.width < 600,
		})
		_, err4 := cdp.Call(ctx, to, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		return errors.Join(err, err2, err3, err4)
	}))
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.said) > 0 {
			t.Errorf("on the console: %q", p.said)
		}
		for _, to := range p.requests {
			if !strings.HasPrefix(to, r.url+"/") && !strings.HasPrefix(to, "about:") {
				t.Errorf("the page asked for %s", to)
			}
		}
	})
	return p
}

func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *log.EventEntryAdded:
		p.said = append(p.said, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
	case *runtime.EventConsoleAPICalled:
		p.said = append(p.said, fmt.Sprintf("console: %s", e.Type))
	case *runtime.EventExceptionThrown:
		p.said = append(p.said, "exception: "+e.ExceptionDetails.Text)
	}
}

// heard takes what was said on the console, for a test that expects something.
func (p *tab) heard() (said []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	said, p.said = p.said, nil
	return said
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
}

func (p *tab) open(path string) { p.t.Helper(); p.do(chromedp.Navigate(p.url + path)) }

// eval returns what an expression is in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression is true in the page.
func (p *tab) await(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := chromedp.Run(ctx, chromedp.Poll[bool](expression))
		if err == nil {
			return
		}
		if ctx.Err() != nil { // else the page went away under the question
			p.t.Fatalf("wait for %s: %v; the page says: %s", expression, err, eval[string](p, "document.body?.innerText ?? ''"))
		}
	}
}

// awaitTitle waits for a page by its title, whole.
func (p *tab) awaitTitle(title string) {
	p.t.Helper()
	p.await(fmt.Sprintf("document.readyState === 'complete' && document.title === %q", title+" · Enlist gateway"))
}

// focused says what has the focus: its text or label.
const focused = `(() => { const e = document.activeElement; return (e.labels?.[0]?.textContent || e.textContent || '').trim().replace(/\s+/g, ' ') })()`

// tabTo presses Tab until what has a text, or whose label has it, has the focus.
// What has the focus must show it.
func (p *tab) tabTo(text string) {
	p.t.Helper()
	var passed []string
	for range 80 {
		p.do(chromedp.KeyEvent(kb.Tab))
		now := eval[string](p, focused)
		if !eval[bool](p, `(() => { const e = document.activeElement; if (e === document.body) return true; const s = getComputedStyle(e); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 })()`) {
			p.t.Errorf("%q has the focus and does not show it", now)
		}
		if now == text {
			return
		}
		passed = append(passed, now)
	}
	p.t.Fatalf("there is no way to %q by Tab: %q", text, passed)
}

// press types text or presses a key.
func (p *tab) press(keys string) { p.t.Helper(); p.do(chromedp.KeyEvent(keys)) }

// signIn signs in without a mouse. The field for the token has the focus.
func (p *tab) signIn() {
	p.t.Helper()
	p.open("/")
	p.awaitTitle("Sign in")
	p.press(operatorToken + kb.Enter)
	p.awaitTitle("Overview")
}

// shoot writes a picture of the whole page, where that is asked for.
func (p *tab) shoot(name string) {
	p.t.Helper()
	if *shots == "" {
		return
	}
	picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), picture, 0o600)
	}
	if err != nil {
		p.t.Fatalf("take a picture: %v", err)
	}
}

// look is what a browser makes of a page.
type look struct {
	Wide, Room float64 // what the page takes, sideways, and what there is
	Smallest   float64 // size of letters, in CSS pixels
	Weak       []string
	Dark       bool
	Cut        []string // what reaches beyond the screen
	Unnamed    []string // what can be pressed and says nothing to who does not see it
	Positive   int      // tabindex that says another order than the page's
	Headings   string
	Doubles    []string // ids that there are twice
	Broken     []string // what is referred to and is not there
	Small      []string // what is hard to hit with a finger
}

// measure reads a look off a page.
const measure = `(() => {
  const parse = c => c.match(/[\d.]+/g).map(Number)
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }); return 0.2126 * x + 0.7152 * y + 0.0722 * z }
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] }
  const shown = e => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.unseen, .skip, [aria-hidden=true] title, svg')
  const weak = new Set(), cut = new Set()
  let smallest = Infinity
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const node = texts.currentNode, e = node.parentElement
    if (!node.data.trim() || !shown(e) || e.closest('thead') && getComputedStyle(e.closest('thead')).position === 'absolute') continue
    const style = getComputedStyle(e)
    const [low, high] = [light(parse(style.color)), light(ground(e))].sort((a, b) => a - b)
    smallest = Math.min(smallest, parseFloat(style.fontSize))
    if ((high + 0.05) / (low + 0.05) < 4.5) weak.add(node.data.trim() + ' ' + ((high + 0.05) / (low + 0.05)).toFixed(2))
    const range = document.createRange(); range.selectNodeContents(node)
    for (const box of range.getClientRects()) if (box.right > document.documentElement.clientWidth + 1 && !e.closest('.scroll')) cut.add(node.data.trim())
  }
  const named = e => (e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent).trim()
  const pressed = [...document.querySelectorAll('a, button, input:not([type=hidden]), select, summary, meter')].filter(e => !e.hidden)
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id)
  const refs = [...document.querySelectorAll('[aria-labelledby], label[for]')].flatMap(e => (e.getAttribute('aria-labelledby') || e.htmlFor).split(/\s+/))
  return {
    Wide: document.documentElement.scrollWidth, Room: document.documentElement.clientWidth, Smallest: smallest, Weak: [...weak], Cut: [...cut],
    Dark: light(ground(document.body)) < 0.2, Unnamed: pressed.filter(e => !named(e)).map(e => e.outerHTML),
    Positive: document.querySelectorAll('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])').length,
    Headings: [...document.querySelectorAll('h1, h2, h3')].map(e => e.localName).join(' '),
    Doubles: ids.filter((id, i) => ids.indexOf(id) !== i), Broken: refs.filter(id => !document.getElementById(id)),
    Small: pressed.filter(e => e.matches('button, .button, input, select')).map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.height > 0 && (b.height < 24 || b.width < 24)).map(([e]) => e.outerHTML),
  }
})()`

// wantGood checks a page as a person on this screen has it.
func (p *tab) wantGood(s screen) {
	p.t.Helper()
	l := eval[look](p, measure)
	if l.Wide > l.Room || l.Room > float64(s.width) || len(l.Cut) > 0 {
		p.t.Errorf("the page is %v wide, there is room for %v of %d, and this is cut: %q", l.Wide, l.Room, s.width, l.Cut)
	}
	if l.Smallest < 12 || len(l.Weak) > 0 {
		p.t.Errorf("the smallest letters have %v pixels, and too little contrast has %q", l.Smallest, l.Weak)
	}
	if l.Dark != s.dark {
		p.t.Errorf("dark: got %v, want %v", l.Dark, s.dark)
	}
	if len(l.Unnamed) > 0 || len(l.Broken) > 0 || len(l.Doubles) > 0 || len(l.Small) > 0 || l.Positive > 0 {
		p.t.Errorf("without a name: %q; without what is referred to: %q; twice: %q; small: %q; with a tabindex of its own: %d",
			l.Unnamed, l.Broken, l.Doubles, l.Small, l.Positive)
	}
	if !strings.HasPrefix(l.Headings, "h1") || strings.Count(l.Headings, "h1") != 1 {
		p.t.Errorf("the headings are %s, want one h1 first", l.Headings)
	}
}
