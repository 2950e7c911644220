package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// challenged returns the handler of a service that wants a message signed.
func challenged(agentID, nonce, message string) http.HandlerFunc {
	body, _ := json.Marshal(map[string]any{
		"agent_id":  agentID,
		"challenge": map[string]any{"nonce": nonce, "message": message, "expires_at": "2026-02-06T13:05:00.000Z"},
	})
	return reply(201, string(body))
}

func TestNothingButThisRegistrationIsSigned(t *testing.T) {
	now := start.Unix()
	const id, nonce = "ag_V1StGXR8_Z5jdHi6B-myT", "abc123_-"
	message := func(id string, at any, nonce string) string {
		return fmt.Sprintf("agentdoor:register:%s:%v:%s", id, at, nonce)
	}
	good := message(id, now, nonce)
	for name, h := range map[string]http.HandlerFunc{
		"of another agent":          challenged(id, nonce, message("ag_another", now, nonce)),
		"of another challenge":      challenged(id, nonce, message(id, now, "another")),
		"hours old":                 challenged(id, nonce, message(id, now-2*3600, nonce)),
		"hours ahead":               challenged(id, nonce, message(id, now+2*3600, nonce)),
		"old, said to be now":       reply(201, fmt.Sprintf(`{"agent_id":%q,"challenge":{"nonce":%q,"message":%q}}`, id, nonce, message(id, now-7200, nonce)), "Date", start.Add(-2*time.Hour).Format(http.TimeFormat)),
		"a request for a JWT":       challenged(id, nonce, "agentdoor:auth:"+id+":2026-02-06T13:00:00.000Z"),
		"a JWT as the nonce":        challenged(id, "2026-02-06T13:00:00.000Z", "agentdoor:auth:"+id+":2026-02-06T13:00:00.000Z"),
		"anything":                  challenged(id, nonce, "I owe you 100 dollars"),
		"with more before":          challenged(id, nonce, " "+good),
		"with a line break after":   challenged(id, nonce, good+"\n"),
		"with more after":           challenged(id, nonce, good+":more"),
		"with a line break":         challenged(id, nonce+"\n", good+"\n"),
		"with a colon in the nonce": challenged(id, "a:b", message(id, now, "a:b")),
		"with a NUL in the nonce":   challenged(id, "a\x00", message(id, now, "a\x00")),
		"beyond ASCII":              challenged(id, "ａbc", message(id, now, "ａbc")),
		"with no nonce":             challenged(id, "", message(id, now, "")),
		"with an endless nonce":     challenged(id, strings.Repeat("a", 600), message(id, now, strings.Repeat("a", 600))),
		"with a colon in the agent": challenged("ag_1:2", nonce, message("ag_1:2", now, nonce)),
		"of a strange agent":        challenged("root", nonce, message("root", now, nonce)),
		"with a spelled time":       challenged(id, nonce, message(id, "0"+fmt.Sprint(now), nonce)),
		"with a sign":               challenged(id, nonce, message(id, "+"+fmt.Sprint(now), nonce)),
		"with a fraction":           challenged(id, nonce, message(id, fmt.Sprint(now)+".0", nonce)),
		"with milliseconds":         challenged(id, nonce, message(id, now*1000, nonce)),
		"in another case":           challenged(id, nonce, strings.Replace(good, "register", "REGISTER", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			d.on(doorRegister, h)
			f := d.client(t, setup{})

			_, err := f.AgentDoor.Register(t.Context(), d.scout())

			var e *gateway.Error
			if !errors.As(err, &e) || e.Code != gateway.CodeChallenge || e.Theirs || e.Sent {
				t.Errorf("got %v, want the challenge refused", err)
			}
			if got := len(d.seen(doorVerify)) + len(d.seen(doorAuth)); got != 0 {
				t.Errorf("something was signed and sent %d times", got)
			}
			if got := len(d.seen(doorRegister)); got != 1 {
				t.Errorf("asked for %d challenges, want 1", got)
			}
		})
	}
}

func TestAChallengeOfAnotherServiceIsNotSigned(t *testing.T) {
	victim, hostile := newDoor(t), newDoor(t)
	var relayed struct {
		Challenge struct{ Message string } `json:"challenge"`
	}
	hostile.on(doorRegister, func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		victim.register(got, r) // with the key that it was shown
		_ = json.Unmarshal(got.Body.Bytes(), &relayed)
		challenged("ag_mine", "mine", relayed.Challenge.Message)(w, r)
	})
	f := hostile.client(t, setup{})
	_, err := f.AgentDoor.Register(t.Context(), hostile.scout())
	var e *gateway.Error
	if !errors.As(err, &e) || e.Code != gateway.CodeChallenge || relayed.Challenge.Message == "" {
		t.Errorf("got %v, want it refused", err)
	}
	if len(victim.agents) != 0 || len(hostile.seen(doorVerify)) != 0 {
		t.Error("the challenge was signed")
	}
}

// A service can hand over the whole answer of another one, agent_id included.
// The message names no host, so it cannot be told from its own, and is signed.
// What holds then is that each origin has a key pair of its own: all that is
// registered at the other service is the key that the hostile one was shown,
// never the one that the agent has there.
func TestAnAnswerThatIsRelayedWholeReachesNothingOfOurs(t *testing.T) {
	victim, hostile := newDoor(t), newDoor(t)
	f := victim.client(t, setup{})
	f.enlist(t, victim.scout())
	ours := maps.Clone(victim.agents)
	hostile.on(doorRegister, victim.register)
	hostile.on(doorVerify, victim.verify)

	f.enlist(t, hostile.scout())

	if len(ours) != 1 || len(victim.agents) != 2 {
		t.Fatalf("got %d agents at the other service and then %d, want 1 and 2", len(ours), len(victim.agents))
	}
	for key, id := range ours {
		if victim.agents[key] != id {
			t.Error("the agent that is registered there has changed")
		}
	}
}

func TestAnAgentIDIsCheckedBeforeAJWTIsAskedFor(t *testing.T) {
	for _, id := range []string{"ag_1:2026-02-06T13:00:00.000Z", "x", "ag_a\\nb", "ag_" + strings.Repeat("a", 100), ""} {
		d := newDoor(t)
		d.on(doorRegister, reply(409, `{"error":"already_registered","agent_id":"`+id+`"}`))
		if _, err := d.client(t, setup{}).AgentDoor.Register(t.Context(), d.scout()); err == nil || len(d.seen(doorAuth)) != 0 {
			t.Errorf("%q: got %v and %d requests for a JWT, want none", id, err, len(d.seen(doorAuth)))
		}
	}
}

func TestADocumentThatPointsElsewhereIsRefused(t *testing.T) {
	other := newService(t)
	for name, endpoint := range map[string]string{
		"another host":          "https://evil.example/agentdoor/register",
		"another port":          other.URL + "/agentdoor/register",
		"a host without scheme": "//evil.example/agentdoor/register",
		"a backslash":           `/\evil.example/x`,
		"userinfo":              "SELF@evil.example/x",
		"userinfo of its own":   "http://a:b@SELFHOST/x",
		"a longer host":         "SELF.evil.example/x",
		"a longer port":         "SELF0/x",
		"dot segments":          "/a/../b",
		"encoded dots":          "/a/%2e%2e/b",
		"an encoded slash":      "/a%2fb",
		"two slashes":           "/a//b",
		"a query":               "/a?b=c",
		"a fragment":            "/a#b",
		"a control character":   "/a\\u0000b",
		"a relative path":       "agentdoor/register",
		"another scheme":        "file:///etc/passwd",
		"nothing":               "",
		"the root":              "/",
		"an endless path":       "/" + strings.Repeat("a", 200),
	} {
		t.Run(name, func(t *testing.T) {
			for _, at := range []string{"registration_endpoint", "auth_endpoint"} {
				d := newDoor(t)
				said := strings.ReplaceAll(strings.ReplaceAll(endpoint, "SELFHOST", strings.TrimPrefix(d.URL, "http://")), "SELF", d.URL)
				fields := map[string]string{"registration_endpoint": doorRegister, "auth_endpoint": doorAuth}
				fields[at] = strings.ReplaceAll(said, `\`, `\\`)
				if strings.Contains(said, `\u`) {
					fields[at] = said
				}
				d.document = fmt.Sprintf(`{"agentdoor_version":"1.0","service_name":"S","registration_endpoint":"%s","auth_endpoint":"%s","scopes_available":%s}`,
					fields["registration_endpoint"], fields["auth_endpoint"], doorScopes)
				f := d.client(t, setup{})

				_, err := f.AgentDoor.Register(t.Context(), d.scout())

				var e *gateway.Error
				if !errors.As(err, &e) || e.Code != gateway.CodeBadAnswer || !strings.Contains(err.Error(), at) {
					t.Errorf("%s: got %v, want the document refused", at, err)
				}
				if got := len(d.seen("")) + len(other.seen("")); got != 1 {
					t.Errorf("got %d requests, want the one for the document", got)
				}
				if left, err := f.store.List(t.Context(), ""); err != nil || len(left) != 0 {
					t.Errorf("stored %v (%v), want nothing", left, err)
				}
			}
		})
	}
}

func TestEndpointsOfAServicesOwn(t *testing.T) {
	d := newDoor(t)
	d.registerAt, d.authAt = "/api/agents", "/api/agents-token/"
	d.open()
	d.authAt = d.URL + d.authAt // a whole URL of the same origin
	f := d.client(t, setup{})
	k := f.enlist(t, d.scout()).Key
	d.clock.advance(2 * time.Hour)
	if got := f.doorWorks(t, k); got != 200 || len(d.seen("/api/agents-token/")) != 1 {
		t.Errorf("got the status %d, want 200 with a renewed token", got)
	}
	lona := lonaKey(d.URL, "my-agent")
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lona}, Secret: credstore.NewSecret(token("my-agent", 1))})
	for _, credential := range []credstore.Key{k, lona} {
		for _, path := range []string{
			"/api/agents", "/api/agents/", "/API/Agents/verify", "/api/agents.json", "/api/%61gents", "/api/agents-token", "/api/agents-token/x",
			"/agentdoor/auth", "/agentdoor/health", "/agentdoor",
		} {
			_, err := f.Lifecycle.Do(t.Context(), credential, gateway.Request{Method: "POST", Path: path})
			var refused *gateway.RefusedError
			if !errors.As(err, &refused) || refused.Tool != "agentdoor_register_agent" {
				t.Errorf("%s with %s: got %v, want it refused", path, credential.Protocol, err)
			}
		}
	}
	if r, err := f.Lifecycle.Do(t.Context(), k, get("/api/agents-of-mine")); err != nil || r.Status != 404 {
		t.Errorf("another route: got %v (%v), want it asked for", r.Status, err)
	}
}

func TestAnAgentDoorThatRedirects(t *testing.T) {
	other := newService(t)
	for _, path := range []string{doorDiscovery, doorRegister, doorVerify, doorAuth} {
		d := newDoor(t)
		if path == doorAuth {
			d.on(doorRegister, reply(409, `{"error":"already_registered","agent_id":"ag_1"}`))
		}
		d.on(path, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		})
		_, err := d.client(t, setup{}).AgentDoor.Register(t.Context(), d.scout())
		var e *gateway.Error
		if !errors.As(err, &e) || e.Code != gateway.CodeRedirect || len(other.seen("")) != 0 {
			t.Errorf("%s: got %v and %d requests elsewhere, want the redirect refused", path, err, len(other.seen("")))
		}
	}
}

func TestAServiceURLIsAnOrigin(t *testing.T) {
	f := newFixture(t, setup{})
	for _, base := range []string{
		"", "http://api.example.com", "https://api.example.com/agentdoor", "https://u:p@api.example.com", "https://api.example.com?x=1",
		"https://api.example.com/#x", "api.example.com", "ftp://api.example.com", "https://", "https://пример.example", "http://10.0.0.1",
	} {
		_, err := f.AgentDoor.Register(t.Context(), gateway.AgentDoorRegistration{ServiceURL: base, AgentName: "scout"})
		var e *gateway.Error
		if !errors.As(err, &e) || e.Code != gateway.CodeInvalidInput || !strings.Contains(err.Error(), "service_url") {
			t.Errorf("%q: got %v, want it refused", base, err)
		}
		if strings.Contains(fmt.Sprint(err), "u:p") {
			t.Error("the error repeats what may be a password")
		}
	}
	if _, err := tryFixture(setup{env: map[string]string{"AGENTDOOR_URL": "https://api.example.com/x"}}); err == nil || !strings.Contains(err.Error(), "AGENTDOOR_URL") {
		t.Errorf("got %v, want AGENTDOOR_URL refused", err)
	}
}

func TestAgentDoorArgumentsAreChecked(t *testing.T) {
	d := newDoor(t)
	f := d.client(t, setup{})
	for name, change := range map[string]func(*gateway.AgentDoorRegistration){
		"agent_name":  func(r *gateway.AgentDoorRegistration) { r.AgentName = "" },
		"label":       func(r *gateway.AgentDoorRegistration) { r.Label = strings.Repeat("l", 101) },
		"scopes":      func(r *gateway.AgentDoorRegistration) { r.Scopes = []string{"a b"} },
		"x402_wallet": func(r *gateway.AgentDoorRegistration) { r.X402Wallet = "0x 1" },
		"metadata":    func(r *gateway.AgentDoorRegistration) { r.Metadata = map[string]any{"x": strings.Repeat("x", 9000)} },
	} {
		r := d.scout()
		change(&r)
		_, err := f.AgentDoor.Register(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), name+": want") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := len(d.seen("")); got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
}
