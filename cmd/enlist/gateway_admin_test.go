package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestAddressOfTheOperatorsPage(t *testing.T) {
	for text, want := range map[string]string{
		"8421": "127.0.0.1:8421", ":8421": "127.0.0.1:8421", "127.0.0.1:1": "127.0.0.1:1", "0.0.0.0:8421": "0.0.0.0:8421",
		"[::1]:8421": "[::1]:8421", "host:1": "host:1", "off": "off",
	} {
		if got, err := adminAddress(text); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":", ":70000", "nonsense"} {
		if _, err := adminAddress(text); err == nil {
			t.Errorf("%q: got no error", text)
		}
	}
}

func TestTheOperatorsPageDoesWithoutAnAddressThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	ln, err := listenAdmin(t.Context(), log, "--admin-listen", taken.Addr().String(), false)
	if ln != nil || err != nil || !strings.Contains(said.String(), "--admin-listen off") {
		t.Errorf("one that nobody asked for: %v, %v, %s", ln, err, &said)
	}
	if _, err = listenAdmin(t.Context(), log, "ENLIST_ADMIN_LISTEN", taken.Addr().String(), true); err == nil || !strings.Contains(err.Error(), "ENLIST_ADMIN_LISTEN") {
		t.Errorf("one that was asked for: %v", err)
	}
}

func TestTheOperatorsPageNeedsATokenWithPostgreSQL(t *testing.T) {
	_, err := (&gatewaySettings{}).adminToken("postgres://user:password@host/gateway")
	if err == nil || !strings.Contains(err.Error(), "ENLIST_ADMIN_TOKEN_FILE") || !strings.Contains(err.Error(), "--admin-listen off") || strings.Contains(err.Error(), "password") {
		t.Errorf("got %v", err)
	}
}

// TestTheOperatorsPageIsServed: by the program itself, until it ends, with the
// token that lies beside the database, for as long as it lies there.
func TestTheOperatorsPageIsServed(t *testing.T) {
	dir := t.TempDir()
	stderr, said := io.Pipe()
	p := &program{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: said, now: time.Now,
		env: func(name string) string { return map[string]string{"ENLIST_HOME": dir}[name] },
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- p.run(ctx, []string{"gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--admin-host", "gateway.example.com"})
		_ = said.Close()
	}()
	lines := make(chan string, 1)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for sent := false; ; {
			n, err := stderr.Read(buf)
			all.Write(buf[:n])
			if m := regexp.MustCompile(`page is at (http://\S+),`).FindStringSubmatch(all.String()); m != nil && !sent {
				lines <- m[1]
				sent = true
			}
			if err != nil {
				return
			}
		}
	}()
	base := <-lines
	path := filepath.Join(dir, "gateway.db.admin-token")
	token, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(token, host string) int {
		req, err := http.NewRequest("GET", base+"/api/v1/agents", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	first := strings.TrimSpace(string(token))
	for host, want := range map[string]int{"": 200, "gateway.example.com": 200, "other.example.com": 421} {
		if got := ask(first, host); got != want {
			t.Errorf("as %q: got %d, want %d", host, got, want)
		}
	}
	resp, err := client.PostForm(base+"/sign-in", url.Values{"token": {first}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Errorf("sign in: got %d, %v", resp.StatusCode, resp.Cookies())
	}

	rotate := &program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: time.Now, env: p.env}
	if code := rotate.run(ctx, []string{"gateway", "admin-token", "rotate"}); code != exitOK {
		t.Fatalf("rotate: got %d", code)
	}
	if got := ask(first, ""); got != http.StatusUnauthorized {
		t.Errorf("the token before: got %d", got)
	}
	token, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(strings.TrimSpace(string(token)), ""); got != http.StatusOK {
		t.Errorf("the token after: got %d", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := ask(first, ""); got != http.StatusServiceUnavailable {
		t.Errorf("without a token: got %d", got)
	}
	client.CloseIdleConnections()
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("it ended with %d", code)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(base, "http://")); err == nil {
		t.Error("the page is still there")
	}
}
