package gateway_test

import (
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// FuzzPath looks for a path that is let through and yet reaches another place
// than it shows, for whatever a server does with it.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/", "/a/b", "/a%20b", "/api/v1/agents/register", "/api/v1/agents/re%67ister", "/%2e%2e/x", "/a/..;/b", "//x", "/a%252fb",
		"/100%25", "/ä", "/api/v1/agents/register.json", "/API/v1/agents/REQUEST-INVITE/;x", "/a%5c", "/\x00", "/%ff",
	} {
		f.Add(s)
	}
	routes := wire.Lona().Reserved
	f.Fuzz(func(t *testing.T, p string) {
		if gateway.RefusePath(p) != "" {
			return
		}
		u, err := url.Parse("https://example.com" + p)
		if err != nil || u.Host != "example.com" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			t.Fatalf("%q became %v (%v)", p, u, err)
		}
		reserved := gateway.Reserved(routes, "POST", p)
		for range 5 {
			if clean := path.Clean(p); clean != strings.TrimSuffix(p, "/") && p != "/" {
				t.Fatalf("%q is another path when it is cleaned: %q", p, clean)
			}
			if strings.ContainsAny(p, "\\\r\n\x00") {
				t.Fatalf("%q holds what must not be in it", p)
			}
			for _, r := range routes {
				if strings.EqualFold(path.Clean(p), r.Path) && !reserved {
					t.Fatalf("%q reaches %s", p, r.Path)
				}
			}
			next, err := url.PathUnescape(p)
			if err != nil || next == p {
				return
			}
			p = next
		}
	})
}

// FuzzHandle checks that whatever is stored can be named, and that whatever is
// named is what is stored.
func FuzzHandle(f *testing.F) {
	for _, s := range [][2]string{
		{"lona/my-agent", "my-agent"},
		{"lona/a@b", "a"},
		{"", "агент"},
		{"lona/a@[::1]:80", "a b"},
		{"lona/a@x:443", "-"},
		{"lona/a@%zz", ""},
		{"lona/a@u@h", "a/b"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, handle, agent string) {
		store := credstore.NewMemory(frozen)
		c, err := gateway.New(gateway.Options{Store: store, Now: frozen})
		if err != nil {
			t.Fatal(err)
		}
		k := lonaKey("https://example.com:8443", agent)
		if err := store.Put(t.Context(), credstore.Credential{
			Info: credstore.Info{Key: k, State: credstore.StateActive}, Secret: credstore.NewSecret("0123456789abcdef"),
		}); err != nil {
			return // not a key that can be stored
		}
		name := c.Lifecycle.Handle(k)
		got, err := c.Lifecycle.Resolve(t.Context(), name)
		if err != nil || got.Key != k {
			t.Fatalf("%q: got %+v (%v), want %+v", name, got.Key, err, k)
		}
		if got, err := c.Lifecycle.Resolve(t.Context(), handle); err == nil && handle != "" {
			host, _, _ := strings.Cut(name, "@")
			if got.Key != k || !strings.HasPrefix(handle, host) {
				t.Fatalf("%q names %+v, which is called %q", handle, got.Key, name)
			}
		}
	})
}

// FuzzScrub looks for a way to write a secret into a text that is not found.
func FuzzScrub(f *testing.F) {
	f.Add("before", "after", "lona_partner_my-agent_abc123xyz456_SecretKeyHere123", byte(0))
	f.Add(`{"a":"`, `"}`, `tok+en/&<9>=~"_Zm9vYmFy`, byte(3))
	f.Add("%", "%41", "0123456789abcdef", byte(7))
	f.Add(`\`, `\u0041`, "aaaaaaaaaaaaaaaaaaaa", byte(9))
	names := []string{"plain", "base64", "base64 after 1 byte", "base64 of Basic", "base64url", "hex", "HEX", "every % escape", "every JSON escape", "HTML"}
	f.Fuzz(func(t *testing.T, before, after, secret string, which byte) {
		if len(secret) < 16 || len(secret) > 4096 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return
		}
		store := credstore.NewMemory(frozen)
		c, err := gateway.New(gateway.Options{Store: store, Now: frozen})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Put(t.Context(), credstore.Credential{
			Info: credstore.Info{Key: lonaKey(lonaOrigin, "my-agent"), State: credstore.StateActive}, Secret: credstore.NewSecret(secret),
		}); err != nil {
			return // too long to be stored
		}
		name := names[int(which)%len(names)]
		hidden := disguises[name](secret)
		got, err := c.Scrubber.Scrub(t.Context(), before+hidden+after)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(got, hidden) && !strings.Contains(before+after, hidden) {
			t.Fatalf("%s: %q is in %q", name, hidden, got)
		}
		if said := c.Scrubber.Said(t.Context(), before+hidden+after); strings.Contains(said, secret) || len([]rune(said)) > 500 {
			t.Fatalf("%s: %q is in %q", name, secret, said)
		}
	})
}

// FuzzDiscovery looks for a document that gets more than clean, short words
// into what is said of a service.
func FuzzDiscovery(f *testing.F) {
	f.Add(agentDoorDocument)
	f.Add(`{"agentdoor_version":1,"service_name":["a"],"scopes_available":[null,{"id":"a","description":{"b":"\u202e"},"price":[1]}]}`)
	f.Add(`{"agentdoor_version":"1.0","registration_endpoint":"//x","auth_endpoint":"%","payment":{"protocol":"\u001b[1m"}}`)
	f.Fuzz(func(t *testing.T, doc string) {
		client := newFixture(t, setup{transport: answering{agentDoorPath: doc}})
		client.WithProbes()
		found, err := client.Discover(t.Context(), "https://api.example.com")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range found.Protocols {
			words := []string{d.Said.Service, d.Said.Description, d.Said.Version, d.Said.Payment, d.Problem}
			for _, s := range d.Said.Scopes {
				words = append(words, s.ID, s.Description, s.Price, s.RateLimit)
			}
			for _, w := range words {
				if len([]rune(w)) > 500 || strings.ContainsFunc(w, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) }) {
					t.Errorf("got the words %q", w)
				}
			}
			if len(d.Said.Scopes) > 30 {
				t.Errorf("got %d scopes", len(d.Said.Scopes))
			}
		}
	})
}

// answering is a transport to a service that has a document at some paths and
// nothing at any other.
type answering map[string]string

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	doc, ok := a[r.URL.Path]
	status := http.StatusNotFound
	if ok {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(doc)), Request: r}, nil
}

// FuzzChallenge looks for something else than a registration, of now, that a
// service could have signed.
func FuzzChallenge(f *testing.F) {
	f.Add("ag_1", "abc", "agentdoor:register:ag_1:1770382800:abc")
	f.Add("ag_1", "2026-02-06T13:00:00Z", "agentdoor:auth:ag_1:2026-02-06T13:00:00Z")
	f.Add("ag_1:2", "a:b", "agentdoor:register:ag_1:2:1770382800:a:b")
	f.Add("ag_1", "\n", "agentdoor:register:ag_1:1770382800:\n")
	client, err := gateway.New(gateway.Options{Store: credstore.NewMemory(frozen), Now: frozen})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, agentID, nonce, message string) {
		signed, err := client.AgentDoor.Signable(agentID, nonce, message)
		if err != nil {
			return
		}
		parts := strings.Split(signed, ":")
		if signed != message || len(parts) != 5 || parts[0] != "agentdoor" || parts[1] != "register" || parts[2] != agentID || parts[4] != nonce {
			t.Fatalf("signed %q", signed)
		}
		if at, err := strconv.ParseInt(parts[3], 10, 64); err != nil || at < start.Unix()-3600 || at > start.Unix()+3600 || strconv.FormatInt(at, 10) != parts[3] {
			t.Fatalf("signed %q, which is not of now", signed)
		}
		if strings.ContainsFunc(signed, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("signed %q, which holds more than is seen", signed)
		}
	})
}
