package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

const (
	agentDoorPath    = "/.well-known/agentdoor.json"
	capabilitiesPath = "/v1/capabilities"
	healthPath       = "/health"
	verifyEmailPath  = "/api/auth/verify-email"
)

const agentDoorDocument = `{
  "agentdoor_version": "1.0",
  "service_name": "Weather",
  "service_description": "Forecasts for agents",
  "registration_endpoint": "/agentdoor/register",
  "auth_endpoint": "/agentdoor/auth",
  "scopes_available": [
    {"id": "weather.read", "description": "Read the weather"},
    {"id": "forecast.read", "description": "Read forecasts", "price": "$0.001/req", "rate_limit": "100/1h"}
  ],
  "auth_methods": ["ed25519-challenge", "jwt"],
  "rate_limits": {"registration": "10/1h", "default": "1000/1h"},
  "companion_protocols": {},
  "payment": {"protocol": "x402", "version": "2.0", "networks": ["base"], "currency": ["USDC"]}
}`

// nothing is a service with the routes that a test gives it, and no other.
func nothing(t *testing.T, routes map[string]http.HandlerFunc) *service {
	t.Helper()
	s := newService(t)
	for path, h := range routes {
		s.on(path, h)
	}
	return s
}

// looking returns a client that looks for every protocol.
func looking(t *testing.T, s setup) *fixture {
	t.Helper()
	f := newFixture(t, s)
	f.WithProbes()
	return f
}

// discovered returns what was found as "protocol confidence evidence…".
func discovered(t *testing.T, url string) []string {
	t.Helper()
	found, err := looking(t, setup{}).Discover(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range found.Protocols {
		out = append(out, fmt.Sprintf("%s %s %d", d.Protocol, d.Confidence, len(d.Evidence)))
	}
	return out
}

func TestDiscoverAGatewayOfOurs(t *testing.T) {
	got := discovered(t, gatewaytest.New(t).URL)
	for _, want := range []string{"lithtrix certain 1", "lona certain 2", "lumina certain 2"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestWhatSpeaksForAProtocol(t *testing.T) {
	capabilities := string(readExchange(t, "lithtrix/capabilities.txtar").answer)
	postOnly := reply(405, `{"error":"method"}`, "Allow", "OPTIONS, post")
	for _, tt := range []struct {
		name   string
		routes map[string]http.HandlerFunc
		want   string
	}{
		{"nothing", map[string]http.HandlerFunc{strategiesPath: reply(404, "")}, ""},
		{"Lona", map[string]http.HandlerFunc{
			strategiesPath: reply(401, `{"error":{"code":"unauthorized","message":"no"}}`), invitePath: postOnly,
		}, "lona certain 2"},
		{"Lona with another code", map[string]http.HandlerFunc{
			strategiesPath: reply(401, `{"message":"who?"}`), invitePath: postOnly,
		}, "lona likely 1"},
		{"Lona without the invites", map[string]http.HandlerFunc{
			strategiesPath: reply(401, `{"error":{"code":"unauthorized"}}`), invitePath: reply(404, ""),
		}, "lona likely 1"},
		{"Lona's routes with other methods", map[string]http.HandlerFunc{
			strategiesPath: reply(200, "[]"), invitePath: reply(405, "", "Allow", "PUT"),
		}, ""},
		{"Lithtrix", map[string]http.HandlerFunc{strategiesPath: reply(404, ""), capabilitiesPath: reply(200, capabilities)}, "lithtrix certain 1"},
		{"Lithtrix by its routes", map[string]http.HandlerFunc{
			strategiesPath:   reply(404, ""),
			capabilitiesPath: reply(200, `{"service":"search","endpoints":["POST /v1/register"]}`),
		}, "lithtrix likely 1"},
		{"somebody else's capabilities", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), capabilitiesPath: reply(200, `{"service":"search","endpoints":{"a":"/v1/a"}}`),
		}, ""},
		{"a page for everything", map[string]http.HandlerFunc{
			strategiesPath: reply(200, "<html>"), capabilitiesPath: reply(200, "<html>"), agentDoorPath: reply(200, "<html>"),
			healthPath: reply(200, "<html>"), keysPath: reply(200, "<html>"), verifyEmailPath: reply(200, "<html>"),
		}, ""},
		{"Lumina", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""),
			keysPath:       reply(401, `{"error":"missing_api_key","code":"missing_api_key"}`), onboardPath: postOnly,
		}, "lumina certain 2"},
		{"Lumina by one route", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), keysPath: reply(401, `{"code":"missing_api_key"}`),
		}, "lumina likely 1"},
		{"keys of somebody else's", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), keysPath: reply(401, `{"code":"unauthorized"}`),
		}, ""},
		{"a health check", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), healthPath: reply(200, `{"status":"healthy","version":"1"}`),
		}, "fluxra weak 1"},
		{"a sick one", map[string]http.HandlerFunc{strategiesPath: reply(404, ""), healthPath: reply(200, `{"status":"ill"}`)}, ""},
		{"Fluxra", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), healthPath: reply(200, `{"status":"healthy"}`),
			verifyEmailPath: reply(400, `{"error":{"code":"INVALID_REQUEST","message":"token"}}`),
		}, "fluxra certain 2"},
		{"Fluxra without a health check", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), verifyEmailPath: reply(401, `{"error":{"code":"INVALID_TOKEN","message":"token"}}`),
		}, "fluxra likely 1"},
		{"AgentDoor", map[string]http.HandlerFunc{strategiesPath: reply(404, ""), agentDoorPath: reply(200, agentDoorDocument)}, "agentdoor certain 1"},
		{"a document of something else", map[string]http.HandlerFunc{strategiesPath: reply(404, ""), agentDoorPath: reply(200, `{"a":1}`)}, ""},
		{"two at once, the surer first", map[string]http.HandlerFunc{
			strategiesPath: reply(404, ""), healthPath: reply(200, `{"status":"healthy"}`), keysPath: reply(401, `{"code":"missing_api_key"}`),
		}, "lumina likely 1,fluxra weak 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(discovered(t, nothing(t, tt.routes).URL+"/docs?key=1#x"), ","); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWhatAServiceAnswersToEverythingSaysNothing(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"unauthorized":      reply(401, `{"error":{"code":"unauthorized"}}`),
		"no key":            reply(401, `{"code":"missing_api_key"}`),
		"POST only":         reply(405, "", "Allow", "POST"),
		"an invalid one":    reply(400, `{"error":{"code":"INVALID_REQUEST"}}`),
		"a server error":    reply(500, `{"error":{"code":"unauthorized"}}`),
		"an empty document": reply(200, `{}`),
		"no document":       reply(200, `null`),
		"a list":            reply(200, `[]`),
		"a redirect":        reply(302, "", "Location", "/"),
	} {
		s := newService(t)
		s.otherwise(h)
		if got := discovered(t, s.URL); len(got) != 0 {
			t.Errorf("%s: got %q, want nothing", name, got)
		}
	}
}

func TestDiscoveringAsksWithoutACredential(t *testing.T) {
	s := nothing(t, map[string]http.HandlerFunc{agentDoorPath: reply(200, agentDoorDocument, "Set-Cookie", "a=b; Path=/")})
	f := looking(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LITHTRIX_API_URL": s.URL, "LUMINA_API_URL": s.URL}})
	f.register(t, "my-agent")
	before := len(s.seen(""))

	for range 2 {
		if _, err := f.Discover(t.Context(), s.URL); err != nil {
			t.Fatal(err)
		}
	}

	asked := s.seen("")[before:]
	if len(asked) > 2*9 {
		t.Errorf("got %d requests, want at most nine for each", len(asked))
	}
	for _, r := range asked {
		if r.Method != "GET" || len(r.Body) != 0 || r.Query != "" {
			t.Errorf("sent %s %s?%s, want a plain GET", r.Method, r.Path, r.Query)
		}
		for _, name := range []string{"Authorization", "X-Api-Key", "X-User-Id", "Cookie", "X-Agent-Registration-Secret"} {
			if r.Header.Get(name) != "" {
				t.Errorf("%s: sent %s", r.Path, name)
			}
		}
	}
}

func TestWhatAnAgentDoorServiceAsksFor(t *testing.T) {
	s := nothing(t, map[string]http.HandlerFunc{agentDoorPath: reply(200, agentDoorDocument), strategiesPath: reply(404, "")})

	found, err := looking(t, setup{}).Discover(t.Context(), s.URL)

	if err != nil || len(found.Protocols) != 1 {
		t.Fatalf("got %+v (%v), want one protocol", found, err)
	}
	got := found.Protocols[0]
	want := gateway.Said{
		Service: "Weather", Description: "Forecasts for agents", Version: "1.0",
		Payment: `{"protocol":"x402","version":"2.0","networks":["base"],"currency":["USDC"]}`,
		Scopes: []gateway.Scope{
			{ID: "weather.read", Description: "Read the weather"},
			{ID: "forecast.read", Description: "Read forecasts", Price: "$0.001/req", RateLimit: "100/1h"},
		},
	}
	if fmt.Sprint(got.Said) != fmt.Sprint(want) || !got.RequiresPayment || got.Problem != "" || found.Origin != s.URL {
		t.Errorf("got %+v, want %+v, to be paid for, without a problem", got, want)
	}
}

func TestAnAgentDoorDocumentThatNobodyCanRegisterBy(t *testing.T) {
	for change, want := range map[string]string{
		`"registration_endpoint": "/agentdoor/register" -> "registration_endpoint": "https://elsewhere.example/register"`: "another origin",
		`"registration_endpoint": "/agentdoor/register" -> "registration_endpoint": "//elsewhere.example/register"`:       "another origin",
		`"auth_endpoint": "/agentdoor/auth" -> "auth_endpoint": "http://127.0.0.1:1/agentdoor/auth"`:                      "another origin",
		`"auth_endpoint": "/agentdoor/auth" -> "auth_endpoint": "/a/%2e%2e/auth"`:                                         "not a plain path",
		`"auth_endpoint": "/agentdoor/auth" -> "auth_endpoint": "/%zz"`:                                                   "not valid",
		`"auth_endpoint": "/agentdoor/auth", -> `:                                                                         "no auth_endpoint",
		`"registration_endpoint": "/agentdoor/register" -> "registration_endpoint": ""`:                                   "no registration_endpoint",
		`"service_name": "Weather" -> "service_name": null`:                                                               "no service_name",
		`"scopes_available" -> "scopes"`:                                                                                  "no scope",
		`"description" -> "title"`:                                                                                        "no scope",
	} {
		from, to, _ := strings.Cut(change, " -> ")
		s := nothing(t, map[string]http.HandlerFunc{agentDoorPath: reply(200, strings.ReplaceAll(agentDoorDocument, from, to))})
		found, err := looking(t, setup{}).Discover(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(found.Protocols, func(d gateway.Discovery) bool { return d.Protocol == "agentdoor" })
		if i < 0 || !strings.Contains(found.Protocols[i].Problem, want) || strings.Contains(found.Protocols[i].Problem, "elsewhere") {
			t.Errorf("%s: got %+v, want that it has a problem: %s", change, found.Protocols, want)
		}
	}
}

func TestWordsOfADiscoveredServiceAreCleaned(t *testing.T) {
	quoted := strings.ReplaceAll(opaque, `"`, `\"`)
	scopes := []string{
		`{"id":"a.read","description":"\u001b[31mred\u202e, ` + quoted + ` and ` + strings.Repeat("long ", 200) + `","price":{"amount":1,"per":"call"}}`,
		`{"id":"two words","description":"x"}`, `{"id":"` + quoted + `","description":"x"}`, `{"id":"\u202eb","description":"x"}`,
		`{"id":7,"description":"a number"}`, `{"description":"x"}`, `"text"`, `null`,
	}
	for n := range 40 {
		scopes = append(scopes, fmt.Sprintf(`{"id":"s%d","description":"x"}`, n))
	}
	s := nothing(t, map[string]http.HandlerFunc{agentDoorPath: reply(200, `{"agentdoor_version":"1.0","service_name":"Ignore\nall \u200b`+quoted+
		`","registration_endpoint":"/r","auth_endpoint":"/a","scopes_available":[`+strings.Join(scopes, ",")+`],"payment":{}}`)})
	f := looking(t, setup{})
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey(lonaOrigin, "my-agent")}, Secret: credstore.NewSecret(opaque)})

	found, err := f.Discover(t.Context(), s.URL)

	if err != nil || len(found.Protocols) == 0 {
		t.Fatalf("got %+v (%v)", found, err)
	}
	d := found.Protocols[0]
	text := fmt.Sprintf("%+v", d)
	noSecret(t, "what was found", text, opaque, "\x1b", "\u202e", "\u200b", "\n")
	if d.Said.Service != "Ignore all [redacted]" || d.RequiresPayment {
		t.Errorf("got %+v, want the name on one line and no payment", d)
	}
	if len(d.Said.Scopes) != 30 || d.Said.MoreScopes != len(scopes)-30 || d.Said.Scopes[1].ID != "7" {
		t.Errorf("got %d scopes and %d more, want 30 and the rest", len(d.Said.Scopes), d.Said.MoreScopes)
	}
	if first := d.Said.Scopes[0]; len([]rune(first.Description)) != 200 || !strings.HasPrefix(first.Description, "red, [redacted]") || first.Price != `{"amount":1,"per":"call"}` {
		t.Errorf("got %+v, want it cleaned and cut", first)
	}
}

func TestDiscoveringFollowsRedirectsWithinTheService(t *testing.T) {
	other := newService(t)
	s := nothing(t, map[string]http.HandlerFunc{
		agentDoorPath:    reply(301, "", "Location", "/moved.json"),
		"/moved.json":    reply(200, agentDoorDocument),
		capabilitiesPath: reply(302, "", "Location", other.URL+capabilitiesPath),
		keysPath:         reply(302, "", "Location", invitePath), // it issues
		strategiesPath:   reply(302, "", "Location", "https://10.0.0.1/"),
		healthPath:       reply(302, "", "Location", healthPath),
	})

	found, err := looking(t, setup{}).Discover(t.Context(), s.URL)

	if err != nil || len(found.Protocols) != 1 || found.Protocols[0].Protocol != "agentdoor" || !slices.Contains(found.Unanswered, "lithtrix") {
		t.Errorf("got %+v (%v), want what was within, and that the other is not known", found, err)
	}
	if got := len(s.seen("")); got > 9+16 || len(other.seen("")) != 0 {
		t.Errorf("got %d requests, and %d elsewhere", got, len(other.seen("")))
	}

	s.otherwise(reply(307, "", "Location", other.URL+"/"))
	for _, path := range []string{agentDoorPath, capabilitiesPath, keysPath, strategiesPath, healthPath} {
		s.on(path, reply(307, "", "Location", other.URL+"/x?secret=1"))
	}
	_, err = looking(t, setup{}).Discover(t.Context(), s.URL)
	if e := wantError(t, err, gateway.CodeRedirect); !strings.Contains(e.Error(), other.URL) || strings.Contains(e.Error(), "secret") {
		t.Errorf("got %v, want the other origin and no more", e)
	}
}

func TestAServiceThatAnswersHalf(t *testing.T) {
	s := nothing(t, map[string]http.HandlerFunc{agentDoorPath: reply(200, agentDoorDocument), strategiesPath: reply(404, "")})
	s.on(capabilitiesPath, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

	found, err := looking(t, setup{timeout: 300 * time.Millisecond}).Discover(t.Context(), s.URL)

	if err != nil || len(found.Protocols) != 1 || !slices.Equal(found.Unanswered, []string{"lithtrix"}) {
		t.Errorf("got %+v (%v), want what answered, and what did not", found, err)
	}
}

func TestWhereNothingIsDiscovered(t *testing.T) {
	for at, code := range map[string]string{
		"":                              gateway.CodeInvalidInput,
		"api.example.com":               gateway.CodeInvalidInput,
		"localhost:8080":                gateway.CodeInvalidInput,
		"ftp://example.com":             gateway.CodeInvalidInput,
		"http://example.com":            gateway.CodeInvalidInput,
		"https://user:pass@example.com": gateway.CodeInvalidInput,
		"https://bücher.example":        gateway.CodeInvalidInput,
		"https://example.com:":          gateway.CodeInvalidInput,
		"http://10.0.0.1":               gateway.CodeInvalidInput,
		"http://2130706433":             gateway.CodeInvalidInput,
		"https://10.0.0.1/x":            gateway.CodeAddressRefused,
		"https://169.254.169.254":       gateway.CodeAddressRefused,
		"https://[fd00:ec2::254]":       gateway.CodeAddressRefused,
		"https://inside.example":        gateway.CodeAddressRefused,
		"http://127.0.0.1:1":            gateway.CodeUnreachable,
	} {
		n := &names{answers: map[string][][]string{"inside.example": {{"192.168.1.1"}}}}
		var l line
		f := looking(t, setup{transport: gateway.TransportWith(n.resolver(), l.connecting)})
		_, err := f.Discover(t.Context(), at)
		e := wantError(t, err, code)
		if e.Sent || strings.Contains(e.Error(), "pass") || code != gateway.CodeUnreachable && len(l.told) != 0 {
			t.Errorf("%s: got %+v, connections to %v; want that nothing was sent", at, e, l.told)
		}
	}
}

func TestNothingIsSentWhileWordsCannotBeCleaned(t *testing.T) {
	s := newService(t)
	f := looking(t, setup{store: &failing{Store: credstore.NewMemory(frozen), list: errLocked}})
	if _, err := f.Discover(t.Context(), s.URL); !errors.Is(err, credstore.ErrUnavailable) || len(s.seen("")) != 0 {
		t.Errorf("got %v after %d requests, want the store's error and none", err, len(s.seen("")))
	}
}

func TestTheServicesOwnAddressIsEvidence(t *testing.T) {
	s := newService(t)
	s.otherwise(reply(404, ""))
	f := looking(t, setup{transport: rerouted{s.URL}})
	found, err := f.Discover(t.Context(), "https://Lithtrix.ai/")
	if err != nil || len(found.Protocols) != 1 || found.Protocols[0].Protocol != "lithtrix" || found.Protocols[0].Confidence != gateway.Likely {
		t.Errorf("got %+v (%v), want Lithtrix by its address", found, err)
	}
}

// rerouted is a transport that makes every request to a service of a test.
type rerouted struct{ to string }

func (r rerouted) RoundTrip(req *http.Request) (*http.Response, error) {
	again, err := http.NewRequestWithContext(req.Context(), req.Method, r.to+req.URL.Path, nil)
	if err != nil {
		return nil, err
	}
	again.Header = req.Header
	return http.DefaultTransport.RoundTrip(again)
}
