package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// peersVariable names the folder with other people's programs, installed.
const peersVariable = "ENLIST_TEST_PEERS"

// bundled is where .ci/peers puts what cannot be run before it is bundled.
const bundled = "node_modules/.bundle/"

// peerCommand returns the command of one of other people's programs.
func peerCommand(ctx context.Context, t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	dir := os.Getenv(peersVariable)
	if dir == "" {
		t.Skip("the npm packages of .ci/peers are not installed; .ci/run installs them")
	}
	return exec.CommandContext(ctx, "node", append([]string{filepath.Join(dir, script)}, args...)...)
}

// peerServer runs one of other people's servers until the test ends, and
// returns its URL.
func peerServer(t testing.TB, script string) string {
	t.Helper()
	cmd := peerCommand(context.WithoutCancel(t.Context()), t, script) // that one ends before the cleanup
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(stdout).ReadString('\n')
	t.Cleanup(func() {
		if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil { // it ends with its standard input
			t.Errorf("%s: %v\n%s", script, err, stderr.String())
		}
	})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return strings.TrimSpace(url)
}

// peer runs one of other people's programs, and reads the JSON objects that it
// prints, one a line.
func peer[Line any](t *testing.T, script string, args ...string) []Line {
	t.Helper()
	return peerIn[Line](t, nil, script, args...)
}

// peerIn is peer with an environment; nil: that of the test.
func peerIn[Line any](t *testing.T, env []string, script string, args ...string) []Line {
	t.Helper()
	cmd := peerCommand(t.Context(), t, script, args...)
	cmd.Env = env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", script, err, stdout.String(), stderr.String())
	}
	var lines []Line
	for line := range bytes.Lines(stdout.Bytes()) {
		var l Line
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v in %q", script, err, line)
		}
		lines = append(lines, l)
	}
	return lines
}

// TestLuminaTakesWhatEthersSigns has wallets of ethers onboard, with the address
// in every spelling.
func TestLuminaTakesWhatEthersSigns(t *testing.T) {
	type line struct {
		Name   string
		Status int
		Code   string
		Wallet bool // the answer has the address in lower case
		Keys   int  // the status with the key
	}
	want := []line{
		{"checksummed", 201, "", true, 200},
		{"lower case", 201, "", true, 200},
		{"upper case", 201, "", true, 200},
		{"wrong checksum", 400, "invalid_body", false, 0},
		{"message with another spelling", 401, "invalid_signature", false, 0},
		{"signature in upper case", 201, "", true, 200},
		{"v of 0 or 1", 201, "", true, 200},
		{"compact signature", 400, "invalid_body", false, 0},
	}
	gw := gatewaytest.New(t)
	got := peer[line](t, "lumina-onboard.mjs", gw.URL)
	if len(got) != len(want) {
		t.Fatalf("got %d answers, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

// agentDoorLine is what the agent of .ci/peers prints of a step.
type agentDoorLine struct {
	Step   string
	Status int
	Code   string
	Fields []string
	OK     bool
}

// registersAtAgentDoor has an agent that uses the protocol's own library register
// at a service, and use what it is issued on one of its routes.
func registersAtAgentDoor(t *testing.T, url, route string) {
	t.Helper()
	want := []agentDoorLine{
		{Step: "discovery", Status: 200},
		{Step: "register", Status: 201, Fields: []string{"agent_id", "challenge"}},
		{Step: "challenge", OK: true},
		{Step: "verify by another key", Status: 400, Code: "invalid_signature"},
		{Step: "verify", Status: 200, Fields: []string{"agent_id", "api_key", "rate_limit", "scopes_granted", "token", "token_expires_at"}},
		{Step: "verify again", Status: 404, Code: "not_found"},
		{Step: "register again", Status: 409, Code: "already_registered", Fields: []string{"agent_id", "error", "message"}},
		{Step: "auth", Status: 200, Fields: []string{"expires_at", "token"}},
		{Step: "with the api key", Status: 200},
		{Step: "with the first token", Status: 200},
		{Step: "with the next token", Status: 200},
		{Step: "with nothing", Status: 401},
	}
	got := peer[agentDoorLine](t, bundled+"agentdoor-agent.cjs", url, route)
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %d lines", got, len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Step != w.Step || g.Status != w.Status || w.Code != "" && g.Code != w.Code || g.OK != w.OK || w.Fields != nil && !slices.Equal(g.Fields, w.Fields) {
			t.Errorf("got %+v, want %+v", g, w)
		}
	}
}

// TestTheAgentDoorOfOthersIsOne: the agent and the service of .ci/peers, which
// stand for all others, understand each other.
func TestTheAgentDoorOfOthersIsOne(t *testing.T) {
	registersAtAgentDoor(t, peerServer(t, bundled+"agentdoor-server.cjs"), "/whoami")
}

// TestEnlistRegistersAtTheAgentDoorOfOthers: with the service of .ci/peers, and
// again after a crash that left nothing but the key pair.
func TestEnlistRegistersAtTheAgentDoorOfOthers(t *testing.T) {
	url := peerServer(t, bundled+"agentdoor-server.cjs")
	store := credstore.NewMemory(time.Now)
	c, err := gateway.New(gateway.Options{Store: store, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	agent := gateway.AgentDoorRegistration{ServiceURL: url, AgentName: "scout", Metadata: map[string]any{"framework": "x"}}
	works := func() gateway.AgentDoorRegistered {
		done, err := c.AgentDoor.Register(t.Context(), agent)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Lifecycle.Do(t.Context(), done.Key, gateway.Request{Method: "GET", Path: "/whoami"})
		if err != nil || r.Status != 200 || !strings.Contains(string(r.Body), done.Attrs["agent_id"]) {
			t.Errorf("got %d %s (%v), want the agent", r.Status, r.Body, err)
		}
		return done
	}
	first := works()
	if got, want := gateway.Permissions(first.Info), []string{"weather.read", "forecast.read"}; !slices.Equal(got, want) {
		t.Errorf("granted %v, want %v", got, want)
	}
	if err := c.AgentDoor.Renew(t.Context(), first.Key); err != nil {
		t.Errorf("renew: %v", err)
	}
	for _, behind := range c.AgentDoor.Dependents(first.Key) {
		if err := store.Delete(t.Context(), behind); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := store.Get(t.Context(), first.Key)
	if err != nil {
		t.Fatal(err)
	}
	pair.State, pair.Attrs = credstore.StatePending, nil
	if err := store.Put(t.Context(), pair); err != nil {
		t.Fatal(err)
	}
	if again := works(); again.Reused || again.Attrs["agent_id"] != first.Attrs["agent_id"] {
		t.Errorf("after a crash: got %+v, want the same agent", again)
	}
	agent.AgentName, agent.Scopes = "other", []string{"no.such"}
	var e *gateway.Error
	if _, err := c.AgentDoor.Register(t.Context(), agent); !errors.As(err, &e) || e.Code != gateway.CodeNoScope {
		t.Errorf("got %v, want the scope refused", err)
	}
}
