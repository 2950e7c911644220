// Package chromium drives a real Chromium, without a window, for tests of what
// people see. A test is skipped where none is installed.
package chromium

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long all that a test does with a browser may take.
const patience = 5 * time.Minute

// Screen is what a person looks at a page on.
type Screen struct {
	Width, Height int64 // in CSS pixels; what is narrower than 600 is a phone
	Dark          bool
}

// Start starts a browser that ends with the test.
func Start(t testing.TB) context.Context {
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
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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

// Tab is a tab of a browser, with a profile of its own.
type Tab struct {
	Context context.Context // of the tab: for package chromedp
	t       testing.TB

	mu       sync.Mutex
	requests []string
	said     []string
}

// Open opens a tab on a screen. It closes with the test.
func Open(browser context.Context, t testing.TB, s Screen) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &Tab{t: t, Context: ctx}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	p.Do(showOn(s))
	return p
}

// showOn makes a tab one of this screen, and has it tell what it asks for and
// what it finds wrong.
func showOn(s Screen) chromedp.Action[chromedp.Void] {
	scheme := map[bool]string{false: "light", true: "dark"}[s.Dark]
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
		_, err2 := cdp.Call(ctx, tab, log.Enable, cdp.Empty{})
		_, err3 := cdp.Call(ctx, tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: s.Width, Height: s.Height, DeviceScaleFactor: 1, Mobile: s.Width < 600,
		})
		_, err4 := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		return errors.Join(err, err2, err3, err4)
	})
}

func (p *Tab) hear(event any) {
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

// Requests returns everything that the tab's pages asked for since the last call.
func (p *Tab) Requests() (requests []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests, p.requests = p.requests, nil
	return requests
}

// Said returns what was said on the console since the last call: mistakes, and
// what the pages' policy stopped.
func (p *Tab) Said() (said []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	said, p.said = p.said, nil
	return said
}

// Do does something in the tab, and ends the test if it cannot.
func (p *Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.Context, steps...); err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
}

// Eval returns what an expression is in the tab's page.
func Eval[T any](p *Tab, expression string) T {
	p.t.Helper()
	value, err := chromedp.Run(p.Context, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}
