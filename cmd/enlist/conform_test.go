package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/conform"
)

// graded is a gateway by the clock of a person, who has it graded.
func graded(t *testing.T, p *person, opts ...gatewaytest.Option) *gatewaytest.Gateway {
	t.Helper()
	return gatewaytest.New(t, append([]gatewaytest.Option{gatewaytest.At(p.now), gatewaytest.Standalone()}, opts...)...)
}

// forgetful is a gateway whose rate limits say nothing of when to try again.
func forgetful() gatewaytest.Option {
	return gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(withoutRetryAfter{w}, r)
			})
		}
	})
}

type withoutRetryAfter struct{ http.ResponseWriter }

func (w withoutRetryAfter) WriteHeader(status int) {
	w.Header().Del("Retry-After")
	w.ResponseWriter.WriteHeader(status)
}

// conformed takes out what is another in every run.
func conformed(text, url string) string {
	text = strings.ReplaceAll(text, url, "http://127.0.0.1:8420")
	return regexp.MustCompile(`conform-[0-9a-f]{12}`).ReplaceAllString(text, "conform-NAME")
}

func TestConformReports(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	gw := graded(t, p)
	if code := p.try("conform", gw.URL+"/", "--protocol", "lona"); code != exitOK {
		t.Errorf("exit code %d: %s%s", code, &p.stdout, &p.stderr)
	}
	if !strings.Contains(p.stderr.String(), "this registers agents at "+gw.URL) {
		t.Errorf("it does not say what it does: %s", &p.stderr)
	}
	checkGolden(t, "conform_piped", conformed(p.stdout.String(), gw.URL))

	broken := graded(t, p, forgetful())
	if code := p.try("conform", broken.URL, "--protocol", "lona", "--color", "always"); code != exitFailure {
		t.Errorf("exit code %d for a service that does not do what it must", code)
	}
	checkGolden(t, "conform_broken", conformed(p.stdout.String(), broken.URL))
}

func TestConformAsJSON(t *testing.T) {
	p := newPerson(t)
	gw := graded(t, p, forgetful())
	if code := p.try("conform", gw.URL, "--protocol", "lona", "--json"); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	var got struct {
		OK      bool
		Results []conform.Result
		Left    []string
	}
	if err := json.Unmarshal(p.stdout.Bytes(), &got); err != nil || got.OK || len(got.Left) != 1 || len(got.Results) != len(conform.Checks("lona")) {
		t.Errorf("got %+v (%v)", got, err)
	}
	cmd, _, err := p.program().root().Find([]string{"conform"})
	if err != nil {
		t.Fatal(err)
	}
	_, said, _ := strings.Cut(cmd.Long, "With --json: ")
	names := fields(t, p.stdout.Bytes())
	for _, name := range names {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(said) {
			t.Errorf("the help does not name the field %s", name)
		}
	}
	if !slices.Contains(names, "evidence") {
		t.Errorf("got the fields %q: nothing has failed", names)
	}
}

func TestConformIntoAFile(t *testing.T) {
	p := newPerson(t)
	gw := graded(t, p)
	file := filepath.Join(t.TempDir(), "conform.xml")
	if code := p.try("conform", gw.URL, "--protocol", "lithtrix", "--report", "junit", "--output", file); code != exitOK {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Tests int `xml:"tests,attr"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil || suites.Tests != len(conform.Checks("lithtrix")) || p.stdout.Len() > 0 {
		t.Errorf("got %d tests (%v), and on standard output %q", suites.Tests, err, &p.stdout)
	}
	if !strings.Contains(p.stderr.String(), "0 failed") {
		t.Errorf("it does not say what came of it: %s", &p.stderr)
	}
}

func TestConformCommandLines(t *testing.T) {
	p := newPerson(t)
	asked := false
	gw := graded(t, p, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(http.Handler) http.Handler {
			return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true })
		}
	}))
	for _, tt := range []struct {
		args []string
		said string
	}{
		{[]string{}, "accepts 1 arg(s)"},
		{[]string{gw.URL}, "--protocol: name one of agentdoor, fluxra, lithtrix, lona, lumina"},
		{[]string{gw.URL, "--protocol", "nova"}, `unknown protocol "nova"`},
		{[]string{gw.URL, "--protocol", "lona", "--report", "pdf"}, `--report: "pdf" is neither text nor junit`},
		{[]string{gw.URL, "--protocol", "lona", "--report", "junit", "--json"}, "two forms of one report"},
		{[]string{gw.URL, "--protocol", "lona", "--path", "/x"}, "--path: want a path"},
		{[]string{gw.URL, "--protocol", "agentdoor", "--path", "x"}, "--path: want a path"},
		{[]string{gw.URL, "--protocol", "lona", "--scope", "a=/b"}, "--scope: want a scope and a path"},
		{[]string{gw.URL, "--protocol", "agentdoor", "--scope", "a"}, "--scope: want a scope and a path"},
		{[]string{gw.URL, "--protocol", "lona", "--wait", "-1m"}, "--wait: want a time"},
		{[]string{"https://gateway.example.com", "--protocol", "lona", "--spread-addresses"}, "--spread-addresses: for a gateway on this machine only"},
		{[]string{gw.URL, "--protocol", "lona", "--admin", "http://gateway.example.com"}, "--admin: the operator's token would travel in the clear"},
		{[]string{gw.URL, "--protocol", "lona", "--admin", "http://me:password1@127.0.0.1:1"}, "--admin: want the URL of the operator's listener"},
		{[]string{gw.URL, "--protocol", "lona", "--admin", "127.0.0.1:1"}, "--admin: want the URL of the operator's listener"},
		{[]string{gw.URL, "--protocol", "lona", "--admin", "http://127.0.0.1:1"}, "ENLIST_ADMIN_TOKEN_FILE; enlist gateway admin-token says"},
		{[]string{gw.URL, "--protocol", "lona", "--embedded"}, "--store and --embedded are for"},
		{[]string{"http://gateway.example.com", "--protocol", "lona"}, "would travel in the clear"},
		{[]string{"gateway.example.com", "--protocol", "lona"}, "want the URL of a service"},
		{[]string{gw.URL + "/api", "--protocol", "lona"}, "without a user, a path, a query"},
		{[]string{"http://me:password1@127.0.0.1", "--protocol", "lona"}, "without a user"},
		{[]string{gw.URL, "--protocol", "lona", "--output", filepath.Join(t.TempDir(), "no", "such")}, "--output: "},
	} {
		code := p.try(append([]string{"conform"}, tt.args...)...)
		said := p.stdout.String() + p.stderr.String()
		if code != exitUsage || !strings.Contains(said, tt.said) || strings.Contains(said, "password1") {
			t.Errorf("%q: exit code %d, %s; want %q", tt.args, code, said, tt.said)
		}
	}
	if asked {
		t.Error("the service was asked")
	}
}

// The registration secret goes where it belongs, and is in no report.
func TestConformKeepsTheRegistrationSecret(t *testing.T) {
	secret := strings.Repeat("5e1f0c7a", 8)
	p := newPerson(t)
	p.set["LONA_AGENT_REGISTRATION_SECRET"] = secret
	gw := graded(t, p, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret, "AGENT_INVITE_ENABLED": "false"}))
	if code := p.try("conform", gw.URL, "--protocol", "lona"); code != exitOK {
		t.Errorf("exit code %d: %s%s", code, &p.stdout, &p.stderr)
	}
	out := p.stdout.String() + p.stderr.String()
	if !strings.Contains(out, "pass  secret.issued") || !strings.Contains(out, "invites are switched off") {
		t.Errorf("the partner's way was not graded: %s", out)
	}
	for _, s := range gw.Secrets() {
		if strings.Contains(out, s) {
			t.Error("a secret is in the report")
		}
	}
	for target, want := range map[string]string{
		"https://gateway.lona.agency": secret, "https://gateway.example.com": "", "https://localhost.example.com": "",
		"http://gateway.lona.agency": "", "http://127.0.0.1:1": secret, "http://[::1]:1": secret, "http://localhost:1": secret,
	} {
		if got := p.program().lonaSecretFor(target); got != want {
			t.Errorf("%s is told %q", target, got)
		}
	}
	p.set["LONA_GATEWAY_URL"] = "https://lona.example.com"
	if p.program().lonaSecretFor("https://lona.example.com/") != secret || p.program().lonaSecretFor("https://gateway.lona.agency") != "" {
		t.Error("LONA_GATEWAY_URL does not say where Lona is")
	}
}

// operatorOf serves the operator's listener of a gateway, and returns its URL and
// the token for it.
func operatorOf(t *testing.T, p *person, gw *gatewaytest.Gateway) (string, string) {
	t.Helper()
	token := strings.Repeat("an-operators-token-", 3)
	h, err := admin.New(admin.Config{
		Gateway: gw.Embedded(), Now: gw.Clock.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler), PublicURL: gw.URL,
		Tokens: func() ([][32]byte, error) { return [][32]byte{sha256.Sum256([]byte(token))}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.set["ENLIST_ADMIN_TOKEN_FILE"] = file
	return s.URL, token
}

// TestConformAsTheOperator: with what an operator can see and do, only what takes
// time is left.
func TestConformAsTheOperator(t *testing.T) {
	p := newPerson(t)
	gw := graded(t, p, gatewaytest.TrustedProxies(netip.MustParsePrefix("127.0.0.0/8")), gatewaytest.Env(map[string]string{"AGENTDOOR_RATE_LIMIT": "40/1h"}))
	operator, token := operatorOf(t, p, gw)
	for _, protocol := range conform.Protocols() {
		code := p.try("conform", gw.URL, "--protocol", protocol, "--admin", operator, "--spread-addresses", "--exhaust-limits", "--json")
		var report conform.Report
		if err := json.Unmarshal(p.stdout.Bytes(), &report); err != nil || code != exitOK {
			t.Fatalf("%s: exit code %d, %v: %s%s", protocol, code, err, &p.stdout, &p.stderr)
		}
		suspended := false
		for _, r := range report.Results {
			suspended = suspended || r.ID == "suspended.refused" && r.Outcome == conform.Pass
			mine := strings.Contains(r.Reason, "it takes ") || strings.Contains(r.Reason, "registration secret") || strings.Contains(r.Reason, "--scope")
			if r.Outcome == conform.Skip && !mine || r.Outcome == conform.Fail {
				t.Errorf("%s: %s: %s %s", protocol, r.ID, r.Outcome, r.Reason)
			}
		}
		if out := p.stdout.String() + p.stderr.String(); !suspended || strings.Contains(out, token) {
			t.Errorf("%s: suspended %v, or the token is printed: %s", protocol, suspended, out)
		}
	}

	// Not with another's token, and then nothing is registered.
	p.set["ENLIST_ADMIN_TOKEN"] = strings.Repeat("x", 40)
	before := len(gw.Audit(t))
	if code := p.try("conform", gw.URL, "--protocol", "lona", "--admin", operator); code != exitUsage ||
		!strings.Contains(p.stderr.String(), "--admin: the token is not that of "+operator) {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	for _, e := range gw.Audit(t)[before:] {
		if e.Protocol == "lona" {
			t.Errorf("it registered all the same: %+v", e)
		}
	}
}

// TestConformSaysWhatItDidNotGrade: at the end, together, with the reason.
func TestConformSaysWhatItDidNotGrade(t *testing.T) {
	p := newPerson(t)
	gw := graded(t, p)
	p.try("conform", gw.URL, "--protocol", "fluxra")
	_, end, _ := strings.Cut(p.stdout.String(), "\nnot graded\n")
	for _, want := range []string{
		"  it needs a mailbox: --admin names the listener that shows the outbox: mail.registered, verify.race, verify.ok, ",
		"  only the operator can suspend an agent: --admin names their listener: suspended.refused\n",
		"  it takes an hour until that happens; see --wait: token.expires\n",
		"  it uses a limit up: --exhaust-limits does so: token.limit, ",
	} {
		if !strings.Contains(end, want) {
			t.Errorf("there is no %q in:\n%s", want, end)
		}
	}
}
