package embeddedgateway

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// fluxraStyle is how letters and pages look: readable on a phone, dark where the
// reader's screen is, and without anything that would have to be fetched.
const fluxraStyle = `
:root{color-scheme:light dark}
body{margin:0;background:#fff;color:#1c1e21;font:1.0625rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:34rem;margin:0 auto;padding:2rem 1.25rem;overflow-wrap:anywhere}
h1{margin:0 0 1rem;font-size:1.5rem;line-height:1.25}
a{color:#0b57d0}
code{font:600 2rem/1.3 ui-monospace,Menlo,Consolas,monospace;letter-spacing:.15em}
small{color:#5c6066}
@media (prefers-color-scheme:dark){body{background:#16181b;color:#e8eaed}a{color:#8ab4f8}small{color:#a3a8ae}}
`

const fluxraHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{.Title}}</title>
<style>` + fluxraStyle + `</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
`

const fluxraFoot = `</main>
</body>
</html>
`

// fluxraLetter is the HTML part of a letter.
const fluxraLetter = fluxraHead + `<p>{{.Why}}</p>
<p>{{.What}}</p>
{{if .Link}}<p><a href="{{.Link}}">{{.Link}}</a></p>
{{end}}{{if .Code}}<p><code>{{.Code}}</code></p>
{{end}}<p>{{.Once}}</p>
<p><small>{{.Otherwise}}</small></p>
` + fluxraFoot

// writing is what a letter says.
type writing struct {
	Title     string
	Why       string // it was written
	What      string // is to be done with the link or the code
	Link      string
	Code      string
	Once      string
	Otherwise string // what to do if it comes as a surprise
}

// verificationLetter brings the link that verifies an email address.
func (f *fluxra) verificationLetter(to, agentID, agentName, token string, until time.Time) (letter, error) {
	return f.write(to, until, writing{
		Title:     "Verify this email address for " + agentName,
		Why:       fmt.Sprintf("The agent %s (%s) was registered with this email address.", agentName, agentID),
		What:      "If the agent is yours, open this link:",
		Link:      f.PublicURL + wire.FluxraVerifyEmailPath + "?token=" + url.QueryEscape(token),
		Once:      fmt.Sprintf("It works once, until %s.", moment(until)),
		Otherwise: "If you know of no such agent, do nothing: without the link it has no part in this address.",
	})
}

// codeLetter brings a recovery code.
func (f *fluxra) codeLetter(to, agentID, agentName, code string, until time.Time) (letter, error) {
	return f.write(to, until, writing{
		Title:     "Recovery code for " + agentName,
		Why:       fmt.Sprintf("Somebody has asked to recover the agent %s (%s), which this email address is verified for.", agentName, agentID),
		What:      "The code gets a new recovery key; the present one then ends:",
		Code:      code,
		Once:      fmt.Sprintf("It works once, until %s. Codes from earlier letters work no more.", moment(until)),
		Otherwise: "If you have not asked, do nothing and tell nobody the code: without it nothing happens.",
	})
}

// moment is a time for people.
func moment(t time.Time) string { return t.UTC().Format("15:04 UTC on 2 January 2006") }

// write puts what a letter says into plain text and HTML.
func (f *fluxra) write(to string, until time.Time, w writing) (letter, error) {
	var html bytes.Buffer
	if err := f.letter.Execute(&html, w); err != nil {
		return letter{}, fmt.Errorf("write a letter: %w", err)
	}
	text := strings.Join([]string{w.Why, w.What, "    " + w.Link + w.Code, w.Once, w.Otherwise}, "\n\n") + "\n"
	return letter{To: to, Subject: w.Title, Text: text, HTML: html.String(), Expires: until}, nil
}
