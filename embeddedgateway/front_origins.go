package embeddedgateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// anyOrigin stands for the pages of all origins.
const anyOrigin = "*"

// toldHeaders are what a page may read of a refusal beside its status and body.
const toldHeaders = "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"

// CheckOrigins reports why pages of these origins cannot be told of refusals: see
// [Front.Origins].
func CheckOrigins(origins []string) error {
	for _, origin := range origins {
		if origin == anyOrigin {
			if len(origins) > 1 {
				return errors.New(`"*" is all origins: leave the others out, or name those that are meant`)
			}
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			return errors.New("want origins such as https://app.example.com, or \"*\" alone") // not the value: it may hold a password
		}
		asSent := strings.ToLower(u.Scheme + "://" + u.Host)
		usual := map[string]string{"http": ":80", "https": ":443"}
		asSent = strings.TrimSuffix(asSent, usual[u.Scheme])
		if origin != asSent {
			return fmt.Errorf("write it as browsers send it, without a path: %s", asSent)
		}
	}
	return nil
}

// readers are the origins whose pages may read refusals.
type readers []string

// admit has the browser show a refusal to the page that asked, if it may read it.
// What is in a refusal is no secret, and the same whoever's cookies come with the
// request: so a page may read it that sent some.
func (rs readers) admit(h http.Header, r *http.Request) {
	switch {
	case len(rs) == 0:
		return
	case rs[0] == anyOrigin: // browsers take it for none where cookies were sent
		h["Access-Control-Allow-Origin"] = []string{anyOrigin}
	default:
		h.Add("Vary", "Origin")
		given := r.Header["Origin"]
		if len(given) != 1 || !slices.Contains(rs, given[0]) {
			return
		}
		h["Access-Control-Allow-Origin"] = given
		h["Access-Control-Allow-Credentials"] = []string{"true"}
	}
	h["Access-Control-Expose-Headers"] = []string{toldHeaders}
}
