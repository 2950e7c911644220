// Package admin is what the operator of a gateway sees in a browser, on a
// listener of its own: agents and their keys, invites, mail that waits, what
// happened, and live numbers; and beside it the JSON API and the metrics.
//
// Nobody gets anything of it without the operator's token or a session that was
// begun by it, wherever the request comes from: behind a proxy on the same machine
// everybody comes from loopback. See guard.go for what else must hold before a
// page is asked for anything.
//
// The pages are made on the server and work without JavaScript. They ask for
// nothing but the one style sheet, script and icon of this package.
package admin

import (
	"crypto/rand"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// Config says what a listener of the operator serves. Gateway, Tokens and Now are
// required.
type Config struct {
	Gateway *embeddedgateway.Gateway
	// Tokens returns the SHA-256 of every token that is the operator's, at least
	// one. It is asked at every request, so that a token that was replaced ends at
	// once with all the sessions that were begun by it.
	Tokens func() ([][32]byte, error)
	// Now is the clock.
	Now func() time.Time
	// Rand is where sessions come from. Nil: crypto/rand.
	Rand io.Reader
	// Logger gets what an operator should know. Nil: nobody does.
	Logger *slog.Logger
	// Hosts are the names that the listener is reached by, beside the loopback
	// ones and the address that it listens on. A browser that was told another
	// name leads here is refused: it was lured.
	Hosts []string
	// PublicURL is where agents reach the gateway.
	PublicURL string
	// Metrics is served at /metrics. Nil: nothing is.
	Metrics http.Handler
}

// site is the handler.
type site struct {
	Config
	cross *http.CrossOriginProtection
	pages map[string]*template.Template
	table map[string]methods
	api   http.Handler
}

// methods are the handlers of a path.
type methods map[string]func(w http.ResponseWriter, r *http.Request, v *visit)

// New returns the handler of the operator's listener.
func New(c Config) (http.Handler, error) {
	switch {
	case c.Gateway == nil:
		return nil, errors.New("admin: Config.Gateway is missing")
	case c.Tokens == nil:
		return nil, errors.New("admin: Config.Tokens is missing: nobody could be let in")
	case c.Now == nil:
		return nil, errors.New("admin: Config.Now is missing: give it a clock, such as time.Now")
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &site{Config: c, cross: http.NewCrossOriginProtection()}
	var err error
	if s.pages, err = parsePages(); err != nil {
		return nil, err
	}
	s.table, s.api = s.routes(), apiRoutes(c.Gateway, c.Logger)
	return http.HandlerFunc(s.serve), nil
}

// routes are the pages. What begins with /api/ has a table of its own.
func (s *site) routes() map[string]methods {
	get, post := http.MethodGet, http.MethodPost
	t := map[string]methods{
		"/":             {get: s.overview},
		"/live":         {get: s.live},
		"/agents":       {get: s.agents},
		"/agent":        {get: s.agent},
		"/invites":      {get: s.invites},
		"/outbox":       {get: s.outbox},
		"/outbox/read":  {post: s.readLetter},
		"/events":       {get: s.events},
		signInPath:      {get: s.signInPage, post: s.signIn},
		"/sign-out":     {post: s.signOut},
		"/style.css":    {get: s.asset("style.css", "text/css; charset=utf-8")},
		"/page.js":      {get: s.asset("page.js", "text/javascript; charset=utf-8")},
		"/icon.svg":     {get: s.asset("icon.svg", "image/svg+xml")},
		"/key/revoke":   {get: s.ask, post: s.act},
		"/agent/delete": {get: s.ask, post: s.act},
	}
	for _, path := range []string{"/agent/suspend", "/agent/resume"} {
		t[path] = methods{get: s.ask, post: s.act}
	}
	if s.Metrics != nil {
		t["/metrics"] = methods{get: func(w http.ResponseWriter, r *http.Request, _ *visit) { s.Metrics.ServeHTTP(w, r) }}
	}
	return t
}

// open are the paths that need neither token nor session: how one gets in, and
// what that page looks like.
func open(path string) bool {
	return path == signInPath || path == "/style.css" || path == "/page.js" || path == "/icon.svg"
}
