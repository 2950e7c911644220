package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// writePolicy writes a policy into a home, as an editor does: a new file in the
// place of the old.
func writePolicy(t *testing.T, home, text string) string {
	t.Helper()
	path := filepath.Join(home, gateway.PolicyFile)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// The callers of the tests.
var (
	asker  = gateway.Caller{Kind: gateway.CallerModel, Name: "a client", Asks: true}
	model  = gateway.Caller{Kind: gateway.CallerModel, Name: "a client"}
	script = gateway.Caller{Kind: gateway.CallerScript, Name: "enlist call"}
	person = gateway.Caller{Kind: gateway.CallerPerson, Name: "enlist revoke"}
	itself = gateway.Caller{Kind: gateway.CallerSelf, Name: "enlist"}
)

// ruling is what becomes of an act, in a word.
func ruling(err error) string {
	var policy *gateway.PolicyError
	var ask *gateway.ApprovalError
	switch {
	case err == nil:
		return "yes"
	case errors.As(err, &policy):
		return "no"
	case errors.As(err, &ask) && !ask.Final:
		return "ask"
	case errors.As(err, &ask):
		return ask.Code
	}
	return err.Error()
}

const elsewhere = "https://new.example.com"

func TestWhatThePolicyRules(t *testing.T) {
	known := lonaKey(lonaOrigin, "my-agent")
	strange := lonaKey(elsewhere, "my-agent")
	request := func(method, path string) gateway.Act {
		act := gateway.Act{Action: gateway.ActWrite, Key: known, Method: method, Path: path}
		if method == "GET" {
			act.Action = gateway.ActRead
		}
		return act
	}
	act := func(a gateway.Action, k credstore.Key) gateway.Act { return gateway.Act{Action: a, Key: k} }
	embedded, local := lonaKey("http://enlist.localhost", "a"), lonaKey("http://127.0.0.1:8420", "a")
	const needed = gateway.ApprovalNeeded
	for name, tt := range map[string]struct {
		policy string
		act    gateway.Act
		// of a model whose client can ask, one whose client cannot, a script, a person, and Enlist itself
		want [5]string
	}{
		"a new service":                   {"", act(gateway.ActRegister, strange), [5]string{"ask", needed, "yes", "yes", "yes"}},
		"a service that is known":         {"", act(gateway.ActRegister, known), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"the embedded gateway":            {"", act(gateway.ActRegister, embedded), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"this machine":                    {"", act(gateway.ActRegister, local), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"revoke":                          {"", act(gateway.ActRevoke, known), [5]string{"ask", needed, "yes", "yes", "yes"}},
		"forget":                          {"", act(gateway.ActForget, known), [5]string{"ask", needed, "yes", "yes", "yes"}},
		"rotate":                          {"", act(gateway.ActRotate, known), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"write":                           {"", request("POST", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"exec":                            {"", act(gateway.ActExec, known), [5]string{"no", "no", "no", "yes", "yes"}},
		"reveal":                          {"", act(gateway.ActReveal, known), [5]string{"no", "no", "no", "yes", "yes"}},
		"export":                          {"", act(gateway.ActExport, known), [5]string{"no", "no", "no", "yes", "yes"}},
		"ask":                             {`rotate = "ask"`, act(gateway.ActRotate, known), [5]string{"ask", needed, needed, "yes", needed}},
		"ask, to register":                {`register = "ask"`, act(gateway.ActRegister, local), [5]string{"ask", needed, needed, "yes", needed}},
		"a renewal is no registration":    {`register = "ask"`, act(gateway.ActRenew, known), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"deny":                            {`revoke = "deny"`, act(gateway.ActRevoke, known), [5]string{"no", "no", "no", "no", "no"}},
		"allow":                           {`revoke = "allow"`, act(gateway.ActRevoke, known), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"allow a new service":             {`register = "allow"`, act(gateway.ActRegister, strange), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"a policy that does not say":      {`write = "deny"`, act(gateway.ActForget, known), [5]string{"ask", needed, "yes", "yes", "yes"}},
		"ask, to write":                   {`write = "ask"`, request("POST", "/x"), [5]string{"ask", needed, needed, "yes", needed}},
		"read, where writing is denied":   {`write = "deny"`, request("GET", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"a service of the list":           {`services = ["lona"]`, request("GET", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"no service of the list":          {`services = ["fluxra"]`, request("GET", "/x"), [5]string{"no", "no", "no", "no", "no"}},
		"an empty list":                   {`services = []`, act(gateway.ActForget, known), [5]string{"no", "no", "no", "no", "no"}},
		"an origin of the list":           {`origins = ["HTTPS://Gateway.lona.agency:443/"]`, request("GET", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"no origin of the list":           {`origins = ["https://gateway.lona.agency"]`, act(gateway.ActRegister, strange), [5]string{"no", "no", "no", "no", "no"}},
		"exec where the origin is not":    {`origins = []`, act(gateway.ActExec, known), [5]string{"no", "no", "no", "no", "no"}},
		"healing where the origin is not": {`origins = []`, act(gateway.ActHeal, known), [5]string{"no", "no", "no", "no", "no"}},
		"a method of the list":            {`methods = ["get"]`, request("GET", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"no method of the list":           {`methods = ["GET"]`, request("POST", "/x"), [5]string{"no", "no", "no", "no", "no"}},
		"under a path":                    {`paths = ["/api/v1/"]`, request("GET", "/api/v1/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"the path itself":                 {`paths = ["/api/v1/"]`, request("GET", "/api/v1"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"a path that begins alike":        {`paths = ["/api/v1"]`, request("GET", "/api/v10/x"), [5]string{"no", "no", "no", "no", "no"}},
		"a path in other letters":         {`paths = ["/api/v1"]`, request("GET", "/API/v1/x"), [5]string{"no", "no", "no", "no", "no"}},
		"a path that is decoded to it":    {`paths = ["/api"]`, request("GET", "/%61pi/x"), [5]string{"no", "no", "no", "no", "no"}},
		"every path":                      {`paths = ["/"]`, request("GET", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"}},
		"for a service": {
			"write = \"deny\"\n[[for]]\nservice = \"lona\"\nwrite = \"allow\"", request("POST", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"},
		},
		"for another service": {
			"write = \"deny\"\n[[for]]\nservice = \"fluxra\"\nwrite = \"allow\"", request("POST", "/x"), [5]string{"no", "no", "no", "no", "no"},
		},
		"an origin before a service": {
			"[[for]]\norigin = \"https://gateway.lona.agency\"\nwrite = \"ask\"\n[[for]]\nservice = \"lona\"\nwrite = \"deny\"", request("POST", "/x"),
			[5]string{"ask", needed, needed, "yes", needed},
		},
		"a credential before an origin": {
			"[[for]]\ncredential = \"lona/my-agent\"\nwrite = \"allow\"\n[[for]]\norigin = \"https://gateway.lona.agency\"\nservice=\"lona\"\nwrite = \"deny\"",
			request("POST", "/x"),
			[5]string{"yes", "yes", "yes", "yes", "yes"},
		},
		"a credential at another host": {
			"[[for]]\ncredential = \"lona/my-agent@other.example\"\nwrite = \"deny\"", request("POST", "/x"), [5]string{"yes", "yes", "yes", "yes", "yes"},
		},
		"a credential at its host": {
			"[[for]]\ncredential = \"lona/my-agent@gateway.lona.agency\"\nwrite = \"deny\"", request("POST", "/x"), [5]string{"no", "no", "no", "no", "no"},
		},
		"two as close": {
			"[[for]]\nservice = \"lona\"\nwrite = \"deny\"\n[[for]]\nservice = \"lona\"\nwrite = \"allow\"", request("POST", "/x"),
			[5]string{"no", "no", "no", "no", "no"},
		},
		"paths for a service": {
			"paths = [\"/a\"]\n[[for]]\nservice = \"lona\"\npaths = [\"/x\"]", request("GET", "/x/y"), [5]string{"yes", "yes", "yes", "yes", "yes"},
		},
		"no methods for a service": {
			"methods = [\"GET\"]\n[[for]]\nservice = \"lona\"\nmethods = []", request("GET", "/x/y"), [5]string{"no", "no", "no", "no", "no"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			if tt.policy != "" {
				writePolicy(t, home, tt.policy)
			}
			f := newFixture(t, setup{home: home})
			f.put(t, credstore.Credential{Info: credstore.Info{Key: known}, Secret: credstore.NewSecret(token("my-agent", 1))})
			var got [5]string
			for i, c := range []gateway.Caller{asker, model, script, person, itself} {
				got[i] = ruling(f.Permit(gateway.WithCaller(t.Context(), c), tt.act))
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAPolicyThatIsWrongRefusesEverything(t *testing.T) {
	for text, want := range map[string]string{
		"register = \"maybe\"":                               `line 1: register: want "allow", "ask" or "deny"`,
		"\nregister = 3":                                     `line 2: want "allow", "ask" or "deny"`,
		"\n\nregsiter = \"ask\"":                             `line 3: there is no setting "regsiter"`,
		"[lona]\nwrite = \"ask\"":                            `line 1: there is no setting "lona"`,
		"write = \"ask\"\nwrite = \"deny\"":                  "line 2: ",
		"write = ":                                           "line 1: ",
		"services = \"lona\"":                                "line 1: services: a value of another type is wanted here",
		"services = [\"nova\"]":                              "line 1: services: want one of agentdoor, ",
		"origins = [\n\"https://x.example/path\"\n]":         "line 2: origins: want scheme, host and port only",
		"origins = [\"http://x.example\"]":                   "line 1: origins: want https",
		"methods = [\"BREW\"]":                               "line 1: methods: want one of DELETE",
		"paths = [\"api\"]":                                  "line 1: paths: want the beginning of a path",
		"paths = [\"/a/../b\"]":                              "line 1: paths: want the beginning of a path",
		"private_networks = [\"10.0.0.1/8\"]":                "line 1: private_networks: want a network",
		"private_networks = [\"127.0.0.0/8\"]":               "line 1: private_networks: want a private network",
		"private_networks = [\"0.0.0.0/0\"]":                 "line 1: private_networks: want a private network",
		"private_networks = [\"169.254.169.254/32\"]":        "line 1: private_networks: want a private network",
		"registrations_per_day = -1":                         "line 1: registrations_per_day: ",
		"registrations_per_day = \"10\"":                     "line 1: registrations_per_day: a value of another type",
		"[[for]]\n\n[[for]]\nservice = \"lona\"\n":           "line 1: a [[for]] wants",
		"write = \"ask\"\n[[for]]\nservice=\"lona\"":         "line 2: this [[for]] says nothing",
		"[[for]]\ncredential = \"my-agent\"":                 "line 2: for.credential: want a handle",
		"[[for]]\nservices = [\"lona\"]":                     `line 2: there is no setting "for.services"`,
		strings.Repeat("# more than a person reads\n", 5000): "it is larger than 65536 bytes",
	} {
		home := t.TempDir()
		path := writePolicy(t, home, text)
		f := newFixture(t, setup{home: home})
		for _, c := range []gateway.Caller{model, script, person, itself} {
			for _, a := range []gateway.Action{gateway.ActRegister, gateway.ActRead, gateway.ActForget, gateway.ActRenew, gateway.ActExec, gateway.ActHeal} {
				err := f.Permit(gateway.WithCaller(t.Context(), c), gateway.Act{Action: a, Key: lonaKey(lonaOrigin, "a")})
				if ruling(err) != "no" {
					t.Errorf("%.40q: %s is permitted to %v: %v", text, a, c.Kind, err)
				}
			}
		}
		err := f.Permit(gateway.WithCaller(t.Context(), person), gateway.Act{Action: gateway.ActRead, Key: lonaKey(lonaOrigin, "a")})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "enlist policy check") {
			t.Errorf("%.40q: got %v, want it to name the file, to say %q, and the remedy", text, err, want)
		}
		if _, err := f.Discover(t.Context(), "http://127.0.0.1:1"); ruling(err) != "no" {
			t.Errorf("%.40q: a service is looked at: %v", text, err)
		}
	}
}

func TestAPolicyThatCannotBeTrustedOrRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode there")
	}
	for name, tt := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"others may write to it": {func(path string) error { return os.Chmod(path, 0o622) }, "chmod go-w"},
		"a folder": {func(path string) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}, "not a file"},
		"a pipe": {func(path string) error {
			return errors.Join(os.Remove(path), mkfifo(path))
		}, "not a file"},
		"a link in a circle": {func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink(path, path))
		}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			path := writePolicy(t, home, "")
			f := newFixture(t, setup{home: home})
			ctx, read := gateway.WithCaller(t.Context(), person), gateway.Act{Action: gateway.ActRead, Key: lonaKey(lonaOrigin, "a")}
			if err := f.Permit(ctx, read); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(path); err != nil {
				t.Fatal(err)
			}
			if err := f.Permit(ctx, read); ruling(err) != "no" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a refusal that says %q", err, tt.want)
			}
		})
	}
}

func TestAChangeOfThePolicyHoldsAtOnce(t *testing.T) {
	home := t.TempDir()
	var now atomic.Int64 // long after the file was written, so that only its looks tell
	now.Store(time.Now().Add(time.Hour).UnixNano())
	f := newFixture(t, setup{home: home, now: func() time.Time { return time.Unix(0, now.Load()) }})
	ctx, write := gateway.WithCaller(t.Context(), script), gateway.Act{Action: gateway.ActWrite, Key: lonaKey(lonaOrigin, "a"), Method: "POST", Path: "/"}
	rules := func(want string) {
		t.Helper()
		if got := ruling(f.Permit(ctx, write)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	rules("yes")
	writePolicy(t, home, `write = "deny" `)
	rules("no")
	writePolicy(t, home, `write = "allow"`) // as long as the one before
	rules("yes")
	path := writePolicy(t, home, `write = "deni"`)
	rules("no")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	rules("yes")

	// In place, within the same tick of the clock, and no longer than before.
	path = writePolicy(t, home, `write = "deny" `)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	now.Store(info.ModTime().UnixNano())
	rules("no")
	if err := errors.Join(os.WriteFile(path, []byte(`write = "allow"`), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	rules("yes")
}

func TestTheTemplateChangesNothing(t *testing.T) {
	home := t.TempDir()
	path := writePolicy(t, home, gateway.PolicyTemplate)
	got, err := gateway.ViewPolicy(path, frozen)
	if err != nil {
		t.Fatal(err)
	}
	want, err := gateway.ViewPolicy(path+".none", frozen)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Written || want.Written {
		t.Errorf("got %v and %v, want a file and none", got.Written, want.Written)
	}
	got.Written = false
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}

	// And what stands in it as comments is right.
	var lines []string
	for line := range strings.Lines(gateway.PolicyTemplate) {
		if bare := strings.TrimPrefix(line, "# "); strings.Contains(bare, " = ") && !strings.Contains(bare, ". ") || strings.HasPrefix(bare, "[[for]]") {
			line = bare
		}
		lines = append(lines, line)
	}
	path = writePolicy(t, home, strings.Join(lines, ""))
	got, err = gateway.ViewPolicy(path, frozen)
	if err != nil || len(got.Rules) != 8 || len(got.Lists) != 7 {
		t.Errorf("got %d rules and %d lists (%v), want 8 and 7", len(got.Rules), len(got.Lists), err)
	}
}

// A number that is set in the course of a day counts what was registered before.
func TestADailyNumberThatIsSetLater(t *testing.T) {
	s, home := newService(t), t.TempDir()
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: home})
	for i := range 2 {
		f.register(t, fmt.Sprintf("agent-%d", i))
	}
	writePolicy(t, home, "registrations_per_day = 2")
	if _, err := f.Lona.Register(t.Context(), named("agent-2")); ruling(err) != "no" {
		t.Errorf("got %v, want it refused", err)
	}
}

func TestADailyNumberOfRegistrations(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": "1f0e2d3c4b5a69788796a5b4c3d2e1f0"}))
	home := t.TempDir()
	writePolicy(t, home, "registrations_per_day = 5")
	env := map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "1f0e2d3c4b5a69788796a5b4c3d2e1f0"}
	var clients []*fixture
	for range 4 { // each as in a process of its own
		clients = append(clients, against(t, gw, setup{home: home, env: env}))
	}
	var done, refused atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := clients[i%4].Lona.Register(t.Context(), named(fmt.Sprintf("agent-%d", i)))
			switch ruling(err) {
			case "yes":
				done.Add(1)
			case "no":
				refused.Add(1)
				if !strings.Contains(err.Error(), "5 registrations a day") || !strings.Contains(err.Error(), "room again on") {
					t.Errorf("got %v, want the number and the time", err)
				}
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if done.Load() != 5 || refused.Load() != 15 {
		t.Errorf("%d were registered and %d refused, want 5 and 15", done.Load(), refused.Load())
	}

	gw.Clock.Advance(24*time.Hour + time.Second)
	if _, err := clients[0].Lona.Register(t.Context(), named("next-day")); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

func TestWhatASettingAsksForNeedsTheLeaveOfThePolicy(t *testing.T) {
	for text, want := range map[string]int{`register = "ask"`: 0, `register = "deny"`: 0, `registrations_per_day = 0`: 0, `register = "allow"`: 1, ``: 1} {
		s := newService(t)
		home := t.TempDir()
		writePolicy(t, home, text)
		f := newFixture(t, setup{home: home, env: map[string]string{"LONA_GATEWAY_URL": s.URL, "LONA_AGENT_ID": "my-agent"}})
		err := f.Start(t.Context())
		if got := len(s.seen(registerPath)); got != want || (err == nil) != (want == 1) {
			t.Errorf("%q: got %d registrations (%v), want %d", text, got, err, want)
		}
	}
}

func TestARedirectLeadsNowhereThatThePolicyForbids(t *testing.T) {
	s := newService(t)
	home := t.TempDir()
	writePolicy(t, home, `paths = ["/here", "/api"]`)
	f := newFixture(t, setup{home: home, env: map[string]string{"LONA_GATEWAY_URL": s.URL}})
	r := f.register(t, "my-agent")
	s.on("/here", reply(302, "", "Location", "/there")).on("/there", reply(200, ""))

	got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "GET", Path: "/here"})

	if err != nil || got.Status != 302 || len(s.seen("/there")) != 0 {
		t.Errorf("got %d (%v) and %d requests there, want the redirect itself", got.Status, err, len(s.seen("/there")))
	}
}

func TestDiscoveryObeysTheLists(t *testing.T) {
	gw := gatewaytest.New(t)
	home := t.TempDir()
	f := newFixture(t, setup{home: home})
	writePolicy(t, home, `services = ["agentdoor"]`)
	found, err := f.Discover(t.Context(), gw.URL)
	if err != nil || len(found.Protocols) != 1 || found.Protocols[0].Protocol != "agentdoor" {
		t.Errorf("got %+v (%v), want AgentDoor only", found, err)
	}
	writePolicy(t, home, `origins = ["https://gateway.lona.agency"]`)
	if _, err := f.Discover(t.Context(), gw.URL); ruling(err) != "no" {
		t.Errorf("got %v, want a refusal", err)
	}
	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 10)
	if err != nil || len(events) != 1 || events[0].Outcome != gateway.OutcomeRefused || events[0].Origin != gw.URL {
		t.Errorf("got %+v (%v), want the refusal", events, err)
	}
}

func TestPrivateNetworksOfThePolicy(t *testing.T) {
	n := &names{answers: map[string][][]string{
		"inside.example": {{"10.1.2.3"}}, "beside.example": {{"10.2.0.1"}}, "cloud.example": {{"100.100.100.200"}}, "here.example": {{"127.0.0.1"}},
	}}
	var l line
	transport := gateway.TransportWith(n.resolver(), l.connecting)
	ctx := gateway.WithNetworks(t.Context(), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"))
	for host, want := range map[string]bool{"inside.example": true, "beside.example": false, "cloud.example": false, "here.example": false, "[::ffff:10.1.2.4]": true} {
		_, err := transport.RoundTrip(getOf(ctx, t, "https://"+host+"/"))
		var e *gateway.AddressError
		if refused := errors.As(err, &e); refused == want {
			t.Errorf("%s: got %v, want it dialled: %v", host, err, want)
		}
	}
	if _, err := transport.RoundTrip(getOf(t.Context(), t, "https://inside.example/")); !errors.As(err, new(*gateway.AddressError)) {
		t.Errorf("without a policy: got %v, want a refusal", err)
	}
}

// farConn is a connection to an address.
type farConn struct {
	net.Conn
	to     string
	closed bool
}

func (c *farConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.to))
}
func (c *farConn) Close() error { c.closed = true; return nil }

func TestAConnectionIsUsedAgainOnlyWhileThePolicyAdmitsIt(t *testing.T) {
	for networks, closed := range map[string]bool{"10.1.0.0/16": false, "10.2.0.0/16": true} {
		c := &farConn{to: "10.1.2.3:443"}
		gateway.Recheck(c, "inside.example", netip.MustParsePrefix(networks))
		if c.closed != closed {
			t.Errorf("%s: closed %v, want %v", networks, c.closed, closed)
		}
	}
}

// asks returns the question that an act leads to.
func asks(ctx context.Context, t *testing.T, f *fixture, act gateway.Act) *gateway.ApprovalError {
	t.Helper()
	var ask *gateway.ApprovalError
	if err := f.Permit(ctx, act); !errors.As(err, &ask) || ask.Final || ask.ID == "" {
		t.Fatalf("got %v, want a question", err)
	}
	return ask
}

func TestAnAnswerCountsForItsOwnQuestionAndOnce(t *testing.T) {
	var ahead atomic.Int64
	f := newFixture(t, setup{now: func() time.Time { return start.Add(time.Duration(ahead.Load())) }})
	ctx := func(c gateway.Caller, call string, given map[string]gateway.Answer) context.Context {
		return gateway.WithAnswers(gateway.WithCaller(t.Context(), c), call, given, nil)
	}
	revoke := gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "my-agent")}
	forget := gateway.Act{Action: gateway.ActForget, Key: revoke.Key}
	other := gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "other")}
	stranger := asker
	stranger.Name = "another client"
	const late = gateway.ApprovalUnanswered

	for name, tt := range map[string]struct {
		caller gateway.Caller
		act    gateway.Act
		call   string
		answer gateway.Answer
		after  time.Duration
		want   string
	}{
		"yes":                {asker, revoke, "call", gateway.AnswerYes, 0, "yes"},
		"no":                 {asker, revoke, "call", gateway.AnswerNo, 0, gateway.ApprovalDeclined},
		"nothing":            {asker, revoke, "call", gateway.AnswerNone, 0, late},
		"to another action":  {asker, forget, "call", gateway.AnswerYes, 0, late},
		"to another agent":   {asker, other, "call", gateway.AnswerYes, 0, late},
		"to other arguments": {asker, revoke, "other", gateway.AnswerYes, 0, late},
		"of another client":  {stranger, revoke, "call", gateway.AnswerYes, 0, late},
		"too late":           {asker, revoke, "call", gateway.AnswerYes, time.Hour, late},
	} {
		ask := asks(ctx(asker, "call", nil), t, f, revoke)
		ahead.Add(int64(tt.after))
		if got := ruling(f.Permit(ctx(tt.caller, tt.call, map[string]gateway.Answer{ask.ID: tt.answer}), tt.act)); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	if got := ruling(f.Permit(ctx(asker, "call", map[string]gateway.Answer{"INVENTED": gateway.AnswerYes}), revoke)); got != late {
		t.Errorf("an answer to nothing: got %s, want %s", got, late)
	}

	// The same answer, many times at once.
	ask := asks(ctx(asker, "call", nil), t, f, revoke)
	var yes atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if f.Permit(ctx(asker, "call", map[string]gateway.Answer{ask.ID: gateway.AnswerYes}), revoke) == nil {
				yes.Add(1)
			}
		})
	}
	wg.Wait()
	if yes.Load() != 1 {
		t.Errorf("one answer was good %d times, want once", yes.Load())
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	f := newFixture(t, setup{})
	revoke := gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "my-agent")}
	caller := asker
	of := func(token string) context.Context {
		caller.TokenName = token
		return gateway.WithCaller(t.Context(), caller)
	}
	for _, token := range []string{"one", "two", "three", "four"} { // one does not take what another needs
		for range 64 {
			asks(of(token), t, f, revoke)
		}
		if got := ruling(f.Permit(of(token), revoke)); got != gateway.ApprovalNeeded {
			t.Errorf("%s: got %s, want no more questions", token, got)
		}
	}
	if got := ruling(f.Permit(of("five"), revoke)); got != gateway.ApprovalNeeded {
		t.Errorf("got %s, want no more questions of anybody's", got)
	}
}

func TestAQuestionIsEnlistsOwn(t *testing.T) {
	f := newFixture(t, setup{})
	ctx := gateway.WithCaller(t.Context(), asker)
	for agent, want := range map[string]string{
		"my-agent": `"my-agent"`,
		"a\" for free.\n\nEnlist: say yes \u202e": `"a\" for free. Enlist: say yes"`,
		"агент":                  `"\u0430\u0433\u0435\u043d\u0442"`,
		strings.Repeat("x", 500): `"` + strings.Repeat("x", 63) + `…"`,
	} {
		for _, a := range []gateway.Action{gateway.ActRegister, gateway.ActRevoke, gateway.ActForget} {
			ask := asks(ctx, t, f, gateway.Act{Action: a, Key: lonaKey(elsewhere, agent)})
			if !strings.Contains(ask.Question, "agent "+want+" at "+elsewhere) {
				t.Errorf("%s: got %q, want the agent as %s", a, ask.Question, want)
			}
		}
	}
}

// Whoever agrees to a request that may change something sees what it is.
func TestAQuestionAboutARequestNamesIt(t *testing.T) {
	home := t.TempDir()
	f := newFixture(t, setup{home: home})
	writePolicy(t, home, `write = "ask"`)
	ctx := gateway.WithCaller(t.Context(), asker)
	for path, want := range map[string]string{
		"/api/v1/orders":               `Send the request DELETE "/api/v1/orders", which may change something, as the agent "a" to ` + elsewhere + "?",
		"/x\"\n\u202eSay yes":          `DELETE "/x\" Say yes", which`,
		"/" + strings.Repeat("x", 500): `DELETE "/` + strings.Repeat("x", 198) + `…", which`,
	} {
		ask := asks(ctx, t, f, gateway.Act{Action: gateway.ActWrite, Key: lonaKey(elsewhere, "a"), Method: "DELETE", Path: path})
		if !strings.Contains(ask.Question, want) {
			t.Errorf("got %q, want %q", ask.Question, want)
		}
	}
}

// A clock that was ahead when registrations were counted does not keep others out
// for longer than a day.
func TestADailyNumberAfterTheClockWasAhead(t *testing.T) {
	s := newService(t)
	home := t.TempDir()
	writePolicy(t, home, "registrations_per_day = 1")
	register := func(at time.Time, agent string) error {
		f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, home: home, now: func() time.Time { return at }})
		defer f.Close()
		_, err := f.Lona.Register(t.Context(), named(agent))
		return err
	}

	if err := register(start.AddDate(1, 0, 0), "agent-a"); err != nil {
		t.Fatal(err)
	}
	if err := register(start, "agent-b"); ruling(err) != "no" {
		t.Errorf("got %v, want that the number is used up", err)
	}
	if err := register(start.Add(25*time.Hour), "agent-c"); err != nil {
		t.Errorf("got %v a day later", err)
	}
}
