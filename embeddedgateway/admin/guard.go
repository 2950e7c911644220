package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// policy is the Content-Security-Policy of every answer: nothing from elsewhere,
// nothing inline, no frame around it, and no script that makes HTML of text.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// maxForm is how many bytes a request may have.
const maxForm = 64 << 10

// csrfHeader carries the token of a session where a script asks, csrfField where
// a form does.
const csrfHeader, csrfField = "X-CSRF-Token", "csrf"

// visit is a request that the guard let through.
type visit struct {
	ip      netip.Addr
	https   bool
	cookie  string   // the session itself; "": there is none
	session [32]byte // its hash
	token   bool     // it came with the token in its header
	csrf    string   // what the forms of the session carry
	begun   time.Time
	expires time.Time
}

// in reports whether the visitor is the operator.
func (v *visit) in() bool { return v.token || v.cookie != "" }

// acting is a request whose doings stand in the audit trail as the visitor's.
func (v *visit) acting(r *http.Request, by string) *http.Request {
	return r.WithContext(embeddedgateway.WithActor(r.Context(), "by "+by+", from "+v.ip.String()))
}

// setHeaders sets what every answer has, also one that refuses.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("X-Robots-Tag", "noindex")
}

// serve is the guard: it asks everything that must hold for whatever is asked
// for, in this order, and then hands on.
func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	defer s.recovered(w, r)
	v := &visit{}
	v.ip, v.https = s.Gateway.Peer(r)
	if !s.knownHost(r) {
		s.refuse(w, r, v, http.StatusMisdirectedRequest, "this address leads to the operator's page under a name that it does not go by: "+
			"open it by its own address, or name this one with ENLIST_ADMIN_HOSTS")
		return
	}
	if err := s.sameOrigin(r); err != nil {
		s.refuse(w, r, v, http.StatusForbidden, "this was asked for by another site")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if !s.letIn(w, r, v) {
		return
	}
	s.hand(w, r, v)
}

// recovered answers for a page that panicked.
func (s *site) recovered(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.Logger.ErrorContext(r.Context(), "the operator's page failed", "path", r.URL.Path,
			"error", fmt.Sprint(p), "stack", string(debug.Stack()))
		s.fail(w, r, &visit{}, http.StatusInternalServerError, "")
	}
}

// hand gives a request that may be answered to its page.
func (s *site) hand(w http.ResponseWriter, r *http.Request, v *visit) {
	if strings.HasPrefix(r.URL.Path, apiPrefix) || r.URL.Path == openAPIPath {
		s.api.ServeHTTP(w, v.acting(r, "the admin API"))
		return
	}
	page, ok := s.table[r.URL.Path]
	if !ok {
		s.fail(w, r, v, http.StatusNotFound, "")
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	handle, ok := page[method]
	if !ok {
		var allowed []string
		for m := range page {
			allowed = append(allowed, m)
		}
		if page[http.MethodGet] != nil {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, r, v, http.StatusMethodNotAllowed, "")
		return
	}
	handle(w, r, v)
}

// knownHost reports whether a request names the listener as it is known. Another
// site can have its own name lead here, and its pages would then be of the same
// origin as these; an address cannot be made to lead elsewhere.
func (s *site) knownHost(r *http.Request) bool {
	host := hostOf(r.Host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsLoopback() {
			return true
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if local != nil && hostOf(local.String()) == ip.Unmap().String() {
			return true
		}
	}
	return host != "" && slices.ContainsFunc(s.Hosts, func(name string) bool { return hostOf(name) == host })
}

// hostOf is a host without its port, its brackets, a dot at its end and its case.
func hostOf(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// sameOrigin refuses what another site has a browser ask: whatever would change
// something, and whatever is fetched to be used within that site.
func (s *site) sameOrigin(r *http.Request) error {
	if err := s.cross.Check(r); err != nil {
		return err
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return nil
	}
	if r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return nil // a link to here
	}
	return errors.New("another site fetches it")
}

// letIn finds out who asks, and answers whoever may not.
func (s *site) letIn(w http.ResponseWriter, r *http.Request, v *visit) bool {
	if len(r.Header.Values("Authorization")) > 0 {
		return s.letInByToken(w, r, v)
	}
	if err := s.findSession(r, v); err != nil {
		s.broken(w, r, v, err)
		return false
	}
	if open(r.URL.Path) {
		return true // signing in has no session yet; who asks from elsewhere was refused
	}
	if !v.in() {
		s.unauthorized(w, r, v)
		return false
	}
	if !safe(r.Method) && !s.carriesCSRF(r, v) {
		s.refuse(w, r, v, http.StatusForbidden, "the form is not of this session: go back, load the page again, and send it once more")
		return false
	}
	if r.URL.Path != "/live" { // nobody looks at what asks by itself
		s.extend(w, r, v)
	}
	return true
}

func (s *site) letInByToken(w http.ResponseWriter, r *http.Request, v *visit) bool {
	var token string
	if values := r.Header.Values("Authorization"); len(values) == 1 {
		if scheme, rest, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "Bearer") {
			token = strings.TrimLeft(rest, " ")
		}
	}
	if token == "" {
		s.unauthorized(w, r, v)
		return false
	}
	_, wait, err := s.compare(r, v, token)
	switch {
	case errors.Is(err, errWrongToken):
		s.unauthorized(w, r, v)
	case err != nil:
		s.broken(w, r, v, err)
	case wait > 0:
		s.tooMany(w, r, v, wait)
	default:
		v.token = true
	}
	return v.token
}

var errWrongToken = errors.New("this is not the operator's token")

// compare says whether a token is the operator's, or how long to wait because so
// many were not. It returns the hash of the token.
func (s *site) compare(r *http.Request, v *visit, token string) (hash [32]byte, wait time.Duration, err error) {
	tokens, err := s.Tokens()
	if err != nil {
		return hash, 0, fmt.Errorf("read the operator's token: %w", err)
	}
	hash = sha256.Sum256([]byte(token))
	right := 0
	for _, t := range tokens {
		right |= subtle.ConstantTimeCompare(hash[:], t[:])
	}
	wait, err = s.Gateway.CountToken(r.Context(), v.ip, right == 1)
	switch {
	case err != nil:
		return hash, 0, err
	case right != 1:
		s.Logger.WarnContext(r.Context(), "a wrong token was presented at the operator's page", "client_ip", v.ip)
	}
	if wait == 0 && right != 1 {
		err = errWrongToken
	}
	return hash, wait, err
}

// unauthorized answers who has neither token nor session: a person is shown where
// to sign in, a program is told.
func (s *site) unauthorized(w http.ResponseWriter, r *http.Request, v *visit) {
	if forPrograms(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="Enlist gateway, operator"`)
		s.refuse(w, r, v, http.StatusUnauthorized, "this needs the operator's token, as 'Authorization: Bearer TOKEN': enlist gateway admin-token says where it lies")
		return
	}
	if safe(r.Method) {
		http.Redirect(w, r, signInAt(r.URL), http.StatusSeeOther)
		return
	}
	s.showSignIn(w, r, v, http.StatusUnauthorized, signInView{Problem: "The session has ended, and nothing was changed. Sign in and do it once more."})
}

func (s *site) tooMany(w http.ResponseWriter, r *http.Request, v *visit, wait time.Duration) {
	seconds := int((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	if !forPrograms(r) && r.URL.Path == signInPath {
		s.showSignIn(w, r, v, http.StatusTooManyRequests, signInView{
			Problem: fmt.Sprintf("Too many wrong tokens came lately. Try again in %d seconds.", seconds),
		})
		return
	}
	s.refuse(w, r, v, http.StatusTooManyRequests, fmt.Sprintf("too many wrong tokens came lately: try again in %d seconds", seconds))
}

// broken answers when the gateway could not.
func (s *site) broken(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		s.fail(w, r, v, http.StatusNotFound, "")
		return
	case errors.Is(err, embeddedgateway.ErrQuery), errors.Is(err, store.ErrText):
		s.fail(w, r, v, http.StatusBadRequest, "")
		return
	case r.Context().Err() != nil: // the visitor has left
		s.Logger.DebugContext(r.Context(), "a request for the operator's page was given up", "path", r.URL.Path, "error", err)
	default:
		s.Logger.ErrorContext(r.Context(), "the operator's page could not be made", "path", r.URL.Path, "error", err)
	}
	s.fail(w, r, v, http.StatusServiceUnavailable, "")
}

// forPrograms reports whether a program asks, which wants no page.
func forPrograms(r *http.Request) bool {
	path := r.URL.Path
	return strings.HasPrefix(path, "/api/") || path == openAPIPath || path == "/metrics" || path == "/live" ||
		len(r.Header.Values("Authorization")) > 0
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}
