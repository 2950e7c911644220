package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// conformanceVariable names the folder with the official conformance suite,
// installed.
const conformanceVariable = "ENLIST_TEST_CONFORMANCE"

// The two versions of the suite, as .ci/conformance names them.
const (
	suite01 = "conformance-0.1"
	suite02 = "conformance-0.2"
)

// TestConformance runs the official conformance suite against `enlist mcp --http`
// with the tools, resources and prompts that its scenarios ask for, so that every
// one of them runs. What it is expected to find is in .ci/conformance.
func TestConformance(t *testing.T) {
	t.Parallel()
	dir := conformanceDir(t)
	program := filepath.Join(t.TempDir(), "enlist.exe") // Windows wants the ending, others do not mind it
	inTree(t, root, "build", "-tags", "conformance", "-o", program, "./cmd/enlist")
	url := withBearer(t, serveMCP(t, program, t.TempDir(), nil, "--embedded"))
	for name, tc := range map[string]struct {
		suite string
		args  []string
	}{
		"0.1.16":     {suite01, []string{"--suite", "active"}},
		"2025-11-25": {suite02, []string{"--requirements", "2025-11-25"}},
		"2026-07-28": {suite02, []string{"--requirements", "2026-07-28"}},
	} {
		t.Run(name, func(t *testing.T) {
			expected := filepath.Join(dir, "expected-"+name+".yml")
			conforms(t, dir, tc.suite, append(tc.args, "--url", url, "--expected-failures", expected)...)
		})
	}
}

// TestConformanceOfWhatIsShipped runs those scenarios that need nothing but what
// every server has, against the program as it is.
func TestConformanceOfWhatIsShipped(t *testing.T) {
	t.Parallel()
	dir := conformanceDir(t)
	url := withBearer(t, serveMCP(t, "enlist", t.TempDir(), nil, "--embedded"))
	both := []string{"tools-list", "server-sse-multiple-streams", "dns-rebinding-protection"}
	for revision, scenarios := range map[string][]string{
		"2025-11-25": append([]string{"server-initialize", "ping", "server-session-lifecycle"}, both...),
		"2026-07-28": append([]string{"http-header-validation", "input-required-result-unsupported-methods"}, both...),
	} {
		for _, scenario := range scenarios {
			t.Run(revision+" "+scenario, func(t *testing.T) {
				conforms(t, dir, suite02, "--spec-version", revision, "--scenario", scenario, "--url", url)
			})
		}
	}
}

// TestNothingOfTheSuiteIsShipped: without the build tag there is none of it.
func TestNothingOfTheSuiteIsShipped(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "enlist", "call", "--embedded", "test_simple_text")
	cmd.Env = homeEnv(t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `no tool "test_simple_text"`) {
		t.Errorf("got %s, %v, want that there is no such tool", out, err)
	}
}

// conformanceDir returns the folder with the suite.
func conformanceDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(conformanceVariable)
	if dir == "" {
		t.Skip("the npm packages of .ci/conformance are not installed; .ci/run installs them")
	}
	return dir
}

// conforms runs the suite; if it finds what is not expected, it shows everything
// that failed and what it warns of.
func conforms(t *testing.T, dir, suite string, args ...string) {
	t.Helper()
	results := t.TempDir()
	modules := filepath.Join(dir, "node_modules")
	cmd := exec.CommandContext(t.Context(), filepath.Join(modules, ".bin", "node"), append([]string{filepath.Join(modules, suite, "dist", "index.js"), "server", "--output-dir", results}, args...)...)
	out, err := cmd.CombinedOutput()
	files, globErr := filepath.Glob(filepath.Join(results, "*", "checks.json"))
	if globErr != nil {
		t.Fatal(globErr)
	}
	checks := 0
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(filepath.Dir(file)), "server-tasks-") {
			continue // an extension, which is not offered: it is run, and does not count
		}
		text, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		var list []struct {
			ID, Status, Description, ErrorMessage string
			Details                               json.RawMessage
		}
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatal(err)
		}
		checks += len(list)
		for _, c := range list {
			if err != nil && (c.Status == "FAILURE" || c.Status == "WARNING") {
				t.Logf("%s %s %s: %s: %s\n%.2000s", filepath.Base(filepath.Dir(file)), c.ID, c.Status, c.Description, c.ErrorMessage, c.Details)
			}
		}
	}
	if err != nil {
		_, summary, found := strings.Cut(string(out), "=== SUMMARY")
		if !found {
			summary = string(out)
		}
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, summary)
	}
	if checks == 0 {
		t.Errorf("%s: it checked nothing:\n%s", strings.Join(args, " "), out)
	}
}

// mcpServer is a running `enlist mcp --http`.
type mcpServer struct{ url, token string }

// serveMCP runs `enlist mcp --http` until the test ends, in a home and with
// settings of its own.
func serveMCP(t *testing.T, program, home string, env []string, args ...string) mcpServer {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, append([]string{"mcp", "--http", "127.0.0.1:0"}, args...)...)
	cmd.Env = homeEnv(home, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, said, ended := make(chan string, 1), new(bytes.Buffer), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(found)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(said, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
				break
			}
		}
		_, _ = io.Copy(said, stderr) // it ends with the program
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		late := time.AfterFunc(stopTime, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("enlist mcp: %v\n%s", err, said)
		}
		keepForScan(t, home)
	})
	url, ok := <-found
	if !ok {
		t.Fatalf("enlist mcp ended before it was listening:\n%s", said)
	}
	token, err := os.ReadFile(filepath.Join(home, "enlist", "mcp-token"))
	if err != nil {
		t.Fatal(err)
	}
	return mcpServer{url: url, token: strings.TrimSpace(string(token))}
}

// homeEnv is the environment of a program with a home of its own.
func homeEnv(home string, more ...string) []string {
	return append(append(os.Environ(), more...), "HOME="+home, "ENLIST_HOME="+filepath.Join(home, "enlist"), "ENLIST_STORE=file",
		"XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "AppData="+home, "LocalAppData="+home, leakscan.Variable+"="+os.Getenv(leakscan.Variable))
}

// withBearer returns the address of a proxy that adds the token to every request,
// and changes nothing else: the suite has no way to send one, and the guard of the
// server is to stay.
func withBearer(t *testing.T, s mcpServer) string {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	next := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Authorization", "Bearer "+s.token)
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The body first: else the proxy closes the connection when the answer
		// comes before it has seen the end of the question.
		body, err := io.ReadAll(r.Body)
		if err != nil && !errors.Is(err, io.EOF) {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL + "/mcp"
}

// TestOthersClientsAreNotLinked: the SDK that the tests use is not in the program.
func TestOthersClientsAreNotLinked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil || !bytes.Contains(out, []byte("github.com/mark3labs/mcp-go/server")) {
		t.Fatalf("%v in %s", err, out)
	}
	if bytes.Contains(out, []byte("modelcontextprotocol/go-sdk")) {
		t.Error("the official Go SDK is linked into the program")
	}
}
