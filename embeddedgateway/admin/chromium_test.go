package admin_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/chromium"
)

// shots is a folder that pictures of the pages are put into, to be looked at.
var shots = flag.String("shots", "", "write screenshots to this folder")

// screens are a desktop and phones, by day and by night.
func screens() map[string]chromium.Screen {
	return map[string]chromium.Screen{
		"desktop": {Width: 1280, Height: 900}, "desktop-at-night": {Width: 1280, Height: 900, Dark: true},
		"tablet": {Width: 768, Height: 1024},
		"phone":  {Width: 390, Height: 844}, "phone-at-night": {Width: 390, Height: 844, Dark: true}, "small-phone": {Width: 320, Height: 568},
	}
}

// tab is a tab of a browser, and the person before it, who has no mouse.
type tab struct {
	*chromium.Tab
	t   *testing.T
	url string
}

func (r *rig) tab(chrome context.Context, t *testing.T, s chromium.Screen) *tab {
	t.Helper()
	p := &tab{chromium.Open(chrome, t, s), t, r.url}
	t.Cleanup(func() {
		if said := p.Said(); len(said) > 0 {
			t.Errorf("on the console: %q", said)
		}
		for _, to := range p.Requests() {
			if !strings.HasPrefix(to, r.url+"/") && !strings.HasPrefix(to, "about:") {
				t.Errorf("the page asked for %s", to)
			}
		}
	})
	return p
}

func (p *tab) open(path string) { p.t.Helper(); p.Do(chromedp.Navigate(p.url + path)) }

// await waits until an expression is true in the page.
func (p *tab) await(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.Context, 20*time.Second)
	defer cancel()
	for {
		_, err := chromedp.Run(ctx, chromedp.Poll[bool](expression))
		if err == nil {
			return
		}
		if ctx.Err() != nil { // else the page went away under the question
			p.t.Fatalf("wait for %s: %v; the page says: %s", expression, err, chromium.Eval[string](p.Tab, "document.body?.innerText ?? ''"))
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
		p.Do(chromedp.KeyEvent(kb.Tab))
		now := chromium.Eval[string](p.Tab, focused)
		if !chromium.Eval[bool](p.Tab, `(() => { const e = document.activeElement; if (e === document.body) return true; const s = getComputedStyle(e); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 })()`) {
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
func (p *tab) press(keys string) { p.t.Helper(); p.Do(chromedp.KeyEvent(keys)) }

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
	picture, err := chromedp.Run(p.Context, chromedp.FullScreenshot(100))
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

// wantGood checks a page as a person on this chromium.Screen has it.
func (p *tab) wantGood(s chromium.Screen) {
	p.t.Helper()
	p.await(`document.readyState === 'complete'`) // what it says is there before its style is
	l := chromium.Eval[look](p.Tab, measure)
	if l.Wide > l.Room || l.Room > float64(s.Width) || len(l.Cut) > 0 {
		p.t.Errorf("the page is %v wide, there is room for %v of %d, and this is cut: %q", l.Wide, l.Room, s.Width, l.Cut)
	}
	if l.Smallest < 12 || len(l.Weak) > 0 {
		p.t.Errorf("the smallest letters have %v pixels, and too little contrast has %q", l.Smallest, l.Weak)
	}
	if l.Dark != s.Dark {
		p.t.Errorf("dark: got %v, want %v", l.Dark, s.Dark)
	}
	if len(l.Unnamed) > 0 || len(l.Broken) > 0 || len(l.Doubles) > 0 || len(l.Small) > 0 || l.Positive > 0 {
		p.t.Errorf("without a name: %q; without what is referred to: %q; twice: %q; small: %q; with a tabindex of its own: %d",
			l.Unnamed, l.Broken, l.Doubles, l.Small, l.Positive)
	}
	if !strings.HasPrefix(l.Headings, "h1") || strings.Count(l.Headings, "h1") != 1 {
		p.t.Errorf("the headings are %s, want one h1 first", l.Headings)
	}
}
