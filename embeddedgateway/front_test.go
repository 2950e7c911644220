package embeddedgateway_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestEveryProtocolOpensTheAPI(t *testing.T) {
	gw := fronted(t)
	entrances := embeddedgateway.Entrances(gw.Embedded())
	var want []string
	for _, p := range wire.Protocols() {
		want = append(want, p.Name)
		for _, h := range p.Headers {
			if !embeddedgateway.Secret(h) {
				t.Errorf("%s presents credentials in %s, which the API would get", p.Name, h)
			}
		}
	}
	if got := slices.Sorted(maps.Keys(entrances)); !slices.Equal(got, want) {
		t.Errorf("the credentials of %v open the API, want those of %v", got, want)
	}
	for name, path := range entrances {
		if a := send(t, gw, http.MethodGet, path, "", nil); a.status == http.StatusNotFound {
			t.Errorf("%s says that registering begins at %s: there is nothing", name, path)
		}
	}
}

func TestScopesGuardMethodsAndPaths(t *testing.T) {
	gw := gatewaytest.New(t, loopback(), guarded(
		embeddedgateway.Rule{Path: "/reports", Scopes: []string{"weather.read"}},
		embeddedgateway.Rule{Path: "/reports/", Methods: []string{"DELETE", "POST"}, Scopes: []string{"weather.read", "weather.write"}},
		embeddedgateway.Rule{Path: "/reports/public"},
		embeddedgateway.Rule{Path: "/reports/public/drafts", Methods: []string{"GET"}, Scopes: []string{"weather.write"}},
		embeddedgateway.Rule{Path: "/caf%C3%A9", Scopes: []string{"weather.write"}},
		embeddedgateway.Rule{Path: "/lona", Scopes: []string{"anything"}},
	), gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partnerSecret, "AGENTDOOR_SCOPES": `[
		{"id":"weather.read","description":"Read"},{"id":"weather.write","description":"Write"}]`}))
	id, message := func() (string, string) {
		a := doorBegin(t, gw, pair("reader").public(), map[string]any{"scopes_requested": []string{"weather.read"}}, nil)
		return a.at("agent_id"), a.at("challenge", "message")
	}()
	reader := doorVerify(t, gw, id, pair("reader").sign(message))
	lona := token(t, gw, "trader")
	for _, who := range []struct {
		name   string
		header header
		sees   func(allowed, needsScope bool) bool
	}{
		{"the key of a reader", bearer(reader.at("api_key")), func(allowed, _ bool) bool { return allowed }},
		{"the JWT of a reader", bearer(reader.at("token")), func(allowed, _ bool) bool { return allowed }},
		{"a permission for everything", header{"X-API-Key": lona, "X-User-Id": "trader"}, func(bool, bool) bool { return true }},
		{"a protocol without scopes", bearer(ltxKey(t, gw, "scout")), func(_, needsScope bool) bool { return !needsScope }},
	} {
		for _, tc := range []struct {
			method, uri         string
			allowed, needsScope bool
		}{
			{"GET", "/", true, false},
			{"GET", "/reportsx", true, false},
			{"GET", "/REPORTS", true, false},
			{"GET", "/reports", true, true},
			{"GET", "/reports/", true, true},
			{"GET", "/reports/7?public", true, true},
			{"PUT", "/reports/7", true, true},
			{"POST", "/reports", false, true},
			{"POST", "/reports/7", false, true},
			{"DELETE", "/reports/7/x", false, true},
			{"DELETE", "/reports/publicity", false, true},
			{"DELETE", "/reports/public", true, false},
			{"POST", "/reports/public/x", true, false},
			{"GET", "/reports/public/drafts", false, true},
			{"HEAD", "/reports/public/drafts/1", false, true},
			{"POST", "/reports/public/drafts", true, false},
			{"GET", "/caf%c3%a9/x", false, true},
			{"GET", "/caf%C3%A9", false, true},
			{"GET", "/lona", false, true},
		} {
			t.Run(fmt.Sprint(who.name, " ", tc.method, " ", tc.uri), func(t *testing.T) {
				a := asks(t, gw, tc.method, tc.uri, who.header)
				if who.sees(tc.allowed, tc.needsScope) {
					wantStatus(t, a, http.StatusOK, "")
					return
				}
				wantStatus(t, a, http.StatusForbidden, "insufficient_scope")
				if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, `scope="`) {
					t.Errorf("got WWW-Authenticate %q", got)
				}
			})
		}
	}
}

func TestRulesThatAreWrongStopTheStart(t *testing.T) {
	for name, tc := range map[string]struct {
		rules []embeddedgateway.Rule
		want  string
	}{
		"no path":             {[]embeddedgateway.Rule{{}}, `rule 1 (path ""): path must be one`},
		"not from the root":   {[]embeddedgateway.Rule{{Path: "/"}, {Path: "reports"}}, `rule 2 (path "reports"): path must be one`},
		"dots":                {[]embeddedgateway.Rule{{Path: "/a/../b"}}, "path must be one"},
		"a query":             {[]embeddedgateway.Rule{{Path: "/a?b"}}, "path must be one"},
		"a method in lower":   {[]embeddedgateway.Rule{{Path: "/a", Methods: []string{"get"}}}, `methods: "get" is none`},
		"two scopes in one":   {[]embeddedgateway.Rule{{Path: "/a", Scopes: []string{"a b"}}}, `scopes: "a b" is none`},
		"an empty scope":      {[]embeddedgateway.Rule{{Path: "/a", Scopes: []string{""}}}, `scopes: "" is none`},
		"twice":               {[]embeddedgateway.Rule{{Path: "/a"}, {Path: "/a/"}}, "another rule has the same path and method"},
		"twice for a method":  {[]embeddedgateway.Rule{{Path: "/a", Methods: []string{"GET", "PUT"}}, {Path: "/a", Methods: []string{"PUT"}}}, "same path and method"},
		"twice, as GET: HEAD": {[]embeddedgateway.Rule{{Path: "/a", Methods: []string{"GET"}}, {Path: "/a", Methods: []string{"HEAD"}}}, "same path and method"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			c.Front = &embeddedgateway.Front{Rules: tc.rules}
			g, err := embeddedgateway.New(t.Context(), c)
			if err == nil {
				_ = g.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestPathsThatAreReadInTwoWaysAreRefused(t *testing.T) {
	gw := fronted(t)
	key := bearer(ltxKey(t, gw, "scout"))
	for _, uri := range []string{
		"/a/../b", "/..", "/.", "/a/.", "/a/./b", "//", "//a", "/a//b", "/a//", "/a/%2e%2e/b", "/a/%2E/b", "/a/.%2e/b", "/a%2fb", "/a%2Fb",
		`/a\b`, "/a%5cb", "/a%5Cb", "/a%00b", "/a%0ab", "/a%7fb", "/%61dmin", "/a%2Db", "/a%7Eb", "/%5F", "/a%252e", "/a%252Fb", "/a%25%32%65",
		"/a;b", "/a/..;/b", "/a%3bb", "/a%", "/a%2", "/a%zz", "/a%u0041", "/a%c0%af", "/a%ff", "/caf\u00e9", "/a|b", "/a[0]", "/a#b", "/a b",
		"a", "", "*", "http://127.0.0.1/a", "?a", "/" + strings.Repeat("a", 9000),
	} {
		t.Run(uri[:min(20, len(uri))], func(t *testing.T) {
			h := http.Header{"Authorization": {key["Authorization"]}}
			if a := verifyWith(t, gw, h, http.MethodGet, uri); a.status != http.StatusBadRequest {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	for _, uri := range []string{"/", "/a", "/a/", "/a.b/..c/...", "/a%20b", "/caf%C3%A9", "/a%25b", "/a%3Fb", "/a:b@c,d=e+f!$&'()*~-_", "/a?b=../c//%2f;"} {
		if a := asks(t, gw, http.MethodGet, uri, key); a.status != http.StatusOK {
			t.Errorf("%s: got %d %s", uri, a.status, a.body)
		}
	}
}

// FuzzPlainPath: what is taken for plain is one path for everybody who cleans,
// decodes, or decodes twice.
func FuzzPlainPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a%20b", "/a%2fb", "/a/../b", "/a%25b", "/caf%C3%A9", "/a;b", "/%2525"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		plain, ok := embeddedgateway.PlainPath(escaped)
		if !ok {
			return
		}
		want := path.Clean(plain)
		if strings.HasSuffix(plain, "/") && want != "/" {
			want += "/"
		}
		if plain != want {
			t.Errorf("cleaning changes %q, the plain form of %q", plain, escaped)
		}
		if strings.Count(plain, "/") != strings.Count(escaped, "/") {
			t.Errorf("%q has other segments than %q", plain, escaped)
		}
		if twice, err := url.PathUnescape(plain); err == nil && strings.Contains(plain, "%") && twice != plain {
			t.Errorf("decoding %q again changes it to %q", plain, twice)
		}
	})
}

func TestMethodsThatAreReadInTwoWaysAreRefused(t *testing.T) {
	gw := fronted(t)
	key := bearer(ltxKey(t, gw, "scout"))
	for _, method := range []string{"get", "Get", "GET POST", "GET,POST", "", "G3T"} {
		h := http.Header{"Authorization": {key["Authorization"]}}
		if a := verifyWith(t, gw, h, method, "/"); a.status != http.StatusBadRequest {
			t.Errorf("%q: got %d %s", method, a.status, a.body)
		}
	}
	for _, method := range []string{"TRACE", "CONNECT"} {
		wantStatus(t, asks(t, gw, method, "/", key), http.StatusForbidden, "method_refused")
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X_HTTP_METHOD_OVERRIDE", "x-http-method", "X-Method-Override"} {
		wantStatus(t, asks(t, gw, http.MethodPost, "/", key, header{name: "DELETE"}), http.StatusBadRequest, "method_override")
	}
}

func TestStripLeavesNothingThatOnlyTheGatewayMaySay(t *testing.T) {
	h := http.Header{
		"X-Enlist-Agent": {"lona/root"}, "X_enlist_agent": {"lona/root"}, "X-Enlist_Agent": {"lona/root"}, "x-enlist-scopes": {"*"}, "X-ENLIST-ANYTHING": {"1"},
		"X_Enlist-Token": {"eyJ"}, "X-Enlist-": {"1"},
		"Authorization": {"Bearer ltx_x"}, "authorization": {"Bearer ltx_x"}, "X-Api-Key": {"lk_x"}, "X_API_KEY": {"lk_x"}, "X-User-Id": {"a"}, "X_User_Id": {"a"},
		"X-Agent-Registration-Secret": {"s"},
		"Connection":                  {"keep-alive, X-Enlist-Agent", "x_enlist_token", "Upgrade,Authorization"},
		"Trailer":                     {"X-Enlist-Scopes"},
		"Accept":                      {"*/*"}, "X-Enlisted": {"1"}, "Xenlist-Agent": {"1"}, "Cookie": {"session=1"}, "X-Api-Key-Id": {"7"},
	}
	embeddedgateway.Strip(h)
	want := http.Header{
		"Connection": {"keep-alive, Upgrade"}, "Accept": {"*/*"}, "X-Enlisted": {"1"}, "Xenlist-Agent": {"1"}, "Cookie": {"session=1"}, "X-Api-Key-Id": {"7"},
	}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("left is\n%v, want\n%v", h, want)
	}
	embeddedgateway.Strip(nil)
}

func TestVerifyBelievesOnlyTrustedProxies(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.TrustedProxies(netip.MustParsePrefix("192.0.2.0/24")))
	a := asks(t, gw, http.MethodGet, "/", bearer(ltxKey(t, gw, "scout")))
	wantStatus(t, a, http.StatusForbidden, "untrusted_proxy")
	if !strings.Contains(string(a.body), "ENLIST_TRUSTED_PROXIES") || a.header.Get("X-Enlist-Token") != "" {
		t.Errorf("got %s", a.body)
	}
	a = asks(t, gw, http.MethodGet, "/", header{"X-Forwarded-For": "192.0.2.7"})
	wantStatus(t, a, http.StatusForbidden, "untrusted_proxy")
	if event := last(t, gw); event.Name != "refused:untrusted_proxy" || event.Count != 2 {
		t.Errorf("the audit trail ends with %+v", event)
	}
}

func TestVerifyWantsOneOriginalRequest(t *testing.T) {
	gw := fronted(t, embeddedgateway.Rule{Path: "/reports", Scopes: []string{"none"}})
	key := bearer(ltxKey(t, gw, "scout"))["Authorization"]
	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		status             int
		code               string
	}{
		{"nothing", "GET", "", nil, 400, "original_request"},
		{"nginx", "GET", "", http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/a"}}, 200, ""},
		{"nginx guarded", "GET", "", http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/reports"}}, 403, "insufficient_scope"},
		{"nginx without a method", "GET", "", http.Header{"X-Original-Uri": {"/a"}}, 400, "original_request"},
		{"nginx without a URI", "GET", "", http.Header{"X-Original-Method": {"GET"}}, 400, "original_request"},
		{"two URIs", "GET", "", http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/a", "/reports"}}, 400, "original_request"},
		{"two methods", "GET", "", http.Header{"X-Original-Method": {"GET", "GET"}, "X-Original-Uri": {"/a"}}, 400, "original_request"},
		{"Caddy, Traefik", "GET", "", http.Header{"X-Forwarded-Method": {"POST"}, "X-Forwarded-Uri": {"/a?b=c"}}, 200, ""},
		{"Caddy guarded", "GET", "", http.Header{"X-Forwarded-Method": {"POST"}, "X-Forwarded-Uri": {"/reports?b=c"}}, 403, "insufficient_scope"},
		{"Caddy without a URI", "GET", "", http.Header{"X-Forwarded-Method": {"POST"}}, 400, "original_request"},
		{"nginx and Caddy", "GET", "", http.Header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/a"}, "X-Original-Method": {"GET"}, "X-Original-Uri": {"/a"}}, 400, "original_request"},
		{"nginx and half of Caddy", "GET", "", http.Header{"X-Forwarded-Uri": {"/a"}, "X-Original-Method": {"GET"}, "X-Original-Uri": {"/a"}}, 400, "original_request"},
		{"Envoy", "DELETE", "/a/b?c=d", nil, 200, ""},
		{"Envoy at the root", "GET", "/", nil, 200, ""},
		{"Envoy guarded", "DELETE", "/reports/7", nil, 403, "insufficient_scope"},
		{"Envoy with dots", "GET", "/a/../reports", nil, 400, "invalid_path"},
		{"Envoy with an encoded letter", "GET", "/%72eports", nil, 400, "invalid_path"},
		{"Envoy with empty segments", "GET", "//reports", nil, 400, "invalid_path"},
		{"Envoy and nginx", "GET", "/a", http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/a"}}, 400, "original_request"},
		{"an underscore", "GET", "/a", http.Header{"X_enlist_agent": {"lona/root"}}, 400, "spoofed_header"},
		{"a mixed one", "GET", "/a", http.Header{"X-Enlist_Agent": {"lona/root"}}, 400, "spoofed_header"},
		{"one that the proxy cannot know", "GET", "/a", http.Header{"X-Enlist-Role": {"root"}}, 400, "spoofed_header"},
		{"a credential with an underscore", "GET", "/a", http.Header{"X_api_key": {"lk_x"}}, 400, "spoofed_header"},
		{"one that the proxy replaces", "GET", "/a", http.Header{"X-Enlist-Agent": {"lona/root"}}, 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{"Authorization": {key}}
			maps.Copy(h, tc.header)
			a := raw(t, gw, tc.method, verifyPath+tc.path, h)
			wantStatus(t, a, tc.status, tc.code)
			if got, want := a.header.Get("X-Enlist-Agent"), "lithtrix/scout/you@example.com"; tc.status == 200 && got != want {
				t.Errorf("got the agent %q, want %q", got, want)
			}
		})
	}
	for _, path := range []string{"/.enlist/verifyx", "/.enlist", "/.enlist/", "/.enlist/../a"} {
		if a := send(t, gw, http.MethodGet, path, "", nil); a.status != http.StatusNotFound {
			t.Errorf("%s: got %d", path, a.status)
		}
	}
}

func TestTheAPIIsToldOfStrangeNamesInVisibleASCII(t *testing.T) {
	gw := gatewaytest.New(t, loopback(), gatewaytest.Env(map[string]string{
		"AGENT_REGISTRATION_SECRET": partnerSecret, "AGENT_DEFAULT_PERMISSIONS": "read all,100%,write",
	}))
	a := ltxRegister(t, gw, "scout", "Zo\u00eb \"the\" boss, 100%", nil, nil)
	ltxWant(t, a, http.StatusCreated, "")
	got := asks(t, gw, http.MethodGet, "/", bearer(a.at("api_key"))).header
	if want := "lithtrix/scout/Zo%C3%AB%20%22the%22%20boss,%20100%25"; got.Get("X-Enlist-Agent") != want {
		t.Errorf("got the agent %q, want %q", got.Get("X-Enlist-Agent"), want)
	}
	if said := verifyAssertion(t, gw, got.Get("X-Enlist-Token")); said["sub"] != "lithtrix/scout/Zo\u00eb \"the\" boss, 100%" {
		t.Errorf("got the subject %q", said["sub"])
	}
	got = asks(t, gw, http.MethodGet, "/", header{"X-API-Key": token(t, gw, "trader"), "X-User-Id": "trader"}).header
	if want := "read%20all 100%25 write"; got.Get("X-Enlist-Scopes") != want {
		t.Errorf("got the scopes %q, want %q: a space in one must not make two", got.Get("X-Enlist-Scopes"), want)
	}
}

func TestVerifyGoesByTheClientsAddressInTheAuditTrail(t *testing.T) {
	gw := fronted(t)
	for range 3 {
		wantStatus(t, asks(t, gw, http.MethodGet, "/", header{"X-Forwarded-For": "198.51.100.9"}), http.StatusUnauthorized, "no_credential")
	}
	events := gw.Audit(t)
	if len(events) != 1 || events[0].IP != "198.51.100.9" || events[0].Count != 3 || events[0].Name != "refused:no_credential" {
		t.Errorf("got %+v, want one event of three refusals of 198.51.100.9", events)
	}
}

func TestARefusalIsAlwaysJSONAndSaysNothingOfAFault(t *testing.T) {
	gw := fronted(t)
	w := httptest.NewRecorder()
	embeddedgateway.Refuse(gw.Embedded(), w, httptest.NewRequest(http.MethodGet, "/", nil), errors.New("the password is hunter2"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	gw.Embedded().Close()
	a := asks(t, gw, http.MethodGet, "/", header{"Authorization": "Bearer ltx_aaaaaaaaaaaaaaaaaaaa"})
	wantStatus(t, a, http.StatusServiceUnavailable, "unavailable")
}
