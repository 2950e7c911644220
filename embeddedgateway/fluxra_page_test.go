package embeddedgateway_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// browser is what a browser accepts when a person follows a link.
const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

func TestFluxraPageIsForWhoPrefersHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		browser: true, "text/html": true, "text/*": true, "TEXT/HTML;level=1": true, "application/json;q=0.5, text/html;q=0.6": true,
		"*/*;q=0.1, text/html": true, "application/json;q=0, */*": true,
		"": false, "*/*": false, "application/json": false, "text/html, application/json": false,
		"application/json, text/html;q=0.9": false, "text/html;q=0": false, "text/html;q=x": false, "text/html;q=2": false,
		"text/*;q=0.5, application/*": false, "text/html;q=0.1, text/*, */*;q=0.2": false, ",;,": false,
	} {
		if got := embeddedgateway.PrefersHTML(accept); got != want {
			t.Errorf("%q: got %v, want %v", accept, got, want)
		}
	}
	if !embeddedgateway.PrefersHTML("application/json;q=0.1", "text/html") {
		t.Error("of two headers one counts for nothing")
	}
}

// wantHTML checks what holds for every page and every letter.
func wantHTML(t *testing.T, html string) {
	t.Helper()
	for _, want := range []string{
		"<!doctype html>", `<meta name="viewport" content="width=device-width,initial-scale=1">`, "prefers-color-scheme:dark", `lang="en"`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("there is no %s in %s", want, html)
		}
	}
	if found := regexp.MustCompile(`(?i)<(script|link|img|iframe|form|object)|src=|url\(|@import|\son[a-z]+=`).FindString(html); found != "" {
		t.Errorf("there is %q in %s", found, html)
	}
}

func wantPage(t *testing.T, a answer, status int, title string) {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %q (%s), want %d in HTML", a.status, a.header.Get("Content-Type"), a.body, status)
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindSubmatch(a.body)
	if style == nil {
		t.Fatal("there is no style in the page")
	}
	sum := sha256.Sum256(style[1])
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	wantHTML(t, string(a.body))
	if !strings.Contains(string(a.body), "<h1>"+title+"</h1>") {
		t.Errorf("got %s, want the title %s", a.body, title)
	}
}

func TestFluxraLinkShowsAPage(t *testing.T) {
	gw := gatewaytest.New(t)
	agent := fluxNew(t, gw, fluxBot)
	token := lastToken(t, gw)
	for range 3 { // a mail scanner looks, and uses nothing up
		a := verifyLink(t, gw, http.MethodHead, token, browser)
		if a.status != http.StatusOK || len(a.body) > 0 || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("HEAD: got %d %v", a.status, a.header)
		}
		if a := verifyLink(t, gw, http.MethodHead, token, ""); a.header.Get("Content-Type") != "application/json" {
			t.Errorf("HEAD without a preference: got %d %v", a.status, a.header)
		}
	}
	a := verifyLink(t, gw, http.MethodGet, token, browser)
	wantPage(t, a, http.StatusOK, "Email verified")
	if !strings.Contains(string(a.body), agent.id) || strings.Contains(string(a.body), token) {
		t.Errorf("got %s, want the agent in it, and not the token", a.body)
	}
	const failed = "This email address was not verified"
	a = verifyLink(t, gw, http.MethodGet, token, browser)
	wantPage(t, a, http.StatusUnauthorized, failed)
	if last(t, gw).Name != "refused:INVALID_TOKEN" {
		t.Errorf("the audit trail ends with %+v", last(t, gw))
	}
	wantPage(t, verifyLink(t, gw, http.MethodGet, "", browser), http.StatusBadRequest, failed)
	wantPage(t, send(t, gw, http.MethodGet, "/api/auth/verify-email", "", header{"Accept": browser}), http.StatusBadRequest, failed)
	wantPage(t, verifyLink(t, gw, http.MethodGet, "a&token=b", browser), http.StatusBadRequest, failed)
	wantPage(t, verifyLink(t, gw, http.MethodGet, "<script>", browser), http.StatusUnauthorized, failed)
	a = verifyLink(t, gw, http.MethodGet, token, "application/json")
	wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
	// A POST is for programs.
	a = send(t, gw, http.MethodPost, "/api/auth/verify-email", `{"token":"x"}`, header{"Accept": browser})
	wantStatus(t, a, http.StatusUnauthorized, "INVALID_TOKEN")
}

func TestFluxraLettersReadWell(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.At(fluxTime))
	agent := fluxVerified(t, gw, fluxBot)
	first := lastLetter(t, gw)
	token := mailToken.FindString(first.Text)
	wantText := "The agent weather-bot (" + agent.id + ") was registered with this email address.\n\n" +
		"If the agent is yours, open this link:\n\n" +
		"    http://enlist.localhost/api/auth/verify-email?token=" + token + "\n\n" +
		"It works once, until 21:00 UTC on 3 April 2026.\n\n" +
		"If you know of no such agent, do nothing: without the link it has no part in this address.\n"
	if first.Text != wantText || first.To != fluxBot || first.Subject != "Verify this email address for weather-bot" || !first.Expires.Equal(fluxTime.Add(3600e9)) {
		t.Errorf("got %+v, want %s", first, wantText)
	}
	wantHTML(t, first.HTML)
	if strings.Count(first.HTML, "href=") != 1 || strings.Count(first.HTML, token) != 2 {
		t.Errorf("got %s, want one link", first.HTML)
	}
	askCode(t, gw, fluxBot)
	code := lastCode(t, gw)
	second := lastLetter(t, gw)
	wantHTML(t, second.HTML)
	if !strings.Contains(second.HTML, "<code>"+code+"</code>") || strings.Contains(second.HTML, "href=") || strings.Contains(second.Subject, code) {
		t.Errorf("got %+v, want the code in the letter and not on the envelope", second)
	}
	if !strings.Contains(second.Text, "until 20:15 UTC on 3 April 2026") || !strings.Contains(second.Text, agent.id) {
		t.Errorf("got %s", second.Text)
	}
	for what, l := range map[string]string{"text": first.Text, "code": second.Text} {
		for line := range strings.Lines(l) {
			if len(line) > 998 {
				t.Errorf("%s: a line is too long for mail", what)
			}
		}
	}
}
