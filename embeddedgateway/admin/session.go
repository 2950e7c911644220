package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// sessionIdle is how long a session lasts in which nothing is asked for,
	// sessionAge how long any does.
	sessionIdle, sessionAge = time.Hour, 12 * time.Hour
	// extendAfter is how much of its time an idle session has lost before that is
	// given back: a request that only looks is not to write each time.
	extendAfter = time.Minute

	signInPath = "/sign-in"
)

// cookieName is the name of a session's cookie. By https the browser itself then
// sees to it that no other host set it. Else the port is in it: cookies know none,
// and two gateways of one machine would sign each other out.
func cookieName(r *http.Request, v *visit) string {
	if v.https {
		return "__Host-" + embeddedgateway.OperatorCookie
	}
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return embeddedgateway.OperatorCookie + "-" + port
	}
	return embeddedgateway.OperatorCookie
}

func (s *site) setCookie(w http.ResponseWriter, r *http.Request, v *visit, value string, age time.Duration) {
	c := &http.Cookie{ //nolint:gosec // by http, which is for loopback, a browser would not send back one that is Secure
		Name: cookieName(r, v), Value: value, Path: "/",
		HttpOnly: true, Secure: v.https, SameSite: http.SameSiteStrictMode,
		MaxAge: int(age / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// findSession finds the session of a request, if it has one that is good.
func (s *site) findSession(r *http.Request, v *visit) error {
	cookies := r.CookiesNamed(cookieName(r, v))
	if len(cookies) == 0 {
		return nil
	}
	tokens, err := s.Tokens()
	if err != nil {
		return fmt.Errorf("read the operator's token: %w", err)
	}
	// Another server on this machine can put cookies of that name beside ours.
	for _, c := range cookies[:min(len(cookies), maxCookies)] {
		if len(c.Value) != sessionChars {
			continue
		}
		hash := sha256.Sum256([]byte(c.Value))
		found, err := s.Gateway.Session(r.Context(), hash, tokens)
		if errors.Is(err, store.ErrNotFound) || err == nil && !s.Now().Before(found.BegunAt.Add(sessionAge)) {
			continue
		}
		if err != nil {
			return err
		}
		v.cookie, v.session = c.Value, hash
		v.begun, v.expires = found.BegunAt, found.ExpiresAt
		v.csrf = v.sign("form")
		return nil
	}
	return nil
}

// sign returns what only the session itself can say of something.
func (v *visit) sign(what string) string {
	mac := hmac.New(sha256.New, []byte(v.cookie))
	_, _ = io.WriteString(mac, "enlist gateway, operator's page: "+what)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// signed reports whether the session said that.
func (v *visit) signed(what, mac string) bool {
	return v.cookie != "" && hmac.Equal([]byte(mac), []byte(v.sign(what)))
}

// carriesCSRF reports whether a request shows that it was made by a page of its
// session.
func (s *site) carriesCSRF(r *http.Request, v *visit) bool {
	sent := r.Header.Get(csrfHeader)
	if sent == "" {
		sent = r.PostFormValue(csrfField)
	}
	return v.signed("form", sent)
}

// extend puts off the end of a session that is used. That it cannot is no reason
// not to answer: the session then ends when it would have.
func (s *site) extend(w http.ResponseWriter, r *http.Request, v *visit) {
	now := s.Now()
	until := now.Add(sessionIdle)
	if last := v.begun.Add(sessionAge); until.After(last) {
		until = last
	}
	if until.Sub(v.expires) < extendAfter {
		return
	}
	if err := s.Gateway.ExtendSession(r.Context(), v.session, until); err != nil {
		if !errors.Is(err, store.ErrNotFound) {
			s.Logger.WarnContext(r.Context(), "a session of the operator could not be extended", "error", err)
		}
		return
	}
	s.setCookie(w, r, v, v.cookie, until.Sub(now))
}

// signInView is what the page that one signs in on shows.
type signInView struct {
	Problem string
	Next    string
}

// signInAt is the page to sign in on that leads on to a page of this listener.
func signInAt(u *url.URL) string {
	if u.Path == "/" && u.RawQuery == "" {
		return signInPath
	}
	return signInPath + "?" + url.Values{"next": {u.RequestURI()}}.Encode()
}

// next is where to go after signing in: a page of this listener, whatever was
// asked for.
func (s *site) next(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || strings.ContainsAny(text, "\\\r\n\t") {
		return "/"
	}
	if page, ok := s.table[u.Path]; !ok || page[http.MethodGet] == nil || open(u.Path) || u.Path == "/live" {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
}

func (s *site) signInPage(w http.ResponseWriter, r *http.Request, v *visit) {
	next := s.next(r.URL.Query().Get("next"))
	if v.in() {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // s.next leads to pages of this listener only
		return
	}
	s.showSignIn(w, r, v, http.StatusOK, signInView{Next: next})
}

func (s *site) showSignIn(w http.ResponseWriter, r *http.Request, v *visit, status int, view signInView) {
	if view.Next == "" {
		view.Next = "/"
	}
	s.render(w, r, v, status, "sign-in", "Sign in", view)
}

// signIn begins a session. Whatever session the browser had ends: nobody goes on
// in one that somebody else may have put there.
func (s *site) signIn(w http.ResponseWriter, r *http.Request, v *visit) {
	next := s.next(r.PostFormValue("next"))
	token := strings.TrimSpace(r.PostFormValue("token"))
	if token == "" {
		s.showSignIn(w, r, v, http.StatusBadRequest, signInView{Problem: "Enter the token.", Next: next})
		return
	}
	hash, wait, err := s.compare(r, v, token)
	switch {
	case errors.Is(err, errWrongToken):
		s.showSignIn(w, r, v, http.StatusUnauthorized, signInView{Problem: "This is not the token of this gateway.", Next: next})
		return
	case err != nil:
		s.broken(w, r, v, err)
		return
	case wait > 0:
		s.tooMany(w, r, v, wait)
		return
	}
	if v.cookie != "" {
		err = s.Gateway.EndSession(r.Context(), v.session, v.ip)
	}
	var cookie string
	if err == nil {
		cookie, err = s.newSession()
	}
	if err == nil {
		err = s.Gateway.BeginSession(r.Context(), sha256.Sum256([]byte(cookie)), hash, s.Now().Add(sessionIdle), v.ip)
	}
	if err != nil {
		s.broken(w, r, v, err)
		return
	}
	s.setCookie(w, r, v, cookie, sessionIdle)
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (s *site) signOut(w http.ResponseWriter, r *http.Request, v *visit) {
	if v.cookie != "" {
		if err := s.Gateway.EndSession(r.Context(), v.session, v.ip); err != nil {
			s.broken(w, r, v, err) // it has not ended: it must not look so
			return
		}
	}
	s.setCookie(w, r, v, "", 0)
	http.Redirect(w, r, signInPath, http.StatusSeeOther)
}

// sessionBytes is the size of a session, sessionChars that of its cookie.
const sessionBytes, sessionChars = 32, 43

// maxCookies is how many cookies are looked at for a session.
const maxCookies = 4

func (s *site) newSession() (string, error) {
	random := make([]byte, sessionBytes)
	if _, err := io.ReadFull(s.Rand, random); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(random), nil
}
