package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is what a test moves on.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// atHome returns a program with a home, a clock and nothing else.
func atHome(home string, c *clock, stdout, stderr io.Writer) *program {
	return &program{
		stdin: strings.NewReader(""), stdout: stdout, stderr: stderr,
		env: func(name string) string {
			return map[string]string{"ENLIST_HOME": home, "ENLIST_STORE": "memory"}[name]
		},
		environ: func() []string { return nil },
		now:     c.now,
	}
}

// ran runs a command and returns what it printed.
func ran(t *testing.T, home string, c *clock, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	if code := atHome(home, c, &stdout, &stderr).run(t.Context(), args); code != exitOK {
		t.Fatalf("%q: exit code %d: %s", args, code, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

// A token that expires, or is revoked by another process, ends at once what was
// begun with it, while the server runs.
func TestTokensEndWhileTheServerRuns(t *testing.T) {
	home, c := t.TempDir(), newClock()
	soon := ran(t, home, c, "token", "add", "soon", "--expires", "1h")
	later := ran(t, home, c, "token", "add", "later")

	stderr, said := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- atHome(home, c, io.Discard, said).run(ctx, []string{"mcp", "--http", "127.0.0.1:0"})
		said.Close()
	}()
	lines := bufio.NewScanner(stderr)
	var url string
	for url == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	defer func() {
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("the server ended with %d", code)
		}
	}()

	ask := func(method, token, session string) *http.Response {
		t.Helper()
		body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
		within, cancel := context.WithTimeout(t.Context(), stopTime) // which only a hang exceeds
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(within, method, url+"/mcp", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Mcp-Session-Id", session)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	streams := map[string]*http.Response{}
	for name, token := range map[string]string{"soon": soon, "later": later} {
		begun := ask(http.MethodPost, token, "")
		streams[name] = ask(http.MethodGet, token, begun.Header.Get("Mcp-Session-Id"))
		if streams[name].StatusCode != http.StatusOK {
			t.Fatalf("%s: got %s, want a stream", name, streams[name].Status)
		}
	}

	c.advance(time.Hour - time.Second)
	if got := ask(http.MethodPost, soon, ""); got.StatusCode != http.StatusOK {
		t.Errorf("a second before it expires: got %s, want 200", got.Status)
	}
	c.advance(time.Second)
	if got := ask(http.MethodPost, soon, ""); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("when it expires: got %s, want 401", got.Status)
	}
	if _, err := io.ReadAll(streams["soon"].Body); err != nil {
		t.Errorf("its stream: %v, want its end", err)
	}
	if !strings.Contains(ran(t, home, c, "token", "list"), "soon   expired") {
		t.Error("the list does not say that it has expired")
	}
	if got := ask(http.MethodPost, later, ""); got.StatusCode != http.StatusOK {
		t.Errorf("the other: got %s, want 200", got.Status)
	}
	ran(t, home, c, "token", "revoke", "later")
	if got := ask(http.MethodPost, later, ""); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("revoked: got %s, want 401", got.Status)
	}
	if _, err := io.ReadAll(streams["later"].Body); err != nil {
		t.Errorf("its stream: %v, want its end", err)
	}
}

// Of several processes that change the tokens at once none undoes what another does.
func TestTokensAreAddedByManyAtOnce(t *testing.T) {
	home, c := t.TempDir(), newClock()
	var mu sync.Mutex
	made := map[string]string{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("t%d-%d", i, j)
				token := ran(t, home, c, "token", "add", name)
				if j == 4 {
					ran(t, home, c, "token", "revoke", fmt.Sprintf("t%d-0", i))
				}
				mu.Lock()
				made[name] = token
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all, err := atHome(home, c, io.Discard, io.Discard).tokens()
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range made {
		who, ok := all.verify(token)
		if gone := strings.HasSuffix(name, "-0"); ok == gone || ok && (who.Name != name || !all.good(who)) {
			t.Errorf("%s: got %+v, %t", name, who, ok)
		}
	}
	if left, err := filepath.Glob(filepath.Join(home, "mcp-tokens.json-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// closed is a standard output that nobody reads.
type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestATokenThatNobodySawIsRevoked(t *testing.T) {
	home, c := t.TempDir(), newClock()
	var stderr strings.Builder
	if code := atHome(home, c, closed{}, &stderr).run(t.Context(), []string{"token", "add", "lost"}); code != exitFailure {
		t.Errorf("got exit code %d", code)
	}
	if !strings.Contains(stderr.String(), "is revoked") {
		t.Errorf("got %q", stderr.String())
	}
	if got := ran(t, home, c, "token", "list"); !strings.Contains(got, "There is no token") {
		t.Errorf("got %s", got)
	}
}

// A token of the same name is another one: who came with the first stays out.
func TestATokenOfTheSameNameIsAnother(t *testing.T) {
	home, c := t.TempDir(), newClock()
	first := ran(t, home, c, "token", "add", "x")
	all, err := atHome(home, c, io.Discard, io.Discard).tokens()
	if err != nil {
		t.Fatal(err)
	}
	who, ok := all.verify(first)
	if !ok || !all.good(who) {
		t.Fatal("the token is not good")
	}
	ran(t, home, c, "token", "revoke", "x")
	second := ran(t, home, c, "token", "add", "x", "--expires", "never")
	if _, ok := all.verify(first); ok || all.good(who) {
		t.Error("the first is good still")
	}
	if again, ok := all.verify(second); !ok || again == who {
		t.Errorf("the second: got %+v, %t", again, ok)
	}
	if _, err := os.Stat(filepath.Join(home, "mcp-token")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a default token was made: %v", err)
	}
	if _, ok := all.verify(""); ok {
		t.Error("no token is one")
	}
}
