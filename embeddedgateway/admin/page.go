package admin

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

//go:embed templates assets
var files embed.FS

// frame is what every page has around its own content.
type frame struct {
	Title   string
	Where   string // which part of the navigation it belongs to
	Host    string // where agents reach the gateway
	SignOut bool   // there is a session to end
	In      bool
	CSRF    string
	Now     time.Time
	Said    string // what was done by the form before
	Query   url.Values
	View    any
}

// When is a time with the moment that it is told from.
type When struct{ At, Now time.Time }

// When is how a template shows a time.
func (f frame) When(at time.Time) When { return When{at, f.Now} }

// parsePages parses the page of each file in templates, with what they share.
func parsePages() (map[string]*template.Template, error) {
	shared, err := template.New("shared").Funcs(functions()).ParseFS(files, "templates/shared/*.html")
	if err != nil {
		return nil, fmt.Errorf("parse the operator's pages: %w", err)
	}
	names, err := files.ReadDir("templates")
	if err != nil {
		return nil, fmt.Errorf("read the operator's pages: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, f := range names {
		if f.IsDir() {
			continue
		}
		page, err := shared.Clone()
		if err == nil {
			page, err = page.ParseFS(files, "templates/"+f.Name())
		}
		if err != nil {
			return nil, fmt.Errorf("parse the operator's pages: %w", err)
		}
		pages[strings.TrimSuffix(f.Name(), ".html")] = page
	}
	return pages, nil
}

// functions are what the templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"ago":       relative,
		"iso":       func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"exact":     func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") },
		"clock":     func(t time.Time) string { return t.UTC().Format("15:04") },
		"comma":     func(n int) string { return humanize.Comma(int64(n)) },
		"plain":     plain,
		"words":     words,
		"title":     title,
		"link":      link,
		"per":       per,
		"join":      func(list []string) string { return strings.Join(list, ", ") },
		"lower":     strings.ToLower,
		"protocols": protocols,
		"events":    func(f frame, list []store.Event) eventsTable { return eventsTable{f, list} },
	}
}

// relative is a time as people say it: "3 minutes ago", "in 3 minutes".
func relative(w When) string {
	if w.At.After(w.Now.Add(time.Second)) {
		return "in " + strings.TrimSpace(humanize.RelTime(w.At, w.Now, "", ""))
	}
	return humanize.RelTime(w.At, w.Now, "ago", "ago")
}

// link is the URL of a path with names and values after it.
func link(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// plain is what somebody else wrote, on one line and without what would change
// how the page around it reads: control and direction characters.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r), r == unicode.ReplacementChar:
			return '\u00b7'
		}
		return r
	}, text)
}

// words is the name of an event, or of what a protocol keeps, as people say it.
func words(name string) string {
	name, refused := strings.CutPrefix(name, "refused:")
	name = strings.ReplaceAll(strings.ReplaceAll(plain(name), "_", " "), "-", " ")
	if name == strings.ToUpper(name) {
		name = strings.ToLower(name)
	}
	if refused {
		return "refused: " + name
	}
	return name
}

// title is how people write the name of a protocol.
func title(protocol string) string {
	switch protocol {
	case "agentdoor":
		return "AgentDoor"
	case "":
		return "Gateway"
	}
	name := plain(protocol)
	return strings.ToUpper(name[:1]) + name[1:]
}

func protocols() (names []string) {
	for _, p := range wire.Protocols() {
		names = append(names, p.Name)
	}
	return names
}

// per is a length of time as people say it behind "per".
func per(d time.Duration) string {
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d >= unit.d && d%unit.d == 0 {
			if n := d / unit.d; n > 1 {
				return fmt.Sprintf("%d %ss", n, unit.name)
			}
			return unit.name
		}
	}
	return d.String()
}

// render answers with a page.
func (s *site) render(w http.ResponseWriter, r *http.Request, v *visit, status int, name, title string, view any) {
	f := frame{
		Title: title, Where: where(r.URL.Path), Host: hostName(s.PublicURL), In: v.in(), SignOut: v.cookie != "",
		CSRF: v.csrf, Now: s.Now(), Query: r.URL.Query(), View: view,
	}
	if said := f.Query.Get("said"); v.signed("said "+said, f.Query.Get("by")) {
		f.Said = said
	}
	var out bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&out, "page", f); err != nil {
		// What was written of it is thrown away: half a page says the wrong thing.
		s.Logger.ErrorContext(r.Context(), "a page of the operator could not be made", "page", name, "error", err)
		http.Error(w, "This page could not be made; the gateway's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

// say is a URL whose page says what was done. Nobody else can make it say so.
func (v *visit) say(what, path string, pairs ...string) string {
	return link(path, append(pairs, "said", what, "by", v.sign("said "+what))...)
}

// where is the part of the navigation that a path belongs to.
func where(path string) string {
	part, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if part == "agent" || part == "key" {
		return "agents"
	}
	return part
}

func hostName(publicURL string) string {
	if u, err := url.Parse(publicURL); err == nil {
		return u.Host
	}
	return ""
}

// errorView is a page that says what went wrong and what to do.
type errorView struct {
	Status     int
	What, Next string
}

// fail answers that something went wrong. Without a message it is the usual one
// of the status.
func (s *site) fail(w http.ResponseWriter, r *http.Request, v *visit, status int, message string) {
	usual := map[int]errorView{
		http.StatusNotFound:            {What: "There is nothing here", Next: "It may have been deleted, or the address is not complete."},
		http.StatusMethodNotAllowed:    {What: "This is not how to ask for that", Next: "Go to it by the links and buttons of these pages."},
		http.StatusServiceUnavailable:  {What: "The gateway cannot answer now", Next: "Its database or its token cannot be reached. Its log says which; load the page again when that is set right."},
		http.StatusInternalServerError: {What: "Something went wrong here", Next: "The gateway's log says what. Nothing else is known to be wrong."},
		http.StatusForbidden:           {What: "This was refused"},
		http.StatusBadRequest:          {What: "This cannot be asked for", Next: "The address is not one that these pages lead to. Begin at the overview."},
	}
	view := usual[status]
	view.Status = status
	if view.What == "" {
		view.What = http.StatusText(status)
	}
	if message != "" {
		view.Next = strings.ToUpper(message[:1]) + message[1:] + "."
	}
	if forPrograms(r) {
		if message == "" {
			message = strings.ToLower(view.What)
		}
		writeError(w, status, message)
		return
	}
	s.render(w, r, v, status, "error", view.What, view)
}

// refuse answers that something is not allowed.
func (s *site) refuse(w http.ResponseWriter, r *http.Request, v *visit, status int, message string) {
	if status == http.StatusMisdirectedRequest && !forPrograms(r) {
		// Its style sheet would be refused as well.
		http.Error(w, message, status)
		return
	}
	s.fail(w, r, v, status, message)
}

// writeError answers a program.
func writeError(w http.ResponseWriter, status int, message string) {
	code := strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	writeJSON(w, status, map[string]map[string]string{"error": {"code": code, "message": message}})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "the answer could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// asset serves a file that pages ask for.
func (s *site) asset(name, kind string) func(http.ResponseWriter, *http.Request, *visit) {
	return func(w http.ResponseWriter, r *http.Request, v *visit) {
		text, err := files.ReadFile("assets/" + name)
		if err != nil {
			s.broken(w, r, v, err)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(text)
	}
}

// sortedAttrs are attributes in the order of their names.
func sortedAttrs(attrs map[string]string) (list []attr) {
	for name, value := range attrs {
		if value != "" {
			list = append(list, attr{name, value})
		}
	}
	slices.SortFunc(list, func(a, b attr) int { return strings.Compare(a.Name, b.Name) })
	return list
}

type attr struct{ Name, Value string }

// eventsTable is a table of events on a page.
type eventsTable struct {
	frame
	Events []store.Event
}
