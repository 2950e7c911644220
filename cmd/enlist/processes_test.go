package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// TestTwoProcessesRegisterOnce has two programs register one agent at once.
// The gateway holds the first registration until the second program says that
// it waits: one registers, both end with what that stored.
func TestTwoProcessesRegisterOnce(t *testing.T) {
	release := make(chan struct{})
	gw := gatewaytest.New(t, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == wire.LonaRegisterPath {
					select {
					case <-release:
					case <-r.Context().Done():
					}
				}
				h.ServeHTTP(w, r)
			})
		}
	}))
	home := t.TempDir()
	t.Cleanup(func() { keepForScan(t, home) })
	waiting := make(chan struct{}, 4)
	results := make([]map[string]any, 2)
	var running sync.WaitGroup
	for i := range results {
		running.Go(func() { results[i] = registerInProcess(t, home, gw.URL, waiting) })
	}
	<-waiting
	close(release)
	running.Wait()

	reused := 0
	for _, r := range results {
		if r["handle"] != "lona/my-agent" || r["state"] != "active" {
			t.Errorf("got %v, want lona/my-agent, active", r)
		}
		if r["reused"] == true {
			reused++
		}
	}
	if reused != 1 {
		t.Errorf("%d of the two say that they reused what was stored, want 1", reused)
	}
	issued := 0
	for _, e := range gw.Audit(t) {
		if e.Name == "token_issued" || e.Name == "token_rotated" {
			issued++
		}
	}
	if issued != 1 {
		t.Errorf("the gateway issued %d tokens, want 1", issued)
	}
}

// registerInProcess runs the program, sends to waiting when it says that it
// waits for another one, and returns its result.
func registerInProcess(t *testing.T, home, url string, waiting chan<- struct{}) map[string]any {
	defer func() { waiting <- struct{}{} }() // whatever happens, the test goes on
	cmd := exec.CommandContext(t.Context(), "enlist", "--verbose", "call", "lona_register_agent",
		`{"agent_id":"my-agent","agent_name":"My Agent"}`)
	cmd.Env = append(os.Environ(),
		"ENLIST_HOME="+filepath.Join(home, "enlist"), "HOME="+home, "XDG_CONFIG_HOME=", "AppData="+home,
		"ENLIST_STORE=file", "LONA_GATEWAY_URL="+url,
		leakscan.Variable+"="+os.Getenv(leakscan.Variable))
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	var log strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "waiting for another enlist process") && strings.Contains(lines.Text(), "agent=my-agent") {
			waiting <- struct{}{}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("enlist: %v\n%s%s", err, stdout.String(), log.String())
	}
	var result map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		t.Errorf("the result is not JSON: %v\n%s", err, stdout.String())
	}
	return result
}
