package embeddedgateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// fluxraPage is what a person sees who has opened the link of a letter.
const fluxraPage = fluxraHead + `{{range .Text}}<p>{{.}}</p>
{{end}}{{with .Small}}<p><small>{{.}}</small></p>
{{end}}` + fluxraFoot

// saying is what a page says.
type saying struct {
	Title string
	Text  []string
	Small string
}

// fluxraPolicy allows a page its own style sheet, and nothing else.
func fluxraPolicy() string {
	sum := sha256.Sum256([]byte(fluxraStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// pageHeader is the header of a page. Its URL holds the token, which no other
// site is to be told.
func (f *fluxra) pageHeader() http.Header {
	return http.Header{
		"Content-Security-Policy": {f.csp},
		"Referrer-Policy":         {"no-referrer"},
		"Vary":                    {"Accept"},
	}
}

// render makes a page.
func (f *fluxra) render(s saying) (page, error) {
	var out bytes.Buffer
	if err := f.page.Execute(&out, s); err != nil {
		return nil, fmt.Errorf("make a page: %w", err)
	}
	return out.Bytes(), nil
}

// verifiedPage says that an address is verified, and whose it is: by the name
// that its owner gave the agent, and by its id.
func (f *fluxra) verifiedPage(name, agentID string) (answered, error) {
	p, err := f.render(saying{Title: "Email verified", Small: agentID, Text: []string{
		"This email address now belongs to the agent " + name + ".",
		"If its recovery key is ever lost, a code that is sent here gets a new one. You can close this page.",
	}})
	return answered{status: http.StatusOK, header: f.pageHeader(), body: p}, err
}

// withPage has a refusal shown as a page, where that is preferred.
func (f *fluxra) withPage(html bool, err error) error {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		return err
	}
	header := p.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	p.header = header
	if !html {
		header.Set("Vary", "Accept")
		return p
	}
	shown, err := f.render(saying{Title: "This email address was not verified", Text: []string{
		"The link is not complete, was used before, or has expired: it works once, for an hour. Or the address is verified for another agent already.",
		"If it was you who opened it before, all is well. Otherwise ask your agent to have a new link sent, and open the newest letter.",
	}})
	if err != nil {
		return err
	}
	copyHeader(header, f.pageHeader())
	p.page = shown
	return p
}

// headOfPage answers who only asks whether there is a page.
func (f *fluxra) headOfPage(html bool) answered {
	header := http.Header{"Content-Type": {"application/json"}, "Vary": {"Accept"}}
	if html {
		header = f.pageHeader()
		header.Set("Content-Type", htmlType)
	}
	return answered{status: http.StatusOK, header: header}
}

// prefersHTML reports whether a client would rather have a page than JSON
// (RFC 9110, section 12.5.1). Who has no preference gets JSON.
func prefersHTML(accept []string) bool {
	ranges := strings.Split(strings.Join(accept, ","), ",")
	return quality(ranges, "text", "html") > quality(ranges, "application", "json")
}

// quality is the weight that the most specific of some media ranges gives a
// media type: 0 to 1.
func quality(ranges []string, major, minor string) (q float64) {
	best := 0
	for _, r := range ranges {
		name, params, err := mime.ParseMediaType(r)
		if err != nil {
			continue
		}
		specific := map[string]int{"*/*": 1, major + "/*": 2, major + "/" + minor: 3}[name]
		if specific == 0 || specific < best {
			continue
		}
		weight := 1.0
		if text, given := params["q"]; given {
			if weight, err = strconv.ParseFloat(text, 64); err != nil || weight < 0 || weight > 1 {
				continue
			}
		}
		best, q = specific, weight
	}
	return q
}
