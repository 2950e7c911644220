package main

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
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
