package admin_test

import (
	"net/url"
	"testing"
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
	chrome := chromium(t)
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
